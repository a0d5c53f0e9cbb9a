"""A person's change becomes a commit in that person's name, or nothing at all."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler.changes.documents import set_agent_state, set_weights
from reconciler.changes.service import Proposed
from reconciler.errors import Broken, Refused
from reconciler.pki.authenticator import Identity
from schemas.changes_api import Change, FileEdit
from tests.support.git_repos import BareRepo, git
from tests.unit.changes.plane import (
    ADMIN,
    AGENT,
    FILES,
    FLEET,
    MEMBER,
    OPERATOR,
    ROUTE,
    ROUTE_PATH,
    VIEWER,
    Plane,
    on_a_remote,
    somebody,
)

MOVED = set_weights(ROUTE_PATH, ROUTE, {"vps-1:8081": 10, "vps-2:8081": 90})
OTHER = ROUTE.replace("name: web", "name: other").replace("web.example.com", "other.example.com")


def edit(path: str, text: str | None, *, expected: str | None = None, **fields: object) -> Change:
    one = FileEdit(path=path, text=text, expected=expected)
    return Change.model_validate({"edits": (one,), **fields})


def test_a_change_is_one_commit_by_the_person(tmp_path: Path) -> None:
    """Author, committer, subject and trailers say who asked for what; every other line of the file stays."""

    async def scenario(plane: Plane) -> None:
        before = plane.remote.tip()
        answer = await plane.changes.submit(edit(ROUTE_PATH, MOVED, message="Move it\n\nBecause."), OPERATOR)
        assert (answer.state, answer.revision, answer.files) == ("committed", plane.remote.tip(), (ROUTE_PATH,))
        said = git("-C", plane.remote.path, "log", "-1", "--format=%P|%an|%ae|%cn|%B", "main")
        assert said == (
            f"{before}|anna|anna@people.localhost|CloudLunacy|Move it\n\nBecause.\n\n"
            f"CloudLunacy-Request: {answer.id}\nCloudLunacy-Actor: person:anna\n"
        )
        assert plane.remote.show(ROUTE_PATH) + "\n" == MOVED
        assert await plane.store.own_commit(answer.revision) == (ROUTE_PATH,)
        assert await plane.changes.text(ROUTE_PATH) == MOVED, "who wrote it reads it at once"
        await plane.committer.wait(answer.id, 5)
        assert ("ChangeCommitted", "Route/shop/web", "person:anna") in await settled(plane)
        assert plane.woken

    on_a_remote(tmp_path, scenario)


async def settled(plane: Plane) -> list[tuple[str, str, str]]:
    """Wait until the timeline says what became of a change."""
    for _ in range(500):
        if found := await plane.events():
            return found
        await asyncio.sleep(0.02)
    return []


def test_several_files_are_one_commit(tmp_path: Path) -> None:
    """What belongs together comes together, and the subject says how much it is."""

    async def scenario(plane: Plane) -> None:
        cordoned = set_agent_state("agents/vps-2.yaml", FILES["agents/vps-2.yaml"], "cordoned")
        other = OTHER.replace("    - {agent: vps-2, port: 8081}\n", "")
        change = Change(
            edits=(
                FileEdit(path="routes/shop/other.yaml", text=other),
                FileEdit(path="agents/vps-2.yaml", text=cordoned),
            )
        )
        answer = await plane.changes.submit(change, OPERATOR)
        assert answer.message == "Change 2 objects, route shop/other first"
        names = git("-C", plane.remote.path, "show", "--format=", "--name-status", answer.revision)
        assert names == "M\tagents/vps-2.yaml\nA\troutes/shop/other.yaml"
        assert await plane.store.own_commit(answer.revision) == ("agents/vps-2.yaml", "routes/shop/other.yaml")

    on_a_remote(tmp_path, scenario)


def test_a_check_says_what_would_happen(tmp_path: Path) -> None:
    """Problems have their lines, the plan says what happens to traffic, and nothing is written."""

    async def scenario(plane: Plane) -> None:
        before = plane.remote.tip()
        check = await plane.changes.check(edit(ROUTE_PATH, MOVED), OPERATOR)
        assert not check.blocking
        assert check.plan is not None
        assert [one.fields for one in check.plan.changes] == [("spec.backends[0].weight", "spec.backends[1].weight")]
        assert (check.message, check.files[0].action, check.base) == ("Change route shop/web", "update", before)
        wrong = await plane.changes.check(edit(ROUTE_PATH, MOVED.replace("vps-2", "vps-9")), OPERATOR)
        assert [(one.line, one.code) for one in wrong.blocking] == [(12, "unknown-agent")]
        gone = await plane.changes.check(edit("agents/vps-2.yaml", None), OPERATOR)
        assert ("routes/shop/web.yaml", 12) in [(one.file, one.line) for one in gone.blocking]
        assert (await plane.changes.check(edit(ROUTE_PATH, ROUTE), OPERATOR)).empty
        assert plane.remote.tip() == before

    on_a_remote(tmp_path, scenario)


def test_nobody_keeps_everybody_busy_with_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks and changes of one person have each their rate; who else asks does not wait for them."""
    monkeypatch.setattr("reconciler.changes.service.CHECK_BURST", 2)
    monkeypatch.setattr("reconciler.changes.service.BURST", 1)
    other = replace(OPERATOR, name="somebody else")

    async def scenario(plane: Plane) -> None:
        for _ in range(2):
            await plane.changes.check(edit(ROUTE_PATH, MOVED), OPERATOR)
        with pytest.raises(Refused, match="You check changes too often") as looked:
            await plane.changes.check(edit(ROUTE_PATH, MOVED), OPERATOR)
        await plane.changes.check(edit(ROUTE_PATH, MOVED), other)
        await plane.changes.submit(edit(ROUTE_PATH, ROUTE), OPERATOR)
        with pytest.raises(Refused, match="You change objects too often") as changed:
            await plane.changes.submit(edit(ROUTE_PATH, ROUTE), OPERATOR)
        assert [one.value.status for one in (looked, changed)] == [429, 429]
        assert looked.value.retry_after

    on_a_remote(tmp_path, scenario)


