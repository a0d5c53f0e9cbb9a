"""Reads a published file over and over, and takes down every version of it: ``python -m tests.support.watcher``.

Arguments: the file, and where to write; one JSON line for each version that was seen, in order.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaml_rs import loads

from tests.support.orphans import tied

HEAD = re.compile(r'^# generation (\d+), revision "([0-9a-f]*)"$', re.MULTILINE)
PAUSE = 0.0002


@dataclass(frozen=True)
class Version:
    """One version of the file. ``error`` says why it is not a complete render."""

    generation: int
    revision: str
    routers: frozenset[str]
    error: str


def examine(content: bytes | None) -> dict[str, Any]:
    """Parse a version to its end."""
    if content is None:
        return {"error": "the file is gone"}
    try:
        text = content.decode()
        found = HEAD.search(text)
        said: Any = loads(text)
        routers = [name for name in said["http"]["routers"] if name.startswith("shop_")]
    except (ValueError, LookupError, TypeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    if found is None:
        return {"error": "no marker"}
    marker = f"cloudlunacy__generation-{found[1]}-{found[2][:12]}"
    if not any(name == marker for name in said["http"]["services"]):
        return {"error": f"no service {marker}"}
    return {"generation": int(found[1]), "revision": found[2], "routers": routers, "error": ""}


def watch(path: Path, out: Path) -> None:
    last: bytes | None = b""
    with out.open("w", encoding="utf-8", buffering=1) as lines:
        while True:
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                content = None
            if content != last:
                lines.write(json.dumps(examine(content)) + "\n")
                last = content
            time.sleep(PAUSE)


@contextmanager
def watching(path: Path, out: Path) -> Iterator[Path]:
    """Run a watcher until the block ends."""
    process = subprocess.Popen(tied([sys.executable, "-m", "tests.support.watcher", path, out]))
    try:
        yield out
    finally:
        alive = process.poll() is None
        process.kill()
        process.wait()
        assert alive, "the watcher ended by itself"


def versions(out: Path) -> list[Version]:
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return [
        Version(one.get("generation", 0), one.get("revision", ""), frozenset(one.get("routers", ())), one["error"])
        for one in lines
    ]


if __name__ == "__main__":
    watch(Path(sys.argv[1]), Path(sys.argv[2]))
