"""What the ways to answer a challenge have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

ChallengeType = Literal["http-01", "dns-01"]


@dataclass(frozen=True, slots=True)
class Challenge:
    """What one authorization asks for. None of it is secret: whoever looks at the server's request sees it."""

    domain: str
    """The name without ``*.``."""
    token: str
    key_authorization: str = field(repr=False)
    """What ``http-01`` answers with (RFC 8555, 8.1)."""
    txt_value: str = field(repr=False)
    """What ``dns-01`` puts into the TXT record ``_acme-challenge.<domain>`` (RFC 8555, 8.4)."""

    @property
    def record(self) -> str:
        """The name of that record, without a trailing dot."""
        return f"_acme-challenge.{self.domain}"


class Solver(Protocol):
    """Makes an answer visible to the ACME server, and takes it away again."""

    @property
    def type(self) -> ChallengeType:
        """Which challenge is answered."""
        ...

    async def present(self, challenge: Challenge) -> None:
        """Return once the server can see the answer. May be called again for the same challenge.

        Raises:
            Transient: what has to be reached for it is away.
            Rejected: a person must mend something first.
        """
        ...

    async def cleanup(self, challenge: Challenge) -> None:
        """Take the answer away, whether it was presented or not. Raises as :meth:`present` does."""
        ...
