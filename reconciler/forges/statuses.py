"""What a convergence record says to people who look at the commit. PURE.

The words change only when the state does: a forge keeps every status that it was ever sent, and GitHub no more than
1,000 of a name for a commit.

Progressing   pending
Converged     success, also where problems are quarantined: the rest is in service, and the words name them
Held          pending where a person can approve it, else failure
Failed        failure
Superseded    cancelled: its changes are part of a later commit, or the branch does not have it any more
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from reconciler.forges.forge import CommitStatus, State
from schemas.status import RevisionStatus

SHORT: Final = 12
"""Digits of a revision, for people."""
_WAITING: Final = {
    "WaitingAgents": "In service at the front; agents are applying it.",
    "WaitingApplied": "In service at the front; agents are applying it.",
    "Paused": "A roll-out is paused.",
}


def status_of(revision: RevisionStatus, public_url: str) -> CommitStatus:
    """Return the status of a commit; its link leads to the page of the revision."""
    state, description = _said(revision)
    return CommitStatus(state, description, page_of(revision.revision, public_url))


def page_of(revision: str, public_url: str) -> str:
    """Return the URL of a revision's page."""
    return f"{public_url.rstrip('/')}/revisions/{quote(revision, safe='')}"


def _said(revision: RevisionStatus) -> tuple[State, str]:
    match revision.state:
        case "Converged":
            number = len(revision.quarantined)
            kept = f"In service, but {_count(number, 'problem')}: what they concern stays as it was."
            return "success", kept if number else "In service everywhere."
        case "Held" if revision.approve:
            return "pending", f"Waits for a person ({revision.reason}): cloudlunacy approve {_short(revision.approve)}"
        case "Held":
            return "failure", f"Held ({revision.reason}): {revision.message}"
        case "Failed":
            return "failure", f"Failed ({revision.reason}): {revision.message}"
        case "Superseded":
            newer = revision.superseded_by[:SHORT]
            text = f"Overtaken by {newer}, which has its changes." if newer else "The branch does not have it any more."
            return "cancelled", text
        case _:
            return "pending", _WAITING.get(revision.reason, "On its way into service.")


def _short(checksum: str) -> str:
    """Of an approval as much as tells it apart; the page has it in full, ready to be copied."""
    kind, colon, digest = checksum.partition(":")
    return f"{kind}{colon}{digest[:SHORT]}…" if len(digest) > SHORT else checksum


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
