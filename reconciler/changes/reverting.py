"""Taking a revision back: its files become what they were before it. Pure.

Where nothing was changed since, that is the former content. Where something was, the two changes are brought together
line by line; where both touched the same lines, nobody knows what is wanted, and a person has to say.
"""

from __future__ import annotations

from reconciler.changes.lines import merged


class Unclear(Exception):
    """The file was changed since in a way that does not go together with taking the revision back."""


def taken_back(before: bytes | None, after: bytes | None, now: bytes | None) -> bytes | None:
    """Return what a file becomes that a revision turned from ``before`` into ``after``; None: it is deleted.

    Raises:
        Unclear: what is there now is something else, and the changes do not go together.
    """
    if now == after:
        return before
    if now == before:
        return now
    if before is None or after is None or now is None:
        raise Unclear
    try:
        text = merged(after.decode(), now.decode(), before.decode())
    except UnicodeDecodeError:
        raise Unclear from None
    if text is None:
        raise Unclear
    return text.encode()
