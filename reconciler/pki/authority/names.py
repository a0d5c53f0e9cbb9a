"""Which names a certificate carries, and which an intermediate may sign (RFC 5280, 4.2.1.6 and 4.2.1.10). Pure.

A name form without any permitted subtree is not restricted at all, so every form that we issue gets one: where nothing
of a form is permitted, the only permitted name is one that cannot exist (RFC 6761, 6.4), and for addresses everything
is excluded.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
"""What commands on the control plane's own machine connect to; permitted always."""
MAX_SUBTREES: Final = 400
"""Permitted subtrees in one certificate. 400 names of 30 characters are 14 KiB, and every handshake carries them; TLS
libraries refuse chains somewhere above 64 KiB."""
_NOBODY: Final = "nobody.invalid"
_EVERY_ADDRESS: Final = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*://[a-z0-9.-]+(?:/[A-Za-z0-9._~-]+)*")
_MAX_NAME: Final = 253


@dataclass(frozen=True, slots=True)
class Names:
    """The subject alternative names of a leaf, in order.

    Raises:
        ValueError: for a name that is none, or no name at all. DNS names are in lower case; ``*.parent`` is allowed.
    """

    dns: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    uris: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for pattern, values, kind in ((_DNS, self.dns, "DNS name"), (_URI, self.uris, "URI with a host")):
            for value in values:
                if len(value) > _MAX_NAME or pattern.fullmatch(value) is None:
                    raise ValueError(f"{value[:_MAX_NAME]!r} is no {kind}")
        if not (self.dns or self.addresses or self.uris):
            raise ValueError("a certificate needs a name")

    @classmethod
    def of(cls, hosts: Iterable[str]) -> Names:
        """Tell addresses from DNS names; each is kept once."""
        once = tuple(dict.fromkeys(host.lower() for host in hosts))
        found = {host: as_address(host) for host in once}
        return cls(
            dns=tuple(host for host in once if found[host] is None),
            addresses=tuple(address for address in found.values() if address is not None),
        )

    def texts(self) -> tuple[str, ...]:
        """Every name, for a person and for the inventory."""
        return tuple(f"{form}:{value}" for form, value in self.forms())

    def forms(self) -> Iterator[tuple[str, str]]:
        """Each name with its form: DNS, IP or URI, as OpenSSL writes them."""
        yield from (("DNS", name) for name in self.dns)
        yield from (("IP", str(address)) for address in self.addresses)
        yield from (("URI", uri) for uri in self.uris)

    def extension(self) -> x509.SubjectAlternativeName:
        """Return the names as the certificate's extension."""
        general: list[x509.GeneralName] = [x509.DNSName(name) for name in self.dns]
        general += [x509.IPAddress(address) for address in self.addresses]
        general += [x509.UniformResourceIdentifier(uri) for uri in self.uris]
        return x509.SubjectAlternativeName(general)


@dataclass(frozen=True, slots=True)
class Permitted:
    """What may be signed: names at or below ``dns``, URIs with one of ``hosts``, addresses in ``networks``."""

    dns: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    networks: frozenset[Network] = frozenset()

    def __or__(self, other: Permitted) -> Permitted:
        return Permitted(_tops(self.dns | other.dns), self.hosts | other.hosts, _widest(self.networks | other.networks))

    def __len__(self) -> int:
        return len(self.dns) + len(self.hosts) + len(self.networks)

    def includes(self, other: Permitted) -> bool:
        """Say whether ``other`` permits nothing that this does not."""
        return self | other == self | Permitted()

    def texts(self) -> tuple[str, ...]:
        """Each subtree, in order, as OpenSSL writes them."""
        return (
            *(f"DNS:{name}" for name in sorted(self.dns)),
            *(f"IP:{network}" for network in sorted(self.networks, key=lambda one: (one.version, one))),
            *(f"URI:{host}" for host in sorted(self.hosts)),
        )

    def extension(self) -> x509.NameConstraints:
        """Return the subtrees as the certificate's extension; every form that we issue is restricted."""
        permitted: list[x509.GeneralName] = [x509.DNSName(name) for name in sorted(self.dns) or [_NOBODY]]
        permitted += [x509.UniformResourceIdentifier(host) for host in sorted(self.hosts) or [_NOBODY]]
        permitted += [x509.IPAddress(one) for one in sorted(self.networks, key=lambda one: (one.version, one))]
        versions = {network.version for network in self.networks}
        excluded = [x509.IPAddress(network) for network in _EVERY_ADDRESS if network.version not in versions]
        return x509.NameConstraints(permitted, excluded or None)

    @classmethod
    def read(cls, constraints: x509.NameConstraints) -> Permitted:
        """Return what an extension of ours permits.

        Raises:
            ValueError: when it holds a subtree of a form that we never write.
        """
        dns, hosts, networks = set(), set(), set()
        for subtree in constraints.permitted_subtrees or ():
            match subtree:
                case x509.DNSName(value=str(name)):
                    dns.add(name)
                case x509.UniformResourceIdentifier(value=str(host)):
                    hosts.add(host)
                case x509.IPAddress(value=IPv4Network() | IPv6Network() as network):
                    networks.add(network)
                case _:
                    raise ValueError(f"a name constraint on {type(subtree).__name__}")
        return cls(frozenset(dns - {_NOBODY}), frozenset(hosts - {_NOBODY}), frozenset(networks))


