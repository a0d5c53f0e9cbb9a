"""A change in terms of requests: for each host, who answered before and who answers after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from reconciler.desired.claims import EVERYTHING, Claim
from reconciler.desired.reach import EFFECTS, Reach, reach
from reconciler.desired.state import State
from reconciler.desired.traefik_model import TraefikObjects
from reconciler.desired.view import View, port_of
from schemas.agent import Agent
from schemas.objects import ObjectKey
from schemas.plan import TrafficChange
from schemas.route import Backend, Route, RouteSpec


@dataclass(frozen=True, slots=True)
class Answers:
    """Who answers in a state. ``compiled``: what its routes became for Traefik."""

    state: State
    view: View
    compiled: Mapping[ObjectKey, TraefikObjects]

    def of(self, key: ObjectKey) -> Iterator[Answer]:
        """Yield a route's answer at each of its hosts."""
        served = self.state.served.get(key)
        if served is None or not isinstance(served.object, Route):
            return
        spec = served.object.spec
        backends = tuple(text for backend in spec.backends for text in _backend(key.team, backend, self.view))
        for claim in served.claims:
            yield Answer(
                key, claim.pattern, claim.entry_point, match_words(claim), spec, backends, self.compiled.get(key, ())
            )


class Answer(NamedTuple):
    """One route's answer at one host."""

    key: ObjectKey
    host: str
    entry_point: str
    match: str
    spec: RouteSpec
    backends: tuple[str, ...]
    """In words."""
    compiled: TraefikObjects

    @property
    def place(self) -> tuple[str, str, str]:
        return self.host, self.entry_point, self.match

    @property
    def reach(self) -> Reach:
        """Of a mongodb route each host has its own servers; of any other route all hosts have the same."""
        return reach(self.compiled, self.host if self.spec.type == "mongodb" else "")

    def __str__(self) -> str:
        return f"{self.key.team}/{self.key.name} → {', '.join(self.backends)}"


def traffic_changes(before: Answers, after: Answers, touched: Iterable[ObjectKey]) -> tuple[TrafficChange, ...]:
    """List what happens at each host of the touched routes, by host."""
    routes = [key for key in touched if key.kind == "Route"]
    old = {one.place: one for key in routes for one in before.of(key)}
    new = {one.place: one for key in routes for one in after.of(key)}
    changes = [
        change
        for place in sorted(old.keys() | new.keys())
        if (change := _compare(old.get(place), new.get(place), before.state, after.state)) is not None
    ]
    return tuple(changes)


def _compare(old: Answer | None, new: Answer | None, base: State, state: State) -> TrafficChange | None:
    if old is not None and new is not None:
        return _changed(old, new)
    if new is not None:
        return _change(new, "added", after=str(new), effects=_effects_of_coming(new, base))
    assert old is not None
    return _change(old, "removed", before=str(old), effects=_effects_of_going(old, state))


def _changed(old: Answer, new: Answer) -> TrafficChange | None:
    effects = []
    was, becomes = old.spec.tls, new.spec.tls
    if was.mode != becomes.mode:
        loses, gains = becomes.mode == "none", was.mode == "none"
        effects.append("loses TLS" if loses else "gains TLS" if gains else f"TLS: {becomes.mode}")
    elif was.certificate != becomes.certificate:
        effects.append("changes certificate")
    effects += _effects_on_requests(old, new)
    if not effects:
        return None
    return _change(new, "changed", before=str(old), after=str(new), effects=effects)


def _effects_on_requests(old: Answer, new: Answer) -> list[str]:
    """Name what Traefik will do differently, the most serious first."""
    effects = []
    before, after = old.reach, new.reach
    if before.servers and not after.servers:
        effects.append(f"loses its last backend ({'503' if new.spec.type == 'http' else 'refused'})")
    elif after.servers and not before.servers:
        effects.append("gains its first backend")
    elif before.servers != after.servers or (old.backends != new.backends and new.spec.type != "mongodb"):
        effects.append("changes backend")
    if old.key != new.key:
        effects.append("changes route")
    if old.spec.transport != new.spec.transport:
        effects.append("changes transport")
    if old.spec.middlewares != new.spec.middlewares or before.middlewares != after.middlewares:
        effects.append("changes middlewares")
    for part, told in EFFECTS.items():
        was, becomes = getattr(before, part), getattr(after, part)
        if was and becomes and was != becomes:  # where there is no server there is nothing to compare
            effects.append(told)
    if not effects and before.everything != after.everything:
        effects.append("changes what Traefik is told")
    return effects


