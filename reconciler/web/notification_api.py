"""Routes for what is wrong and who is told; shapes in ``schemas.notification_api``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, get_args

from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.rates import CallerBuckets
from reconciler.errors import Refused, Rejected
from reconciler.notifications.conditions import Kept
from reconciler.notifications.service import Notifying
from reconciler.pki.authenticator import Authenticator, Identity, Scope
from reconciler.web.agent_views import moment
from reconciler.web.bodies import json_answer
from reconciler.web.endpoint import Endpoint
from reconciler.web.parameters import Parameter, name_of, one_of, pages, text
from reconciler.web.queries import limit_of, next_names
from schemas.api import Accepted
from schemas.notification_api import CHANNEL_TEST_PATH, CONDITIONS_PATH, ConditionList, ConditionView
from schemas.notifications import Severity

TESTS: Final = 5
TESTS_PER_SECOND: Final = 0.1
"""Of one caller: each message reaches people."""
_SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
"""The worst first."""
_QUERY: Final[Mapping[str, Parameter]] = {
    **pages("conditions", "1:1800000000.000000:AgentAway:agent/vps-1"),
    "type": text("Only conditions of this type.", example="AgentAway", longest=63),
    "subject": text("Only of what is named so.", example="agent/vps-1"),
    "severity": one_of("Only these; may be given several times.", _SEVERITIES, many=True),
    "team": name_of("Only what belongs to this team."),
}


class NotificationApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, *, authenticator: Authenticator, notifying: Notifying, clock: Callable[[], float]) -> None:
        self._authenticator = authenticator
        self._notifying = notifying
        self._clock = clock
        self._tests = CallerBuckets(TESTS, TESTS_PER_SECOND)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", CONDITIONS_PATH, "What is not as it should be", self.conditions, "read",
                     response=ConditionList, query=_QUERY),
            Endpoint("POST", CHANNEL_TEST_PATH, "Tell a channel that it works", self.test_channel, "operate",
                     response=Accepted, status=202, problems={429: "The caller tests channels too often."}),
        )  # fmt: skip

    async def conditions(self, request: Request) -> Response:
        """The worst first, then the oldest."""
        self._caller(request, "read")
        asked, severities = request.query_params, request.query_params.getlist("severity")
        exactly = {name: asked[name] for name in ("type", "subject", "team") if name in asked}
        places = {
            _place(one): one
            for one in self._notifying.kept.values()
            if all(getattr(one.condition, name) == value for name, value in exactly.items())
            and (not severities or one.condition.severity in severities)
        }
        found, following = next_names(sorted(places), asked.get("after", ""), limit_of(request))
        return json_answer(ConditionList(conditions=tuple(_view(places[one]) for one in found), next=following))

    async def test_channel(self, request: Request) -> Response:
        """The message goes the way of all others; what becomes of it is an event."""
        caller = self._caller(request, "operate")
        name = request.path_params["name"]
        if seconds := self._tests.of(str(caller)).take(self._clock()):
            said = "You test channels too often."
            raise Refused(said, status=429, code="too-many-requests", retry_after=seconds)
        try:
            await self._notifying.test(name, str(caller))
        except Rejected as error:
            raise Refused(error.message, status=404, code="unknown-channel", hint=error.hint) from None
        return json_answer(Accepted(accepted=True, message=f"{name} will be told in a moment"), 202)

    def _caller(self, request: Request, scope: Scope) -> Identity:
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        identity.require(scope)
        return identity


def _place(one: Kept) -> str:
    """Return what the list is sorted by: a condition keeps its place, unless it becomes better or worse."""
    rank = _SEVERITIES.index(one.condition.severity)
    return f"{rank}:{one.since:017.6f}:{one.condition.type}:{one.condition.subject}"


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
