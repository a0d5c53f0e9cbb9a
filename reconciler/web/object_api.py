"""Lists of what there is: objects in service and out of it, agents, databases, secrets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol, get_args

from starlette.requests import Request
from starlette.responses import Response

from reconciler.desired.state import State
from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation
from reconciler.web.agent_views import agent_status
from reconciler.web.bodies import known_answer, tagged_answer, whole_answer
from reconciler.web.callers import Callers
from reconciler.web.catalogue import Catalogue
from reconciler.web.endpoint import Endpoint
from reconciler.web.parameters import name_of, one_of, pages, text
from reconciler.web.queries import limit_of, next_names
from schemas.agent import Agent
from schemas.api import (
    AgentCondition,
    AgentList,
    ObjectList,
    ObjectSummary,
    PublishedObject,
    PublishedState,
    SecretList,
    SecretSummary,
)
from schemas.health_api import AgentHealth, Presence
from schemas.objects import KINDS, ObjectKey, key_of_path
from schemas.problem import Problem
from schemas.secret import Secret

AGENT_STATES: Final = ("active", "cordoned", "quarantined")
OBJECT_STATES: Final = ("InService", "LastGood", "Quarantined")
CONDITION: Final = r"^(Connected|Workloads|DataPlane)(=(True|False|Unknown))?$"
LABEL: Final = r"^[a-z0-9][a-z0-9./-]{0,62}(=[A-Za-z0-9._-]{0,63})?$"


class Control(Protocol):
    """:class:`reconciler.web.api.Control`."""

    @property
    def published(self) -> Published: ...
    def problems(self) -> tuple[Problem, ...]: ...
    def observations(self) -> dict[str, AgentObservation]: ...
    def connected(self) -> frozenset[str]: ...
    def conditions(self, names: Iterable[str]) -> dict[str, tuple[AgentCondition, ...]]: ...
    def health_of(self, name: str) -> AgentHealth: ...
    def presence_of(self, name: str) -> Presence: ...


class ObjectApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, *, control: Control, callers: Callers) -> None:
        self._control = control
        self._callers = callers
        self._catalogue = Catalogue()

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        words = text("Only what has this in its name; the case does not count.", longest=200, example="web")
        return (
            Endpoint("GET", "/api/v1/objects", "Objects with their state, in order of path", self.objects, "read",
                     response=ObjectList, headers=("ETag",), query={
                         **pages("objects", "routes/shop/web.yaml"), "q": words, "team": name_of("Only this team's."),
                         "kind": one_of("Only objects of this kind.", tuple(KINDS), many=True),
                         "state": one_of("Only objects in this state.", OBJECT_STATES, many=True)}),
            Endpoint("GET", "/api/v1/state", "Every object in service", self.state, "plan", response=PublishedState,
                     headers=("ETag",)),
            Endpoint("GET", "/api/v1/agents", "Agents with what they report, in order of name", self.agents, "read",
                     response=AgentList, query={
                         **pages("agents", "vps-1"), "q": words,
                         "state": one_of("Only agents whose file says so.", AGENT_STATES, many=True),
                         "presence": one_of("Only agents that are so.", get_args(Presence), many=True),
                         "label": text("Only agents with this label: `key`, or `key=value`.", longest=128,
                                       pattern=LABEL, many=True, example="zone=eu"),
                         "condition": text("Only agents of which this is so: `Connected=False`; without a status: "
                                           "those of which it is not true.", longest=32, pattern=CONDITION,
                                           many=True, example="Workloads=False")}),
            Endpoint("GET", "/api/v1/secrets", "Names of secrets and of their keys", self.secrets, "read",
                     response=SecretList, headers=("ETag",), query={
                         **pages("secrets", "shop/web"), "q": words, "team": name_of("Only this team's.")}),
        )  # fmt: skip

    # --- objects ------------------------------------------------------------------------------------------------

    async def objects(self, request: Request) -> Response:
        self._callers.caller(request, "read")
        query, state = request.query_params, self._control.published.state
        kinds, states = frozenset(query.getlist("kind")), frozenset(query.getlist("state"))
        team, words = query.get("team", ""), query.get("q", "").lower()
        paths, keys = self._catalogue.paths(state)
        problems = _by_file(self._control.problems())
        beside = problems.keys() - keys.keys()

        def is_wanted(path: str) -> bool:
            key = keys.get(path) or key_of_path(path)
            return (
                (not kinds or (key is not None and key.kind in kinds))
                and (not team or (key is not None and key.team == team))
                and (not states or _standing(state, key) in states)
                and words in path.lower()
            )

        names = sorted([*paths, *beside]) if beside else paths
        page, following = next_names(names, query.get("after", ""), limit_of(request), is_wanted)
        found = tuple(_summary(state, path, keys.get(path) or key_of_path(path), problems) for path in page)
        return tagged_answer(request, ObjectList(objects=found, next=following))

    async def state(self, request: Request) -> Response:
        self._callers.caller(request, "plan")
        published = self._control.published
        tag = f"{published.generation}-{published.revision}"
        if (known := known_answer(request, tag)) is not None:
            return known
        objects = await asyncio.to_thread(_published_objects, published)
        answer = PublishedState(generation=published.generation, revision=published.revision, objects=objects)
        content = await asyncio.to_thread(answer.model_dump_json, by_alias=True)
        headers = {"ETag": f'"{tag}"', "Cache-Control": "private, no-cache"}
        return Response(content, 200, headers, "application/json")

    # --- agents -------------------------------------------------------------------------------------------------

    async def agents(self, request: Request) -> Response:
        self._callers.caller(request, "read")
        control, query = self._control, request.query_params
        published, seen, present = control.published, control.observations(), control.connected()
        names, keys = self._catalogue.names(published.state, "Agent")
        asked = {name: frozenset(query.getlist(name)) for name in ("state", "presence")}
        labels = [_pair(one) for one in query.getlist("label")]
        conditions = [_pair(one) for one in query.getlist("condition")]
        words = query.get("q", "").lower()

        def is_wanted(name: str) -> bool:
            agent = _agent(published.state, keys[name])
            return (
                (not asked["state"] or agent.spec.state in asked["state"])
                and (not asked["presence"] or control.presence_of(name) in asked["presence"])
                and all(_has_label(agent, *one) for one in labels)
                and (words in name or words in agent.spec.address.lower())
                and (not conditions or _stands(control.conditions([name])[name], conditions))
            )

        page, following = next_names(names, query.get("after", ""), limit_of(request), is_wanted)
        standing = control.conditions(page)
        found = tuple(
            agent_status(
                _agent(published.state, keys[name]),
                published,
                seen.get(name),
                connected=name in present,
                conditions=standing[name],
                health=control.health_of(name),
            )
            for name in page
        )
        return whole_answer(AgentList(agents=found, next=following))

    # --- secrets ------------------------------------------------------------------------------------------------

    async def secrets(self, request: Request) -> Response:
        self._callers.caller(request, "read")
        query, state = request.query_params, self._control.published.state
        names, keys = self._catalogue.names(state, "Secret")
        team, words = query.get("team", ""), query.get("q", "").lower()
        page, following = next_names(
            names,
            query.get("after", ""),
            limit_of(request),
            lambda name: (not team or keys[name].team == team) and words in name,
        )
        found = tuple(_secret(state, keys[name]) for name in page)
        return tagged_answer(request, SecretList(secrets=found, next=following))


def _by_file(problems: Iterable[Problem]) -> dict[str, list[Problem]]:
    found: dict[str, list[Problem]] = {}
    for problem in problems:
        found.setdefault(problem.file, []).append(problem)
    return found


def _standing(state: State, key: ObjectKey | None) -> str:
    served = state.served.get(key) if key is not None else None
    return "LastGood" if served and served.retained else "InService" if served else "Quarantined"


def _summary(
    state: State, path: str, key: ObjectKey | None, problems: Mapping[str, Sequence[Problem]]
) -> ObjectSummary:
    served = state.served.get(key) if key is not None else None
    return ObjectSummary.model_validate(
        {
            "kind": key.kind if key else "",
            "team": key.team if key else "",
            "name": key.name if key else path,
            "path": path,
            "blob": served.blob if served else "",
            "state": _standing(state, key),
            "problems": tuple(problems.get(path, ())),
        }
    )


def _published_objects(published: Published) -> tuple[PublishedObject, ...]:
    return tuple(
        PublishedObject.model_construct(
            path=key.path,
            blob=one.blob,
            document=one.object.model_dump(mode="json", by_alias=True, exclude_unset=True),
        )
        for key, one in sorted(published.state.served.items())
    )


def _agent(state: State, key: ObjectKey) -> Agent:
    found = state.served[key].object
    assert isinstance(found, Agent)
    return found


def _pair(text: str) -> tuple[str, str | None]:
    name, equals, value = text.partition("=")
    return name, value if equals else None


def _has_label(agent: Agent, name: str, value: str | None) -> bool:
    labels = agent.metadata.labels
    return name in labels and value in (None, labels[name])


def _stands(conditions: Iterable[AgentCondition], wanted: Iterable[tuple[str, str | None]]) -> bool:
    status = {one.type: one.status for one in conditions}
    return all(
        status.get(kind, "Unknown") != "True" if value is None else status.get(kind) == value  # type: ignore[call-overload]
        for kind, value in wanted
    )


def _secret(state: State, key: ObjectKey) -> SecretSummary:
    found = state.served[key].object
    assert isinstance(found, Secret)
    return SecretSummary(
        team=key.team,
        name=key.name,
        path=key.path,
        keys=tuple(sorted(found.spec.sealed)),
        used_by=tuple(sorted(one.path for one in state.referrers.get(key, ()) if one in state.served)),
    )
