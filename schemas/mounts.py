"""Which paths a program of a server (type process) may have its volumes and files at. PURE.

What a deployment lays over the system's directories would decide what runs there, the loader and its libraries among
it. And where one of its mounts lies in another, its own program shapes the way to it, by links.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

RESERVED: Final = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/opt", "/proc", "/sbin"),
    *("/sys", "/tmp", "/usr"),  # noqa: S108  only a name
)
"""Nothing of a deployment lies at, above or below these."""
_Parts = tuple[str, ...]


def parts(path: str) -> _Parts:
    """Return the names on the way to a path: however often a slash is written, and without dots."""
    return tuple(part for part in path.split("/") if part not in ("", "."))


def holds(upper: str, lower: str) -> bool:
    """Say whether the lower one is the upper one, or below it."""
    return parts(lower)[: len(parts(upper))] == parts(upper)


def refused(paths: Iterable[str], reserved: Iterable[str] = RESERVED) -> dict[str, str]:
    """Return the paths that cannot be, and why, as the end of a sentence."""
    found: dict[str, str] = {}
    taken: list[str] = []
    kept = tuple(reserved)
    for path in paths:
        if ".." in parts(path):
            found[path] = "leads upwards"
        elif near := next((one for one in kept if holds(one, path) or holds(path, one)), ""):
            found[path] = f"is at, above or below {near}, which is the system's"
        elif other := next((one for one in taken if holds(one, path) or holds(path, one)), ""):
            found[path] = f"is in {other}, or the other way round"
        taken.append(path)
    return found
