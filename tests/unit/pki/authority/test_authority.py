"""What the authority of a fleet does for others."""

from __future__ import annotations

import datetime as dt
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from reconciler.errors import Broken, Refused
from reconciler.pki.authority import founding, pairs, profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.inventory import Inventory
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.authority.pairs import Pair
from reconciler.pki.authority.revocation import Revoked, revocation_list
from reconciler.pki.private_files import exclusive
from reconciler.pki.vault import Vault
from tests.support.certificates import KEY, NOW, names, new_root, text

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


def issue(authority: Authority, now: dt.datetime = NOW) -> int:
    return authority.issue(AGENT, KEY.public_key(), holder=HOLDER, now=now).serial


def revoked_serials(crl: bytes) -> list[int]:
    return sorted(one.serial_number for one in x509.load_der_x509_crl(crl))


def crl_file(keys: Path) -> Path:
    """The list of the first intermediate."""
    (path,) = (keys / "authority").glob("crl-*.der")
    return path


def crl_number(crl: bytes) -> int:
    return x509.load_der_x509_crl(crl).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


# --- leaves -------------------------------------------------------------------------------------------------------


def test_a_leaf_comes_with_its_chain_and_is_listed(authority: Authority, keys: Path) -> None:
    """Leaf, intermediate, root, and all that the inventory says of it."""
    leaf = authority.issue(AGENT, KEY.public_key(), holder=HOLDER, now=NOW)
    listed = Inventory(keys / "inventory.jsonl").find(leaf.serial)

    assert leaf.pem.count("BEGIN CERTIFICATE") == 3
    assert leaf.pem.endswith(authority.bundle().pem)
    assert authority.bundle().fingerprints == (profiles.fingerprint(leaf.chain[1]),)
    assert listed == authority.find(leaf.serial) == authority.latest(HOLDER)
    assert listed is not None
    assert (listed.kind, listed.names) == ("agent", AGENT.names.texts())
    assert (listed.sha256, listed.not_after) == (profiles.fingerprint(leaf.certificate), NOW + DAY)


def test_serials_are_random(authority: Authority) -> None:
    """159 bits each (RFC 5280, 4.1.2.2 allows 20 octets); nobody can tell the next."""
    serials = [issue(authority) for _ in range(40)]

    assert len(set(serials)) == 40
    assert max(serials).bit_length() in range(150, 160)


