"""What commands about databases are given, and what they ask before anything is replaced."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from agent.commands.databases import DatabaseCommands
from agent.commands.handling import CommandFailed, Output
from agent.deployments.mongodb_archive import Manifest
from agent.deployments.mongodb_backups import BackupError, Kept
from agent.deployments.workload import Key
from schemas.session import Command, CommandOutput

KEY = Key("shop", "orders")
MANIFEST = Manifest(
    team="shop", deployment="orders", version="6.0.5", feature_version="6.0", taken_at=1e9, reason="asked",
    consistent=True,
)  # fmt: skip
KEPT = Kept("20010909T014640Z-asked", Path("x"), 3 << 20, MANIFEST)


class FakeBackups:
    def __init__(self) -> None:
        self.restored: list[tuple[Key, Path, bool]] = []

    async def back_up(self, key: Key) -> Kept:
        if key != KEY:
            raise BackupError("NotFound", f"There is no database {key} on this agent.")
        return KEPT

    def kept(self, key: Key) -> list[Kept]:
        return [KEPT, KEPT._replace(id="20010910T014640Z-asked", manifest=None)]

    def path_of(self, key: Key, archive: str) -> Path:
        return Path(archive)

    async def restore(self, key: Key, path: Path, *, replace: bool, told: Any) -> Manifest:
        self.restored.append((key, path, replace))
        told("shop.orders: 5 documents\n")
        return MANIFEST


def run(backups: FakeBackups, action: str, item: str = "Deployment/shop/orders", **arguments: str) -> list[str]:
    said: list[CommandOutput] = []
    output = Output("0" * 32, said.append, lambda _: 0)
    commands: Any = DatabaseCommands(backups)  # type: ignore[arg-type]
    command = Command(id="0" * 32, action=action, item=item, arguments=arguments, seconds=60)
    asyncio.run(commands.handlers()[action](command, output))
    return "".join(piece.text for piece in said).splitlines()


LINE = "20010909T014640Z-asked  2001-09-09 01:46:40 UTC  3.0 MiB  0 documents in 0 collections of MongoDB 6.0.5"


def test_backups_are_a_line_each() -> None:
    """Id, time, size and content; one that cannot be read is listed, too."""
    assert run(FakeBackups(), "backup") == [LINE]
    assert run(FakeBackups(), "backups") == [LINE, "20010910T014640Z-asked  3.0 MiB  it cannot be read"]


def test_nothing_is_restored_that_was_not_confirmed() -> None:
    """The name has to be said again, exactly; to replace data is a word of its own."""
    backups = FakeBackups()
    for confirm in ({}, {"confirm": ""}, {"confirm": "shop/web"}, {"confirm": "orders"}):
        with pytest.raises(CommandFailed) as caught:
            run(backups, "restore", archive="one", **confirm)
        assert caught.value.reason == "NotConfirmed"
    assert backups.restored == []
    assert run(backups, "restore", archive="one", confirm="shop/orders")[-1].startswith("Restored 0 documents")
    run(backups, "restore", archive="two", confirm="shop/orders", replace="true")
    assert backups.restored == [(KEY, Path("one"), False), (KEY, Path("two"), True)]


@pytest.mark.parametrize("item", ["Deployment/shop/other", "Certificate/shop/orders", "x"])
def test_what_cannot_be_done_is_said(item: str) -> None:
    """As the end of a command, with a reason."""
    with pytest.raises(CommandFailed) as caught:
        run(FakeBackups(), "backup", item)
    assert caught.value.reason == "NotFound"
