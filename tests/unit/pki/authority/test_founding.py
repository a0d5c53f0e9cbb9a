"""The three ways to a first authority, and what is never done twice."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from reconciler.errors import Broken
from reconciler.pki.authority import founding, intermediates, pairs, profiles
from reconciler.pki.authority.authority import Authority
from reconciler.pki.authority.names import permitted_for
from reconciler.pki.authority.pairs import Pair
from reconciler.pki.vault import Secret, Vault
from tests.support.certificates import KEY, NOW, names, new_intermediate, new_root
from tests.support.openssl import run

FLEET = permitted_for(listen=["127.0.0.1"], domain="fleet.test")
SERVER = profiles.server(names("127.0.0.1"))
CLEAR = Vault()
PASSPHRASE = b"correct horse battery"


def everything(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def found_and_issue(keys: str) -> tuple[tuple[str, ...], int]:
    authority = Authority.open_or_found(Path(keys), permitted=FLEET, now=NOW)
    leaf = authority.issue(SERVER, KEY.public_key(), holder="server", now=NOW)
    leaf.certificate.verify_directly_issued_by(leaf.chain[0])
    leaf.chain[0].verify_directly_issued_by(leaf.chain[1])
    return authority.bundle().fingerprints, leaf.serial


def test_a_first_start_founds_and_later_ones_find(tmp_path: Path) -> None:
    """The second opening has the roots of the first, and everything is for its owner only."""
    first = Authority.open_or_found(tmp_path / "keys", permitted=FLEET, now=NOW)
    second = Authority.open_or_found(tmp_path / "keys", permitted=permitted_for(domain="other.test"), now=NOW)
    files = [path for path in (tmp_path / "keys").rglob("*") if path.is_file()]

    assert first.bundle() == second.bundle()
    assert second.permitted() == FLEET
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys" / "authority").stat().st_mode) == 0o700
    assert first.counts(NOW) == {"root": {"good": 1}, "intermediate": {"good": 1}}


def test_processes_that_start_at_once_found_one_authority(tmp_path: Path) -> None:
    """All have the same root, each can issue at once, and all issuances are listed."""
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.map(found_and_issue, [str(tmp_path / "keys")] * 8, chunksize=1)
    listed = Authority(tmp_path / "keys")

    assert len({fingerprints for fingerprints, _ in found}) == 1
    assert all(listed.find(serial) for _, serial in found)
    assert listed.counts(NOW)["root"] == {"good": 1}


def test_a_founding_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever file was the last to be written, the next start keeps it and makes what is missing."""
    complete = tmp_path / "complete"
    Authority.open_or_found(complete, permitted=FLEET, now=NOW)
    saves = pairs.save
    for writes in (0, 1):
        keys, left = tmp_path / f"cut-{writes}", writes

        def cut(path: Path, pair: Pair, purpose: str, vault: Vault) -> None:
            nonlocal left
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            saves(path, pair, purpose, vault)

        monkeypatch.setattr(pairs, "save", cut)
        with pytest.raises(KeyboardInterrupt):
            Authority.open_or_found(keys, permitted=FLEET, now=NOW)
        monkeypatch.setattr(pairs, "save", saves)
        before = sorted(path.read_bytes() for path in (keys / "authority").glob("root-*.pem"))
        authority = Authority.open_or_found(keys, permitted=FLEET, now=NOW)

        assert authority.issue(SERVER, KEY.public_key(), holder="server", now=NOW)
        assert len(before) == writes
        assert not before or (keys / "authority/root-current.pem").read_bytes() == before[0]
        assert authority.counts(NOW)["root"] == {"good": 1}


def test_a_lost_root_is_not_followed_by_another(tmp_path: Path) -> None:
    """Everybody who trusts the former would be lost without anybody noticing."""
    Authority.open_or_found(tmp_path, permitted=FLEET, now=NOW)
    (tmp_path / "authority/root-current.pem").unlink()

    with pytest.raises(Broken, match="its file is gone") as caught:
        Authority.open_or_found(tmp_path, permitted=FLEET, now=NOW)
    assert "backup" in caught.value.hint
    with pytest.raises(Broken, match="There is no authority"):
        Authority(tmp_path)


def test_a_lost_intermediate_is_followed_by_another(tmp_path: Path) -> None:
    """Nobody holds it; whoever trusts the root takes the new one."""
    former = Authority.open_or_found(tmp_path, permitted=FLEET, now=NOW).bundle()
    (tmp_path / "authority/intermediate-current.pem").unlink()
    authority = Authority.open_or_found(tmp_path, permitted=FLEET, now=NOW)

    assert authority.bundle() == former
    assert authority.issue(SERVER, KEY.public_key(), holder="server", now=NOW)


def test_nothing_is_founded_by_a_clock_that_was_never_set(tmp_path: Path) -> None:
    """A root from 1970 would be over before it is used."""
    with pytest.raises(Broken, match="it was never set"):
        Authority.open_or_found(tmp_path, permitted=FLEET, now=dt.datetime(1970, 1, 1, 0, 5, tzinfo=dt.UTC))


