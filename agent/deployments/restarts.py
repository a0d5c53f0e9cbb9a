"""Which deployments were made anew at somebody's word: ``<data>/deployments/restarts.json``, mode 0600.

A restart is the roll-out of the same version under the id of its command: the fresh instance has to become healthy as
any other, with its strategy and its deadline, and where it does not the former one goes on. The id is kept, for without
it the next look would find an instance that nobody wants. It counts for exactly the version that it was asked for.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

from agent.deployments.memory import FOLDER
from agent.deployments.workload import Key, Workload
from agent.keys import write_private

log = logging.getLogger(__name__)

FILE: Final = "restarts.json"


class Restart(NamedTuple):
    version: str
    """Of the workload, see :attr:`Workload.version`."""
    command: str


class Standing(NamedTuple):
    """How far a restart is; ``reason`` and ``message`` as in the result of an item."""

    state: Literal["under way", "done", "failed"]
    reason: str = ""
    message: str = ""


class Restarts:
    """``load`` and ``save`` block."""

    def __init__(self, data: Path) -> None:
        self._path = data / FOLDER / FILE
        self._asked: dict[Key, Restart] = {}

    def load(self) -> None:
        """Take up what an earlier process was asked; a file that cannot be read is as good as none."""
        try:
            found = json.loads(self._path.read_bytes())
            read = {
                Key(str(team), str(name)): Restart(str(version), str(command)) for team, name, version, command in found
            }
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError) as error:
            log.warning("what was restarted cannot be read: %s", type(error).__name__)
            return
        self._asked = {**read, **self._asked}

    def save(self) -> None:
        """Raises OSError."""
        rows = [[*key, *restart] for key, restart in sorted(self._asked.items())]
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._path, json.dumps(rows).encode())

    def on(self, workload: Workload) -> Workload:
        """Return the workload as it is wanted by now."""
        asked = self._asked.get(workload.key)
        if asked is None or asked.version != workload.version:
            return workload
        return replace(workload, restart=asked.command)

    def command(self, workload: Workload) -> str:
        """Return the command that had this version made anew last; empty: none."""
        return self.on(replace(workload, restart="")).restart

    def ask(self, workload: Workload, command: str) -> None:
        """Note a restart; without a command that there is none."""
        self._asked.pop(workload.key, None)
        if command:
            self._asked[workload.key] = Restart(workload.version, command)

    def keep(self, wanted: Collection[Key]) -> None:
        """Forget what is no deployment here any more."""
        self._asked = {key: one for key, one in self._asked.items() if key in wanted}

    @property
    def keys(self) -> tuple[Key, ...]:
        """Deployments that were made anew."""
        return tuple(self._asked)
