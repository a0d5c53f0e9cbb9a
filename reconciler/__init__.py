"""The control plane: it makes true what the state repo says. ``docs/architecture.md`` shows the way of a commit."""
