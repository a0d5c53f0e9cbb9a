"""A machine that was away while what it verifies with was replaced as known to others: what to do, and a note of it.

Only a new enrolment helps, because whatever could tell this machine of the new root or keys is signed by what it does
not know. The note is for ``agent status``, which asks nobody; it goes with the next connection, or an enrolment.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

FILE_NAME: Final = "left-behind.json"
_MOST: Final = 4096


def way_back(name: str) -> str:
    """Return the sentence that says what to do."""
    made = f"cloudlunacy token create --agent {name}"
    return (
        "If it was replaced while this machine was away, enrol this machine again: "
        f"{made} on the control plane, then here cloudlunacy agent enrol with that token and the same --data, "
        "and start the agent anew."
    )


class Note:
    """The note, in the data directory. A disk that takes none stops nobody: the log says the same."""

    def __init__(self, data: Path) -> None:
        self._path = data / FILE_NAME
        self._written = read(data)

    def write(self, why: str) -> None:
        """Note why nothing new is taken here; a second time changes nothing."""
        if why == self._written:
            return
        aside = self._path.with_name(f".{FILE_NAME}.new")
        try:
            aside.write_text(json.dumps({"why": why}), encoding="utf-8")
            aside.replace(self._path)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error.strerror)
        self._written = why

    def clear(self) -> None:
        """Forget it."""
        if self._written:
            self._written = ""
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s cannot be removed: %s", self._path, error.strerror)


def read(data: Path) -> str:
    """Return why nothing new is taken here, "" where nothing is known of that."""
    try:
        with (data / FILE_NAME).open("rb") as file:
            said = json.loads(file.read(_MOST))
    except (OSError, ValueError, RecursionError):
        return ""
    why = said.get("why") if isinstance(said, dict) else None
    return why if isinstance(why, str) and why.isprintable() else ""
