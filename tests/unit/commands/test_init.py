from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from reconciler.commands.init import copy_example, init_repo
from reconciler.errors import Broken
from schemas.objects import ADAPTERS, key_of_path
from tests.support.settling import settle_folder


def test_a_new_state_repo_holds_what_a_team_needs_to_begin(tmp_path: Path) -> None:
    """Objects, schemas for editors, CI for two forges, owners and a page of next steps."""
    written = init_repo(tmp_path / "fleet", domain="example.com", team="shop")
    assert [path.relative_to(tmp_path / "fleet").as_posix() for path in written] == sorted(
        [
            *(f".cloudlunacy/schemas/{kind.lower()}.json" for kind in ADAPTERS),
            ".editorconfig",
            ".github/workflows/validate.yml",
            ".gitignore",
            ".gitlab-ci.yml",
            "CODEOWNERS",
            "README.md",
            "agents/vps-1.yaml",
            "certificates/apps.yaml",
            "fleet.yaml",
            "routes/shop/hello.yaml",
        ]
    )
    assert all(path.is_file() and path.stat().st_size for path in written)


@pytest.mark.parametrize("domain", ["example.com", "a.b", "1-2.example.co.uk", "yes.no", "007.e3"])
def test_every_object_of_it_is_valid(tmp_path: Path, domain: str) -> None:
    """Also with names that YAML could take for something else than a string."""
    for path in init_repo(tmp_path, domain=domain, team="null"):
        key = key_of_path(path.relative_to(tmp_path).as_posix())
        if key is not None:
            parsed = ADAPTERS[key.kind].validate_python(YAML(typ="safe").load(path))
            assert key.name in ("", parsed.metadata.name)


def test_the_header_of_each_file_leads_to_its_schema(tmp_path: Path) -> None:
    """Relative to the file, as an editor resolves it."""
    for path in init_repo(tmp_path, domain="example.com", team="shop"):
        if key_of_path(path.relative_to(tmp_path).as_posix()) is not None:
            header = path.read_text().partition("\n")[0]
            assert path.parent.joinpath(header.partition("$schema=")[2]).is_file()


def test_an_empty_clone_can_be_filled(tmp_path: Path) -> None:
    """A directory that holds nothing but .git is what a forge gives to somebody who begins."""
    Path(tmp_path, ".git").mkdir()
    assert init_repo(tmp_path, domain="example.com", team="shop")


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    """A directory with anything in it is refused with a sentence and stays as it was."""
    Path(tmp_path, "notes.txt").write_text("mine")
    with pytest.raises(Broken, match=r"is not empty\. Name a directory that is empty or does not exist\."):
        init_repo(tmp_path, domain="example.com", team="shop")
    assert os.listdir(tmp_path) == ["notes.txt"]  # noqa: PTH208


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    """The sentence says that it is a file, not that it cannot be listed."""
    target = Path(tmp_path, "file")
    target.write_text("")
    with pytest.raises(Broken, match="is a file"):
        init_repo(target, domain="example.com", team="shop")


def test_a_directory_that_cannot_be_made_gets_a_sentence(tmp_path: Path) -> None:
    """An error of the system is no traceback."""
    Path(tmp_path, "file").write_text("")
    with pytest.raises(Broken, match="cannot be written: Not a directory"):
        init_repo(tmp_path / "file" / "below", domain="example.com", team="shop")


@pytest.mark.parametrize(
    ("domain", "team", "sentence"),
    [
        ("localhost", "shop", '"localhost" cannot be the domain'),
        ("Example.com", "shop", '"Example.com" cannot be the domain'),
        ("example.com", "../shop", '"../shop" cannot be the team'),
        ("example.com", "a: {{ b }}", "cannot be the team"),
    ],
)
def test_names_are_checked_before_anything_is_written(tmp_path: Path, domain: str, team: str, sentence: str) -> None:
    """A name with a path, a template or an upper-case letter ends with a sentence and no file."""
    with pytest.raises(Broken, match=sentence) as caught:
        init_repo(tmp_path / "new", domain=domain, team=team)
    assert "pattern" not in str(caught.value)
    assert not Path(tmp_path, "new").exists()


