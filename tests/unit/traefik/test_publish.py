"""The front's file is the old text or the new one, at every moment and after every fault."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reconciler.desired.render import Renderer
from reconciler.errors import Broken, CloudLunacyError, Transient
from reconciler.traefik.publish import FrontFile
from reconciler.traefik.templates import load_templates


@pytest.fixture
def file(tmp_path: Path) -> FrontFile:
    (tmp_path / "dynamic").mkdir()
    return FrontFile(tmp_path / "dynamic" / "cloudlunacy.yml")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def failing(code: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise OSError(code, os.strerror(code))

    return fail


def test_published_text_is_there_with_its_digest(file: FrontFile) -> None:
    """publish returns the SHA-256 of what lies there, readable by owner and group only."""
    assert file.publish("é: 1\n") == hashlib.sha256("é: 1\n".encode()).hexdigest() == file.digest
    assert file.path.read_text(encoding="utf-8") == "é: 1\n"
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o640


def test_nothing_else_appears_in_the_watched_directory(file: FrontFile) -> None:
    """The temporary file is beside it, in a directory of ours, and does not stay."""
    file.publish("a: 1\n")
    assert names(file.path.parent) == ["cloudlunacy.yml"]
    assert file.staging == file.path.parent.parent / ".cloudlunacy-cloudlunacy.yml"
    assert names(file.staging) == []


def test_a_reader_sees_whole_texts_only(file: FrontFile) -> None:
    """While texts of different lengths are published, each read gives one of them."""
    texts = [character * size for character, size in (("a", 1), ("b", 300_000), ("c", 5000))]
    file.publish(texts[0])
    seen: set[str] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(file.path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        file.publish(texts[number % 3])
    done.set()
    reader.join()
    assert seen <= set(texts)


def test_adopt_takes_over_what_lies_there(file: FrontFile) -> None:
    """After a restart the published text is known."""
    assert file.adopt() is None
    file.publish("one")
    after = FrontFile(file.path)
    assert after.adopt() == "one"
    assert (after.digest, after.drifted()) == (file.digest, None)


def test_a_file_that_is_no_text_is_not_adopted(file: FrontFile) -> None:
    """Garbage counts as nothing published."""
    file.path.write_bytes(b"\xff\xfe")
    assert file.adopt() is None


def test_drift(file: FrontFile) -> None:
    """Nothing before the first publication; then missing, changed, or none."""
    assert file.drifted() is None
    file.publish("one")
    assert file.drifted() is None
    file.path.write_text("two")
    assert file.drifted() == "changed"
    file.path.write_text("one")
    assert file.drifted() is None
    file.path.unlink()
    assert file.drifted() == "missing"


def test_an_untouched_file_is_not_read_to_see_drift(file: FrontFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual answer costs one stat."""
    file.publish("one")
    monkeypatch.setattr(Path, "read_bytes", failing(errno.EIO))
    assert file.drifted() is None


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "open", "mkdir"])
@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (errno.ENOSPC, Transient, "DiskFull"),
        (errno.EDQUOT, Transient, "DiskFull"),
        (errno.EIO, Transient, "DiskError"),
        (errno.EROFS, Transient, "ReadOnly"),
        (errno.EMFILE, Transient, "NoFileDescriptors"),
        (errno.EACCES, Broken, ""),
        (errno.EPERM, Broken, ""),
    ],
)
def test_every_fault_leaves_the_old_text_and_nothing_half(
    file: FrontFile,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    code: int,
    kind: type[CloudLunacyError],
    reason: str,
) -> None:
    """Wherever the disk fails: a clear error, the old text in place, no debris, and the next publication works."""
    file.publish("one")
    with monkeypatch.context() as patch:
        if call == "write":
            real = os.fdopen

            def broken_file(*arguments: Any, **more: Any) -> Any:
                opened = real(*arguments, **more)
                opened.raw.close()  # what is buffered can no longer be written
                return failing(code)()

            patch.setattr(os, "fdopen", broken_file)
        elif call in ("replace", "mkdir"):
            patch.setattr(Path, call, failing(code))
        else:
            patch.setattr(os, call, failing(code))
        with pytest.raises(kind) as caught:
            file.publish("two" * 1000)
    assert getattr(caught.value, "reason", "") == reason
    assert "two" not in str(caught.value)
    assert file.path.read_text() == "one"
    assert names(file.path.parent) == ["cloudlunacy.yml"]
    file.publish("three")
    assert file.path.read_text() == "three"


