"""Under which names the control plane is reached."""

from __future__ import annotations

import ipaddress

import pytest

from reconciler.app.own_names import connectable, is_loopback, machine_names, own_names, url_of

LOOPBACK = ("localhost", "127.0.0.1", "::1")


@pytest.mark.parametrize(
    ("host", "public", "expected"),
    [
        ("127.0.0.1", "", ("127.0.0.1", "localhost", "::1")),
        ("localhost", "", LOOPBACK),
        ("192.0.2.7", "", ("192.0.2.7",)),
        ("Plane.Test", "https://Public.test:7300/", ("plane.test", "public.test")),
        ("0.0.0.0", "", ("box", "10.0.0.1", *LOOPBACK)),
        ("::", "https://[2001:db8::1]:1", ("box", "10.0.0.1", *LOOPBACK, "2001:db8::1")),
    ],
)
def test_the_names_of_listen_and_public_url(host: str, public: str, expected: tuple[str, ...]) -> None:
    """Each once, in lower case; all addresses are those of the machine."""
    assert own_names(host, public, ("box", "10.0.0.1")) == expected


def test_this_machine_has_a_name_and_no_link_local_address() -> None:
    """What it knows of itself; nobody connects to a link-local address by a certificate."""
    found = machine_names()
    assert found
    for name in found:
        try:
            assert not ipaddress.ip_address(name).is_link_local
        except ValueError:
            assert name


@pytest.mark.parametrize(
    ("host", "loopback", "reached"),
    [
        ("127.0.0.1", True, "https://127.0.0.1:1"),
        ("127.9.9.9", True, "https://127.9.9.9:1"),
        ("::1", True, "https://[::1]:1"),
        ("LocalHost", True, "https://LocalHost:1"),
        ("0.0.0.0", False, "https://127.0.0.1:1"),
        ("::", False, "https://[::1]:1"),
        ("10.0.0.1", False, "https://10.0.0.1:1"),
        ("localhost.test", False, "https://localhost.test:1"),
    ],
)
def test_where_this_machine_reaches_what_listens(host: str, loopback: bool, reached: str) -> None:
    """Only loopback counts as loopback; all addresses are reached by it."""
    assert is_loopback(host) is loopback
    assert url_of("https", connectable(host), 1) == reached
