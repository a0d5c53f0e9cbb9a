"""The certificates that fronts show: issued, opened and ordered as a state wants, kept on disk, and renewed in time.

In a pass (:meth:`Certificates.bring`) what the authority signs and what secrets hold is there at once; a route whose
certificate comes from elsewhere waits for it. New pairs count once the pass publishes them
(:meth:`Certificates.put_into_service`), so a revision that is held takes nothing from what is served. Between passes
(:meth:`Certificates.look`) certificates of the published state are renewed, ordered, and dropped once no front needs
them. What has changed becomes an :class:`~reconciler.desired.overlay.Overlay`, which the loop publishes as another
generation of the same revision. What :func:`reconciler.pki.renewal.actions` says is done here, and nothing else.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Literal

from reconciler.desired.certificates import PENDING, certificates_in_use, desired_certificates, pending
from reconciler.desired.coverage import FRONT_CLIENT
from reconciler.desired.finding import Finding
from reconciler.desired.overlay import NO_CLIENT, NO_OVERLAY, Overlay
from reconciler.desired.render import Renderer
from reconciler.desired.state import State
from reconciler.desired.view import OpenSecret
from reconciler.errors import CloudLunacyError
from reconciler.observability.logs import get_logger
from reconciler.pki.authority.authority import Authority
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.renewal import (
    INTERNAL,
    Delay,
    Desired,
    Drop,
    Issue,
    Keep,
    Renew,
    Wait,
    actions,
    next_look,
)
from reconciler.steps.certificate_listing import Known, desired_of, listing
from reconciler.steps.issuing import Issuing
from reconciler.steps.orders import NoOrders, Orders
from reconciler.steps.passing import Pass, Published
from reconciler.store.protocols import Event, EventStore
from schemas.certificate_status import CertificateStatus, ServedLeaf
from schemas.objects import ObjectKey

log = get_logger(__name__)

Severity = Literal["info", "warning", "error"]

LOOK_SECONDS: Final = 60.0
"""Longest time between two looks, whatever the certificates' dates say: clocks are set."""
_CONCERNING: Final = frozenset({"Fleet", "Certificate", "Secret"})
"""Kinds whose objects say which certificates there shall be."""


@dataclass(slots=True)
class _Found:
    """What one round of :meth:`Certificates._see_to` found and made."""

    pairs: dict[str, CertificatePair] = field(default_factory=dict)
    to_order: dict[str, Desired] = field(default_factory=dict)
    to_drop: list[str] = field(default_factory=list)
    planned: Mapping[str, Keep | Wait] = field(default_factory=dict)
    wanted: AbstractSet[str] = frozenset()