def test_a_change_with_problems_is_refused(tmp_path: Path) -> None:
    """As CI would: with every problem; a file of secrets holds nothing but what is sealed."""
    plain = "apiVersion: cloudlunacy/v1\nkind: Secret\nmetadata:\n  name: db\nspec:\n  sealed: {password: hunter2}\n"
    key = "  headers:\n    - {name: X-Token, value: ghp_0123456789012345678901234567890123456789}\n"

    async def scenario(plane: Plane) -> None:
        before = plane.remote.tip()
        for path, text in (
            (ROUTE_PATH, "apiVersion: ["),
            (ROUTE_PATH, ROUTE.replace("type: http", "type: ftp")),
            ("secrets/shop/db.yaml", plain),
            (ROUTE_PATH, ROUTE + key),
        ):
            with pytest.raises(Refused) as refused:
                await plane.changes.submit(edit(path, text), OPERATOR)
            assert (refused.value.status, refused.value.code) == (422, "change-refused")
            problems = refused.value.more["problems"]
            assert problems
            assert "hunter2" not in json.dumps(problems) + str(refused.value)
        assert plane.remote.tip() == before
        meant = edit(ROUTE_PATH, ROUTE + key, accept_plain=True)
        assert (await plane.changes.submit(meant, OPERATOR)).state == "committed"

    on_a_remote(tmp_path, scenario)


def test_what_was_wrong_before_stops_nobody(tmp_path: Path) -> None:
    """A broken file elsewhere is not this person's, and one can be mended in steps."""
    broken = ROUTE.replace("name: web", "name: broken").replace("type: http", "type: ftp")
    files = {**FILES, "routes/shop/broken.yaml": broken}

    async def scenario(plane: Plane) -> None:
        assert (await plane.changes.submit(edit(ROUTE_PATH, MOVED), OPERATOR)).state == "committed"
        better = edit("routes/shop/broken.yaml", broken.replace("The shop window", "Broken"))
        answer = await plane.changes.submit(better, OPERATOR)
        assert answer.state == "committed"
        assert [one.severity for one in answer.problems] == ["error"]

    on_a_remote(tmp_path, scenario, files=files)


