"""Tenants whose volumes, files and words would decide what runs before their program: nothing there has privileges.

Such mounts are refused. Here the refusal is taken away, for what confines has to hold without it.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from agent.deployments import process_confinement
from agent.deployments.given import Given
from agent.deployments.process_driver import ProcessDriver
from agent.deployments.process_files import FOLDER
from agent.deployments.process_machine import look
from tests.support.parts import require
from tests.support.process_agent import AGENT, PYTHON, SECONDS, SETTINGS, running, script, settled
from tests.support.waiting import eventually

SPY: Final = r"""
#include <fcntl.h>
#include <unistd.h>
__attribute__((constructor)) static void look(void) {
    static char text[16384];
    int from = open("/proc/self/status", O_RDONLY), to = open("/data/loaded", O_WRONLY | O_CREAT | O_APPEND, 0666);
    ssize_t size = from < 0 ? 0 : read(from, text, sizeof text);
    if (to >= 0 && size > 0 && write(to, text, size) < 0) _exit(9);
}
"""
"""Writes down whom it was loaded by."""
TELL: Final = "open('/data/told', 'a').write(open('/proc/self/status').read())"
CHECK: Final = {"command": {"command": [PYTHON, "-I", "-S", "-c", TELL]}, "interval": "200ms", "startPeriod": "10s"}
WAYS: Final[dict[str, dict[str, Any]]] = {
    "a volume over the programs": {"volumes": [{"name": "tools", "path": "/usr/bin"}]},
    "a file that names a library": {
        "volumes": [{"name": "tools", "path": "/tools"}],
        "secretFiles": [{"path": "/etc/ld.so.preload", "secret": "spy", "key": "path"}],
    },
    "a volume over the libraries": {"volumes": [{"name": "tools", "path": "/lib/x86_64-linux-gnu"}]},
    "a volume over the directory of the loader": {"volumes": [{"name": "tools", "path": "/lib64"}]},
    "words of the environment": {
        "volumes": [{"name": "tools", "path": "/tools"}],
        "env": {"LD_PRELOAD": "/tools/spy.so", "LD_LIBRARY_PATH": "/tools"},
    },
}


@pytest.fixture(autouse=True)
def unrefused(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested here needs bubblewrap that may make namespaces, and nobody who refuses."""
    require("bwrap")
    if shutil.which("cc") is None:
        pytest.skip("needs a compiler")
    if why := look().lacking:
        pytest.skip(why)
    monkeypatch.setattr(process_confinement, "refused", lambda _: {})


def furnish(volume: Path) -> None:
    """Lay down what a tenant could have written itself: the machine's libraries, each of which loads its own."""
    volume.chmod(0o755)
    spy = volume / "spy.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(spy), "-x", "c", "-"]
    subprocess.run(command, input=SPY.encode(), check=True, timeout=SECONDS)
    spy.chmod(0o755)
    loaded = volume.with_name("data") / "loaded"
    loaded.parent.chmod(0o777)
    loaded.touch()
    loaded.chmod(0o666)  # whoever it is can write it
    for name in ("libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"):
        shutil.copy(Path("/lib/x86_64-linux-gnu", name).resolve(), volume / name)
    for name in ("libcap.so.2", "libselinux.so.1", "libcap-ng.so.0"):  # of bubblewrap and of setpriv
        shutil.copy(spy, volume / name)
    for name in ("setpriv", "env", "true"):
        shutil.copy("/usr/bin/id", volume / name)


def told(path: Path) -> list[dict[str, str]]:
    """Return what each process wrote of itself."""
    found: list[dict[str, str]] = []
    for line in path.read_text().splitlines() if path.exists() else ():
        name, _, value = line.partition(":")
        if name == "Name":
            found.append({})
        found[-1][name] = value.strip()
    return found


def given(_: object) -> Given:
    return Given({"spy/path": "/tools/spy.so"})


@pytest.mark.parametrize("way", WAYS)
def test_nobody_in_a_tenants_tree_has_privileges(data: Path, way: str) -> None:
    """At the start, in a health check and in exec, each process is the deployment's user and can become nobody else."""
    volumes = data / FOLDER / "shop" / "web" / "volumes"
    spec = {**WAYS[way], "volumes": [{"name": "data", "path": "/data"}, *WAYS[way]["volumes"]]}
    first = {**spec, "env": {}, "secretFiles": [], "volumes": [{**one, "path": f"/{one['name']}"} for one in
             spec["volumes"]]}  # fmt: skip

    async def scenario() -> None:
        async with running(data, secrets=given) as found:
            await settled(found, script("web", "import time; time.sleep(600)", **first))
            furnish(volumes / "tools")
            hostile = script("web", f"{TELL}\nimport time; time.sleep(600)", healthCheck=CHECK, **spec)
            assert (await settled(found, hostile))["web"].reason == "Running"
            driver = ProcessDriver(data, AGENT, SETTINGS)
            (one,) = (one for one in (await driver.observe()).instances if one.up)
            said = [piece async for piece in driver.execute(one, (PYTHON, "-I", "-S", "-c", TELL))]
            assert said[-1] == 0
            await eventually(lambda: len(told(volumes / "data" / "told")) >= 3, SECONDS, what="a word of all three")

    asyncio.run(scenario())
    seen = [*told(volumes / "data" / "told"), *told(volumes / "data" / "loaded")]
    if "over" not in way:
        assert told(volumes / "data" / "loaded")  # the trick works, and wins nothing
    for one in seen:
        assert {one[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert one["NoNewPrivs"] == "1"
        assert "0" not in one["Uid"].split()
