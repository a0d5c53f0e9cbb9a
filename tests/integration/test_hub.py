"""The hub behind real uvicorn, with real sockets and agents that behave as told."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from reconciler.agents.hub import HubLimits
from reconciler.agents.session import SessionLimits
from schemas.session import MAX_AGENT_MESSAGE, SUBPROTOCOL
from tests.support.agent_hub import RawAgent, RunningHub, running_hub, wanted
from tests.support.waiting import eventually


def transport_of(agent: RawAgent) -> asyncio.Transport:
    return agent.socket.transport


async def stall(hub: RunningHub, name: str, stack: AsyncExitStack) -> RawAgent:
    """Connect an agent that says hello and then reads nothing more, with as little buffer as the kernel gives."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", hub.port))
    connecting = hub.connect(name, sock=raw, ping_interval=None, close_timeout=0.1, max_size=None)
    agent = RawAgent(name, await stack.enter_async_context(connecting))
    await agent.hello()
    transport_of(agent).pause_reading()
    return agent


async def fill(hub: RunningHub, name: str, *, first: int = 1) -> None:
    """Publish documents to one agent until its transport has no room for another."""
    for generation in range(first, first + 200):
        await hub.hub.publish({name: wanted(generation, f"{generation}{'x' * 1_000_000}")})
        if hub.hub.sending:
            return
    raise AssertionError("the transport always had room")


def test_a_document_is_delivered_and_acknowledged() -> None:
    """The agent gets what is wanted with a signature over its name, and its report reaches the observer."""

    async def scenario() -> None:
        async with running_hub() as hub:
            await hub.hub.publish({"vps-1": wanted(3)})
            assert hub.signer.signatures == 0, "the document of an agent that is away needs no signature"
            async with hub.agent("vps-1") as agent:
                welcome = await agent.hello()
                assert (3, wanted(3).digest) == (welcome["wantedGeneration"], welcome["wantedDigest"])
                document = await agent.document()
                assert (document["agent"], document["generation"], document["revision"]) == ("vps-1", 3, "a" * 40)
                assert document["items"][0]["spec"] == {"image": "3"}
                await agent.applied(document)
                await eventually(lambda: hub.observer.of("reported", "vps-1"))
                assert hub.observer.of("reported")[0].outcome == "applied"
                assert frozenset({"vps-1"}) == hub.hub.connected
            await eventually(lambda: hub.observer.of("disconnected"))
            assert [event for event, _, _ in hub.observer.events] == ["connected", "reported", "disconnected"]
            assert hub.signer.signatures == 1
            types = {("hello", "in"): 1, ("report", "in"): 1, ("welcome", "out"): 1, ("desired", "out"): 1}
            assert hub.hub.counters.messages == types

    asyncio.run(scenario())


def test_an_unchanged_document_is_not_sent_again() -> None:
    """An agent that comes back with the wanted digest hears only the welcome, and later only what changed."""

    async def scenario() -> None:
        async with running_hub() as hub:
            await hub.hub.publish({"vps-1": wanted(3)})
            async with hub.agent("vps-1") as agent:
                await agent.hello(appliedGeneration=3, appliedDigest=wanted(3).digest)
                assert frozenset() == await hub.hub.publish({"vps-1": wanted(4, "3")})
                assert frozenset({"vps-1"}) == await hub.hub.publish({"vps-1": wanted(5)})
                assert (await agent.document())["generation"] == 5
            assert hub.signer.signatures == 1

    asyncio.run(scenario())


def test_only_the_agent_whose_document_changed_gets_a_message() -> None:
    """Of 200 connected agents, one message is sent when the document of one changes."""

    async def scenario() -> None:
        async with running_hub() as hub, AsyncExitStack() as stack:
            names = [f"vps-{number}" for number in range(200)]
            documents = {name: wanted(1, name) for name in names}
            await hub.hub.publish(documents)
            agents = [await stack.enter_async_context(hub.agent(name)) for name in names]
            for agent in agents:
                await agent.hello(appliedGeneration=1, appliedDigest=documents[agent.name].digest)
            sent = hub.hub.counters.sent
            offered = await hub.hub.publish({**documents, "vps-77": wanted(2)})
            assert frozenset({"vps-77"}) == offered
            assert (await agents[77].document())["generation"] == 2
            assert sent + 1 == hub.hub.counters.sent

    asyncio.run(scenario())


