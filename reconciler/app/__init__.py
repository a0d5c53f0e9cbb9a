"""The composition root: builds every part, owns every task, and ends them in order.

Start: lock the data directory · keys · store · listen · then, side by side: the loop (which first takes up what was
published before), the outbox, the server, housekeeping. The first of these to end ends the whole.
"""

from reconciler.app.running import ControlPlane, control_plane, serve

__all__ = ["ControlPlane", "control_plane", "serve"]
