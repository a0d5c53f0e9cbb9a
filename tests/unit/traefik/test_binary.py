"""Which Traefik is used, and which versions are not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reconciler.errors import Broken
from reconciler.traefik.binary import binary_version, find_binary, parse_version, require_supported


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("3.7.15", (3, 7, 15)),
        ("v3.8.0-rc1", (3, 8, 0)),
        (" 4.0.1\n", (4, 0, 1)),
        ("dev", None),
        ("", None),
        ("3.7", None),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, int, int] | None) -> None:
    """With or without v and a pre-release."""
    assert parse_version(text) == version


@pytest.mark.parametrize("text", ["3.7.2", "2.11.30", "dev", ""])
def test_old_and_unknown_versions_are_refused(text: str) -> None:
    """3.7.3 is the first without the known holes."""
    with pytest.raises(Broken):
        require_supported(text)
    assert require_supported("3.7.3") == (3, 7, 3)


def test_a_given_program_is_used_or_none(tmp_path: Path) -> None:
    """A setting that names nothing is not silently replaced by another program."""
    program = tmp_path / "traefik"
    assert find_binary(program) is None
    program.touch()
    assert find_binary(program) == program


def test_a_program_that_does_not_run_is_the_operators_matter(tmp_path: Path) -> None:
    """Not executable, or no program at all."""
    program = tmp_path / "traefik"
    program.write_text("text")
    with pytest.raises(Broken, match="does not run"):
        asyncio.run(binary_version(program))
