"""Observed state, outbox and events. SQLite is the embedded engine."""
