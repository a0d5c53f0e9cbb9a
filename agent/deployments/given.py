"""The values that a workload takes from secrets. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from schemas.deployment import DeploymentSpec
from schemas.secret import SecretReference

_SHORTEST: Final = 4
"""Characters of a value that is looked for in texts; a shorter one is part of any word."""
_SHORTEST_PART: Final = 8
"""The same of a line of a value, or of the end of one; the lines of a file say ``}`` or ``name: x`` too."""
_MASK: Final = "***"


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

    def masked(self, text: str, *, cut: bool = False) -> str:
        """Return a text without the values, and without the lines of a value of several: logs are told line by line.

        ``cut``: it is the end of a text, and may begin in the middle of a value.
        """
        hidden = sorted(self._hidden(), key=len, reverse=True)
        if cut:
            text = _without_beginning(hidden, text)
        for one in hidden:
            text = text.replace(one, _MASK)
        return text

    def _hidden(self) -> set[str]:
        whole = {value for value in self.values.values() if len(value) >= _SHORTEST}
        lines = {line.strip() for value in whole for line in value.splitlines()}
        return whole | {line for line in lines if len(line) >= _SHORTEST_PART}

    def value(self, reference: SecretReference) -> str:
        return self.values[f"{reference.name}/{reference.key}"]


def _without_beginning(hidden: Iterable[str], text: str) -> str:
    """Take out the end of a value that a text begins with."""
    for one in hidden:
        for length in range(min(len(one), len(text)), _SHORTEST_PART - 1, -1):
            if one.endswith(text[:length]):
                return f"{_MASK}{text[length:]}"
    return text


NOTHING: Final = Given()
