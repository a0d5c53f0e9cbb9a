"""Numbers for people: with a unit that fits, and no more digits than anybody reads. Pure."""

from __future__ import annotations

from typing import Final

from schemas.metrics import Unit

_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def amount(value: float, unit: Unit) -> str:
    """Write a number with its unit."""
    match unit:
        case "ratio":
            return part(value)
        case "bytes" | "bytes/s":
            return size(value) + ("/s" if unit == "bytes/s" else "")
        case "seconds":
            return span(value)
        case "cores" | "count":
            digits = 2 if abs(value) >= 0.1 else 4  # what hardly works does not do nothing
            return f"{value:.{digits}f}".rstrip("0").rstrip(".")


def part(value: float) -> str:
    """Write a share of one in per cent."""
    return f"{value * 100:.0f} %"


def size(value: float) -> str:
    """Write a number of bytes."""
    unit = 0
    while abs(value) >= 1024 and unit < len(_SIZES) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_SIZES[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {_SIZES[unit]}"


def span(seconds: float) -> str:
    """Write a length of time."""
    for length, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
