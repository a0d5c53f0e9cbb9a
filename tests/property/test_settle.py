"""What must hold for settling, whatever teams commit in whatever order: small fleets, few names, many conflicts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reconciler.desired.items import AgentItems
from reconciler.desired.news import FileNews
from reconciler.desired.parse import Parsed
from reconciler.desired.plan import make_plan
from reconciler.desired.restore import KeptOut, restore
from reconciler.desired.routing import compile_route
from reconciler.desired.settle import Settled, settle
from reconciler.desired.state import State
from schemas.objects import FLEET_KEY, FLEET_PATH, ObjectKey, key_of_path
from tests.support.documents import (
    DOMAIN,
    HTPASSWD,
    agent,
    blob_of,
    certificate,
    deployment,
    document,
    fleet,
    news_of,
    route,
    secret,
    team,
)

Files = dict[str, bytes]
Commit = Mapping[str, bytes | None]

BROKEN: Final = [b"a: [", b"", b"kind: Route\nkind: Route\n"]
HOSTS: Final = [f"{name}.app.{DOMAIN}" for name in ("a", "b", "*")]


def fleets() -> list[bytes]:
    grants: list[dict[str, Any]] = [{"agents": ["x", "y"]}, {"agents": ["x"]}, {"agentSelector": {"zone": "1"}}]
    found = []
    for one, other in itertools.product(grants, grants):
        for hosts in ([f"*.app.{DOMAIN}"], HOSTS[:1]):
            teams = [{**team("one", hostnames=hosts), **one}, {**team("two"), **other}]
            found.append(fleet(*teams))
    found.append(fleet({**team("one"), **grants[0]}))
    found.append(fleet({**team("one"), **grants[0]}, {**team("two"), **grants[0]}, entryPoints={"http": "other"}))
    found.append(fleet({**team("one"), **grants[0]}, entryPoints={"http": "websecure"}))
    found.append(fleet({**team("one"), **grants[0]}, {**team("two"), **grants[0]}, domain="example.org"))
    return found


def agents(name: str) -> list[bytes]:
    return [
        agent(name, labels=labels, address=address, capabilities=capabilities, **identity)
        for labels in ({"zone": "1"}, {})
        for address in ("10.0.0.1", "10.0.0.2")
        for capabilities in (["container", "mongodb"], ["mongodb"])
        for identity in ({}, {"identity": {"thumbprint": "k" * 43}})
    ]


def routes(name: str) -> list[bytes]:
    backends: list[dict[str, Any]] = [
        {"agent": "x", "port": 8081},
        {"agent": "y", "port": 8081},
        {"deployment": "d"},
    ]
    found = [route(name, host, backends=[backend]) for host in HOSTS for backend in backends]
    found += [route(name, *HOSTS[:2], backends=[backend]) for backend in backends]
    found += [route(name, HOSTS[0], paths=[{"prefix": "/p"}], backends=[backend]) for backend in backends]
    found += [document("Route", name, {"type": "mongodb", "backends": [backend]}) for backend in backends]
    password = [{"basicAuth": {"secret": {"name": "s", "key": "k"}}}]
    found.append(route(name, HOSTS[1], backends=backends[:1], middlewares=password))
    found.append(route("wrong-name", HOSTS[1]))
    redirect = [{"redirect": {"host": HOSTS[0], "scheme": "http"}}]
    found.append(route(name, HOSTS[0], backends=backends[:1], middlewares=redirect))  # does not compile
    return found


def deployments() -> list[bytes]:
    found = [deployment("d", *names, port=port) for names in (["x"], ["y"], ["x", "y"]) for port in (8081, 8082)]
    found += [deployment("d", agentSelector={"zone": "1"}, port=port) for port in (8081, 8082)]
    names = [HOSTS[0], f"x.mongodb.{DOMAIN}"]
    found += [deployment("d", "x", "y", tls={"dnsNames": listed}) for listed in ([], HOSTS[:1], HOSTS, names)]
    places = ("/etc/a", "/etc/a/b", "/etc/a.1/b")
    found += [deployment("d", name, port=8083, tls={"directory": one}) for name in "xy" for one in places]
    return [*found, deployment("d", agentSelector={"zone": "1"}, tls={"dnsNames": HOSTS[:1]})]


VARIANTS: Final[dict[str, list[bytes]]] = {
    FLEET_PATH: fleets(),
    **{f"agents/{name}.yaml": agents(name) for name in "xy"},
    **{f"routes/{owner}/{name}.yaml": routes(name) for owner in ("one", "two") for name in ("p", "q", "r")},
    **{f"deployments/{owner}/d.yaml": deployments() for owner in ("one", "two")},
    **{f"secrets/{owner}/s.yaml": [secret("s", "k"), secret("s", "other")] for owner in ("one", "two")},
    **{
        f"certificates/{name}.yaml": [
            certificate(name, HOSTS[0]),
            certificate(name, HOSTS[1], usedBy={"agents": ["x"]}),
        ]
        for name in "cd"
    },
    "routes/One/p.yaml": [b"misplaced"],
}
PATHS: Final = sorted(VARIANTS)


@st.composite
def commits(draw: st.DrawFn, paths: list[str] = PATHS, broken: bool = True) -> Commit:
    """A change of one to four files: written anew, broken or deleted."""
    chosen = draw(st.lists(st.sampled_from(paths), min_size=1, max_size=4, unique=True))
    extra = (*BROKEN, None, None) if broken else (None,)
    return {path: draw(st.sampled_from([*VARIANTS[path], *extra])) for path in chosen}


@st.composite
def trees(draw: st.DrawFn) -> Files:
    """A first revision: a fleet, and most of the other files."""
    tree = {FLEET_PATH: draw(st.sampled_from(fleets()[:6]))}
    for path in PATHS:
        if path != FLEET_PATH and draw(st.integers(0, 3)):
            tree[path] = draw(st.sampled_from(VARIANTS[path]))
    return tree


@cache
def news(path: str, content: bytes | None) -> FileNews:
    return news_of(path, content)


def step(base: State, change: Commit, revision: str = "r") -> Settled:
    everything = [news(path, content) for path, content in change.items()]
    return settle(base, revision, everything, compile_route=compile_route, open_sealed=lambda _: HTPASSWD)


def apply(files: Files, change: Commit) -> Files:
    return {path: content for path, content in {**files, **change}.items() if content is not None}


def compiled(state: State) -> dict[ObjectKey, object]:
    """What each route in service is for Traefik, computed on demand where the state was restored."""
    view = state.view(lambda _: HTPASSWD)
    return {
        key: state.compiled[key] if key in state.compiled else compile_route(key, one.object, view)  # type: ignore[arg-type]
        for key, one in state.served.items()
        if key.kind == "Route"
    }


def serving(state: State) -> dict[str, object]:
    """Everything that fronts and agents can see of a state, and what is said about it."""
    items = AgentItems(state)
    return {
        "served": {key: (one.object, one.retained, set(one.claims)) for key, one in state.served.items()},
        "compiled": compiled(state),
        "agents": {key.name: items.of(key.name) for key in state.served if key.kind == "Agent"},
        "selected": dict(state.selected),
        "findings": dict(state.findings),
        "pending": set(state.pending),
    }


def restored(state: State, files: Files) -> State:
    """Make a state again from what a publication keeps: the revision's files, and what is in service beside them."""
    good = [one for path, content in files.items() if isinstance(one := news(path, content), Parsed)]
    kept = []
    for path, findings in state.findings.items():
        key = key_of_path(path)
        served = state.served.get(key) if key is not None else None
        quarantined = any(finding.severity == "error" for finding in findings)
        newest = news(path, files[path]) if path in files else None
        kept.append(
            KeptOut(
                path,
                state.blobs[path],
                newest if isinstance(newest, Parsed) else None,
                findings,
                Parsed(path, served.blob, key, served.object) if served is not None and quarantined else None,
                state.compiled.get(key) if key is not None else None,
                served.claims if served is not None else None,
                state.selected.get(key) if key is not None else None,
            )
        )
    bad = set(state.quarantined)
    return restore(state.revision, [one for one in good if one.path not in bad], kept)


