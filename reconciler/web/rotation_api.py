"""Routes for rotations of keys; shapes in ``schemas.rotation_api``."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused
from reconciler.pki.authenticator import Authenticator, Identity, Scope
from reconciler.pki.rotation import SUBJECTS, Rotation, Subject
from reconciler.pki.rotation_file import Kept
from reconciler.web.bodies import json_answer, read_json
from reconciler.web.endpoint import Endpoint
from schemas.rotation_api import CANCELLATION_PATH, ROTATIONS_PATH, RotationList, RotationRequest, RotationView


class Rotations(Protocol):
    """:class:`reconciler.app.rotation.Rotations`."""

    kept: Kept

    async def begin(
        self, subject: Subject, *, tainted: bool = False, deadline: dt.timedelta | None = None, actor: str = ""
    ) -> Rotation: ...

    async def cancel(self, subject: Subject, *, actor: str = "") -> Rotation: ...


class RotationApi:
    """``server_ends`` says when the control plane's own certificate ends."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        rotations: Rotations,
        server_ends: Callable[[], dt.datetime | None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._rotations = rotations
        self._server_ends = server_ends
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", ROTATIONS_PATH, "Rotations of keys that are under way", self.rotations, "read",
                     response=RotationList),
            Endpoint("POST", ROTATIONS_PATH, "Let a key give way to another", self.begin, "admin",
                     request=RotationRequest, response=RotationView, status=201),
            Endpoint("POST", CANCELLATION_PATH, "Give a rotation up before the next key takes over", self.cancel,
                     "admin", response=RotationView),
        )  # fmt: skip

    async def rotations(self, request: Request) -> Response:
        self._caller(request, "read")
        kept = self._rotations.kept
        return json_answer(
            RotationList(
                rotations=tuple(view(kept, one) for one in kept.under_way.values()),
                signing_since=dict(kept.signing_since),
                server_certificate_ends=self._server_ends(),
            )
        )

    async def begin(self, request: Request) -> Response:
        caller = self._caller(request, "admin")
        wanted = await read_json(request, RotationRequest)
        seconds = wanted.deadline_seconds
        deadline = None if seconds is None else dt.timedelta(seconds=seconds)
        begun = await self._rotations.begin(
            wanted.subject, tainted=wanted.tainted, deadline=deadline, actor=str(caller)
        )
        return json_answer(view(self._rotations.kept, begun), 201)

    async def cancel(self, request: Request) -> Response:
        caller, subject = self._caller(request, "admin"), request.path_params["subject"]
        if subject not in SUBJECTS:
            raise Refused(f'There is no key "{subject}".', status=404, code="no-such-rotation")
        given_up = await self._rotations.cancel(subject, actor=str(caller))
        return json_answer(view(self._rotations.kept, given_up))

    def _caller(self, request: Request, scope: Scope) -> Identity:
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        identity.require(scope)
        return identity


def view(kept: Kept, rotation: Rotation) -> RotationView:
    """Describe a rotation, and what it waits for."""
    waiting = kept.waiting.get(rotation.subject)
    return RotationView(
        subject=rotation.subject,
        phase=rotation.phase,
        begun=rotation.begun,
        since=rotation.since,
        tainted=rotation.tainted,
        actor=rotation.actor,
        waits_for="" if waiting is None else waiting.why,
        who=() if waiting is None else waiting.who,
        how_many=0 if waiting is None else waiting.count,
        until=None if waiting is None else waiting.until,
    )