def test_all_of_it_goes_into_service(tmp_path: Path) -> None:
    """A person who pushes it unchanged sees no problem."""
    init_repo(tmp_path, domain="example.com", team="shop")
    state = settle_folder(tmp_path)
    assert {path: found for path, found in state.findings.items() if found} == {}
    assert len(state.served) == 4


def test_the_complete_example_is_written_whole_and_valid(tmp_path: Path) -> None:
    """Every kind of object is in it, and nothing of it is a problem."""
    written = copy_example(tmp_path / "fleet")
    assert all(path.is_file() for path in written)
    kinds = {key.kind for path in written if (key := key_of_path(path.relative_to(tmp_path / "fleet").as_posix()))}
    assert kinds == set(ADAPTERS)
    assert not settle_folder(tmp_path / "fleet").findings


def test_the_example_is_not_written_over_anything(tmp_path: Path) -> None:
    """What lies in the directory stays as it is."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(Broken, match="is not empty"):
        copy_example(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


SOURCE = "git+https://git.example.com/platform/cloudlunacy.git@0123abc"


def installs(repo: Path) -> list[str]:
    """Return the commands with which CI installs the checks, of each job of both forges."""
    yaml = YAML(typ="safe")
    github = yaml.load(repo / ".github/workflows/validate.yml")
    gitlab = yaml.load(repo / ".gitlab-ci.yml")
    steps = [step["run"] for job in github["jobs"].values() for step in job["steps"] if "run" in step]
    return [text for text in [*steps, *gitlab["default"]["before_script"]] if "pip" in text]


@pytest.mark.parametrize("source", ["", "cloudlunacy", "--index-url=https:", "cloudlunacy==1.0", SOURCE])
def test_ci_installs_from_a_url_and_from_nothing_else(tmp_path: Path, source: str) -> None:
    """A name alone, or none, ends the job with a sentence: in a public index it may be anybody's."""
    init_repo(tmp_path / "fleet", domain="example.com", team="shop")
    (tmp_path / "pip").write_text('#!/bin/sh\necho "pip $*"\n')
    (tmp_path / "pip").chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CLOUDLUNACY_SOURCE": source}
    commands = installs(tmp_path / "fleet")
    assert len(commands) == 3
    for command in commands:
        done = subprocess.run(["/bin/sh", "-ec", command], env=environment, capture_output=True, text=True, check=False)
        if source == SOURCE:
            assert (done.returncode, done.stdout) == (0, f"pip install -- {SOURCE}\n")
        else:
            assert done.returncode == 1
            assert done.stdout.startswith("Set the variable CLOUDLUNACY_SOURCE")


def test_the_source_of_ci_can_be_written_at_once(tmp_path: Path) -> None:
    """Both files hold it, as one string of YAML, and what is no URL is refused."""
    init_repo(tmp_path / "fleet", domain="example.com", team="shop", ci_source=SOURCE)
    yaml = YAML(typ="safe")
    assert yaml.load(tmp_path / "fleet/.github/workflows/validate.yml")["env"] == {"CLOUDLUNACY_SOURCE": SOURCE}
    assert yaml.load(tmp_path / "fleet/.gitlab-ci.yml")["variables"] == {"CLOUDLUNACY_SOURCE": SOURCE}
    for wrong in ("cloudlunacy", 'https://x"', "https://x y", "https://$(id)"):
        with pytest.raises(Broken, match="is no URL"):
            init_repo(tmp_path / "other", domain="example.com", team="shop", ci_source=wrong)


def test_what_ci_may_write_runs_nothing_of_the_repository(tmp_path: Path) -> None:
    """The job that reads the tree may read; the one that comments checks nothing out."""
    init_repo(tmp_path, domain="example.com", team="shop")
    workflow = YAML(typ="safe").load(tmp_path / ".github/workflows/validate.yml")
    assert workflow["permissions"] == {}
    assert {name: job["permissions"] for name, job in workflow["jobs"].items()} == {
        "validate": {"contents": "read"},
        "comment": {"pull-requests": "write"},
    }
    assert not any("checkout" in step.get("uses", "") for step in workflow["jobs"]["comment"]["steps"])
