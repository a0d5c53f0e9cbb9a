"""From one state to the next: which objects go into service, which are quarantined, which last good version stays.

1. Files that cannot be parsed, and files that are gone, are taken note of.
2. Candidates are collected: changed objects, quarantined ones that may have become good, and everything that depends
   on a changed object. A changed fleet file makes everything a candidate.
3. Kind by kind, in the order in which kinds refer to each other, each candidate must pass the rules, then win its
   claims, then (routes) compile. References lead only to kinds that are settled already, so one pass is enough.
4. A candidate that fails goes back to its last good version, as it was compiled then, whatever became of the objects
   it refers to; one that was never good stays out.

Who keeps a claim when two want it: what is in service already; then the object that was in service before this
revision; then the one whose path sorts first. A last good version that comes back takes its claims back with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from reconciler.desired.claims import Claim, claims_of, references_of
from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.finding import Finding
from reconciler.desired.lookup import Lookup
from reconciler.desired.parse import Parsed
from reconciler.desired.policy import check
from reconciler.desired.state import Served, State
from reconciler.desired.traefik_model import TraefikObjects
from reconciler.desired.view import OpenSecret, View
from schemas.deployment import Deployment
from schemas.objects import FLEET_KEY, FLEET_PATH, AnyObject, Kind, ObjectKey, key_of_path
from schemas.route import Route

ORDER: Final[tuple[Kind, ...]] = ("Agent", "Secret", "Certificate", "Deployment", "Route")
"""Kinds refer only to kinds further left."""

CompileRoute = Callable[[ObjectKey, Route, Lookup], TraefikObjects]


@dataclass(frozen=True, slots=True)
class Gone:
    """A file of the former revision that is no more."""

    path: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """A file that cannot be an object, whatever it holds."""

    path: str
    blob: str
    finding: Finding


FileNews = Parsed | Gone | Unusable


@dataclass(frozen=True, slots=True)
class Settled:
    """The new state, and the keys whose object in service (or its compiled form) differs from the former state's."""

    state: State
    touched: frozenset[ObjectKey]


def settle(
    base: State, revision: str, news: Iterable[FileNews], *, compile_route: CompileRoute, open_sealed: OpenSecret
) -> Settled:
    """Derive the state of ``revision`` from ``base`` and what is new in its files.

    ``base`` is not changed. Where it was restored after a restart, what routes were compiled to is computed on demand.
    """
    work = _Settling(base, compile_route, open_sealed)
    work.take_news(news)
    for kind in ORDER:
        work.settle_kind(kind)
    return work.result(revision)


