"""HTTP: the API, webhooks, streams and pages."""
