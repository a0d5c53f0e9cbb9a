"""What is said to an ACME server, through the library ``acme``: signing, nonces and messages are its work.

Everything here blocks and belongs to one order: one thread at a time, opened for it and closed after it, so that no
nonce or connection of a server that has been restarted meanwhile is used. It lets out ``Transient``, ``Rejected``,
``Broken`` and :class:`NotFound`, for what the server does not have any more.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import requests
from acme import challenges, errors, messages
from acme.client import ClientNetwork, ClientV2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from josepy.interfaces import JSONDeSerializable
from josepy.json_util import field as json_field
from josepy.jwa import ES256
from josepy.jwk import JWKEC
from pydantic import SecretStr

from reconciler.errors import Broken, Rejected, Transient
from reconciler.pki.acme.failures import host_of, translated
from reconciler.pki.acme.schedule import Window
from reconciler.pki.acme.solver import Challenge
from reconciler.pki.acme.transport import BoundedAdapter, bind
from schemas.text import visible

USER_AGENT: Final = "cloudlunacy"
_BASE64URL: Final = re.compile(r"[A-Za-z0-9_-]{16,}=*")
NONCE_TRIES: Final = 10
"""Each is two requests: the library repeats once by itself. Half of all nonces refused fails once in a million."""


@dataclass(frozen=True, slots=True)
class Directory:
    """One ACME server. ``ca_file``: the roots that it is trusted by; None for the public ones."""

    url: str
    ca_file: Path | None = None

    @property
    def host(self) -> str:
        """For sentences."""
        return host_of(self.url)


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    """What some servers hand out beforehand (RFC 8555, 7.3.4). ``mac_key`` is base64url."""

    key_id: str
    mac_key: SecretStr


@dataclass(frozen=True, slots=True)
class Account:
    """Who orders. ``key`` is P-256; ``contact``: mail addresses."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    contact: tuple[str, ...] = ()
    terms_agreed: bool = False
    external: ExternalAccount | None = None


@dataclass(frozen=True, slots=True)
class WireLimits:
    """What one exchange may cost. Seconds and bytes."""

    connect_seconds: float = 10.0
    seconds: float = 20.0
    max_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Order:
    """An order as the server tells it (RFC 8555, 7.1.3). ``retry_after`` in seconds."""

    url: str
    status: str
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str
    problem: messages.Error | None
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Offer:
    """One challenge that an authorization offers. ``challenge`` is None for types that nobody here answers."""

    type: str
    status: str
    body: messages.ChallengeBody
    challenge: Challenge | None


@dataclass(frozen=True, slots=True)
class Authorization:
    """An authorization as the server tells it (RFC 8555, 7.1.4)."""

    domain: str
    status: str
    offers: tuple[Offer, ...]
    retry_after: float | None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """What the server says about a certificate's renewal; ``window`` is None where it does not say."""

    window: Window | None
    retry_after: float | None


