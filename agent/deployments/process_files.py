"""Where the process driver keeps what, and the two small files by which agent and keeper know of each other.

```
<data>/processes/
  changes                       named pipe: a keeper writes a byte into it when something has changed
  <team>/<deployment>/
    volumes/<volume>/           data, which outlives every instance
    <slot>/                     one instance
      record.json               what it is made of, with its secrets; mode 0600, written once, by the agent
      status.json               how it is; written by the keeper
      lock                      held by the keeper as long as it lives
      kept                      there once the instance was good: from then on the keeper starts it again
      log, log.1, log.2         what it wrote
      tmp/                      its /tmp and its home
```

An instance appears and goes by the renaming of its directory, and both files are replaced in one step, so that whoever
is cut off leaves no half of anything. The keeper imports this: standard library only, and little of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from agent.deployments.process_entry import Entry

FOLDER: Final = "processes"
CHANGES: Final = "changes"
VOLUMES: Final = "volumes"
RECORD: Final = "record.json"
STATUS: Final = "status.json"
LOCK: Final = "lock"
KEPT: Final = "kept"
LOG: Final = "log"
TMP: Final = "tmp"
MARKER: Final = "CLOUDLUNACY_INSTANCE"
"""Variable by which what is left of an instance is known again. Its value is random: nobody else has it."""
ENVIRONMENT: Final = "@env"
"""Stands for a descriptor with the environment of a confined program, as arguments of bubblewrap."""
_FLOCK: Final = "hhqqi4x"
"""``struct flock`` of Linux with 64-bit offsets."""


class Program(NamedTuple):
    """What a keeper runs."""

    argv: list[str]
    env: dict[str, str]
    directory: str
    """Where it begins; of a confined one its confinement says where."""
    confined: bool
    """By bubblewrap, which is then the first of ``argv``."""
    grace: float
    """Seconds between SIGTERM and SIGKILL."""
    limits: dict[str, int]
    """Name of a limit of :mod:`resource` → value."""
    cgroup: str
    """Directory of its control group; empty where there is none."""
    files: list[str]
    """Contents of secret files; ``argv`` has ``@0`` for a descriptor of the first one."""
    owner: list[int]
    """User and group that the keeper becomes before it executes anything; empty where it stays who it is."""
    sources: list[str]
    hidden: list[str]
    """Both for :class:`agent.deployments.process_entry.Entry`."""

    @property
    def entry(self) -> Entry | None:
        return Entry(self.owner[0], self.owner[1], self.sources, self.hidden) if self.owner else None

    @property
    def first_env(self) -> dict[str, str]:
        """What bubblewrap itself is started with: nothing of a tenant, whose words could change what it does."""
        return {"PATH": os.defpath, MARKER: self.env[MARKER]} if self.confined else self.env


class Record(NamedTuple):
    id: str
    digest: str
    ports: dict[int, int]
    program: Program
    inside: list[str]
    """What stands before a command that is run where the program runs."""

    @classmethod
    def read(cls, directory: Path) -> Record:
        """Raises OSError, or ValueError for what is none."""
        try:
            found = json.loads((directory / RECORD).read_bytes())
            ports = {int(one): int(other) for one, other in found["ports"].items()}
            program = Program(**{name: found["program"][name] for name in Program._fields})
            return cls(str(found["id"]), str(found["digest"]), ports, program, [str(one) for one in found["inside"]])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no record: {type(error).__name__}") from None

    def write(self, directory: Path) -> None:
        """Raises OSError."""
        found = {**self._asdict(), "program": self.program._asdict()}
        replace(directory / RECORD, json.dumps(found).encode(), durable=True)


class Status(NamedTuple):
    """How an instance is, as its keeper saw it last."""

    state: str
    """``running``, ``restarting`` or ``exited``."""
    started: str = ""
    """Another text after each start."""
    pid: int = 0
    """Of the program, or of what confines it; 0 while it does not run."""
    restarts: int = 0
    exit_code: int | None = None
    killed: bool = False
    ran: float | None = None
    """Seconds."""

    @classmethod
    def read(cls, directory: Path) -> Status | None:
        """Return None where nothing readable is there."""
        try:
            found: dict[str, Any] = json.loads((directory / STATUS).read_bytes())
            return cls(**found)
        except (OSError, ValueError, TypeError):
            return None

    def write(self, directory: Path) -> None:
        """Raises OSError. It is about running programs, so it need not outlive the machine's power."""
        replace(directory / STATUS, json.dumps(self._asdict()).encode())


def replace(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace a file in one step, mode 0600. Raises OSError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        if durable:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    aside.replace(path)


@contextlib.contextmanager
def opened(argv: list[str], program: Program) -> Iterator[tuple[list[str], list[int]]]:
    """Give words with descriptors of files in memory, and these, which are closed at the end.

    The environment goes to bubblewrap by such a file too, for the program that it executes at last.
    """
    variables = "".join(f"--setenv\0{name}\0{value}\0" for name, value in program.env.items())
    contents = {f"@{number}": content for number, content in enumerate(program.files)} | {ENVIRONMENT: variables}
    named: dict[str, str] = {}
    descriptors: list[int] = []
    try:
        for word, content in contents.items() if program.confined else ():
            descriptors.append(os.memfd_create("secret", 0))
            named[word] = str(descriptors[-1])
            with open(descriptors[-1], "wb", closefd=False) as file:
                file.write(content.encode())
            os.lseek(descriptors[-1], 0, os.SEEK_SET)
        yield [named.get(word, word) if index and argv[index - 1] in ("--file", "--args") else word
               for index, word in enumerate(argv)], descriptors  # fmt: skip
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def take_lock(directory: Path) -> bool:
    """Hold the lock of an instance until this process ends; False where another one does. Raises OSError."""
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return False
    return True


def holder(directory: Path) -> int:
    """Return the process id of the keeper, 0 where there is none.

    It is the kernel that says who holds the lock, so it is the keeper's whatever a file says, and whoever had the same
    process id before.
    """
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    finally:
        os.close(descriptor)
    return int(pid) if kind != fcntl.F_UNLCK else 0
