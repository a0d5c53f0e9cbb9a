"""``/deployments/{team}/{name}/logs``: the last lines that a deployment wrote; ``logs.js`` follows them from there.

Without the module the page stands still and can be loaded again. What programs write is shown as text and nothing else:
escapes for terminals are taken out, other characters without a shape are written as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.commands import Asked, said_of
from reconciler.errors import CloudLunacyError
from reconciler.pki.authenticator import Identity
from reconciler.web.deployment_views import agents_of
from reconciler.web.endpoint import Endpoint
from reconciler.web.errands import hear
from reconciler.web.pages.deployment_pages import DeploymentSources, agents_meant
from reconciler.web.pages.kit import Site
from reconciler.web.queries import number_of
from schemas.objects import ObjectKey
from schemas.text import visible

TAIL: Final = 200
MOST: Final = 1000
"""Lines that the page itself has, at most."""
SECONDS: Final = 4.0
"""That the page waits for each agent."""
AT_ONCE: Final = 4
"""Agents whose lines the page itself has; the module follows all."""
_ESCAPES: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_]|[ -/]+[0-~])")
"""Control sequences (ECMA-48, 5.4), commands of terminals (OSC), and shorter ones."""


class Wrote(NamedTuple):
    """A line, by whom."""

    agent: str
    text: str


def plain(text: str) -> str:
    """Return a line as it is shown: without what would colour or move a terminal."""
    return "\t".join(map(visible, _ESCAPES.sub("", text).removesuffix("\r").split("\t")))


def lines_of(agent: str, text: str) -> list[Wrote]:
    """Return the lines of what an agent sent."""
    return [Wrote(agent, plain(line)) for line in text.removesuffix("\n").split("\n")] if text else []


def is_opened(request: Request) -> bool:
    """Say whether a person opened the page (Fetch Metadata): what a module fetches again has no agent asked."""
    return request.headers.get("sec-fetch-mode", "navigate") == "navigate"


class LogPages:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, site: Site, sources: DeploymentSources) -> None:
        self._site = site
        self._of = sources

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        path = "/deployments/{team}/{name}/logs"
        return (Endpoint("GET", path, "What a deployment writes", self.logs, "operate", page=True),)

    async def logs(self, request: Request) -> Response:
        identity = self._site.caller(request, "operate", team=request.path_params["team"])
        key = self._of.key(request)
        agent = request.query_params.get("agent", "")
        tail = number_of(request, "tail", TAIL, MOST)
        agents = agents_meant(self._of, key, agent)
        asked = agents[:AT_ONCE] if is_opened(request) else ()
        lines, problems = await self._last(key, asked, tail, identity)
        return await self._site.render(
            request,
            identity,
            "logs.html.j2",
            key=key,
            agent=agent,
            agents=agents_of(self._of.control.published.state, key),
            is_many=len(agents) > 1,
            tail=tail,
            lines=lines,
            problems=problems,
        )

    async def _last(
        self, key: ObjectKey, agents: Sequence[str], tail: int, identity: Identity
    ) -> tuple[list[Wrote], list[str]]:
        lines, problems = list[Wrote](), list[str]()
        said = {"tail": str(tail), "follow": "false"}
        for agent in agents:
            asked = Asked(agent, "logs", str(key), said_of("logs", agent), SECONDS, said)
            try:
                text, problem = await hear(self._of.commands, asked, actor=str(identity), seconds=SECONDS)
            except CloudLunacyError as error:
                problems.append(str(error))
                continue
            lines += lines_of(agent, text)
            if problem:
                problems.append(f"{agent}: {problem}")
        return lines, problems
