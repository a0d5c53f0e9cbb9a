"""Agents that say nothing but attacks: each its own payload, in every word that the control plane takes from it.

They live in a thread with an event loop of its own, so that a browser can look meanwhile. What the control plane takes
no payload in is tried by :meth:`HostileAgents.refusals`, on a connection for each.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from schemas.agent_routes import ROUTES_PATH, AgentRouteRequest
from schemas.certificates_api import CERTIFICATE_PATH, CertificateRequest
from schemas.enrolment import ENROL_PATH, EnrolmentRequest
from schemas.session import FROM_AGENT, SUBPROTOCOL, CloseCode
from tests.support.documents import DOMAIN
from tests.support.fleet import Installation
from tests.support.payload_leaves import Path, Schema, Shape
from tests.support.payloads import MORE_PAYLOADS, Table
from tests.support.signing_requests import request as signing_request
from tests.support.tokens import jwk, jws

Headers = Callable[[str, str, str], Mapping[str, str]]
"""Agent, method, URL → credentials."""
SHAPE: Final = Shape(FROM_AGENT)
MESSAGES: Final[Mapping[str, Schema]] = {
    reference["$ref"].rpartition("/")[2]: SHAPE.at(reference["$ref"].rpartition("/")[2])
    for reference in SHAPE.root["oneOf"]
}
"""Every message of an agent, by its model's name."""
DIGEST: Final = f"sha256:{'0' * 64}"
WEB: Final = {"team": "shop", "name": "web"}
LIAR: Final = "spare-5"
NEWCOMER: Final = "newcomer"
BEAT: Final = 5.0
"""Seconds between two heartbeats."""


def leaves() -> dict[tuple[str, Path], set[int]]:
    """Return message and leaf → the numbers of the payloads that the model takes there."""
    return {
        (name, path): {
            number
            for number, payload in enumerate(MORE_PAYLOADS)
            if not SHAPE.refuses(poisoned(name, path, f"{payload};z000"), path)
        }
        for name, message in MESSAGES.items()
        for path in dict.fromkeys(SHAPE.leaves(message))
    }


def poisoned(name: str, path: Path, text: str) -> dict[str, Any]:
    """Return a message that would be good without the text in one place."""
    start = {**SHAPE.sample(MESSAGES[name]), "type": _type(name), "sequence": 1}
    found: dict[str, Any] = SHAPE.poisoned({path: text}, start, MESSAGES[name])
    return found


def asked_by_http(
    one: Installation, table: Table, key: EllipticCurvePrivateKey, headers: Headers
) -> Iterator[tuple[str, str, httpx.Response]]:
    """Ask for enrolment, a route and a certificate with each payload in each place; then well, which is a leaf "".

    Yields path, leaf and answer. ``key``: of the newcomer.
    """
    token, now = one.token(NEWCOMER), int(time.time())
    claims = {"token": token.partition(".")[0], "name": NEWCOMER, "iat": now, "jti": "j"}
    proof = jws(key, {"alg": "ES256", "typ": "cloudlunacy-enrolment+jwt"}, claims)
    newcomer = {"token": token, "name": NEWCOMER, "publicKey": jwk(key), "proof": proof, "address": "127.0.0.8"}
    route = {"team": "shop", "deployment": "web", "hostname": f"asked.app.{DOMAIN}"}
    for path, model, good in (
        (ENROL_PATH, EnrolmentRequest, newcomer),
        (ROUTES_PATH, AgentRouteRequest, route),
        (CERTIFICATE_PATH, CertificateRequest, {"csr": signing_request()}),
    ):
        shape, url = Shape(model), f"{one.url}{path}"
        for leaf in dict.fromkeys(shape.leaves()):
            for number in range(len(MORE_PAYLOADS)):
                text = table.put(f"refused {model.__name__}", ".".join(leaf), number)
                body = shape.poisoned({leaf: text}, good)
                yield path, ".".join(leaf), one.client.post(url, json=body, headers=headers("vps-0", "POST", url))
        yield path, "", one.client.post(url, json=good, headers=headers("vps-0", "POST", url))


def _type(name: str) -> str:
    found = MESSAGES[name]["properties"]["type"]
    return str(found.get("const", found.get("default")))


