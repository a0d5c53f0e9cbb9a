"""After a restart: the state that was published, without judging it again.

What was in service stays so, even where the rules of a newer program would decide otherwise: those are applied to the
next change of an object, never to the restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.desired.claims import ClaimIndex, claims_of, references_of
from reconciler.desired.finding import Finding
from reconciler.desired.parse import Parsed
from reconciler.desired.state import Served, State
from reconciler.desired.traefik_model import TraefikObjects
from reconciler.desired.view import View, sealed_for_somebody_else
from schemas.deployment import Deployment
from schemas.objects import FLEET_KEY, AnyObject, ObjectKey


@dataclass(frozen=True, slots=True)
class KeptOut:
    """A file whose newest version was quarantined when the generation was published.

    ``newest``: what it parses to; ``last_good``: what is in service in its place, None where nothing is;
    ``compiled``: for a route, what that became, with what it referred to then.
    """

    path: str
    blob: str
    newest: Parsed | None
    findings: tuple[Finding, ...]
    last_good: Parsed | None
    compiled: TraefikObjects | None


def restore(revision: str, parsed: Iterable[Parsed], kept_out: Iterable[KeptOut]) -> State:
    """Return the published state. ``parsed``: everything in the tree but what was kept out."""
    kept = list(kept_out)
    good = {one.key: one for one in parsed if one.key is not None and one.object is not None}
    last_good = {one.last_good.key: one.last_good for one in kept if one.last_good is not None and one.last_good.key}
    objects: dict[ObjectKey, AnyObject] = {
        key: one.object for key, one in (good | last_good).items() if one.object is not None
    }
    view = View(objects, sealed_for_somebody_else)
    claims = ClaimIndex()
    served: dict[ObjectKey, Served] = {}
    referrers: dict[ObjectKey, dict[ObjectKey, None]] = {}
    for key, found in objects.items():
        one = _served(key, found, (last_good.get(key) or good[key]).blob, view, retained=key in last_good)
        served[key] = one
        claims.add(one.claims)
        for name in one.references:
            referrers.setdefault(name, {})[key] = None
    return State(
        revision,
        served,
        objects,
        {one.newest.key: one.newest for one in kept if one.newest and one.newest.key and one.newest.object},
        {one.path: one.findings for one in kept},
        {one.path: one.blob for one in kept},
        claims,
        referrers,
        frozenset(key for key, found in objects.items() if _selects(found)),
        _compiled(kept),
    )


def _served(key: ObjectKey, found: AnyObject, blob: str, view: View, *, retained: bool) -> Served:
    fleet_known = view.get(FLEET_KEY) is not None
    claims = claims_of(key, found, view.fleet, view.agents_behind(key, found)) if fleet_known else ()
    references = tuple(dict.fromkeys(one.key for one in references_of(key, found)))
    return Served(key, blob, found, claims, references, retained)


def _selects(found: AnyObject) -> bool:
    return isinstance(found, Deployment) and bool(found.spec.agent_selector)


def _compiled(kept: Iterable[KeptOut]) -> Mapping[ObjectKey, TraefikObjects]:
    return {
        one.last_good.key: one.compiled
        for one in kept
        if one.last_good is not None and one.last_good.key is not None and one.compiled is not None
    }
