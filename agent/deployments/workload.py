"""What is to run, and the names and labels by which it is known again. PURE.

The digest of a :class:`Workload` covers what an instance is made of. Roll-out, health check, the list of agents, the
deletion policy and the way to the image are left out: a change of them restarts nothing. What failed has another chance
when its health check, its roll-out or the way to its image is changed, for it may have been that which was wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from pydantic import ValidationError

from schemas.deployment import DeploymentSpec
from schemas.names import seconds
from schemas.session import Item, digest_of

KIND: Final = "Deployment"
Slot = Literal["a", "b", "c"]
SLOTS: Final[tuple[Slot, ...]] = ("a", "b", "c")
"""Instances of one deployment that may be there at once: serving, becoming, and one that fronts may still ask."""

LABEL_AGENT: Final = "io.cloudlunacy.agent"
LABEL_TEAM: Final = "io.cloudlunacy.team"
LABEL_DEPLOYMENT: Final = "io.cloudlunacy.deployment"
LABEL_DIGEST: Final = "io.cloudlunacy.digest"
LABEL_SLOT: Final = "io.cloudlunacy.slot"
LABEL_VOLUME: Final = "io.cloudlunacy.volume"

_MADE_OF: Final = frozenset(
    {
        "type",
        "image",
        "command",
        "env",
        "secrets",
        "secret_files",
        "user",
        "ports",
        "volumes",
        "tmpfs",
        "resources",
        "stop_grace",
        "mongodb",
    }
)
_JUDGED_BY: Final = frozenset({"health_check", "rollout", "pull_policy", "registry"})
_LONGEST_NAME: Final = 200
"""Characters of a name; a volume's is a file name, which ends at 255 bytes."""


class Key(NamedTuple):
    """A deployment on this agent."""

    team: str
    name: str

    def __str__(self) -> str:
        return f"{self.team}/{self.name}"


class InvalidItem(Exception):
    """An item that this version of the agent cannot read; the text is for people."""


@dataclass(frozen=True, slots=True)
class Workload:
    key: Key
    spec: DeploymentSpec
    secrets_version: str = ""
    """Of the sealed values that it is given; another one means another instance."""
    restart: str = ""
    """Id of the command that had it made anew; another one means another instance."""
    version: str = field(init=False)
    """Digest of what is wanted: restarts are left out."""
    digest: str = field(init=False)
    """Of what an instance is made of."""
    trial: str = field(init=False)
    """Digest of that and of what it is judged by."""

    def __post_init__(self) -> None:
        # without what is as usual: a newer version of the agent, which knows further fields, restarts nothing
        spec = self.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=set(_MADE_OF))
        judged = self.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, include=set(_JUDGED_BY))
        version = digest_of([spec, self.secrets_version])
        object.__setattr__(self, "version", version)
        object.__setattr__(self, "digest", digest_of([version, self.restart]) if self.restart else version)
        object.__setattr__(self, "trial", digest_of([self.digest, judged]))

    @property
    def blue_green(self) -> bool:
        return self.spec.rollout.strategy == "blue-green"

    @property
    def deadline(self) -> float:
        """Seconds for an instance to become healthy after it was started."""
        return seconds(self.spec.rollout.deadline)

    @property
    def delete_data(self) -> bool:
        return self.spec.deletion_policy == "delete"


def key_of(item_id: str) -> Key:
    """Read the id of an item of this kind.

    Raises:
        InvalidItem
    """
    parts = item_id.split("/")
    if len(parts) != 3 or parts[0] != KIND or not all(parts):
        raise InvalidItem(f"An item of kind {KIND} has another id.")
    return Key(parts[1], parts[2])


def workload_of(item: Item, secrets_version: str = "") -> Workload:
    """Read an item.

    Raises:
        InvalidItem
    """
    key = key_of(item.id)
    try:
        return Workload(key, DeploymentSpec.model_validate(item.spec), secrets_version)
    except ValidationError as error:
        text = f"{error.error_count()} fields are not as this version of the agent knows them; upgrade the agent."
        raise InvalidItem(text) from None


def engine_name(*parts: str) -> str:
    """Return the name of an object in the engine. Names have no underscore, so no two lists of parts share one."""
    name = "_".join(("cloudlunacy", *parts))
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 17]}_{hashlib.sha256(name.encode()).hexdigest()[:16]}"


def owner_labels(agent: str, key: Key) -> dict[str, str]:
    """Return the labels of everything that an agent makes for a deployment."""
    return {LABEL_AGENT: agent, LABEL_TEAM: key.team, LABEL_DEPLOYMENT: key.name}


def instance_labels(agent: str, workload: Workload, slot: Slot) -> dict[str, str]:
    return {**owner_labels(agent, workload.key), LABEL_DIGEST: workload.digest, LABEL_SLOT: slot}


def owner_of(labels: Mapping[str, str], agent: str) -> Key | None:
    """Return whose something is; None for what is not this agent's."""
    team, name = labels.get(LABEL_TEAM), labels.get(LABEL_DEPLOYMENT)
    if labels.get(LABEL_AGENT) != agent or not team or not name:
        return None
    return Key(team, name)


def workload_to_json(workload: Workload) -> dict[str, Any]:
    spec = workload.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "team": workload.key.team,
        "name": workload.key.name,
        "spec": spec,
        "secretsVersion": workload.secrets_version,
        **({"restart": workload.restart} if workload.restart else {}),
    }


def workload_from_json(found: Mapping[str, Any]) -> Workload:
    """Raises KeyError, TypeError or ValueError (a ValidationError is one) for what is none."""
    spec = DeploymentSpec.model_validate(found["spec"])
    key, restart = Key(str(found["team"]), str(found["name"])), str(found.get("restart", ""))
    return Workload(key, spec, str(found["secretsVersion"]), restart)
