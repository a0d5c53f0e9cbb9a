"""A chain and its private key as text, held against each other, and what is to be known of them. PURE."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.x509.oid import NameOID

from reconciler.desired.traefik_model import Certificate
from reconciler.pki.authority.pairs import read_certificate, read_key, same_key
from reconciler.pki.authority.profiles import authority_id, fingerprint
from reconciler.pki.renewal import INTERNAL, Held, Source

_END = "-----END CERTIFICATE-----"
_HOST_LIKE = re.compile(r"[a-z0-9*_-]+(?:\.[a-z0-9*_-]+)+\.?")
_MOST = 10
"""Certificates in a chain. TLS libraries refuse longer ones, and nobody has them."""


class NoPair(Exception):
    """A chain and a key that cannot be served together. The message ends a sentence and holds nothing of the key."""


@dataclass(frozen=True, slots=True)
class CertificatePair:
    """What a front is given: PEM, the leaf first, and the leaf's key. ``held`` is what decisions look at."""

    chain: str
    key: str = field(repr=False)
    held: Held
    other_names: tuple[str, ...] = ()
    """What else a front would serve with it: addresses, and hosts in the subject."""

    @classmethod
    def read(cls, chain: str, key: str, source: Source = INTERNAL) -> CertificatePair:
        """Check that both can be read and belong together. Text beside the certificates is left out.

        Raises:
            NoPair: when they cannot be served.
        """
        blocks = _blocks(chain)
        if not blocks or len(blocks) > _MOST:
            raise NoPair(f"there are {len(blocks)} certificates; a chain has 1 to {_MOST}")
        certificates = []
        for number, block in enumerate(blocks, start=1):
            certificate = read_certificate(block.encode())
            if certificate is None:
                raise NoPair(f"certificate {number} of the chain cannot be read")
            certificates.append(certificate)
        private = read_key(key.encode())
        if private is None:
            raise NoPair("the key is no P-256, P-384 or RSA key (2048 bits or more) in PEM without a passphrase")
        if not same_key(private.public_key(), certificates[0].public_key()):
            raise NoPair("the key is not the one of the first certificate")
        return cls("".join(blocks), key, _held(certificates, source), _other_names(certificates[0]))

    def must_be_for(self, names: Sequence[str]) -> None:
        """Refuse a pair for other names: a front would serve every name that is in it, whoever owns that.

        Raises:
            NoPair: naming what is missing and what is too much.
        """
        wanted, there = {name.lower() for name in names}, {*self.held.names, *self.other_names}
        if wanted - set(self.held.names):
            raise NoPair(f"the certificate lacks {', '.join(sorted(wanted - set(self.held.names)))}")
        if there - wanted:
            raise NoPair(f"the certificate also names {', '.join(sorted(there - wanted))}")

    @property
    def certificate(self) -> Certificate:
        """Return it as Traefik wants it."""
        return {"certFile": self.chain, "keyFile": self.key}


def _blocks(chain: str) -> Sequence[str]:
    parts = chain.replace("\r\n", "\n").split(_END)
    heads = (part.partition("-----BEGIN CERTIFICATE-----") for part in parts[:-1])
    return [f"{begin}{body}{_END}\n" for _, begin, body in heads if begin]


def _held(certificates: Sequence[x509.Certificate], source: Source) -> Held:
    leaf, *above = certificates
    return Held(
        names=_dns_names(leaf),
        not_before=leaf.not_valid_before_utc,
        not_after=min(one.not_valid_after_utc for one in certificates),
        source=source,
        fingerprint=fingerprint(leaf),
        authorities=frozenset(authority_id(one) for one in above),
    )


def _other_names(leaf: x509.Certificate) -> tuple[str, ...]:
    """Return what Traefik takes for a name beside the DNS names: addresses, and every part of a common name.

    It joins the names of a certificate with commas and splits them again, so a common name may hold several.
    """
    found: list[str] = []
    for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME):
        parts = str(attribute.value).lower().split(",")
        found += [part for part in parts if _HOST_LIKE.fullmatch(part)]
    with suppress(x509.ExtensionNotFound):
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found += [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return tuple(dict.fromkeys(found))


def _dns_names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(name.lower() for name in names.get_values_for_type(x509.DNSName))