def consistent(state: State, files: Files) -> None:
    """Check what every state must be, whatever led to it."""
    claims = [claim for one in state.served.values() for claim in one.claims]
    for one, other in itertools.combinations(claims, 2):
        assert not one.conflicts(other), (one, other)
    assert set(state.objects) == set(state.served)
    assert {key for key in state.compiled if key not in state.served} == set()
    quarantined = set(state.quarantined)
    for path, content in files.items():
        key, what = key_of_path(path), news(path, content)
        served = state.served.get(key) if key is not None else None
        if path in quarantined:
            assert state.blobs[path] == blob_of(content)
            assert served is None or served.retained
        elif FLEET_KEY in state.served:
            assert isinstance(what, Parsed)
            assert served is not None
            assert (served.blob, served.object, served.retained) == (what.blob, what.object, False)
    assert {key.path for key in state.served} - {FLEET_PATH} <= set(files)
    assert {key.path for key in state.pending} <= quarantined or FLEET_KEY not in state.served
    assert set(state.findings) == set(state.blobs) <= {*files, FLEET_PATH}
    named = {(name, key) for key, served in state.served.items() for name in served.references}
    assert named == {(name, user) for name, users in state.referrers.items() for user in users}


SETTINGS: Final = settings(max_examples=40, suppress_health_check=list(HealthCheck))


