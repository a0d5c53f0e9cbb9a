"""A front's file in parts, so that composing it after a change costs no more than the part in which the change lies.

A part holds the routes of one team: their fragments, and per section the text that these make together. A composition
is a value; the next one shares every part that did not change. Nothing here ever joins the whole file: copying ten
megabytes takes longer than the rest of a commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from reconciler.desired.traefik_model import Section
from schemas.objects import ObjectKey

Texts = Mapping[Section, bytes]
"""Section → lines, without the last line's end."""


@dataclass(frozen=True, slots=True)
class Fragments:
    """Rendered objects: section → name → one indented line of YAML, without its line end."""

    sections: Mapping[Section, Mapping[str, str]]


class RenderedRoute(NamedTuple):
    """``tls_entry_point``: the TCP entry point on which the route reads TLS names, None where it does not."""

    fragments: Fragments
    tls_entry_point: str | None = None


class NameTaken(Exception):
    """Two objects share section and name."""


@dataclass(frozen=True, slots=True)
class Part:
    """The routes of one team, by name."""

    routes: Mapping[str, RenderedRoute]
    texts: Texts
    tls_entry_points: frozenset[str]


@dataclass(frozen=True, slots=True)
class Composition:
    """Everything that fronts serve for teams."""

    parts: Mapping[str, Part] = field(default_factory=dict)
    """By team, in order of name."""

    def get(self, key: ObjectKey) -> Fragments | None:
        part = self.parts.get(key.team) if key.kind == "Route" else None
        route = part.routes.get(key.name) if part is not None else None
        return None if route is None else route.fragments

    def __len__(self) -> int:
        return sum(len(part.routes) for part in self.parts.values())

    @property
    def texts(self) -> tuple[Texts, ...]:
        return tuple(part.texts for part in self.parts.values())

    @property
    def tls_entry_points(self) -> frozenset[str]:
        return frozenset().union(*(part.tls_entry_points for part in self.parts.values()))

    def replaced(self, changes: Mapping[ObjectKey, RenderedRoute | None]) -> Composition:
        """Return the composition with these routes in place of their former selves; None takes one out.

        Raises:
            NameTaken: when two routes of a team hold an object of the same section and name.
        """
        by_team: dict[str, dict[str, RenderedRoute | None]] = {}
        for key, route in changes.items():
            by_team.setdefault(key.team, {})[key.name] = route
        parts = dict(self.parts)
        for team, changed in by_team.items():
            former = parts.pop(team, None)
            routes = {**(former.routes if former is not None else {}), **changed}
            left = {name: route for name, route in sorted(routes.items()) if route is not None}
            if left:
                parts[team] = _part(left)
        return Composition(dict(sorted(parts.items())))


def _part(routes: Mapping[str, RenderedRoute]) -> Part:
    points = (route.tls_entry_point for route in routes.values())
    return Part(
        routes,
        joined(route.fragments for route in routes.values()),
        frozenset(point for point in points if point is not None),
    )


def joined(fragments: Iterable[Fragments]) -> Texts:
    """Join fragments in their order.

    Raises:
        NameTaken: when two of them hold an object of the same section and name.
    """
    merged: dict[Section, dict[str, str]] = {}
    count = 0
    for fragment in fragments:
        for section, lines in fragment.sections.items():
            count += len(lines)
            merged.setdefault(section, {}).update(lines)
    if count != sum(map(len, merged.values())):
        raise NameTaken
    return {section: "\n".join(lines.values()).encode() for section, lines in merged.items()}
