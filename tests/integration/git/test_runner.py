"""One process: what it is given, what it may cost, and how it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from reconciler.errors import Broken, Transient
from reconciler.git.runner import Command, Finished, GitRunner
from tests.support.git_repos import processes_of, wait_until_ended
from tests.support.waiting import eventually


def run(tmp_path: Path, command: Command) -> Finished:
    async def scenario() -> Finished:
        runner = GitRunner(tmp_path / "home")
        try:
            return await runner.run(command)
        finally:
            runner.close()

    return asyncio.run(scenario())


def shell(script: str, *, seconds: float = 20, **fields: object) -> Command:
    """A stand-in for git: what the runner promises holds for any program."""
    return Command(("-c", script), seconds=seconds, program="sh", **fields)  # type: ignore[arg-type]


def test_environment_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No value that the control plane knows reaches git, nor a name of git's own; HOME and configuration are ours."""
    monkeypatch.setenv("CLOUDLUNACY_SECRET", "canary")
    monkeypatch.setenv("GIT_DIR", "/canary")
    monkeypatch.setenv("GIT_ASKPASS", "/canary")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/canary")
    monkeypatch.setenv("HOME", "/somebody")
    printed = run(tmp_path, shell("env; tr '\\0' ' ' </proc/$$/cmdline")).stdout.decode()
    assert "canary" not in printed
    variables = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    assert not {"GIT_DIR", "GIT_ASKPASS"} & variables.keys()
    assert {variables.get(name, "") for name in ("CLOUDLUNACY_SECRET", "XDG_CONFIG_HOME", "PYTHONPATH")} == {""}
    assert variables["HOME"] == str(tmp_path / "home")
    assert variables["GIT_TERMINAL_PROMPT"] == "0"
    config = {variables[f"GIT_CONFIG_KEY_{number}"] for number in range(int(variables["GIT_CONFIG_COUNT"]))}
    assert {"core.hooksPath", "protocol.ext.allow", "transfer.fsckObjects", "http.followRedirects"} <= config


def test_hardening_reaches_git(tmp_path: Path) -> None:
    """git itself sees the configuration, and refuses the ``ext::`` transport."""
    shown = run(tmp_path, Command(("config", "--get", "core.hooksPath"), seconds=20))
    assert shown.stdout == b"/dev/null\n"
    refused = run(tmp_path, Command(("ls-remote", "ext::sh -c touch% x"), seconds=20))
    assert "not allowed" in refused.words
    assert not (tmp_path / "home" / "x").exists()


def test_group_that_ignores_signals_is_ended(tmp_path: Path) -> None:
    """At the time-out every process of the group ends, grandchildren that ignore SIGTERM too."""
    script = "trap '' TERM; (trap '' TERM; sleep 60) & sleep 60"
    with pytest.raises(Transient, match=r"did not end within 0\.3 s") as caught:
        run(tmp_path, shell(script, seconds=0.3))
    assert caught.value.reason == "GitTimeout"
    wait_until_ended(tmp_path)


def test_closed_streams_do_not_fool_the_time_out(tmp_path: Path) -> None:
    """A process that closes its output and stays is ended as well."""
    with pytest.raises(Transient):
        run(tmp_path, shell("exec >&- 2>&-; sleep 60", seconds=0.3))
    wait_until_ended(tmp_path)


def test_cancelled_call_leaves_no_process(tmp_path: Path) -> None:
    """When the caller is cancelled the process is gone before the cancellation comes back."""

    async def scenario() -> None:
        runner = GitRunner(tmp_path / "home")
        task = asyncio.create_task(runner.run(shell("sleep 60", seconds=60)))
        await eventually(lambda: processes_of(tmp_path))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        wait_until_ended(tmp_path)
        runner.close()

    asyncio.run(scenario())


def test_endless_output_is_cut(tmp_path: Path) -> None:
    """Output over the cap ends the process at once; endless errors are read and thrown away."""
    finished = run(tmp_path, shell("yes", max_output_bytes=100_000))
    assert finished.too_much
    assert len(finished.stdout) < 2_000_000
    noisy = run(tmp_path, shell("yes no | head -c 3000000 >&2; echo done"))
    assert noisy.stdout == b"done\n"
    assert len(noisy.words) < 3000
    wait_until_ended(tmp_path)


def test_large_input_does_not_block(tmp_path: Path) -> None:
    """Input and output far larger than a pipe holds go through."""
    content = b"0123456789\n" * 300_000
    finished = run(tmp_path, Command((), seconds=20, program="cat", stdin=content))
    assert (finished.status, finished.stdout) == (0, content)


def test_file_size_is_limited(tmp_path: Path) -> None:
    """A process that writes a larger file than it may is ended by the kernel."""
    command = Command(
        ("if=/dev/zero", "of=big", "bs=1M", "count=9"), seconds=20, program="dd", max_file_bytes=1_000_000
    )
    assert run(tmp_path, command).status != 0
    assert (tmp_path / "home" / "big").stat().st_size <= 1_000_512


def test_missing_program_is_the_operators_matter(tmp_path: Path) -> None:
    """Without git on the machine a sentence says so."""
    with pytest.raises(Broken, match="is not installed"):
        run(tmp_path, Command(("x",), seconds=20, program="git-that-is-not-there"))


def test_failing_sink_ends_the_process(tmp_path: Path) -> None:
    """An error of the one who reads comes out, and the process does not stay."""

    def sink(_: bytes) -> bool:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        run(tmp_path, shell("yes", sink=sink))
    wait_until_ended(tmp_path)
