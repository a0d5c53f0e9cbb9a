"""Routes for what is published; shapes in ``schemas.traffic_api`` and ``schemas.explain_api``."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from reconciler.pki.authenticator import Authenticator
from reconciler.web.bodies import json_answer
from reconciler.web.endpoint import Endpoint
from reconciler.web.queries import LARGEST_PAGE, limit_of
from reconciler.web.traffic_views import TrafficViews
from schemas.explain_api import EXPLAIN_PATH, Explanation
from schemas.traffic_api import TRAFFIC_PATH, TrafficList


class TrafficApi:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(
        self, *, authenticator: Authenticator, views: TrafficViews, clock: Callable[[], float] = time.time
    ) -> None:
        self._authenticator = authenticator
        self._views = views
        self._clock = clock

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", TRAFFIC_PATH, "Every host that is published, and who answers there", self.traffic, "read",
                     response=TrafficList,
                     query={"limit": f"at most {LARGEST_PAGE}", "after": "what `next` of the former page said",
                            "text": "only hosts, paths and routes with this in them", "team": "only this team's",
                            "agent": "only what leads to this agent",
                            "state": "serving, degraded, unserved or maintenance"}),
            Endpoint("GET", EXPLAIN_PATH, "Who answers a URL, and why", self.explain, "read", response=Explanation,
                     query={"url": "such as https://shop.example.com/cart, or mongodb://…", "method": "GET by default",
                            "header": "`Name: value`; may be given several times"}),
        )  # fmt: skip

    async def traffic(self, request: Request) -> Response:
        self._require(request)
        asked = request.query_params
        return json_answer(
            self._views.page(
                after=asked.get("after", ""),
                limit=limit_of(request),
                text=asked.get("text", ""),
                team=asked.get("team", ""),
                agent=asked.get("agent", ""),
                state=asked.get("state", ""),
            )
        )

    async def explain(self, request: Request) -> Response:
        self._require(request)
        asked = request.query_params
        found = self._views.explain(
            asked.get("url", ""), method=asked.get("method", ""), headers=asked.getlist("header")
        )
        return json_answer(found)

    def _require(self, request: Request) -> None:
        identity = self._authenticator.authenticate(request.method, str(request.url), request.headers, self._clock())
        identity.require("read")
