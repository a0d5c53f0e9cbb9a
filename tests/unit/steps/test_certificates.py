"""What a pass makes, when it counts, and what is renewed, ordered and dropped between passes."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from reconciler.desired.lookup import SecretUnavailable
from reconciler.desired.render import Renderer
from reconciler.desired.state import State
from reconciler.errors import Broken, Transient
from reconciler.pki.authority.authority import Authority
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.renewal import Delay, Desired, Source
from reconciler.pki.server_certificate import permitted_hosts
from reconciler.pki.vault import Vault
from reconciler.steps import certificates
from reconciler.steps.certificate_listing import desired_of
from reconciler.steps.certificates import Certificates
from reconciler.steps.passing import Pass, Published
from reconciler.store.protocols import Event
from reconciler.traefik.templates import load_templates
from schemas.objects import ObjectKey
from tests.support.documents import DOMAIN, agent, certificate, document, fleet, route, settled, team
from tests.support.pairs import FakeAuthority

START = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
TLS: Any = {"mode": "terminate"}
APP, FRONTS, MONGODB = "cloudlunacy__app", "cloudlunacy__fronts", "cloudlunacy__mongodb"
SHOP = "shop.test"
Content = dict[str, bytes | None]
FILES: Content = {
    "fleet.yaml": fleet(team("shop", hostnames=[f"*.app.{DOMAIN}", SHOP], agents=["vps-1"])),
    "agents/vps-1.yaml": agent("vps-1"),
}
ROUTE: Content = {"routes/shop/web.yaml": route("web", SHOP, tls=TLS)}
WEB = ObjectKey("Route", "shop", "web")
INTERNAL: Content = {"certificates/shop.yaml": certificate("shop", SHOP)}
ORDERED: Content = {"certificates/shop.yaml": certificate("shop", SHOP, issuer="acme")}
PROVIDED: Content = {
    "certificates/shop.yaml": document(
        "Certificate",
        "shop",
        {"dnsNames": [SHOP], "issuer": "provided", "provided": {"team": "shop", "secret": "pair"}},
    )
}


@dataclass
class FakeOrders:
    asked: list[dict[str, Desired]] = field(default_factory=list)
    held_up: dict[str, Delay] = field(default_factory=dict)

    def ask(self, wanted: Mapping[str, Desired]) -> None:
        self.asked.append(dict(wanted))

    def delays(self) -> Mapping[str, Delay]:
        return self.held_up

    def suggested(self, held: Mapping[str, CertificatePair]) -> Mapping[str, dt.datetime]:
        del held
        return {}


@dataclass
class World:
    """The step over a real authority and real files, with a clock that a test sets."""

    keys: Path
    now: float = START.timestamp()
    orders: FakeOrders = field(default_factory=FakeOrders)
    events: list[Event] = field(default_factory=list)
    is_full: bool = False
    """The store takes no events."""
    secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.authority = Authority.open_or_found(self.keys, Vault(), permitted=permitted_hosts(()), now=START)
        self.store = CertificateStore(self.keys, Vault())
        self.step = self.started()

    def started(self) -> Certificates:
        parts: Any = self
        step = Certificates(
            self.authority,
            self.store,
            open_sealed=self.open,
            renderer=Renderer(load_templates()),
            events=parts,
            own_hosts=lambda: ["cp.example"],
            clock=lambda: self.now,
        )
        step.orders = self.orders
        return step

    async def append(self, event: Event) -> Event:
        if self.is_full:
            raise Transient("the disk is full", reason="DiskFull")
        self.events.append(event)
        return event

    def open(self, sealed: str) -> str:
        if sealed not in self.secrets:
            raise SecretUnavailable("sealed to somebody else")
        return self.secrets[sealed]

    def said(self, kind: str) -> list[str]:
        return [event.subject for event in self.events if event.type == kind]

    async def bring(self, base: State, files: Content) -> Pass:
        """One round of a pass, as :mod:`reconciler.steps.preparing` does it."""
        this = Pass("a" * 40, Published(state=base))
        while True:
            this.settled = settled(base, files, refused=this.refused)
            waiting = await self.step.bring(this)
            if waiting.keys() <= this.refused.keys():
                return this
            this.refused |= waiting

    async def publish(self, base: State, files: Content) -> Published:
        this = await self.bring(base, files)
        await self.step.put_into_service(this)
        return Published(1, this.revision, this.state, overlay=this.overlay)


def world(tmp_path: Path) -> World:
    return World(tmp_path / "keys")


def test_a_route_gets_its_certificate_in_the_pass_that_brings_it(tmp_path: Path) -> None:
    """The authority signs for the certificate and for the three implicit ones, and permits what the fleet names."""

    async def run() -> None:
        one = world(tmp_path)
        published = await one.publish(State(), FILES | INTERNAL | ROUTE)
        assert WEB in published.state.served
        assert sorted(one.step.pairs) == [APP, FRONTS, MONGODB, "shop"]
        assert one.store.load().pairs == one.step.pairs
        assert b"BEGIN CERTIFICATE" in published.overlay.texts["tls.certificates"]
        assert published.overlay.roots == one.authority.bundle().pem
        assert one.said("CertificateIssued") == [
            "certificate/cloudlunacy__app",
            "certificate/cloudlunacy__fronts",
            "certificate/cloudlunacy__mongodb",
            "certificate/shop",
        ]
        assert not await one.step.look(published)

    asyncio.run(run())


def test_fronts_get_a_pair_to_prove_themselves_with(tmp_path: Path) -> None:
    """For clients alone, and among nothing that a front shows to anybody."""

    async def run() -> None:
        one = world(tmp_path)
        published = await one.publish(State(), FILES | INTERNAL | ROUTE)
        pair = one.step.pairs[FRONTS]
        leaf = x509.load_pem_x509_certificate(pair.chain.encode())
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        assert published.overlay.client == pair.certificate
        assert pair.key.splitlines()[2].encode() not in published.overlay.texts["tls.certificates"]
        assert FRONTS not in published.overlay.leaves

    asyncio.run(run())


def test_an_event_that_cannot_be_written_waits_and_stops_nothing(tmp_path: Path) -> None:
    """The certificate is in service, and the timeline hears of it later."""

    async def run() -> None:
        one = world(tmp_path)
        one.is_full = True
        published = await one.publish(State(), FILES | INTERNAL | ROUTE)
        assert WEB in published.state.served
        assert one.events == []
        one.is_full = False
        one.step.poke()
        await one.step.look(published)
        assert "certificate/shop" in one.said("CertificateIssued")

    asyncio.run(run())


def test_a_pass_that_is_not_published_leaves_nothing(tmp_path: Path) -> None:
    """What was made for it is neither kept nor shown, and what was in service is as it was."""

    async def run() -> None:
        one = world(tmp_path)
        published = await one.publish(State(), FILES | INTERNAL | ROUTE)
        before, told = dict(one.step.pairs), len(one.events)
        this = await one.bring(
            published.state, {"certificates/shop.yaml": certificate("shop", f"a.app.{DOMAIN}"), **dict.fromkeys(ROUTE)}
        )
        assert this.pairs["shop"].held.names == (f"a.app.{DOMAIN}",)
        assert one.step.pairs == before == one.store.load().pairs
        assert one.step.overlay is published.overlay
        assert not await one.step.look(published)
        assert len(one.events) == told

    asyncio.run(run())


def test_a_route_waits_for_an_order_and_comes_with_it(tmp_path: Path) -> None:
    """The order is placed once the certificate is published, and what it brings makes the loop settle again."""

    async def run() -> None:
        one = world(tmp_path)
        published = await one.publish(State(), FILES | ORDERED | ROUTE)
        assert WEB not in published.state.served
        assert one.orders.asked == []
        assert not await one.step.look(published)
        assert set(one.orders.asked[-1]) == {"shop"}
        one.orders.held_up = {"shop": Delay(START + dt.timedelta(minutes=1), "OrderUnderWay", "It is asked for.")}
        directory = one.orders.asked[-1]["shop"].source.directory
        pair = FakeAuthority(now=START).pair(SHOP, source=Source("acme", directory))
        one.step.finished("shop", pair)
        one.orders.held_up = {}
        assert await one.step.look(published)
        assert one.store.load().pairs["shop"] == pair
        again = await one.publish(published.state, {})
        assert WEB in again.state.served
        assert again.overlay is one.step.overlay
        assert not await one.step.look(again)

    asyncio.run(run())


def test_the_finding_says_what_holds_the_certificate_up(tmp_path: Path) -> None:
    """The sentence of the delay is in it."""

    async def run() -> None:
        one = world(tmp_path)
        one.orders.held_up = {"shop": Delay(START + dt.timedelta(minutes=1), "AcmeBackOff", "The server said no.")}
        this = await one.bring(State(), FILES | ORDERED | ROUTE)
        (finding,) = this.state.findings[WEB.path]
        assert finding.message == f'the certificate "shop" for "{SHOP}" is not there yet: The server said no.'

    asyncio.run(run())


def test_a_certificate_is_renewed_in_time_and_only_then(tmp_path: Path) -> None:
    """Near its end another one takes its place, and fronts are to get it."""

    async def run() -> None:
        one = world(tmp_path)
        published = await one.publish(State(), FILES | INTERNAL | ROUTE)
        first = one.step.pairs["shop"].held
        one.now += dt.timedelta(days=59).total_seconds()
        assert not await one.step.look(published)
        one.now += dt.timedelta(days=9).total_seconds()
        assert await one.step.look(published)
        second = one.step.pairs["shop"].held
        assert second.not_after > first.not_after
        assert second.fingerprint != first.fingerprint

    asyncio.run(run())


def test_a_short_life_is_looked_after_as_closely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after a renewal it is known when the next one comes, however soon that is."""

    def shortened(*what: Any) -> Any:
        wanted = desired_of(*what)
        lifetime, renew_before = dt.timedelta(seconds=40), dt.timedelta(seconds=20)
        return wanted and replace(wanted, lifetime=lifetime, renew_before=renew_before)

    monkeypatch.setattr(certificates, "desired_of", shortened)

    async def run() -> None:
        one = world(tmp_path)
        published = await one.publish(State(), FILES | INTERNAL | ROUTE)
        for _ in range(3):
            assert not await one.step.look(published)
            one.now += 25
            assert await one.step.look(published)
            published = await one.publish(published.state, {})

    asyncio.run(run())


