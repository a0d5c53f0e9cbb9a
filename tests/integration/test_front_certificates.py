"""What fronts show: certificates of the fleet's authority from the first pass on, renewed, provided, kept, dropped."""

from __future__ import annotations

import datetime as dt
import hashlib
import socket
import ssl
import sys
import threading
from pathlib import Path
from typing import Any

from reconciler.pki.sealing import seal
from tests.support import documents
from tests.support.fleet import Files, Installation, installation, run_cli, start_files, web_host
from tests.support.pairs import FakeAuthority
from tests.support.traefik import backends
from tests.support.waiting import wait_for

TLS: Any = {"mode": "terminate"}
SHOP = f"shop.{documents.DOMAIN}"
TEAM = documents.team("shop", hostnames=[f"*.app.{documents.DOMAIN}", SHOP], agents=["vps-1", "vps-2"])


SHORT = """
import dataclasses, datetime, runpy
from reconciler.steps import certificates

of = certificates.desired_of
life = {"lifetime": datetime.timedelta(seconds=9), "renew_before": datetime.timedelta(seconds=6)}
certificates.desired_of = lambda *what: (wanted := of(*what)) and dataclasses.replace(wanted, **life)
runpy.run_module("reconciler", run_name="__main__", alter_sys=True)
"""
"""A control plane whose certificates live for seconds."""


def files(port: int, **more: bytes | str | None) -> Files:
    """A route with TLS below ``app.<domain>``, and ``more`` files by path."""
    web = documents.route("web", web_host("web"), backends=[{"agent": "vps-1", "port": port}], tls=TLS)
    return start_files(fleet=documents.fleet(TEAM)) | {"routes/shop/web.yaml": web} | more


def shop(port: int) -> bytes:
    return documents.route("shop", SHOP, backends=[{"agent": "vps-1", "port": port}], tls=TLS)


def shown(one: Installation, host: str, *, checked: bool = True) -> str:
    """SHA-256 of the leaf that Traefik shows for a host. ``checked``: it is good for that, by the fleet's roots."""
    assert one.front is not None
    context = ssl.create_default_context(cafile=str(one.ca))
    if not checked:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    raw = socket.create_connection(("127.0.0.1", one.front.ports["websecure"]), 5)
    with context.wrap_socket(raw, server_hostname=host) as connection:
        return hashlib.sha256(connection.getpeercert(binary_form=True) or b"").hexdigest()


def kept(one: Installation) -> set[str]:
    return {path.name for path in (one.data / "keys" / "certificates").iterdir() if not path.name.startswith(".")}


def test_a_new_fleet_shows_good_certificates_and_a_restart_changes_nothing(tmp_path: Path) -> None:
    """The first commit's hosts verify by the fleet's roots; after a restart generation and certificate are the same."""
    with backends("app") as (app,), installation(tmp_path / "one", files(app.port)) as one:
        before, text = shown(one, web_host("web")), one.published.read_bytes()
        assert one.front is not None
        assert one.front.get(web_host("web"), tls=True).json()["backend"] == "app"
        one.restart()
        wait_for(lambda: one.polls() > 3, 20, what="a few looks")
        assert (shown(one, web_host("web")), one.published.read_bytes()) == (before, text)


def test_certificates_are_renewed_again_and_again_and_nobody_notices(tmp_path: Path) -> None:
    """With a life of seconds the leaf changes many times, and each request on a new connection is answered."""
    more = {"certificates/shop.yaml": documents.certificate("shop", SHOP)}
    entry = [sys.executable, "-c", SHORT]
    with (
        backends("app") as (app,),
        installation(
            tmp_path / "one", {**files(app.port), **more, "routes/shop/shop.yaml": shop(app.port)}, entry=entry
        ) as one,
    ):
        leaves: set[str] = set()
        failed: list[str] = []
        enough = threading.Event()

        def look() -> None:
            while not enough.is_set():
                try:
                    leaves.add(shown(one, SHOP))
                except OSError as error:
                    failed.append(str(error))

        looking = threading.Thread(target=look)
        looking.start()
        try:
            wait_for(lambda: len(leaves) >= 4, 60, what="four leaves")
        except AssertionError as error:
            raise AssertionError(f"{error}: {leaves}, {failed[:1]}\n{one.log()[-3000:]}") from None
        finally:
            enough.set()
            looking.join()
        assert failed == []
        events = [event["message"] for event in one.ask("/events")["events"] if event["type"] == "CertificateIssued"]
        assert any("renewed" in message for message in events)


