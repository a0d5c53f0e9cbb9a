"""Channels by Apprise: a real service of its on this machine, and what may not be used."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import pytest
from pydantic import SecretStr

from reconciler.errors import Rejected, Transient
from reconciler.notifications import apprise_channel
from reconciler.notifications.apprise_channel import send, service_of


class Service(BaseHTTPRequestHandler):
    """Takes what Apprise posts, as a gotify server would."""

    got: list[dict[str, object]]
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).got.append(json.loads(body))
        self.send_response(self.status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def gotify() -> Iterator[tuple[type[Service], int]]:
    class Own(Service):
        got: list[dict[str, object]] = []

    server = HTTPServer(("127.0.0.1", 0), Own)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Own, server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_service_gets_title_and_text(gotify: tuple[type[Service], int]) -> None:
    """Through Apprise's own plug-in, by the URL that the secret holds."""
    service, port = gotify
    asyncio.run(send(SecretStr(f"gotify://127.0.0.1:{port}/AbCdEfGhIjKlMnO"), "example: ▲ vps-1 is away", "Since now"))
    assert len(service.got) == 1
    assert "vps-1 is away" in json.dumps(service.got[0], ensure_ascii=False)
    assert "Since now" in str(service.got[0]["message"])


def test_what_the_service_refuses_is_tried_again_and_names_no_secret(
    gotify: tuple[type[Service], int], caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the error nor any log has the token or the address."""
    service, port = gotify
    service.status = 401
    caplog.set_level(logging.DEBUG)
    with pytest.raises(Transient) as refused:
        asyncio.run(send(SecretStr(f"gotify://127.0.0.1:{port}/AbCdEfGhIjKlMnO"), "title", "text"))
    assert str(refused.value) == "The service behind gotify:// did not take the message."
    assert "AbCdEfGhIjKlMnO" not in caplog.text
    assert "127.0.0.1" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "dbus://",
        "syslog://",
        "fcm://project@key/device?keyfile=/etc/passwd",
        "mailtos://user:pass@example.com?pgp=yes&pgpkey=/root/.gnupg/key",
        "mailtos://user:pass@example.com?+PGPKEY=/root/key",
        "mailtos://user:pass@example.com/#?pgpkey=/root/key",
        "mailtos://user:pass@example.com?name=a;pgpprv=/root/key",
        "discord://1234567890/AbCdEfGhIjKlMnO/?template=/var/lib/cloudlunacy/keys.json",
        "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/?a=b&%2574emplate=http://10.0.0.1/",
        "workflow://example.com/a/b/#?Template =/etc/passwd",
        "tgram://123456789:abcdefg_hijklmnop/12315544/?+template=/etc/passwd",
        "json://169.254.169.254/latest",
        "file:///etc/passwd",
        "no url at all",
        "slack://a/b/c\nsyslog://",
    ],
)
def test_services_that_would_touch_this_machine_are_refused(url: str) -> None:
    """The sentence names the scheme and nothing else of the secret."""
    with pytest.raises(Rejected) as refused:
        service_of(SecretStr(url))
    said = f"{refused.value.message} {refused.value.hint}"
    assert "/etc/passwd" not in said
    assert "pass@" not in said


def test_every_service_that_is_listed_is_known_to_apprise() -> None:
    """A word that Apprise does not know would be a channel that never works."""
    from apprise.manager_plugins import NotificationManager  # noqa: PLC0415 - loads all plug-ins

    known: Any = NotificationManager
    assert set(known().schemas()) >= apprise_channel.SERVICES
