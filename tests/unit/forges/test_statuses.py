"""What a convergence record says at a forge."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.forges.statuses import status_of
from schemas.problem import Problem
from schemas.status import RevisionStatus

REVISION = "a" * 40
CHECKSUM = "sha256:" + "0123456789abcdef" * 4
AT_THE_FRONT = "In service at the front; agents are applying it."
PROBLEM = Problem(file="routes/shop/web.yaml", code="unknown-agent", message="no such agent")


def record(state: str, reason: str = "", message: str = "", **more: Any) -> RevisionStatus:
    said = {"revision": REVISION, "state": state, "reason": reason, "message": message, "stages": {}, **more}
    return RevisionStatus.model_validate(said)


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (record("Progressing", "WaitingRendered"), "pending", "On its way into service."),
        (record("Progressing", "WaitingAgents", "waiting for vps-1"), "pending", AT_THE_FRONT),
        (record("Progressing", "Paused", "shop/web: paused"), "pending", "A roll-out is paused."),
        (record("Converged", "AllStagesReached"), "success", "In service everywhere."),
        (
            record("Converged", "Quarantined", quarantined=(PROBLEM,)),
            "success",
            "In service, but 1 problem: what they concern stays as it was.",
        ),
        (
            record("Held", "DeletionGuard", "too much", approve=CHECKSUM),
            "pending",
            "Waits for a person (DeletionGuard): cloudlunacy approve sha256:0123456789ab…",
        ),
        (record("Held", "Unsigned", "no signature"), "failure", "Held (Unsigned): no signature"),
        (record("Failed", "AgentFailed", "vps-1 could not"), "failure", "Failed (AgentFailed): vps-1 could not"),
        (
            record("Superseded", "NewerRevision", superseded_by="b" * 40),
            "cancelled",
            "Overtaken by bbbbbbbbbbbb, which has its changes.",
        ),
        (record("Superseded", "NotOnBranch"), "cancelled", "The branch does not have it any more."),
    ],
)  # fmt: skip
def test_each_state_has_its_words(found: RevisionStatus, state: str, words: str) -> None:
    """State and words follow from the record, and the link leads to its page."""
    status = status_of(found, "https://control.test/")
    assert (status.state, status.description) == (state, words)
    assert status.url == f"https://control.test/revisions/{REVISION}"


def test_the_words_of_a_moving_record_stand_still() -> None:
    """Agent after agent may apply it: nothing new is posted."""
    moving = [record("Progressing", "WaitingAgents", f"waiting for vps-{number}") for number in range(5)]
    assert len({status_of(one, "https://control.test") for one in moving}) == 1
