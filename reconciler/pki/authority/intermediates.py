"""Intermediates: made by a root that is here, or asked of one that is elsewhere, checked and put into service.

Called within a turn of the folder. Each has its line in the inventory before it has its file.
"""

from __future__ import annotations

import datetime as dt
from typing import Final, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from reconciler.errors import Broken
from reconciler.pki.authority import profiles, requests
from reconciler.pki.authority.folder import Folder
from reconciler.pki.authority.inventory import Issued
from reconciler.pki.authority.names import Permitted
from reconciler.pki.authority.pairs import Pair, new_key, same_key
from reconciler.pki.authority.profiles import UNREADABLE, Issuer, PrivateKey

HOLDER: Final = "intermediate"
RENEW_AT: Final = profiles.INTERMEDIATE_LIFETIME / 3
"""An intermediate with less time than this left is followed by a new one."""


def make(folder: Folder, root: Issuer, permitted: Permitted, *, now: dt.datetime) -> None:
    """Put an intermediate that permits this into service; one that is there keeps its key and its name.

    The same key means that the list of revocations, and every leaf that is out, go on being good under the new one.
    """
    current = folder.pair("intermediate")
    former = current.issuer() if current is not None else None
    key = former.key if former is not None else new_key()
    certificate = sign(root, key.public_key(), permitted, now=now)
    record(folder, certificate, root.certificate, permitted, now=now)
    folder.put("intermediate", "current", Pair(certificate, key))


def sign(root: Issuer, public_key: profiles.PublicKey, permitted: Permitted, *, now: dt.datetime) -> x509.Certificate:
    """Sign an intermediate, as :func:`make` does and ``cloudlunacy pki sign`` where an offline root's key is.

    Raises:
        Broken: when the root is not valid at this time.
    """
    check_time(root.certificate, now)
    serial = x509.random_serial_number()
    return profiles.intermediate(public_key, root, permitted, serial=serial, now=now)


def sign_request(root: Issuer, request: bytes, *, now: dt.datetime) -> tuple[x509.Certificate, Permitted]:
    """Sign what a request asks for, and return what that is, for the person who asked.

    Raises:
        Refused: 400 ``bad-csr``.
        Broken: when the root is not valid at this time.
    """
    public_key, permitted = requests.read_request_for_intermediate(request)
    return sign(root, public_key, permitted, now=now), permitted


def record(
    folder: Folder, certificate: x509.Certificate, root: x509.Certificate, permitted: Permitted, *, now: dt.datetime
) -> None:
    """List an intermediate."""
    issuer, names = profiles.key_id(root), permitted.texts()
    folder.inventory.record(
        Issued.of(certificate, kind="intermediate", holder=HOLDER, names=names, issuer=issuer, at=now)
    )


def unfit(current: Pair, root: x509.Certificate, now: dt.datetime) -> bool:
    """Say whether this one ends soon and a new one would last longer, or it is not valid yet."""
    certificate = current.certificate
    if now < certificate.not_valid_before_utc:
        return True
    longest = min(now + profiles.INTERMEDIATE_LIFETIME, root.not_valid_after_utc)
    gains = longest > certificate.not_valid_after_utc + dt.timedelta(days=1)
    return gains and now > certificate.not_valid_after_utc - RENEW_AT


def check(certificate: x509.Certificate, root: x509.Certificate, now: dt.datetime) -> Permitted:
    """Check what came back from a root; return what it permits.

    Raises:
        Broken: when it is no intermediate of the kind that was asked for.
    """
    check_time(certificate, now)
    check_authority(certificate, "The certificate")
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints)
        if not constraints.critical:
            raise Broken("The name constraints of the certificate are not critical.", hint="Sign the request again.")
        permitted = Permitted.read(constraints.value)
    except (ValueError, x509.ExtensionNotFound):
        raise Broken(
            "The certificate has no name constraints, or constraints of another kind than was asked for.",
            hint="An intermediate may sign what the fleet may name and nothing else. Use cloudlunacy pki sign.",
        ) from None
    if same_key(certificate.public_key(), root.public_key()):
        raise Broken("The certificate has the key of the root.", hint="Sign the request, with its own key.")
    return permitted


def check_authority(certificate: x509.Certificate, what: str) -> None:
    """Check that a certificate may sign others, and says which key it has.

    Raises:
        Broken: when it may not.
    """
    hint = "It needs basicConstraints CA:TRUE, keyUsage keyCertSign and cRLSign, and a subject key identifier."
    try:
        extensions = certificate.extensions
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except UNREADABLE:
        raise Broken(f"{what} is not one of an authority.", hint=hint) from None
    if not (constraints.ca and usage.key_cert_sign and usage.crl_sign):
        raise Broken(f"{what} is not one of an authority.", hint=hint)


def check_time(certificate: x509.Certificate, now: dt.datetime) -> None:
    """Check that a certificate is valid at this time.

    Raises:
        Broken: when it is not, with the time.
    """
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= now <= ends:
        raise Broken(
            f"{certificate.subject.rfc4514_string()} is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}, "
            f"and the clock says {now:%Y-%m-%d %H:%M}.",
            hint="Put the clock right; if it is, a new certificate is needed: see cloudlunacy pki status.",
        )


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Say whether ``issuer`` has signed ``certificate``."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def permitted_of(certificate: x509.Certificate) -> Permitted:
    """Return what an intermediate of ours permits.

    Raises:
        Broken: when it has no name constraints of ours.
    """
    try:
        return Permitted.read(certificate.extensions.get_extension_for_class(x509.NameConstraints).value)
    except (ValueError, x509.ExtensionNotFound):
        raise Broken("The intermediate has no name constraints.", hint="Restore it from a backup.") from None


def root_of(folder: Folder, certificate: x509.Certificate) -> x509.Certificate:
    """Return the root that signed a certificate.

    Raises:
        Broken: when none of ours did.
    """
    for role in ("current", "next", "previous"):
        pair = folder.pair("root", role)
        if pair is not None and signed_by(certificate, pair.certificate):
            return pair.certificate
    raise Broken("The certificate is not signed by the root of this authority.", hint="Sign with the key of its root.")


def key_for(folder: Folder, certificate: x509.Certificate) -> PrivateKey:
    """Return the private key of a certificate that was asked for here.

    Raises:
        Broken: when it is for another key.
    """
    current = folder.pair("intermediate")
    issuer = current.issuer() if current is not None else None
    for key in (issuer.key if issuer is not None else None, folder.waiting_key()):
        if key is not None and same_key(key.public_key(), certificate.public_key()):
            return key
    raise Broken(
        "The certificate is for a key that is not here.", hint="Install what was made from the request of this --data."
    )


def role_for(folder: Folder, key: PrivateKey) -> Literal["current", "next"]:
    """Return the place of a certificate for this key: a new key follows the one in service, and takes its time."""
    current, waiting = folder.pair("intermediate"), folder.waiting_key()
    is_new = waiting is not None and same_key(waiting.public_key(), key.public_key())
    return "next" if current is not None and is_new else "current"
