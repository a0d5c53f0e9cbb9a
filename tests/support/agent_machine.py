"""An agent as it runs on a server, in a directory of its own."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent.client import ClientSettings, run
from agent.documents import Applied, DocumentStore, keys_of
from agent.services import RecordingService, Service
from reconciler.agents.documents import WantedDocument, sign_document
from schemas.jwk import JwkSet
from schemas.session import Item, ItemResult
from tests.support.agent_hub import TestSigner

ALL_KINDS = frozenset({"Agent", "Certificate", "Deployment"})
FAST = ClientSettings(backoff_base=0.02, backoff_cap=0.1, stable=0.0, slowly=0.3, start=5.0)


@dataclass
class TestCredentials:
    __test__ = False

    name: str
    stream_url: str
    jwks: JwkSet
    tls: ssl.SSLContext | None = None

    async def headers(self, method: str, url: str) -> Mapping[str, str]:
        assert (method, url) == ("GET", self.stream_url)
        return {"Authorization": f"Test {self.name}"}

    def forget(self) -> None:
        """There is nothing to forget."""


@dataclass
class ScriptedService:
    """Applies what it is given, or does what the test says: ``answers`` come first, each for one call."""

    kinds: frozenset[str] = ALL_KINDS
    calls: list[tuple[Item, ...]] = field(default_factory=list)
    answers: list[str | Exception] = field(default_factory=list)
    gate: asyncio.Event | None = None
    running: int = 0

    async def apply(self, items: tuple[Item, ...]) -> Sequence[ItemResult]:
        self.running += 1
        assert self.running == 1, "two documents were applied at once"
        self.calls.append(items)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.running -= 1
        answer = self.answers.pop(0) if self.answers else "Applied"
        if isinstance(answer, Exception):
            raise answer
        return [ItemResult(id=item.id, state=answer) for item in items]

    @property
    def images(self) -> list[str]:
        """The image of the first item of each call."""
        return [items[0].spec["image"] if items else "" for items in self.calls]


@asynccontextmanager
async def running_agent(
    directory: Path,
    credentials: TestCredentials,
    service: Service | None = None,
    settings: ClientSettings = FAST,
) -> AsyncIterator[asyncio.Task[None]]:
    """Run the agent; stopping it must end it without an error."""
    stop = asyncio.Event()
    services = [service or RecordingService(ALL_KINDS)]
    task = asyncio.create_task(run(directory, services, credentials, stop, settings=settings), name="agent")
    try:
        yield task
    finally:
        stop.set()
        async with asyncio.timeout(10):
            await task


def sign(signer: TestSigner, wanted: WantedDocument, agent: str = "vps-1", age: timedelta = timedelta()) -> str:
    return sign_document(agent, wanted, signer, datetime.now(UTC) - age)


def on_disk(directory: Path, signer: TestSigner, agent: str = "vps-1") -> tuple[int, Applied]:
    """Generation of the document on disk, verified, and the marker."""
    found = DocumentStore(directory).load(agent, keys_of(signer.jwks))
    assert found.damage is None
    return (found.document.generation if found.document is not None else 0), found.applied
