"""Who may log in to a database: from what is wanted and what mongod says there is, to the fewest changes. PURE.

A password is compared, not written again: mongod keeps ``StoredKey`` (RFC 5802, 3) for SCRAM-SHA-256, which the wanted
password either gives or not. So an agent that starts anew changes nothing, and nothing has to be remembered.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pymongo.saslprep import saslprep

from schemas.deployment import MongoDBUser

ADMIN: Final = "cloudlunacy-agent"
"""The agent's own user, of the database ``admin``."""
MECHANISM: Final = "SCRAM-SHA-256"


class UserName(NamedTuple):
    database: str
    name: str


ADMIN_NAME: Final = UserName("admin", ADMIN)


@dataclass(frozen=True, slots=True)
class WantedUser:
    name: UserName
    role: str
    password: str = field(repr=False)

    @property
    def roles(self) -> list[dict[str, str]]:
        """As mongod writes them; ``root`` is a role of the database ``admin`` alone."""
        return [{"role": self.role, "db": "admin" if self.role == "root" else self.name.database}]


class Change(NamedTuple):
    """A command for the database ``database``."""

    database: str
    command: dict[str, Any]


def wanted_users(users: Iterable[MongoDBUser], password: Callable[[MongoDBUser], str]) -> tuple[WantedUser, ...]:
    return tuple(WantedUser(UserName(user.database, user.name), user.role, password(user)) for user in users)


def changes(wanted: Sequence[WantedUser], found: Sequence[Mapping[str, Any]]) -> list[Change]:
    """Return what makes ``found`` (documents of ``usersInfo`` with credentials) into ``wanted``.

    The agent's own user is left alone. What is to go goes first, so that a name is free again at once.
    """
    there = {UserName(str(one["db"]), str(one["user"])): one for one in found}
    names = {user.name for user in wanted} | {ADMIN_NAME}
    gone = [Change(name.database, {"dropUser": name.name}) for name in there if name not in names]
    return [*gone, *(change for user in wanted if (change := _change(user, there.get(user.name))) is not None)]


def _change(user: WantedUser, found: Mapping[str, Any] | None) -> Change | None:
    database, name = user.name
    if found is None:
        return Change(database, {"createUser": name, **_password(user), "roles": user.roles})
    command: dict[str, Any] = {}
    if not has_password(found, user.password):
        command |= _password(user)
    if _plain(found.get("roles")) != _plain(user.roles):
        command["roles"] = user.roles
    return Change(database, {"updateUser": name, **command}) if command else None


def _password(user: WantedUser) -> dict[str, Any]:
    return {"pwd": user.password, "mechanisms": [MECHANISM]}


def _plain(roles: object) -> set[tuple[str, str]]:
    return {(str(one["role"]), str(one["db"])) for one in roles} if isinstance(roles, list) else set()


def has_password(found: Mapping[str, Any], password: str) -> bool:
    """Say whether a user's credentials are those of a password, and of no other mechanism than ours."""
    credentials = found.get("credentials")
    if not isinstance(credentials, Mapping) or set(credentials) != {MECHANISM}:
        return False
    ours = credentials[MECHANISM]
    try:
        salt, count = base64.b64decode(ours["salt"]), int(ours["iterationCount"])
        salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, count)
        client = hmac.digest(salted, b"Client Key", "sha256")
        stored = base64.b64encode(hashlib.sha256(client).digest()).decode()
        return hmac.compare_digest(stored, str(ours["storedKey"]))
    except (KeyError, TypeError, ValueError):
        return False
