"""Certificates that can be had at once: signed by the fleet's authority, or taken out of a sealed secret.

What fails is tried again after a pause that grows, and said of the certificate until it works.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from reconciler.desired.coverage import FRONT_CLIENT
from reconciler.desired.lookup import SecretUnavailable
from reconciler.desired.state import State
from reconciler.desired.view import OpenSecret
from reconciler.errors import CloudLunacyError
from reconciler.observability.logs import get_logger
from reconciler.pki.authority import profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import Names
from reconciler.pki.authority.pairs import key_pem, new_key
from reconciler.pki.certificate_pair import CertificatePair, NoPair
from reconciler.pki.renewal import INTERNAL, Delay, Desired, Source
from reconciler.pki.server_certificate import permitted_hosts
from schemas.certificate import CertificateSpec
from schemas.fleet import Fleet

log = get_logger(__name__)

PAUSES: Final = (10.0, 60.0, 300.0)
"""After failures in a row to issue or open a certificate. Whatever it was made of changes ends the pause."""


class Failure(NamedTuple):
    """Why there is no certificate, or no newer one, and when the next attempt comes."""

    attempts: int
    until: dt.datetime
    reason: str
    message: str
    tried: object
    """What it was to be made of; with anything else there is no reason to wait."""


class Issuing:
    """Makes pairs, and keeps in mind which could not be made. Called by one thread at a time.

    Args:
        own_hosts: names of the control plane itself, which the authority must go on permitting.
    """

    def __init__(self, authority: Authority, open_sealed: OpenSecret, own_hosts: Callable[[], Sequence[str]]) -> None:
        self._authority = authority
        self._open_sealed = open_sealed
        self._own_hosts = own_hosts
        self.failures: Mapping[str, Failure] = {}
        self.on_failure: Callable[[str, str], None] = lambda _name, _message: None
        """Told of each failure that says something new."""
        self._opened: dict[str, tuple[object, str]] = {}
        """Provided certificate → what it was opened from, and the fingerprint of what was in that."""

    def delays(self) -> Mapping[str, Delay]:
        return {name: Delay(one.until, one.reason, one.message) for name, one in self.failures.items()}

    def issue(self, fleet: Fleet, wanted: Mapping[str, Desired], now: dt.datetime) -> dict[str, CertificatePair]:
        """Let the authority sign; what it does not is among the failures."""
        if not wanted or not self._permit(fleet, wanted, now):
            return {}
        found = {name: self._issue(name, one, now) for name, one in wanted.items()}
        return {name: pair for name, pair in found.items() if pair is not None}

    def think_again(self, wanted: Mapping[str, Desired]) -> None:
        """Forget why the authority did not sign what is wanted otherwise by now, or where it has changed itself."""
        for name, failure in list(self.failures.items()):
            if name in wanted and failure.tried != self._tried(wanted[name]):
                self._worked(name)

    def _tried(self, wanted: Desired) -> object:
        return wanted, self._authority.version()

    def _permit(self, fleet: Fleet, wanted: Mapping[str, Desired], now: dt.datetime) -> bool:
        """Let the authority sign what the fleet names; what waits for a person is said where a name is refused."""
        hostnames = [name for team in fleet.spec.teams for name in team.hostnames]
        try:
            self._authority.ensure_permitted(permitted_hosts(self._own_hosts(), fleet.spec.domain, hostnames), now)
        except CloudLunacyError as error:
            for name, one in wanted.items():
                self._failed(name, Failure(0, now, "AuthorityUnusable", str(error), self._tried(one)))
            return False
        return True

    def _issue(self, name: str, wanted: Desired, now: dt.datetime) -> CertificatePair | None:
        make = profiles.client if name == FRONT_CLIENT else profiles.server
        key, profile = new_key(), make(Names.of(wanted.names), wanted.lifetime)
        try:
            leaf = self._authority.issue(profile, key.public_key(), holder=f"certificate/{name}", now=now)
        except CloudLunacyError as error:
            self._failed(name, Failure(0, now, "NotIssued", str(error), self._tried(wanted)))
            return None
        self._worked(name)
        return CertificatePair.read(leaf.pem, key_pem(key).decode("ascii"), INTERNAL)

    def open(
        self, wanted: Mapping[str, CertificateSpec], state: State, held: Mapping[str, CertificatePair], now: dt.datetime
    ) -> dict[str, CertificatePair]:
        """Take provided pairs out of their secrets, as late as this; return those that differ from what is held."""
        found = {}
        for name, spec in sorted(wanted.items()):
            pair = self._open(name, spec, state, held.get(name), now)
            if pair is not None:
                found[name] = pair
        return found

    def _open(
        self, name: str, spec: CertificateSpec, state: State, held: CertificatePair | None, now: dt.datetime
    ) -> CertificatePair | None:
        assert spec.provided is not None
        where, view = spec.provided, state.view(self._open_sealed)
        secret = view.secret(where.team, where.secret)
        keys = where.certificate, where.private_key
        sealed = tuple(secret.spec.sealed.get(key, "") if secret is not None else "" for key in keys)
        tried = spec.dns_names, sealed
        if held is not None and self._opened.get(name) == (tried, held.held.fingerprint):
            return None
        failure = self.failures.get(name)
        if failure is not None and failure.until > now and failure.tried == tried:
            return None
        if not all(sealed):
            text = f'secret "{where.secret}" of team "{where.team}" lacks {" or ".join(keys)}'
            self._failed(name, Failure(0, now, "SecretMissing", text, tried))
            return None
        try:
            chain, key = (view.open_secret(where.team, where.secret, one) for one in keys)
            pair = CertificatePair.read(chain, key, Source("provided"))
            pair.must_be_for(spec.dns_names)
        except (SecretUnavailable, NoPair) as problem:
            self._failed(name, Failure(0, now, "SecretUnusable", str(problem), tried))
            return None
        self._opened[name] = tried, pair.held.fingerprint
        self._worked(name)
        return None if held is not None and (held.chain, held.key) == (pair.chain, pair.key) else pair

    def forget(self, name: str) -> None:
        """Nobody wants the certificate any more."""
        self._opened.pop(name, None)
        self._worked(name)

    def retry(self, name: str) -> bool:
        """End the pause of a certificate. False: none waits."""
        waits = name in self.failures
        self._worked(name)
        return waits

    def _failed(self, name: str, failure: Failure) -> None:
        """Remember a failure that happened ``until`` now, and make the next attempt wait."""
        former = self.failures.get(name)
        again = former is not None and former.tried == failure.tried
        attempts = former.attempts + 1 if former is not None and again else 0
        until = failure.until + dt.timedelta(seconds=PAUSES[min(attempts, len(PAUSES) - 1)])
        self.failures = {**self.failures, name: failure._replace(attempts=attempts, until=until)}
        log.warning("a certificate cannot be had", certificate=name, why=failure.message, again_at=f"{until:%H:%M:%S}")
        if former is None or former.message != failure.message:
            self.on_failure(name, failure.message)

    def _worked(self, name: str) -> None:
        self.failures = {one: failure for one, failure in self.failures.items() if one != name}
