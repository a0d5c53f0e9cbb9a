"""What stands between Python's values and a column."""

from __future__ import annotations

import json
import logging
from typing import Any

log = logging.getLogger(__name__)


def storable(text: str) -> str:
    """Return ``text`` as UTF-8 can hold it: lone surrogates (from file names that are not UTF-8) become ``?``."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def dump(value: object) -> str:
    """Write JSON for a column. ASCII only, so that strings with lone surrogates come back as they were."""
    return json.dumps(value, separators=(",", ":"))


def load(document: str, what: str) -> Any | None:  # noqa: ANN401 - JSON
    """Read JSON from a column; None, and a line in the log, where a damaged disk changed it."""
    try:
        return json.loads(document)
    except ValueError as error:
        unreadable(what, error)
        return None


def unreadable(what: str, error: Exception) -> None:
    """Tell of a row that is left out because it does not read back."""
    log.error("%s in the store cannot be read and is left out: %s", what, error)
