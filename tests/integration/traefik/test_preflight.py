"""Candidates are tried on a real throwaway Traefik."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from reconciler.desired.render import Renderer
from reconciler.desired.routing import catch_all, compile_route
from reconciler.desired.traefik_model import Router, TraefikObject
from reconciler.errors import Transient
from reconciler.traefik.api import ObjectFailure
from reconciler.traefik.preflight import Preflight
from reconciler.traefik.standby import Standby
from reconciler.traefik.templates import load_templates
from tests.support.traefik import Backend, backends, fleet, key, lookup, route, traefik_binary
from tests.support.waiting import eventually, wait_for

RENDERER = Renderer(load_templates())
POINTS = ("web", "websecure", "mongodb")


def document(*objects: TraefikObject) -> str:
    fragments = [RENDERER.fragments(catch_all(fleet())), RENDERER.fragments(objects)]
    return RENDERER.document(fragments, generation=1, revision="abc")


def good(backend: Backend | None = None) -> tuple[TraefikObject, ...]:
    port = backend.port if backend else 1
    check = {"path": "/probe", "interval": "20ms", "timeout": "10ms"}
    return compile_route(key(), route(backends=[{"agent": "vps-1", "port": port}], healthCheck=check), lookup())


def router(name: str, **more: str) -> TraefikObject:
    value: Router = {
        "entryPoints": [more.get("point", "web")],
        "rule": more.get("rule", "Host(`a.test`)"),
        "priority": 2000,
        "service": more.get("service", "shop_web"),
    }
    return TraefikObject("http.routers", name, value)


def run(scenario: Callable[[Preflight], Awaitable[None]], *, deadline: float = 10.0) -> None:
    async def whole() -> None:
        preflight = Preflight(traefik_binary(), POINTS, deadline=deadline)
        try:
            await scenario(preflight)
        finally:
            await preflight.close()

    asyncio.run(whole())


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_good_candidate_passes() -> None:
    """Nothing is refused; the same standby serves the next check."""

    async def scenario(preflight: Preflight) -> None:
        await preflight.prepare()
        first = preflight.pid
        for _ in range(3):
            assert await preflight.check(document(*good())) == ()
        assert preflight.pid == first

    run(scenario)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (router("shop_bad", service="nobody"), 'the service "nobody@file" does not exist'),
        (router("shop_bad", rule="Host(`a.test`) &&& nonsense"), "error while parsing rule"),
        (router("shop_bad", rule="Nope(`a`)"), "unsupported function: Nope"),
        (router("shop_bad", point="elsewhere"), 'entryPoint "elsewhere" doesn\'t exist'),
    ],
)
def test_a_bad_object_is_named_and_the_next_candidate_is_not_blamed(bad: TraefikObject, reason: str) -> None:
    """Section, name and Traefik's reason; after it a good candidate passes."""

    async def scenario(preflight: Preflight) -> None:
        (failure,) = await preflight.check(document(*good(), bad))
        assert (failure.section, failure.name) == ("http.routers", "shop_bad")
        assert reason in failure.error
        assert await preflight.check(document(*good())) == ()

    run(scenario)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("http: [\n", "yaml"),
        ("http:\n  routers: {}\n", "routers cannot be a standalone element"),
        ('http:\n  routers:\n    a: {"rule": "Host(`a`)", "nope": 1}\n', "field not found, node: nope"),
        ('http:\n  middlewares:\n    a: {"rateLimit": {"average": 1, "period": "1x"}}\n', 'unknown unit "x"'),
        ("http:\n  {{ nonsense }}\n", 'function "nonsense" not defined'),
    ],
)
def test_a_file_that_would_freeze_traefik_is_refused_quickly_with_the_reason(text: str, reason: str) -> None:
    """The log says why, without waiting for the deadline; another standby then takes the next candidate."""

    async def scenario(preflight: Preflight) -> None:
        await preflight.prepare()
        (failure,) = await preflight.check(text)
        assert (failure.section, failure.name) == ("", "")
        assert reason in failure.error
        assert await preflight.check(document(*good())) == ()

    run(scenario)


def test_a_standby_killed_from_outside_is_replaced() -> None:
    """The check that finds it dead starts another and answers."""

    async def scenario(preflight: Preflight) -> None:
        await preflight.prepare()
        first = preflight.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        assert await preflight.check(document(*good())) == ()
        assert preflight.pid not in (None, first)

    run(scenario)


