"""Real connections between today's side and the other one of a version ago: sessions stay up, documents are applied."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from agent.client import Parts, run
from agent.commands.runner import Commands
from agent.deployments.fronts import Serving, Standing
from agent.deployments.health import Health
from agent.deployments.secrets import Secrets
from agent.deployments.service import DeploymentService
from agent.deployments.workload import Key
from agent.observing import Observing
from agent.sealing import Sealer
from agent.services import RecordingService, Service
from reconciler.agents.documents import WantedDocument
from reconciler.desired.items import AgentItems
from schemas.session import OFFERS, SECRETS_VERSION, SUBPROTOCOL, Item, ObservationPublished, digest_of, digest_of_items
from tests.support import documents
from tests.support.agent_hub import TestSigner, running_hub
from tests.support.agent_machine import FAST, TestCredentials, sign
from tests.support.former import agent_session as former_agent
from tests.support.former import control_session as former_control
from tests.support.former import messages as former
from tests.support.waiting import eventually

NAME: Final = "vps-1"
PROTOCOLS: Final = [Subprotocol(SUBPROTOCOL)]
UNVERIFIED: Final[Any] = {"verify_signature": False, "verify_exp": False}
FILES: Final = {
    "fleet.yaml": documents.fleet(documents.team("shop", agents=[NAME])),
    f"agents/{NAME}.yaml": documents.agent(NAME),
    "secrets/shop/db.yaml": documents.secret("db", "password"),
    "deployments/shop/web.yaml": documents.deployment(
        "web", NAME, secrets=[{"env": "PASSWORD", "secret": "db", "key": "password"}]
    ),
}


def document_of_today(generation: int = 1) -> WantedDocument:
    items = AgentItems(documents.state_of(FILES)).of(NAME)
    return WantedDocument(generation, "a" * 40, digest_of_items(items), lambda: items)


def document_of_before(generation: int) -> WantedDocument:
    """The same without what was not known then."""

    def older(item: Item) -> Item:
        spec = {name: value for name, value in item.spec.items() if name not in (OFFERS, SECRETS_VERSION, "address")}
        return item.model_copy(update={"spec": spec, "digest": digest_of(spec)})

    items = tuple(map(older, document_of_today().items()))
    return WantedDocument(generation, "a" * 40, digest_of_items(items), lambda: items)


class ControlPlaneOfBefore:
    """One agent's conversation at a control plane of one version ago."""

    def __init__(self, signer: TestSigner) -> None:
        self.signer = signer
        self.heard: list[former_control.Observed] = []
        self.closed: list[str] = []
        self.connections = 0

    def of(self, kind: type[former.Report | former.Heartbeat]) -> list[former.Report | former.Heartbeat]:
        return [one.message for one in self.heard if isinstance(one.message, kind)]

    async def hold(self, socket: ServerConnection) -> None:
        self.connections += 1
        limits = former_control.SessionLimits(heartbeat_seconds=0.2)
        session = former_control.AgentSession(NAME, limits, time.monotonic())
        wanted = document_of_before(7)
        jws = sign(self.signer, wanted)
        events: list[former_control.Event] = [former_control.Wanted(7, wanted.digest, lambda: jws)]
        try:
            while True:
                while events:
                    events += await self.carry_out(session.handle(events.pop(0)), socket)
                events.append(former_control.Received(await socket.recv(), time.monotonic()))
        except ConnectionClosed:
            return

    async def carry_out(
        self, commands: Sequence[former_control.Command], socket: ServerConnection
    ) -> list[former_control.Event]:
        following: list[former_control.Event] = []
        for command in commands:
            match command:
                case former_control.Send(text):
                    await socket.send(text)
                    following.append(former_control.WRITE_FINISHED)
                case former_control.Observed():
                    self.heard.append(command)
                case former_control.Close(_, reason):
                    self.closed.append(reason)
        return following


