"""Revisions as a browser gets them: records, plans, problems at their lines, approving, and taking back."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from reconciler.changes.service import Changes
from reconciler.desired.snapshot import File, Snapshot
from reconciler.errors import Refused, Transient
from reconciler.pki.authenticator import Identity
from reconciler.web.approving import Approving
from reconciler.web.pages.revision_views import QuotedLines
from reconciler.web.pages.revisions import PAGE, RevisionPages
from schemas.changes_api import (
    Change,
    ChangeAnswer,
    ChangeCheck,
    FileCommit,
    FileDiff,
    FileEdit,
    FileResult,
    RevisionDiff,
)
from schemas.plan import DataLoss, Plan, TrafficChange
from schemas.problem import Problem
from schemas.status import CommitSummary
from tests.support.tokens import NOW
from tests.unit.web.asking import WaxControl
from tests.unit.web.pages.visiting import Visit, text_of, visit

REVISION = "ab" * 20
SEEN = "5" * 40
CHECKSUM = "sha256:" + "c" * 64
ODD = "<img src=x onerror=alert(1)>"
PLAN = Plan(
    base="",
    revision=REVISION,
    checksum=CHECKSUM,
    traffic=(
        TrafficChange(host="shop.test", entry_point="websecure", action="changed", before="vps-1:80", after=ODD,
                      effects=("loses TLS",)),
    ),
    losses=(DataLoss(agent="vps-1", deployment="shop/db", data=("the database",)),),
)  # fmt: skip
PROBLEM = Problem(file="routes/shop/web.yaml", line=2, code="unknown-agent", message=ODD, hint="Name another.")


class WaxMirror:
    """Files of every revision; ``broken`` where the mirror is away."""

    def __init__(self, files: Mapping[str, bytes], *, broken: bool = False) -> None:
        self.files = files
        self.broken = broken

    async def entries(self, revision: str, paths: Sequence[str]) -> Snapshot:
        if self.broken:
            raise Transient("the mirror is away")
        return Snapshot(revision, {path: File("100644", path) for path in paths if path in self.files})

    async def read(self, blobs: Sequence[str], *, max_bytes: int = 65536) -> Mapping[str, object]:
        return {blob: self.files[blob] for blob in blobs}


class WaxChanges:
    """Knows one commit, and remembers who took it back."""

    def __init__(self) -> None:
        self.reverted: list[tuple[str, str]] = []
        self.bases: list[str] = []
        self.blocking: tuple[Problem, ...] = ()

    async def diff(self, revision: str) -> RevisionDiff:
        commit = FileCommit(revision=revision, author="ann", subject="x", time=datetime.fromtimestamp(NOW, UTC))
        patch = f"@@ -1 +1 @@\n-port: 1\n+port: {ODD}\n"
        files = (FileDiff(path="routes/shop/web.yaml", action="update", patch=patch, added=1, removed=1),)
        return RevisionDiff(revision=revision, commit=commit, files=files)

    async def reverting(self, revision: str, *, message: str = "", proposal: bool | None = None) -> Change:
        return Change(edits=(FileEdit(path="routes/shop/web.yaml", text="a"),), message=message, proposal=proposal)

    async def check(self, change: Change, _: Identity) -> ChangeCheck:
        files = tuple(FileResult(path=one.path, action="update") for one in change.edits)
        return ChangeCheck(base=SEEN, files=files, blocking=self.blocking, plan=PLAN)

    async def revert(self, revision: str, identity: Identity, *, base: str = "", key: str = "") -> ChangeAnswer:
        self.bases.append(base)
        self.reverted.append((revision, str(identity)))
        return ChangeAnswer(state="committed", revision="d" * 40, message="Take x back")


def run(
    data: Path, scenario: Any, *, mirror: WaxMirror | None = None, changes: WaxChanges | None = None, held: bool = False
) -> None:
    """``held``: the revision waits for approval."""
    control = WaxControl(plans={REVISION: PLAN})

    def parts(one: Visit) -> list[RevisionPages]:
        asked = one.asked
        approving = Approving(
            control=control, tracker=asked.tracker, approvals=asked.store, events=asked.store, clock=asked.clock
        )
        lines = QuotedLines(mirror or WaxMirror({}))
        return [
            RevisionPages(
                site=one.site, control=control, tracker=asked.tracker, approving=approving, lines=lines,
                changes=cast("Changes", changes) if changes is not None else None,
            )
        ]  # fmt: skip

    async def main(one: Visit) -> None:
        tracker = one.asked.tracker
        tracker.begin(REVISION)
        tracker.reach(REVISION, "fetched", "validated")
        tracker.note(REVISION, commit=CommitSummary(author="ann", subject=f"Move it {ODD}"), quarantined=(PROBLEM,))
        if held:
            tracker.stop(REVISION, "Held", "DeletionGuard", "it deletes much", approve=CHECKSUM)
        await scenario(one)

    visit(data, parts, main, control)


def test_a_revision_shows_what_it_does_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    """Traffic, losses, problems with the line's own text, the diff; all of it inert."""
    mirror = WaxMirror({"routes/shop/web.yaml": f"first\nagent: {ODD}\n".encode()})

    async def scenario(one: Visit) -> None:
        answer = await one.get(f"/revisions/{REVISION[:12]}", "read")
        said = text_of(answer)
        assert "Move it &lt;img" in said
        assert "shop.test websecure ◐ changed vps-1:80 &lt;img src=x onerror=alert(1)&gt; loses TLS" in said
        assert "Data is deleted." in said
        assert "routes/shop/web.yaml:2 unknown-agent agent: &lt;img src=x onerror=alert(1)&gt;" in said
        assert '<span class="add">+port: &lt;img' in answer.text
        assert "<img" not in answer.text
        assert "Roll back" not in said

    run(tmp_path, scenario, mirror=mirror, changes=WaxChanges())


