"""The whole agent against the whole hub, on loopback."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from agent.documents import DocumentStore
from reconciler.agents.hub import HubLimits
from reconciler.agents.session import SessionLimits
from tests.support.agent_hub import RunningHub, TestSigner, running_hub, wanted
from tests.support.agent_machine import ScriptedService, TestCredentials, on_disk, running_agent, sign
from tests.support.ports import free_port
from tests.support.waiting import eventually, wait_for


def credentials_for(hub: RunningHub, name: str = "vps-1") -> TestCredentials:
    return TestCredentials(name, hub.url, hub.signer.jwks)


async def applied(hub: RunningHub, generation: int, name: str = "vps-1") -> None:
    await eventually(
        lambda: any(
            (report.generation, report.outcome) == (generation, "applied")
            for report in hub.observer.of("reported", name)
        ),
        what=f"generation {generation} applied by {name}",
    )


def test_an_agent_applies_what_is_wanted(tmp_path: Path) -> None:
    """Each published document is applied, kept on disk and reported, item by item."""

    async def scenario() -> None:
        service = ScriptedService()
        async with running_hub() as hub:
            await hub.hub.publish({"vps-1": wanted(1)})
            async with running_agent(tmp_path, credentials_for(hub), service):
                await applied(hub, 1)
                await hub.hub.publish({"vps-1": wanted(2)})
                await applied(hub, 2)
            report = hub.observer.of("reported")[-1]
            assert [(item.id, item.state) for item in report.items] == [("Deployment/shop/web", "Applied")]
            assert service.images == ["1", "2"]
            assert (2, (2, wanted(2).digest)) == on_disk(tmp_path, hub.signer)

    asyncio.run(scenario())


def test_a_returning_agent_is_sent_nothing(tmp_path: Path) -> None:
    """After a restart the agent serves from disk, says what it has, and gets no document."""

    async def scenario() -> None:
        async with running_hub() as hub:
            await hub.hub.publish({"vps-1": wanted(1)})
            async with running_agent(tmp_path, credentials_for(hub)):
                await applied(hub, 1)
            service = ScriptedService()
            async with running_agent(tmp_path, credentials_for(hub), service):
                await eventually(lambda: len(hub.observer.of("connected")) == 2)
                assert (1, wanted(1).digest) == (
                    hub.observer.of("connected")[1].applied_generation,
                    hub.observer.of("connected")[1].applied_digest,
                )
                await eventually(lambda: len(hub.observer.of("reported")) == 2)
            assert service.images == ["1"]
            assert hub.signer.signatures == 1

    asyncio.run(scenario())


def test_without_a_control_plane_the_disk_is_served(tmp_path: Path) -> None:
    """The agent applies what is on disk although nobody answers, and catches up once somebody does."""

    async def scenario() -> None:
        signer, port, service = TestSigner(), free_port(), ScriptedService()
        DocumentStore(tmp_path).save(sign(signer, wanted(7)))
        address = TestCredentials("vps-1", f"ws://127.0.0.1:{port}/api/v1/agents/stream", signer.jwks)
        async with running_agent(tmp_path, address, service):
            await eventually(lambda: service.images == ["7"])
            async with running_hub(signer=signer, port=port) as hub:
                await hub.hub.publish({"vps-1": wanted(8)})
                await applied(hub, 8)
            async with running_hub(signer=signer, port=port) as hub:
                await hub.hub.publish({"vps-1": wanted(9)})
                await applied(hub, 9)
        assert service.images == ["7", "8", "9"]

    asyncio.run(scenario())


def test_an_older_control_plane_cannot_turn_an_agent_back(tmp_path: Path) -> None:
    """A document older than what was taken is refused with its reason, and the services hear nothing of it."""

    async def scenario() -> None:
        signer, service = TestSigner(), ScriptedService()
        DocumentStore(tmp_path).save(sign(signer, wanted(7)))
        async with running_hub(signer=signer) as hub:
            await hub.hub.publish({"vps-1": wanted(6)})
            async with running_agent(tmp_path, credentials_for(hub), service):
                await eventually(lambda: [r for r in hub.observer.of("reported") if r.outcome == "refused"])
            refusal = next(report for report in hub.observer.of("reported") if report.outcome == "refused")
            assert (refusal.generation, refusal.reason) == (6, "OlderGeneration")
            assert service.images == ["7"]
            assert on_disk(tmp_path, signer)[0] == 7

    asyncio.run(scenario())


def test_a_damaged_document_is_replaced(tmp_path: Path) -> None:
    """A file that does not verify is set aside and reported, and the same generation is fetched and applied."""

    async def scenario() -> None:
        service = ScriptedService()
        async with running_hub() as hub:
            await hub.hub.publish({"vps-1": wanted(1)})
            async with running_agent(tmp_path, credentials_for(hub)):
                await applied(hub, 1)
            whole = (tmp_path / "desired.jws").read_text()
            (tmp_path / "desired.jws").write_text(whole[:-20])
            before = len(hub.observer.events)
            async with running_agent(tmp_path, credentials_for(hub), service):
                await eventually(lambda: len(hub.observer.events) >= before + 3)
                await eventually(lambda: service.images == ["1"])
                await eventually(lambda: hub.observer.of("reported")[-1].outcome == "applied")
            reports = [what for kind, _, what in hub.observer.events[before:] if kind == "reported"]
            assert [(r.outcome, r.reason) for r in reports] == [("refused", "DamagedOnDisk"), ("applied", "")]
            assert whole[:-20] == (tmp_path / "desired.jws.damaged").read_text()
            assert (1, (1, wanted(1).digest)) == on_disk(tmp_path, hub.signer)

    asyncio.run(scenario())


def test_failures_are_reported_and_tried_again(tmp_path: Path) -> None:
    """A service that fails or breaks is called again until it works; each attempt is reported."""

    async def scenario() -> None:
        service = ScriptedService(answers=["Failed", RuntimeError("boom")])
        async with running_hub() as hub:
            await hub.hub.publish({"vps-1": wanted(1)})
            async with running_agent(tmp_path, credentials_for(hub), service):
                await applied(hub, 1)
            reports = hub.observer.of("reported")
            assert [report.outcome for report in reports] == ["failed", "failed", "applied"]
            assert reports[1].items[0].reason == "ServiceFailed"
            assert "boom" not in str(reports), "what a service raises may hold a secret"

    asyncio.run(scenario())


def test_a_newer_document_wins_after_the_apply_under_way(tmp_path: Path) -> None:
    """Documents that come during an apply do not disturb it; after it only the newest is applied."""

    async def scenario() -> None:
        service = ScriptedService(gate=asyncio.Event())
        assert service.gate is not None
        async with running_hub() as hub, running_agent(tmp_path, credentials_for(hub), service):
            await eventually(lambda: hub.hub.connected)
            for generation in range(1, 6):
                await hub.hub.publish({"vps-1": wanted(generation)})
                await eventually(lambda: service.calls)
            await eventually(lambda: hub.hub.counters.sent == 6)
            async with hub.agent("bystander") as bystander:
                await bystander.hello()
            service.gate.set()
            await applied(hub, 5)
            assert service.images[0] == "1"
            assert service.images[-1] == "5"
            assert len(service.images) <= 3

    asyncio.run(scenario())


def test_a_revoked_agent_keeps_serving_and_asks_slowly(tmp_path: Path) -> None:
    """After a revocation the agent is let in again only when its identity is, without being restarted."""

    async def scenario() -> None:
        async with running_hub() as hub:
            await hub.hub.publish({"vps-1": wanted(1)})
            async with running_agent(tmp_path, credentials_for(hub)) as task:
                await applied(hub, 1)
                hub.revoked.add("vps-1")
                hub.hub.revoke(["vps-1"])
                await eventually(lambda: hub.observer.of("disconnected"))
                hub.revoked.clear()
                await hub.hub.publish({"vps-1": wanted(2)})
                await applied(hub, 2)
                assert not task.done()
            assert hub.observer.of("disconnected")[0] == "Revoked"

    asyncio.run(scenario())


def test_heartbeats_keep_a_session_alive(tmp_path: Path) -> None:
    """The agent beats at the interval that it was told, so the hub's time-out does not end the session."""

    async def scenario() -> None:
        session = SessionLimits(heartbeat_seconds=0.1, silence_seconds=0.5)
        async with (
            running_hub(HubLimits(session=session, tick_seconds=0.05)) as hub,
            running_agent(tmp_path, credentials_for(hub)),
        ):
            await eventually(lambda: len(hub.observer.of("heartbeat")) >= 10)
            assert len(hub.observer.of("connected")) == 1

    asyncio.run(scenario())


