"""The adapter for a kind of forge, with its way of presenting a token."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping

import httpx

from reconciler.forges import gitea, github, gitlab
from reconciler.forges.bitbucket import Bitbucket
from reconciler.forges.connection import Access, Connection
from reconciler.forges.forge import Forge, Place


def open_forge(
    place: Place,
    access: Access,
    *,
    transport: httpx.AsyncBaseTransport | None = None,
    clock: Callable[[], float] = time.time,
) -> Forge:
    """Return the forge at a place; nothing is asked yet.

    ``transport``: another way to it than the network.
    """

    def connection(headers: Callable[[str], Mapping[str, str]]) -> Connection:
        return Connection(place.api, access, headers, transport=transport, clock=clock)

    match place.kind:
        case "github":
            return github.GitHub(place, connection(github.headers))
        case "gitlab":
            return gitlab.GitLab(place, connection(gitlab.headers))
        case "gitea":
            return gitea.Gitea(place, connection(gitea.headers))
        case "bitbucket":
            return Bitbucket(place, connection(_bitbucket(access.username)))


def _bitbucket(username: str) -> Callable[[str], Mapping[str, str]]:
    """Access tokens go as Bearer; API tokens and app passwords of a user with the user's name."""

    def headers(token: str) -> Mapping[str, str]:
        if not username:
            return {"Authorization": f"Bearer {token}"}
        basic = base64.b64encode(f"{username}:{token}".encode()).decode()
        return {"Authorization": f"Basic {basic}"}

    return headers
