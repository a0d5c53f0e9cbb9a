"""Releases of the program, side by side: ``versions/<version>-<digest>``, with links to the current and former one.

A release is complete once its virtual environment answers with its version; only then a link leads to it. Links are
replaced by renaming, so there is always a current one.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from agent.installing.layout import Layout
from agent.installing.plan import Cannot

WHEEL: Final = re.compile(r"cloudlunacy-(?P<version>[0-9A-Za-z.!+_]{1,64})-py3-none-any\.whl")
SECONDS: Final = 600.0


class Release(NamedTuple):
    name: str
    version: str


def of_wheel(wheel: Path) -> Release:
    """Return the release that a wheel makes. Raises Cannot."""
    match = WHEEL.fullmatch(wheel.name)
    if match is None or not zipfile.is_zipfile(wheel):
        raise Cannot(f"{wheel} is no wheel of cloudlunacy; it is named like cloudlunacy-1.2.0-py3-none-any.whl.")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return Release(f"{match['version']}-{digest[:12]}", match["version"])


class Releases:
    """``pip``: more words for pip, such as ``--index-url``."""

    def __init__(self, layout: Layout, pip: Sequence[str] = ()) -> None:
        self._layout = layout
        self._pip = pip

    def current(self) -> str | None:
        """Return the name of the one that runs; None where the program was not installed like this."""
        return _target(self._layout.current)

    def previous(self) -> str | None:
        return _target(self._layout.previous)

    def has(self, release: Release) -> bool:
        """Say whether it is there, whole."""
        return self._answers(self._layout.versions / release.name) == release.version

    def make(self, release: Release, wheel: Path) -> None:
        """Make its virtual environment; what a run before left of it is replaced. Raises Cannot."""
        place = self._layout.versions / release.name
        if self.has(release):
            return
        shutil.rmtree(place, ignore_errors=True)
        place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _run([sys.executable, "-m", "venv", str(place)])
        _run([str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
              "--no-input", *self._pip, str(wheel)])  # fmt: skip
        if self._answers(place) != release.version:
            shutil.rmtree(place, ignore_errors=True)
            raise Cannot(f"the program in {wheel} does not answer with version {release.version}; nothing was changed.")

    def switch(self, name: str) -> None:
        """Make it the current one; what was current becomes the former one."""
        former = self.current()
        if former == name:
            return
        if former is not None:
            _link(self._layout.previous, Path("versions", former))
        _link(self._layout.current, Path("versions", name))

    def switch_back(self, name: str, previous: str | None) -> None:
        """Make it the current one again, and what was the former one then that again."""
        _link(self._layout.current, Path("versions", name))
        if previous is None:
            self._layout.previous.unlink(missing_ok=True)
        else:
            _link(self._layout.previous, Path("versions", previous))

    def forget(self) -> None:
        """Remove all but the current and the former one."""
        kept = {self.current(), self.previous()}
        for place in self._layout.versions.iterdir():
            if place.name not in kept:
                shutil.rmtree(place, ignore_errors=True)

    def named(self, version: str) -> str | None:
        """Return the name of a release that is there, by its version."""
        if not self._layout.versions.is_dir():
            return None
        found = sorted(
            place.name for place in self._layout.versions.iterdir() if place.name.rpartition("-")[0] == version
        )
        return next((one for one in found if self._answers(self._layout.versions / one) == version), None)

    def _answers(self, place: Path) -> str | None:
        try:
            done = subprocess.run(
                [str(place / "bin/cloudlunacy"), "--version"], capture_output=True, text=True, check=False, timeout=60,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None


def _target(link: Path) -> str | None:
    try:
        return link.readlink().name
    except OSError:
        return None


def _link(link: Path, target: Path) -> None:
    aside = link.with_name(f".{link.name}.new")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    aside.replace(link)


def _run(words: list[str]) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=SECONDS,
                              stdin=subprocess.DEVNULL)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Cannot(f"{words[0]} does not work: {error}.") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise Cannot(f"{' '.join(words[:4])} ended with {done.returncode}: {' '.join(said[-4:])[:800]}")
