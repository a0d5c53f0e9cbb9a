"""``cloudlunacy agent revoke`` on the real parts: ``serve``, a git remote, the agent's process and commands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from agent.certificate_files import CertificateFiles
from agent.client import CredentialsUnavailable
from agent.credentials import Credentials
from schemas.certificates_api import CRL_PATH
from tests.support import documents
from tests.support.fleet import Installation, installation, start_files
from tests.support.git_repos import git
from tests.support.waiting import wait_for


@pytest.fixture
def one(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path / "one", start_files(), traefik=False) as running:
        yield running


def connected(one: Installation, name: str) -> int:
    """Enrol an agent and wait for its session; return the serial of its certificate."""
    done = one.enrol(name)
    assert done.returncode == 0, done.stderr
    one.run_agent(name)
    one.wait_connected(name)
    held = CertificateFiles(one.agent_data(name), name).load()
    assert held is not None
    return x509.load_pem_x509_certificate((held.directory / "chain.pem").read_bytes()).serial_number


async def ask_for_a_token(one: Installation, name: str) -> None:
    """Raises CredentialsUnavailable when the agent gets none."""
    credentials = Credentials.load(one.agent_data(name))
    try:
        await credentials.headers("GET", credentials.stream_url)
    finally:
        await credentials.close()


def revoked(one: Installation) -> set[int]:
    return {entry.serial_number for entry in x509.load_der_x509_crl(one.client.get(CRL_PATH).content)}


def revoke(one: Installation, name: str, *options: str) -> str:
    done = one.cli("agent", "revoke", name, "--yes", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def last_commit(one: Installation) -> tuple[str, str, str]:
    """Author, subject and the only path of the newest commit."""
    shown = git("-C", one.repo.path, "show", "--name-status", "--format=%an <%ae>%n%s", "main").split("\n")
    return shown[0], shown[1], shown[-2] if not shown[-1] else shown[-1]


def test_one_command_locks_out_at_once_and_for_good(one: Installation) -> None:
    """The session ends without waiting for a pass, the certificate is listed, the file is gone, and nothing returns."""
    one.stop()
    one.poll = 3600.0  # only a wake-up, never the poll, brings a pass
    one.start()
    serial = connected(one, "vps-1")
    kept = one.repo.show("agents/vps-1.yaml")
    said = revoke(one, "vps-1", "--reason", "its disk was sold")
    assert not (one.agent("vps-1") or {"connected": False})["connected"]
    assert serial in revoked(one)
    assert "vps-1 is locked out: its connection is closed, its certificate is revoked" in said
    assert f"agents/vps-1.yaml is deleted, in {one.repo.tip()}." in said
    assert last_commit(one) == (
        "local <local@operators.localhost>",
        "Revoke agent vps-1",
        "D\tagents/vps-1.yaml",
    )
    back = one.push({"agents/vps-1.yaml": kept}, "Revert")
    one.post("/reconcile", {})
    one.status_wait(back)
    assert one.agent("vps-1") is not None, "git names the agent and its key again"
    with pytest.raises(CredentialsUnavailable, match="is in service"):
        asyncio.run(ask_for_a_token(one, "vps-1"))
    assert not (one.agent("vps-1") or {})["connected"]
    again = one.enrol("vps-1")
    assert (again.returncode, "locked out" in again.stderr) == (1, True), again.stderr


def test_the_only_agent_goes_without_another_approval(tmp_path: Path) -> None:
    """Deleting everything of a kind is held; by this command it was approved, and the timeline says by whom."""
    files = {"fleet.yaml": documents.fleet(), "agents/vps-1.yaml": documents.agent("vps-1")}
    with installation(tmp_path / "one", files, traefik=False) as one:
        connected(one, "vps-1")
        revoke(one, "vps-1")
        found = one.status_wait(one.repo.tip() or "", "Converged")
        assert one.agent("vps-1") is None
        plan = one.ask(f"/revisions/{found['revision']}/plan")
        assert plan["guard"]["reason"] == "DeletionGuard"
        approved = [event for event in one.ask("/events", limit=1000)["events"] if event["type"] == "PlanApproved"]
        assert [(event["actor"], "by locking vps-1 out" in event["message"]) for event in approved] == [
            ("operator:local", True)
        ]


def test_deleting_the_only_agent_by_hand_is_held_until_the_command_says_so(tmp_path: Path) -> None:
    """The file's deletion waits for a person; the command, given later, approves what waits already."""
    files = {"fleet.yaml": documents.fleet(), "agents/vps-1.yaml": documents.agent("vps-1")}
    with installation(tmp_path / "one", files, traefik=False) as one:
        connected(one, "vps-1")
        held = one.push({"agents/vps-1.yaml": None}, "Delete by hand")
        assert one.status_wait(held)["reason"] == "DeletionGuard"
        assert (one.agent("vps-1") or {})["connected"]
        assert "is locked out" in revoke(one, "vps-1")
        assert one.status_wait(held, "Converged")


def test_quarantine_is_lifted_by_editing_the_file(one: Installation) -> None:
    """The agent is refused as quarantined, keeps its file, and comes back by itself when the file lets it."""
    connected(one, "vps-1")
    revoke(one, "vps-1", "--quarantine")
    assert "state: quarantined" in one.repo.show("agents/vps-1.yaml")
    one.status_wait(one.repo.tip() or "")
    wait_for(lambda: "quarantined" in one.agent_log("vps-1").lower(), 30, what="the agent being told")
    content = one.repo.show("agents/vps-1.yaml").replace("quarantined", "active")
    one.live({"agents/vps-1.yaml": content})
    asyncio.run(ask_for_a_token(one, "vps-1"))


def test_a_kill_right_after_the_command_forgets_nothing(one: Installation) -> None:
    """The control plane dies while the remote refuses; after the start the agent is out, and git is told."""
    connected(one, "vps-1")
    hook = one.repo.path / "hooks" / "pre-receive"
    one.repo.install_hook("pre-receive", "exit 1")
    said = revoke(one, "vps-1")
    assert "Git does not know yet" in said
    one.kill()
    hook.unlink()
    one.start()
    wait_for(lambda: "agents/vps-1.yaml" not in git("-C", one.repo.path, "ls-tree", "-r", "--name-only", "main"), 30,
             what="the commit")  # fmt: skip
    one.status_wait(one.repo.tip() or "")
    assert not (one.agent("vps-1") or {"connected": False})["connected"]


def test_the_command_asks_and_tells(one: Installation) -> None:
    """Without --yes and a person nothing happens; an unknown name is told; JSON is what the API says."""
    unasked = one.cli("agent", "revoke", "vps-1")
    assert (unasked.returncode, "--yes" in unasked.stderr) == (2, True)
    unknown = one.cli("agent", "revoke", "vps-9", "--yes")
    assert (unknown.returncode, 'no agent "vps-9"' in unknown.stderr) == (1, True)
    odd = one.cli("agent", "revoke", "../../x", "--yes")
    assert odd.returncode == 1
    assert "Traceback" not in odd.stderr
    assert one.ask("/agents")["agents"][0]["state"] == "active"
    assert '"state": "committed"' in one.cli("agent", "revoke", "vps-2", "--yes", "--format", "json").stdout
