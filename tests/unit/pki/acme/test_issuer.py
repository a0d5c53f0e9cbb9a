from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Broken, CloudLunacyError, Rejected, Transient
from reconciler.pki.acme.client import Journal, OrderRequest
from reconciler.pki.acme.http01 import Http01
from reconciler.pki.acme.issuer import Issuer, Wanted
from reconciler.pki.acme.ledger import LedgerFile
from reconciler.pki.acme.schedule import Budget, Window
from reconciler.pki.acme.wire import Directory, Suggestion
from tests.unit.pki.acme.test_chain import certificate

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WANTED = Wanted(("a.test",), ec.generate_private_key(ec.SECP256R1()), Http01())


def away() -> Transient:
    return Transient("It is away.")


@dataclass
class Server:
    """An ACME server in memory, behind the interface of the client. ``errors`` are raised in turn, None is none."""

    directory: Directory = field(default_factory=lambda: Directory("https://acme.test/dir"))
    errors: list[CloudLunacyError | None] = field(default_factory=list)
    wait: asyncio.Event | None = None
    requests: list[OrderRequest] = field(default_factory=list)
    placed: int = 0
    said: Suggestion | CloudLunacyError = field(default_factory=lambda: Suggestion(None, None))
    asked: int = 0

    async def obtain(self, request: OrderRequest, journal: Journal) -> str:
        self.requests.append(request)
        if not request.order_url:
            await journal.before_order()
            self.placed += 1
            await journal.placed(f"https://acme.test/order/{self.placed}")
        if self.wait is not None:
            await self.wait.wait()
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        return "chain"

    async def suggestion(self, certificate: x509.Certificate) -> Suggestion:
        del certificate
        self.asked += 1
        if isinstance(self.said, CloudLunacyError):
            raise self.said
        return self.said


class World:
    """A clock that is set by hand, servers, and an issuer that can be started again."""

    def __init__(self, folder: Path, *, staging: bool = False, budget: Budget | None = None) -> None:
        self.now = NOW
        self.folder = folder
        self.production = Server()
        self.staging = Server(Directory("https://staging.test/dir")) if staging else None
        self.budget = budget or Budget()
        self.issuer = self.started()

    def started(self) -> Issuer:
        return Issuer(
            self.production,
            LedgerFile(self.folder / "ledger.json", self.production.directory.url),
            staging=self.staging,
            budget=self.budget,
            clock=lambda: self.now,
            randomness=lambda: 0.0,
        )

    async def fails(self, wanted: Wanted = WANTED) -> CloudLunacyError:
        with pytest.raises(CloudLunacyError) as caught:
            await self.issuer.issue(wanted)
        return caught.value


def test_failures_in_a_row_wait_longer_each_time_over_restarts(tmp_path: Path) -> None:
    """1, 10, 100 minutes, a day, a day; in between nobody is asked."""

    async def scenario() -> None:
        world = World(tmp_path)
        world.production.errors = [away() for _ in range(5)]
        waits = []
        for _ in range(5):
            error = await world.fails()
            assert isinstance(error, Transient)
            waits.append(error.retry_after)
            world.issuer = world.started()
            held = await world.fails()
            assert isinstance(held, Transient)
            assert held.reason == "AcmeBackOff"
            assert held.retry_after == waits[-1]
            until = world.issuer.not_before(["a.test"])
            assert until is not None
            world.now = until
        assert waits == [60, 600, 6000, 86400, 86400]
        assert len(world.production.requests) == 5
        assert await world.issuer.issue(WANTED) == "chain"

    asyncio.run(scenario())


def test_an_order_that_failed_for_a_while_is_gone_on_with(tmp_path: Path) -> None:
    """Its URL is handed back at the next attempt, and it is counted once."""

    async def scenario() -> None:
        world = World(tmp_path, budget=Budget(per_names=1))
        world.production.errors = [away()]
        await world.fails()
        world.now += timedelta(minutes=1)
        world.issuer = world.started()
        await world.issuer.issue(WANTED)
        assert [request.order_url for request in world.production.requests] == ["", "https://acme.test/order/1"]

    asyncio.run(scenario())


def test_retry_after_of_a_server_is_kept(tmp_path: Path) -> None:
    """A server that asks for an hour is left alone for an hour."""

    async def scenario() -> None:
        world = World(tmp_path)
        world.production.errors = [Transient("Busy.", retry_after=3600)]
        await world.fails()
        assert world.issuer.not_before(["A.test"]) == NOW + timedelta(hours=1)

    asyncio.run(scenario())


def test_a_rejection_is_backed_off_too(tmp_path: Path) -> None:
    """What a person must mend is tried again, later and later."""

    async def scenario() -> None:
        world = World(tmp_path)
        world.production.errors = [Rejected("No.", reason="AcmeRefused")]
        assert isinstance(await world.fails(), Rejected)
        assert world.issuer.not_before(["a.test"]) == NOW + timedelta(minutes=1)
        assert world.issuer.not_before(["b.test"]) is None

    asyncio.run(scenario())


