"""TLS of what a deployment runs: a certificate of the fleet's own authority, whose key is made on the agent and stays.

``spec.tls`` of a Deployment says what is wanted; :class:`ServiceCertificate` is what an agent is told, names resolved:
the spec of the item ``Certificate/<team>/<deployment>`` in its document. On the agent they are the files of
docs/services.md.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from schemas.base import Model
from schemas.names import NAME_PATTERN, AbsolutePath, Duration, HostPattern, Name, seconds

SHORTEST: Final = 3600.0
LONGEST: Final = 2160 * 3600.0
"""Seconds that the certificate of a service may live."""

_NAME: Final = NAME_PATTERN.strip("^$")
DEEPEST: Final = 16
"""Parts of a directory's path."""
_NUMBERED: Final = re.compile(r"\.[0-9]+\Z")
_SERVICE_ITEM: Final = re.compile(rf"Certificate/({_NAME})/({_NAME})")


def _is_no_name_of_the_agents_own(directory: str) -> str:
    """Beside ``<directory>`` the agent has ``<directory>.<n>`` and ``.<directory>.<word>`` (docs/services.md)."""
    last = directory.rpartition("/")[2]
    if last.startswith(".") or _NUMBERED.search(last):
        raise ValueError("its last part may not begin with a dot, or end in a dot and digits: agents use such names")
    if directory.count("/") > DEEPEST:
        raise ValueError(f"a directory is at most {DEEPEST} parts deep")
    return directory


ServiceDirectory = Annotated[AbsolutePath, AfterValidator(_is_no_name_of_the_agents_own)]
GroupName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$"),
    Field(description="A group of the agent's operating system."),
]
KeyType = Literal["p-256", "p-384", "rsa-2048", "rsa-4096"]


class Reload(Model):
    """Whom to tell of a new certificate: a process by signal, or a command."""

    signal: Literal["HUP", "USR1", "USR2"] | None = None
    """Sent to the process whose id is in ``pidFile``."""
    pid_file: AbsolutePath | None = None
    """On the agent, in a directory that its own configuration lists."""
    command: Name | None = None
    """Name of a command of the agent's own configuration; what it runs is said there and nowhere else."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.command is None) == (self.signal is None):
            raise ValueError("write either signal with pidFile, or command")
        if (self.signal is None) != (self.pid_file is None):
            raise ValueError("signal and pidFile go together")
        return self


class Installation(Model):
    """Where an agent puts a certificate, and whom it tells."""

    directory: ServiceDirectory | None = None
    """On the agent, one that its own configuration lists. Without it services/<team>/<deployment> in the agent's data
    directory, which only the agent's user can read."""
    group: GroupName | None = None
    """Group that may read the key, one that the agent's own configuration lists. Without it only the agent's user."""
    reload: Reload | None = None
    """Without it nobody is told, and the service finds the new files by itself."""

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        if self.group is not None and self.directory is None:
            raise ValueError("group needs directory: nobody but the agent's user gets into its data directory")
        return self


class ServiceTLS(Installation):
    """A certificate for each agent that the deployment runs on. It is renewed at half its life, with a new key."""

    dns_names: Annotated[tuple[HostPattern, ...], Field(max_length=50)] = ()
    """Further names, besides <agent>.agents.<domain> and <deployment>.<agent>.agents.<domain>: hosts that routes of the
    same team send to this deployment."""
    lifetime: Duration = "168h"
    """From 1h to 2160h."""
    key_type: KeyType = "p-256"
    """Another than p-256 only for programs that cannot read it."""

    @model_validator(mode="after")
    def _lives_long_enough(self) -> Self:
        if not SHORTEST <= seconds(self.lifetime) <= LONGEST:
            raise ValueError("lifetime is from 1h to 2160h")
        return self


class ServiceCertificate(Installation):
    """What an agent is told: the certificate that it shall hold for one deployment."""

    dns_names: Annotated[tuple[HostPattern, ...], Field(min_length=1, max_length=60)]
    """In order of name."""
    lifetime: Duration
    key_type: KeyType = "p-256"


def ways_to(directory: str) -> tuple[str, ...]:
    """Return every path at which another service's directory would hold ``directory``, itself included.

    Those are the paths that lead to it and, for a part such as ``orders.7``, the ``orders`` whose files lie there. Case
    is folded: not every file system tells it.
    """
    parts = directory.lower().split("/")
    paths = ["/".join(parts[:number]) for number in range(2, len(parts) + 1)]
    return tuple(dict.fromkeys([*paths, *(_NUMBERED.sub("", path) for path in paths)]))


def meet(one: str, other: str) -> bool:
    """Say whether two directories are one, or one lies within the other, so that only one service may have them."""
    return one.lower() in ways_to(other) or other.lower() in ways_to(one)


def service_item_id(team: str, deployment: str) -> str:
    """Return the id of the item that tells an agent of a deployment's certificate."""
    return f"Certificate/{team}/{deployment}"


def service_of(item_id: str) -> tuple[str, str] | None:
    """Return team and deployment of such an id; None for any other, such as that of a Certificate object."""
    match = _SERVICE_ITEM.fullmatch(item_id)
    return None if match is None else (match[1], match[2])
