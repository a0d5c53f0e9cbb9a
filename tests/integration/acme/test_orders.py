"""Orders in the background at a real ACME server: what is asked for comes, or it is said why it does not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from prometheus_client import CollectorRegistry

from reconciler.app.acme_orders import UNDER_WAY, AcmeOrders
from reconciler.desired.acme_terms import ChallengeType, OrderTerms
from reconciler.observability.acme_metrics import AcmeMetrics
from reconciler.pki.acme.http01 import Http01
from reconciler.pki.acme.issuers import Issuers
from reconciler.pki.acme.settings import AcmeSettings, DirectorySettings
from reconciler.pki.acme.solver import Solver
from reconciler.pki.authority.pairs import same_key
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.renewal import Desired, Source
from reconciler.pki.vault import Vault
from tests.support.acme import LIMITS, NAME, Hanging, answering, verified
from tests.support.memory_store import MemoryStore
from tests.support.pebble import Middle, Pebble, middle, pebble, serving
from tests.support.waiting import eventually

ARI_HEADERS = {"content-type": "application/json", "retry-after": "21600"}


def terms_at(
    server: Pebble | Middle, *names: str, staging: str = "", challenge: ChallengeType = "http-01", agreed: bool = True
) -> OrderTerms:
    return OrderTerms(
        names or (NAME,), server.url, staging, challenge, ("ops@example.test",), agreed, timedelta(days=1)
    )


@dataclass
class Bench:
    """Orders as they stand in one data directory; another bench on the same directory is another process."""

    folder: Path
    servers: tuple[Pebble | Middle, ...]
    terms: dict[str, OrderTerms]
    http01: Solver = field(default_factory=Http01)
    arrived: dict[str, CertificatePair] = field(default_factory=dict)
    events: MemoryStore = field(default_factory=MemoryStore)

    def __post_init__(self) -> None:
        keys = self.folder / "keys"
        self.store = CertificateStore(keys, Vault())
        self.registry = CollectorRegistry()
        self.orders = AcmeOrders(
            self.terms.get, self.store, self._workshop, events=self.events, metrics=AcmeMetrics(self.registry)
        )
        self.orders.finished = self._finished

    def _workshop(self) -> Issuers:
        trusted = tuple(DirectorySettings(url=one.url, ca_file=one.files.certificate) for one in self.servers)
        settings = AcmeSettings(directory=trusted)
        return Issuers(self.folder / "keys" / "acme", Vault(), settings, self.http01, limits=LIMITS)

    def _finished(self, name: str, pair: CertificatePair) -> None:
        self.store.save(name, pair)
        self.arrived[name] = pair

    def ask(self) -> None:
        """Ask as a look at the published state does: what is held is known before."""
        self.orders.suggested(self.arrived)
        self.orders.ask(
            {
                name: Desired(one.names, timedelta(days=90), one.renew_before, Source("acme", one.directory))
                for name, one in self.terms.items()
                if name not in self.arrived
            }
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        await eventually(condition, 30, what=f"{self.orders.delays()} {self.events.disk.events}")

    def outcome(self, outcome: str) -> float:
        return self.registry.get_sample_value("cloudlunacy_acme_orders_total", {"outcome": outcome}) or 0.0


def test_what_is_asked_for_comes(server: Pebble, tmp_path: Path) -> None:
    """The pair that arrives is verified by openssl; meanwhile asking again changes nothing, and the delay says so."""

    async def scenario() -> None:
        async with answering(server) as table:
            bench = Bench(tmp_path, (server,), {"shop": terms_at(server, NAME, "www.example.test")}, table)
            bench.ask()
            bench.ask()
            delay = bench.orders.delays()["shop"]
            assert (delay.reason, delay.until > datetime.now(UTC)) == (UNDER_WAY, True)
            assert "its names are proven by http-01" in delay.message
            await bench.until(lambda: "shop" in bench.arrived)
            pair = bench.arrived["shop"]
            key = load_pem_private_key(pair.key.encode(), None)
            verified(tmp_path, pair.chain, server.root(), NAME, "www.example.test", key=key)  # type: ignore[arg-type]
            assert pair.held.source == Source("acme", server.url)
            await bench.until(lambda: not bench.orders.delays())
            assert (bench.outcome("issued"), bench.events.disk.events) == (1, [])
            await bench.orders.close()

    asyncio.run(scenario())


def test_the_key_of_the_account_signs_nothing_else(server: Pebble, tmp_path: Path) -> None:
    """The account of a server has a key of its own, and every certificate another one."""

    async def scenario() -> None:
        async with answering(server) as table:
            terms = {name: terms_at(server, f"{name}.example.test") for name in ("one", "two")}
            bench = Bench(tmp_path, (server,), terms, table)
            bench.ask()
            await bench.until(lambda: len(bench.arrived) == 2)
            (account,) = (tmp_path / "keys" / "acme").glob("*.account.pem")
            contents = [account.read_bytes(), *(pair.key.encode() for pair in bench.arrived.values())]
            keys = [load_pem_private_key(one, None).public_key() for one in contents]
            assert not any(same_key(one, other) for one in keys for other in keys if one is not other)
            assert account.stat().st_mode & 0o777 == 0o600

    asyncio.run(scenario())


def test_an_order_is_gone_on_with_after_a_crash(server: Pebble, tmp_path: Path) -> None:
    """Another process on the same directory brings the order to its end, with the key that waited."""

    async def scenario() -> None:
        hanging = Hanging()
        first = Bench(tmp_path, (server,), {"shop": terms_at(server)}, hanging)
        first.ask()
        await asyncio.wait_for(hanging.reached.wait(), 20)
        key = first.store.waiting_key("shop").public_key()
        await first.orders.close()
        async with answering(server) as table:
            second = Bench(tmp_path, (server,), {"shop": terms_at(server)}, table)
            second.ask()
            await second.until(lambda: "shop" in second.arrived)
        issued = load_pem_private_key(second.arrived["shop"].key.encode(), None).public_key()
        assert same_key(issued, key)
        (ledger,) = (tmp_path / "keys" / "acme").glob("*.ledger.json")
        assert ledger.read_text().count('"order_url": ""') == 1

    asyncio.run(scenario())


def test_a_failure_says_why_and_when_it_is_tried_again(server: Pebble, tmp_path: Path) -> None:
    """A host that nobody reaches is a delay of a minute with the server's words; terms that are mended end it."""

    async def scenario() -> None:
        bench = Bench(tmp_path, (server,), {"shop": terms_at(server)})
        bench.ask()
        await bench.until(lambda: "shop" in bench.orders.delays() and bench.orders.delays()["shop"].reason != UNDER_WAY)
        delay = bench.orders.delays()["shop"]
        assert delay.reason == "AcmeChallengeFailed"
        assert NAME in delay.message
        assert 55 < (delay.until - datetime.now(UTC)).total_seconds() <= 66
        assert bench.outcome("AcmeChallengeFailed") == 1
        assert [(one.type, one.subject) for one in bench.events.disk.events] == [
            ("CertificateFailed", "certificate/shop")
        ]
        bench.ask()
        assert bench.orders.delays()["shop"] == delay
        again = Bench(tmp_path, (server,), {"shop": terms_at(server)})
        again.ask()
        await again.until(lambda: again.orders.delays()["shop"].reason == "AcmeBackOff")
        bench.terms["shop"] = terms_at(server, "other.example.test")
        assert bench.orders.delays() == {}
        bench.ask()
        assert bench.orders.delays()["shop"].reason == UNDER_WAY
        await bench.orders.close()

    asyncio.run(scenario())


