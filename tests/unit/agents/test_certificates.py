"""Who gets a certificate, how often, and what becomes of it when an agent loses its place."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from reconciler.agents import certificates as module
from reconciler.agents.certificates import COMING, AgentCertificates, Applicant, Enrolled, Last, Reason, refusal
from reconciler.agents.directory import AgentDirectory
from reconciler.errors import Broken, Refused
from schemas.agent import Agent
from schemas.certificates_api import AgentCertificate
from schemas.fleet import Fleet
from tests.support.memory_store import MemoryStore
from tests.support.tokens import NOW
from tests.support.waiting import eventually
from tests.unit.agents.enrolling import fleet, known_directory
from tests.unit.agents.enrolling import refusal as refusal_of

MINE, OTHERS = "m" * 43, "o" * 43
DAY = 86_400.0
GOOD, ENDED = Last(NOW + DAY / 2), Last(NOW - 1)
FRESH = Enrolled("t", MINE, NOW)


def applicant(
    in_service: str | None = MINE, *, quarantined: bool = False, enrolled: Enrolled | None = None
) -> Applicant:
    return Applicant("vps-1", MINE, in_service, quarantined, enrolled)


@pytest.mark.parametrize(
    ("who", "last", "now", "code"),
    [
        (applicant(), None, NOW, None),
        (applicant(), GOOD, NOW, None),
        (applicant(), GOOD, GOOD.ends, None),
        (applicant(), GOOD, GOOD.ends + 0.1, "certificate-expired"),
        (applicant(), ENDED, NOW, "certificate-expired"),
        (applicant(), Last(NOW + 9, revoked_at=NOW - 9), NOW, None),
        (applicant(enrolled=FRESH), ENDED, NOW, None),
        (applicant(enrolled=Enrolled("t", MINE, NOW, served=True)), ENDED, NOW, "certificate-expired"),
        (applicant(quarantined=True), GOOD, NOW, "agent-quarantined"),
        (applicant(quarantined=True, enrolled=FRESH), None, NOW, "agent-quarantined"),
        (applicant(OTHERS), GOOD, NOW, "agent-revoked"),
        (applicant(OTHERS, enrolled=FRESH), None, NOW, "agent-revoked"),
        (applicant(None), None, NOW, "agent-revoked"),
        (applicant(None), GOOD, NOW, "agent-revoked"),
        (applicant(None, enrolled=FRESH), None, NOW, None),
        (applicant(None, enrolled=FRESH), None, NOW + COMING + 1, "agent-revoked"),
        (applicant(None, enrolled=Enrolled("t", OTHERS, NOW)), None, NOW, "agent-revoked"),
        (applicant(None, enrolled=FRESH), Last(NOW + 9, revoked_at=NOW), NOW, "agent-revoked"),
        (applicant(None, enrolled=FRESH), Last(NOW + 9, revoked_at=NOW - 1), NOW, None),
        (applicant(None, enrolled=FRESH), ENDED, NOW, None),
    ],
)  # fmt: skip
def test_who_gets_one(who: Applicant, last: Last | None, now: float, code: str | None) -> None:
    """In service and not ended, or freshly enrolled: a certificate; everybody else a 403 with its own code."""
    refused = refusal(who, last, now)
    assert (refused and refused.code) == code
    assert refused is None or refused.status == 403


def test_a_refusal_after_the_end_says_what_to_do() -> None:
    """The hint names the two commands."""
    refused = refusal(applicant(), ENDED, NOW)
    assert refused is not None
    assert "token create" in refused.hint
    assert "agent enrol" in refused.hint


@dataclass
class ScriptedIssuer:
    """Signs nothing; ``failures`` come first, one for each call that reaches the disk."""

    lasts: dict[str, tuple[float, float | None]] = field(default_factory=dict)
    issued: list[tuple[str, str, str]] = field(default_factory=list)
    revoked: list[tuple[str, Reason]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    while_issuing: Callable[[], None] = lambda: None

    def check(self, csr: str) -> None:
        if csr == "bad":
            raise Refused("This is no certificate signing request.", status=400, code="bad-csr")

    def issue(self, domain: str, name: str, csr: str, now: float) -> AgentCertificate:
        self._fail()
        self.check(csr)
        self.while_issuing()
        self.issued.append((domain, name, csr))
        self.lasts[name] = (now + DAY, None)
        return AgentCertificate(certificate="chain", bundle="roots", not_after=now + DAY)

    def last(self, name: str) -> tuple[float, float | None] | None:
        return self.lasts.get(name)

    def holders(self, now: float) -> dict[str, float]:
        return {
            name: ends - DAY for name, (ends, revoked_at) in self.lasts.items() if revoked_at is None and ends > now
        }

    def revoke(self, name: str, reason: Reason, now: float) -> int:
        self._fail()
        self.revoked.append((name, reason))
        if name in self.lasts:
            self.lasts[name] = (self.lasts[name][0], now)
        return 1

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


@dataclass
class Desk:
    """The service, and all that it is told."""

    issuer: ScriptedIssuer = field(default_factory=ScriptedIssuer)
    directory: AgentDirectory = field(default_factory=known_directory)
    store: MemoryStore = field(default_factory=MemoryStore)
    fleet: Fleet | None = field(default_factory=fleet)
    now: float = NOW

    def __post_init__(self) -> None:
        self.service = AgentCertificates(
            self.issuer,
            self.directory,
            lambda: self.fleet,
            self.store,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
        )

    def put(self, **agents: str | None) -> None:
        """Let git name these agents with these thumbprints, and revoke whoever lost its place."""
        self.service.revoke(
            self.directory.update({name: agent(name, thumbprint) for name, thumbprint in agents.items()})
        )

    def events(self) -> list[str]:
        return [event.type for event in self.store.disk.events]


def agent(name: str, thumbprint: str | None, **spec: Any) -> Agent:
    identity = {} if thumbprint is None else {"identity": {"thumbprint": thumbprint}}
    spec = {"address": "10.0.0.1", **identity, **spec}
    return Agent.model_validate(
        {"apiVersion": "cloudlunacy/v1", "kind": "Agent", "metadata": {"name": name}, "spec": spec}
    )


def run(scenario: Callable[[Desk], Awaitable[object]]) -> None:
    async def main() -> None:
        desk = Desk()
        revoking = asyncio.create_task(desk.service.run())
        try:
            await scenario(desk)
        finally:
            revoking.cancel()

    asyncio.run(main())


def test_an_agent_in_service_gets_one_and_the_timeline_tells_it() -> None:
    """The authority signs for the fleet's domain and the proven name, and the event names both ends of it."""

    async def scenario(desk: Desk) -> None:
        desk.put(vps=MINE)
        issued = await desk.service.issue("vps", MINE, "csr")
        event = desk.store.disk.events[-1]
        assert issued.certificate == "chain"
        assert desk.issuer.issued == [("cloudlunacy.test", "vps", "csr")]
        assert (event.type, event.subject, event.actor) == ("CertificateIssued", "agent/vps", "agent:vps")
        assert "2027-01-16 08:00:00 UTC" in event.message

    run(scenario)


