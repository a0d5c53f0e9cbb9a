"""The tables of all databases, as numbered forward migrations (``PRAGMA user_version`` counts those done).

A migration that has been released is never edited; a change is a new one at the end. Tables are rowid tables, so that
``reconciler.store.salvage`` can walk a damaged one row by row.
"""

from __future__ import annotations

import sqlite3
from typing import Final, NamedTuple

from reconciler.errors import Broken

Migrations = tuple[tuple[str, ...], ...]
"""For each version the statements that lead to it."""

OUTBOX: Final[Migrations] = (
    (
        """CREATE TABLE outbox (
            seq INTEGER PRIMARY KEY AUTOINCREMENT,
            id TEXT NOT NULL UNIQUE,
            kind TEXT NOT NULL,
            payload TEXT NOT NULL,
            accepted_at REAL NOT NULL,
            attempts INTEGER NOT NULL DEFAULT 0,
            last_error TEXT NOT NULL DEFAULT '',
            outcome TEXT,
            revision TEXT,
            settled_at REAL
        )""",
        "CREATE INDEX outbox_pending ON outbox (accepted_at, seq) WHERE outcome IS NULL",
        "CREATE INDEX outbox_settled ON outbox (settled_at) WHERE outcome IS NOT NULL",
        """CREATE TABLE tokens (
            id TEXT NOT NULL PRIMARY KEY,
            agent TEXT NOT NULL,
            secret_sha256 TEXT NOT NULL,
            created_by TEXT NOT NULL,
            expires_at REAL NOT NULL,
            used_by TEXT
        )""",
        "CREATE INDEX tokens_expiry ON tokens (expires_at)",
        "CREATE TABLE marks (name TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL)",
    ),
    (
        # What state.db knows of the newest publication, without the agents (docs/adr/0016).
        """CREATE TABLE publication (
            slot TEXT NOT NULL PRIMARY KEY CHECK (slot IN ('newest', 'confirmed')),
            generation INTEGER NOT NULL,
            revision TEXT NOT NULL,
            published_at REAL NOT NULL,
            confirmed INTEGER NOT NULL,
            document TEXT NOT NULL
        )""",
    ),
    (
        # Commits of our own, from before they are pushed: they need no signature (docs/adr/0022).
        "CREATE TABLE own_commits (revision TEXT NOT NULL PRIMARY KEY, path TEXT NOT NULL, made_at REAL NOT NULL)",
        "CREATE INDEX own_commits_age ON own_commits (made_at)",
    ),
    (
        # Keys of agents that an operator locked out: they count at once, and when git says otherwise (docs/adr/0025).
        """CREATE TABLE barred (
            name TEXT NOT NULL,
            thumbprint TEXT NOT NULL,
            quarantine INTEGER NOT NULL,
            reason TEXT NOT NULL,
            barred_by TEXT NOT NULL,
            barred_at REAL NOT NULL,
            entry_id TEXT NOT NULL,
            PRIMARY KEY (name, thumbprint)
        )""",
    ),
    (
        # Tokens of people and CI, without their secrets (docs/adr/0029).
        """CREATE TABLE api_tokens (
            id TEXT NOT NULL PRIMARY KEY,
            name TEXT NOT NULL,
            kind TEXT NOT NULL,
            scopes TEXT NOT NULL,
            secret_sha256 TEXT NOT NULL,
            created_by TEXT NOT NULL,
            created_at REAL NOT NULL,
            expires_at REAL NOT NULL,
            revoked_at REAL,
            first_used_at REAL,
            last_used_at REAL,
            told_expiry INTEGER NOT NULL DEFAULT 0
        )""",
    ),
    (
        # The team whose deployments are all that a token is good for; empty: no such limit.
        "ALTER TABLE api_tokens ADD COLUMN team TEXT NOT NULL DEFAULT ''",
    ),
    (
        # Where agents' deployments answer, and which agents operators drain: no commit says either (docs/health.md).
        "CREATE TABLE seen_agents (name TEXT NOT NULL PRIMARY KEY, document TEXT NOT NULL)",
        """CREATE TABLE drained_agents (
            name TEXT NOT NULL PRIMARY KEY,
            reason TEXT NOT NULL,
            drained_by TEXT NOT NULL,
            drained_at REAL NOT NULL,
            until REAL
        )""",
    ),
    (
        # Deployments whose roll-outs operators have paused (docs/deployments.md).
        """CREATE TABLE paused_rollouts (
            deployment TEXT NOT NULL PRIMARY KEY,
            paused_by TEXT NOT NULL,
            paused_at REAL NOT NULL
        )""",
    ),
    (
        # Sessions of people in their browsers, and the links that begin one, without their secrets (docs/adr/0048).
        """CREATE TABLE sessions (
            id TEXT NOT NULL PRIMARY KEY,
            secret_sha256 TEXT NOT NULL,
            name TEXT NOT NULL,
            created_at REAL NOT NULL,
            last_used_at REAL NOT NULL,
            expires_at REAL NOT NULL,
            full_name TEXT NOT NULL,
            mail TEXT NOT NULL,
            issuer TEXT NOT NULL,
            subject TEXT NOT NULL,
            "groups" TEXT NOT NULL,
            roles TEXT NOT NULL,
            teams TEXT NOT NULL
        )""",
        """CREATE TABLE login_links (
            id TEXT NOT NULL PRIMARY KEY,
            secret_sha256 TEXT NOT NULL,
            name TEXT NOT NULL,
            created_by TEXT NOT NULL,
            expires_at REAL NOT NULL,
            roles TEXT NOT NULL,
            teams TEXT NOT NULL
        )""",
    ),
    (
        # What a browser called itself, for the person who looks at its sessions.
        "ALTER TABLE sessions ADD COLUMN client TEXT NOT NULL DEFAULT ''",
    ),
)

