"""``serve`` whose rotations take another time: ``python -m tests.support.paced PACE serve …``."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace

from reconciler.app import serve
from reconciler.cli import COMMANDS, make_parser
from reconciler.commands.serve_command import settings_of
from reconciler.observability import logs


def main(pace: str, arguments: list[str]) -> None:
    options = make_parser(COMMANDS, "serve").parse_args(arguments)
    os.umask(0o077)
    logs.configure(level=options.log_level, format=options.log_format)
    asyncio.run(serve(replace(settings_of(options), rotation_pace=float(pace))))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
