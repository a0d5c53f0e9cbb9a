"""The values that a workload takes from secrets. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from schemas.deployment import DeploymentSpec
from schemas.secret import SecretReference


@dataclass(frozen=True, slots=True)
class Given:
    """``values`` by ``<secret>/<key>``, as messages name them; shown nowhere."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)

    def missing(self, spec: DeploymentSpec) -> list[str]:
        """Return what the deployment names and nobody has sent, in order, each once."""
        named = dict.fromkeys(use.id for use in spec.secret_uses())
        return [name for name in named if name not in self.values]

    def environment(self, spec: DeploymentSpec) -> dict[str, str]:
        """Return all variables of a program, those that are written in clear too."""
        return {**spec.env, **{one.env: self.values[f"{one.secret}/{one.key}"] for one in spec.secrets}}

    def files(self, spec: DeploymentSpec) -> dict[str, str]:
        """Return what the files of the deployment hold, by their paths."""
        return {one.path: self.values[f"{one.secret}/{one.key}"] for one in spec.secret_files}

    def value(self, reference: SecretReference) -> str:
        return self.values[f"{reference.name}/{reference.key}"]


NOTHING: Final = Given()
