"""Signed webhooks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac

import httpx
import pytest
from pydantic import SecretStr

from reconciler.errors import Rejected, Transient
from reconciler.notifications.webhook_channel import WebhookSender, headers_of, signing_key

KEY = b"0123456789abcdef0123456789abcdef"
SECRET = SecretStr("whsec_" + base64.b64encode(KEY).decode())
URL = "https://hooks.example.com/fleet"


def sender(answer: httpx.Response | Exception, seen: list[httpx.Request] | None = None) -> WebhookSender:
    def handle(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return WebhookSender(transport=httpx.MockTransport(handle))


def test_the_receiver_can_check_who_sent_it_and_when() -> None:
    """The signature is over id, time and body, as Standard Webhooks has it."""
    seen: list[httpx.Request] = []
    asyncio.run(sender(httpx.Response(204), seen).send(URL, SECRET, b"[]", message_id="msg-1-2", now=1_700_000_000.9))
    (request,) = seen
    signed = hmac.new(KEY, b"msg-1-2.1700000000.[]", hashlib.sha256).digest()
    assert request.headers["webhook-signature"] == f"v1,{base64.b64encode(signed).decode()}"
    assert request.headers["webhook-id"] == "msg-1-2"
    assert request.headers["content-type"] == "application/cloudevents-batch+json"


def test_the_example_of_the_specification_is_signed_alike() -> None:
    """Key, message and signature stand in the specification's own libraries."""
    key = signing_key(SecretStr("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    found = headers_of(key, b'{"test": 2432232314}', message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", now=1614265330)
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(302, headers={"Location": "https://elsewhere.test/"}),
        httpx.ConnectError("no"),
    ],
)
def test_what_is_not_taken_is_tried_again(answer: httpx.Response | Exception) -> None:
    """Only 2xx counts; a redirect is not followed."""
    seen: list[httpx.Request] = []
    with pytest.raises(Transient) as failed:
        asyncio.run(sender(answer, seen).send(URL, SECRET, b"[]", message_id="m", now=0.0))
    assert "hooks.example.com" in failed.value.message
    assert len(seen) == 1


@pytest.mark.parametrize("secret", ["short", "whsec_!!!", "whsec_" + base64.b64encode(b"short").decode()])
def test_a_weak_secret_is_refused(secret: str) -> None:
    """The sentence says how to make one, and repeats nothing."""
    with pytest.raises(Rejected) as refused:
        signing_key(SecretStr(secret))
    assert secret not in refused.value.message
