"""Requests and mirrors for the tests that write to a real remote."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from reconciler.desired.edits import CommitRequest, Edit
from reconciler.git.mirror import GitLimits, Mirror
from reconciler.git.remote import Remote
from reconciler.git.write_back import WriteBack

AGENTS = re.compile(r"agents/[a-z0-9-]+\.yaml")
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def writes(content: bytes | None) -> Edit:
    return lambda _: content


def appends(line: bytes) -> Edit:
    return lambda before: before if before is not None and line in before else (before or b"") + line


def request(identity: str, path: str = "", edit: Edit | None = None, **fields: object) -> CommitRequest:
    return CommitRequest(
        id=identity,
        path=path or f"agents/{identity}.yaml",
        edit=edit or writes(f"name: {identity}\n".encode()),
        subject=f"Enrol {identity}",
        author_name="Agent",
        author_email="agent@example.test",
        time=TIME,
        **fields,  # type: ignore[arg-type]
    )


def open_mirror(tmp_path: Path, url: str | Path, **limits: float) -> Mirror:
    return Mirror(tmp_path / "mirror", Remote.parse(str(url)), "main", limits=GitLimits(**limits))  # type: ignore[arg-type]


def write_back(mirror: Mirror, tries: int = 5) -> WriteBack:
    return WriteBack(mirror, allowed=AGENTS, tries=tries, jitter=lambda _: 0.0)


def run(mirror: Mirror, scenario: Callable[[], Awaitable[None]]) -> None:
    async def scene() -> None:
        try:
            await scenario()
        finally:
            await mirror.close()

    asyncio.run(scene())