def test_without_a_fleet_nobody_gets_one() -> None:
    """503 with a time to come back."""

    async def scenario(desk: Desk) -> None:
        desk.fleet = None
        with pytest.raises(Refused) as caught:
            await desk.service.issue("vps", MINE, "csr")
        assert (caught.value.status, caught.value.retry_after) == (503, module.NOT_READY_SECONDS)

    run(scenario)


def test_each_agent_is_slowed_down_by_itself() -> None:
    """After a burst one agent is told when to come back, and another one is served."""

    async def scenario(desk: Desk) -> None:
        desk.put(vps=MINE, other=OTHERS)
        for _ in range(module.BURST):
            await desk.service.issue("vps", MINE, "csr")
        with pytest.raises(Refused) as caught:
            await desk.service.issue("vps", MINE, "csr")
        assert caught.value.status == 429
        assert caught.value.retry_after == pytest.approx(600)
        await desk.service.issue("other", OTHERS, "csr")
        desk.now += 600
        await desk.service.issue("vps", MINE, "csr")

    run(scenario)


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ({}, "cessationOfOperation"),
        ({"vps": agent("vps", OTHERS)}, "superseded"),
        ({"vps": agent("vps", MINE, state="quarantined")}, "privilegeWithdrawn"),
    ],
)
def test_who_loses_its_place_is_revoked(after: dict[str, Agent], reason: str) -> None:
    """A deleted file, another identity and a quarantine each revoke with a reason of their own, and are told."""

    async def scenario(desk: Desk) -> None:
        desk.put(vps=MINE)
        await desk.service.issue("vps", MINE, "csr")
        desk.service.revoke(desk.directory.update(after))
        await eventually(lambda: "CertificateRevoked" in desk.events())
        assert desk.issuer.revoked == [("vps", reason)]
        assert (await refusal_of(desk.service.issue("vps", MINE, "csr")))[0] == 403

    run(scenario)