def test_a_page_is_there_without_the_mirror(tmp_path: Path) -> None:
    """A problem is told without the text of its line."""

    async def scenario(one: Visit) -> None:
        assert "unknown-agent &lt;img" in text_of(await one.get(f"/revisions/{REVISION}", "read"))

    run(tmp_path, scenario, mirror=WaxMirror({}, broken=True))


async def _quoted(*problems: Problem) -> dict[tuple[str, int], str]:
    files = {"secrets/shop/db.yaml": b"sealed", "a.yaml": b"password: hunter2\nport: x"}
    return await QuotedLines(WaxMirror(files)).of(REVISION, problems)


async def _check_secrets() -> None:
    sealed = Problem(file="secrets/shop/db.yaml", code="unsealed", message="m")
    plain = Problem(file="a.yaml", line=1, code="plain-secret", message="m")
    same_line = Problem(file="a.yaml", line=1, code="unknown-field", message="m")
    beyond = Problem(file="a.yaml", line=99, code="unknown-field", message="m")
    port = Problem(file="a.yaml", line=2, code="wrong-type", message="m")
    assert await _quoted(sealed, plain, same_line, beyond, port) == {("a.yaml", 2): "port: x"}


def test_lines_with_secrets_are_not_quoted(tmp_path: Path) -> None:
    """Nor others that problems are about on the same line."""

    async def scenario(_: Visit) -> None:
        await _check_secrets()

    run(tmp_path, scenario)


