"""What the schedule remembers, as one JSON file. Losing it costs the count of orders; the server still has its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from reconciler.errors import Broken
from reconciler.pki.acme.schedule import Ledger
from reconciler.pki.private_files import write_private

_LEDGERS: Final = TypeAdapter(Ledger)
MAX_BYTES: Final = 16 * 1024 * 1024


def to_json(ledger: Ledger) -> bytes:
    """Write a ledger; times are RFC 3339."""
    return _LEDGERS.dump_json(ledger, indent=1)


def from_json(text: bytes, directory: str) -> Ledger | None:
    """Read what :func:`to_json` wrote; None for anything else. A ledger of another directory is worth nothing here."""
    try:
        ledger = _LEDGERS.validate_json(text)
    except ValidationError:
        return None
    return ledger if ledger.directory == directory else Ledger(directory)


class LedgerFile:
    """A ledger on the disk, mode 0600, replaced in one step."""

    def __init__(self, path: Path, directory: str) -> None:
        self._path = path
        self._directory = directory
        self._saving = asyncio.Lock()

    def load(self) -> Ledger:
        """Read the file. One that is damaged is put aside, under a name that says when: nothing in it is worth a halt.

        Raises:
            Broken: it cannot be read.
        """
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return Ledger(self._directory)
        except OSError as error:
            raise Broken(f"{self._path} cannot be read: {error.strerror}.") from error
        ledger = from_json(text, self._directory) if len(text) <= MAX_BYTES else None
        if ledger is None:
            moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            self._path.replace(self._path.with_name(f"{self._path.name}.damaged-{moment}"))
            return Ledger(self._directory)
        return ledger

    async def save(self, ledger: Ledger) -> None:
        """Keep ``ledger``, durably.

        Raises:
            Broken: it cannot be written.
        """
        async with self._saving:
            try:
                await asyncio.to_thread(write_private, self._path, to_json(ledger))
            except OSError as error:
                raise Broken(f"{self._path} cannot be written: {error.strerror}.") from error
