"""The ASGI application: every endpoint, behind the limits, with one way to say no."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp

from reconciler.errors import Refused
from reconciler.observability.metrics import Metrics
from reconciler.web.access_api import AccessApi
from reconciler.web.agent_api import AgentApi
from reconciler.web.agent_stream import PATH as STREAM_PATH
from reconciler.web.agent_stream import AgentStream
from reconciler.web.answer_headers import AnswerHeaders
from reconciler.web.api import Api, Control
from reconciler.web.certificate_api import CertificateApi
from reconciler.web.endpoint import Endpoint, routes_of
from reconciler.web.limits import Limits
from reconciler.web.openapi import openapi
from reconciler.web.pages.api_pages import ApiPages
from reconciler.web.problem import HANDLERS
from reconciler.web.rotation_api import RotationApi
from reconciler.web.webhooks import MAX_BODY, WEBHOOK_PATH, WebhookEndpoint
from schemas.api import Health
from schemas.changes_api import CHANGES_PATH, CHECK_PATH
from schemas.changes_api import MAX_BODY as MAX_CHANGE

BODIES: Final = {
    WEBHOOK_PATH: MAX_BODY,
    CHANGES_PATH: MAX_CHANGE,
    CHECK_PATH: MAX_CHANGE,
    # A file as JSON or as a field of a form: a character of it may be twelve of the body.
    "/api/v1/objects/": MAX_CHANGE,
    "/objects/": MAX_CHANGE,
}
"""Path, or what it begins with → octets of a body, where there may be more than of others."""


class Probes:
    """``/healthz``: the process answers; ``/readyz``: it has looked at the remote; ``/metrics``: Prometheus."""

    def __init__(self, control: Control, metrics: Metrics) -> None:
        self._control = control
        self._metrics = metrics

    def endpoints(self) -> tuple[Endpoint, ...]:
        return (
            Endpoint("GET", "/healthz", "The process answers", self.healthz, response=Health),
            Endpoint("GET", "/readyz", "The remote was reached", self.readyz, response=Health),
            Endpoint("GET", "/metrics", "Prometheus metrics", self.metrics),
        )

    async def healthz(self, _: Request) -> Response:
        return JSONResponse({"status": "ok", "message": ""})

    async def readyz(self, _: Request) -> Response:
        if self._control.ready:
            return JSONResponse({"status": "ok", "message": ""})
        return JSONResponse({"status": "starting", "message": "the remote was not reached yet"}, 503)

    async def metrics(self, _: Request) -> Response:
        content, media_type = self._metrics.render()
        return Response(content, media_type=media_type)


class Part(Protocol):
    """Something with endpoints."""

    def endpoints(self) -> tuple[Endpoint, ...]: ...


def make_application(
    *,
    api: Api,
    agents: AgentApi,
    certificates: CertificateApi,
    access: AccessApi,
    rotations: RotationApi,
    stream: AgentStream,
    webhooks: WebhookEndpoint,
    probes: Probes,
    version: str,
    others: Sequence[Part] = (),
    handlers: Mapping[Any, Any] = HANDLERS,
) -> ASGIApp:
    """Assemble the routes. ``handlers``: how is answered what was refused."""
    parts: tuple[Part, ...] = (api, agents, certificates, access, rotations, webhooks, stream, probes, *others)
    table = tuple(endpoint for part in parts for endpoint in part.endpoints())

    @cache
    def description() -> bytes:
        """Made when first asked for: making the schemas would hold up every start, and most are never asked."""
        return json.dumps(openapi(table, version=version)).encode()

    for part in others:
        if isinstance(part, ApiPages):
            part.document = description

    async def serve_openapi(_: Request) -> Response:
        return Response(await asyncio.to_thread(description), media_type="application/json")

    routes: list[BaseRoute] = [
        *routes_of(table),
        Route("/openapi.json", serve_openapi, methods=["GET"]),
        WebSocketRoute(STREAM_PATH, stream),
    ]
    application = Starlette(routes=routes, exception_handlers=dict(handlers))
    application.router.redirect_slashes = False  # a path is what it is, and a redirect would say so without a body
    return AnswerHeaders(Limits(application, bodies=BODIES, refusal=handlers[Refused]))
