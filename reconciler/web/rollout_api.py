"""Routes for roll-outs of deployments; shapes in ``schemas.rollout_api``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator, Identity, Scope
from reconciler.steps.passing import Published
from reconciler.steps.pauses import Pauses
from reconciler.steps.standings import Standings
from reconciler.steps.waves import Waves
from reconciler.web.bodies import json_answer
from reconciler.web.endpoint import Endpoint
from schemas.objects import ObjectKey
from schemas.rollout_api import PAUSE_PATH, RESUME_PATH, ROLLOUT_PATH, RolloutOnAgent, RolloutStatus


class RolloutApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        published: Callable[[], Published],
        waves: Waves,
        standings: Standings,
        pauses: Pauses,
        clock: Callable[[], float],
    ) -> None:
        self._authenticator = authenticator
        self._published = published
        self._waves = waves
        self._standings = standings
        self._pauses = pauses
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", ROLLOUT_PATH, "How far a deployment's newest version is", self.rollout, "read",
                     response=RolloutStatus, team=True),
            Endpoint("POST", PAUSE_PATH, "Let no further agent get a change", self.pause, "operate",
                     response=RolloutStatus, team=True),
            Endpoint("POST", RESUME_PATH, "Let changes go on", self.resume, "operate", response=RolloutStatus,
                     team=True),
        )  # fmt: skip

    async def rollout(self, request: Request) -> Response:
        _, key = self._asked(request, "read")
        return json_answer(self.status(key))

    async def pause(self, request: Request) -> Response:
        caller, key = self._asked(request, "operate")
        await self._pauses.pause(key, str(caller))
        return json_answer(self.status(key))

    async def resume(self, request: Request) -> Response:
        caller, key = self._asked(request, "operate")
        await self._pauses.resume(key, str(caller))
        return json_answer(self.status(key))

    def status(self, key: ObjectKey) -> RolloutStatus:
        """Return how far a deployment in service is."""
        published = self._published()
        shown = self._waves.shown(published, key)
        agents = []
        for name, (place, version) in sorted(shown.agents.items()):
            since = shown.since.get(name, 0)
            said = self._standings.of(name, str(key), since) if version else None
            agents.append(
                RolloutOnAgent(
                    agent=name,
                    place=place,
                    version=version,
                    state="Unknown" if said is None else said.state,
                    reason="" if said is None else said.reason,
                    message="" if said is None else said.message,
                    since=None if said is None else datetime.fromtimestamp(said.since, UTC),
                    connected=self._standings.away(name) is None,
                )
            )
        return RolloutStatus(
            team=key.team,
            name=key.name,
            state=shown.wave.state,
            message=shown.wave.message,
            revision=shown.revision,
            version=shown.version,
            paused_by=shown.rule.paused,
            max_unavailable=shown.rule.max_unavailable,
            agents=tuple(agents),
        )

    def _asked(self, request: Request, scope: Scope) -> tuple[Identity, ObjectKey]:
        """Return the caller, who may, and the deployment in service.

        Raises:
            Refused: 401, 403; 404 ``unknown-deployment``.
        """
        team, name = request.path_params["team"], request.path_params["name"]
        caller = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        caller.require(scope, team=team)
        key = ObjectKey("Deployment", team, name)
        if key not in self._published().state.served:
            hint = "cloudlunacy deploy list shows those in service."
            raise Refused("There is no such deployment.", status=404, code="unknown-deployment", hint=hint)
        return caller, key
