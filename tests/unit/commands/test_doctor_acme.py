from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import pytest

from reconciler.commands import doctor_command
from reconciler.commands.doctor_acme import acme_facts
from reconciler.pki.acme.settings import VARIABLE
from tests.support.pairs import FakeAuthority

HOOK: Final = '[[dns]]\nhook = "{folder}/hook"\n'
ROOTS: Final = '[[directory]]\nurl = "https://acme.test/dir"\nca-file = "{folder}/ca.pem"\n'


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "acme.toml"
    path.write_text(text.format(folder=folder))
    path.chmod(mode)
    return path


def program(folder: Path, mode: int = 0o755) -> None:
    (folder / "hook").write_text("#!/bin/sh\n")
    (folder / "hook").chmod(mode)


def test_sound_settings_have_no_fault(tmp_path: Path) -> None:
    """A hook that can be run, and a CA file with a certificate; without the variable nothing is judged."""
    program(tmp_path)
    (tmp_path / "ca.pem").write_text(FakeAuthority().pair("ca.test").chain)
    facts = acme_facts(written(tmp_path, HOOK + ROOTS))
    assert facts is not None
    assert (facts.unreadable, facts.faults) == (None, ())
    assert acme_facts(None) is None


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("x = [", 0o600, "is no TOML"),
        (HOOK, 0o644, "is open to other users (mode 0644)"),
        ("[[dns]]\nzones = []\n", 0o600, "dns.0"),
        ("[[directory]]\nurl = 7\n", 0o600, "directory.0.url"),
    ],
)
def test_what_keeps_serve_from_starting_is_told(tmp_path: Path, text: str, mode: int, words: str) -> None:
    """In the words of serve, with what to do."""
    facts = acme_facts(written(tmp_path, text, mode))
    assert facts is not None
    assert facts.unreadable is not None
    assert words in facts.unreadable.message
    assert facts.unreadable.hint


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """The hint says who names it."""
    facts = acme_facts(tmp_path / "gone.toml")
    assert facts is not None
    assert facts.unreadable is not None
    assert "No such file" in facts.unreadable.message
    assert VARIABLE in facts.unreadable.hint


@pytest.mark.parametrize(
    ("hook", "ca", "words"),
    [
        (None, "", "hook cannot be used: No such file"),
        (0o644, "", "hook is no program"),
        (0o777, "", "hook can be changed by other users"),
        (0o755, None, "ca.pem, No such file"),
        (0o755, "nothing", "ca.pem, which is no PEM"),
    ],
)
def test_what_would_fail_an_order_is_told(tmp_path: Path, hook: int | None, ca: str | None, words: str) -> None:
    """Before it is first needed, which may be in two months."""
    if hook is not None:
        program(tmp_path, hook)
    if ca is not None:
        (tmp_path / "ca.pem").write_text(ca or FakeAuthority().pair("ca.test").chain)
    facts = acme_facts(written(tmp_path, HOOK + ROOTS))
    assert facts is not None
    (fault,) = facts.faults
    assert words in fault.message
    assert fault.hint


def test_the_command_looks_at_the_file_that_the_variable_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be used ends it with 1."""
    monkeypatch.setenv(VARIABLE, str(written(tmp_path, "x = [")))
    parser = argparse.ArgumentParser()
    doctor_command.add_parser(parser.add_subparsers())
    assert doctor_command.run(parser.parse_args(["doctor"])) == 1
    assert f"fail  ACME settings  {tmp_path}/acme.toml is no TOML." in capsys.readouterr().out
