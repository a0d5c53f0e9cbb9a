"""How an attempt to stay connected ended, in words, and how long to stay away after it. PURE."""

from __future__ import annotations

from typing import Final, NamedTuple

from agent.problems import detail_of
from schemas.session import CloseCode

REPLACED_PAUSE: Final = 30.0
"""Seconds to stay away after another machine with the same key connected, so that the two do not chase each other."""


class End(NamedTuple):
    """``at_least``: the least pause before the next attempt, in seconds."""

    why: str
    at_least: float = 0.0
    unwanted: bool = False
    """The control plane knows this agent and does not want it."""


def refused(status: int, retry_after: str, body: bytes) -> End:
    """Say what an answer other than 101 means; ``retry_after`` is the header, empty where there is none."""
    pause = min(float(retry_after), 3600.0) if retry_after.isascii() and retry_after.isdigit() else 0.0
    if status in (401, 403):
        why = f"the control plane does not let this agent in (HTTP {status})"
        return End(f"{why} {detail_of(body)}".rstrip(), pause, unwanted=True)
    return End(f"the control plane answered HTTP {status}", pause)


def closed(code: int | None, reason: str, pause: float) -> End:
    """Say what a close code means; ``pause`` is what the control plane asked for before."""
    match code:
        case CloseCode.REVOKED if reason == "Quarantined":
            why = "its file keeps this agent out (spec.state: quarantined); it need not enrol again"
            return End(why, pause, unwanted=True)
        case CloseCode.REVOKED:
            return End("this agent was revoked; enrol it again with a new token", pause, unwanted=True)
        case CloseCode.UNSUPPORTED:
            return End("the control plane speaks another version of the protocol", pause, unwanted=True)
        case CloseCode.REPLACED:
            why = "another connection with this agent's key took over; do two machines share it?"
            return End(why, max(pause, REPLACED_PAUSE))
        case _:
            return End(f"the connection was closed ({code} {reason})".replace(" )", ")"), pause)
