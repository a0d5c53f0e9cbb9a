"""The parts of ``cloudlunacy demo`` that start nothing: what it tells, where it lies, which ports, which repo."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from reconciler.commands.demo import hook, ports
from reconciler.commands.demo.folder import Folder, open_folder, write_secret
from reconciler.commands.demo.narrator import Narrator, event_line
from reconciler.commands.demo.ports import BEHIND, Ports, choose_ports
from reconciler.commands.demo.state_repo import StateRepo, htpasswd
from reconciler.commands.evaluate import judge
from reconciler.commands.tree import read_directory
from reconciler.errors import Broken
from reconciler.package_data import data_directory
from reconciler.pki.keystore import KeyStore
from reconciler.web import webhooks
from schemas.api import EventView
from schemas.problem import Problem
from schemas.secret import Secret
from schemas.status import STAGES, CommitSummary, RevisionState, RevisionStatus
from tests.support.parts import require

REVISION = "3f2a91c0b7d1" + "0" * 28
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def status(
    reached: int, state: RevisionState = "Progressing", reason: str = "Waiting", **more: object
) -> RevisionStatus:
    """A record in which the first stages were reached, 5 ms apart."""
    stages = {
        stage: START + timedelta(milliseconds=5 * index) if index < reached else None
        for index, stage in enumerate(STAGES)
    }
    commit = CommitSummary(author="Ada", subject="Greet")
    said = {"revision": REVISION, "state": state, "reason": reason, "stages": stages, "commit": commit, **more}
    return RevisionStatus.model_validate(said)


# --- what is told ---------------------------------------------------------------------------------------------------


def test_each_stage_is_told_once() -> None:
    """A record that comes again with one more stage adds the line of that stage and nothing else."""
    narrator = Narrator("--data ../data")
    assert list(narrator.lines(status(1))) == [
        "\n3f2a91c0b7d1  “Greet” by Ada",
        "  fetched      03:04:05.000000",
    ]
    assert list(narrator.lines(status(2))) == ["  validated    03:04:05.005000  +5 ms"]
    assert list(narrator.lines(status(2))) == []


def test_convergence_is_told_with_the_time_that_it_took() -> None:
    """The last line counts from the first stage to the last."""
    narrator = Narrator("--data ../data")
    told = list(narrator.lines(status(len(STAGES), "Converged", "AllStagesReached", generation=4)))
    assert told[-1] == "  Converged in 40 ms, generation 4"


def test_a_problem_is_told_with_its_place() -> None:
    """A quarantined object's problem is a line of its own, once."""
    problem = Problem(
        file="routes/shop/web.yaml", line=7, column=5, code="unknown-agent", severity="error", message="m"
    )
    narrator = Narrator("--data ../data")
    narrator.know(status(1))
    assert list(narrator.lines(status(1, quarantined=(problem,)))) == [f"  {problem}"]
    assert list(narrator.lines(status(1, quarantined=(problem,)))) == []


def test_a_held_revision_names_the_command_that_works_here() -> None:
    """The command to approve is the one that can be pasted."""
    narrator = Narrator("--data ../data")
    narrator.know(status(3))
    assert list(narrator.lines(status(3, "Held", "DeletionGuard", message="too much.", approve="sha256:12"))) == [
        "  Held DeletionGuard: too much.",
        "  To approve: cloudlunacy approve sha256:12 --data ../data",
    ]


def test_colours_come_only_when_asked_for() -> None:
    """Without a terminal there are no escape codes."""
    converged = status(len(STAGES), "Converged", "AllStagesReached")
    assert not any("\x1b" in line for line in Narrator("--data ../data").lines(converged))
    assert any("\x1b" in line for line in Narrator("--data ../data", colour=True).lines(converged))


def test_events_that_the_stages_tell_are_left_out() -> None:
    """Of the timeline only what happened beside the way of a commit is told."""
    event = EventView(id=1, time=START, type="FrontRepaired", severity="warning", subject="front", message="it was")
    assert event_line(event) == "\n03:04:05  FrontRepaired: it was"
    assert (
        event_line(event.model_copy(update={"subject": "agent/vps-1"})) == "\n03:04:05  FrontRepaired of vps-1: it was"
    )
    assert event_line(event.model_copy(update={"type": "RevisionPublished"})) is None


# --- where it lies --------------------------------------------------------------------------------------------------


def test_a_folder_is_emptied_unless_it_is_kept(tmp_path: Path) -> None:
    """What a former demo left is gone at the next start, and there with ``--keep``."""
    with open_folder(tmp_path / "demo", keep=False) as folder:
        write_secret(folder.memory, "{}")
        assert folder.memory.stat().st_mode & 0o777 == 0o600
    with open_folder(tmp_path / "demo", keep=True) as folder:
        assert folder.memory.exists()
    with open_folder(tmp_path / "demo", keep=False) as folder:
        assert not folder.memory.exists()


