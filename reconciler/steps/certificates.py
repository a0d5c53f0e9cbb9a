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
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from reconciler.desired.certificates import PENDING, certificates_in_use, desired_certificates, pending
from reconciler.desired.finding import Finding
from reconciler.desired.lookup import SecretUnavailable
from reconciler.desired.overlay import NO_OVERLAY, Overlay
from reconciler.desired.render import Renderer
from reconciler.desired.state import State
from reconciler.desired.view import OpenSecret
from reconciler.errors import CloudLunacyError
from reconciler.observability.logs import get_logger
from reconciler.pki.authority import profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import Names
from reconciler.pki.authority.pairs import key_pem, new_key
from reconciler.pki.certificate_pair import CertificatePair, NoPair
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.renewal import (
    INTERNAL,
    Delay,
    Desired,
    Drop,
    Issue,
    Keep,
    Renew,
    Source,
    Wait,
    actions,
    next_look,
)
from reconciler.pki.server_certificate import permitted_hosts
from reconciler.steps.passing import Pass, Published
from reconciler.store.protocols import Event, EventStore
from schemas.certificate import CertificateSpec
from schemas.fleet import Fleet
from schemas.names import seconds
from schemas.objects import ObjectKey

log = get_logger(__name__)

Severity = Literal["info", "warning", "error"]

LOOK_SECONDS: Final = 60.0
"""Longest time between two looks, whatever the certificates' dates say: clocks are set, keys are found out."""
PAUSES: Final = (10.0, 60.0, 600.0, 3600.0)
"""After failures in a row to issue or open a certificate."""


class Orders(Protocol):
    """Orders at ACME servers, under way in the background. Names are those of Certificate objects."""

    def ask(self, wanted: Mapping[str, Desired]) -> None:
        """Begin what is not under way, and give up what is not named any more. Returns at once."""
        ...

    def delays(self) -> Mapping[str, Delay]:
        """Say what is under way, and what waits for its time."""
        ...

    def suggested(self, held: Mapping[str, CertificatePair]) -> Mapping[str, dt.datetime]:
        """Return when to renew, of those whose server said so."""
        ...


class NoOrders:
    """Nobody orders anything."""

    def ask(self, wanted: Mapping[str, Desired]) -> None:
        del wanted

    def delays(self) -> Mapping[str, Delay]:
        return {}

    def suggested(self, held: Mapping[str, CertificatePair]) -> Mapping[str, dt.datetime]:
        del held
        return {}


class Failure(NamedTuple):
    """Why there is no certificate, or no newer one, and when the next attempt comes."""

    attempts: int
    until: dt.datetime
    message: str


