"""The agent's certificate on its disk: key, chain and roots always belong together.

``<data>/certificate`` is a :class:`agent.swapped_directory.SwappedDirectory` that only the agent may read. In it:

``key.pem``       the private key (PKCS #8, 0600), made for this certificate alone
``chain.pem``     the certificate, then its chain
``bundle.pem``    the roots to trust
``received.json`` when it came, by the control plane's clock
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.renewal import Life
from agent.swapped_directory import SwappedDirectory, read

LINK: Final = "certificate"
KEY, CHAIN, BUNDLE, RECEIVED = "key.pem", "chain.pem", "bundle.pem", "received.json"

UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
"""What reading certificates or keys raises that are none, or where a part of one is none."""


class BadPair(Exception):
    """Key and certificate cannot be used together. The message says why."""


@dataclass(frozen=True, slots=True)
class Held:
    """The certificate that this machine has. ``directory`` is the resolved one."""

    directory: Path
    life: Life
    serial: int


class CertificateFiles:
    """The files below ``data``. All methods block; writing raises OSError and then has changed nothing."""

    def __init__(self, data: Path, name: str) -> None:
        self._files = SwappedDirectory(data / LINK)
        self._name = name

    def load(self) -> Held | None:
        """Return what is in place; None where there is nothing that can be used."""
        try:
            directory = self._files.present()
            key, chain = read(directory / KEY), read(directory / CHAIN)
            received = json.loads(read(directory / RECEIVED))["receivedAt"]
            leaf = check(key, chain, self._name)
            begins = max(float(received), leaf.not_valid_before_utc.timestamp())
        except (OSError, BadPair, ValueError, KeyError, TypeError):
            return None
        return Held(directory, Life(begins, leaf.not_valid_after_utc.timestamp()), leaf.serial_number)

    def install(self, key: bytes, chain: bytes, bundle: bytes, *, received_at: float) -> Held:
        """Put a pair into place.

        Raises:
            BadPair: when it is none, or not this agent's.
            OSError: when it cannot be written; what was in place stays.
        """
        leaf = check(key, chain, self._name)
        received = json.dumps({"receivedAt": received_at}).encode()
        directory = self._files.put({KEY: key, CHAIN: chain, BUNDLE: bundle, RECEIVED: received})
        begins = max(received_at, leaf.not_valid_before_utc.timestamp())
        return Held(directory, Life(begins, leaf.not_valid_after_utc.timestamp()), leaf.serial_number)

    def rebundle(self, bundle: bytes) -> None:
        """Put other roots beside the pair that is in place, if there is one.

        Raises:
            OSError: when they cannot be written; what was in place stays.
        """
        held = self.load()
        if held is None:
            return
        names = (KEY, CHAIN, BUNDLE, RECEIVED)
        contents = {name: read(held.directory / name) for name in names}
        if contents[BUNDLE] != bundle:
            self._files.put({**contents, BUNDLE: bundle})

    def authorities(self, held: Held) -> frozenset[str]:
        """Return the SHA-256 of the public keys above the certificate, hex (``schemas.trust.AuthorityId``)."""
        try:
            _, *above = x509.load_pem_x509_certificates(read(held.directory / CHAIN))
            return frozenset(authority_id(one) for one in above)
        except (OSError, *UNREADABLE):
            return frozenset()


def authority_id(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of an authority's public key, hex (``schemas.trust.AuthorityId``)."""
    spki = certificate.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()


def check(key: bytes, chain: bytes, name: str) -> x509.Certificate:
    """Return the leaf of a chain whose key this is, and which says that it is the agent ``name``.

    Raises:
        BadPair
    """
    try:
        private = serialization.load_pem_private_key(key, password=None)
        leaf = x509.load_pem_x509_certificates(chain)[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        public = leaf.public_key()
    except UNREADABLE:
        raise BadPair("There is no certificate with a key.") from None
    if not isinstance(private, ec.EllipticCurvePrivateKey) or private.public_key() != public:
        raise BadPair("The certificate is for another key.")
    ids = names.get_values_for_type(x509.UniformResourceIdentifier)
    if [uri.partition("://")[2].partition("/")[2] for uri in ids] != [f"agent/{name}"]:
        raise BadPair("The certificate is another agent's.")
    return leaf
