"""Write the JSON Schemas, or say which files differ from what the models say now.

``python -m reconciler.commands.schemas [--check] DIRECTORY…`` is what ``make schemas`` and ``make check`` run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from schemas.generate import generate


def write_schemas(directory: Path) -> list[Path]:
    """Write one file a kind and remove schemas of kinds that are no more; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = generate()
    for path in directory.glob("*.json"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        Path(directory, name).write_text(text, encoding="utf-8")
    return [Path(directory, name) for name in sorted(texts)]


def stale_schemas(directory: Path) -> list[Path]:
    """List the files that are missing, different or of no kind."""
    texts = generate()
    there = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.json")}
    return [Path(directory, name) for name in sorted(texts.keys() | there.keys()) if texts.get(name) != there.get(name)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run for the Makefile."""
    parser = argparse.ArgumentParser(description="Write the JSON Schemas of every kind.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a file is not up to date")
    parser.add_argument("directory", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    stale = [path for directory in options.directory for path in stale_schemas(directory)]
    if options.check:
        for path in stale:
            sys.stderr.write(f"{path} is not what the models say now; run make schemas\n")
        return 1 if stale else 0
    for directory in options.directory:
        write_schemas(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