STATE: Final[Migrations] = (
    (
        """CREATE TABLE publication (
            slot TEXT NOT NULL PRIMARY KEY CHECK (slot IN ('newest', 'confirmed')),
            generation INTEGER NOT NULL,
            revision TEXT NOT NULL,
            published_at REAL NOT NULL,
            confirmed INTEGER NOT NULL,
            document TEXT NOT NULL
        )""",
        """CREATE TABLE approvals (
            checksum TEXT NOT NULL PRIMARY KEY,
            approved_by TEXT NOT NULL,
            approved_at REAL NOT NULL
        )""",
        """CREATE TABLE records (
            revision TEXT NOT NULL PRIMARY KEY,
            generation INTEGER,
            state TEXT NOT NULL,
            reason TEXT NOT NULL,
            message TEXT NOT NULL,
            updated_at REAL NOT NULL,
            plan TEXT,
            document TEXT NOT NULL
        )""",
        # Apart from the record: a plan may be large, and is written once while its record is written at every stage.
        "CREATE TABLE plans (revision TEXT NOT NULL PRIMARY KEY, checksum TEXT NOT NULL, document TEXT NOT NULL)",
        "CREATE INDEX records_newest ON records (updated_at)",
        """CREATE TABLE observations (
            name TEXT NOT NULL PRIMARY KEY,
            connected INTEGER NOT NULL,
            last_seen REAL NOT NULL,
            document TEXT NOT NULL
        )""",
        """CREATE TABLE events (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            time REAL NOT NULL,
            type TEXT NOT NULL,
            severity TEXT NOT NULL,
            subject TEXT NOT NULL,
            message TEXT NOT NULL,
            revision TEXT NOT NULL,
            actor TEXT NOT NULL
        )""",
        "CREATE INDEX events_subject ON events (subject, id)",
        "CREATE INDEX events_time ON events (time)",
        # Ids start at the time of creation in milliseconds: a reader that remembers an id of a lost database
        # still gets everything that happens after it. 2**53, where JSON's numbers end, is far away.
        """INSERT INTO sqlite_sequence (name, seq)
            VALUES ('events', CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))""",
    ),
)

HISTORY: Final[Migrations] = (
    (
        # One row holds the points of all metrics of a subject for a while, see reconciler.store.downsampling.
        """CREATE TABLE chunks (
            subject TEXT NOT NULL,
            tier INTEGER NOT NULL,
            start INTEGER NOT NULL,
            data BLOB NOT NULL,
            PRIMARY KEY (subject, tier, start)
        )""",
        "CREATE INDEX chunks_age ON chunks (tier, start)",
        # Up to where everything of a tier stands in the next one too.
        "CREATE TABLE folded (tier INTEGER NOT NULL PRIMARY KEY, until INTEGER NOT NULL)",
    ),
)

FORGES: Final[Migrations] = (
    (
        # What a forge shows for a commit, and the branches that still need a pull request (docs/pull-requests.md).
        """CREATE TABLE shown (
            revision TEXT NOT NULL PRIMARY KEY,
            state TEXT NOT NULL,
            description TEXT NOT NULL,
            url TEXT NOT NULL,
            at REAL NOT NULL,
            sure INTEGER NOT NULL
        )""",
        """CREATE TABLE proposed (
            branch TEXT NOT NULL PRIMARY KEY,
            base TEXT NOT NULL,
            title TEXT NOT NULL,
            body TEXT NOT NULL,
            at REAL NOT NULL
        )""",
    ),
)

NOTICES: Final[Migrations] = (
    (
        # What is wrong and who was told, what waits to be told, and up to where the timeline was read.
        """CREATE TABLE conditions (
            subject TEXT NOT NULL,
            type TEXT NOT NULL,
            document TEXT NOT NULL,
            PRIMARY KEY (subject, type)
        )""",
        """CREATE TABLE notices (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            channel TEXT NOT NULL,
            document TEXT NOT NULL
        )""",
        "CREATE TABLE place (one INTEGER NOT NULL PRIMARY KEY CHECK (one = 1), event INTEGER NOT NULL)",
    ),
)


class Schema(NamedTuple):
    """What a database file must look like, and what to tell a person when it does not."""

    file: str
    migrations: Migrations
    disposable: bool
    """True where losing the file only costs a rebuild."""


OUTBOX_SCHEMA: Final = Schema("outbox.db", OUTBOX, disposable=False)
STATE_SCHEMA: Final = Schema("state.db", STATE, disposable=True)
HISTORY_SCHEMA: Final = Schema("history.db", HISTORY, disposable=True)
FORGES_SCHEMA: Final = Schema("forges.db", FORGES, disposable=True)
NOTICES_SCHEMA: Final = Schema("notices.db", NOTICES, disposable=True)


def migrate(connection: sqlite3.Connection, schema: Schema) -> None:
    """Bring an open database (autocommit mode) to the newest version, one transaction a version.

    Raises Broken when a newer program wrote it, sqlite3.Error as SQLite says it.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    newest = len(schema.migrations)
    if version > newest:
        way_out = " or delete the file: it is rebuilt" if schema.disposable else ""
        raise Broken(
            f"{schema.file} was written by a newer version of CloudLunacy"
            f" (schema {version}, this program knows {newest}).",
            hint=f"Start the newer version again{way_out}.",
        )
    for number in range(version + 1, newest + 1):
        _step(connection, number, schema.migrations[number - 1])


def _step(connection: sqlite3.Connection, number: int, statements: tuple[str, ...]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number:d}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
