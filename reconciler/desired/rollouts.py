"""Roll-outs under way: since when each agent's document has which version of a deployment. PURE.

They are part of what is published, beside its state: a document is made of both, so they are stored, given back and
replaced together. A roll-out that is over leaves nothing here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from reconciler.desired.waves import older_spec, version_of
from schemas.objects import ObjectKey
from schemas.session import Item, digest_of


@dataclass(frozen=True, slots=True)
class Older:
    """What an agent's document has in place of the newest item. ``spec`` is None where it has nothing."""

    version: str
    spec: Mapping[str, Any] | None = field(default=None, repr=False)

    @staticmethod
    def of(item: Item) -> Older:
        return Older(version_of(item.spec), item.spec)


NOTHING: Final = Older("")


@dataclass(frozen=True, slots=True)
class Rollout:
    """The way of one deployment to one version. ``revision``: that brought it. ``begun``: POSIX seconds."""

    revision: str
    version: str
    begun: float
    since: Mapping[str, int] = field(default_factory=dict)
    """Agent → generation in which its document got what it has of this deployment, where that is known."""
    held: Mapping[str, Older] = field(default_factory=dict)
    """Agents whose document does not have the newest version → what it has."""
    in_waves: bool = False
    """Somebody had to wait for another, in the roll-out of this version."""

    def item(self, agent: str, newest: Item) -> Item | None:
        """Return the item that an agent's document has, None where it has none."""
        older = self.held.get(agent)
        if older is None:
            return newest
        if older.spec is None:
            return None
        spec = older_spec(older.spec, newest.spec)
        return Item(id=newest.id, kind=newest.kind, digest=digest_of(spec), spec=spec)

    def moved(self, agents: Collection[str], generation: int) -> Rollout:
        """Return it as it is when these agents' documents came anew."""
        touched = {name: generation for name in agents if name in self.since or name in self.held}
        return replace(self, since={**self.since, **touched}) if touched else self


Rollouts = Mapping[ObjectKey, Rollout]
NO_ROLLOUTS: Final[Rollouts] = {}


def items_held(rollouts: Rollouts, agent: str, items: Iterable[tuple[ObjectKey, Item]]) -> tuple[Item, ...]:
    """Return the items of an agent's document, for those that it will have finally."""
    found = (rollouts[key].item(agent, item) if key in rollouts else item for key, item in items)
    return tuple(item for item in found if item is not None)


def rollouts_to_json(rollouts: Rollouts) -> list[dict[str, Any]]:
    """Write them for the store; a version that many agents keep is written once."""
    return [
        {
            "path": key.path,
            "revision": one.revision,
            "version": one.version,
            "begun": one.begun,
            "since": dict(one.since),
            "in_waves": one.in_waves,
            "held": [
                {"version": older.version, "spec": older.spec, "agents": agents}
                for older, agents in _by_version(one.held)
            ],
        }
        for key, one in rollouts.items()
    ]


def _by_version(held: Mapping[str, Older]) -> Iterable[tuple[Older, list[str]]]:
    found: dict[str, tuple[Older, list[str]]] = {}
    for agent, older in held.items():
        found.setdefault(older.version, (older, []))[1].append(agent)
    return found.values()


def rollouts_from_json(
    stored: Iterable[Mapping[str, Any]], key_of: Mapping[str, ObjectKey]
) -> dict[ObjectKey, Rollout]:
    """Read what :func:`rollouts_to_json` wrote. ``key_of``: path → key, of what is in service; the rest is dropped.

    Raises:
        KeyError, TypeError: when it is something else.
    """
    return {
        key_of[one["path"]]: Rollout(
            revision=one["revision"],
            version=one["version"],
            begun=one["begun"],
            since=dict(one["since"]),
            in_waves=one["in_waves"],
            held={name: Older(old["version"], old["spec"]) for old in one["held"] for name in old["agents"]},
        )
        for one in stored
        if one["path"] in key_of
    }
