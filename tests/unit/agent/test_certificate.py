"""The task that keeps an agent's certificate good, step by step under a clock of the test's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from agent.certificate import CertificateKeeper, KeeperSettings
from agent.certificate_files import LINK, CertificateFiles
from agent.client import CredentialsUnavailable
from agent.renewal import EARLIEST, LATEST
from reconciler.pki.agent_issuer import AgentIssuer
from tests.support.agent_certificates import DOMAIN, issuer
from tests.support.tokens import NOW

DAY = 86_400.0


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> AgentIssuer:
    return issuer(tmp_path_factory.mktemp("authority") / "keys", now=NOW)


class ScriptedPlane:
    """Answers as the control plane does; ``answers`` come first, each for one call."""

    name = "vps-1"

    def __init__(self, authority: AgentIssuer) -> None:
        self.authority = authority
        self.time = NOW
        self.behind = 0.0
        """Seconds by which the control plane's clock, that signs, is behind the agent's."""
        self.answers: list[httpx.Response | Exception] = []
        self.requests: list[str] = []

    def now(self) -> float:
        return self.time

    async def call(self, method: str, path: str, body: Mapping[str, Any]) -> httpx.Response:
        assert (method, path) == ("POST", "/api/v1/agents/certificate")
        self.requests.append(body["csr"])
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        issued = self.authority.issue(DOMAIN, self.name, body["csr"], self.time - self.behind)
        return httpx.Response(200, text=issued.model_dump_json(by_alias=True))


class Desk:
    def __init__(self, authority: AgentIssuer, data: Path, random: float = 0.5) -> None:
        self.plane = ScriptedPlane(authority)
        self.files = CertificateFiles(data, "vps-1")
        self.random = random
        self.keeper = CertificateKeeper(
            self.files, self.plane, settings=KeeperSettings(look=DAY), random=lambda: self.random
        )

    def step(self) -> float:
        """Let the keeper do what is due, then let the time pass that it wants to wait; return that."""
        pause = asyncio.run(self.keeper.step())
        self.plane.time += pause
        return pause

    @property
    def serial(self) -> int:
        held = self.files.load()
        assert held is not None
        return held.serial


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"type": f"urn:cloudlunacy:problem:{code}", "detail": f"No: {code}.", "hint": "Do this."}
    return httpx.Response(status, json=body, headers=headers)


@pytest.mark.parametrize("random", [0.0, 0.5, 0.999])
def test_it_is_renewed_at_half_its_life_with_a_fresh_key(authority: AgentIssuer, tmp_path: Path, random: float) -> None:
    """The first comes at once; each next between 0.4 and 0.6 of the life later, and no key comes twice."""
    desk = Desk(authority, tmp_path, random)
    serials, keys = set(), set()
    for _ in range(4):
        pause = desk.step()
        assert EARLIEST * DAY <= pause <= LATEST * DAY
        serials.add(desk.serial)
        keys.add((tmp_path / LINK / "key.pem").read_bytes())
    assert (len(serials), len(keys), len(set(desk.plane.requests))) == (4, 4, 4)


def test_a_restart_asks_for_nothing(authority: AgentIssuer, tmp_path: Path) -> None:
    """What is on disk and good is gone on with; the time of its renewal is drawn anew within the same bounds."""
    Desk(authority, tmp_path).step()
    later = Desk(authority, tmp_path, random=0.9)
    later.plane.time += 1000
    assert later.step() == pytest.approx(0.58 * DAY - 1000, abs=1)
    assert later.plane.requests == []


@pytest.mark.parametrize(
    "failure",
    [
        OSError("away"),
        CredentialsUnavailable("no token"),
        CredentialsUnavailable("not in service yet", refused=True),
        problem(403, "agent-revoked"),
        problem(503, "not-ready"),
        problem(500, "internal-error"),
        problem(401, "expired"),
        httpx.Response(200, text="nonsense"),
        httpx.Response(200, json={"certificate": "x", "bundle": "x", "notAfter": 1}),
    ],
    ids=[
        "away",
        "no token",
        "not in service yet",
        "revoked",
        "not ready",
        "broken",
        "401",
        "nonsense",
        "no certificate",
    ],
)
def test_what_fails_is_tried_again_until_the_end(
    authority: AgentIssuer, tmp_path: Path, failure: httpx.Response | Exception
) -> None:
    """Pauses have a ceiling, the pair in place stays, many attempts fit before the end, and one success is enough."""
    desk = Desk(authority, tmp_path)
    desk.step()
    before, ends = desk.serial, NOW + DAY
    desk.plane.answers = [failure] * 50
    pauses = [desk.step() for _ in range(50)]
    assert max(pauses) <= 300
    assert desk.plane.time < ends
    assert desk.serial == before
    desk.step()
    assert desk.serial != before


def test_a_retry_after_is_kept(authority: AgentIssuer, tmp_path: Path) -> None:
    """The control plane is not asked again before it said."""
    desk = Desk(authority, tmp_path)
    desk.plane.answers = [problem(429, "too-many-certificates", **{"Retry-After": "55"})]
    assert desk.step() >= 55


def test_after_the_end_it_says_what_to_do(
    authority: AgentIssuer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The error names the commands, the agent asks slowly, and goes on once somebody enrolled it again."""
    desk = Desk(authority, tmp_path)
    desk.step()
    before = desk.serial
    desk.plane.time = NOW + DAY + 1
    desk.plane.answers = [problem(403, "certificate-expired")] * 2
    with caplog.at_level(logging.ERROR, "agent.certificate"):
        assert desk.step() >= 600
        assert desk.step() >= 600
    assert "cloudlunacy agent enrol" in caplog.text
    assert "2027-01-16 08:00:00 UTC" in caplog.text
    assert desk.serial == before
    desk.step()
    assert desk.serial != before


def test_what_another_process_brought_is_taken(authority: AgentIssuer, tmp_path: Path) -> None:
    """Enrolling again while the agent runs replaces the pair; the agent sees it at its next look."""
    desk, other = Desk(authority, tmp_path), Desk(authority, tmp_path)
    desk.step()
    desk.plane.time = other.plane.time = NOW + DAY + 1
    other.step()
    desk.step()
    assert desk.plane.requests == desk.plane.requests[:1]


def test_a_clock_that_is_ahead_brings_no_storm(authority: AgentIssuer, tmp_path: Path) -> None:
    """A certificate that has ended by this machine's clock when it comes is a failure with a pause."""
    desk = Desk(authority, tmp_path)
    desk.plane.behind = 2 * DAY
    assert desk.step() > 0
    assert desk.step() >= 600