@pytest.mark.parametrize(("call", "name"), [("open", ".cloudlunacy-cloudlunacy.yml"), ("fsync", "cloudlunacy.yml")])
def test_a_fault_names_the_file_that_it_is_about(
    file: FrontFile, monkeypatch: pytest.MonkeyPatch, call: str, name: str
) -> None:
    """While the text is staged, that is not the front's file; what happened and what to do are sentences."""

    def fail(*arguments: object, **_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system", *(str(file.staging) for _ in arguments[1:2]))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(Transient) as caught:
        file.publish("one")
    where = file.staging if call == "open" else file.staging / name
    assert str(caught.value) == f"cannot write {where}: the file system is read-only. Mount it for writing."


def test_a_missing_directory_is_transient(tmp_path: Path) -> None:
    """A mount that is not there yet may come."""
    with pytest.raises(Transient) as caught:
        FrontFile(tmp_path / "gone" / "cloudlunacy.yml").publish("one")
    assert caught.value.reason == "DirectoryMissing"


def test_a_staging_directory_on_another_file_system_is_refused(
    file: FrontFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename from there is not atomic; it is refused before anything is written."""
    real = Path.stat

    def on_another_device(path: Path, **more: Any) -> os.stat_result:
        status = real(path, **more)
        return os.stat_result((*status[:2], status.st_dev + 1, *status[3:])) if path == file.staging else status

    file.publish("one")
    monkeypatch.setattr(Path, "stat", on_another_device)
    with pytest.raises(Broken, match="file systems"):
        file.publish("two")
    assert file.path.read_text() == "one"


def test_debris_of_a_crash_is_overwritten(file: FrontFile) -> None:
    """A temporary file left by a killed process neither stays nor hinders."""
    file.staging.mkdir()
    (file.staging / "cloudlunacy.yml").write_text("half")
    file.publish("whole")
    assert file.path.read_text() == "whole"
    assert names(file.staging) == []


def test_a_planted_link_is_not_followed(file: FrontFile, tmp_path: Path) -> None:
    """The temporary name is never opened through a symbolic link."""
    victim = tmp_path / "victim"
    victim.write_text("keep")
    file.staging.mkdir()
    (file.staging / "cloudlunacy.yml").symlink_to(victim)
    with pytest.raises(CloudLunacyError):
        file.publish("one")
    assert victim.read_text() == "keep"


REVISION = "a1" * 20


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (f'# Made by us.\n# generation 12, revision "{REVISION}"\nhttp:\n', (12, REVISION)),
        (f'# Made by us.\n# generation 1, revision "{"b2" * 32}"\n', (1, "b2" * 32)),
        (f'# Made by us.\n# generation 12, revision "{REVISION}"', None),
        (f'# Made by us.\n# generation 0, revision "{REVISION}"\n', None),
        (f'# Made by us.\n# generation -1, revision "{REVISION}"\n', None),
        (f'# Made by us.\n# generation {"9" * 16}, revision "{REVISION}"\n', None),
        (f'# Made by us.\n# generation 12, revision "{REVISION[:12]}"\n', None),
        (f'# Made by us.\n# generation 12, revision "{REVISION[:-1]}g"\n', None),
        (f'# Made by us.\n# generation 1, revision "{"0" * 40}"\n', None),
        (f'# generation 12, revision "{REVISION}"\nhttp:\n', None),
        (f'http:\n# Made by us.\n# generation 12, revision "{REVISION}"\n', None),
        (f'#{"x" * 2000}\n# generation 12, revision "{REVISION}"\n', None),
        ("\0\ufffd", None),
        ("", None),
    ],
)
def test_a_file_names_what_it_holds_or_nothing(file: FrontFile, head: str, named: tuple[int, str] | None) -> None:
    """Generation and revision are taken from the two lines that we write, whole; anything else names nothing."""
    file.path.write_text(head)
    assert file.named() == named


def test_what_the_template_writes_is_what_is_read(file: FrontFile) -> None:
    """A rendered file names the generation and the revision that it was rendered for."""
    file.publish(Renderer(load_templates()).compose([], generation=7, revision=REVISION))
    assert file.named() == (7, REVISION)


def test_a_file_that_is_not_there_names_nothing(file: FrontFile) -> None:
    """Without a file nothing is named; one that cannot be read is no proof that nothing was published."""
    assert file.named() is None
    file.path.mkdir()
    with pytest.raises(Broken):
        file.named()
