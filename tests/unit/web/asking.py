"""The API in memory, asked as its callers do: real routes, keys, tokens and store, and a control plane of wax."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.types import ASGIApp

from reconciler.convergence import to_status
from reconciler.pki import tokens
from reconciler.pki.authenticator import Authenticator
from reconciler.pki.keystore import KeyStore
from reconciler.pki.replay import ReplayCache
from reconciler.status import Tracker
from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation
from reconciler.store.sqlite import SQLiteStore
from reconciler.web.api import Api
from reconciler.web.endpoint import routes_of
from reconciler.web.feed import Feed
from reconciler.web.limits import Limits
from reconciler.web.problem import HANDLERS
from reconciler.web.stream_api import StreamApi
from schemas.api import AgentCondition, FrontStatus
from schemas.health_api import AgentHealth, Presence
from schemas.plan import Plan
from schemas.problem import Problem
from schemas.tokens import token_hash
from tests.support import tokens as by_hand
from tests.support.tokens import ISSUER, NOW
from tests.unit.pki.doors import AGENT, Agents

API = "/api/v1"


@dataclass
class WaxControl:
    """A :class:`reconciler.web.api.Control` that says what a test wants, and remembers what it was told."""

    published: Published = field(default_factory=Published)
    ready: bool = True
    kept_out: tuple[Problem, ...] = ()
    seen: dict[str, AgentObservation] = field(default_factory=dict)
    present: frozenset[str] = frozenset()
    judged: dict[str, tuple[AgentCondition, ...]] = field(default_factory=dict)
    front_states: tuple[FrontStatus, ...] = ()
    part_of: dict[str, str] = field(default_factory=dict)
    plans: dict[str, Plan] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def problems(self) -> tuple[Problem, ...]:
        return self.kept_out

    def observations(self) -> dict[str, AgentObservation]:
        return self.seen

    def connected(self) -> frozenset[str]:
        return self.present

    def health_of(self, name: str) -> AgentHealth:
        return AgentHealth()

    def presence_of(self, name: str) -> Presence:
        return "Connected" if name in self.present else "Unknown"

    def conditions(self, names: Iterable[str]) -> dict[str, tuple[AgentCondition, ...]]:
        return {name: self.judged.get(name, ()) for name in names}

    async def fronts(self) -> tuple[FrontStatus, ...]:
        return self.front_states

    async def superseding(self, revision: str) -> str | None:
        return self.part_of.get(revision)

    async def plan(self, revision: str) -> Plan | None:
        return self.plans.get(revision)

    def wake(self) -> None:
        self.told.append("wake")

    def reconsider(self) -> None:
        self.told.append("reconsider")


@dataclass
class Asked:
    """``now`` is the time of everything: of tokens that are made and of the API's clock."""

    control: WaxControl
    tracker: Tracker
    store: SQLiteStore
    keys: KeyStore
    now: float = NOW
    app: ASGIApp = field(init=False)
    api: Api = field(init=False)
    feed: Feed = field(default_factory=Feed)
    stream: StreamApi = field(init=False)
    authenticator: Authenticator = field(init=False)

    def __post_init__(self) -> None:
        self.authenticator = authenticator = Authenticator(
            issuer=ISSUER, origins=(), keys=self.keys, agents=Agents(), replays=ReplayCache()
        )
        self.api = Api(
            control=self.control,
            tracker=self.tracker,
            approvals=self.store,
            events=self.store,
            authenticator=authenticator,
            clock=self.clock,
        )
        self.stream = stream = StreamApi(
            feed=self.feed, tracker=self.tracker, authenticator=authenticator, clock=self.clock, pace=0.01
        )
        self.tracker.on_change = lambda record: self.feed.tell(
            "revision", record.revision, lambda: to_status(record).model_dump_json(by_alias=True)
        )
        routes = routes_of((*self.api.endpoints(), *stream.endpoints()))
        self.app = Limits(Starlette(routes=routes, exception_handlers=dict(HANDLERS)))

    def clock(self) -> float:
        return self.now

    def bearer(self, *scopes: str, made: float | None = None) -> dict[str, str]:
        """A token of the operator, good for a minute and the leeway from ``made`` on."""
        token = tokens.issue_operator_token(
            self.keys.signing("operator"),
            issuer=ISSUER,
            name="ann",
            scopes=frozenset(scopes),
            now=self.now if made is None else made,
            jti=secrets.token_urlsafe(8),
        )
        return {"Authorization": f"Bearer {token}"}

    def agent(self, method: str, path: str) -> dict[str, str]:
        """A good access token of vps-1, with its proof."""
        key = self.keys.signing("access")
        token = tokens.issue_access_token(
            key, issuer=ISSUER, name="vps-1", thumbprint=by_hand.thumbprint(AGENT), now=self.now, jti="1"
        )
        header = {"alg": "ES256", "typ": "dpop+jwt", "jwk": by_hand.jwk(AGENT)}
        claims = {"htm": method, "htu": f"{ISSUER}{path}", "iat": self.now, "jti": secrets.token_urlsafe(8),
                  "ath": token_hash(token)}  # fmt: skip
        return {"Authorization": f"DPoP {token}", "DPoP": by_hand.jws(AGENT, header, claims)}

    async def get(self, path: str, **query: Any) -> httpx.Response:
        """Ask below /api/v1 as somebody who may read."""
        return await self.request("GET", f"{API}{path}", headers=self.bearer("read"), params=query)

    async def post(self, path: str, body: Any) -> httpx.Response:
        """Send JSON below /api/v1 as the administrator."""
        return await self.request("POST", f"{API}{path}", headers=self.bearer("admin"), json=body)

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
            return await client.request(method, path, **options)


@asynccontextmanager
async def asked(data: Path, control: WaxControl | None = None) -> AsyncIterator[Asked]:
    store = await SQLiteStore.open(data)
    try:
        yield Asked(control or WaxControl(), Tracker(store, lambda: NOW), store, KeyStore(data / "keys"))
    finally:
        await store.close()


def run(data: Path, scenario: Callable[[Asked], Awaitable[object]], control: WaxControl | None = None) -> None:
    async def main() -> None:
        async with asked(data, control) as one:
            await scenario(one)

    asyncio.run(main())


def code(answer: httpx.Response) -> str:
    """Return the problem's code; the answer must be problem details with a sentence."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == answer.status_code
    assert body["detail"].endswith((".", ")"))
    return str(body["type"].removeprefix("urn:cloudlunacy:problem:"))
