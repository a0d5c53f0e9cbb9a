"""What the API answers to each kind of caller, to each question and to each mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from reconciler.steps.passing import Published
from reconciler.store.protocols import AgentObservation, Event
from schemas.api import FrontStatus
from schemas.plan import Plan
from schemas.problem import Problem
from schemas.session import ItemResult
from schemas.status import STAGES
from tests.support.documents import agent, fleet, route, settled, state_of
from tests.support.tokens import NOW
from tests.unit.web.asking import API, Asked, WaxControl, code, run

ONE, TWO = "1" * 40, "2" * 40
CHECKSUM: Final = f"sha256:{'a' * 64}"
REWRITE: Final = f"rewrite:{ONE}..{TWO}"
GENERATION: Final = 7
BROKEN, GOOD, NEW = "routes/shop/broken.yaml", "routes/shop/good.yaml", "routes/shop/new.yaml"


def published(**changed: bytes | None) -> Published:
    """A state with a good route, one whose newest version is broken, and one that was never good."""
    files = {
        "fleet.yaml": fleet(),
        "agents/vps-1.yaml": agent("vps-1"),
        "agents/vps-2.yaml": agent("vps-2", state="cordoned"),
        GOOD: route("good"),
        BROKEN: route("broken"),
    }
    state = settled(state_of(files), {BROKEN: b"a: [", NEW: b"b: ["}, ONE).state
    return Published(GENERATION, ONE, state, agents={"vps-1": (5, "d5")})


def problem(path: str) -> Problem:
    return Problem(file=path, code="yaml-syntax", message="unclosed bracket.")


# --- who may ask what -----------------------------------------------------------------------------------------------

READ = ["/status", "/revisions", "/revisions/newest", "/revisions/newest/plan", "/revisions/newest/convergence",
        "/objects", "/state", "/agents", "/secrets", "/events", "/events/7", f"/approvals/{CHECKSUM}",
        "/stream"]  # fmt: skip
CHANGE = ["/approvals", "/reconcile"]
CALLERS = ["nobody", "garbage", "expired", "enrol", "agent", "read", "admin"]


def credentials(one: Asked, caller: str, method: str, path: str) -> dict[str, str]:
    if caller == "nobody":
        return {}
    if caller == "garbage":
        return {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}
    if caller == "expired":
        return one.bearer("admin", made=one.now - 200)
    return one.agent(method, path) if caller == "agent" else one.bearer(caller)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("path", [*READ, *CHANGE])
def test_each_endpoint_asks_each_caller(tmp_path: Path, path: str, caller: str) -> None:
    """Without good credentials 401; with those for something else 403; reading needs read, changing needs admin."""
    method = "POST" if path in CHANGE else "GET"
    may = caller == "admin" or (caller == "read" and path in READ)

    async def scenario(one: Asked) -> None:
        headers = credentials(one, caller, method, f"{API}{path}")
        if may and path == "/stream":
            return  # it never ends; test_the_stream_… has it
        answer = await one.request(method, f"{API}{path}", headers=headers)
        if caller in ("nobody", "garbage", "expired"):
            assert answer.status_code == 401
            assert "www-authenticate" in answer.headers
            code(answer)
        elif not may:
            assert (answer.status_code, code(answer)) == (403, "insufficient-scope")
        else:
            assert answer.status_code not in (401, 403)
        assert one.control.told == (["wake"] if may and path == "/reconcile" else [])

    run(tmp_path, scenario)


def test_the_table_is_all_there_is(tmp_path: Path) -> None:
    """The matrix of callers covers every endpoint of the table."""

    async def scenario(one: Asked) -> None:
        table = (*one.api.endpoints(), *one.stream.endpoints())
        paths = {
            each.path.replace("{revision}", "newest").replace("{event}", "7").replace("{checksum}", CHECKSUM)
            .removeprefix(API) for each in table
        }  # fmt: skip
        assert paths == {*READ, *CHANGE}
        assert {each.scope for each in table} == {"read", "plan", "approve", "operate"}

    run(tmp_path, scenario)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/events", 405),
                                                        ("PUT", "/approvals", 405)])  # fmt: skip
def test_what_is_not_there_is_a_problem_too(tmp_path: Path, method: str, path: str, status: int) -> None:
    """Unknown paths and methods are answered like every other mistake."""

    async def scenario(one: Asked) -> None:
        answer = await one.request(method, f"{API}{path}", headers=one.bearer("admin"))
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")

    run(tmp_path, scenario)


def test_a_surprise_names_nothing(tmp_path: Path) -> None:
    """A bug is answered 500 without a word of what went wrong."""

    async def scenario(one: Asked) -> None:
        def fail() -> tuple[Problem, ...]:
            raise RuntimeError("the password is 4711")

        one.control.problems = fail  # type: ignore[method-assign]
        answer = await one.get("/status")
        assert (answer.status_code, code(answer)) == (500, "internal-error")
        assert "4711" not in answer.text

    run(tmp_path, scenario)


# --- what is published ----------------------------------------------------------------------------------------------


def test_the_fleet_is_counted(tmp_path: Path) -> None:
    """Generation, revision, objects of each kind, agents, fronts and the newest record; nothing is cached."""
    front = FrontStatus(name="front-1", file="/f", loaded_generation=GENERATION)
    control = WaxControl(published(), kept_out=(problem(BROKEN),), present=frozenset({"vps-1"}), front_states=(front,))

    async def scenario(one: Asked) -> None:
        one.tracker.begin(ONE)
        answer = await one.get("/status")
        said = answer.json()
        assert (said["generation"], said["revision"], said["newest"]["revision"]) == (GENERATION, ONE, ONE)
        assert said["publishedObjects"] == {"Fleet": 1, "Agent": 2, "Route": 2}
        assert (said["agentsConnected"], said["agentsTotal"]) == (1, 2)
        assert [each["file"] for each in said["quarantined"]] == [BROKEN]
        assert said["fronts"] == [
            {"name": "front-1", "file": "/f", "loadedGeneration": GENERATION, "mongodbPort": None, "message": ""}
        ]
        assert answer.headers["cache-control"] == "no-store"

    run(tmp_path, scenario, control)


def test_each_object_says_which_version_serves(tmp_path: Path) -> None:
    """In service, in its last good version, or not at all, with what is wrong; a stray file is listed by its path."""
    stray = "routes/shop/No Name.yaml"
    control = WaxControl(published(), kept_out=tuple(problem(path) for path in (BROKEN, NEW, stray)))

    async def scenario(one: Asked) -> None:
        found = {each["path"]: each for each in (await one.get("/objects")).json()["objects"]}
        states = {path: (each["state"], len(each["problems"]), bool(each["blob"])) for path, each in found.items()}
        assert states == {
            "agents/vps-1.yaml": ("InService", 0, True),
            "agents/vps-2.yaml": ("InService", 0, True),
            "fleet.yaml": ("InService", 0, True),
            GOOD: ("InService", 0, True),
            BROKEN: ("LastGood", 1, True),
            NEW: ("Quarantined", 1, False),
            stray: ("Quarantined", 1, False),
        }
        assert (found[GOOD]["kind"], found[GOOD]["team"], found[GOOD]["name"]) == ("Route", "shop", "good")
        assert (found[stray]["kind"], found[stray]["name"]) == ("", stray)

    run(tmp_path, scenario, control)


def test_pages_follow_each_other(tmp_path: Path) -> None:
    """``next`` leads from page to page through everything once, and is empty at the end."""

    async def scenario(one: Asked) -> None:
        for path, key, field in (("/objects", "objects", "path"), ("/agents", "agents", "name")):
            whole = [each[field] for each in (await one.get(path)).json()[key]]
            pages: list[str] = []
            after = ""
            while True:
                page = (await one.get(path, limit=2, after=after)).json()
                pages += [each[field] for each in page[key]]
                after = page["next"]
                if not after:
                    break
            assert pages == whole
            assert len(whole) >= 2

    run(tmp_path, scenario, WaxControl(published()))


@pytest.mark.parametrize("limit", ["x", "-1", "1.5", "1001", "9" * 400, "²", ""])
def test_a_limit_that_is_no_number_is_refused(tmp_path: Path, limit: str) -> None:
    """400, with what would be right."""

    async def scenario(one: Asked) -> None:
        for path in ("/objects", "/agents", "/revisions", "/events"):
            answer = await one.get(path, limit=limit)
            assert (answer.status_code, code(answer)) == (400, "bad-query")
            assert answer.json()["detail"] == "limit must be a whole number from 0 to 1000."

    run(tmp_path, scenario)


def test_the_state_holds_documents_as_they_were_written(tmp_path: Path) -> None:
    """Every object in service, last good versions included, without the defaults that nobody wrote."""

    async def scenario(one: Asked) -> None:
        said = (await one.get("/state")).json()
        assert (said["generation"], said["revision"]) == (GENERATION, ONE)
        found = {each["path"]: each["document"] for each in said["objects"]}
        assert sorted(found) == ["agents/vps-1.yaml", "agents/vps-2.yaml", "fleet.yaml", BROKEN, GOOD]
        assert found[GOOD] == json.loads(route("good"))

    run(tmp_path, scenario, WaxControl(published()))


def test_an_agent_is_shown_with_what_it_reports(tmp_path: Path) -> None:
    """Wanted and applied generation, items and metrics; of one that was never seen only what its file says."""
    item = ItemResult(id="Deployment/shop/web", state="Applied")
    seen = AgentObservation(
        "vps-1", True, NOW, 4, "d4", "1.2", "applied", "", [item.model_dump(mode="json")], {"load": 0.5}
    )
    control = WaxControl(published(), seen={"vps-1": seen}, present=frozenset({"vps-1"}))

    async def scenario(one: Asked) -> None:
        first, second = (await one.get("/agents")).json()["agents"]
        assert (first["name"], first["connected"], first["wantedGeneration"], first["appliedGeneration"]) == (
            ("vps-1", True, 5, 4)
        )
        assert (first["version"], first["metrics"], first["items"][0]["id"]) == ("1.2", {"load": 0.5}, item.id)
        assert (second["name"], second["state"], second["connected"], second["lastSeen"]) == (
            ("vps-2", "cordoned", False, None)
        )

    run(tmp_path, scenario, control)


# --- revisions ------------------------------------------------------------------------------------------------------


def test_a_revision_is_found_by_name_by_its_first_digits_and_as_the_newest(tmp_path: Path) -> None:
    """The same record in each case; the list has the newest first."""

    async def scenario(one: Asked) -> None:
        for moment, revision in enumerate((ONE, TWO)):
            one.tracker.begin(revision)
            one.tracker.note(revision, stages={"fetched": NOW + moment})
        for name, revision in ((ONE, ONE), (ONE[:7], ONE), ("newest", TWO)):
            assert (await one.get(f"/revisions/{name}")).json()["revision"] == revision
        listed = (await one.get("/revisions")).json()["revisions"]
        assert [each["revision"] for each in listed] == [TWO, ONE]
        assert list(listed[0]["stages"]) == list(STAGES)
        assert len((await one.get("/revisions", limit=1)).json()["revisions"]) == 1

    run(tmp_path, scenario)


def test_a_commit_that_nobody_looked_at_is_answered_for_by_the_one_that_holds_it(tmp_path: Path) -> None:
    """The record of the newer commit comes in its place."""

    async def scenario(one: Asked) -> None:
        one.tracker.begin(TWO)
        one.control.part_of[ONE] = TWO
        assert (await one.get(f"/revisions/{ONE}")).json()["revision"] == TWO

    run(tmp_path, scenario)


@pytest.mark.parametrize("name", ["newest", ONE, "abc", "main", "g" * 40, "1" * 65, "%2e%2e"])
def test_an_unknown_revision_is_not_found(tmp_path: Path, name: str) -> None:
    """404 with a hint, for its record and for its plan."""

    async def scenario(one: Asked) -> None:
        for path in (f"/revisions/{name}", f"/revisions/{name}/plan"):
            answer = await one.get(path)
            assert (answer.status_code, code(answer)) == (404, "unknown-revision")
            assert answer.json()["hint"]

    run(tmp_path, scenario)


def test_a_plan_is_that_of_its_revision(tmp_path: Path) -> None:
    """The plan where there is one; 404 for a revision that was not planned."""

    async def scenario(one: Asked) -> None:
        one.tracker.begin(ONE)
        answer = await one.get(f"/revisions/{ONE}/plan")
        assert (answer.status_code, code(answer)) == (404, "unknown-plan")
        one.control.plans[ONE] = Plan(base=TWO, revision=ONE, checksum=CHECKSUM)
        assert (await one.get(f"/revisions/{ONE[:8]}/plan")).json()["checksum"] == CHECKSUM

    run(tmp_path, scenario)


def test_the_timeline_is_read_from_where_one_was(tmp_path: Path) -> None:
    """After an id, of a subject, and no more than asked for."""

    async def scenario(one: Asked) -> None:
        for number in range(4):
            await one.store.append(Event(NOW, "AgentEnrolled", "info", f"agent/vps-{number % 2}", str(number)))
        everything = (await one.get("/events")).json()["events"]
        assert [each["message"] for each in everything] == ["0", "1", "2", "3"]
        rest = (await one.get("/events", after=everything[1]["id"], limit=1)).json()["events"]
        assert rest == everything[2:3]
        ours = (await one.get("/events", subject="agent/vps-1")).json()["events"]
        assert [each["message"] for each in ours] == ["1", "3"]

    run(tmp_path, scenario)
