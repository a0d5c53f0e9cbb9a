"""Sessions of people in their browsers, and the links that begin one. In ``outbox.db``, without their secrets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that logged in. ``secret_sha256`` is the hex digest of the secret part of its cookie.

    ``issuer`` and ``subject`` say who it is for the provider, and ``groups`` which groups that named; who came by a
    link has none of the three, but the ``roles`` and ``teams`` of the link.
    """

    id: str
    secret_sha256: str = field(repr=False)
    name: str
    created_at: float
    last_used_at: float
    expires_at: float
    full_name: str = ""
    mail: str = ""
    issuer: str = ""
    subject: str = ""
    groups: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    client: str = ""
    """What the browser called itself when it logged in."""


@dataclass(frozen=True, slots=True)
class LoginLink:
    """A link that is good once. ``secret_sha256`` is the hex digest of its secret part."""

    id: str
    secret_sha256: str = field(repr=False)
    name: str
    created_by: str
    expires_at: float
    roles: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()


class SessionStore(Protocol):
    async def save_session(self, session: Session) -> None:
        """Durable; adds it, or replaces what is known of it."""
        ...

    async def sessions(self) -> Sequence[Session]:
        """Oldest first."""
        ...

    async def forget_session(self, session_id: str) -> None:
        """Durable."""
        ...

    async def add_login_link(self, link: LoginLink) -> None:
        """Durable."""
        ...

    async def login_links(self) -> Sequence[LoginLink]:
        """The one that ends first is the first."""
        ...

    async def use_login_link(self, link_id: str) -> bool:
        """Durable; say whether it was there. Of two who use it at once, one is told so."""
        ...