def test_a_provided_pair_is_served_and_one_that_does_not_fit_never(tmp_path: Path) -> None:
    """The pair comes out of its secret; one for other names keeps the former in service, and says so."""
    with backends("app") as (app,), installation(tmp_path / "one", files(app.port)) as one:
        recipient = one.cli("secret", "recipient").stdout.strip()

        def secret(chain: str, key: str) -> bytes:
            sealed = {"tls.crt": seal(chain, [recipient]), "tls.key": seal(key, [recipient])}
            return documents.document("Secret", "pair", {"sealed": sealed})

        away = FakeAuthority(now=dt.datetime.now(dt.UTC))
        first, second, wrong = away.pair(SHOP), away.pair(SHOP), away.pair("other.test")
        provided = documents.document(
            "Certificate",
            "shop",
            {"dnsNames": [SHOP], "issuer": "provided", "provided": {"team": "shop", "secret": "pair"}},
        )
        one.live(
            {
                "secrets/shop/pair.yaml": secret(first.chain, first.key),
                "certificates/shop.yaml": provided,
                "routes/shop/shop.yaml": shop(app.port),
            }
        )
        assert shown(one, SHOP, checked=False) == first.held.fingerprint
        one.live({"secrets/shop/pair.yaml": secret(second.chain, second.key)})
        assert shown(one, SHOP, checked=False) == second.held.fingerprint
        one.live({"secrets/shop/pair.yaml": secret(wrong.chain, wrong.key)})
        assert shown(one, SHOP, checked=False) == second.held.fingerprint
        events = [event for event in one.ask("/events")["events"] if event["type"] == "CertificateFailed"]
        assert "lacks" in events[0]["message"]
        assert first.key not in one.log()


def test_a_certificate_stays_as_long_as_a_route_needs_it_and_is_dropped_then(tmp_path: Path) -> None:
    """Deleting the file takes TLS from nobody; with the last route the pair goes, and the front shows another."""
    both = {
        "certificates/shop.yaml": documents.certificate("shop", SHOP),
        "certificates/other.yaml": documents.certificate("other", f"other.app.{documents.DOMAIN}"),
    }
    with backends("app") as (app,), installation(tmp_path / "one", files(app.port)) as one:
        one.live({**both, "routes/shop/shop.yaml": shop(app.port)})
        leaf = shown(one, SHOP)
        one.live({"certificates/shop.yaml": None})
        assert shown(one, SHOP) == leaf
        one.live({"routes/shop/shop.yaml": None})
        wait_for(lambda: "shop" not in kept(one), 20, what=f"the pair to be dropped, {kept(one)}")
        wait_for(lambda: shown(one, SHOP, checked=False) != leaf, 20, what="the front to forget it")


def test_a_revision_that_is_held_takes_no_certificate_from_what_is_served(tmp_path: Path) -> None:
    """A mass deletion that also gives a certificate other names waits, and the old names stay served."""
    names = [f"r{number}" for number in range(12)]
    many = {f"routes/shop/{name}.yaml": documents.route(name, web_host(name)) for name in names}
    start = {"certificates/shop.yaml": documents.certificate("shop", SHOP)}
    with backends("app") as (app,), installation(tmp_path / "one", files(app.port, **many)) as one:
        one.live({**start, "routes/shop/shop.yaml": shop(app.port)})
        leaf = shown(one, SHOP)
        gone = dict.fromkeys([*many, "routes/shop/shop.yaml"])
        other = documents.certificate("shop", f"other.app.{documents.DOMAIN}")
        revision = one.push({**gone, "certificates/shop.yaml": other})
        assert one.status_wait(revision)["state"] == "Held"
        one.restart()
        wait_for(lambda: one.polls() > 3, 20, what="a few looks")
        assert shown(one, SHOP) == leaf


def test_validate_says_nothing_of_certificates_that_only_a_control_plane_can_make(tmp_path: Path) -> None:
    """In CI there is no authority, and a route with TLS below app.<domain> is good."""
    for path, content in files(8081).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content if isinstance(content, bytes) else str(content).encode())
    done = run_cli("validate", tmp_path)
    assert done.returncode == 0, done.stdout
