"""Ordering certificates in tests: a client, solvers that dawdle, and openssl as the judge."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.pki.acme.client import AcmeClient, ClientLimits, OrderRequest
from reconciler.pki.acme.http01 import Http01
from reconciler.pki.acme.solver import Challenge
from reconciler.pki.acme.wire import Account, Directory
from tests.support.parts import require
from tests.support.pebble import Middle, Pebble, serving

NAME = "shop.example.test"
KEY = ec.generate_private_key(ec.SECP256R1())
LIMITS = ClientLimits(order_seconds=150, poll_first=0.1)
_accounts: list[Account] = []


def new_account() -> None:
    """Let :func:`client` order with another account from now on."""
    key = ec.generate_private_key(ec.SECP256R1())
    _accounts[:] = [Account(key, contact=("ops@example.test",), terms_agreed=True)]


def current_account() -> Account:
    return _accounts[0]


@dataclass
class Notes:
    """A journal in memory."""

    said: list[str] = field(default_factory=list)
    url: str = ""

    async def before_order(self) -> None:
        self.said.append("order")

    async def placed(self, url: str) -> None:
        self.said.append("placed")
        self.url = url

    async def closed(self) -> None:
        self.said.append("closed")
        self.url = ""


def client(
    server: Pebble | Middle, *, limits: ClientLimits = LIMITS, account: Account | None = None, ca: Path | None = None
) -> AcmeClient:
    return AcmeClient(
        Directory(server.url, ca or server.files.certificate), account or current_account(), limits=limits
    )


class Hanging(Http01):
    """Does not come to an end with presenting before it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def present(self, challenge: Challenge) -> None:
        self.reached.set()
        await self.go_on.wait()


class Slow(Http01):
    """Leaves whoever looks at the answer waiting until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.go_on.wait()
        await super().__call__(scope, receive, send)


@asynccontextmanager
async def answering(server: Pebble) -> AsyncIterator[Http01]:
    table = Http01()
    async with serving(table, server.http_port):
        yield table


def request(solver: Http01, *names: str, url: str = "") -> OrderRequest:
    return OrderRequest(names or (NAME,), KEY, solver, url)


def verified(folder: Path, chain: str, root: str, *names: str, key: ec.EllipticCurvePrivateKey = KEY) -> None:
    """Let openssl judge: the chain leads to the root, and the certificate is for each name and for our key."""
    leaf, _, rest = chain.partition("-----END CERTIFICATE-----\n")
    for name, content in (("leaf", f"{leaf}-----END CERTIFICATE-----\n"), ("rest", rest), ("root", root)):
        (folder / f"{name}.pem").write_text(content)
    openssl = require("openssl")
    for name in names or (NAME,):
        arguments = ["verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "rest.pem"]
        subprocess.run(
            [openssl, *arguments, "-verify_hostname", name, "-purpose", "sslserver", "leaf.pem"],
            cwd=folder,
            check=True,
            capture_output=True,
            timeout=20,
        )
    public = x509.load_pem_x509_certificate((folder / "leaf.pem").read_bytes()).public_key()
    assert public == key.public_key()