@SETTINGS
@given(trees(), st.lists(commits(), max_size=6), st.data())
def test_a_restart_changes_nothing(tree: Files, changes: list[Commit], data: st.DataObject) -> None:
    """Settling on restored states serves, says and compiles the same as settling without a restart."""
    going, restarting = State(), State()
    files: Files = {}
    for number, change in enumerate([tree, *changes]):
        going = step(going, change, str(number)).state
        restarting = step(restarting, change, str(number)).state
        files = apply(files, change)
        if data.draw(st.booleans()):
            restarting = restored(restarting, files)
        assert serving(restarting) == serving(going)


@SETTINGS
@given(trees(), st.lists(commits(), max_size=6))
def test_every_state_is_consistent(tree: Files, changes: list[Commit]) -> None:
    """No two objects in service claim the same; each file is served at its newest, or quarantined with a finding."""
    state = State()
    files: Files = {}
    for change in [tree, *changes]:
        state = step(state, change).state
        files = apply(files, change)
        consistent(state, files)


@SETTINGS
@given(trees(), st.lists(commits(), max_size=4), st.data())
def test_settling_again_changes_nothing(tree: Files, changes: list[Commit], data: st.DataObject) -> None:
    """A commit that touches no object, and one that writes some of the same files again, touch nothing."""
    state = State()
    files: Files = {}
    for change in [tree, *changes]:
        state = step(state, change).state
        files = apply(files, change)
    before = serving(state)
    without_contests = {
        path: rest
        for path, found in state.findings.items()
        if (rest := tuple(f for f in found if f.code != "contested"))
    }
    for again in ({}, data.draw(st.sampled_from([files, dict(list(files.items())[::2])]))):
        same = step(state, again)
        assert same.touched == frozenset()
        assert {**before, "findings": without_contests} == serving(same.state)
        assert make_plan(state, same).empty


@SETTINGS
@given(trees(), st.lists(commits(), max_size=4), commits(), st.randoms(use_true_random=False))
def test_the_order_of_the_news_does_not_matter(tree: Files, changes: list[Commit], last: Commit, random: Any) -> None:
    """Files of one revision may come in any order."""
    state = step(State(), tree).state
    shuffled = list(tree.items())
    random.shuffle(shuffled)
    assert serving(step(State(), dict(shuffled)).state) == serving(state)
    for change in changes:
        state = step(state, change).state
    there, back = step(state, last), step(state, dict(list(last.items())[::-1]))
    assert serving(there.state) == serving(back.state)
    assert there.touched == back.touched


