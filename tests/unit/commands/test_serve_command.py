from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from reconciler.commands import serve_command
from reconciler.errors import Misused


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    serve_command.add_parser(parser.add_subparsers())
    return parser.parse_args(["serve", "--repo", "/srv/fleet.git", "--data", "data", *arguments])


def test_flags_become_settings(tmp_path: Path) -> None:
    """Each front is its file and its API, in the order in which they were named."""
    file = str(tmp_path / "cloudlunacy.yml")
    settings = serve_command.settings_of(
        options("--listen", "[::1]:7301", "--traefik-file", file, "--traefik-api", "http://127.0.0.1:8080")
    )
    assert (settings.host, settings.port) == ("::1", 7301)
    assert [(str(front.file), front.api) for front in settings.fronts] == [(file, "http://127.0.0.1:8080")]


def test_every_address_goes_with_one_to_tell(tmp_path: Path) -> None:
    """Who listens everywhere says where agents find it."""
    given = options("--listen", "0.0.0.0:7300", "--public-url", "https://control.example.test:7300/")
    settings = serve_command.settings_of(given)
    assert (settings.host, settings.public_url) == ("0.0.0.0", "https://control.example.test:7300")


@pytest.mark.parametrize("branch", ["--upload-pack=touch x", "", ".hidden", "a b", "main\n", "x" * 300, "ends/"])
def test_a_name_that_is_no_branch_is_refused_at_the_start(branch: str) -> None:
    """Before git, which would take a while to say so, or take it for an option."""
    with pytest.raises(Misused, match="is no name of a branch"):
        serve_command.settings_of(options(f"--branch={branch}"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--traefik-file", "x.yml"], "each --traefik-file needs its --traefik-api"),
        (["--listen", "nowhere"], '"nowhere" is no HOST:PORT'),
        (["--poll", "0"], "must be greater than 0"),
        (["--listen", "0.0.0.0:7300"], "names none that agents can be told"),
        (["--listen", "[::]:7300"], "names none that agents can be told"),
    ],
)
def test_flags_that_do_not_fit_are_explained(arguments: list[str], sentence: str) -> None:
    """A sentence, and nothing is started."""
    with pytest.raises(Misused, match=sentence):
        serve_command.settings_of(options(*arguments))
