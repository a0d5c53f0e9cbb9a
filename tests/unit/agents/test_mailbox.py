from __future__ import annotations

import pytest

from reconciler.agents.mailbox import Mailboxes
from reconciler.errors import Rejected
from tests.support.agent_hub import TestSigner, wanted

DAY = 86400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def mailboxes(clock: Clock | None = None) -> tuple[Mailboxes, TestSigner]:
    signer, clock = TestSigner(), clock or Clock()
    return Mailboxes(signer, clock, clock), signer


def test_only_new_content_is_a_change() -> None:
    """The same digest under a newer generation changes nothing for the agent, but is remembered."""
    boxes, _ = mailboxes()
    assert [boxes.put("a", wanted(1, "x")), boxes.put("a", wanted(2, "x")), boxes.put("a", wanted(3, "y"))] == [
        True,
        False,
        True,
    ]
    document = boxes.wanted("a")
    assert document is not None
    assert document.generation == 3


@pytest.mark.parametrize("generation", [1, 2])
def test_what_does_not_follow_is_left_out(generation: int) -> None:
    """An older generation, or the same with other content, never becomes the wanted one."""
    boxes, _ = mailboxes()
    boxes.put("a", wanted(2, "x"))
    assert not boxes.put("a", wanted(generation, "y"))
    assert boxes.wanted("a") == wanted(2, "x")
    assert boxes.counters.stale == 1


def test_a_document_is_signed_once() -> None:
    """Connections that come again get the same signature, until half of its life is over."""
    clock = Clock()
    boxes, signer = mailboxes(clock)
    document = wanted(1)
    boxes.put("a", document)
    first = boxes.jws("a", document)
    clock.now += 3 * DAY
    assert boxes.jws("a", document) == first
    clock.now += DAY
    assert boxes.jws("a", document) != first
    assert signer.signatures == boxes.counters.signed == 2


def test_the_signature_is_forgotten_once_applied() -> None:
    """Memory is given back when the agent has the document, and only then."""
    boxes, signer = mailboxes()
    document = wanted(1)
    boxes.put("a", document)
    boxes.jws("a", document)
    boxes.applied("a", wanted(2).digest)
    boxes.jws("a", document)
    assert signer.signatures == 1
    boxes.applied("a", document.digest)
    boxes.jws("a", document)
    assert signer.signatures == 2


def test_a_document_that_no_agent_would_take_is_not_made() -> None:
    """Its size is the operator's to mend, and the message says how."""
    boxes, _ = mailboxes()
    with pytest.raises(Rejected, match="more agents"):
        boxes.jws("a", wanted(1, "x" * 5_000_000))
