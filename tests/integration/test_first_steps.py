"""README.md, "Your own fleet", in its order and with its commands; only the ports of Traefik are others."""

from __future__ import annotations

import subprocess
from pathlib import Path

from reconciler.traefik.publish import FrontFile
from schemas.fleet import Fleet
from tests.support.fleet import Installation, installation, run_cli
from tests.support.git_repos import git
from tests.support.git_server import git_server
from tests.support.traefik import backends

DOMAIN = "example.com"


def test_a_fleet_begins_as_the_readme_says(tmp_path: Path) -> None:
    """init, push, render, serve, token, enrol, run, pull, change, push and status --wait work one after the other."""
    fleet = Fleet.model_validate(
        {
            "apiVersion": "cloudlunacy/v1",
            "kind": "Fleet",
            "metadata": {"name": "example"},
            "spec": {"domain": DOMAIN, "teams": [{"name": "shop"}]},
        }
    )
    with (
        backends("app") as (app,),
        git_server(tmp_path) as server,
        installation(tmp_path / "plane", fleet=fleet, start=False) as one,
    ):
        one.repo_url = server.url_of(one.repo.path)
        work = _begun(tmp_path / "fleet", one.repo_url)
        _rendered(work, one)
        one.start()
        assert _status(one, work) == "Converged"

        _let_in(one)
        git("-C", work, "pull", "--quiet", "--rebase")
        route = work / "routes" / "shop" / "hello.yaml"
        route.write_text(route.read_text().replace("8080", str(app.port)))
        assert run_cli("validate", cwd=work).returncode == 0
        assert run_cli("plan", "--base", "origin/main", cwd=work).returncode == 2
        git("-C", work, "commit", "--quiet", "--all", "--message", "Send hello to the new server")
        git("-C", work, "push", "--quiet")
        assert _status(one, work) == "Converged"
        assert one.front is not None
        assert one.front.get(f"hello.app.{DOMAIN}").json()["backend"] == "app"


def _begun(work: Path, url: str) -> Path:
    """Step 1."""
    _succeeds(run_cli("init", work, "--domain", DOMAIN, "--team", "shop"))
    git("-C", work, "init", "--quiet", "--initial-branch", "main")
    git("-C", work, "add", ".")
    git("-C", work, "commit", "--quiet", "--message", "Begin the fleet")
    git("-C", work, "remote", "add", "origin", url)
    git("-C", work, "push", "--quiet", "--set-upstream", "origin", "main")
    return work


def _rendered(work: Path, one: Installation) -> None:
    """Step 2: what was rendered lies where Traefik looks before the control plane starts."""
    _succeeds(run_cli("render", "--out", "rendered", cwd=work))
    assert one.front is not None
    FrontFile(one.front.file.path).publish((work / "rendered" / "dynamic" / "cloudlunacy.yml").read_text())


def _let_in(one: Installation) -> None:
    """Step 4; the token goes from one command to the other."""
    token = _succeeds(one.cli("token", "create", "--agent", "vps-1", "--ttl", "15m"))
    (one.folder / "token").write_text(token)
    enrolment = ("--server", one.url, "--token-file", one.folder / "token", "--name", "vps-1")
    trust = ("--ca-sha256", one.ca_sha256)
    _succeeds(run_cli("agent", "enrol", *enrolment, *trust, "--data", one.agent_data("vps-1")))
    one.run_agent("vps-1")
    one.wait_connected("vps-1")


def _status(one: Installation, work: Path) -> str:
    """What ``status --wait`` says of the newest commit of the clone."""
    revision = git("-C", work, "rev-parse", "HEAD")
    said = _succeeds(one.cli("status", revision, "--wait"))
    return said.split()[1]


def _succeeds(finished: subprocess.CompletedProcess[str]) -> str:
    assert finished.returncode == 0, finished.stderr
    return finished.stdout
