"""Pages of databases: ``/databases``, ``/databases/{team}/{name}``, and their backups.

No page holds a password: where one belongs there is a gap, and the command that fills it on the machine of whoever may
open the secret. Backups are asked of the agent, which is written into the timeline; so they have a page of their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.commands import Asked, said_of
from reconciler.errors import CloudLunacyError, Refused
from reconciler.mongodb.places import places_of
from reconciler.web.deployment_api import DATABASE_SECONDS
from reconciler.web.deployment_views import deployment_of, deployment_view
from reconciler.web.endpoint import Endpoint
from reconciler.web.errands import hear
from reconciler.web.pages import deployments_view as view
from reconciler.web.pages.deployment_pages import DeploymentSources, agents_meant, answered, commands_for, writable_team
from reconciler.web.pages.kit import Site
from reconciler.web.pages.log_pages import is_opened
from reconciler.web.pages.placement import Placements, page_of, routes_to
from schemas.deployment import Deployment
from schemas.mongodb_versions import next_step, series_of
from schemas.objects import ObjectKey

PAGE: Final = 50
LIST_SECONDS: Final = 10.0
"""That a page waits for an agent's list of backups."""
Port = Callable[[], Awaitable[int | None]]
"""The port where clients reach databases; None where it is not known."""


class DatabasePages:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, site: Site, sources: DeploymentSources, placements: Placements, port: Port) -> None:
        self._site = site
        self._of = sources
        self._placements = placements
        self._port = port

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        one = "/databases/{team}/{name}"
        return (
            Endpoint("GET", "/databases", "Databases", self.listing, "read", page=True),
            Endpoint("GET", one, "A database", self.database, "read", page=True),
            Endpoint("GET", f"{one}/backups", "Its backups", self.backups, "operate", page=True),
            Endpoint("POST", f"{one}/backup", "Back it up now", self.backup, "operate", page=True),
        )

    async def listing(self, request: Request) -> Response:
        identity = self._site.caller(request)
        wanted, look = view.Wanted.of(request.query_params), self._of.look()
        known, after = self._placements.of(look.state), request.query_params.get("after", "")
        names, following = page_of(
            known.databases, lambda name: view.is_meant(known.databases[name], look, wanted), after, PAGE
        )
        keys = [known.databases[name] for name in names]
        return await self._site.render(
            request,
            identity,
            "databases.html.j2",
            rows=[
                (
                    view.row(deployment_view(key, look), view.image_of(look.state, key)),
                    deployment_of(look.state, key).spec,
                )
                for key in keys
            ],
            total=len(known.databases),
            wanted=wanted,
            states=view.STATES,
            team=writable_team(look.state, identity),
            teams=sorted({key.team for key in known.databases.values()}),
            next=f"/databases?{wanted.query(after=following)}" if following else "",
            first=f"/databases?{wanted.query()}" if after else "",
        )

    async def database(self, request: Request) -> Response:
        identity = self._site.caller(request, team=request.path_params["team"])
        key = self._key(request)
        look = self._of.look()
        shown, spec = deployment_view(key, look), deployment_of(look.state, key).spec
        assert spec.mongodb is not None
        routes = routes_to(look.state, key)
        return await self._site.render(
            request,
            identity,
            "database.html.j2",
            deployment=shown,
            spec=spec,
            mongodb=spec.mongodb,
            rows=[(view.word_of(one), one, view.why(one)) for one in shown.agents],
            state=view.worst(map(view.word_of, shown.agents)),
            addresses=view.addresses(places_of(routes, look.state), key, await self._port()),
            following=str(next_step(series_of(spec.mongodb.version))),
            routes=routes,
            errands=[one for one in self._of.errands.of(key) if one.action in ("backup", "restore")],
            events=await self._of.events.events(subject=str(key), newest_first=True, limit=15),
        )

    async def backups(self, request: Request) -> Response:
        identity = self._site.caller(request, "operate", team=request.path_params["team"])
        key = self._key(request)
        agents = agents_meant(self._of, key, request.query_params.get("agent", ""))
        found, problems = [], list[str]()
        for agent in agents[:4] if is_opened(request) else ():
            asked = Asked(agent, "backups", str(key), said_of("backups", agent), LIST_SECONDS, {})
            try:
                text, problem = await hear(self._of.commands, asked, actor=str(identity), seconds=LIST_SECONDS)
            except CloudLunacyError as error:
                problems.append(str(error))
                continue
            found.append((agent, view.backups(text)))
            if problem:
                problems.append(f"{agent}: {problem}")
        return await self._site.render(
            request, identity, "backups.html.j2", key=key, found=found, problems=problems,
            is_many=len(agents) > 1, errands=[one for one in self._of.errands.of(key) if one.action == "backup"],
        )  # fmt: skip

    async def backup(self, request: Request) -> Response:
        identity = self._site.caller(request, "operate", team=request.path_params["team"])
        key = self._key(request)
        form = await self._site.form(request)

        async def act() -> str:
            agents = agents_meant(self._of, key, form.get("agent", ""))
            asked = commands_for(agents, "backup", key, DATABASE_SECONDS)
            errand = await self._of.errands.begin(key, asked, str(identity))
            return f"A backup of {key.team}/{key.name} has begun on {errand.on}; how it goes stands below."

        return await answered(self._site, f"/databases/{quote(key.team, safe='')}/{quote(key.name, safe='')}", act())

    def _key(self, request: Request) -> ObjectKey:
        key = self._of.key(request)
        found = self._of.control.published.state.served[key].object
        if not isinstance(found, Deployment) or found.spec.type != "mongodb":
            text = f"{key.team}/{key.name} is a deployment, and no database."
            raise Refused(text, status=404, code="no-database")
        return key
