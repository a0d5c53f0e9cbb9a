"""Routes for what is wrong and who is told; shapes in ``schemas.notification_api``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused, Rejected
from reconciler.notifications.conditions import Kept
from reconciler.notifications.service import Notifying
from reconciler.pki.authenticator import Authenticator, Identity, Scope
from reconciler.web.agent_views import moment
from reconciler.web.bodies import json_answer
from reconciler.web.endpoint import Endpoint
from schemas.api import Accepted
from schemas.notification_api import CHANNEL_TEST_PATH, CONDITIONS_PATH, ConditionList, ConditionView

_RANK: Final = {"error": 0, "warning": 1, "info": 2}


class NotificationApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, *, authenticator: Authenticator, notifying: Notifying, clock: Callable[[], float]) -> None:
        self._authenticator = authenticator
        self._notifying = notifying
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", CONDITIONS_PATH, "What is not as it should be", self.conditions, "read",
                     response=ConditionList),
            Endpoint("POST", CHANNEL_TEST_PATH, "Tell a channel that it works", self.test_channel, "operate",
                     response=Accepted, status=202),
        )  # fmt: skip

    async def conditions(self, request: Request) -> Response:
        """The worst first, then the oldest."""
        self._caller(request, "read")
        found = sorted(self._notifying.kept.values(), key=lambda one: (_RANK[one.condition.severity], one.since))
        return json_answer(ConditionList(conditions=tuple(_view(one) for one in found)))

    async def test_channel(self, request: Request) -> Response:
        """The message goes the way of all others; what becomes of it is an event."""
        caller = self._caller(request, "operate")
        name = request.path_params["name"]
        try:
            await self._notifying.test(name, str(caller))
        except Rejected as error:
            raise Refused(error.message, status=404, code="unknown-channel", hint=error.hint) from None
        return json_answer(Accepted(accepted=True, message=f"{name} will be told in a moment"), 202)

    def _caller(self, request: Request, scope: Scope) -> Identity:
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        identity.require(scope)
        return identity


def _view(one: Kept) -> ConditionView:
    condition = one.condition
    return ConditionView(
        type=condition.type,
        subject=condition.subject,
        severity=condition.severity,
        title=condition.title,
        message=condition.message,
        team=condition.team,
        since=moment(one.since),
        told=tuple(sorted(one.told)),
        link=condition.link,
    )