@dataclass(slots=True)
class _Found:
    """What one round of :meth:`Certificates._see_to` found and made."""

    pairs: dict[str, CertificatePair] = field(default_factory=dict)
    to_order: dict[str, Desired] = field(default_factory=dict)
    to_drop: list[str] = field(default_factory=list)
    next: dt.datetime | None = None


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
        self._open_sealed = open_sealed
        self._renderer = renderer
        self._events = events
        self._own_hosts = own_hosts
        self._clock = clock
        self.orders: Orders = NoOrders()
        self.overlay: Overlay = NO_OVERLAY
        """What the fronts of the published state are to show by now."""
        self.pairs: Mapping[str, CertificatePair] = {}
        self.failures: Mapping[str, Failure] = {}
        self.planned: Mapping[str, Keep | Wait] = {}
        """What the last look found of the certificates of the published state."""
        self._shown: tuple[object, ...] = ()
        """What the overlay was rendered of."""
        self._arrived: dict[str, CertificatePair] = {}
        self._opened: dict[str, tuple[str, str]] = {}
        """Provided certificate → the sealed texts that it was opened from."""
        self._looked_at: State | None = None
        self._next = 0.0
        self._retry = False
        """A certificate came that was not there before: routes may wait for it."""
        self._notices: list[Event] = []

    # --- from outside -------------------------------------------------------------------------------------------

    def finished(self, name: str, pair: CertificatePair) -> None:
        """Take what an order brought; the next look puts it into service."""
        self._arrived[name] = pair
        self.poke()

    def poke(self) -> None:
        """Look at the next opportunity: an authority has changed, or an order has failed."""
        self._next = 0.0

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
        found = await asyncio.to_thread(self._see_to, this.state, {**self.pairs, **this.pairs})
        this.pairs |= found.pairs
        pairs = {**self.pairs, **this.pairs}
        this.overlay = await asyncio.to_thread(self._overlay_of, pairs) if this.pairs else self.overlay
        names = {name: pair.held.names for name, pair in pairs.items()}
        return pending(this.state, this.settled.touched, names, self._reasons())

    async def put_into_service(self, this: Pass) -> None:
        """Keep what a pass has made, on disk, right before it is published.

        Raises:
            Broken: when it cannot be written; then nothing may be published.
        """
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
        if self._clock() >= self._next or state is not self._looked_at:
            await self._look(state, drop=published.confirmed)
        waiting = self._retry and any(one[0].code == PENDING for one in state.findings.values())
        return waiting or published.overlay is not self.overlay

    async def _look(self, state: State, *, drop: bool) -> None:
        arrived, self._arrived = self._arrived, {}
        former = self.pairs
        if arrived:
            await asyncio.to_thread(self._keep, arrived)
        found = await asyncio.to_thread(self._see_to, state, self.pairs)
        await asyncio.to_thread(self._keep, found.pairs)
        if drop:
            await asyncio.to_thread(self._drop, found.to_drop)
        self._retry = self._retry or bool(self.pairs.keys() - former.keys())
        self.orders.ask(found.to_order)
        await asyncio.to_thread(self._render)
        self._looked_at = state
        again = found.next.timestamp() if found.next is not None else float("inf")
        self._next = min(max(again, self._clock() + 1.0), self._clock() + LOOK_SECONDS) if not self._arrived else 0.0
        await self._tell()

    # --- what is to be done, in a thread ------------------------------------------------------------------------

    def _see_to(self, state: State, pairs: Mapping[str, CertificatePair]) -> _Found:
        """Issue and open what is due of what ``state`` wants; say what is to be ordered and what nobody needs."""
        assert state.fleet is not None
        specs, now, made = desired_certificates(state), self._now(), _Found()
        provided = {name for name, spec in specs.items() if spec.provided is not None}
        for name in sorted(provided):
            if not self._is_delayed(name, now):
                self._open(name, specs[name], state, pairs.get(name), made)
        wanted = {name: _desired(spec, state.fleet) for name, spec in specs.items() if name not in provided}
        held = {name: pair.held for name, pair in pairs.items() if name not in provided}
        in_use = _in_use(state) if held.keys() - wanted.keys() else frozenset()
        ordered = {name: pairs[name] for name in held if pairs[name].held.source.issuer == "acme"}
        found = actions(
            wanted,
            held,
            now,
            in_use=in_use,
            delays=self._delays(),
            suggested=self.orders.suggested(ordered),
        )
        internal = [one for one in found if isinstance(one, (Issue, Renew)) and wanted[one.name].source == INTERNAL]
        if internal and self._permit(state.fleet, internal, now):
            for one in internal:
                self._issue(one, wanted[one.name], now, made)
        for action in found:
            if isinstance(action, Drop):
                made.to_drop.append(action.name)
            elif not isinstance(action, Keep) and wanted[action.name].source != INTERNAL:
                made.to_order[action.name] = wanted[action.name]
        self.planned = {one.name: one for one in found if isinstance(one, (Keep, Wait))}
        made.next = next_look(tuple(one for one in found if isinstance(one, (Keep, Wait))), now)
        return made

    def _permit(self, fleet: Fleet, wanted: Iterable[Issue | Renew], now: dt.datetime) -> bool:
        """Let the authority sign what the fleet names; what waits for a person is said where a name is refused."""
        hostnames = [name for team in fleet.spec.teams for name in team.hostnames]
        try:
            self._authority.ensure_permitted(permitted_hosts(self._own_hosts(), fleet.spec.domain, hostnames), now)
        except CloudLunacyError as error:
            for one in wanted:
                self._failed(one.name, str(error))
            return False
        return True

    def _issue(self, action: Issue | Renew, wanted: Desired, now: dt.datetime, made: _Found) -> None:
        key, profile = new_key(), profiles.server(Names.of(wanted.names), wanted.lifetime)
        try:
            leaf = self._authority.issue(profile, key.public_key(), holder=f"certificate/{action.name}", now=now)
        except CloudLunacyError as error:
            self._failed(action.name, str(error))
            return
        made.pairs[action.name] = CertificatePair.read(leaf.pem, key_pem(key).decode("ascii"), INTERNAL)
        self._worked(action.name)

    def _open(self, name: str, spec: CertificateSpec, state: State, held: CertificatePair | None, made: _Found) -> None:
        """Take a provided pair out of its secret, as late as this."""
        assert spec.provided is not None
        where, view = spec.provided, state.view(self._open_sealed)
        secret = view.secret(where.team, where.secret)
        keys = where.certificate, where.private_key
        if secret is None or not all(key in secret.spec.sealed for key in keys):
            self._failed(name, f'secret "{where.secret}" of team "{where.team}" lacks {" or ".join(keys)}')
            return
        sealed = secret.spec.sealed[keys[0]], secret.spec.sealed[keys[1]]
        if held is not None and self._opened.get(name) == sealed:
            return
        try:
            chain, key = (view.open_secret(where.team, where.secret, one) for one in keys)
            pair = CertificatePair.read(chain, key, Source("provided"))
            pair.must_be_for(spec.dns_names)
        except (SecretUnavailable, NoPair) as problem:
            self._failed(name, str(problem))
            return
        self._opened[name] = sealed
        self._worked(name)
        if held is None or (held.chain, held.key) != (pair.chain, pair.key):
            made.pairs[name] = pair

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
            self._opened.pop(name, None)
            self._note("CertificateDropped", "info", name, "No object wants it any more, and no route needs it.")

    def _render(self) -> None:
        """Make the overlay anew where something in it has changed."""
        shown = (self._authority.bundle().pem, *((name, pair.chain) for name, pair in sorted(self.pairs.items())))
        if shown != self._shown:
            overlay = self._overlay_of(self.pairs)
            if (overlay.texts, overlay.roots) != (self.overlay.texts, self.overlay.roots):
                self.overlay = overlay
            self._shown = shown

    def _overlay_of(self, pairs: Mapping[str, CertificatePair]) -> Overlay:
        certificates = {name: pair.certificate for name, pair in pairs.items()}
        return self._renderer.overlay(certificates, roots=self._authority.bundle().pem)

    def _failed(self, name: str, message: str) -> None:
        former = self.failures.get(name)
        attempts = 0 if former is None else former.attempts + 1
        until = self._now() + dt.timedelta(seconds=PAUSES[min(attempts, len(PAUSES) - 1)])
        self.failures = {**self.failures, name: Failure(attempts, until, message)}
        log.warning("a certificate cannot be had", certificate=name, why=message, again_at=f"{until:%H:%M:%S}")
        if former is None or former.message != message:
            self._note("CertificateFailed", "warning", name, message)

    def _worked(self, name: str) -> None:
        self.failures = {one: failure for one, failure in self.failures.items() if one != name}

    def _is_delayed(self, name: str, now: dt.datetime) -> bool:
        return name in self.failures and self.failures[name].until > now

    def _delays(self) -> Mapping[str, Delay]:
        ours = {name: Delay(one.until, one.message) for name, one in self.failures.items()}
        return {**self.orders.delays(), **ours}

    def _reasons(self) -> Mapping[str, str]:
        return {name: delay.reason.rstrip(".") for name, delay in self._delays().items()}

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC)

    def _note(self, kind: str, severity: Severity, name: str, message: str) -> None:
        self._notices.append(Event(self._clock(), kind, severity, f"certificate/{name}", message))

    async def _tell(self) -> None:
        notices, self._notices = self._notices, []
        for notice in notices:
            await self._events.append(notice)


def _desired(spec: CertificateSpec, fleet: Fleet) -> Desired:
    return Desired(
        names=spec.dns_names,
        lifetime=dt.timedelta(seconds=seconds(spec.lifetime)),
        renew_before=dt.timedelta(seconds=seconds(spec.renew_before)),
        source=INTERNAL if spec.issuer == "internal" else Source("acme", _directory(spec, fleet)),
    )


def _directory(spec: CertificateSpec, fleet: Fleet) -> str:
    """Return the URL of the ACME server's directory."""
    named = spec.acme.directory if spec.acme is not None else None
    return fleet.spec.acme.directories[named or fleet.spec.acme.usual_directory].url


def _in_use(state: State) -> AbstractSet[str]:
    return frozenset().union(*certificates_in_use(state).values())


def _source(pair: CertificatePair) -> str:
    issuer, directory = pair.held.source
    return {"internal": "the fleet's own authority", "provided": "its secret"}.get(issuer, directory)
