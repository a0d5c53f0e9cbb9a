"""A change in terms of requests: for each host, who answered before and who answers after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from reconciler.desired.claims import EVERYTHING, Claim
from reconciler.desired.state import Served, State
from reconciler.desired.view import View, port_of
from schemas.middleware import Middleware
from schemas.objects import ObjectKey
from schemas.plan import TrafficChange
from schemas.route import Backend, Route


class Answer(NamedTuple):
    """One route's answer at one host: what is compared, and how it is told."""

    key: ObjectKey
    host: str
    entry_point: str
    match: str
    tls: str
    backends: tuple[str, ...]
    middlewares: tuple[Middleware, ...]
    is_http: bool

    @property
    def place(self) -> tuple[str, str, str]:
        return self.host, self.entry_point, self.match

    def __str__(self) -> str:
        return f"{self.key.team}/{self.key.name} → {', '.join(self.backends)}"


def traffic_changes(
    base: State, base_view: View, state: State, view: View, touched: Iterable[ObjectKey]
) -> tuple[TrafficChange, ...]:
    """List what happens at each host of the touched routes, by host."""
    routes = [key for key in touched if key.kind == "Route"]
    before = {one.place: one for key in routes for one in _answers(base.served.get(key), base_view)}
    after = {one.place: one for key in routes for one in _answers(state.served.get(key), view)}
    changes = [
        change
        for place in sorted(before.keys() | after.keys())
        if (change := _compare(before.get(place), after.get(place), base, state)) is not None
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
    if old.tls != new.tls:
        effects.append("loses TLS" if new.tls == "none" else "gains TLS" if old.tls == "none" else f"TLS: {new.tls}")
    if old.backends != new.backends:
        effects.append("changes backend")
    if old.key != new.key:
        effects.append("changes route")
    if old.middlewares != new.middlewares:
        effects.append("changes middlewares")
    if not effects:
        return None
    return _change(new, "changed", before=str(old), after=str(new), effects=effects)


def _effects_of_coming(new: Answer, base: State) -> list[str]:
    if not base.served:
        return ["new host"]
    effects = []
    for claim in _claims_at(base, new.entry_point, new.host, new.key):
        if claim.pattern == new.host:
            effects.append(f"takes part of the requests from {claim.owner.team}/{claim.owner.name}")
        else:
            effects.append(f"shadows {claim.pattern} of {claim.owner.team}/{claim.owner.name} here")
    if new.tls == "none" and any(_claims_elsewhere(base, new)):
        effects.append("loses TLS")
    return list(dict.fromkeys(effects)) or ["new host"]


def _effects_of_going(old: Answer, state: State) -> list[str]:
    heirs = list(_claims_at(state, old.entry_point, old.host, None))
    if heirs:
        names = ", ".join(dict.fromkeys(f"{claim.owner.team}/{claim.owner.name}" for claim in heirs))
        return [f"left to {names}"]
    if any(_claims_elsewhere(state, old)):
        return ["loses TLS" if old.tls != "none" else "gains TLS"]
    return ["turns 404" if old.is_http else "refused from now on"]


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


def _answers(served: Served | None, view: View) -> Iterator[Answer]:
    if served is None or not isinstance(served.object, Route):
        return
    spec = served.object.spec
    backends = tuple(text for backend in spec.backends for text in _backend(served.key.team, backend, view))
    for claim in served.claims:
        yield Answer(
            key=served.key,
            host=claim.pattern,
            entry_point=claim.entry_point,
            match=_match(claim),
            tls=spec.tls.mode,
            backends=backends,
            middlewares=spec.middlewares,
            is_http=spec.type == "http",
        )


def _match(claim: Claim) -> str:
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
        yield f"{backend.agent}:{backend.port}{address}{weight}"
        return
    deployment = view.deployment(team, backend.deployment or "")
    port = port_of(backend, deployment) if deployment else None
    agents = view.agent_names_of(team, deployment) if deployment else ()
    where = ", ".join(f"{agent}:{port.host}" for agent in agents) if port else "nowhere"
    yield f"deployment {backend.deployment} ({where}){weight}"


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