def test_a_revoked_agent_is_closed_at_once() -> None:
    """Revoking closes the live socket with 4403, and the next connection is refused with 403."""

    async def scenario() -> None:
        async with running_hub() as hub:
            async with hub.agent("vps-1") as agent:
                await agent.hello()
                hub.revoked.add("vps-1")
                hub.hub.revoke(["vps-1", "never-seen"])
                assert await agent.closed() == 4403
            with pytest.raises(InvalidStatus) as refusal:
                await hub.connect("vps-1")
            assert refusal.value.response.status_code == 403
            assert hub.observer.of("disconnected") == ["Revoked"]

    asyncio.run(scenario())


def test_a_quarantined_agent_is_told_so() -> None:
    """Its close frame and its next refusal say that its file keeps it out, and nothing of a new enrolment."""

    async def scenario() -> None:
        async with running_hub(quarantined={"vps-1"}) as hub:
            async with hub.agent("vps-1") as agent:
                await agent.hello()
                hub.revoked.add("vps-1")
                hub.hub.revoke(["vps-1"])
                assert await agent.closed() == 4403
                assert agent.socket.close_reason == "Quarantined"
            with pytest.raises(InvalidStatus) as refusal:
                await hub.connect("vps-1")
            assert "agent-quarantined" in bytes(refusal.value.response.body).decode()
            assert hub.observer.of("disconnected") == ["Quarantined"]

    asyncio.run(scenario())


def test_a_stalled_reader_is_dropped_and_slows_nobody() -> None:
    """While one agent reads nothing the others get their documents; after the time-out it is dropped."""

    async def scenario() -> None:
        async with running_hub(HubLimits(send_seconds=1.0)) as hub, AsyncExitStack() as stack:
            others = [await stack.enter_async_context(hub.agent(f"vps-{number}")) for number in range(5)]
            for agent in others:
                await agent.hello()
            await stall(hub, "slow", stack)
            await fill(hub, "slow")
            assert frozenset(agent.name for agent in others) == await hub.hub.publish(
                {agent.name: wanted(1000) for agent in others}
            )
            for agent in others:
                assert (await agent.document())["generation"] == 1000
            assert hub.hub.sending == 1, "the stalled one still waits"
            await eventually(lambda: hub.observer.of("disconnected", "slow"))
            assert hub.observer.of("disconnected") == ["Stalled"]
            assert (hub.hub.sending, hub.hub.counters.stalled) == (0, 1)
            await eventually(lambda: len(hub.server.server_state.connections) == len(others))

    asyncio.run(scenario())


def test_a_slow_reader_gets_the_newest_document() -> None:
    """What piled up while an agent did not read is skipped: after what was under way comes the newest."""

    async def scenario() -> None:
        async with running_hub() as hub, AsyncExitStack() as stack:
            agent = await stall(hub, "slow", stack)
            await fill(hub, "slow")
            for generation in range(1000, 1100):
                await hub.hub.publish({"slow": wanted(generation)})
            signed = hub.signer.signatures
            transport_of(agent).resume_reading()
            generations: list[int] = []
            while not generations or generations[-1] != 1099:
                generations.append((await agent.document())["generation"])
            assert generations == sorted(generations)
            assert [generation for generation in generations if generation >= 1000] == [1099]
            assert signed + 1 == hub.signer.signatures

    asyncio.run(scenario())


def test_a_revoked_agent_that_does_not_read_is_dropped() -> None:
    """Nobody waits long for a closing handshake with a peer whose socket is full."""

    async def scenario() -> None:
        async with running_hub(HubLimits(send_seconds=60)) as hub, AsyncExitStack() as stack:
            await stall(hub, "slow", stack)
            await fill(hub, "slow")
            hub.hub.revoke(["slow"])
            await eventually(lambda: hub.hub.connections == 0)
            await eventually(lambda: not hub.server.server_state.connections)
            await eventually(lambda: hub.hub.sending == 0)

    asyncio.run(scenario())


