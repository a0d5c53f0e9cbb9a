"""What an agent's document holds: itself, what is meant for it, and the certificates that its services shall hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from reconciler.desired.releases import NO_RELEASES, Releases
from reconciler.desired.rollouts import NO_ROLLOUTS, Rollouts, items_held
from reconciler.desired.secrets_version import secrets_version
from reconciler.desired.service_names import ServiceNames
from reconciler.desired.state import State
from schemas.agent import Agent
from schemas.certificate import Certificate
from schemas.deployment import Deployment
from schemas.objects import FLEET_KEY, AnyObject, ObjectKey
from schemas.service_tls import ServiceCertificate, service_item_id
from schemas.session import EXEC, FEATURES, OFFERS, RELEASED, SECRETS_VERSION, Item, digest_of
from schemas.trust import MEMBER

MakeItems = Callable[[], tuple[Item, ...]]


class AgentItems:
    """Items by agent, for one state. ``trust``: what every agent is told of whom to believe (``schemas.trust``).

    ``rollouts`` says which agents keep an older version of a deployment for now, ``releases`` whose data may go.
    """

    def __init__(
        self,
        state: State,
        trust: Mapping[str, Any] | None = None,
        rollouts: Rollouts = NO_ROLLOUTS,
        releases: Releases = NO_RELEASES,
    ) -> None:
        self._state = state
        self._releases = releases
        self._rollouts = rollouts
        self._exec = state.fleet.spec.commands.exec if state.fleet is not None else ()
        self._more = _more(trust, self._exec)
        """What every agent's own item says besides what its file does."""
        self._names = ServiceNames(state)
        self._selecting: dict[str, list[ObjectKey]] | None = None

    def of(self, agent: str) -> tuple[Item, ...]:
        """Return the items of an agent in order of their objects; empty where the agent is not in service."""
        key = ObjectKey("Agent", "", agent)
        if key not in self._state.served:
            return ()
        keys = sorted(self._keys(key))
        items = items_held(self._rollouts, agent, ((one, self._item(one)) for one in keys))
        return (*items, *_service_items(self._services(agent, keys)))

    def newest(self, key: ObjectKey) -> Item:
        """Return the item of an object in service, as each agent that it concerns will have it finally."""
        return self._item(key)

    def maker(self, agent: str) -> MakeItems:
        """Return what makes the items that :meth:`of` returns, for whoever may never ask for them.

        It keeps the objects that it needs and not the state, which lives as long as no newer one is published.
        """
        key = ObjectKey("Agent", "", agent)
        keys = sorted(self._keys(key)) if key in self._state.served else []
        objects = [
            (one, self._state.served[one].object, self._own(agent) if one == key else self._secrets(one))
            for one in keys
        ]
        rollouts = {one: self._rollouts[one] for one in keys if one in self._rollouts}
        return partial(_items, agent, objects, self._services(agent, keys), rollouts)

    def _services(self, agent: str, keys: Iterable[ObjectKey]) -> list[tuple[ObjectKey, ServiceCertificate]]:
        found = ((key, self._names.certificate(key, agent)) for key in keys)
        return [(key, certificate) for key, certificate in found if certificate is not None]

    def _item(self, key: ObjectKey) -> Item:
        if key.kind == "Agent":  # only its own document has it
            return _item(key, self._state.served[key].object, self._own(key.name))
        known = self._state.items
        found = known.get(key)
        if found is None:
            found = known[key] = _item(key, self._state.served[key].object, self._secrets(key))
        return found

    def _own(self, agent: str) -> dict[str, Any]:
        released = self._releases.get(agent, ())
        return {**self._more, RELEASED: list(released)} if released else self._more

    def _secrets(self, key: ObjectKey) -> dict[str, Any]:
        """Return what a deployment's item says besides what its file does: the version of the values that it names."""
        found = self._state.objects.get(key)
        if not isinstance(found, Deployment):
            return {}
        version = secrets_version(found.spec, partial(self._state.secret, key.team))
        return {} if version is None else {SECRETS_VERSION: version}

    def _keys(self, agent: ObjectKey) -> Iterable[ObjectKey]:
        yield agent
        for key in self._state.referrers.get(agent, ()):
            if key.kind in ("Certificate", "Deployment") and key not in self._state.selected:
                yield key
        if self._selecting is None:
            self._selecting = {}
            for key, names in self._state.selected.items():
                for name in names:
                    self._selecting.setdefault(name, []).append(key)
        yield from self._selecting.get(agent.name, ())

    def concerned_by(self, key: ObjectKey) -> tuple[str, ...]:
        """Name the agents whose document ``key`` is part of in this state, or decides about."""
        served = self._state.served.get(key)
        if key.kind == "Route" or key == FLEET_KEY:
            everybody = [one.name for one in self._state.served if one.kind == "Agent"] if self._exec else []
            return tuple(dict.fromkeys([*self._names.concerned_by(key), *(everybody if key == FLEET_KEY else ())]))
        if served is None:
            return ()
        if key.kind == "Secret":
            uses = [one for one in self._state.referrers.get(key, ()) if one.kind == "Deployment"]
            return tuple(dict.fromkeys(name for one in uses for name in self.concerned_by(one)))
        if key.kind == "Agent":
            return (key.name,)
        if isinstance(served.object, Certificate):
            return served.object.spec.used_by.agents
        if isinstance(served.object, Deployment):
            return self._state.selected.get(key, served.object.spec.agents)
        return ()


def _more(trust: Mapping[str, Any] | None, may_exec: tuple[str, ...]) -> dict[str, Any]:
    return {**({} if trust is None else {MEMBER: trust}), **({EXEC: sorted(may_exec)} if may_exec else {})}


def _items(
    agent: str,
    objects: Iterable[tuple[ObjectKey, AnyObject, Mapping[str, Any]]],
    services: Iterable[tuple[ObjectKey, ServiceCertificate]],
    rollouts: Rollouts,
) -> tuple[Item, ...]:
    items = items_held(rollouts, agent, ((key, _item(key, found, more)) for key, found, more in objects))
    return (*items, *_service_items(services))


def _service_items(services: Iterable[tuple[ObjectKey, ServiceCertificate]]) -> Iterator[Item]:
    for key, certificate in services:
        spec = certificate.model_dump(mode="json", by_alias=True, exclude_none=True)
        item_id = service_item_id(key.team, key.name)
        yield Item(id=item_id, kind="Certificate", digest=digest_of(spec), spec=spec)


def _item(key: ObjectKey, found: AnyObject, more: Mapping[str, Any]) -> Item:
    if isinstance(found, Agent):
        spec: dict[str, Any] = {
            "labels": dict(found.metadata.labels),
            "capabilities": list(found.spec.capabilities),
            "state": found.spec.state,
            "address": found.spec.address,
            OFFERS: list(FEATURES),
            **more,
        }
    else:
        spec = {**found.spec.model_dump(mode="json", by_alias=True, exclude_none=True), **more}
    if isinstance(found, Deployment):
        del spec["rollout"]["paused"]  # is for the control plane alone
    assert key.kind in ("Agent", "Certificate", "Deployment")
    return Item(id=str(key), kind=key.kind, digest=digest_of(spec), spec=spec)
