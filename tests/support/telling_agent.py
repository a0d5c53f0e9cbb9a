"""An agent that speaks the real session with real credentials and runs nothing: it tells whatever a test wants.

It lives in a thread with an event loop of its own, so that a test can go on as a person would: push, look, ask Traefik.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import jwt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from agent.credentials import Credentials
from schemas.observation import DeploymentObservation, ObservedPort
from schemas.session import OBSERVATIONS, SUBPROTOCOL, Features, Heartbeat, Hello, Observation, Report


def seen(
    name: str, health: str = "healthy", ports: Mapping[int, int] | None = None, *, team: str = "shop"
) -> DeploymentObservation:
    """What is told of one deployment. ``ports``: declared → actual."""
    told = tuple(ObservedPort(declared=declared, actual=actual) for declared, actual in (ports or {}).items())
    return DeploymentObservation.model_validate({"team": team, "name": name, "health": health, "ports": told})


class TellingAgent:
    """Connected from ``__enter__`` on. ``features`` empty: an agent that tells nothing."""

    def __init__(self, data: Path, *, features: Iterable[str] = (OBSERVATIONS,), beat: float = 0.2) -> None:
        self.published: list[int] = []
        """Observations that every front is said to serve."""
        self._data = data
        self._features = tuple(features)
        self._beat = beat
        self._number = 0
        self._sequence = 0
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"telling-{data.name}", daemon=True)
        self._connection: ClientConnection | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._up.wait(20), "the agent cannot connect"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.leave()

    def leave(self) -> None:
        """Drop the connection, as an agent does that is killed."""
        if self._thread.is_alive() and self._connection is not None:
            self._loop.call_soon_threadsafe(self._connection.transport.abort)
        self._thread.join(10)

    def tell(self, *deployments: DeploymentObservation) -> int:
        """Say this is the whole truth; return the observation's number."""
        self._number += 1
        message = Observation(number=self._number, deployments=deployments)
        asyncio.run_coroutine_threadsafe(self._say(message), self._loop).result(10)
        return self._number

    # --- in the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._live())
        except ConnectionClosed:
            pass
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            self._failure = error
        finally:
            self._up.set()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _live(self) -> None:
        credentials = Credentials.load(self._data)
        try:
            headers = await credentials.headers("GET", credentials.stream_url)
            async with connect(
                credentials.stream_url,
                additional_headers=headers,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                ssl=credentials.tls,
                proxy=None,
            ) as self._connection:
                await self._say(Hello(sequence=1, protocol=1, agent=credentials.name, version="test"))
                beating = asyncio.create_task(self._beats(), name="beats")
                try:
                    await self._hear(self._connection)
                finally:
                    beating.cancel()
        finally:
            await credentials.close()

    async def _hear(self, connection: ClientConnection) -> None:
        async for text in connection:
            message: dict[str, Any] = json.loads(text)
            if message["type"] == "welcome":
                if self._features:
                    await self._say(Features(sequence=1, features=self._features))
                self._up.set()
            elif message["type"] == "desired":
                await self._apply(message["jws"])
            elif message["type"] == "observation-published":
                self.published.append(message["number"])

    async def _apply(self, jws: str) -> None:
        document: dict[str, Any] = jwt.decode(jws, options={"verify_signature": False})
        digest, generation = document["digest"], document["generation"]
        await self._say(Report(sequence=1, generation=generation, digest=digest, outcome="applied"))

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(self._beat)
            await self._say(Heartbeat(sequence=1))

    async def _say(self, message: Hello | Features | Report | Heartbeat | Observation) -> None:
        assert self._connection is not None
        self._sequence += 1
        numbered = message.model_copy(update={"sequence": self._sequence})
        await self._connection.send(numbered.model_dump_json(by_alias=True))
