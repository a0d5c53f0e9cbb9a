"""Orders in the background, with a workshop that does what it is told and a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry

from reconciler.app.acme_orders import UNDER_WAY, AcmeOrders
from reconciler.desired.acme_terms import OrderTerms
from reconciler.errors import Transient
from reconciler.observability.acme_metrics import AcmeMetrics
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.renewal import Desired, Source
from reconciler.pki.vault import Vault
from tests.support.memory_store import MemoryStore
from tests.support.pairs import FakeAuthority
from tests.support.waiting import eventually

NAME: Final = "shop.cloudlunacy.test"
DIRECTORY: Final = "https://acme.test/dir"
TERMS: Final = OrderTerms((NAME,), DIRECTORY, "", "http-01", (), True, timedelta(days=30))
WANTED: Final = {"shop": Desired((NAME,), timedelta(days=90), timedelta(days=30), Source("acme", DIRECTORY))}
NOW: Final = datetime(2026, 6, 1, 12, tzinfo=UTC)


@dataclass
class Workshop:
    """Does what ``work`` does, once for each order."""

    work: Callable[[ec.EllipticCurvePrivateKey], str]
    orders: int = 0
    forgiven: int = 0
    until: datetime | BaseException | None = None
    unreachable: bool = False
    bug: str = ""
    """The name whose renewal information nobody thought of."""
    asked: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def issue(self, terms: OrderTerms, key: ec.EllipticCurvePrivateKey, replaces: x509.Certificate | None) -> str:
        self.orders += 1
        await self.go_on.wait()
        return self.work(key)

    async def forgive(self, terms: OrderTerms) -> None:
        self.forgiven += 1

    def not_before(self, terms: OrderTerms) -> datetime | None:
        if isinstance(self.until, BaseException):
            raise self.until
        return self.until

    async def renewal(self, terms: OrderTerms, certificate: x509.Certificate) -> datetime:
        self.asked += 1
        if self.unreachable:
            raise Transient("It is away.")
        if self.bug in terms.names:
            raise TypeError("can't compare offset-naive and offset-aware datetimes")
        return NOW


def fails(_: ec.EllipticCurvePrivateKey) -> str:
    raise Transient("It is away.", reason="AcmeUnreachable")


def crashes(_: ec.EllipticCurvePrivateKey) -> str:
    raise LookupError("nobody thought of that")


def cheats(_: ec.EllipticCurvePrivateKey) -> str:
    return FakeAuthority().pair(NAME).chain


def issues(key: ec.EllipticCurvePrivateKey) -> str:
    return FakeAuthority().chain_for(key, NAME)


@dataclass
class Bench:
    """``loaded`` counts how often the library was imported."""

    folder: Path
    workshop: Workshop
    terms: dict[str, OrderTerms] = field(default_factory=lambda: {"shop": TERMS})
    arrived: list[CertificatePair] = field(default_factory=list)
    changes: int = 0
    loaded: int = 0
    clock: float = NOW.timestamp()

    def __post_init__(self) -> None:
        self.events = MemoryStore()
        self.orders = AcmeOrders(
            self.terms.get,
            CertificateStore(self.folder / "keys", Vault()),
            self._load,
            events=self.events,
            metrics=AcmeMetrics(CollectorRegistry()),
            clock=lambda: self.clock,
        )
        self.orders.finished = lambda _, pair: self.arrived.append(pair)
        self.orders.changed = self._changed

    def _load(self) -> Workshop:
        self.loaded += 1
        return self.workshop

    def _changed(self) -> None:
        self.changes += 1

    def reason(self) -> str:
        delay = self.orders.delays().get("shop")
        return "" if delay is None else delay.reason

    async def ended(self) -> None:
        self.workshop.go_on.set()
        await eventually(lambda: self.reason() != UNDER_WAY)


def run(folder: Path, work: Callable[[ec.EllipticCurvePrivateKey], str], scenario: Callable[..., object]) -> None:
    async def main() -> None:
        bench = Bench(folder, Workshop(work))
        await scenario(bench)  # type: ignore[misc]
        await bench.orders.close()

    asyncio.run(main())


def test_what_was_delivered_is_not_ordered_again(tmp_path: Path) -> None:
    """Until it is seen among what is held, a look that came too early orders nothing."""

    async def scenario(bench: Bench) -> None:
        bench.orders.ask(WANTED)
        await bench.ended()
        assert (len(bench.arrived), bench.changes) == (1, 1)
        bench.orders.suggested({})
        bench.orders.ask(WANTED)
        assert (bench.workshop.orders, bench.reason()) == (1, "")
        bench.orders.suggested({"shop": bench.arrived[0]})
        bench.orders.ask(WANTED)
        assert bench.reason() == UNDER_WAY

    run(tmp_path, issues, scenario)


def test_the_library_is_imported_once_and_late(tmp_path: Path) -> None:
    """Nothing is imported before something is ordered."""

    async def scenario(bench: Bench) -> None:
        bench.orders.ask({})
        await bench.orders.look_at_renewals()
        assert bench.loaded == 0
        bench.orders.ask(WANTED)
        await bench.ended()
        await bench.orders.look_at_renewals()
        assert bench.loaded == 1

    run(tmp_path, issues, scenario)


@pytest.mark.parametrize(
    ("work", "reason", "words"),
    [
        (fails, "AcmeUnreachable", "It is away."),
        (crashes, "InternalError", "the log has the details"),
        (cheats, "AcmeAnswerMalformed", "the key is not the one of the first certificate"),
    ],
)
def test_whatever_goes_wrong_becomes_a_delay(
    tmp_path: Path, work: Callable[[ec.EllipticCurvePrivateKey], str], reason: str, words: str
) -> None:
    """A failure, a bug and a chain for another key each end the order, and are tried again later."""

    async def scenario(bench: Bench) -> None:
        bench.orders.ask(WANTED)
        await bench.ended()
        assert (bench.reason(), bench.changes, bench.arrived) == (reason, 1, [])
        assert words in bench.orders.delays()["shop"].message
        bench.orders.ask(WANTED)
        assert bench.workshop.orders == 1
        bench.clock += 3601
        bench.orders.ask(WANTED)
        assert bench.reason() == UNDER_WAY

    run(tmp_path, work, scenario)


def test_what_is_not_published_is_not_ordered(tmp_path: Path) -> None:
    """Terms that are unknown, or other than what is wanted, come with the publication: a look a second later asks."""

    async def scenario(bench: Bench) -> None:
        bench.terms.clear()
        bench.orders.ask(WANTED)
        assert bench.reason() == "NotPublished"
        bench.clock += 1
        bench.terms["shop"] = OrderTerms(("other.test",), DIRECTORY, "", "http-01", (), True, timedelta(days=30))
        bench.orders.ask(WANTED)
        assert bench.reason() == "NotPublished"
        bench.clock += 1
        bench.terms["shop"] = TERMS
        bench.orders.ask(WANTED)
        assert bench.reason() == UNDER_WAY

    run(tmp_path, issues, scenario)


def test_other_terms_give_an_order_up_and_begin_another(tmp_path: Path) -> None:
    """The task of the former ends without a word."""

    async def scenario(bench: Bench) -> None:
        bench.orders.ask(WANTED)
        await eventually(lambda: bench.workshop.orders == 1)
        bench.terms["shop"] = OrderTerms((NAME,), DIRECTORY, "", "dns-01", (), True, timedelta(days=30))
        bench.orders.ask(WANTED)
        await eventually(lambda: bench.workshop.orders == 2)
        await bench.ended()
        assert (len(bench.arrived), bench.events.disk.events) == (1, [])
        del bench.terms["shop"]
        bench.orders.ask({})
        assert bench.orders.delays() == {}

    run(tmp_path, issues, scenario)


def test_nothing_is_renewed_before_its_server_was_asked(tmp_path: Path) -> None:
    """After a restart a certificate that may be due waits for the answer; where there is none, for no longer."""
    pair = FakeAuthority().pair(NAME, source=Source("acme", DIRECTORY))

    async def scenario(bench: Bench) -> None:
        assert bench.orders.suggested({"shop": pair}) == {"shop": NOW + timedelta(seconds=60)}
        bench.workshop.unreachable = True
        await bench.orders.look_at_renewals()
        assert (bench.orders.suggested({"shop": pair}), bench.changes) == ({}, 1)
        bench.workshop.unreachable = False
        await bench.orders.look_at_renewals()
        await bench.orders.look_at_renewals()
        assert (bench.orders.suggested({"shop": pair}), bench.changes) == ({"shop": NOW}, 2)
        assert bench.orders.suggested({"other": FakeAuthority().pair("other.test")}) == {}

    run(tmp_path, issues, scenario)


def test_an_answer_that_nobody_thought_of_ends_neither_the_task_nor_the_look(tmp_path: Path) -> None:
    """The certificate behind it is renewed by our own rule, and others are asked for; the task looks again."""
    pairs = {
        "shop": FakeAuthority().pair(NAME, source=Source("acme", DIRECTORY)),
        "zoo": FakeAuthority().pair("zoo.test", source=Source("acme", DIRECTORY)),
    }

    async def scenario(bench: Bench) -> None:
        bench.terms["zoo"] = OrderTerms(("zoo.test",), DIRECTORY, "", "http-01", (), True, timedelta(days=30))
        bench.workshop.bug = NAME
        bench.orders.suggested(pairs)
        task = asyncio.create_task(bench.orders.run())
        await eventually(lambda: bench.workshop.asked == 2 or task.done())
        assert bench.orders.suggested(pairs) == {"zoo": NOW}
        renewed = FakeAuthority().pair(NAME, source=Source("acme", DIRECTORY))
        bench.workshop.bug = ""
        bench.orders.suggested({"shop": renewed})
        await eventually(lambda: bench.workshop.asked == 3 or task.done())
        assert bench.orders.suggested({"shop": renewed}) == {"shop": NOW}
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(tmp_path, issues, scenario)


def test_a_bug_in_telling_of_a_failure_leaves_nothing_under_way(tmp_path: Path) -> None:
    """Otherwise the certificate would be said to be asked for until the next start."""

    async def scenario(bench: Bench) -> None:
        bench.workshop.until = LookupError("nobody thought of that")
        bench.orders.ask(WANTED)
        await bench.ended()
        assert (bench.reason(), bench.changes) == ("InternalError", 1)

    run(tmp_path, fails, scenario)