class Certificates:
    """Which pairs there are, and the overlay that fronts are to get.

    Args:
        own_hosts: names of the control plane itself, which the authority must go on permitting.
        clock: POSIX seconds.
    """

    def __init__(
        self,
        authority: Authority,
        store: CertificateStore,
        *,
        open_sealed: OpenSecret,
        renderer: Renderer,
        events: EventStore,
        own_hosts: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authority = authority
        self._store = store
        self._issuing = Issuing(authority, open_sealed, own_hosts)
        self._issuing.on_failure = partial(self._note, "CertificateFailed", "warning")
        self._renderer = renderer
        self._events = events
        self._clock = clock
        self.orders: Orders = NoOrders()
        self.overlay: Overlay = NO_OVERLAY
        """What the fronts of the published state are to show by now."""
        self.pairs: Mapping[str, CertificatePair] = {}
        self.planned: Mapping[str, Keep | Wait] = {}
        """What the last look found of the certificates of the published state."""
        self.probes: Mapping[str, tuple[ServedLeaf, ...]] = {}
        """What fronts showed when they were asked last, by certificate."""
        self._shown: tuple[object, ...] = ()
        """What the overlay was rendered of."""
        self._arrived: dict[str, CertificatePair] = {}
        self._looked_at: State | None = None
        self._retained = False
        """A certificate is held that nobody wants; a route that goes may have been the last to need it."""
        self._version = ""
        """Of the authority at the last look: any process may have changed it."""
        self._next = 0.0
        self._retry = False
        """A certificate came: routes may wait for it."""
        self._notices: list[Event] = []

    # --- from outside -------------------------------------------------------------------------------------------

    def finished(self, name: str, pair: CertificatePair) -> None:
        """Take what an order brought; the next look puts it into service."""
        self._arrived[name] = pair
        self.poke()

    def poke(self) -> None:
        """Look at the next opportunity: an authority has changed, or an order has failed."""
        self._next = 0.0

    def retry(self, name: str) -> bool:
        """Try at the next opportunity what failed before. False: nothing waits."""
        self.poke()
        return self._issuing.retry(name)

    async def take_up(self) -> None:
        """Load what was issued before a restart.

        Raises:
            Broken: when the files cannot be used.
        """
        stored = await asyncio.to_thread(self._store.load)
        for name, why in stored.damaged.items():
            log.warning("a certificate is damaged and will be issued anew", certificate=name, why=why)
        self.pairs = stored.pairs
        await asyncio.to_thread(self._render)

    # --- in a pass ----------------------------------------------------------------------------------------------

    async def bring(self, this: Pass) -> dict[ObjectKey, Finding]:
        """Make what the settled state needs and can be had at once; return the routes that have to wait.

        The pass holds what was made, and the overlay to publish with. Nothing is in service before
        :meth:`put_into_service`.
        """
        assert this.settled is not None
        if self._is_concerned(this):
            found = await asyncio.to_thread(self._see_to, this.state, {**self.pairs, **this.pairs})
            this.pairs |= found.pairs
        pairs = {**self.pairs, **this.pairs}
        this.overlay = await asyncio.to_thread(self._overlay_of, pairs) if this.pairs else self.overlay
        names = {name: pair.held.names for name, pair in pairs.items()}
        return pending(this.state, this.settled.touched, names, self._reasons())

    def _is_concerned(self, this: Pass) -> bool:
        """Say whether the pass can want other certificates than the last look found. Most do not."""
        assert this.settled is not None
        seen = self._looked_at is this.base.state and not self._retained
        return not seen or any(key.kind in _CONCERNING for key in this.settled.touched)

    async def put_into_service(self, this: Pass) -> None:
        """Keep what a pass has made, on disk, right before it is published.

        Raises:
            Broken: when it cannot be written; then nothing may be published.
        """
        if not self._is_concerned(this):
            self._looked_at = this.state
        if this.pairs:
            await asyncio.to_thread(self._keep, this.pairs)
            self.overlay, self._shown = this.overlay, ()
        self._retry = False
        await self._tell()

    # --- between passes -----------------------------------------------------------------------------------------

    async def look(self, published: Published) -> bool:
        """See to the certificates of the published state. True: its fronts should get another generation.

        Raises:
            Broken: when a certificate cannot be kept.
        """
        state = published.state
        if state.fleet is None:
            return False
        version = await asyncio.to_thread(self._authority.version)
        if self._clock() >= self._next or state is not self._looked_at or version != self._version:
            self._version = version
            await self._look(state, drop=published.confirmed)
        waiting = self._retry and any(one[0].code == PENDING for one in state.findings.values())
        return waiting or published.overlay is not self.overlay

    async def _look(self, state: State, *, drop: bool) -> None:
        former = self.pairs
        for name, pair in list(self._arrived.items()):  # what cannot be kept now was paid for, and waits
            await asyncio.to_thread(self._keep, {name: pair})
            if self._arrived.get(name) is pair:
                del self._arrived[name]
        found = await asyncio.to_thread(self._see_to, state, self.pairs)
        await asyncio.to_thread(self._keep, found.pairs)
        if drop:
            await asyncio.to_thread(self._drop, found.to_drop)
        self._retry = self._retry or self.pairs is not former
        self.orders.ask(found.to_order)
        await asyncio.to_thread(self._store.forget_waiting, found.wanted)  # of orders that were given up
        await asyncio.to_thread(self._render)
        self._looked_at, self.planned = state, found.planned
        self._retained = bool(self.pairs.keys() - found.wanted)
        now = self._now()
        again = next_look(tuple(found.planned.values()), now) or now + dt.timedelta(seconds=LOOK_SECONDS)
        latest = now.timestamp() + LOOK_SECONDS
        self._next = min(max(again.timestamp(), now.timestamp() + 1.0), latest)
        if self._arrived or found.pairs:  # of what is new it is not known yet when to look at it again
            self._next = 0.0
        await self._tell()

    # --- what is said of them -----------------------------------------------------------------------------------

    def statuses(self, published: Published) -> tuple[CertificateStatus, ...]:
        """Say how each certificate of the published state stands, in order of name."""
        if published.state.fleet is None:
            return ()
        known = Known(self.pairs, self.planned, self.delays(), self.probes)
        return listing(published.state, known, self._now())

    # --- what is to be done, in a thread ------------------------------------------------------------------------

    def _see_to(self, state: State, pairs: Mapping[str, CertificatePair]) -> _Found:
        """Make what is due of what ``state`` wants; say what is to be ordered and what nobody needs."""
        assert state.fleet is not None
        specs, now = desired_certificates(state), self._now()
        provided = {name: spec for name, spec in specs.items() if spec.provided is not None}
        made = _Found(self._issuing.open(provided, state, pairs, now))
        wanted = {name: one for name, spec in specs.items() if (one := desired_of(spec, state.fleet)) is not None}
        left_alone = specs.keys() - wanted.keys()
        held = {name: pair.held for name, pair in pairs.items() if name not in left_alone}
        self._issuing.think_again(wanted)
        found = actions(
            wanted,
            held,
            now,
            in_use=_in_use(state) if held.keys() - wanted.keys() else frozenset(),
            delays=self.delays(),
            suggested=self.orders.suggested({name: pairs[name] for name in held}),
            authorities=self._authority.authorities(),
        )
        due = {one.name: wanted[one.name] for one in found if isinstance(one, (Issue, Renew, Wait))}
        internal = {one.name for one in found if isinstance(one, (Issue, Renew))}
        signed = {name: one for name, one in due.items() if name in internal and one.source == INTERNAL}
        made.pairs |= self._issuing.issue(state.fleet, signed, now)
        made.to_order = {name: one for name, one in due.items() if one.source.issuer == "acme"}
        made.to_drop = [one.name for one in found if isinstance(one, Drop)]
        made.wanted = specs.keys()
        made.planned = {one.name: one for one in found if isinstance(one, (Keep, Wait))}
        return made

    # --- what is remembered -------------------------------------------------------------------------------------

    def _keep(self, pairs: Mapping[str, CertificatePair]) -> None:
        for name, pair in pairs.items():
            self._store.save(name, pair)
            what = "renewed" if name in self.pairs else "new"
            text = f"It is {what}, from {_source(pair)}, and ends {pair.held.not_after:%Y-%m-%d %H:%M} UTC."
            self._note("CertificateIssued", "info", name, text)
            self.pairs = {**self.pairs, name: pair}

    def _drop(self, names: Iterable[str]) -> None:
        for name in names:
            self._store.drop(name)
            self.pairs = {one: pair for one, pair in self.pairs.items() if one != name}
            self._issuing.forget(name)
            self._note("CertificateDropped", "info", name, "No object wants it any more, and no route needs it.")

    def _render(self) -> None:
        """Make the overlay anew where something in it has changed."""
        shown = (self._authority.bundle().pem, *((name, pair.chain) for name, pair in sorted(self.pairs.items())))
        if shown != self._shown:
            overlay = self._overlay_of(self.pairs)
            if _content(overlay) != _content(self.overlay):
                self.overlay = overlay
            self._shown = shown

    def _overlay_of(self, pairs: Mapping[str, CertificatePair]) -> Overlay:
        served = {name: pair for name, pair in pairs.items() if name != FRONT_CLIENT}
        certificates = {name: pair.certificate for name, pair in served.items()}
        client = pairs[FRONT_CLIENT].certificate if FRONT_CLIENT in pairs else NO_CLIENT
        overlay = self._renderer.overlay(certificates, roots=self._authority.bundle().pem, client=client)
        return replace(overlay, leaves={name: pair.held.fingerprint for name, pair in served.items()})

    def delays(self) -> Mapping[str, Delay]:
        """Say what holds certificates up, by name."""
        return {**self.orders.delays(), **self._issuing.delays()}

    def _reasons(self) -> Mapping[str, str]:
        return {name: (delay.message or delay.reason).rstrip(".") for name, delay in self.delays().items()}

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC)

    def _note(self, kind: str, severity: Severity, name: str, message: str) -> None:
        self._notices.append(Event(self._clock(), kind, severity, f"certificate/{name}", message))

    async def _tell(self) -> None:
        """Write what happened to the timeline. What cannot be written now waits: no certificate waits for it."""
        while self._notices:
            try:
                await self._events.append(self._notices[0])
            except CloudLunacyError as error:
                log.warning("an event cannot be written, trying again", error=str(error))
                return
            del self._notices[0]


def _content(overlay: Overlay) -> tuple[object, ...]:
    return overlay.texts, overlay.roots, overlay.client


def _in_use(state: State) -> AbstractSet[str]:
    return frozenset().union(*certificates_in_use(state).values())


def _source(pair: CertificatePair) -> str:
    issuer, directory = pair.held.source
    return {"internal": "the fleet's own authority", "provided": "its secret"}.get(issuer, directory)