def permitted_for(*, listen: Iterable[str] = (), domain: str = "", hostnames: Iterable[str] = ()) -> Permitted:
    """Return what the authority of a fleet must be able to sign, without what is covered twice.

    ``listen`` are the names and addresses of the control plane itself, ``domain`` is the fleet's, ``hostnames`` are
    hosts or patterns (``*.parent``) of teams and certificates. A subtree cannot say "one label", so a pattern permits
    all that lies below its parent.

    Raises:
        ValueError: for what is no name.
    """
    names = [name for name in (*listen, *hostnames, domain) if name]
    found = Names.of(names) if names else None
    if found is None:
        return Permitted()
    return Permitted(
        dns=_tops(frozenset(name.removeprefix("*.") for name in found.dns)),
        hosts=frozenset({domain.lower()} - {""}),
        networks=frozenset(ipaddress.ip_network(address) for address in found.addresses),
    )


def covers(permitted: Permitted, names: Names) -> bool:
    """Say whether an intermediate with these constraints may sign all of ``names``."""
    return not outside(permitted.extension(), names)


def outside(constraints: x509.NameConstraints, names: Names) -> tuple[str, ...]:
    """Return the names that a verifier would refuse below ``constraints`` (RFC 5280, 6.1.4 b and g), in order.

    Works on any constraints, also on those of a root that somebody brought.
    """
    permitted = tuple(constraints.permitted_subtrees or ())
    excluded = tuple(constraints.excluded_subtrees or ())
    return tuple(
        f"{form}:{value}"
        for form, value in names.forms()
        if _refused(form, value, permitted) or any(_below(form, value, subtree) for subtree in excluded)
    )


def as_address(host: str) -> Address | None:
    """Return the IP address that ``host`` is, None where it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


_FORMS: Final[dict[str, type[x509.GeneralName]]] = {
    "DNS": x509.DNSName,
    "IP": x509.IPAddress,
    "URI": x509.UniformResourceIdentifier,
}


def _refused(form: str, value: str, permitted: tuple[x509.GeneralName, ...]) -> bool:
    of_form = [subtree for subtree in permitted if isinstance(subtree, _FORMS[form])]
    return bool(of_form) and not any(_below(form, value, subtree) for subtree in of_form)


def _below(form: str, value: str, subtree: x509.GeneralName) -> bool:
    if not isinstance(subtree, _FORMS[form]):
        return False
    if form == "IP":
        address = ipaddress.ip_address(value)
        return address.version == subtree.value.version and address in subtree.value
    base = str(subtree.value).lower()
    if form == "URI":
        host = urlsplit(value).hostname or ""
        return host.endswith(base) and host != base if base.startswith(".") else host == base
    if base.startswith("."):  # not in the standard, but verifiers read it as for URIs
        return value.endswith(base)
    return base in ("", value) or value.endswith(f".{base}")


def _tops(names: frozenset[str]) -> frozenset[str]:
    """Leave out what lies below another."""
    return frozenset(name for name in names if not any(parent in names for parent in _parents(name)))


def _parents(name: str) -> Iterator[str]:
    labels = name.split(".")
    return (".".join(labels[start:]) for start in range(1, len(labels)))


def _widest(networks: frozenset[Network]) -> frozenset[Network]:
    four = [one for one in networks if isinstance(one, IPv4Network)]
    six = [one for one in networks if isinstance(one, IPv6Network)]
    return frozenset([*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)])