def test_the_newest_connection_of_an_agent_wins() -> None:
    """A second connection with the same name closes the first with 4409; the agent stays connected."""

    async def scenario() -> None:
        async with running_hub() as hub, hub.agent("vps-1") as first:
            await first.hello()
            async with hub.agent("vps-1") as second:
                await second.hello()
                assert await first.closed() == 4409
                await hub.hub.publish({"vps-1": wanted(1)})
                assert (await second.document())["generation"] == 1
                assert [event for event, _, _ in hub.observer.events] == ["connected", "disconnected", "connected"]
                assert (1, frozenset({"vps-1"})) == (hub.hub.connections, hub.hub.connected)

    asyncio.run(scenario())


def test_compression_is_never_negotiated() -> None:
    """A client that offers permessage-deflate is accepted without it."""

    async def scenario() -> None:
        async with running_hub() as hub, hub.connect("vps-1", compression="deflate") as connection:
            assert connection.protocol.extensions == []
            assert connection.subprotocol == SUBPROTOCOL

    asyncio.run(scenario())


async def send_giant(connection: ClientConnection) -> None:
    await connection.send("x" * (MAX_AGENT_MESSAGE + 1))


async def send_giant_in_parts(connection: ClientConnection) -> None:
    await connection.send("x" * 65536 for _ in range(1000))


@pytest.mark.parametrize("send", [send_giant, send_giant_in_parts])
def test_a_giant_message_is_refused(send: Any) -> None:
    """A message above the limit ends the connection with 1009, whole or in fragments."""

    async def scenario() -> None:
        async with running_hub() as hub, hub.agent("vps-1") as agent:
            await agent.hello()
            with suppress(ConnectionClosed):
                await send(agent.socket)
            assert await agent.closed() == 1009
            await eventually(lambda: hub.hub.connections == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"additional_headers": {}}, 401),
        ({"additional_headers": {"Authorization": "Test "}}, 401),
        ({"additional_headers": {"Authorization": "Test operator"}}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"subprotocols": None}, 400),
        ({"subprotocols": ["cloudlunacy.agent.v0"]}, 400),
    ],
)
def test_who_may_not_connect_is_refused_before_the_handshake(options: dict[str, Any], status: int) -> None:
    """A refusal is an HTTP response with a problem; no WebSocket is accepted and nobody observes anything."""

    async def scenario() -> None:
        async with running_hub() as hub:
            with pytest.raises(InvalidStatus) as refusal:
                await hub.connect("vps-1", **options)
            response = refusal.value.response
            assert status == response.status_code
            assert response.headers["Content-Type"] == "application/problem+json"
            assert (status == 401) == ("WWW-Authenticate" in response.headers)
            assert (hub.hub.counters.accepted, hub.observer.events) == (0, [])

    asyncio.run(scenario())


def test_too_many_at_once_are_told_when_to_come_back() -> None:
    """Above the burst each agent gets 503 with a later Retry-After than the one before; nobody in is disturbed."""

    async def scenario() -> None:
        limits = HubLimits(admissions_per_second=0.5, admission_burst=3)
        async with running_hub(limits) as hub, AsyncExitStack() as stack:
            for number in range(3):
                agent = await stack.enter_async_context(hub.agent(f"vps-{number}"))
                await agent.hello()
            waits = []
            for number in range(3, 8):
                with pytest.raises(InvalidStatus) as refusal:
                    await hub.connect(f"vps-{number}")
                assert refusal.value.response.status_code == 503
                waits.append(int(refusal.value.response.headers["Retry-After"]))
            assert waits == sorted(waits)
            assert waits[-1] >= waits[0] + 6
            assert (hub.hub.connections, hub.hub.counters.turned_away) == (3, 5)

    asyncio.run(scenario())


def test_a_full_hub_takes_no_other_agent() -> None:
    """At the limit of connections a new agent is sent away, but one that is connected may replace its connection."""

    async def scenario() -> None:
        async with running_hub(HubLimits(max_connections=1)) as hub, hub.agent("vps-1") as first:
            await first.hello()
            with pytest.raises(InvalidStatus) as refusal:
                await hub.connect("vps-2")
            assert refusal.value.response.status_code == 503
            async with hub.agent("vps-1") as second:
                await second.hello()

    asyncio.run(scenario())


