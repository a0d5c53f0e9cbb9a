"""Webhooks of git hosts. A webhook carries no truth: all it can do is to make the next poll come sooner.

Each host proves itself in its own way, over the raw body:
GitHub ``X-Hub-Signature-256: sha256=<hex HMAC-SHA256>``; Gitea and Forgejo ``X-Gitea-Signature`` and
``X-Forgejo-Signature`` with the bare hex; GitLab sends the secret itself in ``X-Gitlab-Token``.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from reconciler.errors import Refused
from reconciler.web.endpoint import Endpoint

WEBHOOK_PATH: Final = "/webhooks/git"
MAX_BODY: Final = 1024 * 1024
REMEMBERED_DELIVERIES: Final = 4096
_DELIVERY_HEADERS: Final = ("x-github-delivery", "x-gitea-delivery", "x-forgejo-delivery", "x-gitlab-event-uuid")
_HEX_HEADERS: Final = ("x-forgejo-signature", "x-gitea-signature")


def verify(headers: Mapping[str, str], body: bytes, secret: bytes) -> bool:
    """Say whether the body was sent by somebody who knows the secret. ``headers`` have lower-case names."""
    expected = hmac.new(secret, body, hashlib.sha256).hexdigest().encode()
    if "x-hub-signature-256" in headers:
        return hmac.compare_digest(headers["x-hub-signature-256"].encode(), b"sha256=" + expected)
    for name in _HEX_HEADERS:
        if name in headers:
            return hmac.compare_digest(headers[name].encode(), expected)
    if "x-gitlab-token" in headers:
        return hmac.compare_digest(headers["x-gitlab-token"].encode(), secret)
    return False


class Deliveries:
    """The newest delivery ids, so that a repeated one is recognised. Bounded."""

    def __init__(self, limit: int = REMEMBERED_DELIVERIES) -> None:
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._limit = limit

    def is_new(self, headers: Mapping[str, str]) -> bool:
        """Remember the delivery; False for one that was here before. One without an id is always new."""
        delivery = next((headers[name] for name in _DELIVERY_HEADERS if name in headers), "")[:128]
        if not delivery:
            return True
        if delivery in self._seen:
            return False
        self._seen[delivery] = None
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return True


class WebhookEndpoint:
    """``POST /webhooks/git``. ``wake`` makes the loop look now; it may be called as often as one likes."""

    def __init__(
        self, secret: Callable[[], bytes | None], wake: Callable[[], None], count: Callable[[str], None]
    ) -> None:
        self._secret = secret
        self._wake = wake
        self._count = count
        self._deliveries = Deliveries()

    def endpoints(self) -> tuple[Endpoint, ...]:
        text = "Look at the remote soon: for git hosts, which sign with the shared secret"
        refused = {401: "The signature does not fit the body.", 404: "Webhooks are off."}
        return (Endpoint("POST", WEBHOOK_PATH, text, self.receive, status=202, problems=refused),)

    async def receive(self, request: Request) -> Response:
        """Answer one delivery, and count what became of it; a refusal counts under its code."""
        try:
            return await self._receive(request)
        except Refused as refused:
            self._count(refused.code)
            raise

    async def _receive(self, request: Request) -> Response:
        secret = self._secret()
        if not secret:
            hint = "Start serve with CLOUDLUNACY_WEBHOOK_SECRET_FILE."
            raise Refused("webhooks are off: there is no secret.", status=404, code="webhooks-off", hint=hint)
        body = await read_capped(request, MAX_BODY)
        headers = {name.lower(): value for name, value in request.headers.items()}
        if not verify(headers, body, secret):
            hint = "The secret at the git host and the one of serve must be equal."
            raise Refused("the signature does not fit the body.", status=401, code="bad-signature", hint=hint)
        if not self._deliveries.is_new(headers):
            self._count("repeated")
            return JSONResponse({"accepted": False, "reason": "this delivery was here before"}, 202)
        self._count("accepted")
        self._wake()
        return JSONResponse({"accepted": True}, 202)


async def read_capped(request: Request, limit: int) -> bytes:
    """Read a body that must not exceed ``limit`` bytes; what is announced as larger is not read at all."""
    announced = request.headers.get("content-length", "0")
    if not (announced.isascii() and announced.isdigit() and len(announced) < 20) or int(announced) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> Refused:
    return Refused(f"the body is larger than {limit:,} bytes.", status=413, code="body-too-large")
