"""What commands share when they speak to a person: colours only on a terminal, errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from typing import TextIO


def wants_colour(stream: TextIO) -> bool:
    """Say whether to use colours (https://no-color.org)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def say(text: str) -> None:
    """Print a line of result."""
    sys.stdout.write(text if text.endswith("\n") else f"{text}\n")
    sys.stdout.flush()


def tell(text: str) -> None:
    """Print a line for the person, which is not the result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say_json(value: object) -> None:
    """Print a result as JSON."""
    say(json.dumps(value, indent=2, ensure_ascii=False))
