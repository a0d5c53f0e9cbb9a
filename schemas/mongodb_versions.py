"""Which version of MongoDB may take over the data of which other one.

A release series is major and minor number, such as 6.0. Data carries a feature compatibility version (FCV), which is a
series; a mongod of another one opens it only where that series directly follows. Within a series every patch level
opens the data of every other. Sources: MongoDB's manual, "Upgrade a Standalone" to 5.0, 6.0, 7.0, 8.0, 8.2, 8.3 and
9.0, and "setFeatureCompatibilityVersion" (downgrades of the Community edition are not supported from 7.0 on; earlier
ones need steps by hand, so none is taken here).
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Series(NamedTuple):
    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class Refused(NamedTuple):
    """Why a version may not follow, and what may be done instead."""

    text: str
    hint: str


OLDEST: Final = Series(5, 0)
"""An older mongod takes no new certificate without a restart."""
CONFIRMED_SINCE: Final = Series(7, 0)
"""From here on ``setFeatureCompatibilityVersion`` wants ``confirm: true``."""
_SINGLE: Final[dict[Series, Series]] = {Series(4, 2): Series(4, 4), Series(4, 4): Series(5, 0)}
"""Series before the scheme of one major release a year."""


def series_of(version: str) -> Series:
    """Read a version such as ``6.0`` or ``6.0.27``. Raises ValueError for what is none."""
    major, minor, *_ = (int(part) for part in version.split("."))
    return Series(major, minor)


def follows(held: Series, wanted: Series) -> bool:
    """Say whether ``wanted`` may open data of ``held``: itself, a later minor release, or the next major one."""
    if held in _SINGLE:
        return wanted in (held, _SINGLE[held])
    same_major = wanted.major == held.major and wanted.minor >= held.minor
    return same_major or wanted == Series(held.major + 1, 0)


def refusal(held: str, wanted: str) -> Refused | None:
    """Say why data of version ``held`` (or of that FCV) may not be given to version ``wanted``; None: it may."""
    old, new = series_of(held), series_of(wanted)
    if follows(old, new):
        return None
    if new < old:
        text = f"MongoDB {wanted} cannot open data of {held}: there is no way back to an older release."
        return Refused(text, f"Keep {old}, or restore a backup into a new deployment of version {new}.")
    step = next_step(old)
    text = f"MongoDB {wanted} cannot open data of {held}: releases are upgraded one after the other."
    return Refused(text, f'Write version: "{step}" first, and go on once it runs.')


def next_step(held: Series) -> Series:
    """Return the next major release after a series."""
    return _SINGLE.get(held, Series(held.major + 1, 0))
