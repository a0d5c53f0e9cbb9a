"""Programs that are run beside an instance, confined as it is: with its files, its user, its environment, its network.

They have namespaces of their own, so they do not see the processes of the instance, nor those them.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

from agent.deployments.driver import DriverError, Written
from agent.deployments.health import Probe
from agent.deployments.process_entry import launched
from agent.deployments.process_files import Record, opened

_BLOCK: Final = 64 * 1024
_WAITING: Final = 16
"""Blocks that a program may have written and nobody has read."""


async def run(record: Record, command: tuple[str, ...], timeout_seconds: float) -> Probe:
    """Run the command of a health check; exit code 0 is good."""
    try:
        async with _begun(record, command, DEVNULL) as process, asyncio.timeout(timeout_seconds):
            code = await process.wait()
    except TimeoutError:
        return Probe(False, f"{command[0]} did not end within {timeout_seconds:g} s")
    except DriverError as error:
        return Probe(False, error.message)
    return Probe(code == 0, "" if code == 0 else f"{command[0]} exited with {code}")


async def execute(record: Record, command: tuple[str, ...]) -> AsyncGenerator[Written | int, None]:
    """Run a program, as :meth:`agent.deployments.driver.Driver.execute` says."""
    written: asyncio.Queue[Written | None] = asyncio.Queue(_WAITING)
    async with _begun(record, command, PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        readers = [
            asyncio.create_task(_read(process.stdout, "stdout", written), name="execute-stdout"),
            asyncio.create_task(_read(process.stderr, "stderr", written), name="execute-stderr"),
        ]
        try:
            left = len(readers)
            while left:
                piece = await written.get()
                if piece is None:
                    left -= 1
                else:
                    yield piece
            yield await process.wait()
        finally:
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)


async def _read(
    stream: asyncio.StreamReader, name: Literal["stdout", "stderr"], written: asyncio.Queue[Written | None]
) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while block := await stream.read(_BLOCK):
        if text := decoder.decode(block):
            await written.put(Written(text, name))
    if text := decoder.decode(b"", final=True):
        await written.put(Written(text, name))
    await written.put(None)


@asynccontextmanager
async def _begun(record: Record, command: tuple[str, ...], output: int) -> AsyncIterator[Process]:
    """Begin it; at the end it ends with everything in its session. Raises DriverError."""
    program = record.program
    with opened(record.inside, program) as (before, descriptors):
        words = [*before, *command] if program.entry is None else launched(program.entry, [*before, *command])
        try:
            process = await asyncio.create_subprocess_exec(
                *words,
                stdin=DEVNULL,
                stdout=output,
                stderr=output,
                env=program.first_env,
                cwd=None if program.confined else program.directory,
                pass_fds=descriptors,
                start_new_session=True,
            )
        except OSError as error:
            raise DriverError("CannotStart", f"{command[0]}: {error.strerror}") from None
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # not waited for yet, so it cannot be another's
            await process.wait()