@pytest.mark.parametrize(
    ("who", "path", "code"),
    [
        (VIEWER, ROUTE_PATH, "insufficient-scope"),
        (MEMBER, "routes/rival/web.yaml", "insufficient-scope"),
        (MEMBER, "agents/vps-1.yaml", "insufficient-scope"),
        (MEMBER, "fleet.yaml", "insufficient-scope"),
        (OPERATOR, "fleet.yaml", "insufficient-scope"),
        (somebody("write", team="shop"), "routes/rival/web.yaml", "other-team"),
        (somebody("write", team="shop"), "agents/vps-1.yaml", "other-team"),
        (ADMIN, "README.md", "not-an-object"),
        (ADMIN, "routes/shop/sub/web.yaml", "not-an-object"),
        (ADMIN, "routes/shop/../rival/web.yaml", "not-an-object"),
        (ADMIN, ".github/workflows/ci.yaml", "not-an-object"),
        (ADMIN, "agents/con.yaml", "not-an-object"),
    ],
)
def test_foreign_paths(tmp_path: Path, who: Identity, path: str, code: str) -> None:
    """Nobody writes what is not theirs, alone or beside what is; nobody writes what is no object."""

    async def scenario(plane: Plane) -> None:
        mine = FileEdit(path=ROUTE_PATH, text=MOVED)
        edits = (mine,) if path == ROUTE_PATH else (mine, FileEdit(path=path, text=OTHER))
        with pytest.raises(Refused) as refused:
            await plane.changes.submit(Change(edits=edits), who)
        assert refused.value.code == code
        assert plane.remote.log() == ["Start"]

    on_a_remote(tmp_path, scenario)


def test_letting_an_agent_in_needs_enrolling(tmp_path: Path) -> None:
    """The key of an agent is written by who may make enrolment tokens, and by nobody else."""
    known = AGENT.format(name="vps-1", number=1) + f"  identity:\n    thumbprint: {'A' * 43}\n"
    writer = somebody("read", "write")

    async def scenario(plane: Plane) -> None:
        with pytest.raises(Refused) as refused:
            await plane.changes.submit(edit("agents/vps-1.yaml", known), writer)
        assert refused.value.code == "insufficient-scope"
        assert (await plane.changes.submit(edit("agents/vps-1.yaml", known), OPERATOR)).state == "committed"
        await plane.look()
        elsewhere = known.replace("192.0.2.1", "192.0.2.7")
        assert (await plane.changes.submit(edit("agents/vps-1.yaml", elsewhere), writer)).state == "committed"

    on_a_remote(tmp_path, scenario)


def test_what_changed_since(tmp_path: Path) -> None:
    """Who saw an older version is told who changed it, by revision as by blob; a change elsewhere is no matter."""

    async def scenario(plane: Plane) -> None:
        seen = plane.remote.tip() or ""
        _, blob, _ = await plane.changes.version(ROUTE_PATH)
        plane.remote.commit({"routes/shop/other.yaml": OTHER}, message="Another")
        unrelated = edit(ROUTE_PATH, ROUTE.replace("window", "door"), base=seen, expected=blob)
        assert (await plane.changes.submit(unrelated, OPERATOR)).state == "committed"
        for stale in (edit(ROUTE_PATH, MOVED, base=seen), edit(ROUTE_PATH, MOVED, expected=blob)):
            with pytest.raises(Refused) as refused:
                await plane.changes.submit(stale, OPERATOR)
            assert (refused.value.status, refused.value.code) == (412, "changed-since")
            assert "Change route shop/web" in str(refused.value)
            assert '"actor": "person:anna"' in json.dumps(refused.value.more["changed"])
        with pytest.raises(Refused, match="was changed since"):
            await plane.changes.submit(edit(ROUTE_PATH, MOVED, expected=""), OPERATOR)

    on_a_remote(tmp_path, scenario)


def test_a_race_with_a_push(tmp_path: Path) -> None:
    """Who pushes between the check and the push wins; the change is answered conflicted, and nothing is lost."""

    async def scenario(plane: Plane) -> None:
        fresh = plane.mirror.head

        async def head() -> str:
            tip = await fresh()
            plane.remote.push_on_top({ROUTE_PATH: ROUTE.replace("window", "door")}, message="By hand")
            plane.mirror.head = fresh  # type: ignore[method-assign]
            return tip

        plane.mirror.head = head  # type: ignore[method-assign]
        answer = await plane.changes.submit(edit(ROUTE_PATH, MOVED), OPERATOR)
        assert answer.state == "conflicted"
        assert answer.message.startswith(f"{ROUTE_PATH} was changed on the branch")
        assert plane.remote.log() == ["By hand", "Start"]
        assert ("ChangeConflicted", "Route/shop/web", "person:anna") in await settled(plane)

    on_a_remote(tmp_path, scenario)


