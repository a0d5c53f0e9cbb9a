"""What whoever looks after this machine says of the agent on it: ``<data>/agent.toml`` and the flags of ``agent run``.

The repository says what runs; this says by which means, and at which addresses. Without the file everything has the
value that fits most machines. A flag goes before the file.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.deployments.local_engine import is_there
from agent.deployments.planning import PortRange
from agent.deployments.process_users import OWN
from agent.deployments.shared_directories import SharedDirectory
from agent.keys import Unusable
from schemas.deployment import LARGEST_ID
from schemas.names import Name

FILE: Final = "agent.toml"
OFF: Final = "off"
ENGINES: Final = (Path("/run/docker.sock"), Path("/run/podman/podman.sock"))
"""Where engines listen, in the order in which they are looked for."""
_MOST: Final = 64 * 1024


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text))


class Ports(BaseModel):
    """Ports of this machine for instances that come up beside another; fronts are told of no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    first: Annotated[int, Field(ge=20000, le=29999)] = 20000
    last: Annotated[int, Field(ge=20000, le=29999)] = 29999

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last - self.first < 2:
            raise ValueError("there have to be three ports at least, the first before the last")
        return self

    @property
    def range(self) -> PortRange:
        return PortRange(self.first, self.last)


def _is_no_deployments(user: int) -> int:
    if user in OWN:
        raise ValueError(f"ids from {OWN[0]} to {OWN[-1]} are of deployments that name no user")
    return user


_User = Annotated[int, Field(strict=True, ge=1, le=LARGEST_ID), AfterValidator(_is_no_deployments)]
_Directory = Annotated[str, Field(pattern=r"^/.", max_length=512)]


class Processes(BaseModel):
    """The table ``processes``: what programs that are no containers may be and see (docs/deployments.md)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    run: bool = True
    readable: tuple[_Directory, ...] = ()
    """Directories that they may read, beside the system's own."""
    hidden: tuple[_Directory, ...] = ()
    """Directories within those that they may not; the agent's own is always one."""
    unconfined: bool = False
    """Run them also where bubblewrap cannot confine them: they are then what the agent is."""
    users: dict[Name, Annotated[tuple[_User, ...], Field(min_length=1)]] = {}
    """Ids of users and groups that deployments of a team may name; by itself none."""
    mongod: Annotated[str, Field(min_length=1, max_length=512)] = "mongod"
    """The program that databases run, which are no containers."""
    mongods: dict[str, Annotated[str, Field(pattern=r"^/.", max_length=512)]] = {}
    """In its place for a version, such as 6.0.27, or a release, such as 6.0."""

    def mongod_of(self, version: str) -> str:
        release = ".".join(version.split(".")[:2])
        return self.mongods.get(version) or self.mongods.get(release) or self.mongod

    @property
    def programs(self) -> tuple[str, ...]:
        """What has to be readable besides, so that databases can run it."""
        return tuple(dict.fromkeys(one for one in (self.mongod, *self.mongods.values()) if one.startswith("/")))


class Directory(BaseModel):
    """An entry of the table ``directories``: what containers of some teams may have as a volume."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    path: _Directory
    teams: Annotated[tuple[Name, ...], Field(min_length=1)]
    read_only: Annotated[bool, Field(alias="read-only")] = False


class AgentSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    engine: Annotated[str, Field(pattern=r"^(off|unix:///.+|/.+)$")] | None = None
    """Socket of the container engine, ``off`` for none; by itself the first of :data:`ENGINES` that is there."""
    publish: tuple[Annotated[str, AfterValidator(_address)], ...] = ()
    """Addresses at which ports are published; by itself the agent's own where that is one of this machine, else all."""
    ports: Ports = Ports()
    processes: Processes = Processes()
    directories: dict[Name, Directory] = {}

    @property
    def shared(self) -> dict[str, SharedDirectory]:
        """What the owner shares with containers, by its names."""
        return {
            name: SharedDirectory(one.path, frozenset(one.teams), one.read_only)
            for name, one in self.directories.items()
        }

    @property
    def socket(self) -> Path | None:
        """Where the container engine listens, or will; None where containers are switched off."""
        if self.engine == OFF:
            return None
        if self.engine is not None:
            return Path(self.engine.removeprefix("unix://"))
        return next((path for path in ENGINES if is_there(path)), ENGINES[0])


def load(data: Path, **flags: object) -> AgentSettings:
    """Read the file, and put the flags that were given in place of what it says.

    Raises:
        Unusable: when it cannot be believed or understood: what the machine's owner meant is not known then.
    """
    path = data / FILE
    said = _read(path)
    try:
        return AgentSettings.model_validate({**said, **{name: value for name, value in flags.items() if value}})
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_input=False)[:5]
        )
        raise Unusable(f"{path}, or a flag, is not as docs/deployments.md says: {wrong}.") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_MOST + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Unusable(f"{path} cannot be read: {error.strerror}.") from None
    if status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise Unusable(f"{path} may be written by others. It must belong to root or the agent: chmod 644 {path}.")
    if len(content) > _MOST:
        raise Unusable(f"{path} is longer than {_MOST} bytes.")
    try:
        return tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{path} is no TOML: {str(error)[:200]}.") from None
