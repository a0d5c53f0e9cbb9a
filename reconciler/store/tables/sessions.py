"""Sessions of people, and the links that begin one. Lists are JSON: a group may hold any character."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from reconciler.store.sessions import LoginLink, Session
from reconciler.store.tables.text import storable

_SESSION: Final = tuple(one.name for one in fields(Session))
_LINK: Final = tuple(one.name for one in fields(LoginLink))
_LISTS: Final = frozenset({"groups", "roles", "teams"})


def save(connection: sqlite3.Connection, session: Session) -> None:
    _put(connection, "INSERT OR REPLACE INTO sessions", _SESSION, asdict(session))


def every(connection: sqlite3.Connection) -> Sequence[Session]:
    return tuple(Session(**row) for row in _select(connection, _SESSION, "sessions ORDER BY created_at, id"))


def forget(connection: sqlite3.Connection, session_id: str) -> None:
    connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))


def add_link(connection: sqlite3.Connection, link: LoginLink) -> None:
    _put(connection, "INSERT INTO login_links", _LINK, asdict(link))


def links(connection: sqlite3.Connection) -> Sequence[LoginLink]:
    return tuple(LoginLink(**row) for row in _select(connection, _LINK, "login_links ORDER BY expires_at, id"))


def use_link(connection: sqlite3.Connection, link_id: str) -> bool:
    return connection.execute("DELETE FROM login_links WHERE id = ?", (link_id,)).rowcount == 1


def _put(connection: sqlite3.Connection, statement: str, names: tuple[str, ...], values: Mapping[str, Any]) -> None:
    columns, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
    row = tuple(_stored(values[name]) for name in names)
    connection.execute(f"{statement} ({columns}) VALUES ({marks})", row)


def _stored(value: str | float | tuple[str, ...]) -> str | float:
    if isinstance(value, tuple):
        return json.dumps(value)
    return storable(value) if isinstance(value, str) else value


def _select(connection: sqlite3.Connection, names: tuple[str, ...], rest: str) -> Iterator[dict[str, Any]]:
    columns = ", ".join(f'"{name}"' for name in names)
    for row in connection.execute(f"SELECT {columns} FROM {rest}").fetchall():  # noqa: S608 - text from this module
        read = dict(zip(names, row, strict=True))
        yield {name: tuple(json.loads(value)) if name in _LISTS else value for name, value in read.items()}
