"""The certificate that the control plane itself presents: ``<data>/keys/server.pem``.

The file holds the chain in clear, then the key, sealed as all keys are. It can be made anew at any time, so one that is
damaged, or of an authority that is no more, is replaced and not mourned.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Broken
from reconciler.pki.authority import pairs, profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import LOOPBACK, Names, Permitted, covers, permitted_for
from reconciler.pki.private_files import read_private, write_private
from reconciler.pki.vault import Vault

FILE_NAME: Final = "server.pem"
HOLDER: Final = "server"
_PURPOSE: Final = "server"
_END: Final = b"-----END CERTIFICATE-----\n"


@dataclass(frozen=True, slots=True)
class Served:
    """Leaf, intermediate and root, and the leaf's key."""

    chain: tuple[x509.Certificate, ...]
    key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @property
    def leaf(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def pem(self) -> bytes:
        """The chain, as servers want it."""
        return pairs.pem(*self.chain)


def why_renew(
    chain: Collection[x509.Certificate],
    wanted: Names,
    roots: Collection[str],
    now: dt.datetime,
    left: Collection[str] = (),
) -> str | None:
    """Say why a chain must be replaced, None where it is good: times, names, and whether its root is trusted.

    ``roots`` are the SHA-256 of those that verifiers trust, ``left`` the keys of authorities that others follow. A
    third of its life is left for whatever goes wrong.
    """
    leaf, *_, root = chain
    begins, ends = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if now < begins:
        return "it is not valid yet"
    if now >= ends - (ends - begins) / 3:
        return f"it ends on {ends:%Y-%m-%d}"
    if profiles.fingerprint(root) not in roots:
        return "it is of another authority"
    if any(profiles.authority_id(one) in left for one in chain):
        return "another authority follows the one above it"
    if set(names_of(leaf)) != set(wanted.texts()):
        return "its names have changed"
    return None


def names_of(leaf: x509.Certificate) -> tuple[str, ...]:
    """Return the names of a certificate as :meth:`Names.texts` writes them; none of a form that we never write."""
    try:
        general = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return (
        *(f"DNS:{name}" for name in general.get_values_for_type(x509.DNSName)),
        *(f"IP:{address}" for address in general.get_values_for_type(x509.IPAddress)),
        *(f"URI:{uri}" for uri in general.get_values_for_type(x509.UniformResourceIdentifier)),
    )


def permitted_hosts(hosts: Iterable[str], domain: str = "", hostnames: Iterable[str] = ()) -> Permitted:
    """Return what the authority must be able to sign; hosts that are no names are left out."""
    return permitted_for(listen=(*LOOPBACK, *filter(is_name, hosts)), domain=domain, hostnames=hostnames)


def is_name(host: str) -> bool:
    """Say whether a certificate can carry this host."""
    try:
        Names.of([host])
    except ValueError:
        return False
    return True


def signable(hosts: Iterable[str], permitted: Permitted) -> tuple[str, ...]:
    """Return those of the hosts that a certificate can carry and the authority may sign, each once."""
    return tuple(host for host in dict.fromkeys(hosts) if is_name(host) and covers(permitted, Names.of([host])))


def obtain(authority: Authority, keys: Path, vault: Vault, hosts: Iterable[str], now: dt.datetime) -> Served:
    """Return the certificate for these hosts, made anew where there is a reason to. What may not be signed is left out.

    Raises:
        Broken: when none of them may be signed, the authority cannot sign, or the file cannot be used.
        Refused: when the root that somebody brought permits less than the intermediate.
    """
    names = signable(hosts, authority.permitted())
    if not names:
        raise Broken(
            "the authority may sign none of the control plane's own names.",
            hint="cloudlunacy pki status --data DIR says what it may sign, and what waits for a person.",
        )
    wanted, path = Names.of(names), keys / FILE_NAME
    found = load(path, vault)
    roots, authorities = authority.bundle().fingerprints, authority.authorities()
    left = authorities.tainted if authorities.usable else ()
    if found is not None and why_renew(found.chain, wanted, roots, now, left) is None:
        return found
    key = pairs.new_key()
    leaf = authority.issue(profiles.server(wanted), key.public_key(), holder=HOLDER, now=now)
    served = Served((leaf.certificate, *leaf.chain), key)
    _save(path, served, vault)
    return served


def load(path: Path, vault: Vault) -> Served | None:
    """Read the file; None where it is missing or holds nothing that can be used. A clear key is sealed in passing.

    Raises:
        Broken: when others may read it, or it cannot be written.
    """
    try:
        stored = read_private(path)
    except OSError:
        return None
    pem, end, rest = stored.rpartition(_END)
    try:
        leaf, *above = x509.load_pem_x509_certificates(pem + end)
        key = pairs.read_key(vault.open(_PURPOSE, rest))
        good = bool(above) and key is not None and pairs.same_key(key.public_key(), leaf.public_key())
    except (*profiles.UNREADABLE, Broken):
        return None
    if not good or not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    served = Served((leaf, *above), key)
    if vault.wants(rest):
        _save(path, served, vault)
    return served


def _save(path: Path, served: Served, vault: Vault) -> None:
    try:
        write_private(path, served.pem + vault.seal(_PURPOSE, pairs.key_pem(served.key)))
    except OSError as error:
        raise Broken(f"{path} cannot be written: {error.strerror}.") from None


def read_leaf(keys: Path) -> x509.Certificate | None:
    """Return the leaf alone, for which no key is needed; None where there is none that can be read."""
    try:
        return pairs.read_certificate(read_private(keys / FILE_NAME))
    except (OSError, Broken):
        return None
