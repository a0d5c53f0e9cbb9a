"""What enrolling leaves on the disk besides the identity: the first certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from agent import enrol as enrol_module
from agent.certificate import CertificateKeeper, Fresh
from agent.certificate_files import LINK, CertificateFiles
from agent.credentials import AgentFile, Api, Credentials
from agent.enrol import Wanted, enrol
from agent.keys import AgentKey, Unusable
from reconciler.errors import Transient
from schemas.enrolment import Enrolment
from tests.support.agent_plane import Served, served
from tests.support.tokens import ISSUER, NOW
from tests.unit.agents.enrolling import World

DAY = 86_400.0


def run(folder: Path, scenario: Callable[[Served, Path], Awaitable[object]], world: World | None = None) -> None:
    async def main() -> None:
        async with served(folder / "plane", world) as one:
            await scenario(one, folder / "agent")

    (folder / "plane").mkdir()
    asyncio.run(main())


async def enrolled(one: Served, data: Path, **more: Any) -> Enrolment:
    async def short(_: float) -> None:
        await asyncio.sleep(0.002)

    wanted = Wanted(server=ISSUER, token=SecretStr(await one.plane.token()), name="vps-9", address="10.0.0.9")
    now = one.plane.world.now
    return await enrol(wanted, data, transport=one.transport(), clock=lambda: now, sleep=short, **more)


def serial(data: Path) -> int | None:
    held = CertificateFiles(data, "vps-9").load()
    return None if held is None else held.serial


def test_the_certificate_comes_with_the_enrolment(tmp_path: Path) -> None:
    """Its key is not the identity's, and enrolling again replaces both the key and the certificate."""

    async def scenario(one: Served, data: Path) -> None:
        await enrolled(one, data)
        first, key = serial(data), (data / LINK / "key.pem").read_bytes()
        assert first is not None
        assert key != (data / "key.pem").read_bytes()
        await enrolled(one, data)
        assert serial(data) not in (None, first)
        assert (data / LINK / "key.pem").read_bytes() != key

    run(tmp_path, scenario)


def test_a_queued_enrolment_gets_it_once_it_is_committed(tmp_path: Path) -> None:
    """The answer that says committed brings it, although the first answer did not."""
    world = World(answer_seconds=0.001)
    world.remote.failures = [Transient("away") for _ in range(5)]

    async def scenario(one: Served, data: Path) -> None:
        answer = await enrolled(one, data, wait_seconds=10_000.0)
        assert answer.state == "committed"
        assert serial(data) is not None

    run(tmp_path, scenario, world)


def test_an_enrolment_without_one_is_good_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the control plane could sign nothing the agent is enrolled, and asks by its identity once it runs."""

    async def scenario(one: Served, data: Path) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(one.certificates, "first", _nothing)
            answer = await enrolled(one, data)
        assert (answer.state, serial(data)) == ("committed", None)
        one.publish()
        file = AgentFile.load(data)
        api = Api(file.server, None, transport=one.transport(), clock=lambda: NOW)
        credentials = Credentials(file, AgentKey.load(data), api=api)
        await CertificateKeeper(CertificateFiles(data, "vps-9"), credentials).step()
        await credentials.close()
        assert serial(data) is not None

    run(tmp_path, scenario)


async def _nothing(*_: object) -> None:
    return None


def test_a_certificate_for_another_key_is_left_alone(tmp_path: Path) -> None:
    """What an attempt that was cut off had asked for does not fit, and what is in place stays."""

    async def scenario(one: Served, data: Path) -> None:
        answer = await enrolled(one, data)
        before = serial(data)
        await enrol_module._keep_certificate(data, Fresh.make(), answer, NOW)
        assert serial(data) == before

    run(tmp_path, scenario)


def test_a_clock_that_is_wrong_is_put_right_first(tmp_path: Path) -> None:
    """An agent two days behind takes the control plane's time, and its renewal is at half the life by that."""
    wrong = NOW - 2 * DAY

    async def scenario(one: Served, data: Path) -> None:
        await enrolled(one, data)
        one.publish()
        file = AgentFile.load(data)
        api = Api(file.server, None, transport=_Dated(one), clock=lambda: wrong)
        credentials = Credentials(file, AgentKey.load(data), api=api)
        (data / LINK).unlink()
        keeper = CertificateKeeper(CertificateFiles(data, "vps-9"), credentials, random=lambda: 0.5)
        await keeper.step()
        await credentials.close()
        held = CertificateFiles(data, "vps-9").load()
        assert held is not None
        assert held.life == pytest.approx((NOW, NOW + DAY), abs=2)
        assert keeper._due == pytest.approx(NOW + DAY / 2, abs=2)

    run(tmp_path, scenario)


class _Dated(httpx.AsyncBaseTransport):
    """Adds the header ``Date``, as a server does."""

    def __init__(self, one: Served) -> None:
        self._inner = one.transport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        response.headers["Date"] = "Fri, 15 Jan 2027 08:00:00 GMT"
        return response


def test_a_disk_that_takes_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is to blame, not the control plane."""

    async def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def scenario(one: Served, data: Path) -> None:
        monkeypatch.setattr(enrol_module, "install", full)
        with pytest.raises(Unusable, match=r"cannot be written: No space left on device"):
            await enrolled(one, data)

    run(tmp_path, scenario)
