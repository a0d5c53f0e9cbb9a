"""What ``status`` asks, and what it makes of a revision that another one overtook."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from reconciler.commands.client import target_words
from reconciler.commands.status_command import look
from reconciler.errors import Refused
from schemas.status import STAGES, RevisionState, RevisionStatus

ONE, TWO = "1" * 40, "2" * 40


class Answers:
    """A client of a control plane that knows these records."""

    def __init__(self, *records: RevisionStatus) -> None:
        self._records = {f"/revisions/{one.revision}": one for one in records}

    def read(self, _: object, path: str) -> RevisionStatus:
        if path not in self._records:
            raise Refused("this revision was not looked at.", status=404, code="unknown-revision")
        return self._records[path]


def record(revision: str, state: RevisionState, **more: str) -> RevisionStatus:
    return RevisionStatus(revision=revision, state=state, stages=dict.fromkeys(STAGES), **more)


def looked_up(*records: RevisionStatus) -> RevisionStatus | None:
    client: Any = Answers(*records)
    return look(client, ONE)


def test_a_revision_that_was_overtaken_is_what_the_newer_one_is() -> None:
    """Its changes are part of that one, so its state, its message and what is to be approved count."""
    overtaken = record(ONE, "Superseded", superseded_by=TWO)
    newer = record(TWO, "Held", reason="DeletionGuard", message="too much.", approve="sha256:1")
    found = looked_up(overtaken, newer)
    assert found is not None
    assert (found.revision, found.state, found.reason, found.approve) == (ONE, "Held", "DeletionGuard", "sha256:1")
    assert found.message == f"as part of {TWO[:12]}: too much."


@pytest.mark.parametrize("newer", [[], [record(TWO, "Progressing")]])
def test_until_the_newer_one_is_decided_it_is_superseded(newer: list[RevisionStatus]) -> None:
    """Nothing is said for the newer one before that."""
    overtaken = record(ONE, "Superseded", superseded_by=TWO)
    assert looked_up(overtaken, *newer) == overtaken


def test_a_revision_that_nobody_knows_is_none() -> None:
    """It may still come."""
    assert looked_up() is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"data": Path("data")}, "--data data"),
        ({"data": Path("my data")}, "--data 'my data'"),
        ({"server": "https://127.0.0.1:7300"}, "--server https://127.0.0.1:7300"),
        ({"server": "https://a.test", "ca_file": Path("my ca")}, "--server https://a.test --ca-file 'my ca'"),
        ({"server": "https://a.test", "ca_sha256": "ab:cd"}, "--server https://a.test --ca-sha256 ab:cd"),
    ],
)
def test_the_target_is_written_as_it_was_given(given: dict[str, Any], expected: str) -> None:
    """The words can be pasted into a shell."""
    absent = {"data": None, "server": None, "ca_file": None, "ca_sha256": None}
    assert target_words(argparse.Namespace(**{**absent, **given})) == expected
