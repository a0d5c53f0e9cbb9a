"""After a restart: the state that was published, without judging it again.

What was in service stays so, even where the rules of a newer program would decide otherwise: those are applied to the
next change of an object, never to the restart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.desired.claims import Claim, ClaimIndex, claims_of, references_of
from reconciler.desired.finding import Finding
from reconciler.desired.parse import Parsed
from reconciler.desired.state import Served, State
from reconciler.desired.traefik_model import TraefikObjects
from reconciler.desired.view import View, sealed_for_somebody_else
from schemas.deployment import Deployment
from schemas.objects import FLEET_KEY, AnyObject, ObjectKey


@dataclass(frozen=True, slots=True)
class KeptOut:
    """A file with findings when the generation was published.

    ``newest``: what it parses to; ``last_good``: what is in service in its place, None where nothing is. What follows
    is of the last good version, as it was then, because what it refers to may be gone: ``compiled`` for a route;
    ``claims``, None where they were not kept and follow from the object; ``selected``, for a deployment that chooses
    its agents by label, the names of those.
    """

    path: str
    blob: str
    newest: Parsed | None
    findings: tuple[Finding, ...]
    last_good: Parsed | None
    compiled: TraefikObjects | None
    claims: tuple[Claim, ...] | None = None
    selected: tuple[str, ...] | None = None

    @property
    def is_quarantined(self) -> bool:
        """Whether the newest version is kept out, not merely warned about."""
        return any(finding.severity == "error" for finding in self.findings)


def restore(revision: str, parsed: Iterable[Parsed], kept_out: Iterable[KeptOut]) -> State:
    """Return the published state. ``parsed``: everything in the tree but what was kept out."""
    known = list(kept_out)
    kept = {one.last_good.key: one for one in known if one.is_quarantined and one.last_good and one.last_good.key}
    good = {one.key: one for one in parsed if one.key is not None and one.object is not None}
    good |= {key: one.last_good for key, one in kept.items() if one.last_good is not None}
    objects: dict[ObjectKey, AnyObject] = {key: one.object for key, one in good.items() if one.object is not None}
    selected = {key: one.selected for key, one in kept.items() if one.selected is not None}
    view = View(objects, sealed_for_somebody_else, selected)
    if FLEET_KEY in objects:
        selected |= {key: view.agents_behind(key, found) for key, found in objects.items() if _selects(found)}
    claims = ClaimIndex()
    served: dict[ObjectKey, Served] = {}
    referrers: dict[ObjectKey, dict[ObjectKey, None]] = {}
    for key, found in objects.items():
        one = served[key] = _served(key, found, good[key].blob, view, kept.get(key))
        claims.add(one.claims)
        for name in one.references:
            referrers.setdefault(name, {})[key] = None
    return State(
        revision,
        served,
        objects,
        _pending(known),
        {one.path: one.findings for one in known},
        {one.path: one.blob for one in known},
        claims,
        referrers,
        selected,
        {key: one.compiled for key, one in kept.items() if one.compiled is not None},
    )


def _served(key: ObjectKey, found: AnyObject, blob: str, view: View, kept: KeptOut | None) -> Served:
    if kept is not None and kept.claims is not None:
        claims = kept.claims
    else:
        fleet_known = view.get(FLEET_KEY) is not None
        claims = claims_of(key, found, view.fleet, view.agents_behind(key, found)) if fleet_known else ()
    references = tuple(dict.fromkeys([one.key for one in references_of(key, found)]))
    return Served(key, blob, found, claims, references, kept is not None)


def _selects(found: AnyObject) -> bool:
    return isinstance(found, Deployment) and bool(found.spec.agent_selector)


def _pending(kept: Iterable[KeptOut]) -> Mapping[ObjectKey, Parsed]:
    """Return the quarantined objects that are looked at again. A fleet is judged by itself alone, so never again."""
    return {
        one.newest.key: one.newest
        for one in kept
        if one.is_quarantined and one.newest and one.newest.object and one.newest.key and one.newest.key != FLEET_KEY
    }
