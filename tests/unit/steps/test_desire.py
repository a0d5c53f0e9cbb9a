"""What a revision wants: files read once, every problem with its line, and a person where too much is deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reconciler.desired.finding import Finding
from reconciler.desired.snapshot import changes_between
from reconciler.errors import Rejected
from reconciler.steps import desire as desire_module
from reconciler.steps.desire import Desire
from reconciler.steps.passing import Pass, Published
from reconciler.steps.reading import DocumentReader
from schemas.objects import ObjectKey
from tests.support.documents import HTPASSWD, SEALED, agent, document, fleet, route, secret, team
from tests.support.memory_mirror import MemoryCache, MemoryMirror

WEB = "routes/shop/web.yaml"
START = {"fleet.yaml": fleet(), "agents/vps-1.yaml": agent("vps-1"), WEB: route("web")}
ROUTES = {f"routes/shop/r-{number}.yaml": route(f"r-{number}") for number in range(10)}


@dataclass
class Bench:
    """The step on a mirror in memory; ``opened`` are the sealed values that were opened."""

    folder: Path
    mirror: MemoryMirror = field(default_factory=MemoryMirror)
    cache: MemoryCache = field(default_factory=MemoryCache)
    approved: set[str] = field(default_factory=set)
    opened: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin as a new process does: nothing is in memory."""
        reader = DocumentReader(self.mirror, self.cache, self.folder / "parsing")
        self.desire = Desire(reader, self.open_sealed, self.is_approved)

    def open_sealed(self, armoured: str) -> str:
        self.opened.append(armoured)
        return HTPASSWD

    async def is_approved(self, checksum: str) -> bool:
        return checksum in self.approved

    async def judged(self, base: Published, refused: Iterable[tuple[ObjectKey, Finding]] = ()) -> Pass:
        """Take the newest commit through the step."""
        head = self.mirror.head
        before = self.mirror.files.get(base.revision, {})
        this = Pass(head, base, changes=changes_between(before, self.mirror.files[head]), refused=dict(refused))
        await self.desire.read(this)
        await self.desire.settle(this)
        await self.desire.plan(this)
        return this

    def take(self, base: Published | None = None, **more: Iterable[tuple[ObjectKey, Finding]]) -> Pass:
        return asyncio.run(self.judged(base or Published(), **more))

    def in_service(self) -> Published:
        """Take the newest commit, and say that it is in service."""
        this = self.take()
        return Published(1, this.revision, this.state)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_good_commit_is_planned(bench: Bench) -> None:
    """Every object in service, no problem, and a plan with a checksum that nobody has to approve."""
    bench.mirror.push({**START, "README.md": b"no object"})
    this = bench.take()
    assert sorted(key.path for key in this.state.served) == sorted(START)
    assert (this.problems, this.state.revision) == ((), bench.mirror.head)
    assert this.plan is not None
    assert this.plan.checksum.startswith("sha256:")
    assert (this.plan.guard, this.plan.problems) == (None, ())


def test_problems_have_the_line_of_what_is_wrong(bench: Bench) -> None:
    """Sorted by file and place, with the object's name; the plan carries the same."""
    broken = route("web").replace(b'"spec"', b'\n"spec"').replace(b"vps-1", b"vsp-1")
    bench.mirror.push({**START, WEB: broken, "routes/shop/a.yaml": b"a:\n  - [", "routes/shop/b.yml": b"c: 1"})
    this = bench.take()
    told = [(one.file, one.line, one.code, one.object) for one in this.problems]
    assert told == [
        ("routes/shop/a.yaml", 2, "yaml-syntax", "Route/shop/a"),
        ("routes/shop/b.yml", 1, "misplaced-file", ""),
        (WEB, 2, "unknown-agent", "Route/shop/web"),
    ]
    assert this.plan is not None
    assert this.plan.problems == this.problems


def test_what_was_located_is_not_read_again(bench: Bench) -> None:
    """A commit that leaves a broken file alone reads no blob of it, and its problem keeps the line."""
    bench.mirror.push({**START, WEB: b"\n\na: ["})
    base = bench.in_service()
    bench.mirror.asked.clear()
    bench.mirror.push({"routes/shop/other.yaml": route("other")})
    this = bench.take(base)
    assert [(one.file, one.line) for one in this.problems] == [(WEB, 3)]
    assert bench.mirror.asked == ["read 1", "read 0"]


def test_a_problem_that_is_mended_is_forgotten(bench: Bench) -> None:
    """And when the same mistake comes back it is found at its new line."""
    bench.mirror.push({**START, WEB: b"\na: ["})
    base = bench.in_service()
    bench.mirror.push({WEB: route("web")})
    this = bench.take(base)
    assert this.problems == ()
    bench.mirror.push({WEB: b"\n\n\na: ["})
    assert [one.line for one in bench.take(Published(2, this.revision, this.state)).problems] == [4]


