"""What is done to a machine that becomes an agent or ceases to be one: planned first, repeatable, only ours."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.installing.layout import DATA, PROGRAM, UNIT, UNITS, Layout
from agent.installing.machine import capabilities_of
from agent.installing.plan import Cannot, Facts, Installation, Removal, Step, install, uninstall
from agent.installing.unit import unit_text

TEXT = unit_text(PROGRAM, DATA, root=True, path=UNITS / UNIT)
WANTED = Installation("vps-1", "https://control.example.com:7300", TEXT, as_root=True)
NEW = Facts(systemd=True, root=True)
DONE = Facts(True, True, "vps-1", TEXT, True, True, False, True, True)


def names(steps: object) -> list[str]:
    return [step.name for step in steps if isinstance(step, Step)]  # type: ignore[attr-defined]


def test_a_new_machine_is_made_an_agent_step_by_step() -> None:
    """In the order in which each step finds what it needs."""
    assert names(install(NEW, WANTED, "cloudlunacy")) == [
        "make-data", "enrol", "write-unit", "enable", "restart", "await-connection",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ([], ()),
        (["run/podman/podman.sock"], ("container", "mongodb")),
        (["usr/sbin/dockerd"], ("container", "mongodb")),
        (["usr/bin/bwrap"], ("process",)),
        (["usr/bin/bwrap", "usr/local/bin/mongod"], ("process", "mongodb")),
        (["run/docker.sock", "usr/bin/bwrap"], ("container", "process", "mongodb")),
    ],
)
def test_capabilities_are_what_is_on_the_machine(there: list[str], found: tuple[str, ...], tmp_path: Path) -> None:
    """Docker counts while it is stopped too; what the machine has that prepares another one does not count."""
    for one in there:
        (tmp_path / one).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / one).touch(0o755)
    assert capabilities_of(Layout(tmp_path)) == found


def test_what_is_done_is_not_done_again() -> None:
    """A second run only looks whether the agent is connected."""
    assert names(install(DONE, WANTED, "cloudlunacy")) == ["await-connection"]


def test_a_changed_unit_starts_the_agent_anew() -> None:
    """As a new version of the program may bring one."""
    assert names(install(DONE._replace(unit="old"), WANTED, "cloudlunacy")) == [
        "write-unit", "restart", "await-connection",
    ]  # fmt: skip


def test_without_root_a_user_of_its_own_is_made() -> None:
    """For an agent that runs nothing."""
    steps = install(NEW, WANTED._replace(as_root=False), "cloudlunacy")
    assert names(steps)[:2] == ["add-user", "make-data"]


def test_a_prepared_machine_starts_nothing() -> None:
    """It does so when it starts."""
    assert names(install(NEW, WANTED._replace(start=False), "cloudlunacy"))[-1] == "enable"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (NEW._replace(systemd=False), ["no systemd", "agent enrol --server https://control", "agent run --data"]),
        (NEW._replace(root=False), ["root", "sudo"]),
        (NEW._replace(enrolled_as="vps-9"), ["vps-9 already", "uninstall --purge"]),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is(facts: Facts, words: list[str]) -> None:
    """With what to do instead."""
    with pytest.raises(Cannot) as caught:
        install(facts, WANTED, "cloudlunacy")
    assert [word for word in words if word not in str(caught.value)] == []


def test_data_and_deployments_stay_unless_said_otherwise() -> None:
    """The agent goes, what it runs goes on."""
    assert names(uninstall(DONE, Removal(deployments=False, purge=False))) == ["stop", "remove-unit", "remove-program"]


def test_everything_goes_in_the_order_that_can_be_taken_up_again() -> None:
    """What says which agent it is goes after what needs that, the program that does it last."""
    assert names(uninstall(DONE._replace(user=True), Removal(deployments=True, purge=True))) == [
        "stop", "remove-deployments", "remove-unit", "remove-data", "remove-user", "remove-program",
    ]  # fmt: skip


@given(st.builds(Facts, st.just(True), st.just(True), st.sampled_from([None, "vps-1"]), st.sampled_from([None, TEXT]),
                 st.booleans(), st.booleans(), st.booleans(), st.booleans(), st.booleans()))  # fmt: skip
def test_wherever_a_run_was_cut_off_the_next_one_goes_on(facts: Facts) -> None:
    """Doing all steps leads to a machine on which only the look at the connection is left."""
    for step in install(facts, WANTED, "cloudlunacy"):
        done = {
            "make-data": {"data": True}, "enrol": {"enrolled_as": "vps-1"}, "write-unit": {"unit": TEXT},
            "enable": {"enabled": True}, "restart": {"active": True},
        }  # fmt: skip
        facts = facts._replace(**done.get(step.name, {}))  # type: ignore[arg-type]
    assert names(install(facts, WANTED, "cloudlunacy")) == ["await-connection"]


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("data", ["/var/lib/cloudlunacy-agent", "/srv/my data/100%", "/srv/$HOME/x"])
def test_systemd_takes_the_unit(tmp_path: Path, root: bool, data: str) -> None:
    """systemd-analyze verify finds nothing to say about it, whatever the path is."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not on this machine (package systemd)")
    unit = tmp_path / UNIT
    text = unit_text(PurePosixPath("/bin/true"), PurePosixPath(data), root=root, path=UNITS / UNIT)
    unit.write_text(text.replace("User=cloudlunacy-agent", "User=daemon").replace("Group=cloudlunacy-agent", ""))
    done = subprocess.run(
        [analyze, "verify", "--man=no", "--recursive-errors=no", str(unit)], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stderr.splitlines() if UNIT in line] == []
    assert done.returncode == 0


def test_the_unit_does_not_break_what_the_agent_runs() -> None:
    """bubblewrap mounts a /proc of its own: nothing may cover the machine's, and programs outlive the agent."""
    lines = TEXT.splitlines()
    for forbidden in ("ProtectKernelTunables", "ProtectKernelLogs", "ProtectProc", "RestrictNamespaces", "ProcSubset"):
        assert not [line for line in lines if line.startswith(f"{forbidden}=")]
    assert {"KillMode=process", "Restart=always", "NoNewPrivileges=yes", "Delegate=yes"} <= set(lines)
    assert not [line for line in lines if "CAP_SYS_MODULE" in line]
