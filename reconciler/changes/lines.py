"""Texts by their lines: what a person did not touch stays as it is, byte by byte. Pure.

``carried_over``: a change that was made to a rewritten copy of a text, made to the text itself.
``merged``: two changes of one text brought together, where they do not meet.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

_ASIDE = re.compile(r"[ \t]*(?:#.*)?(?:\r?\n)?")
"""A line that holds nothing but a comment, if that."""

Lines = Sequence[str]


def carried_over(text: str, copy: str, edited: str, *, keep_comments: bool = True) -> str:
    """Return ``text`` with what was done to ``copy`` to make it ``edited``.

    Args:
        text: as a person wrote it.
        copy: the same, as a program writes it: most lines are those of the text.
        edited: the copy, changed.
        keep_comments: what is added goes before the comments that stand there, and what is removed leaves those
            behind it: in YAML a comment belongs to what follows.
    """
    own, base, wanted = (one.splitlines(keepends=True) for one in (text, copy, edited))
    if keep_comments:
        wanted = list(_around_comments(base, wanted))
    if len(own) != len(base):
        return "".join(line for part in _parts(base, own, wanted) for line in _resolved(*part))
    return "".join(_line_by_line(own, base, wanted))


def merged(base: str, ours: str, theirs: str) -> str | None:
    """Bring two changes of ``base`` together; None where both changed the same lines, and not in the same way."""
    found: list[str] = []
    for old, own, other in _parts(*(one.splitlines(keepends=True) for one in (base, ours, theirs))):
        if own in (old, other):
            found.extend(other)
        elif other == old:
            found.extend(own)
        else:
            return None
    return "".join(found)


def _line_by_line(own: Lines, base: Lines, wanted: Lines) -> Iterator[str]:
    for tag, first, last, start, end in _opcodes(base, wanted):
        yield from own[first:last] if tag == "equal" else wanted[start:end]


def _resolved(old: Lines, own: Lines, other: Lines) -> Iterator[str]:
    """Where the copy differs from the text and was changed as well, the change counts."""
    if other == old:
        yield from own
    elif len(own) == len(old):
        yield from _line_by_line(own, old, other)
    else:
        yield from other


def _around_comments(base: Lines, wanted: Lines) -> Iterator[str]:
    held: Lines = ()  # comments that the next addition goes before
    for tag, first, last, start, end in _opcodes(base, wanted):
        if tag == "insert":
            yield from wanted[start:end]
            continue
        yield from held
        held = ()
        if tag == "equal":
            count = _asides(base[first:last])
            yield from base[first : last - count]
            held = base[last - count : last]
        else:
            yield from wanted[start:end]
            yield from _left_behind(base[first:last])
    yield from held


def _left_behind(removed: Lines) -> Lines:
    """Return the comments at the end of what is removed that are about what follows it."""
    rest = removed[len(removed) - _asides(removed) :]
    depth = _depth(removed[0])
    about = next((index for index, line in enumerate(rest) if line.strip() and _depth(line) <= depth), None)
    return () if about is None else rest[about:]


def _asides(lines: Lines) -> int:
    count = 0
    while count < len(lines) and _ASIDE.fullmatch(lines[-1 - count]):
        count += 1
    return count


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _parts(base: Lines, ours: Lines, theirs: Lines) -> Iterator[tuple[Lines, Lines, Lines]]:
    """Cut three texts where all of them agree: parts of base, ours and theirs, in order (diff3)."""
    at = [0, 0, 0]
    for first, own, other, size in _common(base, ours, theirs):
        if at != [first, own, other]:
            yield base[at[0] : first], ours[at[1] : own], theirs[at[2] : other]
        if size:
            same = base[first : first + size]
            yield same, ours[own : own + size], theirs[other : other + size]
        at = [first + size, own + size, other + size]


def _common(base: Lines, ours: Lines, theirs: Lines) -> Iterator[tuple[int, int, int, int]]:
    """Return where a run of lines of the base stands in all three, and its length; the ends come last."""
    own, other = (_matcher(base, one).get_matching_blocks() for one in (ours, theirs))
    left = right = 0
    while left < len(own) and right < len(other):
        one, two = own[left], other[right]
        first, last = max(one.a, two.a), min(one.a + one.size, two.a + two.size)
        if first < last:
            yield first, one.b + first - one.a, two.b + first - two.a, last - first
        if one.a + one.size < two.a + two.size:
            left += 1
        else:
            right += 1
    yield len(base), len(ours), len(theirs), 0


def _opcodes(base: Lines, wanted: Lines) -> Sequence[tuple[str, int, int, int, int]]:
    return _matcher(base, wanted).get_opcodes()


def _matcher(base: Lines, other: Lines) -> difflib.SequenceMatcher[str]:
    return difflib.SequenceMatcher(None, base, other, autojunk=False)
