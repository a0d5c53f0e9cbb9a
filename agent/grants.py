"""What this machine lets the fleet do to it: ``<data>/grants.toml``, written by whoever looks after the machine.

The repository says what a deployment wants; only this file lets the agent write somewhere else, let a group read a key,
signal a process or run a command. Without the file nothing of that is allowed. It counts only if it belongs to root or
to the agent's user and nobody else can write it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas.names import AbsolutePath, Name
from schemas.service_tls import GroupName

FILE: Final = "grants.toml"
_MOST: Final = 64 * 1024
_Absolute = Annotated[str, Field(pattern=r"^/", max_length=512)]
_Argument = Annotated[str, Field(pattern=r"^[^\x00]*$", max_length=4096)]
_Command = Annotated[tuple[_Argument, ...], Field(min_length=1, max_length=64)]


class Denied(Exception):
    """Not allowed on this machine. The message says what, and what to write where."""


class ServiceGrants(BaseModel):
    """The table ``services``."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    directories: tuple[_Absolute, ...] = ()
    groups: tuple[GroupName, ...] = ()
    pid_files: Annotated[tuple[_Absolute, ...], Field(alias="pid-files")] = ()
    commands: dict[Name, _Command] = {}

    def directory(self, wanted: AbsolutePath) -> PurePosixPath:
        """Return the granted directory that ``wanted`` lies below.

        Raises:
            Denied
        """
        return _below(wanted, self.directories, "directories")

    def pid_file(self, wanted: AbsolutePath) -> PurePosixPath:
        """Return the granted directory that ``wanted`` lies below.

        Raises:
            Denied
        """
        return _below(wanted, self.pid_files, "pid-files")

    def group(self, wanted: GroupName) -> None:
        """Raise Denied where the group may not be given keys to read."""
        if wanted not in self.groups:
            raise Denied(f'Group "{wanted}" may not read keys here. List it in {FILE} under groups.')

    def command(self, wanted: Name) -> tuple[str, ...]:
        """Return program and arguments.

        Raises:
            Denied
        """
        found = self.commands.get(wanted)
        if found is None:
            raise Denied(f'There is no command "{wanted}" here. Write it into {FILE} under services.commands.')
        if not found[0].startswith("/"):
            raise Denied(f'Command "{wanted}" does not begin with an absolute path in {FILE}.')
        return found


class Grants(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    services: ServiceGrants = ServiceGrants()


def load(data: Path) -> Grants:
    """Read the file; nothing is granted where there is none.

    Raises:
        Denied: when it cannot be believed or understood, so nothing is granted either.
    """
    path = data / FILE
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_MOST + 1)
    except FileNotFoundError:
        return Grants()
    except OSError as error:
        raise Denied(f"{path} cannot be read: {error.strerror}.") from None
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise Denied(f"{path} may be written by others. It must belong to root or the agent: chmod 644 {path}.")
    if len(content) > _MOST:
        raise Denied(f"{path} is longer than {_MOST} bytes.")
    try:
        return Grants.model_validate(tomllib.loads(content.decode()))
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, one["loc"])) for one in error.errors(include_input=False)[:5])
        raise Denied(f"{path} is not as docs/services.md says: {wrong}.") from None
    except (ValueError, RecursionError) as error:
        raise Denied(f"{path} is no TOML: {str(error)[:200]}.") from None


def _below(wanted: str, granted: Iterable[str], table: str) -> PurePosixPath:
    path = PurePosixPath(wanted)
    for one in map(PurePosixPath, granted):
        if path != one and path.is_relative_to(one) and ".." not in one.parts:
            return one
    raise Denied(f"{wanted} is in no directory that this machine allows. List one in {FILE} under {table}.")