def test_a_leaf_is_listed_before_anybody_gets_it(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be written down, there is no certificate."""
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(Broken, match="No space left"):
            issue(authority)
    assert authority.latest(HOLDER) is None
    assert issue(authority)


def test_a_name_outside_is_refused_with_a_sentence(authority: Authority) -> None:
    """It names the name and what to do; nothing is listed."""
    profile = profiles.server(names("web.fleet.test", "web.other.test"))

    with pytest.raises(Refused, match=r"DNS:web\.other\.test: outside what CN=CloudLunacy intermediate") as caught:
        authority.issue(profile, KEY.public_key(), holder="certificate/web", now=NOW)
    assert (caught.value.status, caught.value.code) == (409, "name-not-permitted")
    assert "pki status" in caught.value.hint
    assert "DNS:web.fleet.test" not in str(caught.value)
    assert authority.latest("certificate/web") is None


def test_constraints_of_a_root_that_was_brought_count_too(keys: Path) -> None:
    """An intermediate may permit what its root does not; verifiers refuse such leaves, so none leaves."""
    root = new_root()
    narrow = x509.CertificateBuilder(
        subject_name=root.certificate.subject,
        issuer_name=root.certificate.issuer,
        public_key=root.certificate.public_key(),
        serial_number=5,
        not_valid_before=root.certificate.not_valid_before_utc,
        not_valid_after=root.certificate.not_valid_after_utc,
        extensions=[
            *root.certificate.extensions,
            x509.Extension(
                x509.NameConstraints.oid, True, x509.NameConstraints(None, [x509.DNSName("agents.fleet.test")])
            ),
        ],
    ).sign(root.key, hashes.SHA256())
    founding.bring(keys, Vault(), FLEET, certificate=narrow, key=root.key, keep_key=True, now=NOW)

    with pytest.raises(Refused, match="CN=CloudLunacy root"):
        issue(Authority(keys))


@pytest.mark.parametrize("years", [-1, 2, 20])
def test_a_clock_beyond_the_intermediate_is_a_sentence(authority: Authority, years: int) -> None:
    """Neither a year back nor years ahead does it sign what nobody would take."""
    with pytest.raises(Broken, match="and the clock says"):
        issue(authority, NOW + years * 365 * DAY)


def test_the_list_stays_as_short_as_the_fleet_is(
    authority: Authority, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that renews for years leaves its newest certificates in it, and the others in the archive."""
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        for number in range(1200):
            issue(authority, NOW + number * DAY / 6)
    archive = Inventory(keys / "inventory-2026.jsonl")

    assert len(Inventory(keys / "inventory.jsonl")) + len(archive) == 1202
    assert len(archive) > 900


def test_threads_take_turns(authority: Authority) -> None:
    """Requests come from many threads; each certificate is listed."""
    serials: list[int] = []
    threads = [threading.Thread(target=lambda: serials.extend(issue(authority) for _ in range(10))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(serials) == 40
    assert all(authority.find(serial) for serial in serials)


def test_whoever_holds_the_turn_is_waited_for(authority: Authority, keys: Path) -> None:
    """Another process in the middle of a change is not disturbed; then it goes on by itself."""
    serials: list[int] = []
    waiting = threading.Thread(target=lambda: serials.append(issue(authority)))
    with exclusive(keys / "authority/.lock"):
        waiting.start()
        waiting.join(0.3)
        assert serials == []
    waiting.join(20)

    assert len(serials) == 1


# --- revocation ---------------------------------------------------------------------------------------------------


def test_what_is_revoked_is_on_the_list_at_once(authority: Authority) -> None:
    """The list is signed anew with each revocation, under a higher number; a second revocation changes nothing."""
    first, serial = authority.crl(NOW), issue(authority)
    revoked = authority.revoke(serial, "keyCompromise", NOW)
    second = authority.crl(NOW)

    assert (revoked_serials(first), revoked_serials(second)) == ([], [serial])
    assert crl_number(second) > crl_number(first)
    assert revoked.reason == "keyCompromise"
    assert authority.revoke(serial, "superseded", NOW + DAY) == revoked
    assert authority.crl(NOW) == second


def test_an_unknown_serial_is_refused(authority: Authority) -> None:
    """404, with the serial as people know it."""
    with pytest.raises(Refused, match="serial ff") as caught:
        authority.revoke(255, "unspecified", NOW)
    assert (caught.value.status, caught.value.code) == (404, "no-such-certificate")


def test_everything_of_a_holder_is_revoked(authority: Authority) -> None:
    """What is good of an agent that is out; what has expired needs nothing."""
    old, new = issue(authority, NOW - 2 * DAY), issue(authority)
    other = authority.issue(AGENT, KEY.public_key(), holder="agent/vps-2", now=NOW).serial

    assert [one.serial for one in authority.revoke_holder(HOLDER, "cessationOfOperation", NOW)] == [new]
    assert authority.revoke_holder(HOLDER, "cessationOfOperation", NOW) == ()
    assert revoked_serials(authority.crl(NOW)) == [new]
    assert {old, other}.isdisjoint(revoked_serials(authority.crl(NOW)))


def test_a_list_is_used_again_until_it_is_half_over(authority: Authority) -> None:
    """3.5 days; then another is signed. What expired more than a list's time ago is left out."""
    authority.revoke(issue(authority), "superseded", NOW)
    first = authority.crl(NOW)

    assert authority.crl(NOW + 3 * DAY) == first
    assert crl_number(authority.crl(NOW + 4 * DAY)) > crl_number(first)
    assert revoked_serials(authority.crl(NOW + 7 * DAY)) != []
    assert revoked_serials(authority.crl(NOW + 9 * DAY)) == []


def test_a_long_list_is_read_again(authority: Authority, keys: Path) -> None:
    """3,000 revocations are 120 KB; the list is no larger than it has to be once they are gone."""
    issuer = authority.pairs("intermediate")["current"].issuer()
    assert issuer is not None
    many = [Revoked(serial, NOW, "superseded") for serial in range(1, 3001)]
    former = revocation_list(issuer, many, number=crl_number(authority.crl(NOW)) + 5, now=NOW)
    crl_file(keys).write_bytes(former.public_bytes(serialization.Encoding.DER))

    first, later = authority.crl(NOW), authority.crl(NOW + 4 * DAY)

    assert (len(revoked_serials(first)), revoked_serials(later)) == (3000, [])
    assert crl_number(later) > crl_number(first)


def test_a_damaged_list_is_made_anew(authority: Authority, keys: Path) -> None:
    """It holds nothing that the inventory does not."""
    authority.revoke(issue(authority), "superseded", NOW)
    former = authority.crl(NOW)
    crl_file(keys).write_bytes(b"\x00")

    assert revoked_serials(authority.crl(NOW)) == revoked_serials(former)


# --- rotation -----------------------------------------------------------------------------------------------------


def test_the_bundle_holds_the_roots_of_all_roles(authority: Authority, keys: Path) -> None:
    """A root that is prepared is trusted before it signs, a former one as long as it is there; the current is first."""
    for role in ("previous", "next"):
        root = new_root()
        pairs.save(keys / f"authority/root-{role}.pem", Pair(root.certificate, root.key), "authority/root", Vault())
    bundle = authority.bundle()

    assert len(bundle.fingerprints) == bundle.pem.count("BEGIN CERTIFICATE") == 3
    assert bundle.fingerprints[0] == profiles.fingerprint(authority.pairs("root")["current"].certificate)


def test_an_intermediate_of_the_former_root_presents_that_root(authority: Authority, keys: Path) -> None:
    """Between the change of the root and that of the intermediate the chain is still whole."""
    directory, root = keys / "authority", new_root()
    former = authority.pairs("root")["current"].certificate
    (directory / "root-current.pem").rename(directory / "root-previous.pem")
    pairs.save(directory / "root-current.pem", Pair(root.certificate, root.key), "authority/root", Vault())

    assert authority.issue(AGENT, KEY.public_key(), holder=HOLDER, now=NOW).chain[1] == former


# --- files --------------------------------------------------------------------------------------------------------


def test_the_authority_shows_no_key(authority: Authority) -> None:
    """Its representation is its fingerprint; pairs and folders show nothing private."""
    current = authority.pairs("intermediate")["current"]
    assert isinstance(current.key, ec.EllipticCurvePrivateKey)
    private = str(current.key.private_numbers().private_value)

    assert repr(authority) == f"Authority({authority.bundle().fingerprints[0]})"
    assert private not in f"{current!r} {authority.__dict__!r}"


@pytest.mark.parametrize("name", ["root-current.pem", "intermediate-current.pem", "."])
def test_what_others_can_read_is_refused(authority: Authority, keys: Path, name: str) -> None:
    """A key that others can read stops the start, and the message says what to run."""
    (keys / "authority" / name).chmod(0o750)

    with pytest.raises(Broken, match="open to other users") as caught:
        Authority(keys)
    assert "chmod" in caught.value.hint
    assert authority.__dict__


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"canary",
        b"-----BEGIN CERTIFICATE-----\ncanary\n-----END CERTIFICATE-----\n",
        text(new_root().certificate).encode() + b"canary",
        text(new_root().certificate).encode()
        + KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        b"A" * 100_000,
    ],
    ids=["empty", "noise", "no certificate", "no key", "another key", "large"],
)
def test_a_damaged_file_is_named_without_its_content(authority: Authority, keys: Path, content: bytes) -> None:
    """Damage is a sentence, at once also for a process that runs."""
    (keys / "authority/intermediate-current.pem").write_bytes(content)

    for use in (lambda: Authority(keys), lambda: issue(authority)):
        with pytest.raises(Broken, match=r"intermediate-current\.pem") as caught:
            use()
        assert "canary" not in str(caught.value)
