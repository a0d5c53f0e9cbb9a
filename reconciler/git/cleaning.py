"""Words of a remote made safe for a log, a terminal and a page. Pure.

A git host chooses what git prints after ``remote:``; it may send escape codes (THREATS row 15), and git itself
repeats URLs that may carry credentials (row 20).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

MAX_CHARACTERS: Final = 2000
HIDDEN: Final = "***"

# ECMA-48: OSC, DCS, SOS, PM and APC strings up to their terminator, CSI sequences, then two-character escapes.
_ESCAPES: Final = re.compile(
    r"(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_USERINFO: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^\s/@'\"]+@")
_AUTHORIZATION: Final = re.compile(r"(?i)(authorization:\s*\w+\s+)\S+")


def cleaned(text: str | bytes, *, secrets: Iterable[str] = (), limit: int = MAX_CHARACTERS) -> str:
    """Return ``text`` without escape codes, control characters (but tab and newline) and credentials.

    Args:
        text: bytes are read as UTF-8, what is not UTF-8 is replaced.
        secrets: values that must not appear; each is replaced by ``***``.
        limit: characters to keep; what is cut away is said to be.
    """
    plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    # A progress line overwrites itself with a carriage return: show the last state, as a terminal would.
    plain = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in plain.split("\n"))
    plain = _CONTROLS.sub("", _ESCAPES.sub("", plain))
    for secret in filter(None, secrets):
        plain = plain.replace(secret, HIDDEN)
    plain = _USERINFO.sub(rf"\g<scheme>{HIDDEN}@", plain)
    plain = _AUTHORIZATION.sub(rf"\g<1>{HIDDEN}", plain).strip()
    if len(plain) > limit:
        return f"{plain[:limit]} … ({len(plain) - limit} more characters)"
    return plain


def one_line(text: str) -> str:
    """Return ``text`` with every run of white space made one space."""
    return " ".join(text.split())
