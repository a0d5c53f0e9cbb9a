"""Lists of the API: pages that are stable while things come and go, filters, and answers that a caller has already."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.status import Tracker
from reconciler.steps.passing import Published
from reconciler.store.protocols import Event
from reconciler.web.queries import next_names
from schemas.problem import Problem
from tests.support.documents import agent, fleet, route, settled, state_of
from tests.support.tokens import NOW
from tests.unit.web.asking import Asked, WaxControl, code, run

SECRET = """apiVersion: cloudlunacy/v1
kind: Secret
metadata: {name: web}
spec:
  sealed:
    password: |
      -----BEGIN AGE ENCRYPTED FILE-----
      YWdlLWVuY3J5cHRpb24ub3JnL3YxCg==
      -----END AGE ENCRYPTED FILE-----
"""
FILES = {
    "fleet.yaml": fleet(),
    "agents/vps-1.yaml": agent("vps-1"),
    "agents/vps-2.yaml": agent("vps-2", state="cordoned"),
    "agents/vps-3.yaml": agent("vps-3"),
    "routes/shop/web.yaml": route("web"),
    "routes/shop/api.yaml": route("api"),
    "secrets/shop/web.yaml": SECRET.encode(),
}
NAMES = st.text("ab-1", min_size=1, max_size=3)


def plane() -> WaxControl:
    state = settled(state_of(FILES), {"routes/shop/broken.yaml": b"a: ["}, "1" * 40).state
    wrong = Problem(file="routes/shop/broken.yaml", code="yaml-syntax", message="unclosed bracket.")
    return WaxControl(published=Published(7, "1" * 40, state), kept_out=(wrong,), present=frozenset({"vps-1"}))


@given(
    st.sets(NAMES, max_size=12),
    st.lists(st.lists(st.tuples(st.booleans(), NAMES), max_size=4), max_size=12),
    st.integers(1, 3),
)
def test_paging_neither_doubles_nor_loses_what_stays(
    first: set[str], steps: list[list[tuple[bool, str]]], limit: int
) -> None:
    """Whatever comes and goes between two pages."""
    there, stayed, seen, after = set(first), set(first), list[str](), ""
    waiting = iter(steps)
    while True:
        page, after = next_names(sorted(there), after, limit)
        assert len(page) <= limit
        seen += page
        if not after:
            break
        for is_added, name in next(waiting, ()):
            (there.add if is_added else there.discard)(name)
            if not is_added:
                stayed.discard(name)
    assert seen == sorted(set(seen))
    assert stayed <= set(seen)


@given(st.sets(NAMES, max_size=12), st.integers(1, 3), st.sampled_from("ab-1"))
def test_a_filter_leaves_pages_whole(names: set[str], limit: int, letter: str) -> None:
    """Each page but the last is full, and together they are what is wanted."""
    found, after = list[str](), ""
    while True:
        page, after = next_names(sorted(names), after, limit, lambda name: letter in name)
        found += page
        if not after:
            break
        assert len(page) == limit
    assert found == [name for name in sorted(names) if letter in name]


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ({"kind": "Route"}, ["routes/shop/api.yaml", "routes/shop/broken.yaml", "routes/shop/web.yaml"]),
        ({"kind": ["Agent", "Fleet"], "limit": 2}, ["agents/vps-1.yaml", "agents/vps-2.yaml"]),
        ({"team": "shop", "state": "Quarantined"}, ["routes/shop/broken.yaml"]),
        ({"team": "other"}, []),
        ({"q": "WEB"}, ["routes/shop/web.yaml", "secrets/shop/web.yaml"]),
        ({"q": "web", "after": "fleet.yaml", "limit": 1}, ["routes/shop/web.yaml"]),
    ],
)
def test_objects_that_are_wanted(tmp_path: Path, query: dict[str, object], paths: list[str]) -> None:
    """By kind, team, state and words, all of them together."""

    async def scenario(one: Asked) -> None:
        answer = (await one.get("/objects", **query)).json()
        assert [each["path"] for each in answer["objects"]] == paths

    run(tmp_path, scenario, plane())


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"state": "cordoned"}, ["vps-2"]),
        ({"presence": "Connected"}, ["vps-1"]),
        ({"presence": ["Unknown", "Silent"]}, ["vps-2", "vps-3"]),
        ({"q": "PS-3"}, ["vps-3"]),
        ({"label": "zone"}, []),
        ({"condition": "Connected"}, ["vps-1", "vps-2", "vps-3"]),
        ({"condition": "Connected=True"}, []),
    ],
)
def test_agents_that_are_wanted(tmp_path: Path, query: dict[str, object], names: list[str]) -> None:
    """By what their files say, and by how they are."""

    async def scenario(one: Asked) -> None:
        answer = (await one.get("/agents", **query)).json()
        assert [each["name"] for each in answer["agents"]] == names

    run(tmp_path, scenario, plane())


def test_secrets_are_names_and_keys(tmp_path: Path) -> None:
    """Not even the sealed value is there."""

    async def scenario(one: Asked) -> None:
        answer = await one.get("/secrets")
        (secret,) = answer.json()["secrets"]
        assert (secret["path"], secret["keys"]) == ("secrets/shop/web.yaml", ["password"])
        assert "AGE" not in answer.text
        assert "YWdl" not in answer.text

    run(tmp_path, scenario, plane())


@pytest.mark.parametrize("path", ["/objects", "/state", "/secrets"])
def test_who_has_the_newest_is_told_so(tmp_path: Path, path: str) -> None:
    """304 without a body while nothing changed; all of it after the next publication."""

    async def scenario(one: Asked) -> None:
        first = await one.get(path)
        tag = first.headers["etag"]
        headers = one.bearer("read")
        for sent in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await one.request("GET", f"/api/v1{path}", headers={**headers, "If-None-Match": sent})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        state = settled(state_of({**FILES, "secrets/shop/web.yaml": None}), {}, "2" * 40).state
        one.control.published = Published(8, "2" * 40, state)
        later = await one.request("GET", f"/api/v1{path}", headers={**headers, "If-None-Match": tag})
        assert later.status_code == 200
        assert later.headers["etag"] != tag

    run(tmp_path, scenario, plane())


# --- revisions and events -------------------------------------------------------------------------------------------


def test_revisions_keep_their_places(tmp_path: Path) -> None:
    """What happens to one between two pages moves none, and a new one comes on a first page alone."""

    async def scenario(one: Asked) -> None:
        revisions = [f"{number}" * 40 for number in range(5)]
        for revision in revisions:
            one.tracker.begin(revision)
        first = (await one.get("/revisions", limit=2)).json()
        one.tracker.stop(revisions[0], "Failed", "Why", "it did")
        one.tracker.begin(revisions[1])
        one.tracker.begin("f" * 40)
        rest = (await one.get("/revisions", before=first["next"])).json()
        told = [each["revision"] for each in (*first["revisions"], *rest["revisions"])]
        assert told == revisions[::-1]
        assert rest["next"] == ""
        failed = (await one.get("/revisions", state="Failed")).json()["revisions"]
        assert [each["revision"] for each in failed] == revisions[:1]

    run(tmp_path, scenario)


def test_convergence_says_how_long_each_stage_took(tmp_path: Path) -> None:
    """In the order in which a revision reaches them; those that it has not reached are there without a time."""
    clock = iter(range(1000, 2000, 10))

    async def scenario(one: Asked) -> None:
        tracker = Tracker(one.store, lambda: float(next(clock)))
        tracker.begin("1" * 40)
        for stage in ("fetched", "validated"):
            tracker.reach("1" * 40, stage)
        await tracker.flush()
        answer = (await one.get(f"/revisions/{'1' * 40}/convergence")).json()
        assert [(each["stage"], each.get("seconds")) for each in answer["stages"]][:3] == [
            ("fetched", None), ("validated", 10.0), ("planned", None),
        ]  # fmt: skip

    run(tmp_path, scenario)


@settings(max_examples=10)
@given(more=st.lists(st.integers(0, 3), max_size=4))
def test_events_are_read_in_both_directions_while_more_happens(more: list[int]) -> None:
    """Newest first nothing comes twice; oldest first nothing is left out."""

    async def scenario(one: Asked) -> None:
        async def happen(count: int) -> None:
            for _ in range(count):
                await one.store.append(Event(NOW, "Type", "info", "agent/vps-1", "said"))

        await happen(5)
        backwards, forwards, waiting = list[int](), list[int](), iter(more)
        query: dict[str, object] = {"order": "newest", "limit": 2}
        while True:
            page = (await one.get("/events", **query)).json()
            backwards += [each["id"] for each in page["events"]]
            if not page["next"]:
                break
            query["before"] = page["next"]
            await happen(next(waiting, 0))
        assert backwards == list(range(max(backwards), max(backwards) - 5, -1))
        query = {"limit": 2}
        while True:
            page = (await one.get("/events", **query)).json()
            forwards += [each["id"] for each in page["events"]]
            if not page["next"]:
                break
            query["after"] = page["next"]
            await happen(next(waiting, 0))
        assert forwards == list(range(forwards[0], forwards[0] + len(forwards)))
        assert forwards[0] == backwards[-1]

    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), scenario)


def test_events_that_are_wanted(tmp_path: Path) -> None:
    """Each filter reaches the store; one event is found by its id."""

    async def scenario(one: Asked) -> None:
        first = Event(NOW - 7200, "AgentFailed", "error", "agent/vps-1", "pull refused", actor="agent:vps-1")
        kept = await one.store.append(first)
        await one.store.append(replace(first, time=NOW, severity="info", subject="Route/shop/web", actor="person:ann"))
        for query in (
            {"severity": "error"}, {"severity": ["error", "warning"]}, {"subject": "agent/vps-1"}, {"under": "agent/"},
            {"actor": "agent:vps-1"}, {"q": "REFUSED vps"}, {"until": "1h"}, {"type": "AgentFailed", "under": "agent"},
        ):  # fmt: skip
            assert [each["id"] for each in (await one.get("/events", **query)).json()["events"]] == [kept.id], query
        assert len((await one.get("/events", since="3h")).json()["events"]) == 2
        assert (await one.get(f"/events/{kept.id}")).json()["message"] == "pull refused"
        for path in (f"/events/{kept.id + 5}", "/events/0", "/events/x", "/events/99999999999999999999"):
            assert (await one.get(path)).status_code == 404
        for query in ({"since": "yesterday"}, {"since": "2030-13-01T00:00:00Z"}, {"q": "a b c d e f g h i"}):
            assert code(await one.get("/events", **query)) == "bad-query"

    run(tmp_path, scenario)