def test_what_nobody_wants_is_dropped_once_every_front_has_forgotten_it(tmp_path: Path) -> None:
    """Not before the publication without it is confirmed."""

    async def run() -> None:
        one = world(tmp_path)
        published = await one.publish(State(), FILES | INTERNAL | ROUTE)
        gone = await one.publish(published.state, dict.fromkeys([*INTERNAL, *ROUTE]))
        await one.step.look(Published(2, "b" * 40, gone.state, overlay=gone.overlay, confirmed=False))
        assert "shop" in one.step.pairs
        one.step.poke()
        assert await one.step.look(gone)
        assert "shop" not in one.step.pairs
        assert sorted(one.store.load().pairs) == [APP, FRONTS, MONGODB]
        assert one.said("CertificateDropped") == ["certificate/shop"]

    asyncio.run(run())


def test_the_key_of_an_order_goes_with_its_certificate(tmp_path: Path) -> None:
    """Its object was deleted before the first one was issued; the key of another order stays."""

    async def run() -> None:
        one = world(tmp_path)
        other: Content = {"certificates/other.yaml": certificate("other", f"other.app.{DOMAIN}", issuer="acme")}
        published = await one.publish(State(), FILES | ORDERED | other)
        await one.step.look(published)
        for name in ("shop", "other"):
            one.store.waiting_key(name)
        one.step.poke()
        await one.step.look(published)
        assert len(list(one.keys.glob("certificates/*.waiting.pem"))) == 2
        await one.step.look(await one.publish(published.state, dict.fromkeys(ORDERED)))
        assert [path.name for path in one.keys.glob("certificates/*.waiting.pem")] == ["other.waiting.pem"]

    asyncio.run(run())


