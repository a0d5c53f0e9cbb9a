"""The whole installation with a real ACME server, whose challenges go through the real Traefik."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from schemas.fleet import Fleet
from tests.support import documents
from tests.support.fleet import Installation, installation
from tests.support.parts import require
from tests.support.pebble import NameServer, Pebble
from tests.support.traefik import Backend, backends
from tests.support.waiting import wait_for

HOST = "shop.example.test"
ISSUED = "the ACME server issued a certificate"
TEAM = documents.team("shop", hostnames=[f"*.app.{documents.DOMAIN}", "*.example.test"], agents=["vps-1"])


@dataclass
class Site:
    """A fleet with one backend, and an ACME server that finds every name at its front."""

    plane: Installation
    pebble: Pebble
    backend: Backend
    folder: Path

    def files(self, *hosts: str, **certificate: Any) -> dict[str, bytes | str | None]:
        """A certificate and a route for each host."""
        found: dict[str, bytes | str | None] = {}
        for host in hosts or (HOST,):
            name = host.partition(".")[0]
            found[f"certificates/{name}.yaml"] = documents.certificate(name, host, issuer="acme", **certificate)
            found[f"routes/shop/{name}.yaml"] = documents.route(
                name, host, backends=[{"agent": "vps-1", "port": self.backend.port}], tls={"mode": "terminate"}
            )
        return found

    def fleet(self, **acme: Any) -> bytes:
        said = {"directories": {"pebble": {"url": self.pebble.url}}, "termsAgreed": True, **acme}
        return documents.fleet(TEAM, acme=said)

    def verified(self, host: str = HOST) -> bool:
        """Let openssl connect as a client would that trusts the ACME server's root alone."""
        assert self.plane.front is not None
        root = self.folder / "root.pem"
        root.write_text(self.pebble.root())
        port = self.plane.front.ports["websecure"]
        said = subprocess.run(
            [
                *(require("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-servername", host, "-brief"),
                *("-verify_return_error", "-verify_hostname", host, "-CAfile", root),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return said.returncode == 0 and "Verification: OK" in said.stdout + said.stderr

    def until_verified(self, host: str = HOST, deadline: float = 60) -> None:
        wait_for(lambda: self.verified(host), deadline, what=f"{host}\n{self.plane.log()[-6000:]}")

    def status(self, name: str = "shop") -> dict[str, Any]:
        """How the API says that a certificate stands."""
        found: dict[str, Any] = next(
            one for one in self.plane.ask("/certificates")["certificates"] if one["name"] == name
        )
        return found

    def fingerprint(self, host: str = HOST) -> str:
        """SHA-256 of the leaf that the front serves."""
        return self.leaf(host).fingerprint(hashes.SHA256()).hex()

    def leaf(self, host: str = HOST) -> x509.Certificate:
        """The leaf that the front serves."""
        assert self.plane.front is not None
        with self.plane.front.connect("websecure", host) as connection:
            der = connection.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        return x509.load_der_x509_certificate(der)


@contextmanager
def site(folder: Path, *, options: tuple[str, ...] = (), **pebble: Any) -> Iterator[Site]:
    """Run everything; the ACME server looks for answers at the front's entry point for plain HTTP."""
    names = NameServer(folder)
    fleet = Fleet.model_validate(json.loads(documents.fleet(TEAM)))
    try:
        with (
            backends("app") as (backend,),
            installation(folder / "plane", start=False, fleet=fleet, options=list(options)) as plane,
        ):
            assert plane.front is not None
            server = Pebble(folder / "pebble", resolver_port=names.port, http_port=plane.front.ports["web"], **pebble)
            try:
                settings = folder / "acme.toml"
                settings.write_text(_settings(server))
                settings.chmod(0o600)
                plane.environment["CLOUDLUNACY_ACME_FILE"] = str(settings)
                yield Site(plane, server, backend, folder)
            finally:
                server.close()
    finally:
        names.close()


def _settings(server: Pebble) -> str:
    return f'[[directory]]\nurl = "{server.url}"\nca-file = "{server.files.certificate}"\n'


def another_clock(**how: str) -> dict[str, str]:
    """The environment of a program with a clock of its own, which faketime's library makes.

    The monotonic clock is left alone: where it runs fast, Python's threads wait for ever.
    """
    require("faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return {"LD_PRELOAD": str(library), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", **how}


def start(one: Site, files: Mapping[str, bytes | str | None], *, wait: bool = True) -> str:
    """Push a whole repository, and start."""
    revision = one.plane.push({"fleet.yaml": one.fleet(), "agents/vps-1.yaml": documents.agent("vps-1"), **files})
    one.plane.start(wait=wait)
    return revision


def test_a_certificate_for_a_host_in_the_repo_is_ordered_and_served(tmp_path: Path) -> None:
    """From the commit to a handshake that openssl verifies against the server's root; the route waits meanwhile."""
    with site(tmp_path) as one:
        start(one, one.files())
        one.until_verified()
        assert one.plane.front is not None
        assert one.plane.front.get(HOST, tls=True).json()["backend"] == "app"
        assert one.plane.front.get(HOST, "/.well-known/acme-challenge/unknown").text == "not found\n"
        assert one.plane.metric("cloudlunacy_acme_orders_total") == 1
        wait_for(lambda: one.status()["probe"], 10)
        said = one.status()
        (probe,) = said["probe"]
        assert (probe["name"], probe["matches"], probe["fingerprint"]) == (HOST, True, one.fingerprint())
        assert (said["state"], said["fingerprint"]) == ("Good", probe["fingerprint"])
        assert said["directory"] == one.pebble.url
        shown = one.plane.cli("certificate", "show", "shop")
        assert f"SHA-256      {one.fingerprint()}" in shown.stdout, shown.stderr
        assert "front-1      shows it" in shown.stdout
        assert "shop" in one.plane.cli("certificate", "list").stdout


def logged(one: Site, event: str) -> list[dict[str, Any]]:
    """What serve wrote about certificates, in order."""
    lines = [json.loads(line) for line in one.plane.log().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def test_a_certificate_is_renewed_in_time_while_the_clock_runs_fast(tmp_path: Path) -> None:
    """Of two hours of validity, one passes and the next runs: another certificate is served before the first has ended,
    and no client is refused meanwhile."""
    with site(tmp_path, lifetime=7200) as one:
        start(one, one.files())
        one.until_verified()
        first = one.leaf()
        one.plane.stop()
        one.plane.environment |= another_clock(FAKETIME="+55m x20")
        one.plane.start(wait=False)  # whoever has the right time does not trust its own certificate for long

        def renewed() -> bool:
            time.sleep(0.3)  # between clients; what comes out does not hang on it
            assert one.verified(), one.plane.log()[-3000:]
            return one.leaf() != first

        wait_for(renewed, 120)
        assert one.verified()
        issued = [datetime.fromisoformat(line["time"]) for line in logged(one, ISSUED)]
        begins, ends = first.not_valid_before_utc, first.not_valid_after_utc
        assert begins + (ends - begins) / 2 <= issued[1] < ends


@pytest.mark.parametrize("percent", [20, 50])
def test_refused_nonces_hold_no_certificate_up(tmp_path: Path, percent: int) -> None:
    """With every fifth and every second nonce refused, the certificates of five hosts come, each with one order."""
    hosts = [f"n{number}.example.test" for number in range(5)]
    with site(tmp_path, nonce_reject=percent) as one:
        start(one, one.files(*hosts))
        for host in hosts:
            one.until_verified(host)
        assert one.plane.metric("cloudlunacy_acme_orders_total") == 5
        assert one.pebble.log().count("POST /order-plz -> calling handler()") >= 5
        for file in (one.plane.data / "keys" / "acme").glob("*.ledger.json"):
            histories = json.loads(file.read_text())["histories"]
            assert [len(history["orders"]) for history in histories.values()] == [1] * 5


def test_a_server_that_is_killed_in_the_middle_of_an_order_is_gone_back_to(tmp_path: Path) -> None:
    """It comes back without accounts, orders and its old root: what holds the certificate up is said meanwhile, and the
    attempt after the back-off brings it, with nothing done by anybody."""
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    with site(tmp_path, sleep=5) as one:
        one.plane.environment |= another_clock(FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_CACHE_DURATION="1")
        start(one, one.files())
        wait_for(lambda: "POST /chalZ/" in one.pebble.log(), 60)
        one.pebble.kill()
        wait_for(lambda: one.status()["reason"] not in ("missing", "OrderUnderWay"), 60)
        said = one.status()
        assert (said["state"], said["reason"]) == ("Pending", "AcmeUnreachable")
        assert said["nextLook"] is not None
        listed = one.plane.cli("certificate", "list").stdout
        assert f"The ACME server 127.0.0.1:{one.pebble.port} could not be reached" in listed
        assert not one.plane.front.get(HOST, tls=True).is_success  # type: ignore[union-attr]
        one.pebble.start()
        clock.write_text("+70s\n")
        one.until_verified(deadline=90)
