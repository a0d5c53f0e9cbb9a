"""A sealed secret (``secrets/<team>/<name>.yaml``)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from schemas.base import Document, Model
from schemas.names import EnvName, Name

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