def test_a_new_root_reaches_the_fronts(tmp_path: Path) -> None:
    """Another process made it, and the next look shows it to whoever checks backends."""

    async def run() -> None:
        one = world(tmp_path)
        published = await one.publish(State(), FILES)
        Authority(one.keys).prepare_next("root", one.authority.permitted(), START)
        assert await one.step.look(published)
        assert one.step.overlay.roots == one.authority.bundle().pem
        assert one.step.overlay.roots.count("BEGIN CERTIFICATE") == 2

    asyncio.run(run())


def test_what_the_authority_cannot_sign_is_said_and_tried_again(tmp_path: Path) -> None:
    """The route waits with the reason; after the pause the authority is asked again."""

    async def run() -> None:
        one = world(tmp_path)
        real, fault = one.authority.issue, Broken("The authority has no intermediate yet.")

        def refuse(*_: object, **__: object) -> Any:
            raise fault

        one.authority.issue = refuse  # type: ignore[method-assign]
        published = await one.publish(State(), FILES | INTERNAL | ROUTE)
        assert WEB not in published.state.served
        assert "no intermediate" in published.state.findings[WEB.path][0].message
        assert one.step.statuses(published)[-1].state == "Pending"
        assert one.step.statuses(published)[-1].reason == "NotIssued"
        one.authority.issue = real  # type: ignore[method-assign]
        await one.step.look(published)
        assert "shop" not in one.step.pairs
        one.now += 11
        assert await one.step.look(published)
        assert "shop" in one.step.pairs

    asyncio.run(run())