def test_each_connection_is_told_the_interval_of_its_time() -> None:
    """A fleet that changes its heartbeat changes it for whoever connects from then on."""

    async def scenario() -> None:
        async with running_hub() as hub:
            now = [SessionLimits(heartbeat_seconds=15)]
            hub.hub._session_limits = lambda: now[0]
            async with hub.agent("vps-1") as first:
                assert (await first.hello())["heartbeatSeconds"] == 15
                now[0] = SessionLimits(heartbeat_seconds=3)
                async with hub.agent("vps-2") as second:
                    assert (await second.hello())["heartbeatSeconds"] == 3

    asyncio.run(scenario())


def test_silent_agents_are_closed() -> None:
    """Who says no hello in time, or nothing any more after it, is closed with 4408."""

    async def scenario() -> None:
        session = SessionLimits(hello_seconds=0.2, silence_seconds=0.4)
        async with running_hub(HubLimits(session=session, tick_seconds=0.05)) as hub:
            async with hub.agent("mute") as mute, hub.agent("asleep") as asleep:
                await asleep.hello()
                assert await mute.closed() == 4408
                assert await asleep.closed() == 4408
            await eventually(lambda: hub.observer.of("disconnected"))
            assert [(who, why) for what, who, why in hub.observer.events if what[0] == "d"] == [("asleep", "TimedOut")]

    asyncio.run(scenario())


def test_replayed_frames_change_nothing() -> None:
    """A frame that is sent twice closes with 4400, and the observer hears of it once."""

    async def scenario() -> None:
        async with running_hub() as hub, hub.agent("vps-1") as agent:
            await agent.hello()
            await agent.say("heartbeat")
            agent.sequence -= 1
            await agent.say("heartbeat")
            assert await agent.closed() == 4400
            await eventually(lambda: hub.observer.of("disconnected"))
            assert len(hub.observer.of("heartbeat")) == 1
            assert hub.hub.counters.closed == {"SequenceBroken": 1}

    asyncio.run(scenario())


def test_a_document_that_is_too_large_harms_nobody_else() -> None:
    """It is left out and counted, the others get theirs, and its agent stays connected."""

    async def scenario() -> None:
        async with running_hub() as hub, hub.agent("a") as big, hub.agent("b") as other:
            await big.hello()
            await other.hello()
            await hub.hub.publish({"a": wanted(1, "x" * 5_000_000), "b": wanted(1)})
            assert (await other.document())["generation"] == 1
            assert hub.hub.counters.unsignable == 1
            await hub.hub.publish({"a": wanted(2)})
            assert (await big.document())["generation"] == 2

    asyncio.run(scenario())


def test_everybody_is_told_when_the_control_plane_goes() -> None:
    """Closing says goodbye with a pause for each agent, closes with 1001 and leaves no task behind."""

    async def scenario() -> None:
        async with running_hub() as hub, hub.agent("vps-1") as agent:
            await agent.hello()
            await hub.hub.close(deadline=2)
            goodbye = await agent.hear()
            assert (goodbye["type"], goodbye["reason"]) == ("goodbye", "ShuttingDown")
            assert 0 <= goodbye["retrySeconds"] <= 1
            assert await agent.closed() == 1001
            assert (hub.hub.connections, hub.hub.sending) == (0, 0)
            with pytest.raises(InvalidStatus):
                await hub.connect("vps-1")

    asyncio.run(scenario())


def test_another_server_will_do() -> None:
    """Without the extension of our protocol documents, revocations and the end of stalled readers work all the same."""

    async def scenario() -> None:
        limits = HubLimits(send_seconds=0.5)
        async with running_hub(limits, protocol="websockets-sansio") as hub, AsyncExitStack() as stack:
            agent = await stack.enter_async_context(hub.agent("vps-1"))
            await agent.hello()
            await hub.hub.publish({"vps-1": wanted(1)})
            await agent.applied(await agent.document())
            await eventually(lambda: hub.observer.of("reported"))
            await stall(hub, "slow", stack)
            for generation in range(1, 100):
                await hub.hub.publish({"slow": wanted(generation, f"{generation}{'x' * 1_000_000}")})
                await asyncio.sleep(0)
            await eventually(lambda: hub.observer.of("disconnected") == ["Stalled"])
            hub.hub.revoke(["vps-1"])
            assert await agent.closed() == 4403
            await eventually(lambda: (hub.hub.connections, hub.hub.sending) == (0, 0))

    asyncio.run(scenario())
