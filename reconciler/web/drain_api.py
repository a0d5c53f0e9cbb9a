"""Routes by which operators drain agents; shapes in ``schemas.health_api``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator, Identity
from reconciler.store.seen import Drained
from reconciler.web.bodies import json_answer, read_json
from reconciler.web.endpoint import Endpoint
from schemas.access_api import seconds_of
from schemas.health_api import DRAIN_PATH, UNDRAIN_PATH, AgentDrain, Drain, DrainRequest


class Drains(Protocol):
    """:class:`reconciler.steps.observing.Observing`."""

    @property
    def drains(self) -> Mapping[str, Drained]: ...
    async def drain(self, drained: Drained) -> None: ...
    async def undrain(self, agent: str, by: str) -> bool: ...


class DrainApi:
    """``is_there`` says whether an agent of that name is in service."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        drains: Drains,
        is_there: Callable[[str], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._drains = drains
        self._is_there = is_there
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("POST", DRAIN_PATH, "Keep requests away from an agent", self.drain, "operate",
                     request=DrainRequest, response=AgentDrain),
            Endpoint("POST", UNDRAIN_PATH, "Let an agent have requests again", self.undrain, "operate",
                     response=AgentDrain),
        )  # fmt: skip

    async def drain(self, request: Request) -> Response:
        """Fronts follow within seconds; git is not changed."""
        caller = self._caller(request)
        wanted = await read_json(request, DrainRequest)
        name, now = self._agent(request), self._clock()
        until = None if wanted.lasting is None else now + seconds_of(wanted.lasting)
        before = self._drains.drains.get(name)
        drained = Drained(name, wanted.reason, str(caller), before.at if before is not None else now, until)
        await self._drains.drain(drained)
        return json_answer(AgentDrain(name=name, drain=drain_view(drained), changed=before is None))

    async def undrain(self, request: Request) -> Response:
        """Asking for an agent that is not drained changes nothing."""
        caller, name = self._caller(request), self._agent(request)
        return json_answer(AgentDrain(name=name, changed=await self._drains.undrain(name, str(caller))))

    def _agent(self, request: Request) -> str:
        name = request.path_params["name"]
        assert isinstance(name, str)
        if not self._is_there(name):
            raise Refused("there is no such agent in service.", status=404, code="unknown-agent")
        return name

    def _caller(self, request: Request) -> Identity:
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        identity.require("operate")
        return identity


def drain_view(drained: Drained) -> Drain:
    """Return a drain as the API shows it."""
    return Drain(
        by=drained.by,
        since=datetime.fromtimestamp(drained.at, UTC),
        until=None if drained.until is None else datetime.fromtimestamp(drained.until, UTC),
        reason=drained.reason,
    )
