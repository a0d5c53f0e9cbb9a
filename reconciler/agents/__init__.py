"""Agents as the control plane sees them: enrolment, tokens, sessions and the hub."""
