"""Pages of what is published: ``/traffic``, ``/traffic/{host}``, and the box that says who answers a URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import Response

from reconciler.changes.documents import backend_name, set_weights
from reconciler.changes.service import Changes
from reconciler.desired.edits import EditConflict
from reconciler.errors import Refused
from reconciler.steps.passing import Published
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.changing import Changing, change_of
from reconciler.web.pages.kit import Form, Site
from reconciler.web.traffic_views import TrafficViews
from schemas.changes_api import FileCommit
from schemas.explain_api import Explanation
from schemas.objects import key_of_path
from schemas.route import Route

PAGE: Final = 50
COMMITS: Final = 5
MOST_ROUTES: Final = 10
"""Of one host that are drawn with their history."""
LARGEST_WEIGHT: Final = 1000
STATES: Final = (
    ("", "any"),
    ("serving", "serving"),
    ("degraded", "some backends out"),
    ("unserved", "no backend"),
    ("maintenance", "maintenance"),
)


class TrafficPages:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, site: Site, views: TrafficViews, changes: Changes, published: Callable[[], Published]) -> None:
        self._site = site
        self._views = views
        self._changing = Changing(site, changes)
        self._changes = changes
        self._published = published

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (
            Endpoint("GET", "/traffic", "What is published", self.listing, "read", page=True),
            Endpoint("GET", "/traffic/{host}", "One host", self.host, "read", page=True),
            Endpoint("POST", "/traffic/{host}/weights", "Move traffic", self.weights, "write", page=True),
        )

    async def listing(self, request: Request) -> Response:
        """Draw a page of hosts, and the answer to a question about a URL where there is one."""
        identity = self._site.caller(request)
        asked = request.query_params
        filters = {name: asked.get(name, "") for name in ("text", "team", "agent", "state")}
        found = self._views.page(after=asked.get("after", ""), limit=PAGE, **filters)
        url = asked.get("url", "").strip()
        explanation, wrong = self._explained(url, asked.get("method", ""), asked.get("header", ""))
        return await self._site.render(
            request,
            identity,
            "traffic.html.j2",
            found=found,
            filters=filters,
            states=STATES,
            teams=[("", "any"), *((one, one) for one in self._views.teams())],
            next=_next(filters, found.next) if found.next else "",
            first=_next(filters, "") if asked.get("after") else "",
            url=url,
            explanation=explanation,
            wrong=wrong,
            brought=await self._brought(explanation),
            is_filtered=any(filters.values()),
        )

    async def host(self, request: Request) -> Response:
        """Draw everything that answers at one host."""
        identity = self._site.caller(request)
        name = str(request.path_params["host"]).lower()
        rows = self._views.host(name)
        if not rows:
            raise Refused(
                "Nothing is published at this host.",
                status=404,
                code="unknown-host",
                hint="The page Traffic lists what is, and says who answers a URL.",
            )
        files = list(dict.fromkeys(row.file for row in rows))[:MOST_ROUTES]
        return await self._site.render(
            request,
            identity,
            "host.html.j2",
            host=name,
            rows=rows[:MOST_ROUTES],
            left_out=max(0, len(rows) - MOST_ROUTES),
            weights={file: self._weights_of(file) for file in files},
            history={file: await self._changes.history(file, COMMITS) for file in files},
            without_figures=self._views.page(limit=1).without_figures,
        )

    async def weights(self, request: Request) -> Response:
        """Move traffic: show what the weights would do, then commit them."""
        self._site.caller(request)
        form = await self._site.form(request)
        path, host = form.get("path", ""), str(request.path_params["host"])
        key = key_of_path(path)
        if key is None or key.kind != "Route":
            raise Refused("This is no route.", status=404, code="unknown-route")
        identity = self._site.caller(request, "write", key.team)
        back = f"/traffic/{quote(host, safe='')}"
        text = await self._changes.text(path)
        if text is None:
            raise Refused("The route's file is gone.", status=404, code="unknown-route")
        try:
            edited = set_weights(path, text, _weights(form))
        except EditConflict as error:
            raise Refused(str(error), status=409, code="edit-conflict") from None
        change = change_of(path, edited, message=form.get("message", ""), base=form.get("base", ""))
        act = self._changing.commit if form.get("do") == "commit" else self._changing.preview
        return await act(request, identity, change, form, title=f"Move traffic of {host}", back=back)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _explained(self, url: str, method: str, header: str) -> tuple[Explanation | None, str]:
        if not url:
            return None, ""
        try:
            return self._views.explain(url, method=method, headers=header.split("\n")), ""
        except Refused as refused:
            return None, str(refused)

    async def _brought(self, explanation: Explanation | None) -> FileCommit | None:
        """Return the commit that last changed the route that wins."""
        if explanation is None or explanation.router is None:
            return None
        return next(iter(await self._changes.history(explanation.router.file, 1)), None)

    def _weights_of(self, file: str) -> Mapping[str, int]:
        key = key_of_path(file)
        route = self._published().state.objects.get(key) if key is not None else None
        if not isinstance(route, Route) or len(route.spec.backends) < 2:
            return {}
        named = [one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in route.spec.backends]
        return {backend_name(one): int(one["weight"]) for one in named}


def _next(filters: Mapping[str, str], after: str) -> str:
    asked = {name: value for name, value in filters.items() if value}
    if after:
        asked["after"] = after
    return f"/traffic?{urlencode(asked)}" if asked else "/traffic"


def _weights(form: Form) -> dict[str, int]:
    """Read the fields ``weight:<backend>``.

    Raises:
        Refused: 400 ``bad-weight``.
    """
    found = {}
    for name, value in form.items():
        if name.startswith("weight:"):
            number = value.strip()
            if not number.isascii() or not number.isdigit() or len(number) > 4 or int(number) > LARGEST_WEIGHT:
                text = f"A weight is a whole number from 0 to {LARGEST_WEIGHT}."
                raise Refused(text, status=400, code="bad-weight")
            found[name.removeprefix("weight:")] = int(number)
    return found
