"""Webhooks: CloudEvents in the JSON batch format, signed as Standard Webhooks says.

The receiver checks ``webhook-signature``: ``v1,`` and the base64 of HMAC-SHA256 over
``<webhook-id>.<webhook-timestamp>.<body>``
(https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md). A second try of a message
has the same ``webhook-id``, and so do the events in it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import ssl
from collections.abc import Callable, Mapping
from typing import Final

import httpx
from pydantic import SecretStr

from reconciler.errors import Rejected, Transient

SECONDS: Final = 15.0
SHORTEST_SECRET: Final = 24
"""Bytes, as Standard Webhooks has it."""
CONTENT_TYPE: Final = "application/cloudevents-batch+json"
_PREFIX: Final = "whsec_"


def signing_key(secret: SecretStr) -> bytes:
    """Return the key that a sealed value holds: base64 behind ``whsec_``, or the text itself.

    Raises:
        Rejected: it is too short, or no base64 (``ChannelRefused``).
    """
    text = secret.get_secret_value().strip()
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True) if text.startswith(_PREFIX) else text.encode()
    except (binascii.Error, ValueError):
        key = b""
    if len(key) < SHORTEST_SECRET:
        words = f"The secret of the webhook is no whsec_… with base64, or has less than {SHORTEST_SECRET} bytes."
        raise Rejected(words, reason="ChannelRefused", hint="Seal a new one: openssl rand -base64 32")
    return key


def headers_of(key: bytes, body: bytes, *, message_id: str, now: float) -> Mapping[str, str]:
    """Return the headers of a message that is sent now (POSIX seconds)."""
    stamp = str(int(now))
    signed = hmac.new(key, f"{message_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return {
        "Content-Type": CONTENT_TYPE,
        "User-Agent": "cloudlunacy",
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


class WebhookSender:
    """``roots`` (PEM) are believed besides the system's: those of the fleet itself."""

    def __init__(self, roots: Callable[[], str] = str, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._roots = roots
        self._transport = transport

    async def send(self, url: str, secret: SecretStr, body: bytes, *, message_id: str, now: float) -> None:
        """Post a message.

        Raises:
            Rejected: the secret cannot be used.
            Transient: nobody answered in time, or not with 2xx. The answer's body is not read.
        """
        headers = headers_of(signing_key(secret), body, message_id=message_id, now=now)
        host = httpx.URL(url).host
        try:
            async with (
                self._client() as client,
                client.stream("POST", url, content=body, headers=headers) as answer,
            ):
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            raise Transient(f"{host} cannot be told: {type(error).__name__}.", reason="ChannelUnavailable") from None
        if not 200 <= status < 300:
            raise Transient(f"{host} answered {status}.", reason="ChannelUnavailable")

    def _client(self) -> httpx.AsyncClient:
        context = ssl.create_default_context()
        if roots := self._roots():
            context.load_verify_locations(cadata=roots)
        return httpx.AsyncClient(
            timeout=SECONDS, verify=context, follow_redirects=False, trust_env=False, transport=self._transport
        )
