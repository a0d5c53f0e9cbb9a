"""Signed commits, made with real ssh-keygen and GnuPG keys."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reconciler.errors import Broken
from reconciler.git.mirror import Mirror, Signature, SigningKeys
from reconciler.git.remote import Remote
from tests.support.git_repos import BareRepo, git
from tests.support.parts import require
from tests.support.ssh_server import make_key

EMAIL = "dev@example.test"


@pytest.fixture
def remote(tmp_path: Path) -> BareRepo:
    repo = BareRepo.create(tmp_path / "remote.git")
    repo.commit({"a": "1"}, message="Unsigned")
    return repo


def sign(remote: BareRepo, settings: dict[str, str], home: Path | None = None) -> str:
    """Put a signed commit on the branch with ``git commit-tree -S``; return its id."""
    config = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    arguments = (*config, "commit-tree", "-S", "-m", "Signed", "-p", remote.tip() or "", "main^{tree}")
    tip = git("-C", remote.path, *arguments, env={"GNUPGHOME": str(home)} if home else {})
    remote.set_tip(tip)
    return tip


def sign_ssh(remote: BareRepo, key: Path) -> str:
    return sign(remote, {"gpg.format": "ssh", "user.signingKey": str(key)})


def allowed_signers(tmp_path: Path, key: Path, name: str = "allowed") -> Path:
    path = tmp_path / name
    path.write_text(f"{EMAIL} {key.with_suffix('.pub').read_text()}")
    return path


def judge(tmp_path: Path, remote: BareRepo, revision: str, keys: SigningKeys) -> Signature:
    async def scenario() -> Signature:
        mirror = Mirror(tmp_path / "mirror", Remote.parse(str(remote.path)), "main")
        await mirror.fetch(revision)
        try:
            return await mirror.signature(revision, keys)
        finally:
            await mirror.close()

    return asyncio.run(scenario())


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for the sockets of GnuPG's agent (108 bytes in all)."""
    with tempfile.TemporaryDirectory(prefix="gpg-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)


def make_gpg_key(home: Path) -> Path:
    """Make a GPG key in a home of its own; return the exported public key."""
    gpg = require("gpg")
    home.mkdir(mode=0o700)
    base: list[str | Path] = [gpg, "--homedir", home, "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run(
        [*base, "--quick-gen-key", f"Dev <{EMAIL}>", "ed25519", "sign", "0"], check=True, capture_output=True
    )
    public = home.with_suffix(".asc")
    exported = subprocess.run([*base, "--armor", "--export"], check=True, capture_output=True).stdout
    public.write_bytes(exported)
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, capture_output=True)
    return public


def sign_gpg(remote: BareRepo, home: Path) -> str:
    try:
        return sign(remote, {"gpg.format": "openpgp", "user.signingKey": EMAIL}, home)
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False, capture_output=True)


def test_ssh_signature_of_a_given_key_is_good(tmp_path: Path, remote: BareRepo) -> None:
    """A commit signed with a listed SSH key names its signer."""
    key = make_key(tmp_path / "key")
    tip = sign_ssh(remote, key)
    keys = SigningKeys(allowed_signers=allowed_signers(tmp_path, key))
    assert judge(tmp_path, remote, tip, keys) == Signature(good=True, signer=EMAIL, reason="")


def test_ssh_signature_of_another_key_is_not_good(tmp_path: Path, remote: BareRepo) -> None:
    """A valid signature by a key that nobody listed counts for nothing."""
    key, other = make_key(tmp_path / "key"), make_key(tmp_path / "other")
    tip = sign_ssh(remote, other)
    found = judge(tmp_path, remote, tip, SigningKeys(allowed_signers=allowed_signers(tmp_path, key)))
    assert (found.good, found.signer) == (False, "")
    assert "not among the given" in found.reason


def test_gpg_signature_of_a_given_key_is_good(tmp_path: Path, remote: BareRepo, short_path: Path) -> None:
    """A commit signed with a given GPG key names its user id; a folder of keys serves as well as a file."""
    public = make_gpg_key(short_path / "gpg")
    tip = sign_gpg(remote, short_path / "gpg")
    expected = Signature(good=True, signer=f"Dev <{EMAIL}>", reason="")
    assert judge(tmp_path, remote, tip, SigningKeys(gpg_keyring=public)) == expected
    folder = tmp_path / "keys"
    folder.mkdir()
    public.rename(folder / "dev.asc")
    assert judge(tmp_path, remote, tip, SigningKeys(gpg_keyring=folder)) == expected