def test_staging_is_passed_once_before_production_is_asked(tmp_path: Path) -> None:
    """Until staging has issued, production sees nothing; afterwards staging sees nothing. It never gets our key."""

    async def scenario() -> None:
        world = World(tmp_path, staging=True)
        assert world.staging is not None
        world.staging.errors = [away(), away()]
        for _ in range(2):
            await world.fails()
            assert world.production.requests == []
            world.now += timedelta(minutes=10)
        world.production.errors = [away()]
        await world.fails()
        assert len(world.staging.requests) == 3
        world.now += timedelta(minutes=1)
        world.issuer = world.started()
        await world.issuer.issue(WANTED)
        assert len(world.staging.requests) == 3
        assert len(world.production.requests) == 2
        assert all(request.key is not WANTED.key for request in world.staging.requests)
        assert all(request.key is WANTED.key for request in world.production.requests)

    asyncio.run(scenario())


def test_the_same_names_are_ordered_once_at_a_time(tmp_path: Path) -> None:
    """A second call for a set that is under way is sent away; after a cancellation the way is free."""

    async def scenario() -> None:
        world = World(tmp_path)
        world.production.wait = asyncio.Event()
        first = asyncio.create_task(world.issuer.issue(WANTED))
        while not world.production.requests:
            await asyncio.sleep(0)
        error = await world.fails()
        assert isinstance(error, Transient)
        assert error.reason == "AcmeUnderWay"
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        world.production.wait.set()
        assert await world.issuer.issue(WANTED) == "chain"
        assert world.production.placed == 1

    asyncio.run(scenario())


def test_orders_at_once_do_not_overdraw_the_budget(tmp_path: Path) -> None:
    """Of many sets at the same moment as many are ordered as the day allows; the others are held, and did not fail."""

    async def scenario() -> None:
        world = World(tmp_path, staging=True, budget=Budget(total=3))
        many = [Wanted((f"{n}.test",), WANTED.key, WANTED.solver) for n in range(8)]
        done = await asyncio.gather(*(world.issuer.issue(one) for one in many), return_exceptions=True)
        assert [one for one in done if isinstance(one, str)] == ["chain"] * 3
        held = [one for one in done if isinstance(one, Transient)]
        assert [one.reason for one in held] == ["AcmeBudget"] * 5
        assert world.production.placed == 3
        world.now += timedelta(days=1)
        assert world.issuer.not_before(["7.test"]) is None

    asyncio.run(scenario())


def test_a_name_that_comes_twice_is_ordered_once(tmp_path: Path) -> None:
    """Repeated names make no other order, and no other budget."""

    async def scenario() -> None:
        world = World(tmp_path)
        await world.issuer.issue(Wanted(("b.test", "a.test", "b.test"), WANTED.key, WANTED.solver))
        assert [request.names for request in world.production.requests] == [("b.test", "a.test")]

    asyncio.run(scenario())


def test_nothing_is_ordered_that_cannot_be_remembered(tmp_path: Path) -> None:
    """Where the ledger cannot be written, no order is placed."""

    async def scenario() -> None:
        world = World(tmp_path / "away")
        assert isinstance(await world.fails(), Broken)
        assert world.production.placed == 0

    asyncio.run(scenario())


def test_the_server_is_asked_for_a_suggestion_when_it_is_time(tmp_path: Path) -> None:
    """At first, and when Retry-After has passed; a server that fails is asked again in six hours."""

    async def scenario() -> None:
        world = World(tmp_path)
        one = x509.load_pem_x509_certificate(certificate("a.test").encode())
        world.now = one.not_valid_before_utc
        before = timedelta(hours=8)

        async def renewal() -> datetime:
            return await world.started().renewal(["a.test"], one, before)

        own = one.not_valid_after_utc - before
        world.production.said = away()
        assert await renewal() == own
        assert await renewal() == own
        assert world.production.asked == 1
        world.now += timedelta(hours=6)
        window = Window(world.now + timedelta(hours=1), world.now + timedelta(hours=2))
        world.production.said = Suggestion(window, 60)
        assert await renewal() == window.start
        assert await renewal() == window.start
        assert world.production.asked == 2
        world.now += timedelta(minutes=1)
        urgent = Window(world.now - timedelta(hours=2), world.now - timedelta(hours=1))
        world.production.said = Suggestion(urgent, None)
        assert await renewal() == urgent.start
        world.now = one.not_valid_after_utc + timedelta(days=1)
        assert await renewal() == urgent.start
        assert world.production.asked == 3

    asyncio.run(scenario())
