"""Routes that agents ask for: what runs on an agent has one made for itself, where the fleet grants it.

``POST   /api/v1/routes``                make it, or mend it  :class:`AgentRouteRequest` → :class:`AgentRoute`
``GET    /api/v1/routes/{team}/{name}``  how it stands        → :class:`AgentRoute`
``DELETE /api/v1/routes/{team}/{name}``  take it back         → :class:`AgentRoute`

200 where git says so already, 202 where it will. Each may be asked again at any time.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final, Literal

from pydantic import StringConstraints

from schemas.base import Model
from schemas.names import Hostname, Name, UrlPath

ROUTES_PATH: Final = "/api/v1/routes"
ROUTE_PATH: Final = "/api/v1/routes/{team}/{name}"
_MARK: Final = "-asked-"
_DIGITS: Final = 12
_LONGEST: Final = 63 - len(_MARK) - _DIGITS
NAME_PATTERN: Final = rf"[a-z0-9](?:[a-z0-9-]{{0,{_LONGEST - 2}}}[a-z0-9])?{_MARK}[0-9a-f]{{{_DIGITS}}}"
"""Of routes that were made this way."""

AskedName = Annotated[str, StringConstraints(pattern=rf"^{NAME_PATTERN}$", max_length=63)]


class AgentRouteRequest(Model):
    """Send requests for a host to a deployment that runs on the agent that asks, and there only."""

    team: Name
    deployment: Name
    hostname: Hostname
    path: UrlPath = "/"
    """It and all below it."""
    port_name: Name | None = None
    """Needed where the deployment has several ports."""
    tls: Literal["terminate", "none"] = "terminate"


def route_name(agent: str, wanted: AgentRouteRequest) -> str:
    """Return the name of the route: the same for the same agent, deployment, host and path, and for no others."""
    # none of these has a space
    words = f"{agent} {wanted.team} {wanted.deployment} {wanted.hostname} {wanted.path}"
    return f"{wanted.deployment[:_LONGEST].rstrip('-')}{_MARK}{hashlib.sha256(words.encode()).hexdigest()[:_DIGITS]}"


class AgentRoute(Model):
    """``state``: what became of the commit, empty where none was asked for. ``inService``: it is served as of now."""

    state: Literal["committed", "pending", "proposed", ""] = ""
    team: str
    name: str
    file: str
    revision: str = ""
    """The commit that says so."""
    proposal: str = ""
    """The branch that waits to be merged."""
    in_service: bool
    convergence: str = ""
    """State of the revision's record, such as Progressing, Converged or Held; empty where it was not looked at yet."""
    message: str = ""
    """What holds it up, for people."""
    status_url: str
