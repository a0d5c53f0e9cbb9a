"""What is said of a deployment that no driver is told of yet."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Standby(NamedTuple):
    """It cannot be run yet, or not here; what runs of it stays."""

    state: Literal["Progressing", "Failed"]
    reason: str
    message: str