def test_accepted_is_kept(tmp_path: Path) -> None:
    """What was accepted before the process was killed is pushed by the next one, once, under the same key."""
    accepted: list[str] = []

    async def before(plane: Plane) -> None:
        answer = await plane.changes.submit(edit(ROUTE_PATH, MOVED), OPERATOR, key="k1")
        assert answer.state == "pending"
        again = await plane.changes.submit(edit(ROUTE_PATH, MOVED), OPERATOR, key="k1")
        assert again.id == answer.id
        accepted.append(answer.id)

    async def after(plane: Plane) -> None:
        one = await plane.committer.wait(accepted[0], 30)
        assert one is not None
        again = await plane.changes.submit(edit(ROUTE_PATH, MOVED), OPERATOR, key="k1")
        assert (again.state, again.revision) == ("committed", plane.remote.tip())
        assert plane.remote.log() == ["Change route shop/web", "Start"]
        assert (await plane.changes.standing(accepted[0])).state == "committed"

    on_a_remote(tmp_path, before, is_pushing=False, answer_seconds=0.01)
    on_a_remote(tmp_path, after, remote=BareRepo(tmp_path / "remote.git"))


def test_fleets_that_want_pull_requests(tmp_path: Path) -> None:
    """The change waits on a branch of its own; whoever opens pull requests is asked once, and may fail."""
    files = {**FILES, "fleet.yaml": f"{FLEET}  changes: {{mode: pull-request}}\n"}
    asked: list[Proposed] = []

    async def opens(proposed: Proposed) -> str:
        asked.append(proposed)
        return "https://forge.example/1"

    async def fails(_: Proposed) -> str:
        raise Broken("no forge today")

    async def scenario(plane: Plane) -> None:
        plane.changes.on_proposed = opens
        answer = await plane.changes.submit(edit(ROUTE_PATH, MOVED, message="Move: it!"), OPERATOR)
        assert (answer.state, answer.pull_request) == ("proposed", "https://forge.example/1")
        assert answer.branch.startswith("change/move-it-")
        assert plane.remote.log() == ["Start"]
        assert plane.remote.log(answer.branch) == ["Move: it!", "Start"]
        assert ("ChangeProposed", "Route/shop/web", "person:anna") in await settled(plane)
        (proposed,) = asked
        assert (proposed.branch, proposed.base, proposed.title) == (answer.branch, "main", "Move: it!")
        plane.changes.on_proposed = fails
        assert (await plane.changes.submit(edit(ROUTE_PATH, MOVED), OPERATOR)).pull_request == ""
        with pytest.raises(Refused) as refused:
            await plane.changes.submit(edit(ROUTE_PATH, MOVED, proposal=False), OPERATOR)
        assert refused.value.code == "pull-request-needed"

    on_a_remote(tmp_path, scenario, files=files)


def test_taking_a_revision_back(tmp_path: Path) -> None:
    """Its files become what they were; what was changed since elsewhere in them stays, in the same place stops it."""

    async def scenario(plane: Plane) -> None:
        first = plane.remote.tip() or ""
        moved = await plane.changes.submit(edit(ROUTE_PATH, MOVED), OPERATOR)
        plane.remote.commit({ROUTE_PATH: MOVED.replace("window", "door")}, message="A better word")
        await plane.look()
        change = await plane.changes.reverting(moved.revision[:12])
        check = await plane.changes.check(change, OPERATOR)
        assert not check.blocking
        assert [one.path for one in check.files] == [ROUTE_PATH]
        answer = await plane.changes.revert(moved.revision, OPERATOR)
        assert answer.message == 'Revert "Change route shop/web"'
        assert plane.remote.show(ROUTE_PATH) + "\n" == ROUTE.replace("window", "door")
        for revision, code in (
            (moved.revision, "nothing-to-revert"),
            (first, "first-commit"),
            ("0" * 40, "unknown-revision"),
            ("0123456", "unknown-revision"),
        ):
            with pytest.raises(Refused) as refused:
                await plane.changes.revert(revision, OPERATOR)
            assert refused.value.code == code
        back = await plane.changes.revert(answer.revision, OPERATOR)
        plane.remote.commit({ROUTE_PATH: MOVED.replace("weight: 10", "weight: 50")}, message="Half")
        await plane.look()
        with pytest.raises(Refused, match=r'changed since in the same place: .* "Half" by Committer'):
            await plane.changes.revert(back.revision, OPERATOR)

    on_a_remote(tmp_path, scenario)


def test_what_was_shown_is_what_is_taken_back(tmp_path: Path) -> None:
    """Whoever looked at what it would do, and comes after another change of the file, is asked to look again."""

    async def scenario(plane: Plane) -> None:
        moved = await plane.changes.submit(edit(ROUTE_PATH, MOVED), OPERATOR)
        await plane.look()
        plane.remote.commit({ROUTE_PATH: MOVED.replace("window", "door")}, message="A better word")
        await plane.look()
        with pytest.raises(Refused) as refused:
            await plane.changes.revert(moved.revision, OPERATOR, base=moved.revision)
        assert (refused.value.status, refused.value.code) == (412, "changed-since")
        answer = await plane.changes.revert(moved.revision, OPERATOR, base=plane.newest)
        assert answer.state == "committed"

    on_a_remote(tmp_path, scenario)


