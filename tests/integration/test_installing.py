"""A new machine becomes an agent by the line that ``token create`` prints, is upgraded, goes back, and is left again.

curl, sh, the control plane and the agent are real; systemctl is a stand-in, and ``/`` a directory.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.installing.layout import Layout
from agent.installing.releases import Releases, of_wheel
from schemas.release import Release
from tests.support.fleet import Installation, installation, run_cli, start_files
from tests.support.installing import Prepared
from tests.support.parts import require
from tests.support.waiting import wait_for

WRONG_PIN = "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    require("curl")
    with installation(tmp_path_factory.mktemp("plane") / "one", start_files("web"), traefik=False) as running:
        yield running


@pytest.fixture
def machine(tmp_path: Path, plane: Installation) -> Iterator[Prepared]:
    prepared = Prepared(tmp_path, plane)
    offered = release_of(plane)
    prepared.release(f"{offered.version}-{offered.sha256[:12]}", offered.version)
    yield prepared
    prepared.close()


def release_of(plane: Installation) -> Release:
    return Release.model_validate_json(plane.client.get("/install/release.json").content)


def line(plane: Installation, name: str, root: Path, *more: str) -> tuple[str, str]:
    """The line that ``token create`` prints, for the machine in this directory; and the token."""
    made = plane.cli("token", "create", "--agent", name)
    assert made.returncode == 0, made.stderr
    found = next(one.strip() for one in made.stderr.splitlines() if "install.sh" in one and "curl" in one)
    assert '"$TOKEN"' in found
    options = ["--root", str(root), "--now", "--address", "127.0.0.1", "--capability", "none", *more]
    return f"{found.replace('sudo sh', 'sh')} {shlex.join(options)}", made.stdout.strip()


def install(machine: Prepared, name: str, *more: str) -> subprocess.CompletedProcess[str]:
    command, token = line(machine.plane, name, machine.root, *more)
    return machine.run(["sh", "-c", command], more={"TOKEN": token})


def test_one_line_makes_a_machine_an_agent(machine: Prepared) -> None:
    """It fetches the script by the pinned key, enrols, writes the unit, starts it, and returns once it is connected."""
    done = install(machine, "new-1", "--label", "region=ams")
    assert done.returncode == 0, (done.stdout, done.stderr, machine.log())
    assert done.stdout.splitlines()[-1].startswith("new-1 is connected (routes and certificates only)")
    assert "enrol as new-1" in done.stdout
    machine.plane.wait_connected("new-1")
    unit = (machine.root / "etc/systemd/system/cloudlunacy-agent.service").read_text()
    assert "ExecStart=/opt/cloudlunacy/current/bin/cloudlunacy agent run --data /var/lib/cloudlunacy-agent" in unit
    assert (machine.state / "enabled").exists()
    assert (machine.data.stat().st_mode & 0o777) == 0o700


def test_the_token_is_nobodys_to_see(machine: Prepared) -> None:
    """It passes through standard input: no argument, no file and no output has it."""
    command, token = line(machine.plane, "new-2", machine.root)
    spy = 'ps() { cat /proc/[0-9]*/cmdline | tr "\\0" " "; }; '
    done = machine.run(["sh", "-c", f"{spy}{command}; ps"], more={"TOKEN": token})
    assert done.returncode == 0, done.stderr
    assert token not in done.stdout + done.stderr
    files = [path for path in machine.folder.rglob("*") if path.is_file()]
    assert [path for path in files if token.encode() in path.read_bytes()] == []


def test_a_second_run_changes_nothing(machine: Prepared) -> None:
    """Without a token, because none is needed; the agent is not started anew."""
    assert install(machine, "new-3").returncode == 0
    pid, before = machine.pid(), len(machine.calls())
    done = machine.run(["sh", "-c", line(machine.plane, "new-3", machine.root)[0]])
    assert done.returncode == 0, done.stderr
    assert machine.pid() == pid
    assert not [call for call in machine.calls()[before:] if call.split()[0] in ("restart", "enable")]
    assert "enrol" not in done.stdout


def test_another_key_is_refused_before_anything_runs(machine: Prepared) -> None:
    """Who answers with a key that is not the pinned one gets no request, and the machine stays as it was."""
    command, token = line(machine.plane, "new-4", machine.root)
    other = re.sub(r"sha256//[A-Za-z0-9+/=]+", WRONG_PIN, command)
    assert other != command
    done = machine.run(["sh", "-c", other], more={"TOKEN": token})
    assert done.returncode != 0
    assert "public key does not match" in done.stderr
    assert not machine.data.exists()
    assert machine.calls() == []


def test_a_cut_off_script_does_nothing(machine: Prepared) -> None:
    """Whatever part of it arrives, nothing is run before the last line."""
    script = machine.plane.client.get("/install.sh").text
    for length in range(0, len(script) - len('main "$@"\n'), 701):
        done = machine.run(["sh", "-c", script[:length], "install.sh", "--root", machine.root, "--server", "https://x",
                            "--name", "x"])  # fmt: skip
        assert done.stdout == ""
    assert not (machine.root / "var").exists()


def test_a_dry_run_says_what_it_would_do(machine: Prepared) -> None:
    """Each step, and does none."""
    command, _ = line(machine.plane, "new-5", machine.root, "--dry-run")
    done = machine.run(["sh", "-c", command])
    assert (done.returncode, "would run: cloudlunacy agent install" in done.stdout) == (0, True), done.stderr
    words = (
        "--server",
        machine.plane.url,
        "--name",
        "new-5",
        "--root",
        machine.root,
        "--dry-run",
        "--capability",
        "process",
    )
    done = run_cli("agent", "install", *words)
    assert [one.split()[1] for one in done.stdout.splitlines()] == ["make", "enrol", "write", "enable"]
    assert not machine.data.exists()


def test_a_machine_without_systemd_is_told_how(machine: Prepared) -> None:
    """Nothing is changed, and the sentence has the commands."""
    shutil.rmtree(machine.root / "etc")
    done = run_cli("agent", "install", "--server", machine.plane.url, "--name", "new-6", "--root", machine.root)
    assert done.returncode == 1
    assert "no systemd" in done.stderr
    assert "agent run --data" in done.stderr


def test_the_served_wheel_is_the_program(plane: Installation, tmp_path: Path) -> None:
    """Its digest is the one that the script names, pip takes it, and it has the templates and the agent."""
    offered = release_of(plane)
    content = plane.client.get(f"/install/{offered.wheel}").content
    assert hashlib.sha256(content).hexdigest() == offered.sha256
    assert f"SHA256='{offered.sha256}'" in plane.client.get("/install.sh").text
    assert plane.client.get("/install/other.whl").status_code == 404
    wheel = tmp_path / offered.wheel
    wheel.write_bytes(content)
    assert of_wheel(wheel).version == offered.version
    target = tmp_path / "target"
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(words, check=True, capture_output=True, text=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    code = "from reconciler.app.own_wheel import own_wheel; print(own_wheel().release.sha256)"
    made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False,
                          cwd=tmp_path)  # fmt: skip
    assert made.stdout.strip() == offered.sha256, made.stderr  # what is installed from it makes the same again


def test_an_upgrade_keeps_the_former_and_comes_back_when_it_fails(machine: Prepared) -> None:
    """A release that connects stays; one that does not gives way by itself; ``--back`` returns to the one before."""
    assert install(machine, "new-7").returncode == 0
    releases = Releases(Layout(machine.root))
    first = releases.current()
    assert first is not None
    machine.release("9.0.0-bbbbbbbbbbbb", "9.0.0")
    done = machine.cloudlunacy("agent", "upgrade", "--version", "9.0.0", "--root", machine.root, "--now")
    assert done.returncode == 0, (done.stdout, done.stderr, machine.log()[-2000:])
    assert (releases.current(), releases.previous()) == ("9.0.0-bbbbbbbbbbbb", first)
    wait_for(lambda: (machine.plane.agent("new-7") or {})["version"] == "9.0.0", 20)
    machine.release("9.0.1-cccccccccccc", "9.0.1", more="if 'run' in sys.argv: sys.exit('broken')")
    done = machine.cloudlunacy(
        "agent", "upgrade", "--version", "9.0.1", "--root", machine.root, "--now", "--connect-seconds", "4"
    )
    assert done.returncode == 1, done.stdout
    assert "9.0.0-bbbbbbbbbbbb, runs again and is connected" in done.stderr
    assert releases.current() == "9.0.0-bbbbbbbbbbbb"
    machine.plane.wait_connected("new-7")
    done = machine.cloudlunacy("agent", "upgrade", "--back", "--root", machine.root, "--now", "--connect-seconds", "20")
    assert (done.returncode, releases.current()) == (0, first), (done.stderr, machine.log()[-3000:])


def test_what_is_not_ours_is_not_uninstalled(machine: Prepared) -> None:
    """The agent, its unit and program go; data go with ``--purge`` alone, and that asks."""
    assert install(machine, "new-8").returncode == 0
    pid = machine.pid()
    neighbour = machine.root / "etc/systemd/system/other.service"
    neighbour.write_text("[Service]\n")
    words = ("agent", "uninstall", "--root", machine.root, "--now")
    refused = machine.cloudlunacy(*words, "--purge")
    assert (refused.returncode, "--yes" in refused.stderr) == (1, True)
    assert Path(f"/proc/{pid}").exists()
    shown = machine.cloudlunacy(*words, "--purge", "--dry-run").stdout
    assert "would remove /var/lib/cloudlunacy-agent, with its key" in shown
    done = machine.cloudlunacy(*words)
    assert done.returncode == 0, done.stderr
    assert not machine.opt.exists()
    assert not (machine.root / "etc/systemd/system/cloudlunacy-agent.service").exists()
    assert not (machine.state / "enabled").exists()
    assert (machine.data / "agent.json").exists()
    assert neighbour.exists()
    machine.plane.wait_connected("new-8", connected=False)
    again = run_cli(*words, "--purge", "--yes")
    assert again.returncode == 0, again.stderr
    assert not machine.data.exists()
    assert "nothing of an agent is here" in run_cli(*words).stdout