def pair_secret(one: World, number: int, pair: CertificatePair) -> Content:
    """A secret whose sealed texts differ with ``number`` and open to the pair."""
    texts = {
        key: f"-----BEGIN AGE ENCRYPTED FILE-----\n{key[4:]}{number}\n-----END AGE ENCRYPTED FILE-----\n"
        for key in ("tls.crt", "tls.key")
    }
    one.secrets |= {texts["tls.crt"]: pair.chain, texts["tls.key"]: pair.key}
    return {"secrets/shop/pair.yaml": document("Secret", "pair", {"sealed": texts})}


def test_a_provided_pair_that_was_held_with_its_revision_comes_when_that_is_approved(tmp_path: Path) -> None:
    """A first look at the new secret, by a pass that was not published, does not make the second one skip it."""

    async def run() -> None:
        one, away = world(tmp_path), FakeAuthority(now=START)
        old, new = away.pair(SHOP), away.pair(SHOP)
        published = await one.publish(State(), FILES | PROVIDED | ROUTE | pair_secret(one, 1, old))
        assert one.step.pairs["shop"].held.fingerprint == old.held.fingerprint
        await one.step.look(published)
        newer = pair_secret(one, 2, new)
        assert (await one.bring(published.state, newer)).pairs.keys() == {"shop"}
        assert one.step.pairs["shop"].held.fingerprint == old.held.fingerprint
        await one.publish(published.state, newer)
        assert one.step.pairs["shop"].held.fingerprint == new.held.fingerprint

    asyncio.run(run())


def test_a_secret_that_cannot_be_used_keeps_the_former_pair(tmp_path: Path) -> None:
    """The certificate is due, with the reason; nothing of the secret is in what is said."""

    async def run() -> None:
        one, away = world(tmp_path), FakeAuthority(now=START)
        old, other = away.pair(SHOP), away.pair("other.test")
        published = await one.publish(State(), FILES | PROVIDED | ROUTE | pair_secret(one, 1, old))
        published = await one.publish(published.state, pair_secret(one, 2, other))
        assert one.step.pairs["shop"].held.fingerprint == old.held.fingerprint
        shop = one.step.statuses(published)[-1]
        assert (shop.state, shop.reason) == ("Due", "SecretUnusable")
        assert "lacks shop.test" in shop.message
        assert other.key not in repr(one.events)

    asyncio.run(run())


def test_a_secret_that_was_mended_is_used_at_once(tmp_path: Path) -> None:
    """However often it failed before, and however long the pause for the same secret would be."""

    async def run() -> None:
        one, away = world(tmp_path), FakeAuthority(now=START)
        good, other = away.pair(SHOP), away.pair("other.test")
        published = await one.publish(State(), FILES | PROVIDED | ROUTE | pair_secret(one, 1, other))
        for _ in range(6):
            one.now += 400
            await one.step.look(published)
        assert WEB not in published.state.served
        published = await one.publish(published.state, pair_secret(one, 2, good))
        assert WEB in published.state.served

    asyncio.run(run())