class Wire:
    """The conversation for one order."""

    def __init__(self, directory: Directory, account: Account, limits: WireLimits) -> None:
        self._directory = directory
        self._account = account
        self._key = JWKEC(key=account.key)
        self._network = _PatientNetwork(key=self._key, alg=ES256, user_agent=USER_AGENT)
        self._adapter = BoundedAdapter(
            directory.ca_file,
            connect_seconds=limits.connect_seconds,
            seconds=limits.seconds,
            max_bytes=limits.max_bytes,
        )
        bind(self._network.session, self._adapter)
        self._client: ClientV2 | None = None

    def close(self) -> None:
        """Let the connection go."""
        self._network.session.close()

    def open(self) -> None:
        """Read the directory."""
        with translated(self._directory.host, "its directory", self._adapter):
            directory = ClientV2.get_directory(self._directory.url, self._network)
            self._client = ClientV2(directory, self._network)

    def register(self) -> None:
        """Register the account; a server that has it already says so."""
        with translated(self._directory.host, "an account", self._adapter):
            client = self._opened()
            self._check_terms(client.directory)
            try:
                client.new_account(self._registration(client.directory))
            except errors.ConflictError as known:
                if not str(known.location).startswith("https://"):
                    raise errors.ClientError("account without a URL") from None
                self._network.account = messages.RegistrationResource(uri=known.location, body=messages.Registration())

    def new_order(self, names: Sequence[str], replaces: x509.Certificate | None) -> Order:
        """Place an order. ``replaces`` is the certificate that is renewed, named to servers that know what it means."""
        with translated(self._directory.host, f"an order for {', '.join(names)}", self._adapter):
            directory = self._opened().directory
            identifiers = [messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=name) for name in names]
            replaced = renewal_id(replaces) if replaces is not None and "renewalInfo" in _fields(directory) else None
            order = _NewOrder(identifiers=identifiers, replaces=replaced)
            try:
                response = self._post(directory["newOrder"], order)
            except errors.ConflictError:  # alreadyReplaced (RFC 9773, 5): then it is an order like any other
                response = self._post(directory["newOrder"], order.update(replaces=None))
            return self._order(response, response.headers["Location"])

    def order(self, url: str) -> Order:
        """Ask how an order stands.

        Raises:
            NotFound: the server does not know it.
        """
        with translated(self._directory.host, "the state of an order", self._adapter):
            return self._order(self._post(url, None), url)

    def authorization(self, url: str) -> Authorization:
        """Ask how an authorization stands."""
        with translated(self._directory.host, "an authorization", self._adapter):
            body = messages.Authorization.from_json(self._post(url, None).json())
            domain = str(body.identifier.value)
            offers = tuple(self._offer(domain, each) for each in body.challenges)
            return Authorization(domain, body.status.name, offers, self._adapter.retry_after)

    def answer(self, offer: Offer) -> None:
        """Say that the answer to a challenge can be looked at."""
        with translated(self._directory.host, f"{offer.type} to be checked", self._adapter):
            self._opened().answer_challenge(offer.body, offer.body.chall.response(self._key))

    def finalize(self, order: Order, csr: x509.CertificateSigningRequest) -> Order:
        """Send the CSR of an order that is ready."""
        with translated(self._directory.host, "the certificate of an order", self._adapter):
            return self._order(self._post(order.finalize, messages.CertificateRequest(csr=csr)), order.url)

    def certificate(self, url: str) -> str:
        """Download a chain, PEM, the certificate first."""
        with translated(self._directory.host, "a certificate", self._adapter):
            return self._post(url, None).text

    def renewal_info(self, certificate: x509.Certificate) -> Suggestion:
        """Ask when the server wants a certificate renewed (RFC 9773, 4.1); no account is needed."""
        with translated(self._directory.host, "its renewal information", self._adapter):
            fields = _fields(self._opened().directory)
            name = renewal_id(certificate)
            if "renewalInfo" not in fields or name is None:
                return Suggestion(None, None)
            said = messages.RenewalInfo.from_json(self._network.get(f"{fields['renewalInfo']}/{name}").json())
            window = said.suggested_window
            return Suggestion(Window(_utc(window.start), _utc(window.end)), self._adapter.retry_after)

    def _opened(self) -> ClientV2:
        assert self._client is not None, "open() comes first"
        return self._client

    def _post(self, url: str, body: JSONDeSerializable | None) -> requests.Response:
        return self._network.post(url, body, new_nonce_url=self._opened().directory["newNonce"])

    def _check_terms(self, directory: messages.Directory) -> None:
        terms = directory.meta.terms_of_service
        if terms and not self._account.terms_agreed:
            raise Rejected(
                f"The ACME server {self._directory.host} wants its terms agreed to.",
                reason="AcmeTermsNotAgreed",
                hint=f"Read them at {visible(str(terms))} and write acme: {{termsAgreed: true}} in fleet.yaml.",
            )

    def _registration(self, directory: messages.Directory) -> messages.NewRegistration:
        external = self._account.external
        binding = None
        if external is not None:
            mac_key = external.mac_key.get_secret_value()
            if _BASE64URL.fullmatch(mac_key) is None:
                raise Broken("The MAC key of the external account is no base64url.", hint="Copy it from the server.")
            binding = messages.ExternalAccountBinding.from_data(
                self._key.public_key(), external.key_id, mac_key, directory
            )
        return messages.NewRegistration.from_data(
            contact=tuple(f"mailto:{address}" for address in self._account.contact),
            external_account_binding=binding,
            terms_of_service_agreed=True,
        )

    def _order(self, response: requests.Response, url: str) -> Order:
        body = messages.Order.from_json(response.json())
        return Order(
            url=str(url),
            status=body.status.name,
            authorizations=tuple(str(each) for each in body.authorizations or ()),
            finalize=str(body.finalize or ""),
            certificate=str(body.certificate or ""),
            problem=body.error,
            retry_after=self._adapter.retry_after,
        )

    def _offer(self, domain: str, body: messages.ChallengeBody) -> Offer:
        known = None
        if isinstance(body.chall, challenges.KeyAuthorizationChallenge):
            known = Challenge(
                domain=domain,
                token=str(body.chall.encode("token")),
                key_authorization=body.chall.key_authorization(self._key),
                txt_value=challenges.DNS01(token=body.chall.token).validation(self._key),
            )
        # what the library does not know has its type in the JSON only
        return Offer(str(body.chall.to_partial_json().get("type")), body.status.name, body, known)


def renewal_id(certificate: x509.Certificate) -> str | None:
    """Return the name of a certificate in renewal information (RFC 9773, 4.1); None without a key identifier."""
    try:
        authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return None
    if authority is None:
        return None
    serial = certificate.serial_number
    parts = (authority, serial.to_bytes(serial.bit_length() // 8 + 1, "big"))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def _utc(said: datetime) -> datetime:
    """Refuse a time that could not be compared with others later: the library takes what lacks its time zone.

    Raises:
        ValueError: without a time zone. OverflowError: before or after all that a date can be.
    """
    if said.tzinfo is None:
        raise ValueError("a time without a time zone")
    return said.astimezone(UTC)


class _NewOrder(messages.NewOrder):
    """The library's has no ``replaces`` (RFC 9773, 5)."""

    replaces: str | None = json_field("replaces", omitempty=True)


class _PatientNetwork(ClientNetwork):
    def post(self, *args: Any, **kwargs: Any) -> requests.Response:  # noqa: ANN401 - as the library has it
        """Try again with another nonce for as long as only the nonce is refused (RFC 8555, 6.5)."""
        for _ in range(NONCE_TRIES):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        raise Transient(
            f"The ACME server {host_of(str(args[0]))} refused {2 * NONCE_TRIES} nonces in a row.",
            reason="AcmeNonceRefused",
        )


def _fields(directory: messages.Directory) -> dict[str, Any]:
    return directory.to_partial_json()
