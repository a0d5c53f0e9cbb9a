"""What the outbox keeps of a change, and the commit that becomes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.agents.group_commit import Settled
from reconciler.changes.committing import MAX_SUBJECT, Accepted, branch_of, compose_change, event_of, message_of
from reconciler.desired.edits import EditConflict

PATH = "routes/shop/web.yaml"


def accepted(*, proposal: bool = False) -> Accepted:
    return Accepted(
        id="change-1",
        files={PATH: b"new\n", "routes/shop/old.yaml": None},
        seen={PATH: b"old\n", "routes/shop/old.yaml": b"x"},
        subject="Move it",
        body="Because.",
        actor="person:anna",
        author=("Anna", "anna@example.com"),
        proposal=proposal,
        at=0.0,
    )


def test_the_commit_writes_what_was_checked_onto_what_was_seen() -> None:
    """Any other content at the tip stops the whole change; the wanted content is nothing to do."""
    request = compose_change(accepted().entry(), branch="main").request
    edit = request.edits[PATH]
    assert edit(b"old\n") == edit(b"new\n") == b"new\n"
    for other in (None, b"", b"older\n"):
        with pytest.raises(EditConflict, match="was changed on the branch"):
            edit(other)
    gone = request.edits["routes/shop/old.yaml"]
    assert gone(b"x") is gone(None) is None
    assert (request.author_name, request.by_person) == ("Anna", True)
    assert request.trailers == {"CloudLunacy-Actor": "person:anna"}


def test_a_proposal_goes_onto_a_branch_of_its_own() -> None:
    """It is made from the branch that it is to be merged into."""
    job = compose_change(accepted(proposal=True).entry(), branch="main")
    assert (job.branch, job.base, job.proposal) == (branch_of("Move it", "change-1"), "main", True)
    event = event_of(accepted(proposal=True).entry(), Settled("proposed", "a" * 40), 1.0, url="https://forge/1")
    assert (event.type, event.actor, event.subject) == ("ChangeProposed", "person:anna", "2 objects")
    assert event.message.endswith(f"on branch {job.branch}, https://forge/1.")


@given(st.text(), st.text(max_size=20))
def test_any_message_becomes_a_subject_of_one_line(text: str, otherwise: str) -> None:
    """Whatever a person writes, the subject is one short line and the branch a name that git takes."""
    subject, body = message_of(text, "Change it")
    assert subject
    assert len(subject) <= MAX_SUBJECT
    assert "\n" not in subject
    assert "\r" not in body
    name = branch_of(subject + otherwise, "id")
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-/")
