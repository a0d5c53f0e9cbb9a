"""What other sites, and who had a session before, get of a browser in which somebody is logged in (threat 18).

The other site is at the same host and speaks TLS, as a sibling would: from its pages the browser sends our cookies.
"""

from __future__ import annotations

import datetime as dt
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from playwright.sync_api import BrowserContext, Page, expect

from reconciler.pki.authenticator import SESSION_COOKIE
from schemas.session import SUBPROTOCOL
from tests.support.certificates import KEY
from tests.support.visitors import Site

FORM: Final = """<!doctype html><title>Win a phone</title>
<form method="post" action="%s%s"><input name="reason" value="x"><input name="name" value="vps-2"></form>
<script>document.forms[0].submit()</script>"""
NOTHING: Final = "<!doctype html><title>Win a phone</title>"
FRAME: Final = '<!doctype html><title>Win a phone</title><iframe src="%s%s" width="900" height="600"></iframe>'
ASK: Final = """(url) => fetch(url, {credentials: "include"}).then((answer) => answer.status, () => "refused")"""
ASK_BLINDLY: Final = """(url) => fetch(url, {method: "POST", mode: "no-cors", credentials: "include", body: "x=1",
  headers: {"Content-Type": "application/x-www-form-urlencoded"}}).then(() => true, () => false)"""
OPEN_SOCKET: Final = """([url, protocol]) => new Promise((done) => {
  const socket = new WebSocket(url, protocol);
  socket.onopen = () => done("open");
  socket.onerror = () => done("refused");
})"""
LISTEN: Final = """(url) => new Promise((done) => {
  const stream = new EventSource(url, {withCredentials: true});
  stream.onopen = () => done("open");
  stream.onerror = () => { stream.close(); done("refused"); };
})"""
HARM: Final = (
    "/agents/vps-2/cordon",
    "/agents/vps-2/drain",
    "/agents/vps-2/revoke",
    "/deployments/shop/api/restart",
    "/logout",
)


def self_signed() -> bytes:
    """Make a certificate without any constraint on its use, with its key (PEM)."""
    now, name = dt.datetime.now(dt.UTC), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    builder = x509.CertificateBuilder(name, name, KEY.public_key(), x509.random_serial_number())
    made = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1)).sign(KEY, hashes.SHA256())
    key = KEY.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(serialization.Encoding.PEM) + key


class OtherSite:
    """Serves one page, which is ``text``, wherever it is asked."""

    def __init__(self) -> None:
        self.origin = ""
        self.text = NOTHING


@contextmanager
def serving(folder: Path) -> Iterator[OtherSite]:
    """Serve another site at another port of the same host, with TLS."""

    shown = OtherSite()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = shown.text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    certificate = folder / "tls.pem"
    certificate.write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    shown.origin = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, name="other-site")
    thread.start()
    try:
        yield shown
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherSite]:
    with serving(tmp_path_factory.mktemp("other")) as one:
        yield one


def session(context: BrowserContext) -> str:
    """The session that a browser has; empty without one."""
    return next((one["value"] for one in context.cookies() if one["name"] == SESSION_COOKIE), "")


def is_logged_in(page: Page, site: Site) -> bool:
    page.goto(site.origin)
    return "/login" not in page.url


def test_forms_of_another_site_change_nothing(site: Site, other: OtherSite) -> None:
    """The cookie comes with them; each is refused all the same, and the person stays logged in."""
    with site.member("administrator") as window:
        page = window.page
        before = site.ask("/agents/vps-2")
        for path in HARM:
            other.text = FORM % (site.origin, path)
            with page.expect_response(site.origin + path) as answered:
                page.goto(other.origin)
            assert f"{SESSION_COOKIE}=" in answered.value.request.all_headers().get("cookie", ""), (
                "as a sibling's would"
            )
            assert answered.value.status == 403, path
            expect(page.get_by_role("heading", level=1)).to_be_visible()
        after = site.ask("/agents/vps-2")
        assert (before["presence"], before["state"]) == (after["presence"], after["state"])
        assert is_logged_in(page, site)


def test_scripts_of_another_site_learn_and_change_nothing(site: Site, other: OtherSite) -> None:
    """They may neither read an answer, nor listen to what happens, nor speak as an agent."""
    api = f"{site.origin}/api/v1"
    socket = [f"{api.replace('https', 'wss')}/agents/stream", SUBPROTOCOL]
    other.text = NOTHING
    with site.member("administrator") as window:
        page = window.page
        page.goto(other.origin)
        assert [page.evaluate(ASK, f"{api}/{one}") for one in ("whoami", "agents", "tokens")] == ["refused"] * 3
        assert page.evaluate(LISTEN, f"{api}/stream") == "refused"
        assert page.evaluate(OPEN_SOCKET, socket) == "refused"
        page.evaluate(ASK_BLINDLY, f"{site.origin}/agents/vps-2/cordon")
        page.evaluate(ASK_BLINDLY, f"{api}/agents/vps-2/cordon")
        page.goto(site.origin)
        assert page.evaluate(OPEN_SOCKET, socket) == "refused", "no person is an agent, from a page of ours either"
        assert page.evaluate(ASK, f"{api}/whoami") == 200
    site.demo.git("pull", "--quiet", "--rebase")
    assert "Cordon agent vps-2" not in site.demo.git("log", "-1", "--format=%s")


def test_no_page_is_shown_in_a_frame(site: Site, other: OtherSite) -> None:
    """So nobody presses a button of ours without seeing it; nor is what the API answers part of a foreign page."""
    with site.member("administrator") as window:
        page = window.page
        for path in ("/", "/agents/vps-2", "/tokens", "/api/v1/agents", "/openapi.json"):
            other.text = FRAME % (site.origin, path)
            page.goto(other.origin)
            frame = page.frames[1]
            frame.wait_for_load_state()
            assert frame.locator("main, nav, form, pre").count() == 0, path
            assert frame.url.startswith("chrome-error:"), path


def test_a_session_that_somebody_planted_is_not_gone_on_with(site: Site) -> None:
    """Who logs in gets another one, and the planted one ends: it shows nobody anything of what the person does."""
    with site.member("viewer") as attacker, site.stranger() as victim:
        planted = session(attacker.page.context)
        assert planted
        url = attacker.origin
        cookie = {"name": SESSION_COOKIE, "value": planted, "url": url, "secure": True, "httpOnly": True}
        victim.page.context.add_cookies([cookie])  # type: ignore[list-item]
        site.let_in(victim, "administrator")
        assert session(victim.page.context) not in ("", planted)
        assert is_logged_in(victim.page, site)
        assert not is_logged_in(attacker.page, site)


def test_a_session_ends_when_one_logs_out(site: Site) -> None:
    """For whoever kept its cookie too."""
    with site.member("operator") as window, site.stranger() as thief:
        kept = window.page.context.cookies()
        window.page.locator("summary .who").click()
        window.submit("Log out")
        assert session(window.page.context) == ""
        assert not is_logged_in(window.page, site)
        window.page.go_back()
        expect(window.page.get_by_role("navigation", name="Main")).to_have_count(0)
        thief.page.context.add_cookies(kept)  # type: ignore[arg-type]
        assert not is_logged_in(thief.page, site)
