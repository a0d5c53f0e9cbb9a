"""``cloudlunacy schemas``: the JSON Schemas of every kind, for editors and CI."""

from __future__ import annotations

import argparse
from pathlib import Path

from reconciler.commands.output import say
from reconciler.commands.schemas import write_schemas


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser("schemas", help="write the JSON Schemas", description="Write a JSON Schema a kind.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="directory to write to")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the files and name them."""
    say("\n".join(str(path) for path in write_schemas(options.out)))
    return 0