def test_a_held_plan_is_approved_by_its_checksum(tmp_path: Path) -> None:
    """By who may; whoever may not sees what waits and no button."""

    async def scenario(one: Visit) -> None:
        path = f"/revisions/{REVISION}"
        viewer = await one.get(path, "read")
        assert CHECKSUM in viewer.text
        assert "Approve this plan" not in viewer.text
        assert (await one.post(f"{path}/approve", {"checksum": CHECKSUM}, "read")).status_code == 403
        assert (await one.post(f"{path}/approve", {"checksum": "sha256:" + "0" * 64})).status_code == 409
        assert f'<input type="hidden" name="checksum" value="{CHECKSUM}">' in (await one.get(path)).text
        answer = await one.post(f"{path}/approve", {"checksum": CHECKSUM})
        assert (answer.status_code, answer.headers["location"]) == (303, path)
        approval = await one.asked.store.approval(CHECKSUM)
        assert approval is not None
        assert approval.approved_by == "operator:ann"
        assert one.asked.control.told == ["reconsider"]

    run(tmp_path, scenario, held=True)


def test_taking_back_is_shown_before_it_is_done(tmp_path: Path) -> None:
    """And is done as the person who asks, who has to be allowed to write."""
    changes = WaxChanges()

    async def scenario(one: Visit) -> None:
        path = f"/revisions/{REVISION}/revert"
        assert (await one.get(path, "read")).status_code == 403
        assert (await one.post(path, {}, "read")).status_code == 403
        assert "shop.test websecure" in text_of(await one.get(path))
        assert changes.reverted == []
        assert f'name="base" value="{SEEN}"' in (await one.get(path)).text
        assert (await one.post(path, {"base": "--exec"})).status_code == 400
        answer = await one.post(path, {"base": SEEN})
        assert (answer.status_code, changes.reverted) == (303, [(REVISION, "operator:ann")])
        assert changes.bases == [SEEN]
        assert "Committed%20as%20dddddddddd" in answer.headers["set-cookie"]
        assert answer.headers["location"].startswith("/revisions/dddddddddd")
        changes.blocking = (PROBLEM,)
        refused = await one.get(path)
        assert "It cannot be taken back" in refused.text
        assert '<button type="submit" class="main">' not in refused.text

    run(tmp_path, scenario, changes=changes)


def test_records_are_listed_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newest first; what is asked for beyond is where the former page ended."""

    async def scenario(one: Visit) -> None:
        tracker = one.asked.tracker
        for number in range(PAGE + 3):
            name = f"{number:040x}"
            monkeypatch.setattr(tracker, "_clock", itertools.repeat(NOW + number).__next__)
            tracker.begin(name)
            tracker.reach(name, "fetched")
            tracker.note(name, commit=CommitSummary(author="ann", subject=f"Change {number}."))
        first = await one.get("/revisions", "read")
        assert f"Change {PAGE + 2}." in first.text
        assert "Change 2." not in first.text
        second = await one.get(f"/revisions?before={NOW + 3}", "read")
        assert "Change 2." in second.text
        assert "First page" in second.text
        assert (await one.get("/revisions?before=x", "read")).status_code == 400

    run(tmp_path, scenario)


def test_a_revision_that_nobody_looked_at(tmp_path: Path) -> None:
    """Is said to be none, or shown as part of what came after it."""

    async def scenario(one: Visit) -> None:
        for name in ("f" * 40, "HEAD", "newestt"):
            assert (await one.get(f"/revisions/{name}", "read")).status_code == 404
        one.asked.control.part_of["e" * 40] = REVISION
        assert "eeeeeeeeeeee by itself" in text_of(await one.get(f"/revisions/{'e' * 40}", "read"))

    run(tmp_path, scenario)


def test_a_change_that_is_refused_is_said_on_a_page(tmp_path: Path) -> None:
    """Such as one that was taken back before."""

    class Gone(WaxChanges):
        async def reverting(self, revision: str, *, message: str = "", proposal: bool | None = None) -> Change:
            raise Refused("It was taken back already.", status=409, code="nothing-to-revert")

    async def scenario(one: Visit) -> None:
        answer = await one.get(f"/revisions/{REVISION}/revert")
        assert (answer.status_code, "It was taken back already." in answer.text) == (409, True)

    run(tmp_path, scenario, changes=Gone())