def _effects_of_coming(new: Answer, base: State) -> list[str]:
    if not base.served:
        return ["new host"]
    effects = []
    for claim in _claims_at(base, new.entry_point, new.host, new.key):
        if claim.pattern == new.host:
            effects.append(f"takes part of the requests from {claim.owner.team}/{claim.owner.name}")
        else:
            effects.append(f"shadows {claim.pattern} of {claim.owner.team}/{claim.owner.name} here")
    if new.spec.tls.mode == "none" and any(_claims_elsewhere(base, new)):
        effects.append("loses TLS")
    return list(dict.fromkeys(effects)) or ["new host"]


def _effects_of_going(old: Answer, state: State) -> list[str]:
    heirs = list(_claims_at(state, old.entry_point, old.host, None))
    if heirs:
        names = ", ".join(dict.fromkeys(f"{claim.owner.team}/{claim.owner.name}" for claim in heirs))
        return [f"left to {names}"]
    if any(_claims_elsewhere(state, old)):
        return ["loses TLS" if old.spec.tls.mode != "none" else "gains TLS"]
    return ["turns 404" if old.spec.type == "http" else "refused from now on"]


def _claims_at(state: State, entry_point: str, host: str, but: ObjectKey | None) -> Iterator[Claim]:
    """Yield the claims that answer at the host, exact ones first."""
    parent = f"*.{host.partition('.')[2]}"
    for pattern in (host, parent):
        for scope in ("http", f"tcp:{entry_point}"):
            for claim in state.claims.at(scope, pattern):
                if claim.entry_point == entry_point and claim.owner != but:
                    yield claim


def _claims_elsewhere(state: State, answer: Answer) -> Iterator[Claim]:
    """Yield the claims of the same host at another HTTP entry point."""
    return (claim for claim in state.claims.at("http", answer.host) if claim.entry_point != answer.entry_point)


def match_words(claim: Claim) -> str:
    """Say which requests to its host a claim takes; empty for all of them."""
    if claim.match is EVERYTHING:
        return ""
    paths = [path if kind == "prefix" else f"={path}" for kind, path in sorted(claim.match.paths)]
    parts = [" ".join(paths) if paths != ["/"] else "", " ".join(sorted(claim.match.methods))]
    parts += [f"{name}: {value}" for name, value in sorted(claim.match.headers)]
    return ", ".join(part for part in parts if part)


def _backend(team: str, backend: Backend, view: View) -> Iterator[str]:
    weight = f" (weight {backend.weight})" if backend.weight != 1 else ""
    if backend.agent is not None:
        agent = view.agent(backend.agent)
        address = f" [{agent.spec.address}]" if agent else ""
        yield f"{backend.agent}:{backend.port}{address}{_out_of_service(agent)}{weight}"
        return
    deployment = view.deployment(team, backend.deployment or "")
    port = port_of(backend, deployment) if deployment else None
    agents = view.agent_names_of(team, deployment) if deployment else ()
    where = "nowhere"
    if port and agents:
        where = ", ".join(f"{agent}:{port.host}{_out_of_service(view.agent(agent))}" for agent in agents)
    yield f"deployment {backend.deployment} ({where}){weight}"


def _out_of_service(agent: Agent | None) -> str:
    return " (quarantined)" if agent is not None and agent.spec.state == "quarantined" else ""


def _change(answer: Answer, action: str, *, effects: list[str], before: str = "", after: str = "") -> TrafficChange:
    assert action in ("added", "removed", "changed")
    return TrafficChange(
        host=answer.host,
        entry_point=answer.entry_point,
        match=answer.match,
        action=action,
        before=before,
        after=after,
        effects=tuple(effects),
    )