def test_an_authority_that_was_mended_is_asked_at_once(tmp_path: Path) -> None:
    """Its files are what was tried with; a person may also end the pause."""

    async def run() -> None:
        one = world(tmp_path)
        real = one.authority.issue

        def refuse(*_: object, **__: object) -> Any:
            raise Broken("The authority has no intermediate yet.")

        await one.step.take_up()
        one.authority.issue = refuse  # type: ignore[method-assign]
        published = await one.publish(State(), FILES | INTERNAL | ROUTE)
        for _ in range(4):
            one.now += 400
            await one.step.look(published)
        one.authority.issue = real  # type: ignore[method-assign]
        assert not await one.step.look(published)
        Authority(one.keys).prepare_next("root", one.authority.permitted(), START)
        assert await one.step.look(published)
        assert "shop" in one.step.pairs
        assert not one.step.retry("shop")

    asyncio.run(run())


def test_what_an_order_brought_waits_until_it_can_be_kept(tmp_path: Path) -> None:
    """A full disk loses no certificate that was paid for."""

    async def run() -> None:
        one = world(tmp_path)
        published = await one.publish(State(), FILES | ORDERED | ROUTE)
        await one.step.look(published)
        directory = one.orders.asked[-1]["shop"].source.directory
        pair = FakeAuthority(now=START).pair(SHOP, source=Source("acme", directory))
        real = one.store.save

        def full(*_: object) -> None:
            raise Broken("the disk is full")

        one.store.save = full  # type: ignore[method-assign, assignment]
        one.step.finished("shop", pair)
        with pytest.raises(Broken):
            await one.step.look(published)
        one.store.save = real  # type: ignore[method-assign]
        assert await one.step.look(published)
        assert one.store.load().pairs["shop"] == pair

    asyncio.run(run())


def test_a_certificate_of_a_directory_that_is_gone_stays_in_service_and_stops_nothing(tmp_path: Path) -> None:
    """The last good version names a directory that the fleet has no more: it is shown so, and nothing is ordered."""

    async def run() -> None:
        one = world(tmp_path)
        team_shop = team("shop", hostnames=[f"*.app.{DOMAIN}", SHOP], agents=["vps-1"])
        away = {"away": {"url": "https://acme.example.test/dir"}}
        both = {"letsencrypt": {"url": "https://le.example.test/dir"}, **away}
        ordered = {"certificates/shop.yaml": certificate("shop", SHOP, issuer="acme", acme={"directory": "away"})}
        files = FILES | {"fleet.yaml": fleet(team_shop, acme={"directories": both, "directory": "letsencrypt"})}
        published = await one.publish(State(), files | ordered | ROUTE)
        one.step.finished("shop", FakeAuthority(now=START).pair(SHOP, source=Source("acme", away["away"]["url"])))
        await one.step.look(published)
        published = await one.publish(published.state, {})
        rest = {"letsencrypt": both["letsencrypt"]}
        published = await one.publish(published.state, {"fleet.yaml": fleet(team_shop, acme={"directories": rest})})
        await one.step.look(published)
        assert "shop" in one.step.pairs
        assert one.orders.asked[-1] == {}
        shop = one.step.statuses(published)[-1]
        assert (shop.state, shop.reason) == ("Due", "unknown-directory")

    asyncio.run(run())


def test_a_restart_shows_the_same_overlay(tmp_path: Path) -> None:
    """What was on disk is what fronts are to get, so nothing has to be published."""

    async def run() -> None:
        one = world(tmp_path)
        published = await one.publish(State(), FILES | INTERNAL | ROUTE)
        step = one.started()
        await step.take_up()
        assert (step.overlay.texts, step.overlay.roots) == (published.overlay.texts, published.overlay.roots)

    asyncio.run(run())


def test_each_certificate_says_how_it_stands(tmp_path: Path) -> None:
    """Good until its renewal, expired and served, pending; and retained where only routes need it."""

    async def run() -> None:
        one = world(tmp_path)
        published = await one.publish(State(), FILES | INTERNAL | ROUTE)
        await one.step.look(published)
        states = {status.name: status for status in one.step.statuses(published)}
        assert {status.state for status in states.values()} == {"Good"}
        assert states["shop"].next_look is not None
        assert states["shop"].dns_names == (SHOP,)
        one.now += dt.timedelta(days=91).total_seconds()
        assert {status.state for status in one.step.statuses(published)} == {"Expired"}
        published = await one.publish(
            State(), FILES | {"certificates/b.yaml": certificate("b", "b.shop.test", issuer="acme")}
        )
        assert {status.name: status.state for status in one.step.statuses(published)}["shop"] == "Retained"

    asyncio.run(run())
