"""The way of a commit on real parts, as a team sees it: git, ``serve``, Traefik, ``cloudlunacy status``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.status import STAGES
from tests.support.fleet import Installation, run_cli, served, start_files, web
from tests.support.traefik import Backend
from tests.support.waiting import wait_for

ROUTES = tuple(f"app-{number}" for number in range(10))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Installation, Backend]]:
    """One installation for tests that leave its branch as they found it: good, and moving forward."""
    with served(tmp_path_factory.mktemp("shared"), "web") as running:
        yield running


def test_the_good_is_live_and_each_refusal_is_explained(tmp_path: Path) -> None:
    """A good commit goes live; a broken object, a mass deletion and a force-push move nothing and say why."""
    with served(tmp_path, *ROUTES) as (one, backend):
        first = one.repo.tip()
        assert one.answers(ROUTES) == dict.fromkeys(ROUTES, 200)

        good = one.live({"routes/shop/new.yaml": web("new", backend.port)}, "Add new")
        assert list(good["stages"]) == list(STAGES)
        assert None not in good["stages"].values()
        assert sorted(good["stages"].values()) == list(good["stages"].values())
        expected = dict.fromkeys([*ROUTES, "new"], 200)
        assert one.answers(expected) == expected

        broken = web("app-0", backend.port).replace(b"vps-1", b"vsp-1").replace(b'"spec"', b'\n"spec"')
        mixed = one.push(
            {"routes/shop/app-0.yaml": broken, "routes/shop/other.yaml": web("other", backend.port)}, "Break and add"
        )
        assert one.status_wait(mixed)["reason"] == "Quarantined"
        told = one.cli("status", mixed)
        assert told.returncode == 0
        assert told.stdout.startswith(f"{mixed[:12]}  Converged  Quarantined  (generation 3)\n")
        problem = 'unknown-agent: backend names agent "vsp-1", which does not exist. Did you mean "vps-1"?'
        assert f"  routes/shop/app-0.yaml:2:49 {problem}\n" in told.stdout
        expected["other"] = 200
        assert one.answers(expected) == expected

        deletion = one.push({f"routes/shop/{name}.yaml": None for name in ROUTES[1:]}, "Delete nearly everything")
        held = one.status_wait(deletion)
        assert (held["state"], held["reason"], held["generation"]) == ("Held", "DeletionGuard", None)
        why = (
            "the plan deletes 9 of 15 objects (60 %), more than 30 % need a person; what is published stays in service."
        )
        told = one.cli("status", deletion, "--wait")
        assert told.returncode == 1
        assert held["approve"] == held["planChecksum"]
        assert f"  {why} If that is meant, approve the plan.\n" in told.stdout
        assert f"  To approve: cloudlunacy approve {held['approve']} --data {one.data}\n" in told.stdout
        assert one.answers(expected) == expected

        rewritten = one.push({"routes/shop/evil.yaml": web("evil", backend.port)}, "Rewrite", parent=first)
        held = one.status_wait(rewritten)
        assert (held["state"], held["reason"]) == ("Held", "HistoryRewritten")
        told = one.cli("status", rewritten)
        why = f"the branch was rewritten: {rewritten[:12]} does not descend from {mixed[:12]}, which is published."
        assert f"  {why} What is published stays in service." in told.stdout
        assert f"  To approve: cloudlunacy approve rewrite:{mixed}..{rewritten} --data {one.data}\n" in told.stdout
        assert one.answers([*expected, "evil"]) == {**expected, "evil": 404}

        one.repo.set_tip(deletion)  # the branch comes back
        assert one.status_wait(deletion, "Held")["reason"] == "DeletionGuard"
        told = one.cli("status", deletion)
        (command,) = (line for line in told.stdout.splitlines() if "To approve: " in line)
        approved = run_cli(*shlex.split(command.partition("To approve: cloudlunacy ")[2]))
        assert approved.stdout.endswith(" as operator:local\n"), approved.stderr
        assert one.status_wait(deletion, "Converged")["generation"] == 4
        gone = dict.fromkeys(ROUTES[1:], 404)
        assert one.answers([*expected, *gone]) == {**expected, **gone}
        kinds = [event["type"] for event in one.ask("/events")["events"]]
        assert kinds.count("RevisionHeld") == 3
        assert "PlanApproved" in kinds


def test_an_approved_rewrite_goes_live(tmp_path: Path) -> None:
    """Approving the step from one history to another lets in that step and no other."""
    with served(tmp_path, "web", "old") as (one, _):
        published = one.repo.tip()
        first = one.repo.commit_on_nothing({**_files(one), "routes/shop/old.yaml": None, "note.txt": "1"})
        assert one.status_wait(first)["reason"] == "HistoryRewritten"
        refused = one.post("/approvals", {"checksum": f"rewrite:{published}..{'0' * 40}"})
        assert (refused.status_code, refused.json()["type"]) == (409, "urn:cloudlunacy:problem:nothing-waits")
        assert refused.json()["hint"] == f"What waits now is rewrite:{published}..{first}."
        other = one.repo.commit({"note.txt": "2"})
        assert one.status_wait(other)["reason"] == "HistoryRewritten"
        assert one.answers(["web", "old"]) == {"web": 200, "old": 200}
        for _ in range(2):  # the second time changes nothing
            assert one.post("/approvals", {"checksum": f"rewrite:{published}..{other}"}).status_code == 201
        assert one.status_wait(other, "Converged")
        assert one.post("/approvals", {"checksum": f"rewrite:{published}..{other}"}).status_code == 201
        assert [event["type"] for event in one.ask("/events")["events"]].count("PlanApproved") == 1
        assert one.answers(["web", "old"]) == {"web": 200, "old": 404}
        assert one.status_wait(first, "Superseded")["supersededBy"] == other


def test_a_stale_approval_lets_nothing_through(tmp_path: Path) -> None:
    """An approval is for one plan: one further commit on top of it needs another."""
    with served(tmp_path, *ROUTES) as (one, _):
        held = one.status_wait(one.push({f"routes/shop/{name}.yaml": None for name in ROUTES[:6]}, "Delete six"))
        more = one.push({f"routes/shop/{name}.yaml": None for name in ROUTES[6:8]}, "Delete two more")
        assert one.status_wait(more)["reason"] == "DeletionGuard"
        polls, found = one.polls(), one.status_wait(more)
        told = one.cli("approve", held["approve"])
        assert (told.returncode, told.stdout) == (1, "")
        why = f"nothing waits for the approval of {held['approve']}. What waits now is {found['approve']}."
        assert told.stderr == f"cloudlunacy: {why}\n"
        wait_for(lambda: one.polls() >= polls + 3, what="three more polls")
        assert one.status(more) == found
        assert one.get(ROUTES[0]).status_code == 200


def test_a_branch_that_comes_back_closes_what_was_held(tmp_path: Path) -> None:
    """When the branch returns to what is published, that is the newest again, and the abandoned commit says so."""
    with served(tmp_path, "web") as (one, backend):
        published = one.repo.tip()
        assert published is not None
        one.live({"routes/shop/two.yaml": web("two", backend.port)})
        tip = one.repo.tip()
        forced = one.push({"note.txt": "x"}, "Rewrite", parent=published)
        assert one.status_wait(forced)["reason"] == "HistoryRewritten"
        one.repo.set_tip(tip or "")
        wait_for(lambda: one.ask("/revisions/newest")["revision"] == tip, what="the newest record")
        assert one.ask("/revisions/newest")["state"] == "Converged"
        abandoned = one.status_wait(forced, "Superseded")
        assert (abandoned["reason"], abandoned["supersededBy"]) == ("NotOnBranch", "")
        assert "It was Held, HistoryRewritten: the branch was rewritten" in abandoned["message"]
        told = one.cli("status", forced, "--wait", "--timeout", "30")
        assert (told.returncode, told.stdout.split()[1]) == (1, "Superseded")


def test_commits_pushed_together_are_live_as_one(shared: tuple[Installation, Backend]) -> None:
    """A commit that nobody looked at by itself is answered for by the one that brought it into service."""
    one, backend = shared
    middle = one.repo.commit({"routes/shop/m.yaml": web("m", backend.port)}, branch="side", parent=one.repo.tip())
    last = one.repo.commit({"routes/shop/n.yaml": web("n", backend.port)}, branch="side")
    one.repo.set_tip(last)
    assert one.status_wait(last)["state"] == "Converged"
    found = one.status_wait(middle)
    assert (found["revision"], found["state"]) == (last, "Converged")
    assert one.answers(["m", "n"]) == {"m": 200, "n": 200}


def test_a_commit_without_objects_is_converged_at_once(shared: tuple[Installation, Backend]) -> None:
    """A commit that changes no object is adopted under the same generation, and Traefik's file is not touched."""
    one, _ = shared
    before, generation = one.published.stat(), one.ask("/status")["generation"]
    found = one.live({"README.md": "hello"})
    assert found["generation"] == generation
    assert (one.published.stat().st_mtime_ns, one.published.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    assert one.ask("/status")["revision"] == found["revision"]


def test_no_fleet_file_is_a_failure_and_moves_nothing(tmp_path: Path) -> None:
    """An empty tree and a missing fleet file are never read as a deletion."""
    with served(tmp_path, "web") as (one, backend):
        for path in ("fleet.yaml", "agents/vps-1.yaml", "agents/vps-2.yaml", "routes/shop/web.yaml"):
            gone = one.push({path: None}, f"Delete {path}")
        found = one.status_wait(gone)
        assert found["state"] in ("Held", "Failed")
        assert one.get("web").status_code == 200
        back = one.push(
            {**start_files("web", port=backend.port), "routes/shop/next.yaml": web("next", backend.port)},
            "Bring it back",
        )
        assert one.status_wait(back)["state"] == "Converged"
        assert one.answers(["web", "next"]) == {"web": 200, "next": 200}
        assert one.cli("status", gone).stdout.split()[1] == "Converged"


def test_the_rendered_static_configuration_starts_traefik(tmp_path: Path) -> None:
    """Traefik, started with what ``cloudlunacy render`` wrote, serves what the control plane publishes."""
    with served(tmp_path / "one", "web") as (one, _):
        assert one.front is not None
        checkout, out = tmp_path / "checkout", tmp_path / "out"
        for path, content in start_files("web").items():
            (checkout / path).parent.mkdir(parents=True, exist_ok=True)
            (checkout / path).write_bytes(content)  # type: ignore[arg-type]
        addresses = [f"{name}=127.0.0.1:{port}" for name, port in one.front.ports.items() if name != "traefik"]
        options = [part for address in addresses for part in ("--address", address)]
        api = f"127.0.0.1:{one.front.ports['traefik']}"
        rendered = run_cli("render", checkout, "--out", out, *options, "--api", api)
        assert rendered.returncode == 0, rendered.stderr
        one.front.stop()
        # the control plane's own file takes the place of the one that was rendered beside it
        static = (out / "traefik.yml").read_text().replace(str(out / "dynamic"), str(one.front.directory))
        one.front.static.write_text(static)
        one.front.start()
        wait_for(lambda: one.get("web").status_code == 200, what="the route after Traefik's start")
        assert one.live({"note.txt": "x"})


def test_a_template_error_fails_and_names_the_template(tmp_path: Path) -> None:
    """With a broken template a commit fails with the template's name, and what is published stays."""
    with served(tmp_path / "one", "web", entry=_program(tmp_path, BROKEN_TEMPLATE)) as (one, backend):
        found = one.status_wait(one.push({"routes/shop/next.yaml": web("next", backend.port)}))
        assert (found["state"], found["reason"]) == ("Failed", "RenderFailed"), found
        assert found["message"].startswith('http-router.yml.j2 cannot render http.routers "shop_next')
        assert one.answers(["web", "next"]) == {"web": 200, "next": 404}


def test_what_the_throwaway_traefik_refuses_is_quarantined(tmp_path: Path) -> None:
    """A route that compiles to what Traefik does not take is kept out by name; the others of the commit go live."""
    with served(tmp_path / "one", "web", entry=_program(tmp_path, BAD_COMPILE)) as (one, backend):
        found = one.status_wait(
            one.push({f"routes/shop/{name}.yaml": web(name, backend.port) for name in ("poison", "fine")})
        )
        assert (found["state"], found["reason"]) == ("Converged", "Quarantined")
        assert [(p["file"], p["code"]) for p in found["quarantined"]] == [
            ("routes/shop/poison.yaml", "refused-by-traefik")
        ]
        assert one.answers(["web", "fine", "poison"]) == {"web": 200, "fine": 200, "poison": 404}


def _files(one: Installation) -> dict[str, bytes | str | None]:
    return {path: one.repo.show(path) for path in one.repo.files() if path.endswith(".yaml")}


def _program(tmp_path: Path, source: str) -> list[str]:
    """The real program with something replaced before it starts."""
    entry = tmp_path / "entry.py"
    entry.write_text(f"import sys\n{source}\nfrom reconciler.__main__ import main\nsys.exit(main())\n")
    return [sys.executable, str(entry)]


BROKEN_TEMPLATE = """
import reconciler.app.building as app
load = app.load_templates
def load_templates():
    found = load()
    found["http-router.yml.j2"] = "{% if 'next' in name %}{{ nothing.here }}{% endif %}" + found["http-router.yml.j2"]
    return found
app.load_templates = load_templates
"""
BAD_COMPILE = """
import reconciler.steps.desire as desire, reconciler.steps.fronts as fronts
good = desire.compile_route
def compile_route(key, route, lookup):
    compiled = good(key, route, lookup)
    if key.name != "poison":
        return compiled
    bad = {"rule": "NoSuchMatcher(`x`)"}
    return tuple(one._replace(value={**one.value, **bad}) if one.section == "http.routers" else one for one in compiled)
desire.compile_route = fronts.compile_route = compile_route
"""
