"""Which part of the requests each server of a service gets, read off what fronts are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.desired.traefik_model import TraefikObjects

Values = Mapping[tuple[str, str], Any]
"""Section and name → value."""


def values_of(objects: TraefikObjects) -> Values:
    """Return the objects of a route by section and name."""
    return {(one.section, one.name): one.value for one in objects}


def shares(values: Values, section: str, name: str) -> dict[str, float]:
    """Return ``host:port`` → part of the requests, which together make 1; empty where no server gets any.

    A server or member of weight 0 gets none. A member of a weighted service whose own servers are all out loses its
    part, and keeps it where the fronts are told nothing of that.
    """
    service = values.get((section, name), {})
    if "weighted" in service:
        return _of_members(values, section, service["weighted"]["services"])
    found: dict[str, float] = {}
    for server in service.get("loadBalancer", {}).get("servers", ()):
        address = server.get("address") or server["url"].partition("://")[2]
        found[address] = found.get(address, 0.0) + server.get("weight", 1)
    return _normal(found)


def _of_members(values: Values, section: str, members: list[Mapping[str, Any]]) -> dict[str, float]:
    total = sum(member["weight"] for member in members)
    found: dict[str, float] = {}
    for member in members if total else ():
        for address, part in shares(values, section, member["name"]).items():
            found[address] = found.get(address, 0.0) + part * member["weight"] / total
    return {address: part for address, part in found.items() if part}


def _normal(found: Mapping[str, float]) -> dict[str, float]:
    total = sum(found.values())
    return {address: weight / total for address, weight in found.items() if weight} if total else {}