def test_a_folder_belongs_to_one_demo_at_a_time(tmp_path: Path) -> None:
    """A second demo in the same directory is refused with a sentence."""
    with (
        open_folder(tmp_path / "demo", keep=False),
        pytest.raises(Broken, match=r"another demo \(process \d+\) runs in"),
        open_folder(tmp_path / "demo", keep=True),
    ):
        pass


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("/")], ids=["file", "symlink"])
def test_what_is_no_directory_is_refused(tmp_path: Path, make: object) -> None:
    """A file or a symbolic link is never taken for a demo's directory."""
    assert callable(make)
    make(tmp_path / "demo")
    with pytest.raises(Broken, match="is no directory"), open_folder(tmp_path / "demo", keep=False):
        pass


# --- which ports ----------------------------------------------------------------------------------------------------


def test_a_taken_port_is_replaced_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody listens on a usual port, another one stands in for it."""
    with socket.socket() as taken:
        taken.bind((ports.HOST, 0))
        taken.listen()
        usual = taken.getsockname()[1]
        monkeypatch.setattr(ports, "FRONT", {"web": usual})
        monkeypatch.setattr(ports, "BEHIND", ())
        chosen = choose_ports()
    assert chosen.front["web"] != usual
    assert chosen.notices() == [f"port web ({usual}) is taken; {chosen.front['web']} stands in for it"]


def test_no_port_is_chosen_twice() -> None:
    """All ports of a demo differ."""
    chosen = choose_ports(usual=False)
    every = [*chosen.front.values(), *chosen.behind.values()]
    assert len(set(every)) == len(every)


# --- which repo -----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    require("git")
    with open_folder(tmp_path / "demo", keep=False) as opened:
        write_secret(opened.webhook_secret, "secret")
        yield opened


def create(folder: Folder, moved: Ports) -> KeyStore:
    keys = KeyStore(folder.data / "keys")
    values = {"admin.users": htpasswd("admin", "password")}
    repo = StateRepo(folder, require("git"))
    hook = "https://127.0.0.1:1/webhooks/git"
    repo.create(moved=moved.moved, recipient=keys.recipient(), values=values, webhook=hook, ca=folder.ca)
    return keys


def test_the_repo_is_valid_wherever_its_ports_lie(folder: Folder) -> None:
    """With every port moved the example has no problems, and names none of its usual ports."""
    moved = Ports({}, {usual: 9200 + index for index, usual in enumerate(BEHIND)})
    create(folder, moved)
    assert judge(read_directory(folder.work)).problems == ()
    files = [path for kind in ("routes", "deployments") for path in folder.work.glob(f"{kind}/*/*.yaml")]
    named = "".join(path.read_text() for path in files)
    assert [usual for usual in BEHIND if f"port: {usual}" in named or f"host: {usual}" in named] == []


def test_little_differs_from_the_example(folder: Folder) -> None:
    """Comments and order stay; only sealed values, the recipient and what could not run here are the demo's own."""
    create(folder, Ports({}, {}))
    example = data_directory("state-repo-example")
    differing = {
        path.relative_to(example).as_posix()
        for path in example.rglob("*")
        if path.is_file() and path.read_bytes() != (folder.work / path.relative_to(example)).read_bytes()
    }
    secrets = {f"secrets/shop/{name}.yaml" for name in ("admin", "orders-database", "payment")}
    deployed = {"deployments/shop/api.yaml", "deployments/analytics/collector.yaml"}
    assert differing == {"fleet.yaml", *secrets, *deployed}
    before, after = ((root / "fleet.yaml").read_text().splitlines() for root in (example, folder.work))
    assert [line for line in after if line not in before] == [
        f"    - {KeyStore(folder.data / 'keys').recipient()}",
    ]
    assert len(before) == len(after)


def test_secrets_are_sealed_to_the_control_plane(folder: Folder) -> None:
    """The control plane of the demo opens the password of the administration."""
    keys = create(folder, Ports({}, {}))
    served = judge(read_directory(folder.work)).settled.state.served
    sealed = {key.name: one.object for key, one in served.items() if isinstance(one.object, Secret)}
    assert keys.opener.open(sealed["admin"].spec.sealed["users"]) == "admin:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="


def test_the_remote_tells_of_a_push_even_to_nobody(folder: Folder) -> None:
    """A push succeeds and says so when no control plane answers."""
    create(folder, Ports({}, {}))
    git = ["git", "-C", str(folder.work)]
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message", "Nothing"], check=True)
    pushed = subprocess.run([*git, "push"], capture_output=True, text=True, check=True)
    assert "the control plane was not told" in pushed.stderr


def test_the_hook_signs_as_a_git_host_does() -> None:
    """The webhook endpoint accepts what the hook sends, and nothing that was signed with another secret."""
    request = hook.signed_request("http://127.0.0.1/", b"secret", "old new refs/heads/main\n")
    headers = {name.lower(): value for name, value in request.header_items()}
    assert isinstance(request.data, bytes)
    assert webhooks.verify(headers, request.data, b"secret")
    assert not webhooks.verify(headers, request.data, b"another")
