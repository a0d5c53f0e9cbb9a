"""What an authority may sign: how that grows, by itself or by a person where the root's key is elsewhere."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Broken, Refused
from reconciler.pki.authority import founding, intermediates, pairs, profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import MAX_SUBTREES, Permitted, permitted_for
from reconciler.pki.authority.profiles import Issuer
from reconciler.pki.vault import Vault
from tests.support.certificates import KEY, NOW, names, new_intermediate, new_root

DAY = dt.timedelta(days=1)
LISTEN = permitted_for(listen=["127.0.0.1", "control.example.net"])
FLEET = LISTEN | permitted_for(domain="fleet.test")
AGENT = profiles.agent("fleet.test", "vps-1")
HOLDER = "agent/vps-1"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def authority(keys: Path) -> Authority:
    return Authority.open_or_found(keys, permitted=FLEET, now=NOW)


def offline(keys: Path) -> tuple[Authority, Issuer]:
    """An authority whose root key is elsewhere, and that root."""
    key_out = keys.with_name("root.key")
    founding.found_offline(keys, Vault(), LISTEN, key_out=key_out, passphrase=None, now=NOW)
    authority, key = Authority(keys), pairs.read_key(key_out.read_bytes())
    assert key is not None
    return authority, Issuer(authority.pairs("root")["current"].certificate, key)


def issue(authority: Authority, now: dt.datetime = NOW) -> int:
    return authority.issue(AGENT, KEY.public_key(), holder=HOLDER, now=now).serial


def test_it_grows_by_itself_where_the_root_is(keys: Path) -> None:
    """Same key, same name, more permitted; verifiers need nothing new, and former leaves stay good."""
    authority = Authority.open_or_found(keys, permitted=LISTEN, now=NOW)
    server = authority.issue(profiles.server(names("127.0.0.1")), KEY.public_key(), holder="server", now=NOW)
    bundle, former = authority.bundle(), authority.pairs("intermediate")["current"].certificate
    with pytest.raises(Refused, match=r"fleet\.test"):
        issue(authority)
    assert authority.ensure_permitted(permitted_for(domain="fleet.test"), NOW) is None
    grown = authority.pairs("intermediate")["current"].certificate

    assert issue(authority)
    assert authority.permitted() == FLEET
    assert authority.bundle() == bundle
    assert (grown.subject, grown.public_key()) == (former.subject, former.public_key())
    assert grown.serial_number != former.serial_number
    server.certificate.verify_directly_issued_by(grown)


def test_what_is_permitted_already_makes_no_certificate(authority: Authority) -> None:
    """Asked at each pass, it signs only when something is missing; names that went away do not make one either."""
    for wanted in (FLEET, LISTEN, Permitted(), permitted_for(hostnames=["*.app.fleet.test"])):
        assert authority.ensure_permitted(wanted, NOW) is None

    assert authority.counts(NOW)["intermediate"] == {"good": 1}


@pytest.mark.parametrize(("days", "made"), [(200, 1), (240, 1), (250, 2), (400, 2)])
def test_an_intermediate_is_followed_before_it_ends(authority: Authority, days: int, made: int) -> None:
    """With a third of its year left, or when it is over already, a new one comes."""
    now = NOW + days * DAY
    assert authority.ensure_permitted(FLEET, now) is None
    assert authority.ensure_permitted(FLEET, now) is None

    assert sum(authority.counts(now)["intermediate"].values()) == made
    assert issue(authority, now)


def test_in_the_last_days_of_a_root_nothing_is_signed_in_a_loop(authority: Authority) -> None:
    """A new intermediate would end with the root too."""
    now = NOW + profiles.ROOT_LIFETIME - 5 * DAY
    for _ in range(3):
        assert authority.ensure_permitted(FLEET, now) is None

    assert sum(authority.counts(now)["intermediate"].values()) == 2


def test_an_intermediate_from_the_future_is_followed_by_one_of_now(authority: Authority) -> None:
    """A clock that was months ahead when it was renewed does not leave the fleet without an authority."""
    authority.ensure_permitted(FLEET, NOW + 300 * DAY)
    with pytest.raises(Broken, match="the clock says"):
        issue(authority)
    assert authority.ensure_permitted(FLEET, NOW) is None

    assert issue(authority)


def test_too_many_names_are_a_sentence(authority: Authority) -> None:
    """What every handshake would have to carry is bounded; the former intermediate stays."""
    many = permitted_for(hostnames=[f"*.host-{number}.test" for number in range(10 * MAX_SUBTREES)])
    outstanding = authority.ensure_permitted(many, NOW)

    assert outstanding is not None
    assert authority.outstanding() == outstanding
    assert (outstanding.reason, authority.permitted()) == ("TooManyNames", FLEET)
    assert issue(authority)


def test_with_the_root_offline_a_person_is_asked(keys: Path) -> None:
    """What is missing and what to run are remembered for others to see; the former intermediate serves."""
    authority, _ = offline(keys)
    wanted = permitted_for(domain="fleet.test")
    outstanding = authority.ensure_permitted(wanted, NOW)

    assert outstanding is not None
    assert outstanding.reason == "RootOffline"
    assert "DNS:fleet.test, URI:fleet.test" in outstanding.message
    assert "127.0.0.1" not in outstanding.message
    assert "pki sign" in outstanding.hint
    assert Authority(keys).outstanding() == outstanding
    assert authority.issue(profiles.server(names("127.0.0.1")), KEY.public_key(), holder="server", now=NOW)
    assert authority.ensure_permitted(LISTEN, NOW) is None
    assert Authority(keys).outstanding() is None


def test_what_the_person_installs_is_in_service_at_once(keys: Path) -> None:
    """Request, sign elsewhere, install by a command: the process that runs takes it up without a restart."""
    running, root = offline(keys)
    running.ensure_permitted(permitted_for(domain="fleet.test"), NOW)
    command = Authority(keys)
    signed, permitted = intermediates.sign_request(root, command.request(), now=NOW)
    command.install(pairs.pem(signed), NOW)

    assert permitted == running.permitted() == FLEET
    assert running.outstanding() is None
    assert issue(running)
    assert running.ensure_permitted(FLEET, NOW) is None


def test_an_ending_intermediate_of_an_offline_root_is_told_of(keys: Path) -> None:
    """Months before it ends."""
    authority, _ = offline(keys)
    outstanding = authority.ensure_permitted(LISTEN, NOW + 300 * DAY)

    assert outstanding is not None
    assert "ends soon" in outstanding.message


def unconstrained(root: Issuer, key: ec.EllipticCurvePrivateKey, *, critical: bool | None) -> x509.Certificate:
    """An intermediate as another program might make one: without name constraints, or with some that are optional."""
    good = profiles.intermediate(key.public_key(), root, FLEET, serial=9, now=NOW)
    extensions = [one for one in good.extensions if one.oid != x509.NameConstraints.oid]
    if critical is not None:
        extensions.append(x509.Extension(x509.NameConstraints.oid, critical, FLEET.extension()))
    return x509.CertificateBuilder(
        good.issuer, good.subject, key.public_key(), 9, good.not_valid_before_utc, good.not_valid_after_utc, extensions
    ).sign(root.key, hashes.SHA256())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda _, key: new_intermediate_for(key, new_root()), "not signed by the root"),
        (lambda root, _: new_intermediate(root, FLEET).certificate, "a key that is not here"),
        (lambda root, _: root.certificate, "a key that is not here"),
        (lambda root, key: unconstrained(root, key, critical=None), "no name constraints"),
        (lambda root, key: unconstrained(root, key, critical=False), "not critical"),
        (lambda root, key: new_intermediate_for(key, root, NOW + 5 * DAY), "valid from"),
        (lambda root, key: leaf_for(key, root), "not one of an authority"),
    ],
    ids=["another root", "another key", "the root", "unconstrained", "optional", "not yet valid", "a leaf"],
)
def test_what_is_not_what_was_asked_for_is_not_installed(
    keys: Path, make: Callable[[Issuer, object], x509.Certificate], sentence: str
) -> None:
    """The message says why; the former intermediate stays."""
    authority, root = offline(keys)
    former = authority.pairs("intermediate")["current"]

    with pytest.raises(Broken, match=sentence):
        authority.install(pairs.pem(make(root, former.key)), NOW)
    assert authority.pairs("intermediate")["current"].certificate == former.certificate


def new_intermediate_for(key: ec.EllipticCurvePrivateKey, root: Issuer, now: dt.datetime = NOW) -> x509.Certificate:
    return profiles.intermediate(key.public_key(), root, FLEET, serial=9, now=now)


def leaf_for(key: ec.EllipticCurvePrivateKey, root: Issuer) -> x509.Certificate:
    return profiles.leaf(AGENT, key.public_key(), root, serial=9, now=NOW)
