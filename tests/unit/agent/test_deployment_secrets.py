"""Values of secrets on an agent: asked for once, kept sealed, shown nowhere."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from agent.deployments.secrets import FOLDER, Secrets
from agent.deployments.workload import Workload, workload_of
from agent.sealing import Sealer
from agent.services import Line
from agent.session import Event
from agent.talk import Say
from schemas.session import SecretsAnswer, SecretsRequest, digest_of
from tests.support.deployment_agent import item

CANARY: Final = "canary-77aa-of-a-value"
KEY: Final = ec.generate_private_key(ec.SECP256R1())
FIRST, SECOND = digest_of("first"), digest_of("second")


def workload(version: str = FIRST, *, name: str = "web") -> Workload:
    secrets = [{"env": "PASSWORD", "secret": "db", "key": "password"}]
    return workload_of(item(name, image="web:1", secrets=secrets), version)


class Machine:
    """An agent whose control plane answers when a test says so."""

    def __init__(self, data: Path, key: ec.EllipticCurvePrivateKey = KEY) -> None:
        self.now = 0.0
        self.secrets = Secrets(data, Sealer(key), monotonic=lambda: self.now, random=lambda: 0.0)
        self.secrets.load()
        self.secrets.offered(True)
        self.asked: list[SecretsRequest] = []
        self.changes = 0
        self.secrets.on_change = self._count

    def _count(self) -> None:
        self.changes += 1

    def connect(self) -> None:
        self.secrets.begun(Line(self._hear, lambda _: 0))

    def _hear(self, event: Event) -> None:
        assert isinstance(event, Say)
        assert isinstance(event.message, SecretsRequest)
        self.asked.append(event.message)

    async def answer(self, version: str = FIRST, value: str = CANARY, **fields: Any) -> None:
        values = {} if fields else {"db/password": SecretStr(value)}
        self.secrets.heard(
            SecretsAnswer(**{"id": "Deployment/shop/web", "version": version, "values": values, **fields})
        )
        await self.secrets.step()

    async def want(self, *wanted: Workload, former: tuple[Workload, ...] | None = ()) -> None:
        self.secrets.want(wanted, former)
        await self.secrets.step()

    def value(self, of: Workload) -> str | None:
        return self.secrets.given(of).values.get("db/password")


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario()

    asyncio.run(whole())


def test_values_are_asked_for_once_and_held_up_until_they_come(tmp_path: Path) -> None:
    """The deployment waits, and is told of again as soon as they are there."""
    machine = Machine(tmp_path)

    async def scenario() -> None:
        await machine.want(workload())
        assert machine.asked == []
        held_up = machine.secrets.held_up(workload())
        assert held_up is not None
        assert (held_up.state, held_up.reason) == ("Progressing", "SecretsMissing")
        machine.connect()
        for _ in range(3):
            await machine.want(workload())
        assert [(one.id, one.version) for one in machine.asked] == [("Deployment/shop/web", FIRST)]
        await machine.answer()
        assert machine.value(workload()) == CANARY
        assert machine.secrets.held_up(workload()) is None
        assert machine.changes == 1

    run(scenario)


def test_what_was_kept_is_there_without_a_control_plane(tmp_path: Path) -> None:
    """After a restart, and only for the agent whose key it was sealed with."""
    machine = Machine(tmp_path)

    async def scenario() -> None:
        machine.connect()
        await machine.want(workload())
        await machine.answer()

    run(scenario)
    assert Machine(tmp_path).value(workload()) == CANARY
    (file,) = (path for path in (tmp_path / FOLDER).rglob("*") if path.is_file())
    assert file.stat().st_mode & 0o777 == 0o600
    assert CANARY.encode() not in file.read_bytes()
    assert Machine(tmp_path, ec.generate_private_key(ec.SECP256R1())).value(workload()) is None
    file.write_bytes(b"damaged")
    assert Machine(tmp_path).value(workload()) is None


def test_a_newer_version_is_asked_for_and_the_former_stays_as_long_as_it_may_come_back(tmp_path: Path) -> None:
    """What was good last may have to run again; then nobody needs it, and it goes from the disk."""
    machine = Machine(tmp_path)

    async def scenario() -> None:
        machine.connect()
        await machine.want(workload())
        await machine.answer()
        await machine.want(workload(SECOND), former=(workload(),))
        await machine.answer(SECOND, "another")
        assert (machine.value(workload()), machine.value(workload(SECOND))) == (CANARY, "another")
        await machine.want(workload(SECOND), former=(workload(SECOND),))
        assert machine.value(workload()) is None
        assert len([path for path in (tmp_path / FOLDER).rglob("*") if path.is_file()]) == 1

    run(scenario)


def test_nothing_goes_before_it_is_known_what_was_good(tmp_path: Path) -> None:
    """An agent that has just started does not know yet what it may have to go back to."""
    machine = Machine(tmp_path)

    async def scenario() -> None:
        machine.connect()
        await machine.want(workload())
        await machine.answer()
        again = Machine(tmp_path)
        await again.secrets.step()
        await again.want(workload(SECOND), former=None)
        assert again.value(workload()) == CANARY

    run(scenario)


def test_a_refusal_is_said_and_asked_about_again_later(tmp_path: Path) -> None:
    """Not before the control plane said, and at once in a new connection."""
    machine = Machine(tmp_path)

    async def scenario() -> None:
        machine.connect()
        await machine.want(workload())
        await machine.answer(reason="SecretUnavailable", message="It cannot be opened.", retry_seconds=60)
        held_up = machine.secrets.held_up(workload())
        assert held_up is not None
        assert (held_up.state, held_up.reason) == ("Failed", "SecretUnavailable")
        machine.now = 59.0
        assert await machine.secrets.step() == pytest.approx(1.0)
        assert len(machine.asked) == 1
        machine.now = 60.0
        await machine.secrets.step()
        assert len(machine.asked) == 2
        machine.secrets.ended()
        machine.connect()
        await machine.secrets.step()
        assert len(machine.asked) == 3

    run(scenario)


def test_an_answer_that_is_not_what_is_wanted_counts_for_nothing(tmp_path: Path) -> None:
    """One for another version, one that came late, one that leaves a value out."""
    machine = Machine(tmp_path)

    async def scenario() -> None:
        await machine.answer()
        machine.connect()
        await machine.want(workload())
        await machine.answer(SECOND)
        assert machine.value(workload()) is None
        machine.connect()
        await machine.secrets.step()
        await machine.answer(values={"db/other": SecretStr(CANARY)})
        held_up = machine.secrets.held_up(workload())
        assert held_up is not None
        assert "db/password" in held_up.message

    run(scenario)


def test_an_older_control_plane_is_asked_for_nothing(tmp_path: Path) -> None:
    """It names no version; the deployment says what is to be done."""
    machine = Machine(tmp_path)
    machine.secrets.offered(False)

    async def scenario() -> None:
        machine.connect()
        await machine.want(workload(""))
        assert machine.asked == []
        held_up = machine.secrets.held_up(workload(""))
        assert held_up is not None
        assert (held_up.state, "upgrade" in held_up.message) == ("Failed", True)

    run(scenario)


def test_no_log_has_a_value(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever happens to it, and whatever shows itself."""
    machine = Machine(tmp_path)

    async def scenario() -> None:
        machine.connect()
        await machine.want(workload())
        (tmp_path / FOLDER).write_text("in the way")
        await machine.answer()
        assert machine.value(workload()) == CANARY, "what cannot be kept is used all the same"

    with caplog.at_level(logging.DEBUG):
        run(scenario)
    shown = [caplog.text, repr(machine.secrets.given(workload())), repr(machine.secrets), repr(vars(machine.secrets))]
    assert not any(CANARY in text for text in shown)
