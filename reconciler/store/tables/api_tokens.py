"""Tokens of people and CI."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from reconciler.store.protocols import ApiToken

_NAMES: Final = tuple(one.name for one in fields(ApiToken))
_COLUMNS: Final = ", ".join(_NAMES)


def save(connection: sqlite3.Connection, token: ApiToken) -> None:
    row = asdict(token) | {"scopes": " ".join(token.scopes)}
    marks = ", ".join(f":{name}" for name in _NAMES)
    connection.execute(f"INSERT OR REPLACE INTO api_tokens ({_COLUMNS}) VALUES ({marks})", row)  # noqa: S608


def every(connection: sqlite3.Connection) -> Sequence[ApiToken]:
    rows = connection.execute(f"SELECT {_COLUMNS} FROM api_tokens ORDER BY created_at, id").fetchall()  # noqa: S608
    return tuple(_token(dict(zip(_NAMES, row, strict=True))) for row in rows)


def _token(row: dict[str, Any]) -> ApiToken:
    return ApiToken(**row | {"scopes": tuple(row["scopes"].split()), "told_expiry": bool(row["told_expiry"])})


def forget(connection: sqlite3.Connection, ended_before: float) -> int:
    return connection.execute(
        "DELETE FROM api_tokens WHERE expires_at < ? OR revoked_at < ?", (ended_before, ended_before)
    ).rowcount
