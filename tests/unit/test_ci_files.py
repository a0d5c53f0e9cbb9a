"""What others take from this repository for their CI: the GitHub Action, the GitLab template, the pre-commit hooks."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "ci").glob("*.sh"))
EXPRESSION = re.compile(r"\$\{\{.*?\}\}|\$\[\[.*?\]\]", re.DOTALL)


def load(name: str) -> Any:
    return YAML(typ="safe").load(ROOT / name)


def test_the_action_is_one_that_github_takes() -> None:
    """Keys, types and defaults as "Metadata syntax" says, and each input has a description."""
    action = load("action.yml")
    assert {"name", "description", "inputs", "outputs", "runs"} <= action.keys()
    assert len(action["description"]) <= 125  # of the marketplace
    for one in action["inputs"].values():
        assert isinstance(one["description"], str)
        assert isinstance(one.get("default", ""), str)
    assert action["runs"]["using"] == "composite"
    for step in action["runs"]["steps"]:
        assert step.keys() <= {"id", "if", "name", "run", "shell", "env", "uses", "with", "working-directory"}
        assert ("run" in step) == ("shell" in step)


def test_nothing_from_outside_stands_in_a_command_of_the_action() -> None:
    """No expression is inside ``run``, where its value would be code; each script quotes what it gets."""
    for step in load("action.yml")["runs"]["steps"]:
        assert EXPRESSION.search(step["run"]) is None
        assert "uses" not in step
        used = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", step["run"])) - {"GITHUB_OUTPUT"}
        assert used <= step["env"].keys()
        assert all(f'"${name}' in step["run"] for name in used)


def test_a_fork_never_gets_the_token() -> None:
    """The expression asks for a pull request of the repository itself."""
    (step,) = (one for one in load("action.yml")["runs"]["steps"] if "CLOUDLUNACY_FORGE_TOKEN" in one["env"])
    assert "head.repo.full_name == github.repository" in step["env"]["CLOUDLUNACY_FORGE_TOKEN"]


def test_the_gitlab_template_has_its_inputs() -> None:
    """Two documents: inputs with descriptions or defaults, and the job that uses each of them."""
    spec, jobs = YAML(typ="safe").load_all(ROOT / "ci/gitlab.yml")
    inputs = spec["spec"]["inputs"]
    text = (ROOT / "ci/gitlab.yml").read_text().partition("\n---\n")[2]
    assert set(re.findall(r"\$\[\[ inputs\.([a-z]+) \]\]", text)) == inputs.keys()
    (job,) = jobs.values()
    assert all(EXPRESSION.search(line) is None for line in job["script"])
    assert re.fullmatch(inputs["source"]["regex"], "git+https://git.example.com/platform/cloudlunacy.git@0123abc")
    assert not re.fullmatch(inputs["source"]["regex"], "cloudlunacy")


def test_the_hooks_are_ones_that_pre_commit_takes() -> None:
    """Each has what its schema wants, and looks at the files that hold objects."""
    hooks = load(".pre-commit-hooks.yaml")
    assert [one["id"] for one in hooks] == ["cloudlunacy-validate", "cloudlunacy-plan"]
    for one in hooks:
        assert {"id", "name", "entry", "language"} <= one.keys()
        assert one["language"] == "python"
        assert one["pass_filenames"] is False
    pattern = re.compile(hooks[0]["files"])
    assert pattern.search("fleet.yaml")
    assert pattern.search("routes/shop/web.yaml")
    assert not pattern.search("docs/routes/shop/web.yaml")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_each_script_is_one_that_a_plain_shell_reads(script: Path) -> None:
    """POSIX sh, executable, and it stops at the first failure."""
    assert os.access(script, os.X_OK)
    text = script.read_text()
    assert text.startswith("#!/bin/sh\n")
    assert "set -eu\n" in text
    assert subprocess.run(["sh", "-n", script], check=False).returncode == 0


@pytest.mark.parametrize("source", ["", "cloudlunacy", "cloudlunacy==1.0", "--index-url=https:"])
def test_nothing_is_installed_by_a_bare_name(source: str, tmp_path: Path) -> None:
    """In a public index it may be anybody's."""
    environment = {"PATH": os.environ["PATH"], "CLOUDLUNACY_SOURCE": source, "RUNNER_TEMP": str(tmp_path)}
    done = subprocess.run(["sh", ROOT / "ci/install.sh"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Set CLOUDLUNACY_SOURCE" in done.stderr
    assert not list(tmp_path.iterdir())


def test_no_module_of_the_pull_request_is_run(tmp_path: Path) -> None:
    """Python with -m looks for modules in the working directory first, where a venv.py or a pip.py may lie."""
    stub = tmp_path / "python"
    stub.write_text(
        '#!/bin/sh\necho "$@" >> "$RUNNER_TEMP/calls"\n'
        'for last; do :; done\n[ "$3" = venv ] && mkdir -p "$last/bin" && cp "$0" "$last/bin/python"\nexit 0\n'
    )
    stub.chmod(0o755)
    environment = {
        "PATH": os.environ["PATH"], "CLOUDLUNACY_SOURCE": "/source", "RUNNER_TEMP": str(tmp_path), "PYTHON": str(stub)
    }  # fmt: skip
    subprocess.run(["sh", ROOT / "ci/install.sh"], env=environment, capture_output=True, check=True)
    assert [call.split()[:3] for call in (tmp_path / "calls").read_text().splitlines()] == [
        ["-I", "-m", "venv"], ["-I", "-m", "pip"],
    ]  # fmt: skip
    assert re.findall(r"(\S+) -m ", (ROOT / "ci/gitlab.yml").read_text()) == ["-I", "-I"]


def test_the_script_hands_every_word_on_as_it_is(tmp_path: Path) -> None:
    """A name with spaces, quotes or a dash at its start stays one argument, and a command in it is not run."""
    program = tmp_path / "cloudlunacy"
    program.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word"; done\n')
    program.chmod(0o755)
    evil = "x\"; touch broken; echo $(touch broken) `touch broken` '"
    environment = {"PATH": os.environ["PATH"], "CLOUDLUNACY_BIN": str(tmp_path), "CLOUDLUNACY_BASE": evil}
    done = subprocess.run(
        ["sh", ROOT / "ci/review.sh", evil], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["review", evil, "--out", "cloudlunacy-review", f"--base={evil}"]
    assert not (tmp_path / "broken").exists()


def test_the_workflow_of_a_state_repo_runs_the_same_command() -> None:
    """Both forges' files and the Action end in ``cloudlunacy review``."""
    for name in (".github/workflows/validate.yml", ".gitlab-ci.yml"):
        assert "cloudlunacy review --out review" in json.dumps(load(f"state-repo-example/{name}"))
