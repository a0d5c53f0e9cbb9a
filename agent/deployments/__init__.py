"""Drivers that turn the deployments of the document into running things."""