@pytest.mark.parametrize("days", [-2, 2])
def test_a_clock_that_was_days_off_at_the_founding_harms_nothing(tmp_path: Path, days: int) -> None:
    """Once it is put right the authority is valid, and so is what it issues."""
    authority = Authority.open_or_found(tmp_path, permitted=FLEET, now=NOW + dt.timedelta(days=days))
    leaf = authority.issue(SERVER, KEY.public_key(), holder="server", now=NOW)

    for one in (leaf.certificate, *leaf.chain):
        assert one.not_valid_before_utc <= NOW <= one.not_valid_after_utc


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_an_offline_root_leaves_no_key_behind(tmp_path: Path, passphrase: bytes | None) -> None:
    """The key is in the one file that was named, 0600, and in no file of the data directory."""
    keys, key_out = tmp_path / "keys", tmp_path / "root.key"
    founding.found_offline(keys, CLEAR, FLEET, key_out=key_out, passphrase=passphrase, now=NOW)
    authority = Authority(keys)
    key = pairs.read_key(key_out.read_bytes(), passphrase)
    assert key is not None
    secret = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    assert authority.pairs("root")["current"].key is None
    assert key.public_key() == authority.pairs("root")["current"].certificate.public_key()
    assert secret[36:68] not in everything(keys)
    assert everything(keys).count(b"PRIVATE KEY-----\n") == 2  # begin and end of the intermediate's
    assert stat.S_IMODE(key_out.stat().st_mode) == 0o600
    assert (b"ENCRYPTED" in key_out.read_bytes()) is (passphrase is not None)
    assert authority.issue(SERVER, KEY.public_key(), holder="server", now=NOW)
    assert pairs.read_key(key_out.read_bytes(), b"another passphrase") is None or passphrase is None


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    """It may be the only copy of the root of another fleet. Nothing is founded then."""
    (tmp_path / "root.key").write_text("the other fleet's")

    with pytest.raises(Broken, match="never overwritten"):
        founding.found_offline(tmp_path / "keys", CLEAR, FLEET, key_out=tmp_path / "root.key", passphrase=None, now=NOW)
    assert (tmp_path / "root.key").read_text() == "the other fleet's"
    with pytest.raises(Broken, match="There is no authority"):
        Authority(tmp_path / "keys")


def test_a_key_that_cannot_be_written_founds_nothing(tmp_path: Path) -> None:
    """A missing directory is a sentence."""
    with pytest.raises(Broken, match="No such file"):
        founding.found_offline(
            tmp_path / "keys", CLEAR, FLEET, key_out=tmp_path / "usb/root.key", passphrase=None, now=NOW
        )
    with pytest.raises(Broken, match="There is no authority"):
        Authority(tmp_path / "keys")


def test_no_way_founds_over_an_authority(tmp_path: Path) -> None:
    """Neither the offline way nor a root that is brought replaces what is trusted."""
    authority = Authority.open_or_found(tmp_path, permitted=FLEET, now=NOW)
    former, root = authority.bundle(), new_root()

    with pytest.raises(Broken, match="already"):
        founding.found_offline(tmp_path, CLEAR, FLEET, key_out=tmp_path / "root.key", passphrase=None, now=NOW)
    with pytest.raises(Broken, match="already"):
        founding.bring(tmp_path, CLEAR, FLEET, certificate=root.certificate, key=root.key, keep_key=False, now=NOW)
    assert authority.bundle() == former
    assert not (tmp_path / "root.key").exists()


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65537, 2048)],
    ids=["P-384", "RSA"],
)
@pytest.mark.parametrize("keep", [True, False])
def test_a_root_of_ones_own_signs_the_intermediate(tmp_path: Path, key: profiles.PrivateKey, keep: bool) -> None:
    """Its key is used; it is kept only when that was asked for, and then the intermediate can grow."""
    root = new_root(key=key)
    founding.bring(tmp_path, CLEAR, FLEET, certificate=root.certificate, key=key, keep_key=keep, now=NOW)
    authority = Authority(tmp_path)
    outstanding = authority.ensure_permitted(permitted_for(domain="other.test"), NOW)

    assert authority.bundle().fingerprints == (profiles.fingerprint(root.certificate),)
    assert authority.issue(SERVER, KEY.public_key(), holder="server", now=NOW).chain[1] == root.certificate
    assert (authority.pairs("root")["current"].key is not None) is keep
    assert (outstanding is None) is keep


def test_a_root_without_its_key_waits_for_a_signature(tmp_path: Path) -> None:
    """A request is there at once; nothing is issued before its answer is installed."""
    root = new_root()
    founding.bring(tmp_path, CLEAR, FLEET, certificate=root.certificate, key=None, keep_key=False, now=NOW)
    authority = Authority(tmp_path)
    outstanding = authority.outstanding()
    with pytest.raises(Broken, match="no intermediate yet") as caught:
        authority.issue(SERVER, KEY.public_key(), holder="server", now=NOW)
    signed, permitted = intermediates.sign_request(root, authority.request(), now=NOW)

    assert outstanding is not None
    assert "pki request" in caught.value.hint
    assert permitted == FLEET
    assert authority.install(pairs.pem(signed), NOW) == FLEET
    assert authority.outstanding() is None
    assert authority.issue(SERVER, KEY.public_key(), holder="server", now=NOW)
    assert not (tmp_path / "authority/intermediate-waiting.pem").exists()


