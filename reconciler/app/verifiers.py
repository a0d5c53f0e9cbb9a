"""Who has what a rotation brings: agents by what they report, fronts by what they loaded, secrets by who opens them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from reconciler.desired.lookup import SecretUnavailable
from reconciler.desired.overlay import Overlay
from reconciler.pki.authority.names import Permitted
from reconciler.pki.keystore import KeyStore
from reconciler.pki.sealing import Opener
from reconciler.pki.server_certificate import permitted_hosts
from reconciler.steps.delivery import agents_in
from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation
from schemas.agent import Agent
from schemas.secret import Secret
from schemas.session import digest_of
from schemas.trust import TRUST_APPLIED

_NAMED = 5
"""Files that a sentence names."""
_ROTATE = "run cloudlunacy secret rotate --data DIR in the state repo, and commit"


class Verifiers:
    """All arguments are asked anew each time: ``published``, what was last ``seen`` of agents, who is ``connected``,
    the ``fronts`` and the ``overlay`` that they are to show, and the control plane's own ``names``.
    """

    def __init__(
        self,
        keys: KeyStore,
        *,
        published: Callable[[], Published],
        seen: Callable[[], Mapping[str, AgentObservation]],
        connected: Callable[[], frozenset[str]],
        fronts: Callable[[], Iterable[str]],
        overlay: Callable[[], Overlay],
        names: Callable[[], Sequence[str]],
    ) -> None:
        self._keys = keys
        self._published = published
        self._seen = seen
        self._connected = connected
        self._fronts = fronts
        self._overlay = overlay
        self._names = names
        self._tried: dict[tuple[str, str], bool] = {}
        """Recipient and sealed value → whether the one opens the other, of what is in service."""

    def permitted(self) -> Permitted | None:
        """Return what the authority has to be able to sign; None before a revision is in service."""
        fleet = self._published().state.fleet
        if fleet is None:
            return None
        hostnames = [name for team in fleet.spec.teams for name in team.hostnames]
        return permitted_hosts(self._names(), fleet.spec.domain, hostnames)

    def lacking(self, trust: Mapping[str, Any]) -> tuple[frozenset[str], frozenset[str]]:
        """Return the agents that have not said that they believe this: those that are connected, and the others."""
        digest, seen, connected = digest_of(trust), self._seen(), self._connected()
        agents = agents_in(self._published().state)
        lacking = {name for name, one in agents.items() if _counts(one) and not _believes(seen.get(name), name, digest)}
        return frozenset(lacking & connected), frozenset(lacking - connected)

    def fronts_behind(self, roots: str) -> frozenset[str]:
        """Return the fronts that were not seen to have loaded these roots, and the newest certificates."""
        published = self._published()
        if published.state.fleet is None:
            return frozenset()
        is_newest = published.overlay is self._overlay() and published.overlay.roots == roots
        return frozenset() if published.confirmed and is_newest else frozenset(self._fronts())

    def secrets_wait(self, phase: str) -> str:
        """Return what a person has to do about sealed values in a phase of the age identity, "" where nothing."""
        state, openers = self._published().state, self._keys.opener.openers
        if state.fleet is None:
            return "no revision is in service yet"
        recipients = state.fleet.spec.recipients
        secrets = [(key.path, one.object) for key, one in state.served.items() if isinstance(one.object, Secret)]
        current, following, former = (openers.get(role) for role in ("current", "next", "previous"))
        assert current is not None
        if not (recipients or secrets):
            return ""
        if phase == "distribute" and following is not None and following.recipient() not in recipients:
            return (
                f"under spec.recipients in fleet.yaml write {following.recipient()} in place of "
                f"{current.recipient()}, {_ROTATE} both"
            )
        if phase != "wait" or former is None:
            return ""
        if former.recipient() in recipients:
            return f"take {former.recipient()} out of spec.recipients in fleet.yaml, {_ROTATE} both"
        left = list(self._left(secrets, current))
        if left:
            more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
            return f"{', '.join(left[:_NAMED])}{more}: sealed to the former identity alone; {_ROTATE}"
        return ""

    def _left(self, secrets: Sequence[tuple[str, Secret]], current: Opener) -> Iterator[str]:
        former, self._tried = self._tried, {}
        for path, secret in secrets:
            for value in secret.spec.sealed.values():
                mark = (current.recipient(), value)
                self._tried[mark] = former[mark] if mark in former else _opens(current, value)
            if not all(self._tried[current.recipient(), value] for value in secret.spec.sealed.values()):
                yield path


def _opens(current: Opener, value: str) -> bool:
    try:
        current.open(value)
    except SecretUnavailable:
        return False
    return True


def _counts(agent: Agent) -> bool:
    """Whether the agent may connect at all."""
    return agent.spec.identity is not None and agent.spec.state != "quarantined"


def _believes(seen: AgentObservation | None, name: str, digest: str) -> bool:
    return seen is not None and any(
        item.get("id") == f"Agent/{name}"
        and item.get("reason") == TRUST_APPLIED
        and str(item.get("message")).endswith(digest)
        for item in seen.items
    )
