"""Shapes that the control plane and the agent share: documents of the state repo, messages, answers of the API."""
