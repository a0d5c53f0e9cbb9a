"""What became of a document, and how that is said within the size of a message. PURE."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from schemas.session import MAX_AGENT_MESSAGE, ItemResult, Report

_TEXT: Final = 2048
_SHORT: Final = 80


class Outcome(NamedTuple):
    """What became of a document. Generation 0 and no digest: it could not be told which one it was."""

    generation: int
    digest: str | None
    outcome: Literal["applied", "progressing", "failed", "refused"]
    reason: str = ""
    message: str = ""
    items: tuple[ItemResult, ...] = ()


def report_text(sequence: int, outcome: Outcome) -> str:
    """Write a report that fits into a message: in full, else only what is not applied, shortened, else no items."""
    text = ""
    for items in (outcome.items, _what_matters(outcome.items), ()):
        report = Report(
            sequence=sequence,
            generation=outcome.generation,
            digest=outcome.digest,
            outcome=outcome.outcome,
            reason=outcome.reason[:64],
            message=outcome.message[:_TEXT],
            items=items,
        )
        text = report.model_dump_json(by_alias=True)
        if len(text.encode()) <= MAX_AGENT_MESSAGE:
            break
    return text


def _what_matters(items: tuple[ItemResult, ...]) -> tuple[ItemResult, ...]:
    failed = [item for item in items if item.state != "Applied"]
    return tuple(item.model_copy(update={"message": item.message[:_SHORT]}) for item in failed[:500])
