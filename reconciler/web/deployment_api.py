"""Deployments as people see them, and what they may do with what runs. Shapes in ``schemas.deployments_api``.

Whoever has a token of a team sees that team's deployments alone. Looking needs the scope ``read``; logs and restarts
``operate``, for a log may say more than the state repo does; running a program ``exec``, and that the fleet allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.commands import Asked, Commands, said_of
from reconciler.desired.state import Served, State
from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator, Identity, Scope
from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation
from reconciler.web.bodies import json_answer, read_json
from reconciler.web.catalogue import Catalogue
from reconciler.web.command_lines import CommandLines
from reconciler.web.deployment_views import Look, Seen, agents_of, deployment_of, deployment_view, states_of
from reconciler.web.endpoint import Endpoint
from reconciler.web.parameters import SECONDS, Parameter, name_of, one_of, pages, text
from reconciler.web.queries import limit_of, next_names, number_of, seconds_of
from schemas.deployment import Deployment
from schemas.deployments_api import (
    BACKUP_PATH,
    BACKUPS_PATH,
    DATABASES_PATH,
    DEPLOYMENT_PATH,
    DEPLOYMENTS_PATH,
    EXEC_PATH,
    LINES,
    LOGS_PATH,
    LONGEST_COMMAND,
    MAX_TAIL,
    RESTART_PATH,
    RESTORE_PATH,
    BackupRequest,
    CommandLine,
    DeploymentDetail,
    DeploymentList,
    ExecRequest,
    RestartRequest,
    RestoreRequest,
)
from schemas.names import seconds
from schemas.objects import ObjectKey

USUAL_TAIL = 100
DEPLOYMENT_STATES = ("Applied", "Progressing", "Failed", "Unknown")
LOGS_SECONDS = 60.0
DATABASE_SECONDS = 6 * 3600.0
"""For a backup or a restore."""
RESTART_MARGIN = 120.0
"""Seconds for what a restart needs besides its roll-out's deadline: fetching, switching, draining."""


_NOWHERE = {409: "It runs on no agent, or on several, and none is named."}


class Control(Protocol):
    """What is asked of the running control plane: :class:`reconciler.app.ControlPlane`."""

    @property
    def published(self) -> Published: ...
    def observations(self) -> dict[str, AgentObservation]: ...
    def connected(self) -> frozenset[str]: ...


class _Asked(NamedTuple):
    """Who asks, about which deployment in service."""

    caller: Identity
    key: ObjectKey
    served: Served


class DeploymentApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(
        self,
        *,
        control: Control,
        commands: Commands,
        authenticator: Authenticator,
        clock: Callable[[], float],
        seen: Seen = lambda _agent, _key: None,
    ) -> None:
        self._control = control
        self._authenticator = authenticator
        self._clock = clock
        self._seen = seen
        self._catalogue = Catalogue()
        self._lines = CommandLines(commands, authenticator, clock)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        agent = {"agent": "only there; needed for some where it runs on several"}
        filters = {
            **pages("deployments", "shop/web"),
            "team": name_of("Only this team's."),
            "agent": name_of("Only what is to run on this agent.", "vps-1"),
            "state": one_of("Only what is so on some agent.", DEPLOYMENT_STATES, many=True),
            "q": text("Only what has this in its name.", longest=200, example="web"),
        }
        return (
            Endpoint("GET", DEPLOYMENTS_PATH, "Deployments and how they stand, in order of name", self.deployments,
                     "read", response=DeploymentList, query=filters, team=True),
            Endpoint("GET", DATABASES_PATH, "Deployments that are databases, in order of name", self.databases,
                     "read", response=DeploymentList, query=filters, team=True),
            Endpoint("GET", DEPLOYMENT_PATH, "One deployment", self.deployment, "read", response=DeploymentDetail,
                     team=True),
            Endpoint("GET", LOGS_PATH, "What it wrote, line by line", self.logs, "operate", response=CommandLine,
                     media=LINES, query={**agent, "tail": f"lines of before, at most {MAX_TAIL}",
                                         "follow": "`true`: go on",
                                         "seconds": Parameter("At most so long.", SECONDS)},
                     problems=_NOWHERE, team=True),
            Endpoint("POST", RESTART_PATH, "Have a fresh instance made", self.restart, "operate",
                     request=RestartRequest, response=CommandLine, media=LINES, team=True),
            Endpoint("POST", EXEC_PATH, "Run a program where it runs", self.execute, "exec",
                     request=ExecRequest, response=CommandLine, media=LINES, team=True),
            Endpoint("POST", BACKUP_PATH, "Back a database up", self.backup, "operate", request=BackupRequest,
                     response=CommandLine, media=LINES, team=True),
            Endpoint("GET", BACKUPS_PATH, "Backups that the agent keeps, oldest first", self.backups, "operate",
                     response=CommandLine, media=LINES, query=agent, problems=_NOWHERE, team=True),
            Endpoint("POST", RESTORE_PATH, "Write a backup of a database back", self.restore, "operate",
                     request=RestoreRequest, response=CommandLine, media=LINES, team=True),
        )  # fmt: skip

    # --- looking --------------------------------------------------------------------------------------------------

    async def deployments(self, request: Request) -> Response:
        return self._listed(request, lambda _: True)

    async def databases(self, request: Request) -> Response:
        return self._listed(request, lambda deployment: deployment.spec.type == "mongodb")

    def _listed(self, request: Request, keep: Callable[[Deployment], bool]) -> Response:
        """Answer with a page of what the caller may see, and asks for."""
        caller, query, look = self._authenticated(request), request.query_params, self._look()
        caller.require("read", team=caller.team or None)
        names, keys = self._catalogue.names(look.state, "Deployment")
        team, agent, words = query.get("team", ""), query.get("agent", ""), query.get("q", "").lower()
        states = frozenset(query.getlist("state"))

        def is_wanted(name: str) -> bool:
            key = keys[name]
            return (
                caller.team in ("", key.team)
                and team in ("", key.team)
                and words in name
                and keep(deployment_of(look.state, key))
                and (not agent or agent in agents_of(look.state, key))
                and (not states or not states.isdisjoint(states_of(key, look)))
            )

        page, following = next_names(names, query.get("after", ""), limit_of(request), is_wanted)
        found = tuple(deployment_view(keys[name], look) for name in page)
        return json_answer(DeploymentList(deployments=found, next=following))

    async def deployment(self, request: Request) -> Response:
        _, key, served = self._asked(request, "read")
        state = self._control.published.state
        detail = DeploymentDetail(
            **dict(deployment_view(key, self._look())),
            spec=served.object.model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"],
            exec_allowed=_may_exec(state, key.team),
        )
        return json_answer(detail)

    def _look(self) -> Look:
        control = self._control
        return Look(control.published.state, control.connected(), control.observations(), self._seen)

    # --- acting ---------------------------------------------------------------------------------------------------

    async def logs(self, request: Request) -> Response:
        caller, key, _ = self._asked(request, "operate")
        follow = request.query_params.get("follow") == "true"
        tail = number_of(request, "tail", USUAL_TAIL, MAX_TAIL)
        limit = seconds_of(request, LONGEST_COMMAND if follow else LOGS_SECONDS, LONGEST_COMMAND)
        arguments = {"tail": str(tail), "follow": "true" if follow else "false"}
        what = "logs, followed," if follow else "logs"
        agents = self._agents_for(key, request.query_params.get("agent"))
        asked = [Asked(one, "logs", str(key), said_of(what, one), limit, arguments) for one in agents]
        return await self._lines.answer(asked, caller)

    async def restart(self, request: Request) -> Response:
        caller, key, served = self._asked(request, "operate")
        wanted = await read_json(request, RestartRequest)
        assert isinstance(served.object, Deployment)
        limit = wanted.seconds or restart_seconds(served.object)
        agents = self._agents_for(key, wanted.agent)
        asked = [Asked(one, "restart", str(key), said_of("restart", one), limit, {}) for one in agents]
        return await self._lines.answer(asked, caller, one_by_one=True)

    async def execute(self, request: Request) -> Response:
        caller, key, _ = self._asked(request, "exec")
        wanted = await read_json(request, ExecRequest)
        if not _may_exec(self._control.published.state, key.team):
            text = f'The fleet does not let people run programs in what team "{key.team}" deploys.'
            hint = f'It would with "commands: {{exec: [{key.team}]}}" in the spec of fleet.yaml.'
            raise Refused(text, status=403, code="exec-not-allowed", hint=hint)
        one = self._one_agent(key, wanted.agent)
        said = said_of("exec", one, wanted.command)
        return await self._lines.answer(
            [Asked(one, "exec", str(key), said, wanted.seconds, {}, wanted.command)], caller
        )

    # --- databases ------------------------------------------------------------------------------------------------

    async def backup(self, request: Request) -> Response:
        asked = self._asked(request, "operate")
        wanted = await read_json(request, BackupRequest)
        return await self._of_database(asked, "backup", wanted.agent)

    async def backups(self, request: Request) -> Response:
        asked = self._asked(request, "operate")
        return await self._of_database(asked, "backups", request.query_params.get("agent"))

    async def restore(self, request: Request) -> Response:
        asked = self._asked(request, "operate")
        wanted = await read_json(request, RestoreRequest)
        if wanted.confirm != f"{asked.key.team}/{asked.key.name}":
            text = f"Nothing was touched: to confirm, say {asked.key.team}/{asked.key.name} again."
            raise Refused(text, status=409, code="not-confirmed")
        said = {"archive": wanted.archive, "confirm": wanted.confirm, "replace": "true" if wanted.replace else "false"}
        return await self._of_database(asked, "restore", wanted.agent, said)

    async def _of_database(
        self, asked: _Asked, action: str, agent: str | None, said: Mapping[str, str] | None = None
    ) -> Response:
        caller, key, served = asked
        if not isinstance(served.object, Deployment) or served.object.spec.type != "mongodb":
            raise Refused(f"{key.team}/{key.name} is no database.", status=409, code="no-database")
        one = self._one_agent(key, agent)
        return await self._lines.answer(
            [Asked(one, action, str(key), said_of(action, one), DATABASE_SECONDS, said or {})], caller
        )

    # --- who is meant ---------------------------------------------------------------------------------------------

    def _one_agent(self, key: ObjectKey, agent: str | None) -> str:
        """Return the agent that a command goes to.

        Raises:
            Refused: as :meth:`_agents_for`; 409 ``several-agents``.
        """
        agents = self._agents_for(key, agent)
        if len(agents) > 1:
            text = f"{key.team}/{key.name} runs on several agents: {', '.join(agents[:10])}."
            raise Refused(text, status=409, code="several-agents", hint="Name one of them.")
        return agents[0]

    def _agents_for(self, key: ObjectKey, agent: str | None) -> Sequence[str]:
        """Return the agents that a command goes to.

        Raises:
            Refused: 404 ``unknown-agent``; 409 ``runs-nowhere``.
        """
        agents = agents_of(self._control.published.state, key)
        if not agents:
            raise Refused(f"{key.team}/{key.name} runs on no agent.", status=409, code="runs-nowhere")
        if agent is None:
            return agents
        if agent not in agents:
            text = f"{key.team}/{key.name} does not run on such an agent."
            raise Refused(text, status=404, code="unknown-agent", hint=f"It runs on {', '.join(agents[:10])}.")
        return (agent,)

    def _asked(self, request: Request, scope: Scope) -> _Asked:
        """Return the caller, who may, and the deployment in service.

        Raises:
            Refused: 401, 403; 404 ``unknown-deployment``.
        """
        team, name = request.path_params["team"], request.path_params["name"]
        caller = self._authenticated(request)
        caller.require(scope, team=team)
        key = ObjectKey("Deployment", team, name)
        served = self._control.published.state.served.get(key)
        if served is None:
            hint = "cloudlunacy deploy list shows those in service."
            raise Refused("There is no such deployment.", status=404, code="unknown-deployment", hint=hint)
        return _Asked(caller, key, served)

    def _authenticated(self, request: Request) -> Identity:
        return self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())


def restart_seconds(deployment: Deployment) -> float:
    """Return how long a restart may take on one agent."""
    return min(LONGEST_COMMAND, seconds(deployment.spec.rollout.deadline) + RESTART_MARGIN)


def _may_exec(state: State, team: str) -> bool:
    return state.fleet is not None and team in state.fleet.spec.commands.exec
