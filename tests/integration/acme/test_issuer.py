"""Budget, staging, back-off and crashes, at a real ACME server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Rejected, Transient
from reconciler.pki.acme.client import AcmeClient
from reconciler.pki.acme.http01 import Http01
from reconciler.pki.acme.issuer import Issuer, Wanted
from reconciler.pki.acme.ledger import LedgerFile
from reconciler.pki.acme.solver import Challenge
from reconciler.pki.acme.wire import Account, Directory
from tests.support.acme import (
    KEY,
    NAME,
    Hanging,
    answering,
    client,
    current_account,
    verified,
)
from tests.support.pebble import Middle, Pebble, middle, pebble, serving


def issuer(server: Pebble | Middle, folder: Path, **more: Any) -> Issuer:
    return Issuer(client(server), LedgerFile(folder / "ledger.json", server.url), **more)


def test_the_sixth_order_for_the_same_names_is_not_placed(server: Pebble, tmp_path: Path) -> None:
    """Five in a week, over a restart too; then the server is not asked, and the error says until when."""

    async def scenario() -> None:
        async with middle(tmp_path / "middle", server) as between, answering(server) as table:
            wanted = Wanted((NAME,), KEY, table)
            for _ in range(5):
                chain = await issuer(between, tmp_path).issue(wanted)
            verified(tmp_path, chain, server.root())
            between.seen.clear()
            again = issuer(between, tmp_path)
            with pytest.raises(Transient, match="5 orders for exactly these names in 7 days") as caught:
                await again.issue(wanted)
            assert caught.value.reason == "AcmeBudget"
            assert caught.value.retry_after == pytest.approx(timedelta(days=7).total_seconds(), rel=0.01)
            assert between.seen == []
            await again.issue(Wanted((NAME, "more.example.test"), KEY, table))

    asyncio.run(scenario())


def test_staging_comes_first_and_once(server: Pebble, tmp_path: Path) -> None:
    """The first order for a set of names goes to the staging directory; the next ones do not."""

    async def scenario(staging: Pebble) -> None:
        async with answering(server) as table, serving(table, staging.http_port):
            for _ in range(2):
                one = issuer(server, tmp_path, staging=client(staging))
                chain = await one.issue(Wanted((NAME,), KEY, table))
                verified(tmp_path, chain, server.root())
        assert staging.log().count("POST /order-plz -> calling handler()") == 1

    with pebble(tmp_path / "staging") as staging:
        asyncio.run(scenario(staging))


def test_what_fails_at_staging_costs_nothing_at_production_and_is_backed_off(server: Pebble, tmp_path: Path) -> None:
    """A host that nobody reaches fails at staging: production is not asked, and the next attempt waits for a minute."""
    now = [datetime(2030, 1, 1, tzinfo=UTC)]

    async def scenario(staging: Pebble) -> None:
        async with middle(tmp_path / "middle", server) as between:
            one = issuer(between, tmp_path, staging=client(staging), clock=lambda: now[0], randomness=lambda: 0.5)
            wanted = Wanted((NAME,), KEY, Http01())
            with pytest.raises(Rejected):
                await one.issue(wanted)
            assert between.seen == []
            assert one.not_before([NAME]) == now[0] + timedelta(seconds=63)
            with pytest.raises(Transient, match="the last attempts failed") as caught:
                await one.issue(wanted)
            assert (caught.value.reason, caught.value.retry_after) == ("AcmeBackOff", 63)
            now[0] += timedelta(seconds=63)
            async with answering(server) as table, serving(table, staging.http_port):
                chain = await one.issue(Wanted((NAME,), KEY, table))
            verified(tmp_path, chain, server.root())
            assert one.not_before([NAME]) is None

    with pebble(tmp_path / "staging") as staging:
        asyncio.run(scenario(staging))


def test_an_issuer_goes_on_with_an_order_after_a_crash(server: Pebble, tmp_path: Path) -> None:
    """The ledger on the disk leads to the order that was under way; it is counted once."""

    async def scenario() -> None:
        hanging = Hanging()
        cut = asyncio.create_task(issuer(server, tmp_path).issue(Wanted((NAME,), KEY, hanging)))
        await asyncio.wait_for(hanging.reached.wait(), 20)
        cut.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cut
        async with answering(server) as table:
            chain = await issuer(server, tmp_path).issue(Wanted((NAME,), KEY, table))
        verified(tmp_path, chain, server.root())
        kept = LedgerFile(tmp_path / "ledger.json", server.url).load().of(NAME)
        assert (len(kept.orders), kept.order_url) == (1, "")

    asyncio.run(scenario())


def test_an_order_survives_sigkill(server: Pebble, tmp_path: Path) -> None:
    """A process that is killed between two steps leaves a ledger from which another one goes on with the order."""
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    for name, key in (("key", KEY), ("account", current_account().key)):
        (tmp_path / f"{name}.pem").write_bytes(key.private_bytes(*encoding))
    code = f"from {__name__} import killed; killed()"
    child = subprocess.Popen(
        [sys.executable, "-c", code, server.url, server.files.certificate, tmp_path],
        cwd=Path(__file__).parents[3],
        stdout=subprocess.PIPE,
    )
    with child:
        assert child.stdout is not None
        said = child.stdout.readline()
        child.kill()
    assert said == b"presenting\n"
    ledger = LedgerFile(tmp_path / "ledger.json", server.url)
    kept = ledger.load().of(NAME)
    assert len(kept.orders) == 1
    assert kept.order_url.startswith(server.url.removesuffix("/dir"))

    async def scenario() -> None:
        async with answering(server) as table:
            chain = await issuer(server, tmp_path).issue(Wanted((NAME,), KEY, table))
        verified(tmp_path, chain, server.root())

    asyncio.run(scenario())
    assert len(ledger.load().of(NAME).orders) == 1


def killed() -> None:
    """Begin an order in a process of its own."""

    class Presenting(Http01):
        async def present(self, challenge: Challenge) -> None:
            sys.stdout.write("presenting\n")
            sys.stdout.flush()
            await asyncio.Event().wait()

    url, ca, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    key, account = (
        serialization.load_pem_private_key((folder / f"{name}.pem").read_bytes(), None) for name in ("key", "account")
    )
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert isinstance(account, ec.EllipticCurvePrivateKey)
    orders = AcmeClient(Directory(url, ca), Account(account, terms_agreed=True))

    async def order() -> None:
        await Issuer(orders, LedgerFile(folder / "ledger.json", url)).issue(Wanted((NAME,), key, Presenting()))

    asyncio.run(order())


def test_renewal_is_drawn_once_and_remembered(server: Pebble, tmp_path: Path) -> None:
    """Asked again, after a restart too, the same moment is said; it leaves what was asked for."""

    async def scenario() -> None:
        async with answering(server) as table:
            chain = await issuer(server, tmp_path).issue(Wanted((NAME,), KEY, table))
        certificate = x509.load_pem_x509_certificate(chain.encode())
        before = timedelta(hours=8)
        moments = {await issuer(server, tmp_path).renewal([NAME], certificate, before) for _ in range(3)}
        (moment,) = moments
        left = certificate.not_valid_after_utc - moment
        assert before * 0.9 <= left <= before

    asyncio.run(scenario())
