"""Pages of agents, deployments and databases in memory: a real site, store and history, and agents of wax."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import unquote, urlencode

import httpx
from starlette.applications import Starlette

from reconciler.agents.commands import Commands
from reconciler.agents.enrolment_tokens import EnrolmentTokens
from reconciler.agents.joining import Doorway
from reconciler.agents.measures import Measures
from reconciler.app.pages import make_site
from reconciler.pki.authenticator import Authenticator, Identity
from reconciler.pki.replay import ReplayCache
from reconciler.steps.passing import Published
from reconciler.store.history import History
from reconciler.store.protocols import AgentObservation
from reconciler.store.seen import Drained
from reconciler.web.endpoint import routes_of
from reconciler.web.errands import Errands
from reconciler.web.limits import Limits
from reconciler.web.pages.agent_pages import AgentPages, AgentSources
from reconciler.web.pages.database_pages import DatabasePages
from reconciler.web.pages.deployment_pages import DeploymentPages, DeploymentSources
from reconciler.web.pages.enrol_pages import EnrolPages
from reconciler.web.pages.log_pages import LogPages
from reconciler.web.pages.placement import Placements
from schemas.access_api import AgentRevocation, RevocationRequest
from schemas.changes_api import ChangeAnswer
from schemas.objects import ObjectKey
from schemas.observation import DeploymentObservation
from schemas.rollout_api import RolloutOnAgent, RolloutStatus
from schemas.session import Command, CommandOutput, CommandStop
from tests.support.documents import agent, deployment, fleet, route, secret, state_of, team
from tests.support.tokens import ISSUER, NOW
from tests.unit.pki.doors import Agents
from tests.unit.web.asking import Asked, WaxControl, asked

HTML: Final = {"Accept": "text/html"}
THUMBPRINT: Final = "A" * 43
WEB: Final = ObjectKey("Deployment", "shop", "web")
ORDERS: Final = ObjectKey("Deployment", "shop", "orders")
DOORWAY: Final = Doorway(ISSUER, "ab" * 32, "sha256//cGlu")

MONGODB: Final[dict[str, Any]] = {
    "type": "mongodb",
    "image": None,
    "ports": [{"name": "mongodb", "container": 27017, "host": 27117}],
    "mongodb": {
        "version": "6.0",
        "users": [{"name": "shop", "database": "shop", "password": {"name": "db", "key": "password"}}],
        "backup": {"every": "24h", "keep": 7},
        "storage": "10Gi",
    },
}
FILES: Final[dict[str, bytes | None]] = {
    "fleet.yaml": fleet(team("shop", agents=["vps-1", "vps-2"]), team("analytics", agents=["vps-2"])),
    "agents/vps-1.yaml": agent("vps-1", labels={"region": "ams"}, identity={"thumbprint": THUMBPRINT}),
    "agents/vps-2.yaml": agent("vps-2", labels={"region": "fra"}, identity={"thumbprint": "B" * 43}, state="cordoned"),
    "agents/vps-3.yaml": agent("vps-3", address="192.0.2.3"),
    "deployments/shop/web.yaml": deployment("web", "vps-1"),
    "deployments/shop/orders.yaml": deployment(
        "orders", "vps-1", **{name: value for name, value in MONGODB.items() if value is not None}
    ).replace(b'"image": "web:1", ', b""),
    "secrets/shop/db.yaml": secret("db", "password"),
    "routes/shop/web.yaml": route("web", "web.app.cloudlunacy.test"),
    "routes/shop/db.yaml": route(
        "db", type="mongodb", backends=[{"agent": "vps-1", "port": 27117}], tls={"mode": "terminate"}
    ),
}


class Talking:
    """A hub whose agents answer commands with what a test wants."""

    def __init__(self) -> None:
        self.connected = frozenset({"vps-1"})
        self.says: dict[str, list[str]] = {}
        """Action → the pieces of its answer; None in place of one leaves the command open."""
        self.told: list[Command | CommandStop] = []
        self.commands: Commands | None = None
        self.fails: dict[str, str] = {}
        """Action → reason."""

    def tell(self, name: str, message: Command | CommandStop) -> bool:
        self.told.append(message)
        if isinstance(message, Command) and message.action in self.says:
            asyncio.get_running_loop().call_soon(self._answer, name, message)
        return True

    def _answer(self, name: str, command: Command) -> None:
        assert self.commands is not None
        for text in self.says[command.action]:
            self.commands.said(name, CommandOutput(id=command.id, text=text))
        reason = self.fails.get(command.action, "")
        self.commands.said(name, CommandOutput(id=command.id, last=True, reason=reason))


@dataclass
class Doings:
    """What pages had done."""

    drains: dict[str, Drained] = field(default_factory=dict)
    revoked: list[tuple[str, RevocationRequest, str]] = field(default_factory=list)
    cordoned: list[tuple[str, bool, str]] = field(default_factory=list)
    paused: list[tuple[str, ObjectKey]] = field(default_factory=list)

    async def drain(self, drained: Drained) -> None:
        self.drains[drained.name] = drained

    async def undrain(self, agent: str, by: str) -> bool:
        return self.drains.pop(agent, None) is not None

    async def revoke(
        self,
        name: str,
        wanted: RevocationRequest,
        *,
        actor: str,
        author: tuple[str, str],
    ) -> AgentRevocation:
        self.revoked.append((name, wanted, actor))
        return AgentRevocation(
            name=name, state="committed", quarantine=wanted.quarantine, file="", revision="1" * 40, disconnected=True
        )

    async def cordon(self, name: str, is_cordoned: bool, identity: Identity) -> ChangeAnswer:
        self.cordoned.append((name, is_cordoned, str(identity)))
        return ChangeAnswer(state="committed", revision="c" * 40)

    async def pause(self, key: ObjectKey, by: str) -> None:
        self.paused.append(("pause", key))

    async def resume(self, key: ObjectKey, by: str) -> None:
        self.paused.append(("resume", key))


class FleetPages:
    """All pages of this part, in one application."""

    def __init__(self, one: Asked, control: WaxControl, history: History, origin: str = ISSUER) -> None:
        self.one = one
        self.control = control
        self.history = history
        self.measures = Measures(history, lambda *_: True)
        self.doings = Doings()
        self.talking = Talking()
        self.told: dict[tuple[str, ObjectKey], DeploymentObservation] = {}
        self.commands = Commands(self.talking, one.store, clock=lambda: one.now)
        self.talking.commands = self.commands
        self.errands = Errands(self.commands, clock=lambda: one.now)
        self.rollouts: dict[ObjectKey, RolloutStatus] = {}
        self.certificates: dict[str, tuple[float, float | None]] = {}
        self.door = door = Authenticator(
            issuer=ISSUER, origins=(origin,), keys=one.keys, agents=Agents(), replays=ReplayCache()
        )
        self.site = site = make_site(door)
        site.clock = lambda: one.now
        placements = Placements()
        known: Any = SimpleNamespace(history=history, measures=self.measures)
        agents = AgentSources(
            control=control, known=known, drains=self.doings, revocations=self.doings, events=one.store,
            seen=self.seen, cordon=self.doings.cordon, certificate=self.certificate,
        )  # fmt: skip
        pauses: Any = self.doings
        sources = DeploymentSources(
            control=control, seen=self.seen, history=history, tracker=one.tracker, rollout=self.rollout, pauses=pauses,
            commands=self.commands, errands=self.errands, events=one.store,
        )  # fmt: skip

        async def doorway() -> Doorway:
            return DOORWAY

        async def port() -> int | None:
            return 27018

        tokens = EnrolmentTokens(one.store)
        parts = (
            EnrolPages(site, control=control, tokens=tokens, doorway=doorway, placements=placements),
            AgentPages(site, agents, placements),
            LogPages(site, sources),
            DeploymentPages(site, sources, placements),
            DatabasePages(site, sources, placements, port),
            site.statics,
        )
        self.endpoints = [endpoint for part in parts for endpoint in part.endpoints()]
        self.app = Limits(Starlette(routes=routes_of(self.endpoints), exception_handlers=dict(site.handlers())))

    def seen(self, agent: str, key: ObjectKey) -> DeploymentObservation | None:
        return self.told.get((agent, key))

    def rollout(self, key: ObjectKey) -> RolloutStatus:
        usual = RolloutStatus(
            team=key.team, name=key.name, state="Done", version="sha256:" + "0" * 64, max_unavailable=1,
            agents=(RolloutOnAgent(agent="vps-1", place="done", version="sha256:" + "0" * 64),),
        )  # fmt: skip
        return self.rollouts.get(key, usual)

    async def certificate(self, name: str) -> tuple[float, float | None] | None:
        return self.certificates.get(name)

    async def get(self, path: str, *scopes: str) -> httpx.Response:
        return await self.request("GET", path, headers={**HTML, **self.one.bearer(*(scopes or ("admin",)))})

    async def post(self, path: str, form: Mapping[str, str], *scopes: str, **headers: str) -> httpx.Response:
        said = {**HTML, "Origin": ISSUER, **self.one.bearer(*(scopes or ("admin",))), **headers}
        said["Content-Type"] = "application/x-www-form-urlencoded"  # a browser says so of an empty form too
        return await self.request("POST", path, headers=said, content=urlencode(form))

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url=ISSUER) as client:
            return await client.request(method, path, **options)


def observed(name: str = "vps-1", *items: Mapping[str, Any], **more: Any) -> AgentObservation:
    """What was seen of an agent."""
    said: dict[str, Any] = {
        "connected": True, "last_seen": NOW, "applied_generation": 5, "applied_digest": None, "version": "1.2.3",
        "outcome": "applied", "message": "", "items": items, "metrics": {},
    }  # fmt: skip
    return AgentObservation(name, **{**said, **more})


@asynccontextmanager
async def serving(
    data: Path,
    origin: str = ISSUER,
    files: Mapping[str, bytes | None] = FILES,
    control: WaxControl | None = None,
) -> AsyncIterator[FleetPages]:
    """Have pages of a fleet. ``origin``: where browsers see them."""
    made = control or WaxControl()
    made.published = Published(7, "a" * 40, state_of(dict(files)), agents={"vps-1": (5, "")})
    async with asked(data, made) as one:
        history = await History.open(data, clock=lambda: one.now)
        try:
            yield FleetPages(one, made, history, origin)
        finally:
            await history.close()


def run(
    data: Path,
    scenario: Callable[[FleetPages], Awaitable[None]],
    files: Mapping[str, bytes | None] = FILES,
    control: WaxControl | None = None,
) -> None:
    """Run a scenario against pages of a fleet."""

    async def main() -> None:
        async with serving(data, files=files, control=control) as pages:
            await scenario(pages)

    asyncio.run(main())


def notice(answer: httpx.Response) -> str:
    """Return what the page that follows a form will say."""
    cookies: SimpleCookie = SimpleCookie(answer.headers.get("set-cookie", ""))
    assert answer.status_code == 303, answer.text
    return unquote(cookies["__Host-notice"].value)