def test_what_nobody_wants_any_more_is_given_up(server: Pebble, tmp_path: Path) -> None:
    """An order whose certificate is gone, or has other terms, ends; with other terms another one begins."""

    async def scenario() -> None:
        hanging = Hanging()
        bench = Bench(tmp_path, (server,), {"shop": terms_at(server)}, hanging)
        bench.ask()
        await asyncio.wait_for(hanging.reached.wait(), 20)
        del bench.terms["shop"]
        bench.ask()
        assert bench.orders.delays() == {}
        assert "order_url" in next((tmp_path / "keys" / "acme").glob("*.ledger.json")).read_text()
        await bench.orders.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("terms", "reason", "words"),
    [
        ({"challenge": "dns-01"}, "AcmeDnsNotSetUp", "knows no name server for shop.example.test"),
        ({"agreed": False}, "AcmeTermsNotAgreed", "acme: {termsAgreed: true} in fleet.yaml"),
    ],
)
def test_what_a_person_must_say_first(
    server: Pebble, tmp_path: Path, terms: dict[str, object], reason: str, words: str
) -> None:
    """Without a name server, or without agreement, nothing is ordered, and the delay says what to write where."""

    async def scenario() -> None:
        bench = Bench(tmp_path, (server,), {"shop": terms_at(server, **terms)})  # type: ignore[arg-type]
        bench.ask()
        await bench.until(lambda: "shop" in bench.orders.delays() and bench.orders.delays()["shop"].reason != UNDER_WAY)
        delay = bench.orders.delays()["shop"]
        assert delay.reason == reason
        assert words in delay.message
        ledgers = [one.read_text() for one in (tmp_path / "keys" / "acme").glob("*.ledger.json")]
        assert not any("Z" in one and '"orders": [\n' in one for one in ledgers)

    asyncio.run(scenario())


