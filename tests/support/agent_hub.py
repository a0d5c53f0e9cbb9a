"""A hub behind real uvicorn on loopback, and what it needs from others as small fakes of the real interfaces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Container, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from websockets.asyncio.client import ClientConnection, connect

from reconciler.agents.documents import WantedDocument
from reconciler.agents.hub import Hub, HubLimits
from reconciler.errors import Refused
from reconciler.web.agent_stream import PATH, AgentStream
from reconciler.web.websocket import WebSocketProtocol
from schemas.jwk import JwkSet, PublicJwk, SigningJwk, encode
from schemas.session import (
    SUBPROTOCOL,
    CommandOutput,
    Heartbeat,
    Hello,
    Item,
    Observation,
    Report,
    Usage,
    digest_of,
    digest_of_items,
)
from tests.support.waiting import eventually


class TestSigner:
    """ES256 with a key of its own, as the key store signs documents."""

    __test__ = False

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        numbers = self.key.public_key().public_numbers()
        x, y = (encode(value.to_bytes(32, "big")) for value in (numbers.x, numbers.y))
        public = PublicJwk(kty="EC", crv="P-256", x=x, y=y)
        self.kid = public.thumbprint
        self.jwks = JwkSet(keys=(SigningJwk(kid=self.kid, **public.model_dump()),))
        self.signatures = 0

    def sign(self, payload: bytes, *, typ: str) -> str:
        self.signatures += 1
        return jwt.PyJWS().encode(payload, self.key, algorithm="ES256", headers={"typ": typ, "kid": self.kid})


@dataclass(frozen=True)
class TestIdentity:
    __test__ = False

    name: str
    kind: str = "agent"
    thumbprint: str = "thumbprint"


class TestAuthenticator:
    """Believes ``Authorization: Test <name>``."""

    __test__ = False

    def authenticate(self, method: str, url: str, headers: Mapping[str, str], now: float) -> TestIdentity:
        scheme, _, name = headers.get("authorization", "").partition(" ")
        if method != "GET" or not url.endswith(PATH) or now <= 0:
            raise Refused("Wrong request.", status=401, code="wrong-request")
        if scheme != "Test" or not name:
            raise Refused("This needs credentials.", status=401, code="credentials-missing")
        if name == "operator":
            return TestIdentity(name, kind="operator")
        return TestIdentity(name)


@dataclass
class Recorder:
    """An observer that remembers, in order."""

    events: list[tuple[str, str, Any]] = field(default_factory=list)

    def connected(self, name: str, hello: Hello, now: float) -> None:
        self.events.append(("connected", name, hello))

    def disconnected(self, name: str, reason: str, now: float) -> None:
        self.events.append(("disconnected", name, reason))

    def reported(self, name: str, report: Report, now: float) -> None:
        self.events.append(("reported", name, report))

    def heartbeat(self, name: str, heartbeat: Heartbeat, now: float) -> None:
        self.events.append(("heartbeat", name, heartbeat))

    def features(self, name: str, features: frozenset[str], now: float) -> None:
        self.events.append(("features", name, features))

    def observation(self, name: str, observation: Observation, now: float) -> None:
        self.events.append(("observation", name, observation))

    def usage(self, name: str, usage: Usage, now: float) -> None:
        self.events.append(("usage", name, usage))

    def command_output(self, name: str, output: CommandOutput, now: float) -> None:
        self.events.append(("command_output", name, output))

    def of(self, kind: str, name: str | None = None) -> list[Any]:
        return [what for event, who, what in self.events if event == kind and name in (None, who)]


def wanted(generation: int, content: str = "", *, revision: str = "a" * 40) -> WantedDocument:
    """A document with one deployment; ``content`` makes its digest."""
    spec = {"image": content or str(generation)}
    items = (Item(id="Deployment/shop/web", kind="Deployment", digest=digest_of(spec), spec=spec),)
    return WantedDocument(generation, revision, digest_of_items(items), lambda: items)


@dataclass
class RunningHub:
    hub: Hub
    signer: TestSigner
    observer: Recorder
    revoked: set[str]
    server: uvicorn.Server

    @property
    def port(self) -> int:
        port: int = self.server.servers[0].sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}{PATH}"

    def connect(self, name: str, **options: Any) -> connect:
        settings: dict[str, Any] = {
            "additional_headers": {"Authorization": f"Test {name}"},
            "subprotocols": [SUBPROTOCOL],
            "compression": None,
            "proxy": None,
            **options,
        }
        return connect(self.url, **settings)

    @asynccontextmanager
    async def agent(self, name: str, **options: Any) -> AsyncIterator[RawAgent]:
        """An agent that does only what a test tells it to."""
        async with self.connect(name, **options) as socket:
            yield RawAgent(name, socket)


class RawAgent:
    def __init__(self, name: str, socket: ClientConnection) -> None:
        self.name = name
        self.socket = socket
        self.sequence = 0

    async def say(self, kind: str, **fields: Any) -> None:
        self.sequence += 1
        await self.socket.send(json.dumps({"type": kind, "sequence": self.sequence, **fields}))

    async def hello(self, **fields: Any) -> dict[str, Any]:
        """Say hello and return the welcome."""
        await self.say("hello", protocol=1, agent=self.name, version="test", **fields)
        return await self.hear()

    async def hear(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            message: dict[str, Any] = json.loads(await self.socket.recv())
        return message

    async def document(self) -> dict[str, Any]:
        """Return the payload of the next message, which must be a document."""
        message = await self.hear()
        assert message["type"] == "desired", message
        payload: dict[str, Any] = jwt.decode(message["jws"], options={"verify_signature": False, "verify_exp": False})
        return payload

    async def applied(self, document: Mapping[str, Any]) -> None:
        await self.say("report", generation=document["generation"], digest=document["digest"], outcome="applied")

    async def closed(self) -> int:
        """Wait until the connection is closed and return the code, having heard whatever comes before."""
        async with asyncio.timeout(10):
            await self.socket.wait_closed()
        code = self.socket.close_code
        assert code is not None
        return code


@asynccontextmanager
async def running_hub(
    limits: HubLimits | None = None,
    *,
    signer: TestSigner | None = None,
    port: int = 0,
    protocol: type[asyncio.Protocol] | str = WebSocketProtocol,
    quarantined: Container[str] = (),
) -> AsyncIterator[RunningHub]:
    revoked: set[str] = set()
    signer = signer or TestSigner()
    observer = Recorder()
    hub = Hub(
        signer,
        lambda name, _: name not in revoked,
        observer,
        quarantined=lambda name: name in quarantined,
        limits=limits or HubLimits(),
    )
    app = Starlette(routes=[WebSocketRoute(PATH, AgentStream(hub, TestAuthenticator()))])
    config = uvicorn.Config(
        app, host="127.0.0.1", port=port, ws=protocol, log_level="warning", lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(), name="uvicorn")
    try:
        await eventually(lambda: server.started)
        yield RunningHub(hub, signer, observer, revoked, server)
    finally:
        await hub.close(deadline=1)
        server.should_exit = True
        await task
