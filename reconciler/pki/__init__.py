"""Keys: where they are kept, what they sign and open."""