def test_a_disk_that_is_full_forgets_no_revocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written is tried again until it is."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)

    async def scenario(desk: Desk) -> None:
        desk.put(vps=MINE, other=OTHERS)
        desk.issuer.failures = [Broken("The disk is full.")] * 3
        desk.put()
        await eventually(lambda: len(desk.issuer.revoked) == 2)
        assert {name for name, _ in desk.issuer.revoked} == {"vps", "other"}

    run(scenario)


def test_a_bug_with_one_revocation_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are revoked and get certificates meanwhile, and it is tried again."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    met: list[str] = []

    async def scenario(desk: Desk) -> None:
        right = desk.issuer.revoke

        def revoke(name: str, reason: Reason, now: float) -> int:
            if name == "odd" and len(met) < 3:
                met.append(name)
                raise LookupError("nobody thought of that")
            return right(name, reason, now)

        monkeypatch.setattr(desk.issuer, "revoke", revoke)
        desk.put(odd=OTHERS, vps=MINE, other=OTHERS)
        desk.put(vps=MINE)
        assert (await desk.service.issue("vps", MINE, "csr")).certificate == "chain"
        assert [name for name, _ in desk.issuer.revoked] == ["other"]
        await eventually(lambda: [name for name, _ in desk.issuer.revoked] == ["other", "odd"])
        assert len(met) == 3

    run(scenario)


def test_a_revocation_on_the_way_is_not_overtaken() -> None:
    """An agent that is revoked while its certificate is signed does not get it, and the certificate is revoked too."""

    async def scenario(desk: Desk) -> None:
        desk.put(vps=MINE)
        loop = asyncio.get_running_loop()
        desk.issuer.while_issuing = lambda: asyncio.run_coroutine_threadsafe(gone(desk), loop).result()
        assert await refusal_of(desk.service.issue("vps", MINE, "csr")) == (403, "agent-revoked")
        await eventually(lambda: desk.issuer.revoked == [("vps", "cessationOfOperation")])
        assert desk.issuer.issued

    async def gone(desk: Desk) -> None:
        desk.put()

    run(scenario)


@pytest.mark.parametrize(
    ("agents", "age", "revoked"),
    [
        ({}, COMING + 1, [("vps", "cessationOfOperation")]),
        ({}, COMING - 1, []),
        ({"vps": agent("vps", MINE)}, COMING + 1, []),
        ({"vps": agent("vps", None)}, COMING + 1, [("vps", "superseded")]),
        ({"vps": agent("vps", MINE, state="quarantined")}, 1.0, [("vps", "privilegeWithdrawn")]),
    ],
)
def test_whom_a_killed_process_did_not_revoke_is_found_by_the_next(
    agents: dict[str, Agent], age: float, revoked: list[tuple[str, str]]
) -> None:
    """Once it is known who is in service; a young certificate may be of an enrolment that is on its way."""

    async def scenario(desk: Desk) -> None:
        desk.issuer.lasts["vps"] = (NOW - age + DAY, None)
        desk.issuer.lasts["other"] = (NOW - COMING - 1 + DAY, None)
        await asyncio.sleep(0)
        assert desk.issuer.revoked == []
        desk.service.revoke(desk.directory.update({"other": agent("other", OTHERS), **agents}))
        await eventually(lambda: not desk.service._more.is_set())
        assert desk.issuer.revoked == revoked

    run(scenario)


