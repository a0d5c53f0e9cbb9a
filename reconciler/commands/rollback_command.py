"""``cloudlunacy rollback``."""

from __future__ import annotations

from reconciler.commands.change_command import add_rollback_parser as add_parser

__all__ = ["add_parser"]