def self_signed(**changed: x509.ExtensionType | None) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "own")])
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
    )
    extensions: dict[str, x509.ExtensionType | None] = {
        "constraints": x509.BasicConstraints(ca=True, path_length=None),
        "usage": x509.KeyUsage(**usage, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False),
        "ski": x509.SubjectKeyIdentifier.from_public_key(KEY.public_key()),
        **changed,
    }
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(KEY.public_key())
        .serial_number(1)
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=1000))
    )
    for extension in extensions.values():
        if extension is not None:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
    return builder.sign(KEY, hashes.SHA256())


OTHER_NAME = x509.DirectoryName(x509.Name([]))


@pytest.mark.parametrize(
    ("certificate", "text"),
    [
        (self_signed(constraints=x509.BasicConstraints(ca=False, path_length=None)), "not one of an authority"),
        (self_signed(constraints=None), "not one of an authority"),
        (self_signed(usage=None), "not one of an authority"),
        (self_signed(ski=None), "not one of an authority"),
        (self_signed(constraints=x509.BasicConstraints(ca=True, path_length=0)), "pathlen 0"),
        (self_signed(names=x509.NameConstraints([OTHER_NAME], None)), "directory names"),
        (new_intermediate(new_root(), FLEET).certificate, "not signed with its own key"),
        (new_root(NOW - dt.timedelta(days=4000)).certificate, "valid from"),
        (new_root().certificate, "not the key of the root"),
    ],
    ids=["no CA", "no constraints", "no usage", "no key id", "pathlen", "names", "an intermediate", "expired", "key"],
)
def test_what_cannot_be_a_root_is_a_sentence(tmp_path: Path, certificate: x509.Certificate, text: str) -> None:
    """Nothing is written before all of it is known to fit."""
    with pytest.raises(Broken, match=text):
        founding.bring(tmp_path / "keys", CLEAR, FLEET, certificate=certificate, key=KEY, keep_key=True, now=NOW)
    assert not (tmp_path / "keys").exists()


def test_a_root_of_ones_own_without_a_path_length_is_fine(tmp_path: Path) -> None:
    """The check of the table above refuses what is changed, and not the rest."""
    founding.bring(tmp_path, CLEAR, FLEET, certificate=self_signed(), key=KEY, keep_key=True, now=NOW)

    assert Authority(tmp_path).issue(SERVER, KEY.public_key(), holder="server", now=NOW)


def test_a_sealed_authority_holds_no_key_in_clear(tmp_path: Path) -> None:
    """Neither one that is founded sealed nor one that was clear before; a wrong key is a sentence."""
    secret = Secret("scrypt", PASSPHRASE)
    sealed, clear = tmp_path / "sealed", tmp_path / "clear"
    vault = Vault.unlock(sealed, secret)
    founded = Authority.open_or_found(sealed, vault, permitted=FLEET, now=NOW)
    former = Authority.open_or_found(clear, permitted=FLEET, now=NOW).bundle()
    assert b"PRIVATE KEY" in everything(clear)
    later = Vault.unlock(clear, secret)
    migrated = Authority(clear, later)

    assert b"PRIVATE KEY" not in everything(sealed) + everything(clear)
    assert migrated.bundle() == former
    for authority in (founded, migrated):
        assert authority.issue(SERVER, KEY.public_key(), holder="server", now=NOW)
    with pytest.raises(Broken, match="another key"):
        Authority(sealed, later)


def test_a_sealed_authority_can_be_looked_at_without_its_key(tmp_path: Path) -> None:
    """Whatever needs the key is a sentence, and makes no other key in its place."""
    founded = Authority.open_or_found(
        tmp_path, Vault.unlock(tmp_path, Secret("scrypt", PASSPHRASE)), permitted=FLEET, now=NOW
    )
    before = everything(tmp_path / "authority")
    looking = Authority.open_or_found(tmp_path, permitted=FLEET, now=NOW)

    assert looking.bundle() == founded.bundle()
    assert looking.permitted() == FLEET
    for signs in (
        lambda: looking.issue(SERVER, KEY.public_key(), holder="server", now=NOW),
        lambda: looking.ensure_permitted(permitted_for(domain="other.test"), NOW),
        lambda: looking.crl(NOW),
        looking.request,
    ):
        with pytest.raises(Broken, match="is sealed"):
            signs()
    assert everything(tmp_path / "authority") == before


def test_the_public_part_of_a_sealed_file_is_for_everybodys_tools(tmp_path: Path) -> None:
    """openssl reads the certificate from a file whose key is sealed."""
    Authority.open_or_found(tmp_path, Vault.unlock(tmp_path, Secret("scrypt", PASSPHRASE)), permitted=FLEET, now=NOW)
    verdict = run("x509", "-noout", "-subject", "-in", str(tmp_path / "authority/root-current.pem"))

    assert verdict.good
    assert "CloudLunacy root" in verdict.text
