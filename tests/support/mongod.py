"""The real mongod as an agent should run it: TLS only, SCRAM-SHA-256 only, nobody reads without a password.

Its user is made through the localhost exception, the only thing that mongod lets anybody do who comes first.
"""

from __future__ import annotations

import gc
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pymongo import MongoClient

from tests.support.orphans import tied
from tests.support.parts import require
from tests.support.ports import free_port
from tests.support.waiting import wait_for

USER: Final = "shop"
PASSWORD: Final = "p@ss/w:rd?#[%]é"  # every character that has a meaning in a URI
DATABASE: Final = "shop"


@dataclass
class Mongod:
    """A running one. ``pem`` holds key and chain, ``roots`` whom it trusts."""

    folder: Path
    pem: Path
    roots: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, again after :meth:`stop`."""
        log = self.folder / "log"
        before = log.stat().st_size if log.exists() else 0
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        command = [
            *(str(require("mongod")), "--dbpath", str(data), "--port", str(self.port), "--bind_ip", "127.0.0.1"),
            *("--nounixsocket", "--auth", "--wiredTigerCacheSizeGB", "0.25"),
            *("--setParameter", "authenticationMechanisms=SCRAM-SHA-256"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            *("--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(self.pem), "--tlsCAFile", str(self.roots)),
            "--tlsAllowConnectionsWithoutCertificates",
        ]
        with log.open("ab") as file:
            self.process = subprocess.Popen(tied(command), stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        wait_for(lambda: b"Waiting for connections" in log.read_bytes()[before:], 30, what=f"mongod, see {log}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def direct(self, **more: Any) -> MongoClient[dict[str, Any]]:
        """Connect past Traefik. The name in the certificate is the agent's, and not this address."""
        return MongoClient(
            "127.0.0.1", self.port, directConnection=True, tls=True, tlsCAFile=str(self.roots),
            tlsAllowInvalidHostnames=True, serverSelectionTimeoutMS=5000, **more,
        )  # fmt: skip

    def create_user(self) -> None:
        with self.direct() as client:
            roles = [{"role": "root", "db": "admin"}]
            client.admin.command("createUser", "root", pwd="root", roles=roles, mechanisms=["SCRAM-SHA-256"])
        with self.direct(username="root", password="root") as client:
            roles = [{"role": "readWrite", "db": DATABASE}]
            client[DATABASE].command("createUser", USER, pwd=PASSWORD, roles=roles, mechanisms=["SCRAM-SHA-256"])


@contextmanager
def mongod(folder: Path, *, pem: str, roots: str) -> Iterator[Mongod]:
    """Run one below ``folder`` with the certificate, chain and key ``pem``, and a user of :data:`DATABASE`."""
    folder.mkdir(parents=True, exist_ok=True)
    running = Mongod(folder, folder / "tls.pem", folder / "ca.crt", free_port())
    for path, content in ((running.pem, pem), (running.roots, roots)):
        path.write_text(content)
        path.chmod(0o600)
    try:
        running.start()
        running.create_user()
        yield running
    finally:
        running.stop()


def forget_half_made_connections() -> None:
    """Have the collector close what pymongo gave up while it was made, here and not in the middle of another test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