def test_taking_a_merge_back(tmp_path: Path) -> None:
    """A merge is taken back as what it brought to the branch; what is no object stays."""

    async def scenario(plane: Plane) -> None:
        base = plane.remote.tip() or ""
        side = plane.remote.commit(
            {"routes/shop/other.yaml": OTHER, "README.md": "Other.\n"}, branch="side", parent=base
        )
        tree = git("-C", plane.remote.path, "rev-parse", f"{side}^{{tree}}")
        identity = {
            f"GIT_{role}_{what}": value
            for role in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "M"), ("EMAIL", "m@x"))
        }
        merge = git(
            "-C", plane.remote.path, "commit-tree", tree, "-p", base, "-p", side, "-m", "Merge side", env=identity
        )
        plane.remote.set_tip(merge)
        await plane.look()
        answer = await plane.changes.revert(merge, OPERATOR)
        assert answer.files == ("routes/shop/other.yaml",)
        assert plane.remote.files() == sorted(FILES)
        assert plane.remote.show("README.md") == "Other."

    on_a_remote(tmp_path, scenario)


def test_history_and_diff(tmp_path: Path) -> None:
    """Who changed a file and how; what is no object is named and not shown."""

    async def scenario(plane: Plane) -> None:
        answer = await plane.changes.submit(edit(ROUTE_PATH, MOVED), OPERATOR)
        history = await plane.changes.history(ROUTE_PATH)
        assert [(one.author, one.actor, one.subject) for one in history] == [
            ("anna", "person:anna", "Change route shop/web"),
            ("Committer", "", "Start"),
        ]
        diff = await plane.changes.diff(answer.revision[:10])
        (file,) = diff.files
        assert (file.action, file.added, file.removed) == ("update", 2, 2)
        assert "+    - {agent: vps-1, port: 8081, weight: 10}\n" in file.patch
        start = await plane.changes.diff(history[1].revision)
        assert {one.path: one.truncated for one in start.files} == {path: path == "README.md" for path in FILES}
        assert {one.action for one in start.files} == {"create"}
        gone = await plane.changes.submit(edit(ROUTE_PATH, None), OPERATOR)
        assert [one.action for one in (await plane.changes.diff(gone.revision)).files] == ["delete"]
        assert await plane.changes.text(ROUTE_PATH) is None

    on_a_remote(tmp_path, scenario)


def test_links_and_programs_are_left_alone(tmp_path: Path) -> None:
    """Where git holds something else than a plain file, nothing is written."""

    async def scenario(plane: Plane) -> None:
        plane.remote.commit({ROUTE_PATH: "../../fleet.yaml"}, modes={ROUTE_PATH: "120000"}, message="A link")
        await plane.look()
        with pytest.raises(Refused) as refused:
            await plane.changes.submit(edit(ROUTE_PATH, MOVED), OPERATOR)
        assert refused.value.code == "not-a-regular-file"
        assert plane.remote.log() == ["A link", "Start"]

    on_a_remote(tmp_path, scenario)


def test_nothing_to_do(tmp_path: Path) -> None:
    """A change that changes nothing makes no commit; deleting what is not there neither."""

    async def scenario(plane: Plane) -> None:
        for one in (edit(ROUTE_PATH, ROUTE), edit("routes/shop/none.yaml", None)):
            assert (await plane.changes.submit(one, OPERATOR)).state == "nothing"
        assert plane.remote.log() == ["Start"]

    on_a_remote(tmp_path, scenario)


def test_the_fleet_file_of_a_fleet_with_signatures(tmp_path: Path) -> None:
    """What decides who has to sign is itself signed, or proposed; other files need no signature from here."""
    files = {**FILES, "fleet.yaml": f"{FLEET}  signatures: {{mode: head}}\n"}

    async def scenario(plane: Plane) -> None:
        with pytest.raises(Refused) as refused:
            await plane.changes.submit(edit("fleet.yaml", FLEET), ADMIN)
        assert refused.value.code == "signature-needed"
        assert (await plane.changes.submit(edit("fleet.yaml", FLEET, proposal=True), ADMIN)).state == "proposed"
        assert (await plane.changes.submit(edit(ROUTE_PATH, MOVED), ADMIN)).state == "committed"

    on_a_remote(tmp_path, scenario, files=files)
