"""Text from outside, made safe to be printed: a terminal must never take any of it for a command."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""Return ``text`` with everything that has no shape of its own written as an escape, such as ``\x1b``.

    That is control characters, line ends, marks that turn the direction of writing, and lone surrogates.
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