def test_staging_comes_first(server: Pebble, tmp_path: Path) -> None:
    """Both servers are asked, each with an account of its own; what arrives is from the production one."""

    async def scenario(staging: Pebble) -> None:
        async with answering(server) as table, serving(table, staging.http_port):
            terms = {"shop": terms_at(server, staging=staging.url)}
            bench = Bench(tmp_path, (server, staging), terms, table)
            bench.ask()
            await bench.until(lambda: "shop" in bench.arrived)
        assert staging.log().count("POST /order-plz -> calling handler()") == 1
        assert len(list((tmp_path / "keys" / "acme").glob("*.account.pem"))) == 2

    with pebble(tmp_path / "staging") as staging:
        asyncio.run(scenario(staging))


def test_a_renewal_is_asked_for_in_time(server: Pebble, tmp_path: Path) -> None:
    """When to renew is known after a look, lies in the certificate's second half, and is told once."""

    async def scenario() -> None:
        async with answering(server) as table:
            bench = Bench(tmp_path, (server,), {"shop": terms_at(server)}, table)
            bench.ask()
            await bench.until(lambda: "shop" in bench.arrived)
        told: list[int] = []
        bench.orders.changed = lambda: told.append(1)
        assert bench.orders.suggested(bench.arrived)["shop"] > datetime.now(UTC)  # not before the server was asked
        await bench.orders.look_at_renewals()
        await bench.orders.look_at_renewals()
        held = bench.arrived["shop"].held
        at = bench.orders.suggested(bench.arrived)["shop"]
        assert held.not_before + (held.not_after - held.not_before) / 2 <= at < held.not_after
        assert told == [1]

    asyncio.run(scenario())


def test_what_was_mended_waits_for_no_back_off(server: Pebble, tmp_path: Path) -> None:
    """Other terms for the same names, or a person's word, end a back-off; the budget is counted on."""

    async def scenario() -> None:
        table = Http01()
        bench = Bench(tmp_path, (server,), {"shop": terms_at(server, agreed=False)}, table)

        def waits_for(reason: str) -> bool:
            delay = bench.orders.delays().get("shop")
            return delay is not None and delay.reason == reason

        bench.ask()
        await bench.until(lambda: waits_for("AcmeTermsNotAgreed"))
        assert not await bench.orders.retry("other", "ops")
        bench.terms["shop"] = terms_at(server)
        bench.ask()
        await bench.until(lambda: waits_for("AcmeChallengeFailed"))
        async with serving(table, server.http_port):
            bench.ask()
            assert waits_for("AcmeChallengeFailed")
            assert await bench.orders.retry("shop", "ops")
            bench.ask()
            assert not await bench.orders.retry("shop", "ops")
            await bench.until(lambda: "shop" in bench.arrived)
        (ledger,) = (tmp_path / "keys" / "acme").glob("*.ledger.json")
        (history,) = json.loads(ledger.read_text())["histories"].values()
        assert len(history["orders"]) == 2
        assert [one.actor for one in bench.events.disk.events if one.type == "CertificateRetried"] == ["ops"]

    asyncio.run(scenario())


def test_a_moment_that_the_server_suggests_counts(server: Pebble, tmp_path: Path) -> None:
    """It is asked for once, not before it wants to be asked again, and lies in the window that the server named."""
    begins = datetime.now(UTC) + timedelta(hours=1)
    window = {"start": begins.isoformat(), "end": (begins + timedelta(hours=1)).isoformat()}
    answer = json.dumps({"suggestedWindow": window}).encode()

    async def scenario() -> None:
        async with answering(server) as table, middle(tmp_path / "middle", server) as between:
            between.directory["renewalInfo"] = f"https://127.0.0.1:{between.port}/ari"
            between.meddle = lambda _, path: (200, ARI_HEADERS, answer) if path.startswith("/ari/") else None
            bench = Bench(tmp_path, (between,), {"shop": terms_at(between)}, table)
            bench.ask()
            await bench.until(lambda: "shop" in bench.arrived)
            bench.orders.suggested(bench.arrived)
            await bench.orders.look_at_renewals()
            await bench.orders.look_at_renewals()
            at = bench.orders.suggested(bench.arrived)["shop"]
            assert begins <= at <= begins + timedelta(hours=1)
            assert len([seen for seen in between.seen if "/ari/" in seen]) == 1
            former = bench.arrived.pop("shop")
            bench.orders._have = {"shop": former}
            bench.orders.ask({"shop": Desired((NAME,), timedelta(days=90), timedelta(days=1), former.held.source)})
            await bench.until(lambda: "shop" in bench.arrived)
        replaced = [payload.get("replaces") for payload in between.payloads() if "identifiers" in payload]
        assert replaced[0] is None
        assert replaced[1] is not None

    asyncio.run(scenario())
