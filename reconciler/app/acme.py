"""Certificates of ACME servers in ``serve``: the settings, the listener for challenges and the orders, put together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from reconciler.app.acme_challenges import ChallengeFront, ChallengeListener, FrontedHttp01
from reconciler.app.acme_orders import AcmeOrders, Workshop
from reconciler.desired.acme_terms import OrderTerms, order_terms
from reconciler.desired.certificates import desired_certificates
from reconciler.desired.state import State
from reconciler.observability.acme_metrics import AcmeMetrics
from reconciler.observability.metrics import Metrics
from reconciler.pki.acme.settings import read_settings
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.vault import Vault
from reconciler.settings import Settings
from reconciler.steps.certificates import Certificates
from reconciler.steps.fronts import Front
from reconciler.store.protocols import EventStore


class Acme:
    """``url``: where fronts are to lead challenges.

    Raises:
        Broken: when the settings are wrong, or the port is taken.
    """

    def __init__(
        self, settings: Settings, vault: Vault, pairs: CertificateStore, *, events: EventStore, metrics: Metrics
    ) -> None:
        self._keys: Path = settings.data / "keys"
        self._read_back_seconds = settings.read_back_seconds
        self._vault = vault
        self._said = read_settings(settings.acme_file)
        self._listener = ChallengeListener(settings.data, settings.acme_http_port)
        self.url = self._listener.url
        self._fronts: Sequence[ChallengeFront] = ()
        self._state: Callable[[], State] = State
        self._terms: tuple[State, dict[str, OrderTerms]] = (State(), {})
        self._orders = AcmeOrders(self.terms, pairs, self._load, events=events, metrics=AcmeMetrics(metrics.registry))

    def connect(self, certificates: Certificates, fronts: Sequence[Front], state: Callable[[], State]) -> None:
        """Take orders from ``certificates``. ``state``: what is published."""
        self._fronts = [ChallengeFront(front.name, front.api) for front in fronts]
        self._state = state
        certificates.orders = self._orders
        self._orders.finished = certificates.finished
        self._orders.changed = certificates.poke

    def terms(self, name: str) -> OrderTerms | None:
        """Return the terms on which a certificate of the published state is ordered."""
        state = self._state()
        known, terms = self._terms
        if known is not state:
            terms = _all_terms(state)
            self._terms = (state, terms)
        return terms.get(name)

    async def retry(self, name: str, actor: str, others: Callable[[str], bool] = lambda _: False) -> bool:
        """Let no back-off hold an order any longer. False: none of that name waits, and ``others`` have none either."""
        return await self._orders.retry(name, actor) or others(name)

    async def run(self) -> None:
        """Answer challenges, and ask for renewals, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listener.run(), name="acme listener")
                group.create_task(self._orders.run(), name="acme renewals")
        finally:
            await self._orders.close()

    def close(self) -> None:
        """Let the port go, where :meth:`run` was never called."""
        self._listener.close()

    def _load(self) -> Workshop:
        from reconciler.pki.acme.issuers import Issuers  # noqa: PLC0415 - half a second, and most fleets never need it

        solver = FrontedHttp01(
            self._listener.table, self._fronts, lambda: self._state().fleet, seconds=self._read_back_seconds
        )
        return Issuers(self._keys / "acme", self._vault, self._said, solver)


def _all_terms(state: State) -> dict[str, OrderTerms]:
    if state.fleet is None:
        return {}
    found = ((name, order_terms(spec, state.fleet)) for name, spec in desired_certificates(state).items())
    return {name: terms for name, terms in found if terms is not None}
