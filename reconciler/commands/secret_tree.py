"""The secrets of a work tree: read without following links, and written all or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from reconciler.desired.finding import to_problem
from reconciler.desired.locate import positions
from reconciler.desired.parse import parse_file
from reconciler.desired.yaml_reader import MAX_BYTES
from reconciler.errors import Broken, Rejected
from schemas.fleet import Fleet
from schemas.objects import FLEET_PATH, AnyObject, key_of_path
from schemas.secret import Secret

FOLDER: Final = "secrets"


class SecretTree:
    """The work tree of a state repo at ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def fleet(self) -> Fleet:
        """Return the fleet.

        Raises:
            Broken: when there is none.
            Rejected: when it is not valid.
        """
        content = self.read(FLEET_PATH)
        if content is None:
            hint = "Name the folder of a state repo with --dir."
            raise Broken(f"{self.directory} holds no state repo: there is no {FLEET_PATH}.", hint=hint)
        fleet = parse(FLEET_PATH, content)
        assert isinstance(fleet, Fleet)
        return fleet

    def paths(self) -> list[str]:
        """List the files of secrets, in order."""
        names = [path.relative_to(self.directory).as_posix() for path in (self.directory / FOLDER).glob("*/*")]
        return sorted(name for name in names if key_of_path(name) is not None)

    def read(self, path: str) -> bytes | None:
        """Return the content of a file, None where there is none.

        Raises:
            Broken: when a link stands in the way, or it cannot be read.
        """
        file = self._file(path)
        if file.exists() and not file.is_file():
            raise Broken(f"{file} is no regular file.", hint="Put the file itself there.")
        try:
            with file.open("rb") as stream:
                return stream.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Broken(f"{file} cannot be read: {error.strerror}.") from None

    def write(self, files: Mapping[str, bytes]) -> None:
        """Replace or make files. Where one cannot be written, those that were are put back.

        Raises:
            Broken: when a file cannot be written. All are as they were then.
        """
        before = {path: self.read(path) for path in files}
        with _said(self.directory), self._asides(files) as asides:
            replaced: list[str] = []
            try:
                for path, aside in asides.items():
                    aside.replace(self._file(path))
                    replaced.append(path)
            except OSError:
                for path in replaced:
                    self._put_back(path, before[path])
                raise

    @contextmanager
    def _asides(self, files: Mapping[str, bytes]) -> Iterator[dict[str, Path]]:
        """Write every file beside its place first: a full disk or a missing right shows before anything changes."""
        asides: dict[str, Path] = {}
        try:
            for path, content in files.items():
                asides[path] = _write_aside(self._file(path), content)
            yield asides
        finally:
            for aside in asides.values():
                aside.unlink(missing_ok=True)

    def _put_back(self, path: str, content: bytes | None) -> None:
        file = self._file(path)
        if content is None:
            file.unlink(missing_ok=True)
        else:
            file.write_bytes(content)

    def _file(self, path: str) -> Path:
        file = self.directory
        for part in path.split("/"):
            file = file / part
            if file.is_symlink():
                raise Broken(f"{file} is a link; links are not followed.", hint="Put the file itself there.")
        return file


def parse(path: str, content: bytes) -> AnyObject:
    """Return the object that a file holds.

    Raises:
        Rejected: with everything that is wrong.
    """
    parsed = parse_file(path, "", content if len(content) <= MAX_BYTES else None)
    if parsed.object is None:
        places = positions(content[:MAX_BYTES], parsed.findings)
        problems = [to_problem(*pair, str(parsed.key)) for pair in zip(parsed.findings, places, strict=True)]
        raise Rejected(f"{path} is not valid.", reason="Invalid", problems=problems)
    return parsed.object


def parse_secret(path: str, content: bytes) -> Secret:
    """Return the secret that a file holds; raises as :func:`parse`."""
    secret = parse(path, content)
    assert isinstance(secret, Secret)
    return secret


@contextmanager
def _said(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"{error.filename or directory} cannot be written: {error.strerror}. Nothing was changed."
        raise Broken(text) from None


def _write_aside(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    aside = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            if file.exists():
                os.fchmod(stream.fileno(), stat.S_IMODE(file.stat().st_mode))
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    return aside