@asynccontextmanager
async def agent_of_today(data: Path, credentials: TestCredentials) -> AsyncIterator[Observing]:
    """With everything that uses a feature, and something to say by each."""
    observing = Observing()
    secrets = Secrets(data, Sealer(ec.generate_private_key(ec.SECP256R1())))
    deployments = DeploymentService(data, [], fronts=observing)
    extensions = (observing, secrets, Commands({}))
    others = {"deployments": deployments.run, "secrets": secrets.run, "observing": observing.run}
    stop = asyncio.Event()
    services: list[Service] = [RecordingService(frozenset({"Agent", "Certificate"})), deployments]
    parts = Parts(extensions=extensions, others=others)
    task = asyncio.create_task(run(data, services, credentials, stop, settings=FAST, parts=parts))
    try:
        yield observing
    finally:
        stop.set()
        await task


def test_an_agent_of_today_lives_with_a_control_plane_of_before(tmp_path: Path) -> None:
    """Also one that was with a control plane of today a moment ago: what that offered, this one does not."""

    async def scenario() -> None:
        async with running_hub() as plane:
            credentials = TestCredentials(NAME, plane.url, plane.signer.jwks)
            await plane.hub.publish({NAME: document_of_today()})
            async with agent_of_today(tmp_path, credentials) as observing:
                serving = Serving("a", {8080: 8081}, Health("healthy"), "one")
                observing.tell({Key("shop", "web"): Standing(serving, ((8080, 8081),))})
                await eventually(lambda: bool(plane.observer.of("observation")), 10)
                assert plane.observer.of("features") == [frozenset({"observations", "secrets", "commands"})]
                assert plane.hub.tell(NAME, ObservationPublished(number=1))
                await eventually(lambda: observing.acknowledged(Key("shop", "web")) == "one", 10)
            signer = plane.signer
        before = ControlPlaneOfBefore(signer)
        async with serve(before.hold, "127.0.0.1", 0, subprotocols=PROTOCOLS, compression=None) as server:
            port = server.sockets[0].getsockname()[1]
            credentials = TestCredentials(NAME, f"ws://127.0.0.1:{port}", signer.jwks)
            async with agent_of_today(tmp_path, credentials) as observing:
                observing.tell({Key("shop", "web"): Standing()})
                await eventually(lambda: len(before.of(former.Heartbeat)) >= 3, 10)
                assert not observing.switching
            (*_, report) = before.of(former.Report)
            assert isinstance(report, former.Report)
            assert (report.generation, report.outcome) == (7, "applied")
            assert (before.closed, before.connections) == ([], 1)

    asyncio.run(scenario())


def test_an_agent_of_before_lives_with_a_control_plane_of_today() -> None:
    """It takes a document with everything in it that it does not know, and is told nothing that it would not."""

    async def scenario() -> None:
        async with running_hub() as plane, plane.connect(NAME) as socket:
            await plane.hub.publish({NAME: document_of_today()})
            session = former_agent.AgentSession(NAME, "before", (0, None))
            events: list[former_agent.Event] = [former_agent.Opened(time.monotonic())]
            taken: list[former.Document] = []
            while not plane.observer.of("reported"):
                for event in events:
                    for command in session.handle(event):
                        match command:
                            case former_agent.Send(text):
                                await socket.send(text)
                            case former_agent.Take(jws):
                                taken.append(former.Document.model_validate(jwt.decode(jws, options=UNVERIFIED)))
                            case former_agent.Close():
                                raise AssertionError(command)
                assert not plane.hub.tell(NAME, ObservationPublished(number=1))
                if taken:
                    applied = former_agent.Outcome(taken[0].generation, taken[0].digest, "applied")
                    (report,) = session.handle(applied)
                    assert isinstance(report, former_agent.Send)
                    await socket.send(report.text)
                    await eventually(lambda: bool(plane.observer.of("reported")), 10)
                else:
                    events = [former_agent.Received(await socket.recv(), time.monotonic())]
            assert [item.id for item in taken[0].items] == [f"Agent/{NAME}", "Deployment/shop/web"]
            for item in taken[0].items:
                assert former.digest_of(item.spec) == item.digest
            (heartbeat,) = session.handle(former_agent.Tick(time.monotonic() + 1e6))
            assert isinstance(heartbeat, former_agent.Send)
            await socket.send(heartbeat.text)
            await eventually(lambda: bool(plane.observer.of("heartbeat")), 10)
            assert plane.observer.of("disconnected") == []

    asyncio.run(scenario())