def test_gpg_signature_of_another_key_is_not_good(tmp_path: Path, remote: BareRepo, short_path: Path) -> None:
    """A GPG key that was not given counts for nothing, whatever is in the keyring of the machine."""
    make_gpg_key(short_path / "gpg")
    other = make_gpg_key(short_path / "gpg2")
    tip = sign_gpg(remote, short_path / "gpg")
    found = judge(tmp_path, remote, tip, SigningKeys(gpg_keyring=other))
    assert not found.good
    assert "not among the given" in found.reason


def test_one_kind_does_not_open_the_other(tmp_path: Path, remote: BareRepo, short_path: Path) -> None:
    """With only GPG keys given an SSH signature is not good, and the other way round."""
    key, public = make_key(tmp_path / "key"), make_gpg_key(short_path / "gpg")
    by_ssh = sign_ssh(remote, key)
    by_gpg = sign_gpg(remote, short_path / "gpg")
    ssh_keys, gpg_keys = SigningKeys(allowed_signers=allowed_signers(tmp_path, key)), SigningKeys(gpg_keyring=public)
    assert not judge(tmp_path, remote, by_ssh, gpg_keys).good
    assert not judge(tmp_path, remote, by_gpg, ssh_keys).good
    both = SigningKeys(ssh_keys.allowed_signers, gpg_keys.gpg_keyring)
    assert judge(tmp_path, remote, by_ssh, both).good
    assert judge(tmp_path, remote, by_gpg, both).good


def test_unsigned_commit_is_not_good(tmp_path: Path, remote: BareRepo) -> None:
    """A commit without a signature says so."""
    keys = SigningKeys(allowed_signers=allowed_signers(tmp_path, make_key(tmp_path / "key")))
    found = judge(tmp_path, remote, remote.tip() or "", keys)
    assert not found.good
    assert "not signed" in found.reason


def test_without_keys_nothing_is_good(tmp_path: Path, remote: BareRepo) -> None:
    """Nobody's signature counts until keys are given."""
    tip = sign_ssh(remote, make_key(tmp_path / "key"))
    found = judge(tmp_path, remote, tip, SigningKeys())
    assert (found.good, found.reason) == (False, "no keys are configured, so nobody's signature counts")


def test_changed_commit_is_not_good(tmp_path: Path, remote: BareRepo) -> None:
    """A signature moved to another message does not fit."""
    key = make_key(tmp_path / "key")
    signed = sign_ssh(remote, key)
    content = git("-C", remote.path, "cat-file", "commit", signed).replace("Signed", "Forged").encode() + b"\n"
    forged = git("-C", remote.path, "hash-object", "-w", "-t", "commit", "--stdin", stdin=content)
    remote.set_tip(forged)
    found = judge(tmp_path, remote, forged, SigningKeys(allowed_signers=allowed_signers(tmp_path, key)))
    assert not found.good


def test_removed_key_no_longer_counts(tmp_path: Path, remote: BareRepo, short_path: Path) -> None:
    """Keys are read at each check: one that was taken out of its file is out."""
    first, second = make_gpg_key(short_path / "gpg"), make_gpg_key(short_path / "gpg2")
    tip = sign_gpg(remote, short_path / "gpg")
    assert judge(tmp_path, remote, tip, SigningKeys(gpg_keyring=first)).good
    first.write_bytes(second.read_bytes())
    assert not judge(tmp_path, remote, tip, SigningKeys(gpg_keyring=first)).good


@pytest.mark.parametrize("kind", ["allowed_signers", "gpg_keyring"])
def test_missing_file_of_keys_is_said(tmp_path: Path, remote: BareRepo, kind: str) -> None:
    """A file of keys that is not there is the operator's matter."""
    with pytest.raises(Broken, match="nowhere"):
        judge(tmp_path, remote, remote.tip() or "", SigningKeys(**{kind: tmp_path / "nowhere"}))
