"""Requests and answers of the API for who is logged in.

``GET    /api/v1/whoami``              who asks, and what it may do        → :class:`WhoAmI`
``GET    /api/v1/sessions``            who is logged in                    → :class:`SessionList`
``DELETE /api/v1/sessions/{session}``  end one                             → :class:`SessionView`
``POST   /api/v1/login-links``         make a link  :class:`LoginLinkRequest` → :class:`NewLoginLink`
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, field_serializer, model_validator

from schemas.base import EMPTY, Model
from schemas.names import Name

WHOAMI_PATH: Final = "/api/v1/whoami"
SESSIONS_PATH: Final = "/api/v1/sessions"
SESSION_PATH: Final = "/api/v1/sessions/{session}"
LOGIN_LINKS_PATH: Final = "/api/v1/login-links"
LINK_PATH: Final = "/login/link"

Role = Literal["viewer", "operator", "administrator"]


class WhoAmI(Model):
    """Who asks, and what it may do."""

    kind: Literal["agent", "operator", "ci", "person"]
    name: str
    actor: str
    """As events and trailers of commits name it."""
    full_name: str = ""
    mail: str = ""
    scopes: tuple[str, ...]
    """Included ones too."""
    team: str = ""
    """The team that all it may do is limited to; empty: no such limit."""
    of_teams: dict[str, tuple[str, ...]] = EMPTY
    """Team → what it may do besides, with what is that team's."""
    until: datetime | None = None
    """When the credential is to be shown again at the latest; None: with each request."""


class SessionView(Model):
    """A browser that is logged in; what it is known by is not told."""

    id: str
    name: str
    full_name: str = ""
    mail: str = ""
    issuer: str = ""
    """The provider that said who it is; empty: a link did."""
    subject: str = ""
    """Who it is for the provider, for good."""
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    """What it may do now, in words."""
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    client: str = ""
    """What the browser calls itself, which nobody can check; empty: not known."""
    current: bool = False
    """It is the one that asks."""


class SessionList(Model):
    """Oldest first."""

    sessions: tuple[SessionView, ...]


class LoginLinkRequest(Model):
    """A link that lets somebody in once, as ``name``: with a role, as a member of teams, or with both."""

    name: Name = "admin"
    role: Role | None = None
    teams: Annotated[tuple[Name, ...], Field(max_length=100)] = ()

    @model_validator(mode="after")
    def _may_something(self) -> Self:
        if self.role is None and not self.teams:
            raise ValueError("a link needs a role or teams")
        return self


class NewLoginLink(Model):
    """The only time that the link is shown."""

    url: SecretStr
    name: str
    roles: tuple[str, ...]
    expires_at: datetime

    @field_serializer("url", when_used="json")
    def _shown_once(self, url: SecretStr) -> str:
        return url.get_secret_value()
