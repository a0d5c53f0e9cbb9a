"""The dashboard: pages for people, drawn on the server from the API's own models (docs/dashboard.md)."""
