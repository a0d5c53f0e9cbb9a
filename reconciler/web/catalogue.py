"""Names of everything in service, in order: made once for each state, so that a page costs what is on it."""

from __future__ import annotations

from collections.abc import Sequence

from reconciler.desired.state import State
from schemas.objects import Kind, ObjectKey


class Catalogue:
    """Remembers that of the newest state that it was asked about."""

    def __init__(self) -> None:
        self._state: State | None = None
        self._keys: dict[str, ObjectKey] = {}
        self._paths: Sequence[str] = ()
        self._names: dict[Kind, tuple[Sequence[str], dict[str, ObjectKey]]] = {}

    def paths(self, state: State) -> tuple[Sequence[str], dict[str, ObjectKey]]:
        """Return the paths of all objects in service, in order, and path → key."""
        self._look(state)
        return self._paths, self._keys

    def names(self, state: State, kind: Kind) -> tuple[Sequence[str], dict[str, ObjectKey]]:
        """Return names of one kind (``team/name``, or the name alone), in order, and name → key."""
        self._look(state)
        if kind not in self._names:
            keys = {"/".join(filter(None, key[1:])): key for key in state.served if key.kind == kind}
            self._names[kind] = (sorted(keys), keys)
        return self._names[kind]

    def _look(self, state: State) -> None:
        if state is not self._state:
            self._keys = {key.path: key for key in state.served}
            self._state, self._paths, self._names = state, sorted(self._keys), {}
