"""The errors that leave a module. Each type says who has to do something about it.

``Rejected``   a person must change the repository; trying again helps nobody.
``Transient``  something outside is away or slow; trying again later will help.
``Refused``    the caller of an API asked for something that it may not have, or asked wrongly.
``Broken``     this installation is wrong (a missing program, an unwritable directory); the operator must mend it.
``Misused``    a command was called with flags that make no sense.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from schemas.problem import Problem

NOTHING_MORE: Final[Mapping[str, object]] = {}


class CloudLunacyError(Exception):
    """Head of the tree. ``message`` says what and why, ``hint`` what to do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class Rejected(CloudLunacyError):
    """A revision cannot be used. ``reason`` is a CamelCase word for conditions; ``problems`` may be empty.

    ``approve`` is the checksum by which a person can let it in all the same, empty where nobody can.
    """

    def __init__(
        self, message: str, *, reason: str, problems: Sequence[Problem] = (), hint: str = "", approve: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.problems = tuple(problems)
        self.approve = approve


class Transient(CloudLunacyError):
    """Try again. ``retry_after`` is in seconds and the least to wait; None leaves it to the back-off."""

    def __init__(
        self, message: str, *, reason: str = "Unavailable", retry_after: float | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.retry_after = retry_after


class Refused(CloudLunacyError):
    """An answer of the API. ``status`` is the HTTP status, ``code`` ends the problem's type URI (RFC 9457).

    ``actor`` is who is known, and may not do it; it is for the audit and not told. ``more``: further members of the
    problem, as JSON.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str,
        hint: str = "",
        retry_after: float | None = None,
        actor: str = "",
        more: Mapping[str, object] = NOTHING_MORE,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.code = code
        self.retry_after = retry_after
        self.actor = actor
        self.more = more


class Broken(CloudLunacyError):
    """The installation is wrong. The command ends with exit code 1."""


class Misused(Broken):
    """A command was called wrongly. It ends with exit code 2, as for flags that argparse refuses."""
