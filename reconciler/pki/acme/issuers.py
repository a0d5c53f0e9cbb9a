"""An :class:`~reconciler.pki.acme.issuer.Issuer` for each directory, and who answers the challenges of an order.

Under ``<data>/keys/acme``, for each directory ``<host>-<digits>``: ``….account.pem``, the key of the account (sealed),
and ``….ledger.json``. A staging server is a directory too, with an account of its own.

Importing this imports the ACME library, which takes half a second: whoever wants no certificate of it does not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.desired.acme_terms import OrderTerms
from reconciler.errors import Broken, Rejected
from reconciler.pki.acme.client import AcmeClient, ClientLimits
from reconciler.pki.acme.dns01 import Dns01, NameServer, Rfc2136, UpdateKey
from reconciler.pki.acme.hook import Hook, HookSettings
from reconciler.pki.acme.issuer import Issuer, Wanted
from reconciler.pki.acme.ledger import LedgerFile
from reconciler.pki.acme.settings import VARIABLE, AcmeSettings, DnsSettings, address_and_port
from reconciler.pki.acme.solver import Challenge, ChallengeType, Solver
from reconciler.pki.acme.wire import Account, Directory, ExternalAccount
from reconciler.pki.authority.pairs import key_pem, new_key, read_key
from reconciler.pki.private_files import make_private_directory
from reconciler.pki.vault import Vault

AT_ONCE: Final = 4
"""Orders under way at one server. Most of an order is waiting."""
_UNFIT: Final = re.compile(r"[^a-z0-9.-]")


def _now() -> datetime:
    return datetime.now(UTC)


class Issuers:
    """Orders at any directory. ``http01`` answers challenges of that type; those of dns-01 go where settings say."""

    def __init__(
        self,
        folder: Path,
        vault: Vault,
        settings: AcmeSettings,
        http01: Solver,
        *,
        limits: ClientLimits | None = None,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._folder = folder
        self._vault = vault
        self._settings = settings
        self._http01 = http01
        self._dns01 = _ByZone(settings)
        self._limits = limits
        self._clock = clock
        self._issuers: dict[str, tuple[OrderTerms, Issuer]] = {}

    def issuer(self, terms: OrderTerms) -> Issuer:
        """Return the issuer for a directory, made where there is none on these terms. Reads files.

        Raises:
            Broken: a file cannot be used.
        """
        known = self._issuers.get(terms.directory)
        if known is not None and _same_account(known[0], terms):
            return known[1]
        make_private_directory(self._folder)
        found = Issuer(
            self._client(terms.directory, terms),
            LedgerFile(self._folder / f"{_label(terms.directory)}.ledger.json", terms.directory),
            staging=self._client(terms.staging, terms) if terms.staging else None,
            at_once=AT_ONCE,
            clock=self._clock,
        )
        self._issuers[terms.directory] = (terms, found)
        return found

    async def issue(
        self, terms: OrderTerms, key: ec.EllipticCurvePrivateKey, replaces: x509.Certificate | None = None
    ) -> str:
        """Return a chain, as :meth:`Issuer.issue`, and raise as it does."""
        solver: Solver = self._http01
        if terms.challenge == "dns-01":
            solver = self._dns01
            for name in terms.names:  # before anything is ordered
                self._dns01.of(name.removeprefix("*."))
        return await self.issuer(terms).issue(Wanted(terms.names, key, solver, replaces))

    async def forgive(self, terms: OrderTerms) -> None:
        """Let no back-off hold the next attempt, as :meth:`Issuer.forgive`."""
        await self.issuer(terms).forgive(terms.names)

    def not_before(self, terms: OrderTerms) -> datetime | None:
        """Return when the next attempt may be made, None for now."""
        return self.issuer(terms).not_before(terms.names)

    async def renewal(self, terms: OrderTerms, certificate: x509.Certificate) -> datetime:
        """Return when to renew a certificate, as :meth:`Issuer.renewal`, and raise as it does."""
        return await self.issuer(terms).renewal(terms.names, certificate, terms.renew_before)

    def _client(self, url: str, terms: OrderTerms) -> AcmeClient:
        said = self._settings.directory_of(url)
        external = None
        if said.key_id is not None and said.mac_key is not None:
            external = ExternalAccount(said.key_id, said.mac_key)
        account = Account(self._account_key(url), terms.contact, terms.terms_agreed, external)
        return AcmeClient(Directory(url, said.ca_file), account, limits=self._limits)

    def _account_key(self, url: str) -> ec.EllipticCurvePrivateKey:
        """Return the key of the account at a server. It signs orders and nothing else (RFC 8555, 11.1)."""
        path = self._folder / f"{_label(url)}.account.pem"
        try:
            content = self._vault.read_or_create(path, f"acme-account/{url}", lambda: key_pem(new_key()))
        except OSError as error:
            raise Broken(f"{path} cannot be used: {error.strerror}.") from None
        key = read_key(content)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise Broken(f"{path} does not hold a key.", hint="Remove it; another account is made.")
        return key


class _ByZone:
    """Answers dns-01, each domain where its zone is kept. Two zones may be in one certificate."""

    type: Final[ChallengeType] = "dns-01"

    def __init__(self, settings: AcmeSettings) -> None:
        self._settings = settings
        self._made: dict[int, Solver] = {}

    async def present(self, challenge: Challenge) -> None:
        await self.of(challenge.domain).present(challenge)

    async def cleanup(self, challenge: Challenge) -> None:
        await self.of(challenge.domain).cleanup(challenge)

    def of(self, domain: str) -> Solver:
        """Return who answers for a domain.

        Raises:
            Rejected: nobody does.
            Broken: the settings of who should are wrong.
        """
        number = self._settings.dns_for(domain)
        if number is None:
            raise Rejected(
                f"This control plane knows no name server for {domain}, so dns-01 cannot be answered.",
                reason="AcmeDnsNotSetUp",
                hint=f"Add [[dns]] to the file that {VARIABLE} names, or prove the name with http-01.",
            )
        if number not in self._made:
            self._made[number] = _dns_solver(self._settings.dns[number])
        return self._made[number]


def _dns_solver(said: DnsSettings) -> Solver:
    if said.hook is not None:
        return Hook(HookSettings(said.hook))
    assert said.server is not None
    assert said.key_name is not None
    assert said.key_secret is not None
    return Dns01(
        Rfc2136(
            server=NameServer(*address_and_port(said.server)),
            key=UpdateKey(said.key_name, said.key_secret, said.key_algorithm),
            answered_by=tuple(NameServer(*address_and_port(one)) for one in said.answered_by),
        )
    )


def _same_account(one: OrderTerms, other: OrderTerms) -> bool:
    return (one.staging, one.contact, one.terms_agreed) == (other.staging, other.contact, other.terms_agreed)


def _label(url: str) -> str:
    """Return a name for the files of a directory, in which a person finds its host again."""
    host = _UNFIT.sub("_", url.removeprefix("https://").partition("/")[0].lower())[:80]
    return f"{host}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"
