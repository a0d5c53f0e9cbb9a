from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import parts

ROOT = Path(__file__).parents[2]


def test_a_part_that_is_there_is_returned_as_a_program_that_runs() -> None:
    """git is needed to work on the project at all, so it is found."""
    assert os.access(parts.require("git"), os.X_OK)


def test_a_missing_part_skips_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason of the skip names the part and how to get it."""
    monkeypatch.setattr(parts, "find", lambda _: None)
    with pytest.raises(pytest.skip.Exception, match="needs gpg: GnuPG is not installed; apt-get install gnupg"):
        parts.require("gpg")


@pytest.mark.parametrize(("required", "exit_code"), [("0", 0), ("1", 1)])
@pytest.mark.parametrize("body", ["pytest.skip('no part')", "pytest.importorskip('no_such_module_here')"])
def test_a_skip_is_a_failure_where_all_parts_are_required(
    tmp_path: Path, body: str, required: str, exit_code: int
) -> None:
    """The same test is skipped elsewhere and fails under CLOUDLUNACY_TEST_REQUIRE_ALL=1."""
    Path(tmp_path, "conftest.py").write_text(Path(ROOT, "tests/conftest.py").read_text())
    Path(tmp_path, "test_it.py").write_text(f"import pytest\n\ndef test_it():\n    {body}\n")
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-c",
            os.devnull,
            "--rootdir",
            tmp_path,
            tmp_path,
        ],
        env={**os.environ, "CLOUDLUNACY_TEST_REQUIRE_ALL": required},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == exit_code, finished.stdout
