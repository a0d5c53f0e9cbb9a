"""Certificates of what runs on this machine: asked for, put into place, told of, renewed (docs/services.md).

What happens to one, in order: its place is looked up and must be granted → what is on disk is looked at → where there
is none, another is wanted, or half of its life is over, a fresh key is made and a signing request leaves over the
connection, now or once there is one → the answer is checked and swapped into place → the service is told. Each of these
may fail by itself; it is tried again, later and later, and nothing before it is done again. The control plane is needed
for a new certificate and for nothing else.

One task, ``agent-services``, does it (:meth:`ServiceCertificates.run`); :meth:`ServiceCertificates.apply` says what is
wanted, and how it stands. Times are POSIX seconds by the control plane's clock, those of attempts monotonic.
"""

from __future__ import annotations

import asyncio
import logging
import random as randomness
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from agent import grants
from agent.backoff import Backoff
from agent.certificate_files import BadPair
from agent.grants import Denied, ServiceGrants
from agent.renewal import Standing, renew_at, standing
from agent.service_files import Files, HeldService, ServiceFiles, ServiceName, check
from agent.service_keys import FreshKey
from agent.service_state import ServiceState, result_of
from agent.services import RecordingService
from agent.session import Ask
from agent.telling import NotTold, tell
from schemas.service_tls import ServiceCertificate, meet, service_item_id, service_of
from schemas.session import CertificateAnswer, Item, ItemResult

log = logging.getLogger(__name__)

KINDS: Final = frozenset({"Certificate"})
SELDOM: Final = 1.0
"""Seconds for which a look at the disk is good enough: answers for many services come at once."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Times are in seconds."""

    ask_base: float = 5.0
    ask_cap: float = 600.0
    tell_base: float = 1.0
    tell_cap: float = 60.0
    look: float = 30.0
    """The longest that nobody looks at the clock, the disk and the grants."""


