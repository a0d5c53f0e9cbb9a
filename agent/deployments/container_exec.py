"""A program that is run in a container beside what runs there, and ended with whoever waits for it.

The engine has no way to end such a program: closing the connection leaves it running. So its processes are killed by
this agent, which sees them where it may use the engine's machine as its user may; a process that was looked at and that
is another one by then is left alone.
"""

from __future__ import annotations

import asyncio
import codecs
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import psutil
from aiodocker.containers import DockerContainer
from aiodocker.execs import Exec

from agent.deployments.driver import Written
from agent.deployments.engine_errors import translated

log = logging.getLogger(__name__)

_STDERR: Final = 2
_POLL_SECONDS: Final = 0.05


async def execute(container: DockerContainer, command: tuple[str, ...]) -> AsyncGenerator[Written | int, None]:
    """Run a program, as :meth:`agent.deployments.driver.Driver.execute` says."""
    with translated():
        made = await container.exec(command, stdout=True, stderr=True, stdin=False, tty=False)
        ended = False
        try:
            async with aclosing(_output(made)) as output:
                async for written in output:
                    yield written
            code = await _exit_code(made)
            ended = True
            yield code
        finally:
            if not ended:
                await _end(container.id, made)


async def _output(made: Exec) -> AsyncGenerator[Written, None]:
    decoders = {number: codecs.getincrementaldecoder("utf-8")("replace") for number in (1, _STDERR)}
    async with made.start(detach=False) as stream:
        while (message := await stream.read_out()) is not None:
            number = _STDERR if message.stream == _STDERR else 1
            if text := decoders[number].decode(message.data):
                yield Written(text, "stderr" if number == _STDERR else "stdout")
    for number, decoder in decoders.items():
        if text := decoder.decode(b"", final=True):
            yield Written(text, "stderr" if number == _STDERR else "stdout")


async def _exit_code(made: Exec) -> int:
    while True:
        shown = await made.inspect()
        if not shown["Running"] and shown["ExitCode"] is not None:
            return int(shown["ExitCode"])
        await asyncio.sleep(_POLL_SECONDS)


async def _end(container: str, made: Exec) -> None:
    shown = await made.inspect()
    if shown["Running"] and shown["Pid"]:
        await asyncio.to_thread(_kill, int(shown["Pid"]), container)


def _kill(pid: int, container: str) -> None:
    """Kill a process of the container and all that it started."""
    try:
        first = psutil.Process(pid)
        if container not in Path(f"/proc/{pid}/cgroup").read_text() + Path(f"/proc/{pid}/mountinfo").read_text():
            log.warning("a program in container %s cannot be ended: process %d is not of it", container[:12], pid)
            return
        for process in (*first.children(recursive=True), first):
            process.kill()
    except psutil.NoSuchProcess:
        return
    except (psutil.Error, OSError) as error:
        log.warning("a program in container %s cannot be ended: %s", container[:12], type(error).__name__)
