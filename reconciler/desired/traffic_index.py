"""Every host of every route of a state, in order, so that a page of them costs what it shows and not what there is.

Built once for a state, which is a value; a filter looks at strings that are there already.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from reconciler.desired.claims import Claim
from reconciler.desired.state import State
from reconciler.desired.traffic import match_words
from schemas.objects import ObjectKey
from schemas.route import Route
from schemas.traffic_api import TrafficState

STATES: Final[tuple[TrafficState, ...]] = ("serving", "degraded", "unserved", "maintenance")


class Entry(NamedTuple):
    """One host of one route. Sorts by host without its star, so that a wildcard stands beside what it covers."""

    order: str
    host: str
    entry_point: str
    match: str
    key: ObjectKey

    @property
    def id(self) -> str:
        """What the next page begins after."""
        return self.order


class Page(NamedTuple):
    entries: tuple[Entry, ...]
    total: int
    next: str


class TrafficIndex:
    """The hosts of a state."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.entries = sorted(
            _entry(key, claim) for key, served in state.served.items() if key.kind == "Route" for claim in served.claims
        )
        self._orders = [one.order for one in self.entries]

    def page(
        self,
        *,
        after: str = "",
        limit: int = 100,
        text: str = "",
        team: str = "",
        routes: Collection[ObjectKey] | None = None,
        keep: Callable[[ObjectKey], bool] | None = None,
    ) -> Page:
        """Return a page. ``text`` is looked for in host, path and route; ``routes``: only these."""
        text = text.strip().lower()
        fitting: Sequence[int] = range(len(self.entries))
        if text or team or routes is not None or keep is not None:
            fitting = [
                number
                for number, one in enumerate(self.entries)
                if (not team or one.key.team == team)
                and (routes is None or one.key in routes)
                and (not text or text in one.order)
                and (keep is None or keep(one.key))
            ]
        first = bisect.bisect_right(fitting, bisect.bisect_right(self._orders, after) - 1) if after else 0
        shown = fitting[first : first + limit]
        following = self.entries[shown[-1]].id if shown and first + limit < len(fitting) else ""
        return Page(tuple(self.entries[number] for number in shown), len(fitting), following)

    def of_host(self, host: str) -> tuple[Entry, ...]:
        """Return what answers at exactly this host."""
        head = f"{_plain(host)} "
        place = bisect.bisect_left(self._orders, head)
        found = []
        while place < len(self.entries) and self._orders[place].startswith(head):
            if self.entries[place].host == host:
                found.append(self.entries[place])
            place += 1
        return tuple(found)


def _entry(key: ObjectKey, claim: Claim) -> Entry:
    match = match_words(claim)
    order = f"{_plain(claim.pattern)} {claim.pattern} {claim.entry_point} {match} {key.team}/{key.name}".lower()
    return Entry(order, claim.pattern, claim.entry_point, match, key)


def _plain(host: str) -> str:
    return host.removeprefix("*.")


def state_of(route: Route, wanted: int, served: int) -> TrafficState:
    """Say how a route is served, of whose addresses so many are to get requests, and so many do."""
    if any(one.maintenance is not None for one in route.spec.middlewares):
        return "maintenance"
    if not served:
        return "unserved"
    return "serving" if served == wanted else "degraded"