def test_a_fleet_that_comes_back_at_once_is_let_in_by_and_by(tmp_path: Path) -> None:
    """Who is sent away for want of room comes back when it was told to, until everybody is in."""

    async def scenario() -> None:
        limits = HubLimits(admissions_per_second=50, admission_burst=5)
        names = [f"vps-{number}" for number in range(30)]
        async with running_hub(limits) as hub, AsyncExitStack() as stack:
            for name in names:
                (tmp_path / name).mkdir()
                await stack.enter_async_context(running_agent(tmp_path / name, credentials_for(hub, name)))
            await eventually(lambda: hub.hub.connected == frozenset(names), 20)
            assert hub.hub.counters.turned_away > 0
            assert hub.hub.counters.accepted == len(names), "nobody who was in was sent away"

    asyncio.run(scenario())


def test_a_service_that_changed_is_heard(tmp_path: Path) -> None:
    """It is applied once more without a new document, and what it says by then is reported."""

    async def scenario() -> None:
        service = ScriptedService()
        service.on_change = lambda: None  # type: ignore[attr-defined]
        async with running_hub() as hub:
            await hub.hub.publish({"vps-1": wanted(1)})
            async with running_agent(tmp_path, credentials_for(hub, "vps-1"), service):
                await eventually(lambda: len(hub.observer.of("reported")) == 1)
                service.answers.append("Failed")
                service.on_change()  # type: ignore[attr-defined]
                await eventually(lambda: len(hub.observer.of("reported")) >= 2)
            first, second = hub.observer.of("reported")[:2]
            assert (first.outcome, second.outcome) == ("applied", "failed")
            assert first.generation == second.generation

    asyncio.run(scenario())


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """Headers that prove the agent are never sent to where a redirect points."""
    seen: list[bytes] = []

    async def scenario() -> None:
        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append((await reader.readline()).split()[1])
            while (await reader.readline()).strip():
                pass
            writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")
            with suppress(OSError):
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(redirect, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            address = TestCredentials("vps-1", f"ws://127.0.0.1:{port}/stream", TestSigner().jwks)
            async with running_agent(tmp_path, address):
                await eventually(lambda: len(seen) >= 3)
        assert {b"/stream"} == set(seen)

    asyncio.run(scenario())


def test_a_terminated_agent_ends_cleanly(tmp_path: Path) -> None:
    """SIGTERM ends the process with exit code 0, also while it is between two attempts to connect."""
    program = textwrap.dedent(
        f"""
        from pathlib import Path
        from agent.client import run_until_signalled
        from schemas.jwk import JwkSet
        from tests.support.agent_machine import TestCredentials
        print("ready", flush=True)
        nobody = TestCredentials("vps-1", "ws://127.0.0.1:1/x", JwkSet(keys=()))
        run_until_signalled(Path({str(tmp_path)!r}), [], nobody)
        """
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            wait_for(lambda: handles_sigterm(process.pid))
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0, errors.decode()
    assert b"Traceback" not in errors


def handles_sigterm(pid: int) -> bool:
    """Say whether the process has a handler for SIGTERM (proc(5), SigCgt)."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) & 1 << signal.SIGTERM - 1)


def test_a_disk_that_takes_nothing_keeps_the_old_document(tmp_path: Path) -> None:
    """When a document cannot be kept it is not applied but reported, and applied once the disk takes it."""

    async def scenario() -> None:
        service = ScriptedService()
        async with running_hub() as hub:
            await hub.hub.publish({"vps-1": wanted(1)})
            async with running_agent(tmp_path, credentials_for(hub), service):
                await applied(hub, 1)
                obstacle = tmp_path / ".desired.jws.new"
                obstacle.mkdir()  # opening it for writing fails, for root too
                await hub.hub.publish({"vps-1": wanted(2)})
                await eventually(lambda: hub.observer.of("reported")[-1].reason == "NotPersisted")
                assert service.images == ["1"]
                obstacle.rmdir()
                await applied(hub, 2)
            assert service.images == ["1", "2"]

    asyncio.run(scenario())
