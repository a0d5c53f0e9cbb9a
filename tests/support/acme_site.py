"""The whole installation with a real ACME server, which finds every name at the real Traefik."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
ISSUED = "the ACME server issued a certificate"
ZONE = "dns.example.test"
HOSTNAMES = (f"*.app.{documents.DOMAIN}", "*.example.test", f"*.{ZONE}", f"*.apps.{ZONE}")
TEAM = documents.team("shop", hostnames=HOSTNAMES, agents=["vps-1"])


@dataclass
class Site:
    """A fleet with one backend, and an ACME server that finds every name at its front."""

    plane: Installation
    pebble: Pebble
    backend: Backend
    folder: Path
    settings: Path
    """What ``serve`` is told about ACME beside the repository."""

    def start(self, files: Mapping[str, bytes | str | None], **acme: Any) -> str:
        """Push a whole repository, and start; ``acme`` goes into the fleet file."""
        whole = {"fleet.yaml": self.fleet(**acme), "agents/vps-1.yaml": documents.agent("vps-1"), **files}
        revision = self.plane.push(whole)
        self.plane.start()
        return revision

    def also(self, text: str) -> None:
        """Add to the settings."""
        with self.settings.open("a") as file:
            file.write(text)

    def files(self, *hosts: str, **certificate: Any) -> dict[str, bytes | str | None]:
        """A certificate and a route for each host; a wildcard has the route of one host below it."""
        found: dict[str, bytes | str | None] = {}
        for host in hosts or (HOST,):
            name = host.replace("*.", "any-").partition(".")[0]
            found[f"certificates/{name}.yaml"] = documents.certificate(name, host, issuer="acme", **certificate)
            found[f"routes/shop/{name}.yaml"] = self.route(name, host.replace("*", "web"))
        return found

    def route(self, name: str, host: str, **spec: Any) -> bytes:
        backend = {"agent": "vps-1", "port": self.backend.port}
        return documents.route(name, host, **{"backends": [backend], "tls": {"mode": "terminate"}, **spec})

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
        all_of_them = self.plane.ask("/certificates")["certificates"]
        return next((one for one in all_of_them if one["name"] == name), {"reason": "missing", "probe": ()})

    def fingerprint(self, host: str = HOST) -> str:
        """SHA-256 of the leaf that the front serves."""
        return self.leaf(host).fingerprint(hashes.SHA256()).hex()

    def leaf(self, host: str = HOST) -> x509.Certificate:
        """What the front serves."""
        assert self.plane.front is not None
        with self.plane.front.connect("websecure", host) as connection:
            der = connection.getpeercert(binary_form=True)  # type: ignore[attr-defined]
        return x509.load_der_x509_certificate(der)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What ``serve`` wrote of one kind, in order."""
        lines = [json.loads(line) for line in self.plane.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


@contextmanager
def site(folder: Path, *, resolver_port: int = 0, **pebble: Any) -> Iterator[Site]:
    """Run everything but ``serve``; the ACME server looks for answers at the front's entry point for plain HTTP.

    ``resolver_port``: of a name server that it asks; without one every name is 127.0.0.1.
    """
    fleet = Fleet.model_validate(json.loads(documents.fleet(TEAM)))
    with ExitStack() as stack:
        if not resolver_port:
            names = NameServer(folder)
            stack.callback(names.close)
            resolver_port = names.port
        (backend,) = stack.enter_context(backends("app"))
        plane = stack.enter_context(installation(folder / "plane", start=False, fleet=fleet))
        assert plane.front is not None
        port = plane.front.ports["web"]
        server = Pebble(folder / "pebble", resolver_port=resolver_port, http_port=port, **pebble)
        stack.callback(server.close)
        settings = folder / "acme.toml"
        settings.touch(mode=0o600)
        plane.environment["CLOUDLUNACY_ACME_FILE"] = str(settings)
        one = Site(plane, server, backend, folder, settings)
        one.also(f'[[directory]]\nurl = "{server.url}"\nca-file = "{server.files.certificate}"\n')
        yield one


def another_clock(**how: str) -> dict[str, str]:
    """The environment of a program with a clock of its own, which faketime's library makes.

    The monotonic clock is left alone: where it runs fast, Python's threads wait for ever.
    """
    require("faketime")
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    return {"LD_PRELOAD": str(library), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1", **how}
