"""What touches Traefik: preflight, publication and read-back."""
