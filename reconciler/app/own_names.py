"""Under which names the control plane can be reached: what its certificate carries."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import urlsplit

from reconciler.pki.authority.names import LOOPBACK
from reconciler.settings import bracketed

_BEYOND: Final = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses for documentation (RFC 5737, RFC 3849). Nothing is sent to them."""


def own_names(host: str, public_url: str, machine: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the hosts of ``--listen`` and ``--public-url``, each once.

    One that stands for all addresses is replaced by those of the ``machine`` (see :func:`machine_names`). Whoever
    listens on loopback is called by any of its names.
    """
    hosts = [*machine, *LOOPBACK] if is_unspecified(host) else [host]
    if is_loopback(host):
        hosts += LOOPBACK
    public = urlsplit(public_url).hostname if public_url else None
    return tuple(dict.fromkeys(name.lower() for name in (*hosts, public) if name))


def machine_names() -> tuple[str, ...]:
    """Return the names of this machine and its addresses, as far as it knows them; none that is link-local."""
    return tuple(dict.fromkeys(_machine_names()))


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches the host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_unspecified(host: str) -> bool:
    """Say whether listening there means all addresses."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def connectable(host: str) -> str:
    """Return where this machine reaches what listens on ``host``."""
    if not is_unspecified(host):
        return host
    return "::1" if ":" in host else "127.0.0.1"


def url_of(scheme: str, host: str, port: int) -> str:
    """Return the URL of what listens there."""
    return f"{scheme}://{bracketed(host)}:{port}"


def _machine_names() -> Iterator[str]:
    name = socket.gethostname()
    yield name
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    except OSError:
        found = []
    yield from (canonical for _, _, _, canonical, _ in found if canonical)
    yield from (str(address[0]) for *_, address in found if _is_global_enough(str(address[0])))
    for family, beyond in _BEYOND:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((beyond, 9))
                own = str(probe.getsockname()[0])
        except OSError:
            continue
        if _is_global_enough(own):
            yield own


def _is_global_enough(address: str) -> bool:
    return not ipaddress.ip_address(address).is_link_local