def test_without_a_fleet_nobody_is_taken_for_forgotten() -> None:
    """Where nothing is known of what is in service, nobody is revoked for not being known."""

    async def scenario(desk: Desk) -> None:
        desk.fleet = None
        desk.issuer.lasts["vps"] = (NOW - 2 * COMING + DAY, None)
        desk.service.revoke(frozenset())
        await eventually(lambda: not desk.service._more.is_set())
        assert desk.issuer.revoked == []

    run(scenario)


def test_a_barred_key_is_found_too() -> None:
    """The control plane died between the bar and the revocation."""

    async def scenario(desk: Desk) -> None:
        desk.issuer.lasts["vps"] = (NOW + DAY, None)
        desk.directory.bar([("vps", MINE)])
        desk.put(vps=MINE)
        await eventually(lambda: desk.issuer.revoked == [("vps", "superseded")])
        assert desk.directory.thumbprint("vps") is None

    run(scenario)


def test_an_agent_that_comes_back_is_not_revoked_anew() -> None:
    """What waits to be revoked is revoked before the next certificate is signed, so that one stays good."""

    async def scenario(desk: Desk) -> None:
        desk.put(vps=MINE)
        await desk.service.issue("vps", MINE, "csr")
        desk.put()
        desk.put(vps=MINE)
        await desk.service.issue("vps", MINE, "csr")
        await asyncio.sleep(0)
        assert desk.issuer.revoked == [("vps", "cessationOfOperation")]
        assert desk.issuer.lasts["vps"][1] is None

    run(scenario)


def test_an_enrolment_gives_one_right_and_not_two() -> None:
    """After the end a fresh token lets the agent in again; the same token does it no second time."""

    async def scenario(desk: Desk) -> None:
        desk.put(vps=MINE)
        desk.issuer.lasts["vps"] = (NOW - 1, None)
        assert await refusal_of(desk.service.issue("vps", MINE, "csr")) == (403, "certificate-expired")
        desk.service.note("vps", Enrolled("t1", MINE, NOW, "csr"))
        assert await desk.service.first("vps", "t1") is not None
        desk.now += DAY + 1
        desk.service.note("vps", Enrolled("t1", MINE, NOW, "csr"))
        assert await desk.service.first("vps", "t1") is None
        desk.service.note("vps", Enrolled("t2", MINE, desk.now, "csr"))
        assert await desk.service.first("vps", "t2") is not None

    run(scenario)


def test_a_deleted_agent_has_no_enrolment_left() -> None:
    """Before it is in service an enrolment may bring a certificate; once its agent was deleted it may not."""

    async def scenario(desk: Desk) -> None:
        desk.service.note("vps", Enrolled("t1", MINE, NOW, "csr"))
        assert await desk.service.first("vps", "t1") is not None
        desk.put(vps=MINE)
        desk.put()
        assert await desk.service.first("vps", "t1") is None
        assert await refusal_of(desk.service.issue("vps", MINE, "csr")) == (403, "agent-revoked")

    run(scenario)


def test_no_certificate_is_no_reason_to_refuse_an_enrolment() -> None:
    """Whatever the authority lacks, the enrolment is answered without a certificate; a foreign token brings none."""

    async def scenario(desk: Desk) -> None:
        desk.service.note("vps", Enrolled("t1", MINE, NOW, "csr"))
        desk.issuer.failures = [Broken("There is no intermediate yet.")]
        assert await desk.service.first("vps", "t1") is None
        assert await desk.service.first("vps", "t2") is None
        assert await desk.service.first("other", "t1") is None
        assert await desk.service.first("vps", "t1") is not None

    run(scenario)
