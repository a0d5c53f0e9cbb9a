"""What can be approved, once, by whom, and what is answered where nothing waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from schemas.plan import Plan
from tests.support.tokens import NOW
from tests.unit.web.asking import API, Asked, WaxControl, code, run

ONE, TWO = "1" * 40, "2" * 40
CHECKSUM: Final = f"sha256:{'a' * 64}"
REWRITE: Final = f"rewrite:{ONE}..{TWO}"


async def approvals(one: Asked) -> list[tuple[str, str]]:
    return [(each.message, each.actor) for each in await one.store.events() if each.type == "PlanApproved"]


@pytest.mark.parametrize("checksum", [CHECKSUM, REWRITE])
def test_what_waits_is_approved_once(tmp_path: Path, checksum: str) -> None:
    """201, kept, told in the timeline once, and the loop looks again; who comes second changes nothing."""

    async def scenario(one: Asked) -> None:
        one.tracker.begin(TWO)
        one.tracker.stop(TWO, "Held", "DeletionGuard", "too much", approve=checksum)
        answer = await one.post("/approvals", {"checksum": checksum})
        assert (answer.status_code, answer.json()) == (201, {"checksum": checksum, "approvedBy": "operator:ann"})
        stored = await one.store.approval(checksum)
        assert stored is not None
        assert (stored.approved_by, stored.approved_at) == ("operator:ann", NOW)
        assert one.control.told == ["reconsider"]
        one.tracker.stop(TWO, "Failed", "NoFleet", "it waits no more")
        assert (await one.post("/approvals", {"checksum": checksum})).status_code == 201
        assert await approvals(one) == [(f"operator:ann approved {checksum}", "operator:ann")]
        assert one.control.told == ["reconsider"]

    run(tmp_path, scenario)


def test_what_was_approved_and_held_again_is_tried_again(tmp_path: Path) -> None:
    """A front that refused what was approved may have been mended: the same approval makes the loop look again."""

    async def scenario(one: Asked) -> None:
        one.tracker.begin(ONE)
        one.tracker.note(ONE, plan=Plan(base="", revision=ONE, checksum=CHECKSUM))
        for _ in range(2):
            one.tracker.stop(ONE, "Held", "ReadBackFailed", "a front did not take it")
            assert (await one.post("/approvals", {"checksum": CHECKSUM})).status_code == 201
        assert one.control.told == ["reconsider", "reconsider"]
        assert len(await approvals(one)) == 1

    run(tmp_path, scenario)


def test_what_nothing_waits_for_is_refused(tmp_path: Path) -> None:
    """409, with what waits in its place; nothing is kept, so that no later commit finds it approved."""

    async def scenario(one: Asked) -> None:
        answer = await one.post("/approvals", {"checksum": CHECKSUM})
        assert (answer.status_code, code(answer)) == (409, "nothing-waits")
        assert answer.json()["hint"] == "The newest revision waits for no approval."
        one.tracker.begin(ONE)
        one.tracker.stop(ONE, "Held", "DeletionGuard", "too much", approve=CHECKSUM)
        one.tracker.begin(TWO)
        one.tracker.stop(TWO, "Held", "HistoryRewritten", "rewritten", approve=REWRITE)
        stale = await one.post("/approvals", {"checksum": CHECKSUM})
        assert (stale.status_code, stale.json()["hint"]) == (409, f"What waits now is {REWRITE}.")
        assert await one.store.approval(CHECKSUM) is None
        assert (one.control.told, await approvals(one)) == ([], [])

    run(tmp_path, scenario)


def test_before_the_first_look_nobody_knows_what_waits(tmp_path: Path) -> None:
    """503 with Retry-After while the remote was not reached since the start."""

    async def scenario(one: Asked) -> None:
        answer = await one.post("/approvals", {"checksum": CHECKSUM})
        assert (answer.status_code, code(answer), answer.headers["retry-after"]) == (503, "starting", "2")

    run(tmp_path, scenario, WaxControl(ready=False))


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b'{"checksum": null}', b'{"checksum": "sha256:12"}', b'{"checksum": "rewrite:a..b"}'),
        json.dumps({"checksum": CHECKSUM, "x": 1}).encode(),
    ],
)
def test_what_is_no_approval_is_refused(tmp_path: Path, body: bytes) -> None:
    """422, naming what is wrong with it and repeating none of it."""

    async def scenario(one: Asked) -> None:
        headers = {**one.bearer("admin"), "Content-Type": "application/json"}
        answer = await one.request("POST", f"{API}/approvals", headers=headers, content=body)
        assert (answer.status_code, code(answer)) == (422, "invalid-request")
        assert answer.json()["errors"]
        assert "pattern" not in str(answer.json()["errors"])
        assert one.control.told == []

    run(tmp_path, scenario)


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_an_approval_is_json(tmp_path: Path, media_type: str) -> None:
    """Another type of content is 415, as everywhere: a browser's plain form cannot approve."""

    async def scenario(one: Asked) -> None:
        body = json.dumps({"checksum": CHECKSUM})
        headers = {**one.bearer("admin"), "Content-Type": media_type}
        answer = await one.request("POST", f"{API}/approvals", content=body, headers=headers)
        assert (answer.status_code, code(answer)) == (415, "unsupported-media-type")

    run(tmp_path, scenario)
