"""Pages of certificates: ``/certificates``, ``/certificates/{name}``, with a probe and an order on demand."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import quote

from cryptography import x509
from cryptography.x509.oid import NameOID
from starlette.requests import Request
from starlette.responses import Response

from reconciler.agents.rates import Bucket
from reconciler.desired.certificates import desired_certificates
from reconciler.desired.coverage import ends_tls, users_of
from reconciler.errors import Refused
from reconciler.pki.certificate_pair import CertificatePair
from reconciler.steps.passing import Published
from reconciler.store.protocols import EventStore
from reconciler.web.agent_views import moment
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.kit import Site
from reconciler.web.pages.lifetimes import Lifetime, lifetime
from schemas.base import Metadata
from schemas.certificate import Certificate, CertificateSpec
from schemas.certificate_status import CertificateStatus, ServedLeaf
from schemas.names import seconds
from schemas.objects import ObjectKey

EVENTS: Final = 10
MOST_HOSTS: Final = 100
PAGE: Final = 100
WARN: Final = timedelta(days=30)
"""Before the end of a pair that nobody renews but a person."""


class CertificateSources(NamedTuple):
    """Whom these pages ask."""

    statuses: Callable[[], Sequence[CertificateStatus]]
    pair: Callable[[str], CertificatePair | None]
    retry: Callable[[str, str], Awaitable[bool]]
    """Name, actor → whether an order waited."""
    probe: Callable[[str], Awaitable[tuple[ServedLeaf, ...]]]
    """Name → what every front shows; empty where there is no such certificate in service."""
    events: EventStore
    published: Callable[[], Published]


class Row(NamedTuple):
    status: CertificateStatus
    life: Lifetime | None


class Link(NamedTuple):
    """One certificate of a chain."""

    subject: str
    issuer: str
    serial: str
    key: str
    begun: datetime
    ends: datetime


class CertificatePages:
    """The endpoints; ``endpoints()`` is the table."""

    def __init__(self, site: Site, sources: CertificateSources) -> None:
        self._site = site
        self._of = sources
        self._probes = Bucket(10, 1 / 6)

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        one = "/certificates/{name}"
        return (
            Endpoint("GET", "/certificates", "Certificates", self.listing, "read", page=True),
            Endpoint("GET", one, "A certificate", self.show, "read", page=True),
            Endpoint("POST", f"{one}/order", "Order it now", self.order, "operate", page=True),
            Endpoint("POST", f"{one}/probe", "Look what fronts show", self.probe, "operate", page=True),
        )

    async def listing(self, request: Request) -> Response:
        """Draw every certificate with the line of its life; what needs somebody stands first."""
        identity = self._site.caller(request)
        text = request.query_params.get("text", "").strip().lower()
        specs, now = self._specs(), self._now()
        order = {"Expired": 0, "Due": 1, "Pending": 2}
        found = [one for one in self._of.statuses() if text in one.name or any(text in name for name in one.dns_names)]
        found.sort(key=lambda one: (order.get(one.state, 9), one.not_after or datetime.max.replace(tzinfo=UTC)))
        first = _offset(request.query_params.get("after", ""))
        rows = [Row(one, self._life(one, specs, now)) for one in found[first : first + PAGE]]
        more = f"/certificates?after={first + PAGE}&text={quote(text)}" if len(found) > first + PAGE else ""
        return await self._site.render(
            request, identity, "certificates.html.j2", rows=rows, total=len(found), text=text, next=more,
            now=now,
        )  # fmt: skip

    async def show(self, request: Request) -> Response:
        """Draw all about one."""
        identity = self._site.caller(request)
        status = self._status(request)
        specs = self._specs()
        events = await self._of.events.events(subject=f"certificate/{status.name}", limit=EVENTS, newest_first=True)
        pair = self._of.pair(status.name)
        key = ObjectKey("Certificate", "", status.name)
        found = self._of.published().state.objects.get(key)
        return await self._site.render(
            request,
            identity,
            "certificate.html.j2",
            certificate=status,
            life=self._life(status, specs, self._now()),
            chain=chain_of(pair.chain) if pair is not None else (),
            hosts=self._hosts(specs.get(status.name)),
            agents=found.spec.used_by.agents if isinstance(found, Certificate) else (),
            path=key.path if found is not None else "",
            spec=specs.get(status.name),
            events=[(one, moment(one.time)) for one in events],
            may_operate=identity.may("operate"),
        )

    async def order(self, request: Request) -> Response:
        """End the back-off of an order that failed."""
        identity = self._site.caller(request, "operate")
        await self._site.form(request)
        status = self._status(request)
        if not await self._of.retry(status.name, str(identity)):
            return self._back(status.name, "No order of it waits.")
        return self._back(status.name, "It is ordered now.")

    async def probe(self, request: Request) -> Response:
        """Ask every front for the certificate, by one handshake each."""
        self._site.caller(request, "operate")
        await self._site.form(request)
        status = self._status(request)
        wait = self._probes.take(time.monotonic())
        if wait:
            raise Refused("Fronts were asked too often.", status=429, code="busy", hint="Come again.", retry_after=wait)
        found = await self._of.probe(status.name)
        if not found:
            return self._back(status.name, "No front shows it: it is not in service.")
        wrong = [f"{one.front}: {one.message}" for one in found if not one.matches]
        fronts = "Every front shows it." if len(found) > 1 else f"{found[0].front} shows it."
        return self._back(status.name, " ".join(wrong) or fronts)

    # --- parts ----------------------------------------------------------------------------------------------------

    def _back(self, name: str, notice: str) -> Response:
        return self._site.redirect(f"/certificates/{quote(name, safe='')}", notice)

    def _status(self, request: Request) -> CertificateStatus:
        name = request.path_params["name"]
        found = next((one for one in self._of.statuses() if one.name == name), None)
        if found is None:
            raise Refused("There is no such certificate.", status=404, code="unknown-certificate")
        return found

    def _specs(self) -> dict[str, CertificateSpec]:
        return desired_certificates(self._of.published().state)

    def _life(self, status: CertificateStatus, specs: dict[str, CertificateSpec], now: datetime) -> Lifetime | None:
        spec = specs.get(status.name)
        renewed = WARN if spec is None or spec.provided is not None else timedelta(seconds=seconds(spec.renew_before))
        return lifetime(status.not_before, status.not_after, renewed, now)

    def _hosts(self, spec: CertificateSpec | None) -> tuple[str, ...]:
        """Return the hosts at which routes in service end TLS with it."""
        state = self._of.published().state
        if state.fleet is None or spec is None:
            return ()
        shown = Certificate(  # the implicit ones have no object, and names that none may have
            api_version="cloudlunacy/v1", kind="Certificate", metadata=Metadata(name="shown"), spec=spec
        )
        users = users_of(shown, state.claims, state.fleet)
        found = {claim.pattern for claim in users if ends_tls(state.objects[claim.owner])}
        return tuple(sorted(found)[:MOST_HOSTS])

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._site.clock(), UTC)


def chain_of(pem: str) -> tuple[Link, ...]:
    """Return what the certificates of a chain say of themselves, the leaf first."""
    return tuple(
        Link(
            subject=_name(one.subject) or "names only",
            issuer=_name(one.issuer),
            serial=f"{one.serial_number:x}",
            key=type(one.public_key()).__name__.strip("_").removesuffix("PublicKey"),
            begun=one.not_valid_before_utc,
            ends=one.not_valid_after_utc,
        )
        for one in x509.load_pem_x509_certificates(pem.encode())
    )


def _name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()


def _offset(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
