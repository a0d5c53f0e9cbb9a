"""For all names and constraints: what we say about them is what openssl says."""

from __future__ import annotations

import ipaddress
import tempfile
from pathlib import Path

from cryptography import x509
from hypothesis import example, given, settings
from hypothesis import strategies as st

from reconciler.pki.authority import profiles
from reconciler.pki.authority.names import Names, Permitted, covers, outside, permitted_for
from tests.support.certificates import KEY, NOW, new_intermediate, new_leaf, new_root, text
from tests.support.openssl import verify

ROOT = new_root()
LABELS = st.sampled_from(["a", "b", "ab", "x-1", "test"])
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.builds(lambda star, host: f"*.{host}" if star else host, st.booleans(), HOSTS)
ADDRESSES = st.one_of(
    st.integers(0, 7).map(lambda low: ipaddress.ip_address(0x0A000000 + low)),
    st.integers(0, 3).map(lambda low: ipaddress.ip_address((0xFD << 120) + low)),
)
NETWORKS = st.builds(
    lambda address, short: ipaddress.ip_network((address, address.max_prefixlen - short), strict=False),
    ADDRESSES,
    st.integers(0, 3),
)
URIS = HOSTS.map(lambda host: f"spiffe://{host}/agent/a")
SOME_NAMES = (
    st.builds(
        lambda *forms: tuple(tuple(form) for form in forms),
        st.lists(PATTERNS, max_size=2),
        st.lists(ADDRESSES, max_size=2),
        st.lists(URIS, max_size=2),
    )
    .filter(any)
    .map(lambda forms: Names(*forms))
)
PERMITTED = st.builds(
    Permitted,
    st.frozensets(HOSTS, max_size=3),
    st.frozensets(HOSTS, max_size=2),
    st.frozensets(NETWORKS, max_size=2),
)


def openssl_takes(permitted: Permitted, names: Names) -> bool:
    intermediate = new_intermediate(ROOT, permitted)
    leaf = new_leaf(profiles.server(names), intermediate)
    with tempfile.TemporaryDirectory() as folder:
        chain = text(leaf, intermediate.certificate)
        verdict = verify(Path(folder), chain, text(ROOT.certificate), at=NOW, purpose="sslserver")
    assert verdict.good or "permitted subtree violation" in verdict.text or "excluded subtree" in verdict.text
    return verdict.good


@settings(max_examples=120)
@given(PERMITTED, SOME_NAMES)
@example(Permitted(), Names.of(["a.test"]))
@example(permitted_for(hostnames=["a.test"]), Names.of(["ba.test"]))
@example(permitted_for(domain="a.test"), profiles.agent("a.test", "x").names)
@example(permitted_for(listen=["10.0.0.1"]), Names.of(["fd00::1"]))
def test_we_refuse_exactly_what_openssl_refuses(permitted: Permitted, names: Names) -> None:
    """A leaf leaves the authority if and only if openssl takes it below the intermediate."""
    assert covers(permitted, names) is openssl_takes(permitted, names)


@given(PERMITTED, PERMITTED, SOME_NAMES)
def test_joining_permits_what_either_permits_and_no_more(one: Permitted, other: Permitted, names: Names) -> None:
    """A wider intermediate loses no name; each of its names was permitted by one of the two."""
    joined = one | other
    assert joined.includes(one)
    assert joined.includes(other)
    refused = set(outside(one.extension(), names)) & set(outside(other.extension(), names))

    assert set(outside(joined.extension(), names)) == refused


@given(PERMITTED)
def test_an_extension_reads_back_as_itself(permitted: Permitted) -> None:
    """Through a certificate's bytes, too."""
    normal = permitted | Permitted()
    certificate = profiles.intermediate(KEY.public_key(), ROOT, normal, serial=1, now=NOW)
    extension = certificate.extensions.get_extension_for_class(x509.NameConstraints)

    assert extension.critical
    assert Permitted.read(extension.value) == normal
