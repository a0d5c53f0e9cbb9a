"""Enrolment tokens, and the marks that must survive the loss of everything that can be rebuilt."""

from __future__ import annotations

import sqlite3

from reconciler.store.protocols import EnrolmentToken


def add(connection: sqlite3.Connection, token: EnrolmentToken) -> None:
    """Raise ValueError when the id is taken."""
    try:
        connection.execute(
            "INSERT INTO tokens (id, agent, secret_sha256, created_by, expires_at, used_by) VALUES (?, ?, ?, ?, ?, ?)",
            (token.id, token.agent, token.secret_sha256, token.created_by, token.expires_at, token.used_by),
        )
    except sqlite3.IntegrityError:
        raise ValueError(f"there is a token {token.id!r} already") from None


def get(connection: sqlite3.Connection, token_id: str) -> EnrolmentToken | None:
    row = connection.execute(
        "SELECT id, agent, secret_sha256, created_by, expires_at, used_by FROM tokens WHERE id = ?", (token_id,)
    ).fetchone()
    return None if row is None else EnrolmentToken(*row)


def use(connection: sqlite3.Connection, token_id: str, thumbprint: str, now: float) -> bool:
    changed = connection.execute(
        "UPDATE tokens SET used_by = ? WHERE id = ? AND expires_at > ? AND (used_by IS NULL OR used_by = ?)",
        (thumbprint, token_id, now, thumbprint),
    )
    return changed.rowcount == 1


def prune(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute("DELETE FROM tokens WHERE expires_at < ?", (before,)).rowcount


def mark(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone()
    return 0 if row is None else int(row[0])


def raise_mark(connection: sqlite3.Connection, name: str, value: int) -> None:
    connection.execute(
        "INSERT INTO marks (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        (name, value),
    )
