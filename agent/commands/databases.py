"""Commands about databases: ``backup``, ``backups`` and ``restore``."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping

from agent.commands.handling import CommandFailed, Handler, Output
from agent.deployments.mongodb_archive import Manifest
from agent.deployments.mongodb_backups import BackupError, Backups, Kept
from agent.deployments.workload import InvalidItem, Key, key_of
from schemas.session import Command


class DatabaseCommands:
    """Arguments of ``restore``: ``archive``, its id; ``confirm``, ``<team>/<name>`` again; ``replace``, ``true`` to say
    that data which is there may go.
    """

    def __init__(self, backups: Backups) -> None:
        self._backups = backups

    def handlers(self) -> Mapping[str, Handler]:
        return {"backup": self.backup, "backups": self.backups, "restore": self.restore}

    async def backup(self, command: Command, output: Output) -> None:
        """Make one now, and say its id."""
        try:
            kept = await self._backups.back_up(_key(command))
        except BackupError as error:
            raise CommandFailed(error.reason, error.message) from None
        await output.write(f"{line_of(kept)}\n")

    async def backups(self, command: Command, output: Output) -> None:
        """Say which there are, a line each, oldest first."""
        for kept in await asyncio.to_thread(self._backups.kept, _key(command)):
            await output.write(f"{line_of(kept)}\n")

    async def restore(self, command: Command, output: Output) -> None:
        """Write one back into the database that it is of."""
        key, said = _key(command), command.arguments
        if said.get("confirm") != str(key):
            raise CommandFailed("NotConfirmed", f"Nothing was touched: to confirm, say {key} again.")
        try:
            path = await asyncio.to_thread(self._backups.path_of, key, said.get("archive", ""))
            replace = said.get("replace") == "true"
            manifest = await self._backups.restore(
                key, path, replace=replace, told=lambda line: output.offer(line.rstrip("\n"))
            )
        except BackupError as error:
            raise CommandFailed(error.reason, error.message) from None
        await output.write(f"Restored {contents_of(manifest)}.\n")


def line_of(kept: Kept) -> str:
    """Return what is said of an archive: id, when, size, what is in it."""
    size = f"{kept.bytes / 2**20:.1f} MiB"
    if kept.manifest is None:
        return f"{kept.id}  {size}  it cannot be read"
    at = dt.datetime.fromtimestamp(kept.manifest.taken_at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    moment = "" if kept.manifest.consistent else ", not of one moment"
    return f"{kept.id}  {at}  {size}  {contents_of(kept.manifest)}{moment}"


def contents_of(manifest: Manifest) -> str:
    return f"{manifest.documents} documents in {len(manifest.collections)} collections of MongoDB {manifest.version}"


def _key(command: Command) -> Key:
    try:
        return key_of(command.item)
    except InvalidItem:
        raise CommandFailed("NotFound", "The command names no deployment.") from None
