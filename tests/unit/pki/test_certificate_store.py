"""Pairs on disk: chain and key always belong together, whoever is killed, and keys are sealed."""

from __future__ import annotations

import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import Broken
from reconciler.pki import certificate_store, private_files
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.renewal import Source
from reconciler.pki.vault import Secret, Vault, in_clear
from tests.support.pairs import FakeAuthority
from tests.support.waiting import wait_for

CLEAR = Vault()
AUTHORITY = FakeAuthority()
ACME = Source("acme", "https://acme.example.test/dir")
OLD, NEW = AUTHORITY.pair("shop.test"), AUTHORITY.pair("shop.test", "www.shop.test", source=ACME)


def hidden(keys: Path) -> list[str]:
    """What a killed process could have left, the one directory that counts not counted."""
    return sorted(path.name for path in (keys / "certificates").glob(".shop.*"))[1:]


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """Another process finds the same pairs, with who signed them; dropping one leaves the other."""
    store = CertificateStore(tmp_path, CLEAR)
    store.save("shop", OLD)
    store.save("cloudlunacy__app", NEW)

    assert CertificateStore(tmp_path, CLEAR).load().pairs == {"cloudlunacy__app": NEW, "shop": OLD}
    assert (tmp_path / "certificates" / "shop" / "chain.pem").read_text() == OLD.chain
    store.drop("shop")
    store.drop("shop")
    assert store.load().pairs == {"cloudlunacy__app": NEW}


def test_the_newer_pair_replaces_the_older(tmp_path: Path) -> None:
    """Nothing of the older one stays."""
    store = CertificateStore(tmp_path, CLEAR)
    store.save("shop", OLD)
    store.save("shop", NEW)
    assert store.load().pairs == {"shop": NEW}
    assert hidden(tmp_path) == []


def test_keys_are_for_their_owner_and_sealed(tmp_path: Path) -> None:
    """Also those that were found in clear, once there is a key; without it they are not lost but refused."""
    CertificateStore(tmp_path, CLEAR).save("shop", OLD)
    vault = Vault.unlock(tmp_path, Secret("hkdf-sha256", b"k" * 32))
    store = CertificateStore(tmp_path, vault)
    assert store.load().pairs == {"shop": OLD}
    store.save("new", NEW)
    store.waiting_key("new")

    assert in_clear(tmp_path) == ()
    files = [path for path in (tmp_path / "certificates").rglob("*") if not path.is_symlink()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files if path.is_file()} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files if path.is_dir()} == {0o700}
    with pytest.raises(Broken, match="sealed"):
        CertificateStore(tmp_path, CLEAR).load()


def test_the_key_of_an_order_outlives_a_crash(tmp_path: Path) -> None:
    """It is the same until the certificate is saved; then the next one is fresh."""
    numbers = [CertificateStore(tmp_path, CLEAR).waiting_key("shop").private_numbers() for _ in range(2)]
    assert numbers[0] == numbers[1]
    store = CertificateStore(tmp_path, CLEAR)
    store.save("shop", NEW)
    assert store.waiting_key("shop").private_numbers() != numbers[0]
    assert store.load().pairs == {"shop": NEW}


def test_a_key_that_waits_for_what_nobody_wants_is_removed(tmp_path: Path) -> None:
    """Those of others stay, and so does the pair that is there."""
    store = CertificateStore(tmp_path, CLEAR)
    assert store.forget_waiting({"shop"}) == ()
    store.save("gone", OLD)
    kept = store.waiting_key("shop").private_numbers()
    for name in ("gone", "away"):
        store.waiting_key(name)
    assert store.forget_waiting({"shop"}) == ("away", "gone")
    assert [path.name for path in (tmp_path / "certificates").glob("*.pem")] == ["shop.waiting.pem"]
    assert store.waiting_key("shop").private_numbers() == kept
    assert store.load().pairs == {"gone": OLD}


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda place: (place / "key.pem").unlink(), "a file is missing"),
        (lambda place: (place / "chain.pem").write_text("nonsense"), "there are 0 certificates"),
        (lambda place: (place / "chain.pem").write_bytes(b"\xff"), "a file is damaged"),
        (lambda place: (place / "key.pem").write_text(NEW.key), "the key is not the one of the first certificate"),
        (lambda place: (place / "about.json").write_text("{}"), "a file is damaged"),
        (lambda place: (place / "about.json").write_text('{"issuer": "me", "directory": ""}'), "a file is damaged"),
        (lambda place: (place / "about.json").write_text("[" * 20_000), "a file is damaged"),
    ],
)
def test_a_damaged_pair_is_told_and_not_served(tmp_path: Path, damage: Callable[[Path], Any], why: str) -> None:
    """The others are; and a new one takes its place."""
    store = CertificateStore(tmp_path, CLEAR)
    store.save("shop", OLD)
    store.save("web", NEW)
    damage(tmp_path / "certificates" / "shop")
    found = store.load()
    assert found.pairs == {"web": NEW}
    assert found.damaged["shop"].startswith(why)
    store.save("shop", OLD)
    assert store.load().pairs == {"shop": OLD, "web": NEW}