@SETTINGS
@given(trees(), st.lists(commits(), max_size=4), commits())
def test_the_plan_is_the_difference(tree: Files, changes: list[Commit], last: Commit) -> None:
    """The plan's changes lead from the objects before to those after; it is empty exactly when nothing is touched."""
    state = step(State(), tree).state
    for change in changes:
        state = step(state, change).state
    after = step(state, last)
    plan = make_plan(state, after)
    paths = {key.path for key in state.served}
    for one in plan.changes:
        assert (one.path in paths) == (one.action != "create")
        paths = paths - {one.path} if one.action == "delete" else paths | {one.path}
    assert paths == {key.path for key in after.state.served}
    assert plan.empty == (not after.touched)
    before_items, after_items = AgentItems(state), AgentItems(after.state)
    names = {key.name for key in {*state.served, *after.state.served} if key.kind == "Agent"}
    assert {one.name for one in plan.agents} == {
        name for name in names if before_items.of(name) != after_items.of(name)
    }
    old, new = compiled(state), compiled(after.state)
    assert {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)} <= after.touched


def foreign(path: str) -> bool:
    return "/two/" not in path


@SETTINGS
@given(trees(), st.lists(commits([path for path in PATHS if "/one/" in path]), min_size=1, max_size=4))
def test_a_bad_commit_of_one_team_changes_nothing_of_another(tree: Files, changes: list[Commit]) -> None:
    """Whatever team one commits, all that team two serves stays as it is, and nothing more of it is quarantined."""
    state = step(State(), tree).state
    for change in changes:
        before, state = state, step(state, change).state
        old, new = compiled(before), compiled(state)
        for key, one in before.served.items():
            if key.team != "one":
                assert state.served[key].object == one.object
                assert old.get(key) == new.get(key)
                assert state.served[key].retained <= one.retained


@SETTINGS
@given(trees(), st.lists(commits(), max_size=3), st.sampled_from(PATHS), st.sampled_from(BROKEN), commits())
def test_a_broken_file_keeps_its_last_good_version(
    tree: Files, changes: list[Commit], path: str, broken: bytes, meanwhile: Commit
) -> None:
    """What was served goes on, equal in its compiled form, through breaking its file and whatever happens besides."""
    state = State()
    files: Files = {}
    for change in [tree, *changes]:
        state = step(state, change).state
        files = apply(files, change)
    key = key_of_path(path)
    if key is None or key not in state.served:
        return
    good, was = state.served[key], compiled(state)
    state = restored(state, files)
    together = {**meanwhile, path: broken}
    state = step(state, together).state
    assert state.served[key].object == good.object
    assert state.served[key].retained
    assert compiled(state).get(key) == was.get(key)
    after = step(state, {other: content for other, content in meanwhile.items() if other != path}).state
    assert compiled(after).get(key) == was.get(key)


@SETTINGS
@given(trees(), st.lists(commits(), max_size=4))
def test_deleting_all_and_adding_it_again_converges(tree: Files, changes: list[Commit]) -> None:
    """After everything was deleted, a tree leads to the same state as on an empty start, whatever was before."""
    state = State()
    files: Files = {}
    for change in [tree, *changes]:
        state = step(state, change).state
        files = apply(files, change)
    gone = step(state, dict.fromkeys(path for path in files if path != FLEET_PATH)).state
    assert {key.kind for key in gone.served} == {"Fleet"}
    assert set(gone.findings) <= {FLEET_PATH}
    if FLEET_PATH not in files or files[FLEET_PATH] in BROKEN or gone.findings:
        return
    again = step(gone, files).state
    fresh = step(State(), files).state
    assert serving(again) == serving(fresh)
