from __future__ import annotations

import json
from pathlib import Path

import pytest

from reconciler.commands.schemas import main, stale_schemas, write_schemas
from schemas.generate import generate

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("folder", ["schemas/json", "state-repo-example/.cloudlunacy/schemas"])
def test_the_committed_schemas_say_what_the_models_say(folder: str) -> None:
    """After a change of a model somebody ran make schemas."""
    assert stale_schemas(Path(ROOT, folder)) == [], "run make schemas"


def test_writing_removes_schemas_of_kinds_that_are_no_more(tmp_path: Path) -> None:
    """A second run after a kind was renamed leaves no stray file."""
    Path(tmp_path, "ghost.json").write_text("{}")
    assert [path.name for path in write_schemas(tmp_path)] == sorted(generate())
    assert stale_schemas(tmp_path) == []
    assert not Path(tmp_path, "ghost.json").exists()


def test_the_check_names_each_stale_file_and_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It changes nothing and fails."""
    write_schemas(tmp_path)
    Path(tmp_path, "route.json").write_text(json.dumps({}))
    assert main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"{tmp_path}/route.json is not what the models say now; run make schemas\n"
    assert main([str(tmp_path)]) == 0
    assert main(["--check", str(tmp_path)]) == 0
