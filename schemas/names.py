"""The grammar of every name, host, path and size that a person may write.

What stands here ends up in file paths, Traefik rules and command lines, so each type is an allow list: a string that
validates needs no escaping in any of these places. Shapes follow RFC 1123 (labels, hosts), RFC 3986 (paths) and
RFC 9110 (header fields).
"""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field, StringConstraints

_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# A last label that starts with a letter keeps addresses out: 10.0.0.1 is no host name (RFC 1123, 2.1).
_TOP_LABEL: Final = r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = rf"(?:{_LABEL}\.)+{_TOP_LABEL}"
# A segment has some character besides dots, and no escape that hides a dot, a slash or a control character.
_SEGMENT: Final = (
    r"\.*(?:[A-Za-z0-9_~!$&+,;=:@-]|%(?:2[0-9A-Da-d]|[3-7][0-9A-Fa-f]|[89A-Fa-f][0-9A-Fa-f]))"
    r"(?:[A-Za-z0-9._~!$&+,;=:@-]|%(?:2[0-9A-Da-d]|[3-7][0-9A-Fa-f]|[89A-Fa-f][0-9A-Fa-f]))*"
)

NAME_PATTERN: Final = rf"^{_LABEL}$"
HOST_PATTERN: Final = rf"^{_HOST}$"
WILDCARD_PATTERN: Final = rf"^(?:\*\.)?{_HOST}$"
PATH_PATTERN: Final = rf"^(?:/|(?:/{_SEGMENT})+/?)$"

_HOST_RE: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# Resolvers of the C library read 127.1, 2130706433 and 0x7f000001 as IPv4 addresses (inet_aton(3)).
_IPV4_LIKE: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")


IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def _refuse_zone(value: str) -> None:
    # ipaddress takes any text after the per cent sign, quotes and back-ticks too.
    if "%" in value:
        raise ValueError("an address with a zone (%…) means nothing to another machine; leave the zone out")


def _network(value: str) -> str:
    _refuse_zone(value)
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError as error:
        raise ValueError(f"not an IP address or network in CIDR notation: {error}") from None


def unmapped(address: IPAddress) -> IPAddress:
    """Return the IPv4 address that ``::ffff:a.b.c.d`` stands for (RFC 4291, 2.5.5.2), any other as it is."""
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address


def _address(value: str) -> str:
    _refuse_zone(value)
    try:
        # One text for one address, so that who compares texts compares addresses
        return str(unmapped(ipaddress.ip_address(value)))
    except ValueError:
        if _IPV4_LIKE.fullmatch(value) or not _HOST_RE.fullmatch(value):
            raise ValueError("neither an IP address nor a host name") from None
        return value


Name = Annotated[
    str,
    StringConstraints(pattern=NAME_PATTERN, max_length=63),
    Field(description="RFC 1123 label: lower-case letters, digits and inner hyphens, at most 63 characters."),
]
Hostname = Annotated[
    str,
    StringConstraints(pattern=HOST_PATTERN, max_length=253),
    Field(description="Host name in lower case, without a trailing dot; IDNs as A-labels (xn--)."),
]
HostPattern = Annotated[
    str,
    StringConstraints(pattern=WILDCARD_PATTERN, max_length=253),
    Field(description="Host name, or *.parent, which covers exactly one further label (RFC 6125, 6.4.3)."),
]
Address = Annotated[
    str,
    StringConstraints(max_length=253),
    AfterValidator(_address),
    Field(description="IPv4 or IPv6 address, or host name."),
]
Network = Annotated[
    str,
    StringConstraints(max_length=64),
    AfterValidator(_network),
    Field(description="IP address or network in CIDR notation."),
]
UrlPath = Annotated[
    str,
    StringConstraints(pattern=PATH_PATTERN, max_length=1024),
    Field(description="Absolute URL path (RFC 3986), percent-encoded; no quotes, back-ticks or braces."),
]
HeaderName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9-]+$", max_length=128),
    Field(description="HTTP field name (RFC 9110): letters, digits and hyphens."),
]
HeaderValue = Annotated[
    str,
    StringConstraints(pattern=r"^[\x20-\x7e\t]*$", max_length=4096),
    Field(description="HTTP field value in visible ASCII; for a header that is set, empty removes it."),
]
MatchValue = Annotated[
    str,
    StringConstraints(pattern=r"^[\x20-\x5f\x61-\x7e]+$", max_length=512),
    Field(description="Exact value of a request header: visible ASCII without back-ticks."),
]
Duration = Annotated[
    str,
    StringConstraints(pattern=r"^[1-9][0-9]{0,8}(ms|s|m|h)$"),
    Field(description="Length of time: a whole number and ms, s, m or h, such as 5s."),
]
ByteSize = Annotated[
    str,
    StringConstraints(pattern=r"^[1-9][0-9]{0,11}(Ki|Mi|Gi|Ti)?$"),
    Field(description="Number of bytes, optionally with Ki, Mi, Gi or Ti, such as 128Mi."),
]
Port = Annotated[int, Field(strict=True, ge=1, le=65535, description="TCP port.")]
LabelKey = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9./-]{0,61}[a-z0-9])?$")]
LabelValue = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$|^$")]
EntryPointName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"),
    Field(description="Name of an entry point in Traefik's static configuration."),
]
AbsolutePath = Annotated[
    str,
    StringConstraints(pattern=r"^(?:/(?:\.*[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*))+$", max_length=512),
    Field(description="Absolute path without . and .., of letters, digits and ._@+-"),
]
EnvName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"),
    Field(description="Name of an environment variable."),
]
Thumbprint = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$"),
    Field(description="RFC 7638 SHA-256 thumbprint of a public key, base64url without padding."),
]
AgeRecipient = Annotated[
    str,
    StringConstraints(pattern=r"^age1[02-9ac-hj-np-z]{58}$"),
    Field(description="X25519 recipient of age."),
]

_DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE_UNITS: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


HttpsUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https://[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?$"),
    Field(description="A URL with https, without user, query and fragment."),
]
MailAddress = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._%+-]{1,64}@[a-z0-9]([a-z0-9.-]{0,187}[a-z0-9])?$"),
    Field(description="A mail address."),
]


def seconds(duration: str) -> float:
    """Turn a valid :data:`Duration` into seconds."""
    unit = "ms" if duration.endswith("ms") else duration[-1]
    return int(duration[: -len(unit)]) * _DURATION_UNITS[unit]


def size_in_bytes(size: str) -> int:
    """Turn a valid :data:`ByteSize` into bytes."""
    factor = _SIZE_UNITS.get(size[-2:])
    return int(size) if factor is None else int(size[:-2]) * factor


def covers(pattern: str, host: str) -> bool:
    """Say whether ``pattern`` covers every name that ``host`` stands for (``host`` may itself be ``*.parent``)."""
    if pattern == host:
        return True
    return pattern.startswith("*.") and not host.startswith("*.") and host.partition(".")[2] == pattern[2:]


def overlaps(one: str, other: str) -> bool:
    """Say whether some host name is matched by both patterns."""
    return covers(one, other) or covers(other, one)
