"""Notices and what is kept of conditions, as JSON. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from reconciler.notifications.conditions import Condition, Kept, Notice, Told


def kept_to(one: Kept) -> dict[str, Any]:
    """Return JSON for :func:`kept_from`."""
    return asdict(one)


def kept_from(document: Mapping[str, Any]) -> Kept:
    """Return what :func:`kept_to` wrote."""
    told = {str(channel): Told(**said) for channel, said in document["told"].items()}
    return Kept(Condition(**document["condition"]), document["since"], document["gone"], told)


def notice_to(one: Notice) -> dict[str, Any]:
    """Return JSON for :func:`notice_from`."""
    return asdict(one)


def notice_from(document: Mapping[str, Any]) -> Notice:
    """Return what :func:`notice_to` wrote."""
    return Notice(**{**document, "condition": Condition(**document["condition"])})
