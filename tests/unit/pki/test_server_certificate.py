"""When the certificate of the control plane is made anew, and what it carries."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from reconciler.errors import Broken
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import LOOPBACK, Names
from reconciler.pki.server_certificate import (
    FILE_NAME,
    Served,
    load,
    names_of,
    obtain,
    permitted_hosts,
    read_leaf,
    signable,
    why_renew,
)
from reconciler.pki.vault import Vault
from tests.support.certificates import of_no_version, text

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
HOSTS = (*LOOPBACK, "plane.test")
CLEAR = Vault()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open_or_found(tmp_path / "keys", permitted=permitted_hosts(HOSTS), now=NOW)


def obtained(authority: Authority, folder: Path, *hosts: str, at: dt.datetime = NOW, vault: Vault = CLEAR) -> Served:
    return obtain(authority, folder / "keys", vault, hosts or HOSTS, at)


@pytest.mark.parametrize(
    ("days", "expected"),
    [(-1.0, "it is not valid yet"), (0.0, None), (19.9, None), (20.1, "it ends on 2026-07-01"), (40.0, "it ends on")],
)
def test_a_third_of_its_life_is_left_at_renewal(
    authority: Authority, tmp_path: Path, days: float, expected: str | None
) -> None:
    """After 20 of its 30 days it is due, and before it begins too: the clock was put right."""
    chain = obtained(authority, tmp_path).chain
    found = why_renew(chain, Names.of(HOSTS), authority.bundle().fingerprints, NOW + days * DAY)
    assert found is expected if expected is None else str(found).startswith(expected)


def test_other_names_and_another_authority_are_reasons(authority: Authority, tmp_path: Path) -> None:
    """The order of names is none."""
    chain, roots = obtained(authority, tmp_path).chain, authority.bundle().fingerprints
    assert why_renew(chain, Names.of(reversed(HOSTS)), roots, NOW) is None
    assert why_renew(chain, Names.of(LOOPBACK), roots, NOW) == "its names have changed"
    assert why_renew(chain, Names.of(HOSTS), ("00" * 32,), NOW) == "it is of another authority"


def test_a_good_one_is_kept_and_a_spoilt_one_replaced(authority: Authority, tmp_path: Path) -> None:
    """What is in the file is used again as long as there is no reason to renew it."""
    first, path = obtained(authority, tmp_path), tmp_path / "keys" / FILE_NAME
    assert obtained(authority, tmp_path, at=NOW + 19 * DAY) == first
    assert read_leaf(tmp_path / "keys") == first.leaf
    leaf, whole = text(first.leaf), path.read_text()
    spoilt_ones = ("", "nothing", first.pem.decode(), whole.replace("-----BEGIN CERT", "-----BEGIN CART", 1))
    for spoilt in (*spoilt_ones, whole.replace(leaf, of_no_version(leaf))):
        path.write_text(spoilt)
        second = obtained(authority, tmp_path)
        assert second.leaf != first.leaf
        assert load(path, CLEAR) == second


def test_the_key_is_sealed_once_there_is_a_vault(authority: Authority, tmp_path: Path) -> None:
    """A clear one is sealed in passing and goes on; without the vault it is useless, so a new one is made."""
    path, vault = tmp_path / "keys" / FILE_NAME, Vault(b"k" * 32)
    first = obtained(authority, tmp_path)
    assert b"PRIVATE KEY-----" in path.read_bytes()
    assert obtained(authority, tmp_path, vault=vault).leaf == first.leaf
    assert b"PRIVATE KEY-----" not in path.read_bytes()
    assert load(path, CLEAR) is None


def test_what_may_not_be_signed_is_left_out(authority: Authority, tmp_path: Path) -> None:
    """A name that waits for an offline root, and a host that is no name, do not keep the others from a certificate."""
    served = obtained(authority, tmp_path, *HOSTS, "elsewhere.test", "under_score")
    assert set(names_of(served.leaf)) == {"DNS:localhost", "DNS:plane.test", "IP:127.0.0.1", "IP:::1"}
    assert signable(["elsewhere.test", "plane.test", "plane.test"], authority.permitted()) == ("plane.test",)
    with pytest.raises(Broken, match="none of the control plane's own names"):
        obtained(authority, tmp_path, "elsewhere.test")