def test_a_restored_backup_without_links_is_taken(tmp_path: Path) -> None:
    """Tools that follow links leave directories; they are read, replaced and dropped like the others."""
    store = CertificateStore(tmp_path, CLEAR)
    store.save("shop", OLD)
    shutil.copytree(tmp_path / "certificates", tmp_path / "other" / "certificates", symlinks=False)
    (tmp_path / "other" / "certificates").chmod(0o700)
    restored = CertificateStore(tmp_path / "other", CLEAR)
    assert restored.load().pairs == {"shop": OLD}
    restored.save("shop", NEW)
    assert restored.load().pairs == {"shop": NEW}
    assert hidden(tmp_path / "other") == []


def test_a_name_cannot_lead_elsewhere(tmp_path: Path) -> None:
    """Names come from objects, whose grammar is narrower still."""
    store = CertificateStore(tmp_path, CLEAR)
    for name in ("", ".", "../x", "a/b", ".hidden", "A"):
        with pytest.raises(ValueError, match="no name"):
            store.save(name, OLD)


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the former pair stays."""
    store = CertificateStore(tmp_path, CLEAR)
    store.save("shop", OLD)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(certificate_store, "write_new", full)
    with pytest.raises(Broken, match="No space left"):
        store.save("shop", NEW)
    monkeypatch.undo()
    assert store.load().pairs == {"shop": OLD}
    assert hidden(tmp_path) == []


class Killed(BaseException):
    """The process ends here: nothing but BaseException's handlers would run, and there are none."""


def kill_before(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Let the process end before the ``number``-th change of the file system; a write ends in its middle."""
    count = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                if function is original:
                    arguments[0].write_bytes(arguments[1][:7])
                raise Killed
            return function(*arguments, **named)

        return run

    original = private_files.write_new
    monkeypatch.setattr(certificate_store, "write_new", counted(original))
    monkeypatch.setattr(certificate_store, "sync_directory", counted(private_files.sync_directory))
    monkeypatch.setattr(shutil, "rmtree", counted(shutil.rmtree))
    for name in ("symlink_to", "replace", "unlink"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))


@pytest.mark.parametrize("number", range(1, 12))
def test_a_kill_at_any_moment_leaves_one_whole_pair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The older one or the newer one, and nothing half written after the next look."""
    CertificateStore(tmp_path, CLEAR).save("shop", OLD)
    with monkeypatch.context() as patch:
        kill_before(patch, number)
        ended = False
        try:
            CertificateStore(tmp_path, CLEAR).save("shop", NEW)
        except Killed:
            ended = True
    assert ended == (number <= 9)  # so that a new step gets its own moment here
    found = CertificateStore(tmp_path, CLEAR).load()
    assert found.damaged == {}
    assert found.pairs in ({"shop": OLD}, {"shop": NEW})
    assert hidden(tmp_path) == []


LOOP = """
import sys
from pathlib import Path
from reconciler.pki.certificate_store import CertificateStore
from reconciler.pki.vault import Vault
store = CertificateStore(Path(sys.argv[1]), Vault())
pairs = store.load().pairs
Path(sys.argv[2]).touch()
while True:
    store.save("shop", pairs["one"])
    store.save("shop", pairs["two"])
"""


def test_processes_that_are_killed_leave_whole_pairs(tmp_path: Path) -> None:
    """SIGKILL amid a loop of replacements, while another process reads all the time."""
    store = CertificateStore(tmp_path / "keys", CLEAR)
    store.save("one", OLD)
    store.save("two", NEW)
    for turn in range(3):
        started = tmp_path / f"started-{turn}"
        child = subprocess.Popen([sys.executable, "-c", LOOP, str(tmp_path / "keys"), str(started)])
        try:
            wait_for(started.exists, 20)
            seen = [store.load() for _ in range(20)]
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        for found in (*seen, store.load()):
            assert found.damaged == {}
            assert found.pairs.get("shop", OLD) in (OLD, NEW)
        assert hidden(tmp_path / "keys") == []
