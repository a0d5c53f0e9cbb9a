"""From one state to the next: which objects go into service, which are quarantined, which last good version stays.

1. Files that cannot be parsed, and files that are gone, are taken note of.
2. Candidates are collected: changed objects, quarantined ones that may have become good, and everything that depends
   on one of these. A changed fleet file makes everything a candidate.
3. Kind by kind, in the order in which kinds refer to each other, each candidate must pass the rules, then
   (routes) compile, then win its claims. References lead only to kinds that are settled already, so one pass is enough.
4. A candidate that fails goes back to its last good version, as it was compiled then, whatever became of the objects
   it refers to; one that was never good stays out.

Who keeps a claim when two want it: what is in service already; then the object that was in service before this
revision; then the one whose path sorts first. A last good version that comes back takes its claims back with it, and
who lost a claim to somebody that has it no more is asked again.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

from reconciler.desired.claims import Claim, Reference, claims_of, references_of
from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.conflicts import CONTESTED, contested, lost
from reconciler.desired.finding import Finding
from reconciler.desired.kept_certificates import kept_though_gone, still_needed
from reconciler.desired.news import FileNews, Gone, Unusable
from reconciler.desired.parse import Parsed
from reconciler.desired.policy import check, check_fleet
from reconciler.desired.serving import CompileRoute, Serving
from reconciler.desired.state import Served, State
from reconciler.desired.traefik_model import TraefikObjects
from reconciler.desired.view import OpenSecret
from schemas.fleet import Fleet
from schemas.objects import FLEET_KEY, FLEET_PATH, AnyObject, Kind, ObjectKey, key_of_path
from schemas.route import Route

ORDER: Final[tuple[Kind, ...]] = ("Agent", "Secret", "Certificate", "Deployment", "Route")
"""Kinds refer only to kinds further left."""
MAX_CONFLICTS: Final = 5
"""Conflicts that are told of one object."""
NOTHING_REFUSED: Final[Mapping[ObjectKey, Finding]] = {}


@dataclass(frozen=True, slots=True)
class Settled:
    """The new state, and the keys whose object in service (or what follows from it) differs from the former state's.

    ``compiled_before``: what touched routes of the former state were compiled to.
    """

    state: State
    touched: frozenset[ObjectKey]
    compiled_before: Mapping[ObjectKey, TraefikObjects] = field(default_factory=dict)


def settle(
    base: State,
    revision: str,
    news: Iterable[FileNews],
    *,
    compile_route: CompileRoute,
    open_sealed: OpenSecret,
    refused: Mapping[ObjectKey, Finding] = NOTHING_REFUSED,
) -> Settled:
    """Derive the state of ``revision`` from ``base`` and what is new in its files.

    ``base`` is not changed. Where it was restored after a restart, what routes were compiled to is computed on demand.
    ``refused``: objects that may not be served in their newest version, and why (Traefik did not take them).
    """
    work = _Settling(Serving(base, compile_route, open_sealed), refused)
    if work.take_news(news):
        for kind in ORDER:
            work.settle_kind(kind)
    return work.result(revision)


@dataclass(slots=True)
class _Candidate:
    """An object on its way into service. ``former``: what is to be served in its place when it fails."""

    key: ObjectKey
    newest: Parsed
    object: AnyObject
    former: Served | None
    rank: int = 0
    references: tuple[Reference, ...] = ()
    agents: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    compiled: TraefikObjects | None = None
    warnings: Sequence[Finding] = ()
    accepted: bool = False
    rival: tuple[Claim, Claim] | None = None
    """Own claim and the one that it lost to."""


class _Settling:
    """One call of :func:`settle`; nothing of it outlives the call."""

    def __init__(self, serving: Serving, refused: Mapping[ObjectKey, Finding]) -> None:
        self.serving = serving
        self.base = serving.base
        self.refused = refused
        self.pending = dict(self.base.pending)
        self.findings = dict(self.base.findings)
        self.blobs = dict(self.base.blobs)
        self.candidates: dict[ObjectKey, _Candidate] = {}
        self.losers: dict[ObjectKey, list[_Candidate]] = {}
        """Owner of a claim → those who lost to it."""
        self.again: list[tuple[int, _Candidate]] = []
        """Heap of those who lost to somebody that has the claim no more."""
        self.touched: set[ObjectKey] = set()
        self.certificates_gone: list[Served] = []

    # --- what changed -------------------------------------------------------------------------------------------

    def take_news(self, news: Iterable[FileNews]) -> bool:
        """Collect the candidates. False: there is no fleet, so nothing can be judged."""
        self._forget_contests()
        changed: dict[ObjectKey, Parsed | None] = {}
        for one in (*map(Gone, kept_though_gone(self.base)), *news):
            key = self._take(one)
            if key is not None:
                changed[key] = one if isinstance(one, Parsed) and one.object is not None else None
        self._settle_fleet(changed.pop(FLEET_KEY, None))
        candidates = self.pending | {key: parsed for key, parsed in changed.items() if parsed is not None}
        if FLEET_KEY not in self.serving.served:
            self.pending = candidates
            return False
        for key in self._dependents([*changed, *candidates]):
            parsed = candidates.get(key) or self._served_again(key)
            if parsed is not None and parsed.object is not None:
                self.candidates[key] = _Candidate(key, parsed, parsed.object, self.base.served.get(key))
                self.serving.withdraw(key)
        return True

    def _take(self, one: FileNews) -> ObjectKey | None:
        path = one.path
        key = one.key if isinstance(one, Parsed) else key_of_path(path)
        self.findings.pop(path, None)
        self.blobs.pop(path, None)
        if key is not None:
            self.pending.pop(key, None)
        if isinstance(one, Gone):
            self._take_gone(key)
        elif isinstance(one, Unusable):
            self._report(path, one.blob, [one.finding])
            self._retain(key)
        elif one.object is None:
            self._report(path, one.blob, one.findings)
            self._retain(key)
        return key

    def _take_gone(self, key: ObjectKey | None) -> None:
        if key == FLEET_KEY:
            text = "there is no fleet.yaml any more, and nothing can be checked without it"
            hint = "Bring it back; until then the last one is in force."
            self._report(FLEET_PATH, "", [Finding(FLEET_PATH, "fleet-missing", text, hint)])
            self._retain(key)
        elif key is not None and key in self.serving.served:
            if key.kind == "Certificate":
                self.certificates_gone.append(self.serving.served[key])
            self.serving.withdraw(key)
            self.touched.add(key)

    def _retain(self, key: ObjectKey | None) -> None:
        """Go on with the last good version of an object whose file cannot be read."""
        former = self.base.served.get(key) if key is not None else None
        if former is not None and not self.serving.retain(former):
            self.touched.add(former.key)

    def _settle_fleet(self, newest: Parsed | None) -> None:
        """Put the new fleet file into service, where there is one and it is good."""
        if newest is not None and isinstance(newest.object, Fleet):
            wrong = check_fleet(newest.object)
            if wrong:
                self._report(FLEET_PATH, newest.blob, wrong)
                self._retain(FLEET_KEY)
                return
            former = self.base.served.get(FLEET_KEY)
            self.serving.withdraw(FLEET_KEY)
            self.serving.enter(Served(FLEET_KEY, newest.blob, newest.object, (), ()), ())
            if former is None or former.object != newest.object:
                self.touched.add(FLEET_KEY)
        elif FLEET_KEY not in self.serving.served and FLEET_PATH not in self.findings:
            text = "there is no fleet.yaml, and nothing can be checked without it"
            hint = "Add one: cloudlunacy init writes an example."
            self._report(FLEET_PATH, "", [Finding(FLEET_PATH, "fleet-missing", text, hint)])

    def _dependents(self, changed: Iterable[ObjectKey]) -> Iterable[ObjectKey]:
        """Return the changed keys and everything in service that depends on them, over any number of steps."""
        found = dict.fromkeys(changed)
        if FLEET_KEY in self.touched:
            return found | self.serving.served
        waiting = list(found)
        if any(key.kind == "Agent" for key in found):
            waiting += [key for key in self.serving.selected if key not in found]
            found |= dict.fromkeys(waiting)
        while waiting:
            for key in self.serving.referrers.get(waiting.pop(), ()):
                if key not in found:
                    found[key] = None
                    waiting.append(key)
        return found

    def _served_again(self, key: ObjectKey) -> Parsed | None:
        """Return an unchanged object in service, to be judged again; one that is only retained is left alone."""
        served = self.serving.served.get(key)
        if served is None or served.retained or key == FLEET_KEY:
            return None
        return Parsed(key.path, served.blob, key, served.object)

    # --- one kind -----------------------------------------------------------------------------------------------

    def settle_kind(self, kind: Kind) -> None:
        candidates = [one for one in self.candidates.values() if one.key.kind == kind]
        candidates.sort(key=lambda one: (one.former is None, one.newest.path))
        for rank, one in enumerate(candidates):
            one.rank = rank
            self.serving.objects[one.key] = one.object
        passed = [one for one in candidates if self._passes_rules(one) and self._compiles(one)]
        for one in passed:
            self._try(one)
        while self.again:
            _, one = heapq.heappop(self.again)
            if not one.accepted:
                self._try(one)
        if kind == "Certificate":
            self._keep_certificates(candidates)
        for one in candidates:
            if one.rival is not None:
                self._report_conflicts(one)
            self._compare(one)

    def _passes_rules(self, one: _Candidate) -> bool:
        one.references = references_of(one.key, one.object)
        found = check(one.key, one.object, self.serving.view, one.references)
        if any(finding.severity == "error" for finding in found):
            self._quarantine(one, found)
            return False
        one.warnings = found
        return True

    def _compiles(self, one: _Candidate) -> bool:
        """Work out what follows from the object alone: agents, claims, and what Traefik gets."""
        serving, finding = self.serving, self.refused.get(one.key)
        one.agents = serving.view.agents_behind(one.key, one.object)
        one.claims = claims_of(one.key, one.object, serving.view.fleet, one.agents)
        try:
            if isinstance(one.object, Route):
                one.compiled = serving.compile(one.key, one.object)
        except CompileProblem as problem:
            finding = Finding(one.newest.path, problem.code, problem.message, problem.hint, problem.field)
        if finding is not None:
            self._quarantine(one, [finding])
        return finding is None

    def _try(self, one: _Candidate) -> None:
        """Put a candidate into service if nobody has what it claims."""
        conflicting = self.serving.claims.conflicting
        rival = next(((claim, other) for claim in one.claims for other in conflicting(claim)), None)
        if rival is None:
            self._accept(one)
        else:
            self._lose(one, *rival)
            self._quarantine(one, [lost(*rival)])

    def _lose(self, one: _Candidate, own: Claim, other: Claim) -> None:
        one.rival = own, other
        self.losers.setdefault(other.owner, []).append(one)

    def _accept(self, one: _Candidate) -> None:
        if one.key in self.serving.served:
            self._release(one.key)
        names = tuple(dict.fromkeys([reference.key for reference in one.references]))
        self.serving.enter(Served(one.key, one.newest.blob, one.object, one.claims, names), one.agents)
        if one.compiled is not None:
            self.serving.compiled[one.key] = one.compiled
        one.accepted, one.rival = True, None
        self.pending.pop(one.key, None)
        if one.warnings:
            self._report(one.newest.path, one.newest.blob, one.warnings)
        elif one.newest.path in self.findings:
            del self.findings[one.newest.path], self.blobs[one.newest.path]

    def _release(self, key: ObjectKey) -> None:
        """Take out of service, and give those who lost to it another chance."""
        self.serving.withdraw(key)
        for loser in self.losers.pop(key, ()):
            heapq.heappush(self.again, (loser.rank, loser))

    # --- quarantine ---------------------------------------------------------------------------------------------

    def _quarantine(self, one: _Candidate, findings: Sequence[Finding]) -> None:
        """Keep a candidate out; its last good version comes back, and takes its claims from whoever took them."""
        self._keep_out(one, findings)
        if one.key in self.serving.served:
            return
        returning = [one]
        while returning:
            back = returning.pop()
            if back.former is None or not self.serving.retain(back.former):
                self.serving.withdraw(back.key)
                continue
            for claim in back.former.claims:
                for other in self.serving.claims.conflicting(claim):
                    loser = self.candidates.get(other.owner)
                    if loser is not None and loser.accepted:
                        self._evict(loser, other, claim)
                        returning.append(loser)

    def _evict(self, loser: _Candidate, own: Claim, other: Claim) -> None:
        self._release(loser.key)
        loser.accepted = False
        self._lose(loser, own, other)
        self._keep_out(loser, [lost(own, other)])

    def _keep_out(self, one: _Candidate, findings: Sequence[Finding]) -> None:
        self._report(one.newest.path, one.newest.blob, findings)
        self.pending[one.key] = one.newest

    def _report(self, path: str, blob: str, findings: Sequence[Finding]) -> None:
        self.findings[path] = tuple(findings)
        self.blobs[path] = blob

    def _report_conflicts(self, one: _Candidate) -> None:
        """Tell a loser about all who are in its way now that everybody has found a place."""
        conflicting = self.serving.claims.conflicting
        rivals = [
            (claim, other) for claim in one.claims for other in sorted(conflicting(claim), key=attrgetter("owner"))
        ]
        if rivals:
            one.rival = rivals[0]
            self._report(one.newest.path, one.newest.blob, [lost(*pair) for pair in rivals[:MAX_CONFLICTS]])

    def _keep_certificates(self, candidates: Iterable[_Candidate]) -> None:
        """Bring former certificates back that routes need which this revision does not change."""
        changed = {one.key: one for one in candidates if one.accepted and one.former is not None}
        gone = {served.key: served for served in self.certificates_gone if served.key not in self.candidates}
        if not changed and not gone:
            return
        former = [*gone.values(), *(one.former for one in changed.values() if one.former is not None)]
        routes = (one for one in self.candidates.values() if one.key.kind == "Route")
        going_on = [one.former for one in routes if one.former is not None and one.former.blob == one.newest.blob]
        for served, finding in list(still_needed(former, going_on, self.serving)):
            key = served.key
            if key in changed:
                self._release(key)
                changed[key].accepted = False
                self._quarantine(changed[key], [finding])
            else:
                self._quarantine(
                    _Candidate(key, Parsed(key.path, "", key, served.object), served.object, served), [finding]
                )
                del self.pending[key]
                self.touched.discard(key)

    # --- result -------------------------------------------------------------------------------------------------

    def _compare(self, one: _Candidate) -> None:
        """Take note of a candidate whose object in service, or what follows from it, is another than before."""
        key, serving, base = one.key, self.serving, self.base
        new = serving.served.get(key)
        if one.former is None or new is None:
            changed = one.former is not new
        else:
            changed = (one.former.blob != new.blob and one.former.object != new.object) or (
                base.selected.get(key) != serving.selected.get(key)
                or (key.kind == "Route" and serving.compiled_before(key) != serving.compiled.get(key))
            )
        if changed:
            self.touched.add(key)

    def _forget_contests(self) -> None:
        for path, found in list(self.findings.items()):
            rest = tuple(finding for finding in found if finding.code != CONTESTED)
            if not rest:
                del self.findings[path], self.blobs[path]
            elif len(rest) < len(found):
                self.findings[path] = rest

    def _report_contests(self) -> None:
        """Where two newcomers want the same, nobody knows who is right: tell the winner as well."""
        told: dict[ObjectKey, list[Finding]] = {}
        losers = [one for one in self.candidates.values() if one.rival is not None and one.former is None]
        for one in sorted(losers, key=lambda loser: loser.newest.path):
            assert one.rival is not None
            claim, other = one.rival
            winner = self.candidates.get(other.owner)
            if winner is not None and winner.accepted and winner.former is None:
                told.setdefault(winner.key, []).append(contested(other, claim))
        for key, findings in told.items():
            path, blob = self.candidates[key].newest.path, self.candidates[key].newest.blob
            self._report(path, blob, [*self.findings.get(path, ()), *findings[:MAX_CONFLICTS]])

    def result(self, revision: str) -> Settled:
        self._report_contests()
        serving = self.serving
        state = State(
            revision,
            serving.served,
            serving.objects,
            self.pending,
            self.findings,
            self.blobs,
            serving.claims,
            serving.referrers,
            serving.selected,
            serving.compiled,
            serving.items,
        )
        routes = ((key, serving.compiled_before(key)) for key in self.touched if key.kind == "Route")
        before = {key: compiled for key, compiled in routes if compiled is not None}
        return Settled(state, frozenset(self.touched), before)
