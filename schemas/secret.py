"""A sealed secret (``secrets/<team>/<name>.yaml``)."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, StringConstraints

from schemas.base import Document, Model
from schemas.names import AbsolutePath, EnvName, Name

SealedValue = Annotated[
    str,
    StringConstraints(
        pattern=r"^-----BEGIN AGE ENCRYPTED FILE-----\n[A-Za-z0-9+/=\n]+\n-----END AGE ENCRYPTED FILE-----\n?$",
        max_length=65_536,
    ),
    Field(description="One value, encrypted with age to the fleet's recipients, in ASCII armour."),
]
SecretKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]


class SecretSpec(Model):
    sealed: Annotated[dict[SecretKey, SealedValue], Field(min_length=1, max_length=64)]
    """Key → sealed value. Only the control plane can open it."""


class Secret(Document):
    kind: Literal["Secret"]
    spec: SecretSpec


class SecretReference(Model):
    """One value of a secret of the same team."""

    name: Name
    key: SecretKey


class SecretEnv(Model):
    """An environment variable that takes its value from a secret of the same team."""

    env: EnvName
    secret: Name
    key: SecretKey


class SecretFile(Model):
    """A file that holds a value of a secret of the same team: in memory, readable for the workload's user alone."""

    path: AbsolutePath
    secret: Name
    key: SecretKey


class SecretUse(NamedTuple):
    """One place of a document where a value of a secret is named."""

    secret: str
    key: str
    field: tuple[str | int, ...]
    """Of the object that names both; the key is its member ``key``."""
    member: Literal["secret", "name"]
    """Of that object: where the secret is named."""

    @property
    def id(self) -> str:
        """How messages name the value: ``<secret>/<key>``."""
        return f"{self.secret}/{self.key}"
