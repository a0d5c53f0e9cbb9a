"""What a confined program reaches, tried from inside, and what the machine shows of it to others."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from agent.deployments import process_log
from agent.deployments.driver import Written
from agent.deployments.given import Given
from agent.deployments.process_driver import ProcessDriver
from agent.deployments.process_files import FOLDER
from agent.deployments.process_machine import Found, look
from agent.deployments.process_table import marked
from schemas.session import Item
from tests.support.parts import require
from tests.support.process_agent import AGENT, SECONDS, SETTINGS, running, running_with, script, settled
from tests.support.waiting import eventually

WORD: Final = "open-sesame-4711"
LOOK: Final = """
import json, os, socket, time
def tried(what):
    try: return what()
    except OSError as error: return type(error).__name__
def write(path):
    with open(path, 'w') as file: return file.write('x')
status = open('/proc/self/status').read()
found = {
    'pids': sorted(int(name) for name in os.listdir('/proc') if name.isdigit()),
    'root': sorted(os.listdir('/')),
    'etc': sorted(os.listdir('/etc')),
    'agent': tried(lambda: os.listdir(os.environ['AGENT_DATA'])),
    'neighbour': tried(lambda: open(os.environ['NEIGHBOUR']).read()),
    'home': tried(lambda: os.listdir('/home')),
    'shadow': tried(lambda: open('/etc/shadow').read()),
    'system': tried(lambda: write('/usr/x')), 'root-write': tried(lambda: write('/x')),
    'sysctl': tried(lambda: write('/proc/sys/kernel/hostname')),
    'signal': tried(lambda: os.kill(int(os.environ['OUTSIDER']), 0)),
    'mount': tried(lambda: os.mkdir('/sys')),
    'tmp': tried(lambda: write('/tmp/x')), 'volume': tried(lambda: write('/data/x')),
    'read-only': tried(lambda: write('/fixed/x')),
    'secret file': tried(lambda: open('/run/secret').read()),
    'secret': os.environ['KEY'], 'hostname': socket.gethostname(), 'uid': os.getuid(),
    'privileges': [line.split()[1] for line in status.splitlines() if line.startswith(('Cap', 'NoNewPrivs'))],
    'environment': sorted(os.environ),
}
print(json.dumps(found), flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def confining() -> None:
    """What is tested here needs bubblewrap that may make namespaces."""
    require("bwrap")
    if why := look().lacking:
        pytest.skip(why)


def looker(data: Path, **spec: Any) -> Item:
    return script(
        "web",
        LOOK,
        env={
            "AGENT_DATA": str(data),
            "NEIGHBOUR": str(data / FOLDER / "shop" / "other" / "volumes" / "data" / "mine"),
            "OUTSIDER": str(os.getpid()),
        },
        secrets=[{"env": "KEY", "secret": "payment", "key": "api"}],
        secretFiles=[{"path": "/run/secret", "secret": "payment", "key": "api"}],
        volumes=[{"name": "data", "path": "/data"}, {"name": "fixed", "path": "/fixed", "readOnly": True}],
        **spec,
    )


def given(_: object) -> Given:
    return Given({"payment/api": WORD})


async def said_by(data: Path, name: str = "web") -> list[str]:
    path = data / FOLDER / "shop" / name / "a"
    await eventually(lambda: process_log.tail(path, 1), SECONDS, what="a word of it")
    return process_log.tail(path, 100)


def test_from_inside_there_is_nothing_but_its_own(data: Path) -> None:
    """No process, file or right of the agent, of a neighbour or of the machine is reached beyond what is declared."""
    neighbour = script(
        "other",
        "import os, time; open('/data/mine', 'w').write('mine'); print('up', flush=True); time.sleep(600)",
        volumes=[{"name": "data", "path": "/data"}],
    )

    async def scenario() -> dict[str, Any]:
        async with running(data, secrets=given) as found:
            await settled(found, neighbour)
            await said_by(data, "other")
            await settled(found, neighbour, looker(data))
            (line,) = await said_by(data)
            seen: dict[str, Any] = json.loads(line)
            return seen

    seen = asyncio.run(scenario())
    assert len(seen["pids"]) == 2
    assert not {"home", "root", "sys", "var", "work", "srv", "mnt"} & (set(seen["root"]) - _above(sys.base_prefix))
    assert not {"shadow", "sudoers", "ssh", "gshadow"} & set(seen["etc"])
    missing = ("agent", "neighbour", "shadow")
    assert [seen[what] for what in missing] == ["FileNotFoundError"] * len(missing)
    refused = ("system", "root-write", "sysctl", "mount", "read-only")
    assert {seen[what] for what in refused} <= {"OSError", "PermissionError"}
    assert seen["signal"] == "ProcessLookupError"
    assert (seen["tmp"], seen["volume"], seen["secret file"], seen["secret"]) == (1, 1, WORD, WORD)
    assert seen["hostname"] == "web"
    assert seen["privileges"] == ["0000000000000000"] * 5 + ["1"]
    if os.geteuid() == 0:
        assert seen["uid"] >= 1_900_000_000
    assert set(seen["environment"]) - {"LC_CTYPE", "PWD"} == {
        "AGENT_DATA", "CLOUDLUNACY_INSTANCE", "HOME", "KEY", "LANG", "NEIGHBOUR", "OUTSIDER", "PATH", "TMPDIR",
        "VOLUME_DATA", "VOLUME_FIXED",
    }  # fmt: skip


def _above(path: str) -> set[str]:
    """Return the first directory of what the settings of the tests let programs read."""
    return {Path(path).parts[1]}


def test_secrets_are_in_nobodys_arguments(data: Path) -> None:
    """Of all processes of the machine none has the value in its arguments, and its file is the agent's alone."""

    async def scenario() -> None:
        async with running(data, secrets=given) as found:
            await settled(found, looker(data))
            await said_by(data)

    asyncio.run(scenario())
    lines = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
    assert not [line for line in lines if WORD in line]
    for path in (data / FOLDER).rglob("*"):
        if path.is_file() and not path.is_symlink() and WORD.encode() in path.read_bytes() and "log" not in path.name:
            assert path.stat().st_mode & 0o077 == 0
            assert path.name == "record.json"


def test_a_command_probe_runs_in_the_same_confinement(data: Path) -> None:
    """A health check's command sees the files of the program, and nothing that the program does not see."""
    check = {
        "command": {"command": ["/bin/sh", "-c", f"test -f /tmp/ready && test ! -e {data} && test -w /data"]},
        "interval": "200ms",
    }
    item = script(
        "web",
        "import time; open('/tmp/ready', 'w'); time.sleep(600)",
        volumes=[{"name": "data", "path": "/data"}],
        healthCheck=check,
        rollout={"deadline": "20s"},
    )

    async def scenario() -> str:
        async with running(data) as found:
            return (await settled(found, item))["web"].reason

    assert asyncio.run(scenario()) == "Running"


def test_what_is_run_beside_it_is_confined_and_ends_with_who_asked(data: Path) -> None:
    """A command of a person gives both streams and its exit code; when nobody listens any more it ends."""

    async def scenario() -> None:
        async with running(data) as found:
            await settled(found, script("web", "import time; time.sleep(600)"))
            driver = ProcessDriver(data, AGENT, SETTINGS)
            (one,) = (await driver.observe()).instances
            said = [piece async for piece in driver.execute(one, ("/bin/sh", "-c", "id -u; echo no >&2; exit 3"))]
            assert said[-1] == 3
            assert Written("no\n", "stderr") in said
            endless = driver.execute(one, ("/bin/sh", "-c", "echo up; sleep 600"))
            assert await anext(endless) == Written("up\n")
            before = len(marked(one.id))
            await endless.aclose()
            await eventually(lambda: len(marked(one.id)) < before, SECONDS, what="its end")
            assert not [psutil.Process(pid) for pid in marked(one.id) if "sleep 600" in _line(pid)]

    asyncio.run(scenario())


def _line(pid: int) -> str:
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def test_processes_are_counted(data: Path) -> None:
    """A program that multiplies ends at its limit, and the machine and its neighbours do not feel it."""
    text = (
        "import os, time\ncount = 0\ntry:\n    while count < 500:\n        if os.fork() == 0: time.sleep(600)\n"
        "        count += 1\nexcept BlockingIOError: pass\nprint(count, flush=True)\ntime.sleep(600)"
    )

    async def scenario() -> None:
        async with running(data) as found:
            await settled(found, script("web", text, resources={"pids": 20}))
            (line,) = await said_by(data)
            assert 10 <= int(line) < 20

    asyncio.run(scenario())


def test_all_of_it_is_in_its_control_group(data: Path) -> None:
    """Where the agent may make groups, a program begins in one of its own, which goes with it."""
    mount = next((path for path in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified")) if _is_group(path)), None)
    if mount is None:
        pytest.skip("cgroup v2 is not mounted, or may not be written")
    parent = mount / f"cloudlunacy-test-{os.getpid()}"
    parent.mkdir()
    driver = ProcessDriver(data, AGENT, SETTINGS, machine=lambda: Found(look().means._replace(cgroup=str(parent)), ""))

    async def scenario() -> None:
        async with running_with(data, driver) as found:
            await settled(found, script("web", "import os, time\nos.fork() or os.fork()\ntime.sleep(600)"))
            (group,) = (path for path in parent.iterdir() if path.is_dir())
            await eventually(lambda: len(group.joinpath("cgroup.procs").read_text().split()) >= 4, SECONDS, what="all")
            await settled(found)
            await eventually(lambda: not group.exists(), SECONDS, what="the end of the group")

    try:
        asyncio.run(scenario())
    finally:
        parent.rmdir()


def _is_group(path: Path) -> bool:
    return (path / "cgroup.procs").exists() and os.access(path, os.W_OK) and (path / "cgroup.controllers").exists()


def test_memory_ends_at_its_limit(data: Path) -> None:
    """A program that wants more than it may have does not get it."""
    text = (
        "x = []\ntry:\n    while True: x.append(bytearray(2**20))\nexcept MemoryError: n = len(x); x.clear(); print(n)"
    )
    text += "\nimport time; time.sleep(600)"

    async def scenario() -> None:
        async with running(data) as found:
            await settled(found, script("web", text, resources={"memory": "64Mi"}))
            (line,) = await said_by(data)
            assert 20 < int(line) <= 64

    asyncio.run(scenario())


def test_the_agents_directory_is_hidden_where_a_readable_one_holds_it(data: Path, tmp_path: Path) -> None:
    """Whoever looks after the machine may show a directory above the agent's: the agent's is empty there."""
    (data / "key.pem").write_text("precious")
    (tmp_path / "public.txt").write_text("public")
    tmp_path.chmod(0o755)
    settings = SETTINGS._replace(readable=(*SETTINGS.readable, str(tmp_path)))
    text = (
        f"import os, time; print(os.listdir({str(data)!r}), os.listdir({str(tmp_path)!r}), flush=True); time.sleep(600)"
    )

    async def scenario() -> list[str]:
        async with running(data, settings) as found:
            await settled(found, script("web", text))
            return await said_by(data)

    assert asyncio.run(scenario()) == ["[] ['data', 'public.txt']"]


def test_what_it_uses_is_summed_up(data: Path) -> None:
    """Stats count the program and its children, and not its keeper."""
    child = "import time; x = bytearray(50_000_000); time.sleep(600)"
    text = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])"

    async def scenario() -> None:
        async with running(data) as found:
            await settled(found, script("web", text))
            driver = ProcessDriver(data, AGENT, SETTINGS)
            (one,) = (await driver.observe()).instances

            async def grown() -> bool:
                stats = await driver.stats(one)
                return stats.memory_bytes > 50_000_000 and stats.pids >= 2

            _: bool = await eventually(grown, SECONDS, what="the memory of both")

    asyncio.run(scenario())
