"""Names of certificates, and what an intermediate may sign."""

from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509

from reconciler.pki.authority.names import Names, Permitted, covers, outside, permitted_for
from tests.support.certificates import names

FLEET = permitted_for(listen=["control.example.net", "10.0.0.1", "::1"], domain="fleet.test", hostnames=["*.shop.test"])


def test_a_fleet_permits_its_own_names_and_no_more() -> None:
    """The domain, the parents of patterns, the addresses to the bit, and URIs of the domain itself."""
    assert FLEET.texts() == (
        "DNS:control.example.net",
        "DNS:fleet.test",
        "DNS:shop.test",
        "IP:10.0.0.1/32",
        "IP:::1/128",
        "URI:fleet.test",
    )


@pytest.mark.parametrize(
    "one",
    [
        names("fleet.test"),
        names("a.b.fleet.test"),
        names("*.app.fleet.test"),
        names("web.shop.test", "control.example.net"),
        names("10.0.0.1"),
        names("::1", "fleet.test"),
        names("vps-1.agents.fleet.test", uris=("spiffe://fleet.test/agent/vps-1",)),
    ],
    ids=lambda one: one.texts()[0],
)
def test_names_of_the_fleet_are_covered(one: Names) -> None:
    """Whatever lies at or below a permitted name may be signed."""
    assert covers(FLEET, one)


@pytest.mark.parametrize(
    ("one", "refused"),
    [
        (names("example.net"), ("DNS:example.net",)),
        (names("evilfleet.test"), ("DNS:evilfleet.test",)),
        (names("fleet.test.evil.example"), ("DNS:fleet.test.evil.example",)),
        (names("test"), ("DNS:test",)),
        (names("*.test"), ("DNS:*.test",)),
        (names("10.0.0.2"), ("IP:10.0.0.2",)),
        (names("::2"), ("IP:::2",)),
        (names(uris=("spiffe://x.fleet.test/agent/a",)), ("URI:spiffe://x.fleet.test/agent/a",)),
        (names(uris=("spiffe://evil.test/agent/a",)), ("URI:spiffe://evil.test/agent/a",)),
        (names("a.fleet.test", "evil.test", "10.9.9.9"), ("DNS:evil.test", "IP:10.9.9.9")),
    ],
    ids=lambda one: one[0] if isinstance(one, tuple) else one.texts()[0],
)
def test_every_name_outside_is_named(one: Names, refused: tuple[str, ...]) -> None:
    """A name beside a permitted one, above it, or that only ends alike is not covered."""
    assert outside(FLEET.extension(), one) == refused


def test_a_form_without_a_permitted_name_permits_nothing() -> None:
    """RFC 5280 leaves a form without subtrees open; ours never are."""
    nothing = Permitted()

    for one in (names("a.test"), names("10.0.0.1"), names("::1"), names(uris=("spiffe://a.test/x",))):
        assert not covers(nothing, one)
    assert not covers(permitted_for(listen=["10.0.0.1"]), names("::ffff:a00:1"))


def test_an_extension_is_read_back_as_what_it_permits() -> None:
    """Placeholders for what nobody may have are not permissions."""
    for permitted in (FLEET, Permitted(), permitted_for(domain="a.test"), permitted_for(listen=["10.0.0.1"])):
        assert Permitted.read(permitted.extension()) == permitted


def test_what_is_covered_twice_is_permitted_once() -> None:
    """A name below another, and a network inside another, are left out, also where two are joined."""
    assert permitted_for(hostnames=["a.test", "b.a.test", "*.c.a.test", "A.TEST"]).texts() == ("DNS:a.test",)
    joined = permitted_for(hostnames=["b.a.test"]) | permitted_for(domain="a.test")
    wide = Permitted(networks=frozenset({ipaddress.ip_network("10.0.0.0/8")})) | permitted_for(listen=["10.1.1.1"])

    assert joined.texts() == ("DNS:a.test", "URI:a.test")
    assert {str(one) for one in wide.networks} == {"10.0.0.0/8"}


def test_including_is_about_names_and_not_about_how_they_are_written() -> None:
    """What lies below is included; what lies above is not."""
    assert FLEET.includes(permitted_for(domain="fleet.test", hostnames=["web.fleet.test", "x.shop.test"]))
    assert FLEET.includes(Permitted())
    assert not FLEET.includes(permitted_for(hostnames=["other.test"]))
    assert not Permitted().includes(permitted_for(listen=["10.0.0.1"]))


@pytest.mark.parametrize(
    "value",
    ["", ".", "a..b", "a.test.", "-a.test", "a_b.test", "*", "*.*.test", "a.*.test", "A.test", "ä.test", "a b", "a\n"],
)
def test_what_is_no_dns_name_is_refused(value: str) -> None:
    """No text that is not a host name or a pattern gets into a certificate."""
    with pytest.raises(ValueError, match="is no DNS name"):
        Names(dns=(value,))


@pytest.mark.parametrize(
    "value", ["", "spiffe:///x", "a.test", "spiffe://a.test/x y", "spiffe://u@a.test/", "mailto:x"]
)
def test_what_is_no_uri_with_a_host_is_refused(value: str) -> None:
    """A URI without a host cannot be held against constraints."""
    with pytest.raises(ValueError, match="is no URI"):
        Names(uris=(value,))


def test_a_certificate_has_a_name() -> None:
    """A certificate for nobody is a mistake."""
    with pytest.raises(ValueError, match="needs a name"):
        Names()


def test_hosts_are_told_apart_and_kept_once() -> None:
    """Addresses and names come from one list, as --listen and --public-url give them."""
    assert Names.of(["Web.Test", "10.0.0.1", "web.test", "::1"]) == Names(
        dns=("web.test",), addresses=(ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("::1"))
    )


@pytest.mark.parametrize(
    ("constraints", "one", "good"),
    [
        (x509.NameConstraints([x509.DNSName(".corp.test")], None), names("a.corp.test"), True),
        (x509.NameConstraints([x509.DNSName(".corp.test")], None), names("corp.test"), False),
        (x509.NameConstraints(None, [x509.DNSName("bad.test")]), names("x.bad.test"), False),
        (x509.NameConstraints(None, [x509.DNSName("bad.test")]), names("10.0.0.1", "good.test"), True),
        (x509.NameConstraints(None, [x509.DNSName("")]), names("good.test"), False),
        (x509.NameConstraints([x509.DNSName("A.Test")], None), names("b.a.test"), True),
        (
            x509.NameConstraints([x509.UniformResourceIdentifier(".a.test")], None),
            names(uris=("spiffe://b.a.test/x",)),
            True,
        ),
        (
            x509.NameConstraints([x509.UniformResourceIdentifier(".a.test")], None),
            names(uris=("spiffe://a.test/x",)),
            False,
        ),
    ],
)
def test_constraints_of_a_root_that_was_brought_are_understood(
    constraints: x509.NameConstraints, one: Names, good: bool
) -> None:
    """Exclusions, leading dots and capitals of others mean what verifiers take them for."""
    assert (outside(constraints, one) == ()) is good