@dataclass
class HostileAgents:
    """Connected from ``__enter__`` on. ``names``: the agent of each payload."""

    one: Installation
    table: Table
    names: tuple[str, ...]
    headers: Headers
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _up: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _failures: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="hostile-agents", daemon=True)
        self._thread.start()
        for _ in self.names:
            assert self._up.acquire(timeout=60), "an agent cannot connect"
        assert not self._failures, self._failures
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._group.cancel)
        self._thread.join(30)
        assert not self._failures, self._failures

    def refusals(self) -> dict[tuple[str, str], int]:
        """Say each leaf that takes no payload, one connection for each; return the close code of each."""
        return asyncio.run_coroutine_threadsafe(self._refusals(), self._loop).result(120)

    # --- in the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._group = self._loop.create_task(self._all(), name="hostile")
        try:
            self._loop.run_until_complete(self._group)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # noqa: BLE001 - the test's thread raises it
            self._failures.append(error)
            for _ in self.names:
                self._up.release()
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number, name in enumerate(self.names):
                tasks.create_task(_Agent(self, name, number).live(), name=name)

    def connection(self, name: str) -> connect:
        url = f"{self.one.url}/api/v1/agents/stream"
        return connect(
            url.replace("https:", "wss:"),
            additional_headers=self.headers(name, "GET", url),
            subprotocols=[Subprotocol(SUBPROTOCOL)],
            ssl=self.one.tls,
            proxy=None,
        )

    def is_up(self) -> None:
        self._up.release()

    async def _refusals(self) -> dict[tuple[str, str], int]:
        found = {}
        for number, ((name, path), takes) in enumerate(leaves().items()):
            free = [one for one in range(len(MORE_PAYLOADS)) if one not in takes]
            if free:
                text = self.table.put(f"refused {name}", ".".join(path), free[number % len(free)])
                found[name, ".".join(path)] = await self._close_code(name, path, text)
        return found

    async def _close_code(self, name: str, path: Path, text: str) -> int:
        hello = {"type": "hello", "protocol": 1, "agent": LIAR, "version": "1"}
        features = {"type": "features", "features": ["observations", "secrets"]}
        before: list[dict[str, Any]] = [] if name == "Hello" else [hello, features]
        async with self.connection(LIAR) as connection:
            try:
                for sequence, message in enumerate([*before, poisoned(name, path, text)], 1):
                    await connection.send(json.dumps({**message, **_sequenced(path, sequence)}))
                async for _ in connection:
                    pass
            except ConnectionClosed:
                pass
            return connection.close_code or CloseCode.GOING_AWAY


def _sequenced(path: Path, sequence: int) -> dict[str, int]:
    return {} if path == ("sequence",) else {"sequence": sequence}


class _Agent:
    """Says payload ``number``."""

    def __init__(self, all_of_them: HostileAgents, name: str, number: int) -> None:
        self._of = all_of_them
        self._name = name
        self._number = number
        self._sequence = 0
        self._texts: dict[tuple[str, str], str] = {}
        self._connection: ClientConnection | None = None

    def _word(self, source: str, leaf: str) -> str:
        """Return the payload for a place, each time with the same mark."""
        if (source, leaf) not in self._texts:
            self._texts[source, leaf] = self._of.table.put(source, leaf, self._number)
        return self._texts[source, leaf]

    async def live(self) -> None:
        async with self._of.connection(self._name) as self._connection, asyncio.TaskGroup() as tasks:
            await self._say("hello", protocol=1, agent=self._name, version=self._word("Hello", "version"))
            tasks.create_task(self._beats(), name=f"beats of {self._name}")
            async for text in self._connection:
                message: dict[str, Any] = json.loads(text)
                match message["type"]:
                    case "welcome":
                        await self._introduce()
                    case "desired":
                        await self._report(message["jws"])
                    case "command":
                        await self._answer(message)

    async def _say(self, kind: str, **said: Any) -> None:
        assert self._connection is not None
        self._sequence += 1
        await self._connection.send(json.dumps({"type": kind, "sequence": self._sequence, **said}))

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            await self._say("heartbeat", metrics=self._metrics())

    def _metrics(self) -> dict[str, float]:
        return {"machine_load1": 1.0, self._word("Heartbeat", "metrics.{key}"): 1.0}

    async def _introduce(self) -> None:
        word = self._word
        known = ["observations", "secrets", "commands", word("Features", "features.[]")]
        await self._say("features", features=known)
        await self._say("heartbeat", metrics=self._metrics())
        seen = {"health": "unhealthy", "step": word("Observation", "deployments.[].step"),
                "digest": word("Observation", "deployments.[].digest")}  # fmt: skip
        orders = {"team": "shop", "name": "orders"}
        await self._say("observation", number=1, deployments=[{**WEB, **seen}, {**orders, **seen}])
        await self._say("usage", deployments=[{**WEB, "cpuSeconds": 1.0, "memoryBytes": 1, "pids": 1, "restarts": 0}])
        csr = word("CertificateRequest", "csr")
        await self._say("certificate-request", id=word("CertificateRequest", "id"), digest=DIGEST, csr=csr)
        await self._say(
            "certificate-request", id="Certificate/shop/orders", digest=DIGEST, csr=f"{signing_request()}{csr}"
        )
        await self._say("secrets-request", id=word("SecretsRequest", "id"), version=DIGEST)

    async def _report(self, jws: str) -> None:
        document: dict[str, Any] = jwt.decode(jws, options={"verify_signature": False})
        word = self._word

        def result(item: str) -> dict[str, Any]:
            words = {"reason": word("Report", "items.[].reason"), "message": word("Report", "items.[].message")}
            return {"id": item, "state": "Failed", **words}

        items = [result("Deployment/shop/web"), result("Deployment/shop/orders"), result(word("Report", "items.[].id"))]
        await self._say(
            "report", generation=document["generation"], digest=document["digest"], outcome="failed",
            reason=word("Report", "reason"), message=word("Report", "message"), items=items,
        )  # fmt: skip
        self._of.is_up()

    async def _answer(self, command: dict[str, Any]) -> None:
        text = self._word("CommandOutput", "text")
        await self._say("command-output", id=command["id"], text=f"{text}\n")
        words = {"reason": self._word("CommandOutput", "reason"), "message": self._word("CommandOutput", "message")}
        await self._say("command-output", id=command["id"], last=True, **words)
