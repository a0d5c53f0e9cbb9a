"""Which names the certificate of a deployment's service carries, on each agent that it runs on (docs/adr/0027).

Always ``<agent>.agents.<domain>``, which is what a front checks, and ``<deployment>.<agent>.agents.<domain>``. Further
names are listed, and must be hosts that routes of the same team send to the deployment: a grant alone would do for a
wildcard that two teams share, and then one could pose as the other. A name of another agent goes to that agent alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from reconciler.desired.claims import ANY, covered
from reconciler.desired.finding import Finding
from reconciler.desired.state import State
from schemas.deployment import Deployment
from schemas.objects import FLEET_KEY, ObjectKey
from schemas.route import Route
from schemas.service_tls import ServiceCertificate, ServiceTLS

FIELD: Final = ("spec", "tls", "dnsNames")
MAX_HOST: Final = 253
"""Characters of a DNS name (RFC 1035, 2.3.4)."""


def own_names(deployment: str, agent: str, domain: str) -> tuple[str, ...]:
    """Return the names that the service of a deployment has on an agent by itself."""
    host = f"{agent}.agents.{domain}"
    return tuple(name for name in (host, f"{deployment}.{host}") if len(name) <= MAX_HOST)


def is_of_agents(name: str, domain: str) -> bool:
    """Say whether a name is one that the fleet makes for its agents."""
    return name.endswith((f".agents.{domain}", f".mongodb.{domain}"))


def may_name(name: str, deployment: str, agents: Iterable[str], granted: frozenset[str], domain: str) -> bool:
    """Say whether a deployment may list ``name``, as far as that follows from the fleet file and its agents.

    ``granted``: the hosts of its team.
    """
    if is_of_agents(name, domain):
        return any(name in (*own_names(deployment, agent, domain), f"{agent}.mongodb.{domain}") for agent in agents)
    return covered(name, granted)


class ServiceNames:
    """The names of deployments in service, for one state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def certificate(self, key: ObjectKey, agent: str) -> ServiceCertificate | None:
        """Return what ``agent`` is told of the deployment ``key``; None where it shall hold no certificate for it."""
        tls, fleet = self._tls(key), self._state.fleet
        if tls is None or fleet is None:
            return None
        domain = fleet.spec.domain
        own = own_names(key.name, agent, domain)
        hosts = self.hosts(key) if tls.dns_names else frozenset()
        listed = (
            name
            for name in tls.dns_names
            if covered(name, hosts) and (name == f"{agent}.mongodb.{domain}" or not is_of_agents(name, domain))
        )
        names = sorted({*own, *listed})
        if not names:
            return None
        return ServiceCertificate(
            dns_names=tuple(names),
            lifetime=tls.lifetime,
            key_type=tls.key_type,
            directory=tls.directory,
            group=tls.group,
            reload=tls.reload,
        )

    def hosts(self, key: ObjectKey) -> frozenset[str]:
        """Return the hosts that routes in service send to a deployment. All are of its team."""
        claims = (claim for route in self._routes_to(key) for claim in self._state.served[route].claims)
        return frozenset(claim.pattern for claim in claims if claim.pattern != ANY)

    def unrouted(self) -> Iterator[Finding]:
        """Tell of listed names that no route sends to their deployment: the certificate is made without them."""
        fleet = self._state.fleet
        if fleet is None:
            return
        for key, one in self._state.objects.items():
            # this looks at everything in service: at the kind before the type, and at what is written
            tls = one.spec.tls if key.kind == "Deployment" and isinstance(one, Deployment) else None
            if tls is None or not tls.dns_names:
                continue
            own = {name for agent in self.agents(key) for name in own_names(key.name, agent, fleet.spec.domain)}
            carried = own | self.hosts(key)
            for index, name in enumerate(tls.dns_names):
                if not covered(name, carried):
                    text = f'no route of team "{key.team}" sends "{name}" here, so the certificate does not carry it.'
                    hint = "Add the route, or take the name out."
                    yield Finding(key.path, "service-name-unrouted", text, hint, (*FIELD, index), severity="warning")

    def concerned_by(self, key: ObjectKey) -> Iterator[str]:
        """Name the agents whose certificates may carry other names when ``key``, a route or the fleet, changes."""
        changed = self._state.served if key == FLEET_KEY else self._led_to_by(key)
        for deployment in changed:
            tls = self._tls(deployment)
            if tls is not None and (tls.dns_names or key == FLEET_KEY):
                yield from self.agents(deployment)

    def agents(self, key: ObjectKey) -> tuple[str, ...]:
        """Name the agents that a deployment in service runs on."""
        served = self._state.served.get(key)
        if served is None or not isinstance(served.object, Deployment):
            return ()
        return self._state.selected.get(key, served.object.spec.agents)

    def _tls(self, key: ObjectKey) -> ServiceTLS | None:
        found = self._state.objects.get(key) if key.kind == "Deployment" else None
        return found.spec.service_tls if isinstance(found, Deployment) else None

    def _routes_to(self, key: ObjectKey) -> Iterator[ObjectKey]:
        """Yield the routes of the team with a backend that is the deployment, by its name or by agent and port."""
        referrers = self._state.referrers
        named = [key, *(ObjectKey("Agent", "", agent) for agent in self.agents(key))]
        candidates = dict.fromkeys(route for name in named for route in referrers.get(name, ()))
        for route in candidates:
            if route.kind == "Route" and route.team == key.team and key in self._led_to_by(route):
                yield route

    def _led_to_by(self, key: ObjectKey) -> Iterator[ObjectKey]:
        """Yield the deployments of its team that a route leads to."""
        found = self._state.objects.get(key)
        if not isinstance(found, Route):
            return
        for backend in found.spec.backends:
            if backend.deployment is not None:
                yield ObjectKey("Deployment", key.team, backend.deployment)
                continue
            for claim in self._state.claims.at(f"port:{backend.agent}", str(backend.port)):
                if claim.owner.team == key.team:
                    yield claim.owner