def test_above_the_limit_a_problem_is_told_at_the_start_of_its_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finding lines is bounded; no problem is lost by that."""
    monkeypatch.setattr(desire_module, "MAX_LOCATED", 3)
    wrong = {path: content.replace(b'"spec"', b'\n"spec"').replace(b"vps-1", b"no") for path, content in ROUTES.items()}
    bench.mirror.push({**START, **wrong})
    lines = [one.line for one in bench.take().problems]
    assert (lines.count(2), lines.count(1)) == (3, len(ROUTES) - 3)


def test_a_start_reads_what_was_kept_and_not_git(bench: Bench) -> None:
    """After ``keep`` a new process takes documents from the cache; what is gone by then is not in it."""
    bench.mirror.push({**START, "routes/shop/old.yaml": route("old")})
    base = bench.in_service()
    bench.mirror.push({"routes/shop/old.yaml": None})
    bench.take(base)
    asyncio.run(bench.desire.keep())
    assert sorted(bench.cache.tree) == sorted(START)
    bench.start()
    bench.mirror.asked.clear()
    assert sorted(key.path for key in bench.take().state.served) == sorted(START)
    assert bench.mirror.asked == ["read 0"]


def test_what_traefik_refused_is_kept_out(bench: Bench) -> None:
    """The object that a throwaway Traefik named is quarantined with Traefik's words, and the rest goes on."""
    bench.mirror.push({**START, "routes/shop/other.yaml": route("other")})
    key = ObjectKey("Route", "shop", "web")
    this = bench.take(refused=[(key, Finding(WEB, "refused-by-traefik", "no such matcher"))])
    assert key not in this.state.served
    assert ObjectKey("Route", "shop", "other") in this.state.served
    assert [(one.file, one.code) for one in this.problems] == [(WEB, "refused-by-traefik")]


def test_sealed_values_are_opened_with_the_key_of_the_control_plane(bench: Bench) -> None:
    """A route that asks for passwords compiles from what its secret opens to."""
    auth = [{"basicAuth": {"secret": {"name": "users", "key": "htpasswd"}}}]
    bench.mirror.push(
        {**START, WEB: route("web", middlewares=auth), "secrets/shop/users.yaml": secret("users", "htpasswd")}
    )
    this = bench.take()
    assert set(bench.opened) == {SEALED}
    assert HTPASSWD in str(this.state.compiled[ObjectKey("Route", "shop", "web")])


# --- what is not let through ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"a: [", document("Fleet", "example", {"domain": 5})])
def test_without_a_fleet_nothing_can_be_judged(bench: Bench, content: bytes | None) -> None:
    """The first revision must have a valid fleet file: rejected with its problem as the hint, and never planned."""
    bench.mirror.push({**{path: text for path, text in START.items() if path != "fleet.yaml"}, "fleet.yaml": content})
    with pytest.raises(Rejected) as refused:
        bench.take()
    assert (refused.value.reason, refused.value.approve) == ("NoFleet", "")
    assert refused.value.hint.startswith("fleet.yaml:")
    assert "fleet.yaml" in {one.file for one in refused.value.problems}


def test_a_fleet_that_breaks_later_stays_in_force(bench: Bench) -> None:
    """What is in service is judged by the last good fleet file, and nobody loses a route."""
    bench.mirror.push(START)
    base = bench.in_service()
    bench.mirror.push({"fleet.yaml": b"a: ["})
    this = bench.take(base)
    assert sorted(key.path for key in this.state.served) == sorted(START)
    assert [one.file for one in this.problems] == ["fleet.yaml"]


def test_a_deletion_of_too_much_waits_for_a_person(bench: Bench) -> None:
    """Held with the checksum of exactly this plan, which is there to be looked at; approved, it passes."""
    bench.mirror.push({**START, **ROUTES})
    base = bench.in_service()
    bench.mirror.push(dict.fromkeys(list(ROUTES)[:6]))
    with pytest.raises(Rejected) as held:
        bench.take(base)
    assert held.value.reason == "DeletionGuard"
    assert "deletes 6 of 13 objects" in str(held.value)
    assert "cloudlunacy" not in str(held.value), "how it is called is known only to who calls it"
    bench.approved = {held.value.approve}
    this = bench.take(base)
    assert this.plan is not None
    assert (this.plan.checksum, len(this.plan.changes)) == (held.value.approve, 6)


def test_an_approval_is_for_one_plan(bench: Bench) -> None:
    """A further commit on top of the approved one waits for its own."""
    bench.mirror.push({**START, **ROUTES})
    base = bench.in_service()
    bench.mirror.push(dict.fromkeys(list(ROUTES)[:6]))
    with pytest.raises(Rejected) as first:
        bench.take(base)
    bench.approved = {first.value.approve}
    bench.mirror.push({"note.txt": b"nothing but another revision"})
    with pytest.raises(Rejected) as second:
        bench.take(base)
    assert second.value.approve != first.value.approve


def test_a_revoked_grant_is_told_with_what_it_leaves_in_service(bench: Bench) -> None:
    """The problem's hint and the plan say that the last good version goes on serving."""
    bench.mirror.push(START)
    base = bench.in_service()
    bench.mirror.push({"fleet.yaml": fleet(team("shop", agents=["vps-2"]))})
    this = bench.take(base)
    assert [one.code for one in this.problems] == ["agent-not-granted"]
    assert this.problems[0].hint.endswith(
        "until this file is mended or deleted, its last good version goes on serving."
    )
    assert this.plan is not None
    assert this.plan.revoked == (WEB,)
