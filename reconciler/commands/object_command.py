"""``cloudlunacy object``."""

from __future__ import annotations

from reconciler.commands.change_command import add_object_parser as add_parser

__all__ = ["add_parser"]