class _Settling:
    """Working copies of one call of :func:`settle`; nothing of it outlives the call."""

    def __init__(self, base: State, compile_route: CompileRoute, open_sealed: OpenSecret) -> None:
        self.base = base
        self.compile_route = compile_route
        self.served = dict(base.served)
        self.objects: dict[ObjectKey, AnyObject] = dict(base.objects)
        self.pending = dict(base.pending)
        self.findings = dict(base.findings)
        self.blobs = dict(base.blobs)
        self.claims = base.claims.copy()
        self.referrers = dict(base.referrers)
        self.owned_referrers: dict[ObjectKey, dict[ObjectKey, None]] = {}
        self.selecting = set(base.selecting)
        self.compiled = dict(base.compiled)
        self.candidates: dict[ObjectKey, Parsed] = {}
        self.accepted: set[ObjectKey] = set()
        self.touched: set[ObjectKey] = set()
        self.view = View(self.objects, open_sealed)
        self.base_view = View(base.objects, open_sealed)

    # --- what changed -------------------------------------------------------------------------------------------

    def take_news(self, news: Iterable[FileNews]) -> None:
        changed: set[ObjectKey] = set()
        for one in news:
            key = self._take(one)
            if key is not None:
                changed.add(key)
        if not self._settle_fleet():
            return
        if FLEET_KEY in self.touched:
            changed.update(self.served)
        for key, parsed in self.pending.items():
            self.candidates.setdefault(key, parsed)
        for key in self._dependents(changed):
            self._recheck(key)
        for key in self.candidates:
            self._withdraw(key)

    def _take(self, one: FileNews) -> ObjectKey | None:
        key = key_of_path(one.path)
        self.findings.pop(one.path, None)
        self.blobs.pop(one.path, None)
        if key is not None:
            self.pending.pop(key, None)
        if isinstance(one, Unusable):
            self._report(one.path, one.blob, [one.finding])
        elif isinstance(one, Gone):
            if key == FLEET_KEY:
                text = "fleet.yaml is missing; nothing can be checked without it"
                self._report(FLEET_PATH, "", [Finding(FLEET_PATH, "fleet-missing", text, "Bring it back.")])
            elif key is not None and key in self.served:
                self._withdraw(key)
                self.compiled.pop(key, None)
                self.touched.add(key)
        elif one.object is None:
            self._report(one.path, one.blob, one.findings)
        elif one.key is not None:
            self.candidates[one.key] = one
        if key is not None and key in self.served and (isinstance(one, Unusable) or self.findings.get(one.path)):
            self.served[key] = replace(self.served[key], retained=True)
        return key

    def _settle_fleet(self) -> bool:
        """Put the new fleet file into service. False: there is none, so nothing else can be judged."""
        fleet = self.candidates.pop(FLEET_KEY, None)
        if fleet is not None and fleet.object is not None:
            self._serve(fleet, ())
            self.touched.add(FLEET_KEY)
        if FLEET_KEY in self.served:
            return True
        if FLEET_PATH not in self.findings:
            text = "there is no fleet.yaml; nothing can be checked without it"
            self._report(
                FLEET_PATH, "", [Finding(FLEET_PATH, "fleet-missing", text, "Add it: cloudlunacy init shows one.")]
            )
        self.pending.update(self.candidates)
        self.candidates.clear()
        return False

    def _dependents(self, changed: set[ObjectKey]) -> set[ObjectKey]:
        """Everything in service that depends on a changed object, over any number of steps."""
        found: set[ObjectKey] = set(changed)
        waiting = list(changed)
        if any(key.kind == "Agent" for key in changed):
            waiting.extend(self.selecting - found)
            found |= self.selecting
        while waiting:
            for key in self.referrers.get(waiting.pop(), ()):
                if key not in found:
                    found.add(key)
                    waiting.append(key)
        return found

    def _recheck(self, key: ObjectKey) -> None:
        served = self.served.get(key)
        if served is None or served.retained or key in self.candidates or key == FLEET_KEY:
            return
        self.candidates[key] = Parsed(key.path, served.blob, key, served.object, b"")

    # --- one kind -----------------------------------------------------------------------------------------------

    def settle_kind(self, kind: Kind) -> None:
        candidates = [parsed for key, parsed in self.candidates.items() if key.kind == kind]
        candidates.sort(key=lambda parsed: (parsed.key not in self.base.served, parsed.path))
        for parsed in candidates:
            if parsed.key is not None and parsed.object is not None:
                self.objects[parsed.key] = parsed.object
        passed = [parsed for parsed in candidates if self._passes_rules(parsed)]
        for parsed in passed:
            self._claim(parsed)
        if kind == "Route":
            for parsed in passed:
                self._compile(parsed)
        for parsed in candidates:
            self._compare(parsed)

    def _passes_rules(self, parsed: Parsed) -> bool:
        assert parsed.key is not None
        assert parsed.object is not None
        found = check(parsed.key, parsed.object, self.view)
        errors = [finding for finding in found if finding.severity == "error"]
        if errors:
            self._quarantine(parsed, found)
        elif found:
            self._report(parsed.path, parsed.blob, found)
        else:
            self.findings.pop(parsed.path, None)
            self.blobs.pop(parsed.path, None)
        return not errors

    def _claim(self, parsed: Parsed) -> None:
        assert parsed.key is not None
        assert parsed.object is not None
        claims = claims_of(
            parsed.key, parsed.object, self.view.fleet, self.view.agents_behind(parsed.key, parsed.object)
        )
        lost = [(claim, other) for claim in claims for other in self.claims.conflicting(claim)]
        if lost:
            self._quarantine(parsed, [_explain_conflict(parsed.path, *pair) for pair in lost[:5]])
            return
        self._serve(parsed, claims)
        self.accepted.add(parsed.key)

    def _compile(self, parsed: Parsed) -> None:
        key, route = parsed.key, parsed.object
        if key not in self.accepted or not isinstance(route, Route):
            return
        try:
            self.compiled[key] = self.compile_route(key, route, self.view)
        except CompileProblem as problem:
            finding = Finding(parsed.path, problem.code, problem.message, problem.hint, problem.field)
            self._withdraw(key)
            self._quarantine(parsed, [finding])

    # --- in and out of service ----------------------------------------------------------------------------------

    def _serve(self, parsed: Parsed, claims: tuple[Claim, ...]) -> None:
        assert parsed.key is not None
        assert parsed.object is not None
        references = tuple(dict.fromkeys(one.key for one in references_of(parsed.key, parsed.object)))
        self._enter(Served(parsed.key, parsed.blob, parsed.object, claims, references))
        self.pending.pop(parsed.key, None)

    def _enter(self, served: Served) -> None:
        self.served[served.key] = served
        self.objects[served.key] = served.object
        self.claims.add(served.claims)
        for name in served.references:
            self._own_referrers(name)[served.key] = None
        if isinstance(served.object, Deployment) and served.object.spec.agent_selector:
            self.selecting.add(served.key)

    def _withdraw(self, key: ObjectKey) -> None:
        """Take an object out of service, with its claims and references."""
        served = self.served.pop(key, None)
        self.objects.pop(key, None)
        self.selecting.discard(key)
        self.accepted.discard(key)
        if served is None:
            return
        self.claims.remove(served.claims)
        for name in served.references:
            self._own_referrers(name).pop(key, None)

    def _own_referrers(self, name: ObjectKey) -> dict[ObjectKey, None]:
        """Return the referrers of ``name`` as a dictionary that this call may change."""
        if name not in self.owned_referrers:
            self.owned_referrers[name] = self.referrers[name] = dict(self.referrers.get(name, {}))
        return self.owned_referrers[name]

    def _quarantine(self, parsed: Parsed, findings: Sequence[Finding]) -> None:
        """Keep ``parsed`` out; its last good version comes back, and takes its claims from whoever took them."""
        assert parsed.key is not None
        self._report(parsed.path, parsed.blob, findings)
        self.pending[parsed.key] = parsed
        former = self.base.served.get(parsed.key)
        if former is None:
            self.objects.pop(parsed.key, None)
            self.compiled.pop(parsed.key, None)
            return
        self._enter(replace(former, retained=True))
        self._keep_compiled(former)
        for claim in former.claims:
            for other in list(self.claims.conflicting(claim)):
                if other.owner in self.accepted:
                    loser = self.candidates[other.owner]
                    self._withdraw(other.owner)
                    self._quarantine(loser, [_explain_conflict(loser.path, other, claim)])

    def _keep_compiled(self, former: Served) -> None:
        if not isinstance(former.object, Route):
            return
        compiled = self.base.compiled.get(former.key)
        self.compiled[former.key] = compiled or self.compile_route(former.key, former.object, self.base_view)

    def _report(self, path: str, blob: str, findings: Sequence[Finding]) -> None:
        self.findings[path] = tuple(findings)
        self.blobs[path] = blob

    # --- result -------------------------------------------------------------------------------------------------

    def _compare(self, parsed: Parsed) -> None:
        """Take note of a candidate whose object in service, or its compiled form, is another than before."""
        key = parsed.key
        assert key is not None
        old, new = self.base.served.get(key), self.served.get(key)
        same_object = old is not None and new is not None and old.blob == new.blob
        if not same_object or self._compiled_before(key) != self.compiled.get(key):
            self.touched.add(key)

    def _compiled_before(self, key: ObjectKey) -> TraefikObjects | None:
        former = self.base.served.get(key)
        if former is None or not isinstance(former.object, Route):
            return None
        return self.base.compiled.get(key) or self.compile_route(key, former.object, self.base_view)

    def result(self, revision: str) -> Settled:
        state = State(
            revision,
            self.served,
            self.objects,
            self.pending,
            self.findings,
            self.blobs,
            self.claims,
            self.referrers,
            frozenset(self.selecting),
            self.compiled,
        )
        return Settled(state, frozenset(self.touched))


def _explain_conflict(path: str, claim: Claim, other: Claim) -> Finding:
    holder = other.owner.path
    if claim.scope.startswith("port:"):
        text = f'port {claim.pattern} of agent "{claim.scope.partition(":")[2]}" is taken by {holder}.'
        return Finding(path, "port-taken", text, "Choose another host port.", claim.field)
    if claim.scope == "identity":
        text = f"the key of this agent is the key of {holder} as well."
        return Finding(path, "identity-taken", text, "Each agent has a key of its own; enrol it again.", claim.field)
    if claim.scope == "certificate":
        text = f'a certificate for "{claim.pattern}" exists already: {holder}.'
        return Finding(path, "certificate-taken", text, "Name each host in one certificate.", claim.field)
    what = "the whole entry point" if claim.pattern == "*" else f'"{claim.pattern}"'
    if claim.owner.team != other.owner.team:
        text = f'{what} belongs to team "{other.owner.team}": {holder} answers "{other.pattern}".'
        return Finding(path, "host-taken", text, "One host belongs to one team; choose another.", claim.field)
    text = f"{what} is answered by {holder} with the same paths, methods and headers."
    return Finding(path, "host-taken", text, "Make one of them more specific, or remove one.", claim.field)