class ServiceCertificates:
    """A :class:`agent.services.Service` and :class:`agent.services.Asker`. ``now`` is the control plane's time."""

    kinds = KINDS

    def __init__(
        self,
        data: Path,
        now: Callable[[], float] = time.time,
        *,
        settings: ServiceSettings = ServiceSettings(),
        monotonic: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = randomness.random,
    ) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._data = data
        self._files = ServiceFiles(data)
        self._now = now
        self._settings = settings
        self._monotonic = monotonic
        self._random = random
        self._objects = RecordingService(KINDS)
        self._services: dict[str, ServiceState] = {}
        self._invalid: dict[str, ItemResult] = {}
        self._said: tuple[ItemResult, ...] = ()
        self._answers: deque[CertificateAnswer] = deque()
        self._ask: Callable[[Ask], None] | None = None
        self._said_of_grants = ""
        self._retired: frozenset[str] = frozenset()
        self._leave_within = 0.0
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()

    # --- as a service ---------------------------------------------------------------------------------------------

    async def apply(self, items: tuple[Item, ...]) -> Sequence[ItemResult]:
        """Take what is wanted, remove what is not wanted any more, and say how it stands."""
        async with self._turn:
            ours = tuple(item for item in items if service_of(item.id) is not None)
            self._want(ours)
            names = {one.name for one in self._services.values()} | {_name(item) for item in ours}
            allowed = await self._grants()
            await asyncio.to_thread(self._remove_all_but, names, allowed)
            waiting = list(self._services.values())
            while waiting:
                for service in waiting:
                    await self._look_at(service, allowed)
                kept_out = [service for service in waiting if service.place is None]
                # those who moved may have made room for others
                waiting = kept_out if len(kept_out) < len(waiting) else []
            self._said = self._results()
            self._wake.set()
            return [*self._said, *await self._objects.apply(tuple(item for item in items if item not in ours))]

    def _want(self, items: Sequence[Item]) -> None:
        known, self._services, self._invalid = self._services, {}, {}
        for item in items:
            try:
                wanted = ServiceCertificate.model_validate(item.spec)
            except ValidationError as error:
                text = f"{error.error_count()} fields are not as this version of the agent knows them."
                self._invalid[item.id] = ItemResult(id=item.id, state="Failed", reason="InvalidItem", message=text)
                continue
            service = known.get(item.id)
            if service is None:
                asking = Backoff(self._settings.ask_base, self._settings.ask_cap, 0.0)
                telling = Backoff(self._settings.tell_base, self._settings.tell_cap, 0.0)
                service = ServiceState(_name(item), item, wanted, asking, telling)
            elif service.item.digest != item.digest:
                if service.wanted.directory != wanted.directory:
                    service.place = None  # others may have the former from now on
                service.item, service.wanted = item, wanted
                service.ask_at, service.tell_at, service.refused = 0.0, 0.0, ("", "")
            self._services[item.id] = service

    def _remove_all_but(self, names: set[ServiceName], allowed: ServiceGrants | Denied) -> None:
        for name in set(self._files.names()) - names:
            try:
                if not isinstance(allowed, Denied):
                    any(self._files.hand_over(name, one.name, one.wanted, allowed) for one in self._services.values())
            except (OSError, Denied) as error:
                log.warning("the directory of %s is not handed over: %s", name, error)
            try:
                self._files.remove(name)
                log.info("the certificate of %s was removed", name)
            except OSError as error:
                log.warning("the files of %s cannot be removed: %s", name, error.strerror)

    def held(self, team: str, deployment: str) -> HeldService | None:
        """Return the certificate that a deployment has in place, for whoever runs it."""
        service = self._services.get(service_item_id(team, deployment))
        return None if service is None or service.place is None else service.held

    def metrics(self) -> dict[str, float]:
        """Return what goes with heartbeats: how many services there are and have failed, when the first one ends."""
        if not self._services:
            return {}
        ends = [one.held.life.ends - self._now() for one in self._services.values() if one.held is not None]
        failed = sum(result.state == "Failed" for result in self._results())
        found = {"service_certificates": float(len(self._services)), "service_certificates_failed": float(failed)}
        return found | ({"service_certificates_seconds_left": round(min(ends), 3)} if ends else {})

    # --- as one who asks --------------------------------------------------------------------------------------------

    def connected(self, ask: Callable[[Ask], None]) -> None:
        self._ask = ask
        for service in self._services.values():
            self._send(service)

    def disconnected(self) -> None:
        self._ask = None

    def answered(self, answer: CertificateAnswer) -> None:
        self._answers.append(answer)
        self._wake.set()

    def _send(self, service: ServiceState) -> None:
        if self._ask is not None and service.fresh is not None:
            service.asked = service.item.digest
            self._ask(Ask(service.item.id, service.item.digest, service.fresh.csr))

    def leave(self, retired: frozenset[str], within: float) -> None:
        """Ask for others within so many seconds in place of certificates under these authorities."""
        if retired != self._retired:
            self._retired, self._leave_within = retired, within
            for service in self._services.values():
                service.leave_at = None
            self._wake.set()

    # --- the task -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep all of them good for ever."""
        while True:
            self._wake.clear()
            pause = await self.step()
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def step(self) -> float:
        """Do what is due; return the seconds until something else is."""
        async with self._turn:
            allowed = await self._grants()
            while self._answers:
                await self._take(self._answers.popleft())
            for service in self._services.values():
                if self._monotonic() - service.looked_at >= SELDOM:
                    await self._look_at(service, allowed)
                await self._ask_for(service)
        if not isinstance(allowed, Denied):
            for service in list(self._services.values()):
                await self._tell(service, allowed)
        else:
            for service in self._services.values():
                self._deny_telling(service, allowed)
        if (results := self._results()) != self._said:
            self._said = results
            self.on_change()
        return self._pause()

    async def _grants(self) -> ServiceGrants | Denied:
        try:
            return (await asyncio.to_thread(grants.load, self._data)).services
        except Denied as denied:
            if str(denied) != self._said_of_grants:
                log.error("%s", denied)  # noqa: TRY400  the message says it all
            self._said_of_grants = str(denied)
            return denied

    async def _look_at(self, service: ServiceState, allowed: ServiceGrants | Denied) -> None:
        """Find where its files belong and what is there; bring them there when they lie elsewhere."""
        service.looked_at = self._monotonic()
        try:
            if isinstance(allowed, Denied) and (service.wanted.directory or service.wanted.group):
                raise allowed
            rules = ServiceGrants() if isinstance(allowed, Denied) else allowed
            place = await asyncio.to_thread(self._files.place, service.name, service.wanted, rules)
            self._refuse_taken(service, place.link)
        except Denied as denied:
            service.place, service.denied = None, ("NotGranted", str(denied))
            return
        service.place, service.denied = place, ("", "")
        held = await asyncio.to_thread(self._files.load, service.name, place)
        if held is not None:
            try:
                if held.place != place:
                    held = await asyncio.to_thread(self._files.move, service.name, held, place)
                held = await asyncio.to_thread(self._files.follow_roots, service.name, held)
            except (OSError, BadPair) as error:
                service.place = None
                service.denied = "NotInstalled", f"It cannot be put into {place.link}: {_why(error)}."
                return
        if held != service.held:
            if held is None or service.held is None or held.fingerprint != service.held.fingerprint:
                service.due = 0.0 if held is None else renew_at(held.life, self._random())
            service.held = held
        if held is not None and not self._retired.isdisjoint(held.authorities) and service.leave_at is None:
            # once: under a retired one again, asking at once would not end
            service.leave_at = self._now() + self._random() * self._leave_within
            service.due = min(service.due, service.leave_at)
        if held is not None:
            told = await asyncio.to_thread(self._files.told, service.name)
            service.told = told == _mark(held) or service.wanted.reload is None
            service.not_told = None if service.told else service.not_told

    def _refuse_taken(self, service: ServiceState, link: Path) -> None:
        """Who has a place has it, with or without files, wherever in the document others stand."""
        for other in self._services.values():
            if other is not service and other.place is not None and meet(str(link), str(other.place.link)):
                raise Denied(f"{link} is where {other.name} has its files.")

    def _standing(self, service: ServiceState) -> Standing:
        return standing(None if service.held is None else service.held.life, service.due, self._now())

    async def _ask_for(self, service: ServiceState) -> None:
        if service.place is None or (service.fits() and self._standing(service) == "good"):
            return
        if service.fresh is not None and service.fresh.key_type != service.wanted.key_type:
            service.fresh = None
        if service.fresh is None and self._monotonic() >= service.ask_at:
            service.fresh = await asyncio.to_thread(FreshKey.make, service.wanted.key_type)
            self._send(service)

    async def _take(self, answer: CertificateAnswer) -> None:
        service = self._services.get(answer.id)
        if service is None or service.fresh is None:
            return
        fresh, service.fresh = service.fresh, None
        if service.asked != service.item.digest or service.place is None:
            return  # for what is not wanted any more; asked for anew
        if answer.reason:
            self._refuse(service, answer.reason, answer.message, answer.retry_seconds)
            return
        chain, roots = (text.encode("utf-8", "replace") for text in (answer.certificate, answer.bundle))
        try:
            files = Files(fresh.pem, chain, roots, self._now())
            check(files, service.wanted)
            service.held = await asyncio.to_thread(self._files.install, service.name, service.place, files)
        except (OSError, BadPair) as error:
            self._refuse(service, "NotInstalled", f"It cannot be put into {service.place.link}: {_why(error)}.")
            return
        service.due = renew_at(service.held.life, self._random())
        service.told, service.tell_at, service.not_told = service.wanted.reload is None, 0.0, None
        service.refused = ("", "")
        service.asking.succeeded()
        log.info("%s has certificate %s", service.name, service.held.fingerprint[:16])

    def _refuse(self, service: ServiceState, reason: str, message: str, at_least: float = 0.0) -> None:
        pause = service.asking.next(self._random(), at_least=at_least)
        service.ask_at, service.refused = self._monotonic() + pause, (reason, message)
        log.warning("%s gets no certificate: %s %s; next attempt in %.0f s", service.name, reason, message, pause)

    async def _tell(self, service: ServiceState, allowed: ServiceGrants) -> None:
        """Tell the service. Nobody waits for it: a new document may come, and change what is wanted, meanwhile."""
        held, reload = service.held, service.wanted.reload
        if held is None or reload is None or service.told or self._monotonic() < service.tell_at:
            return
        try:
            await tell(reload, allowed, service=str(service.name), directory=held.place.link)
            await asyncio.to_thread(self._files.set_told, service.name, _mark(held))
        except NotTold as error:
            self._tell_later(service, error)
        except OSError as error:
            self._tell_later(service, NotTold(f"That it was told cannot be written down: {error.strerror}."))
        else:
            if service.held == held:
                service.told, service.not_told = True, None
                service.telling.succeeded()

    def _deny_telling(self, service: ServiceState, denied: Denied) -> None:
        if service.held is not None and not service.told and self._monotonic() >= service.tell_at:
            self._tell_later(service, NotTold(str(denied), "NotGranted"))

    def _tell_later(self, service: ServiceState, error: NotTold) -> None:
        pause = service.telling.next(self._random(), at_least=self._settings.tell_base / 2)
        service.not_told, service.tell_at = error, self._monotonic() + pause
        log.warning("%s was not told of its certificate: %s; next attempt in %.0f s", service.name, error, pause)

    def _pause(self) -> float:
        mono, now = self._monotonic(), self._now()
        pauses = [self._settings.look]
        for one in self._services.values():
            if one.place is not None and one.fresh is None:
                waits = max(one.ask_at - mono, one.due - now if one.fits() else 0.0)
                pauses.append(waits)
            if one.held is not None and not one.told:
                pauses.append(one.tell_at - mono)
        return max(0.0, min(pauses))

    # --- how it stands --------------------------------------------------------------------------------------------

    def _results(self) -> tuple[ItemResult, ...]:
        return (*(result_of(one, self._standing(one)) for one in self._services.values()), *self._invalid.values())


def _mark(held: HeldService) -> str:
    """Return what is remembered once a service was told: the certificate and where it is."""
    return f"{held.fingerprint}@{held.directory}"


def _name(item: Item) -> ServiceName:
    found = service_of(item.id)
    assert found is not None
    return ServiceName(*found)


def _why(error: Exception) -> str:
    return (error.strerror or type(error).__name__ if isinstance(error, OSError) else str(error)).rstrip(".")