def test_a_standby_that_hangs_is_replaced_after_the_deadline() -> None:
    """A stopped process is not waited for endlessly, is gone afterwards, and is not held against the candidate."""

    async def scenario(preflight: Preflight) -> None:
        await preflight.prepare()
        first = preflight.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        assert await preflight.check(document(*good())) == ()
        assert gone(first)

    run(scenario, deadline=2.0)


def test_a_candidate_that_traefik_does_not_survive_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost twice, the second time a fresh one: the candidate is at fault, and the next one gets its chance."""
    load = Standby.load

    async def die_of_poison(self: Standby, text: str, deadline: float) -> str | None:
        if "poison" in text:
            os.kill(self.pid, signal.SIGKILL)
        return await load(self, text, deadline)

    monkeypatch.setattr(Standby, "load", die_of_poison)

    async def scenario(preflight: Preflight) -> None:
        (failure,) = await preflight.check("# poison\n")
        assert "ended with status" in failure.error
        assert (failure.section, failure.name) == ("", "")
        assert await preflight.check(document(*good())) == ()

    run(scenario)


def test_other_entry_points_mean_another_standby() -> None:
    """Routes are checked against the entry points that the fleet has now."""

    async def scenario(preflight: Preflight) -> None:
        await preflight.prepare()
        first = preflight.pid
        await preflight.prepare(POINTS)
        assert preflight.pid == first
        await preflight.prepare(["port80", *POINTS])
        assert preflight.pid != first
        assert await preflight.check(document(*good(), router("shop_x", point="port80"))) == ()

    run(scenario)


def test_health_checks_of_a_candidate_end_with_it() -> None:
    """Once judged, a candidate's backends hear no more from the throwaway."""

    async def scenario(preflight: Preflight) -> None:
        with backends("one") as (one,):
            assert await preflight.check(document(*good(one))) == ()

            async def silent() -> bool:
                before = len(one.requests)
                await asyncio.sleep(0.2)  # ten intervals of the probe
                return len(one.requests) == before

            condition: Callable[[], bool | Awaitable[bool]] = silent
            await eventually(condition)

    run(scenario)


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After close there is no process and no file; closing twice is fine."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[int] = []

    async def scenario(preflight: Preflight) -> None:
        await preflight.prepare()
        assert preflight.pid is not None
        seen.append(preflight.pid)
        assert len(list(tmp_path.iterdir())) == 1
        await preflight.close()
        assert preflight.pid is None

    run(scenario)
    assert gone(seen[0])
    assert list(tmp_path.iterdir()) == []


def test_it_dies_with_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control plane that is killed leaves no Traefik running, and the next one removes its files."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from reconciler.traefik.preflight import Preflight\n"
        "async def main():\n"
        "    preflight = Preflight(Path(sys.argv[1]), ['web'])\n"
        "    await preflight.prepare()\n"
        "    print(preflight.pid, flush=True)\n"
        "    await asyncio.Event().wait()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", program, str(traefik_binary())]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not gone(child)
        parent.kill()
    wait_for(lambda: gone(child), 5)
    (left,) = tmp_path.iterdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def scenario(preflight: Preflight) -> None:
        await preflight.prepare()
        assert not left.exists()

    run(scenario)


def test_its_environment_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the control plane's environment holds, a template in a candidate cannot read it."""
    monkeypatch.setenv("CANARY", "canary-4711")

    async def scenario(preflight: Preflight) -> None:
        await preflight.prepare()
        assert Path(f"/proc/{preflight.pid}/environ").read_bytes() == b""
        (failure,) = await preflight.check('http:\n  {{ env "CANARY" }}\n  x: [\n')
        assert "canary-4711" not in failure.error

    run(scenario)


def test_without_a_program_it_says_so() -> None:
    """unavailable_reason tells, check raises Transient."""

    async def scenario() -> None:
        preflight = Preflight(None)
        assert preflight.unavailable_reason == "no traefik program was found"
        await preflight.prepare()
        with pytest.raises(Transient, match="no traefik program"):
            await preflight.check(document())
        await preflight.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("content", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho 'Version:      3.6.1'\n", "nonsense"])
def test_a_program_that_is_none_or_too_old_is_reported(tmp_path: Path, content: str) -> None:
    """It is not used, and the reason is kept."""
    program = tmp_path / "traefik"
    program.write_text(content)
    program.chmod(0o755)

    async def scenario() -> None:
        preflight = Preflight(program)
        await preflight.prepare()
        assert preflight.unavailable_reason
        with pytest.raises(Transient):
            await preflight.check(document())
        await preflight.close()

    asyncio.run(scenario())


def test_failures_are_values() -> None:
    """They compare and can be kept."""
    assert ObjectFailure("http.routers", "a", "b") == ("http.routers", "a", "b")
