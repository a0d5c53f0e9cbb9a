"""The whole installation with a real ACME server, whose challenges go through the real Traefik."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
        assert self.plane.front is not None
        with self.plane.front.connect("websecure", host) as connection:
            der = connection.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        return x509.load_der_x509_certificate(der).fingerprint(hashes.SHA256()).hex()


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


def start(one: Site, files: Mapping[str, bytes | str | None]) -> str:
    """Push a whole repository, and start."""
    revision = one.plane.push({"fleet.yaml": one.fleet(), "agents/vps-1.yaml": documents.agent("vps-1"), **files})
    one.plane.start()
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
