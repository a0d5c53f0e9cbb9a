"""``python -m reconciler.steps.try_parse PATH < CONTENT``: parse one suspicious file; survive it, or not."""

from __future__ import annotations

import resource
import sys

from reconciler.desired.parse import parse_file

MEMORY = 1024 * 1024 * 1024
SECONDS = 10

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    parse_file(sys.argv[1], "", sys.stdin.buffer.read())
