"""Webhooks: who may send one, how much, how often, and that all it does is to wake the loop."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Iterable
from typing import Any, Final

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from reconciler.errors import Refused
from reconciler.observability.metrics import WEBHOOK_REASONS
from reconciler.web.webhooks import MAX_BODY, Deliveries, WebhookEndpoint, verify

SECRET: Final = b"a secret of the git host"
BODY: Final = b'{"ref": "refs/heads/main"}'
HEX: Final = hmac.new(SECRET, BODY, hashlib.sha256).hexdigest()


class Door:
    """A webhook endpoint, and what came of the requests to it."""

    def __init__(self, secret: bytes | None = SECRET) -> None:
        self.woken = 0
        self.counted: list[str] = []
        self.read = 0
        self._endpoint = WebhookEndpoint(lambda: secret, self._wake, self.counted.append)

    def _wake(self) -> None:
        self.woken += 1

    def post(self, headers: dict[str, str], chunks: Iterable[bytes] = (BODY,)) -> int | Refused:
        """Return the answer's status, or the refusal."""
        waiting = iter([*chunks, None])

        async def receive() -> dict[str, Any]:
            chunk = next(waiting)
            self.read += len(chunk or b"")
            return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        request = Request({"type": "http", "method": "POST", "path": "/webhooks/git", "headers": raw}, receive)
        try:
            return asyncio.run(self._endpoint.receive(request)).status_code
        except Refused as refused:
            return refused


GITHUB: Final = {"X-Hub-Signature-256": f"sha256={HEX}", "X-GitHub-Delivery": "1"}


@pytest.mark.parametrize(
    "headers",
    [
        GITHUB,
        {"X-Gitea-Signature": HEX},
        {"X-Forgejo-Signature": HEX, "X-Gitea-Signature": HEX},
        {"X-Gitlab-Token": SECRET.decode()},
    ],
)
def test_each_git_host_proves_itself_in_its_own_way(headers: dict[str, str]) -> None:
    """A good delivery wakes the loop, and is answered 202."""
    door = Door()
    assert door.post(headers) == 202
    assert (door.woken, door.counted) == (1, ["accepted"])


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Hub-Signature": f"sha1={HEX}"},
        {"X-Hub-Signature-256": HEX},
        {"X-Hub-Signature-256": "sha256="},
        {"X-Hub-Signature-256": f"sha256={HEX.upper()}"},
        {"X-Hub-Signature-256": f"sha256={HEX[:-1]}"},
        {"X-Hub-Signature-256": "sha256=\xe9\xff"},
        {"X-Hub-Signature-256": f"sha256={hmac.new(b'', BODY, hashlib.sha256).hexdigest()}"},
        {"X-Hub-Signature-256": "x", "X-Gitlab-Token": SECRET.decode()},
        {"X-Gitea-Signature": ""},
        {"X-Gitlab-Token": ""},
        {"X-Gitlab-Token": HEX},
        {"Authorization": f"Bearer {SECRET.decode()}"},
    ],
)
def test_a_forged_delivery_is_refused(headers: dict[str, str]) -> None:
    """401, and nothing is woken; a wrong proof is not made good by another one beside it."""
    door = Door()
    refused = door.post(headers)
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code, door.woken, door.counted) == (401, "bad-signature", 0, ["bad-signature"])


def test_a_signature_is_for_one_body() -> None:
    """The raw bytes are what is signed."""
    assert verify({"x-hub-signature-256": f"sha256={HEX}"}, BODY, SECRET)
    assert not verify({"x-hub-signature-256": f"sha256={HEX}"}, BODY + b" ", SECRET)


@pytest.mark.parametrize("secret", [None, b""])
def test_without_a_secret_webhooks_are_off(secret: bytes | None) -> None:
    """404, and the body is not read: an empty key would let everybody in."""
    door = Door(secret)
    refused = door.post({"X-Gitlab-Token": ""})
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code, door.read) == (404, "webhooks-off", 0)
    assert door.counted == ["webhooks-off"]
    assert "CLOUDLUNACY_WEBHOOK_SECRET_FILE" in refused.hint


def test_a_repeated_delivery_wakes_nobody() -> None:
    """The host is told that it arrived, so that it stops trying."""
    door = Door()
    assert [door.post(GITHUB), door.post(GITHUB)] == [202, 202]
    assert (door.woken, door.counted) == (1, ["accepted", "repeated"])


def test_a_forged_delivery_does_not_use_up_an_id() -> None:
    """Only proven deliveries are remembered."""
    door = Door()
    door.post({**GITHUB, "X-Hub-Signature-256": "sha256=0"})
    door.post(GITHUB)
    assert door.woken == 1


@pytest.mark.parametrize("announced", [str(MAX_BODY + 1), "1073741824", "-1", "²", "1e9", "9" * 5000, ""])
def test_a_body_that_is_announced_too_large_is_not_read(announced: str) -> None:
    """413 before the first byte, whatever stands in the header."""
    door = Door()
    refused = door.post({**GITHUB, "Content-Length": announced})
    assert isinstance(refused, Refused)
    assert (refused.status, refused.code, door.read) == (413, "body-too-large", 0)


def test_a_body_that_grows_too_large_is_read_no_further() -> None:
    """One chunk over the limit, and it ends."""
    door = Door()
    refused = door.post(GITHUB, [b"x" * 65536] * 20)
    assert isinstance(refused, Refused)
    assert (refused.status, door.counted) == (413, ["body-too-large"])
    assert door.read <= MAX_BODY + 65536


def test_whatever_is_counted_is_a_label_of_the_metric() -> None:
    """No answer ends up under "other": accepted, repeated, forged, too large, and switched off."""
    door, off = Door(), Door(None)
    for headers in (GITHUB, GITHUB, {}, {**GITHUB, "Content-Length": "x"}):
        door.post(headers)
    off.post(GITHUB)
    counted = [*door.counted, *off.counted]
    assert counted == ["accepted", "repeated", "bad-signature", "body-too-large", "webhooks-off"]
    assert set(counted) <= set(WEBHOOK_REASONS)


def test_remembered_deliveries_are_bounded() -> None:
    """Ids beyond the limit push out the oldest, long ones are cut, and none is always new."""
    deliveries = Deliveries(limit=3)
    assert all(deliveries.is_new({"x-github-delivery": str(number)}) for number in range(5))
    assert not deliveries.is_new({"x-github-delivery": "4"})
    assert deliveries.is_new({"x-github-delivery": "0"})
    assert deliveries.is_new({"x-gitea-delivery": "y" * 1000})
    assert not deliveries.is_new({"x-gitea-delivery": "y" * 999})
    assert deliveries.is_new({})
    assert deliveries.is_new({})


def test_the_application_serves_it() -> None:
    """Mounted as the control plane mounts it, a good delivery is answered 202 and not by a traceback."""
    counted: list[str] = []
    endpoint = WebhookEndpoint(lambda: SECRET, lambda: None, counted.append)
    app = Starlette(routes=[Route("/webhooks/git", endpoint.receive, methods=["POST"])])

    async def scenario() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://plane.test") as client:
            return (await client.post("/webhooks/git", content=BODY, headers=GITHUB)).status_code

    assert (asyncio.run(scenario()), counted) == (202, ["accepted"])
