"""Keeps the control plane's own certificate good, and the authority able to sign what the fleet names.

A look is due each hour, when the fleet in service names something new, and when one authority follows another: the
authority is asked to permit what is named, the certificate is renewed where there is a reason to, and what has changed
is presented and told. What only a person can do (an offline root) becomes an event; what fails is tried again and stops
nobody.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from reconciler.app.own_names import is_unspecified, machine_names, own_names
from reconciler.errors import CloudLunacyError
from reconciler.observability.logs import get_logger
from reconciler.observability.metrics import Metrics
from reconciler.pki import server_certificate
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.folder import Outstanding
from reconciler.pki.server_certificate import Served, permitted_hosts
from reconciler.pki.vault import Vault
from reconciler.settings import Settings
from reconciler.store.protocols import Event, EventStore
from reconciler.web.tls import present, server_context
from schemas.fleet import Fleet

log = get_logger(__name__)

SECONDS: Final = 1.0
"""Between looks whether the fleet names something new: an agent that enrols then needs a certificate."""
HOUR: Final = 3600.0
PAUSES: Final = (60.0, 600.0, HOUR)
"""After failures in a row."""
SUBJECT: Final = "authority"


class OwnCertificate:
    """What this control plane presents, and the authority that it comes from.

    Args:
        vault: opens and seals ``<data>/keys/server.pem``.
        clock: POSIX seconds.

    Raises:
        Broken: when the authority cannot be opened, or cannot sign the first certificate.
    """

    def __init__(self, settings: Settings, vault: Vault, *, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self.vault = vault
        self._clock = clock
        self._keys = settings.data / "keys"
        self.names = self._names()
        self.authority = Authority.open_or_found(
            self._keys, vault, permitted=permitted_hosts(self.names), now=self._now()
        )
        self.authority.listeners.append(self._poke)
        self._poked = False
        self._outstanding: Outstanding | None = None
        self._told: Outstanding | None = None
        self.served: Served | None = None
        self.context: ssl.SSLContext | None = None
        self.on_bundle: Callable[[], None] = lambda: None
        """Called when verifiers must trust something else; set once."""
        if not settings.plain_http:
            self.context = server_context()
            self.authority.ensure_permitted(permitted_hosts(self.names), self._now())
            self._present(server_certificate.obtain(self.authority, self._keys, vault, self.names, self._now()))
        self._bundle = self.authority.bundle()

    async def run(self, fleet: Callable[[], Fleet | None], events: EventStore, metrics: Metrics) -> None:
        """Look for ever."""
        seen: Fleet | None = None
        due, failures = 0.0, 0
        while True:
            current = fleet()
            if current is not seen or self._poked or time.monotonic() >= due:
                seen, self._poked = current, False
                try:
                    await self.look(current, events)
                    due, failures = time.monotonic() + HOUR, 0
                except (CloudLunacyError, OSError) as error:
                    pause = PAUSES[min(failures, len(PAUSES) - 1)]
                    due, failures = time.monotonic() + pause, failures + 1
                    log.warning("the server's certificate cannot be seen to", error=str(error), again_in=pause)
                    if failures == 1:
                        await self._tell(events, "CertificateRenewalFailed", "error", str(error))
                except Exception:  # a bug must not end the task
                    due, failures = time.monotonic() + PAUSES[-1], failures + 1
                    log.exception("seeing to the server's certificate ended by a bug", again_in=PAUSES[-1])
                if self.served is not None:
                    metrics.server_certificate(self.served.leaf.not_valid_after_utc.timestamp())
            await asyncio.sleep(SECONDS)

    async def look(self, fleet: Fleet | None, events: EventStore) -> None:
        """Do what is due.

        Raises:
            CloudLunacyError: what could not be done; all else is done.
        """
        former = self.served
        served = await asyncio.to_thread(self._see_to, fleet)
        if served is not None and served != former:
            self._present(served)
            ends = f"{served.leaf.not_valid_after_utc:%Y-%m-%d}"
            log.info("the server has a new certificate", until=ends, names=self.names)
            await self._tell(events, "ServerCertificateRenewed", "info", f"The new one is good until {ends}.")
        waits = self._outstanding
        if waits is not None and waits != self._told:
            log.warning("the authority waits for a person", reason=waits.message, hint=waits.hint)
            await self._tell(events, waits.reason, "warning", f"{waits.message} {waits.hint}")
        self._told = waits
        bundle = self.authority.bundle()
        if bundle != self._bundle:
            self._bundle = bundle
            self.on_bundle()

    def ends(self) -> dt.datetime | None:
        """Return when what is presented ends; None where nothing is."""
        return None if self.served is None else self.served.leaf.not_valid_after_utc

    def _poke(self) -> None:
        self._poked = True

    def _see_to(self, fleet: Fleet | None) -> Served | None:
        """Widen, then renew; in a thread, because both wait for the disk."""
        self.names, now = self._names(), self._now()
        domain = fleet.spec.domain if fleet is not None else ""
        hostnames = [name for team in fleet.spec.teams for name in team.hostnames] if fleet is not None else []
        self._outstanding = self.authority.ensure_permitted(permitted_hosts(self.names, domain, hostnames), now)
        if self.context is None:
            return None
        return server_certificate.obtain(self.authority, self._keys, self.vault, self.names, now)

    def _present(self, served: Served) -> None:
        assert self.context is not None
        present(self.context, served.pem, served.key, Path(self._keys))
        self.served = served

    def _names(self) -> tuple[str, ...]:
        machine = machine_names() if is_unspecified(self._settings.host) else ()
        return own_names(self._settings.host, self._settings.public_url, machine)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock(), dt.UTC)

    async def _tell(self, events: EventStore, kind: str, severity: str, text: str) -> None:
        try:
            await events.append(Event(self._clock(), kind, severity, SUBJECT, text))  # type: ignore[arg-type]
        except CloudLunacyError as error:
            log.warning("an event cannot be written", error=str(error))
