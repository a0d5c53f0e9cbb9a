"""Pages of agents: what they show, what they say, and who may do what."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.api import AgentCondition
from schemas.observation import DeploymentUsage
from schemas.session import Report
from tests.support.documents import fleet
from tests.support.fleet_pages import FILES, FleetPages, notice, observed, run
from tests.support.tokens import NOW
from tests.unit.web.asking import WaxControl

WHEN = datetime.fromtimestamp(NOW - 60, UTC)
TRUE = tuple(
    AgentCondition(type=kind, status="True", reason="Connected", since=WHEN)
    for kind in ("Connected", "Workloads", "DataPlane")
)
METRICS = {
    "machine_cpu_ratio": 0.25, "machine_cpu_cores": 4.0, "machine_memory_total_bytes": 2.0**32,
    "machine_memory_available_bytes": 2.0**30, "machine_disk_total_bytes": 2.0**36, "machine_disk_free_bytes": 2.0**32,
}  # fmt: skip


def test_the_list_shows_agents_with_what_they_use(tmp_path: Path) -> None:
    """Name, labels, conditions, deployments as wanted, generation and bars: one line an agent."""

    async def scenario(pages: FleetPages) -> None:
        pages.control.seen = {"vps-1": observed(metrics=METRICS, applied_generation=4)}
        pages.control.present, pages.control.judged = frozenset({"vps-1"}), {"vps-1": TRUE}
        text = (await pages.get("/agents")).text
        assert "region=ams" in text
        assert "CPU: 25 % of 4 cores" in text
        assert "Disk: 60.0 GiB of 64.0 GiB (94 %)" in text
        assert "0 of 2" in text
        assert '<span class="behind">of 5</span>' in text

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("query", "shown"),
    [("", [1, 2, 3]), ("q=PS-2", [2]), ("q=192.0", [3]), ("label=region", [1, 2]), ("label=region=fra", [2]),
     ("state=cordoned", [2]), ("state=not+enrolled", [3]), ("presence=Unknown", [1, 2, 3]), ("presence=Silent", []),
     ("after=vps-1", [2, 3]), ("q=%3Cscript%3E", [])],
)  # fmt: skip
def test_the_list_can_be_filtered(tmp_path: Path, query: str, shown: list[int]) -> None:
    """By text, label, presence and state; where none is left the page says so."""

    async def scenario(pages: FleetPages) -> None:
        text = (await pages.get(f"/agents?{query}")).text
        assert [number for number in (1, 2, 3) if f'href="/agents/vps-{number}"' in text] == shown
        assert ("No agent is like that" in text) == (not shown)
        assert "<script>" not in text

    run(tmp_path, scenario)


def test_an_empty_fleet_says_what_to_do_next(tmp_path: Path) -> None:
    """Whoever may enrol is led there; others are told whom to ask."""

    async def scenario(pages: FleetPages) -> None:
        assert 'href="/agents/new"' in (await pages.get("/agents", "read", "enrol")).text
        text = (await pages.get("/agents", "read")).text
        assert "Ask somebody who may enrol agents." in text
        assert 'href="/agents/new"' not in text

    run(tmp_path, scenario, {"fleet.yaml": fleet()})


def test_an_agent_is_shown_with_what_it_said(tmp_path: Path) -> None:
    """Conditions, each item with reason and message, numbers, usage, charts, certificate and timeline."""

    async def scenario(pages: FleetPages) -> None:
        item = {"id": "Deployment/shop/web", "state": "Failed", "reason": "PullFailed", "message": "no such image"}
        pages.control.seen = {"vps-1": observed("vps-1", item, metrics=METRICS, outcome="failed", message="one failed")}
        pages.control.judged = {"vps-1": TRUE}
        pages.certificates["vps-1"] = (NOW + 3600, None)
        for number in range(30):
            pages.measures.heartbeat("vps-1", METRICS, NOW - 300 + 10 * number)
        pages.measures.usage("vps-1", [DeploymentUsage(team="shop", name="web", memory_bytes=2**20, pids=3)], NOW)
        answer = await pages.get("/agents/vps-1")
        text = answer.text
        for said in ("PullFailed", "no such image", "one failed", "75 %", "1.0 MiB", "Memory in use, of 4.0 GiB",
                     "not told", "Drain", "Cordon", "Type vps-1 to confirm"):  # fmt: skip
            assert said in text, said
        assert text.count('<path class="line line-0"') == 3
        assert "style=" not in text
        assert answer.headers["cache-control"] == "no-store"

    run(tmp_path, scenario)


def test_what_is_past_cannot_be_had_and_the_page_is_there_all_the_same(tmp_path: Path) -> None:
    """Without a history the page says so and shows the rest."""

    async def scenario(pages: FleetPages) -> None:
        await pages.history.close()
        text = (await pages.get("/agents/vps-1")).text
        assert "The history of what agents measure is not kept just now." in text

    run(tmp_path, scenario)


def test_an_unknown_agent_is_a_page_that_says_so(tmp_path: Path) -> None:
    """404, and what to do."""

    async def scenario(pages: FleetPages) -> None:
        answer = await pages.get("/agents/vps-9")
        assert (answer.status_code, "There is no such agent in service." in answer.text) == (404, True)

    run(tmp_path, scenario)


def test_draining_is_a_form(tmp_path: Path) -> None:
    """A time, a reason, and a sentence on the page that follows; then it can be ended."""

    async def scenario(pages: FleetPages) -> None:
        answer = await pages.post("/agents/vps-1/drain", {"lasting": "1h", "reason": "a new disk"}, "read", "operate")
        assert (answer.status_code, answer.headers["location"]) == (303, "/agents/vps-1")
        drained = pages.doings.drains["vps-1"]
        assert (drained.until, drained.reason, drained.by) == (NOW + 3600, "a new disk", "operator:ann")
        assert "vps-1 is drained" in notice(answer)
        wrong = await pages.post("/agents/vps-1/drain", {"lasting": "soon"})
        assert notice(wrong).startswith("Not done. The time or the reason is not valid.")
        assert "gets requests again" in notice(await pages.post("/agents/vps-1/undrain", {}))
        assert "was not drained" in notice(await pages.post("/agents/vps-1/undrain", {}))

    run(tmp_path, scenario)


def test_cordoning_is_a_commit(tmp_path: Path) -> None:
    """The sentence names it."""

    async def scenario(pages: FleetPages) -> None:
        answer = await pages.post("/agents/vps-1/cordon", {})
        assert notice(answer) == "vps-1 gets no new work: commit cccccccccc."
        await pages.post("/agents/vps-2/uncordon", {})
        assert pages.doings.cordoned == [("vps-1", True, "operator:ann"), ("vps-2", False, "operator:ann")]

    run(tmp_path, scenario)


def test_locking_out_needs_the_name_typed(tmp_path: Path) -> None:
    """A wrong name does nothing; the right one leads to the list."""

    async def scenario(pages: FleetPages) -> None:
        wrong = await pages.post("/agents/vps-1/revoke", {"confirm": "vps-2"})
        assert (wrong.headers["location"], pages.doings.revoked) == ("/agents/vps-1", [])
        assert notice(wrong) == "Not done. To lock it out, type its name, vps-1."
        right = await pages.post("/agents/vps-1/revoke", {"confirm": "vps-1", "keep": "quarantine", "reason": "stolen"})
        assert right.headers["location"] == "/agents"
        name, wanted, actor = pages.doings.revoked[0]
        assert (name, wanted.quarantine, wanted.reason, actor) == ("vps-1", True, "stolen", "operator:ann")

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("path", "scope"),
    [("drain", "operate"), ("undrain", "operate"), ("cordon", "write"), ("uncordon", "write"), ("revoke", "operate")],
)
def test_only_who_may_acts(tmp_path: Path, path: str, scope: str) -> None:
    """Without the scope 403 and nothing done; from another site's page 403 too; and the page shows no such button."""

    async def scenario(pages: FleetPages) -> None:
        others = {"read", "plan", "approve", "enrol", "operate", "exec", "write"} - {scope}
        answer = await pages.post(f"/agents/vps-1/{path}", {"confirm": "vps-1"}, *others)
        assert answer.status_code == 403
        foreign = await pages.post(f"/agents/vps-1/{path}", {"confirm": "vps-1"}, Origin="https://evil.example")
        assert foreign.status_code == 403
        assert pages.doings == type(pages.doings)()
        assert f"/agents/vps-1/{path}" not in (await pages.get("/agents/vps-1", "read")).text

    run(tmp_path, scenario)


HOSTILE = [
    "<script>window.owned=1</script>", '"><img src=x onerror=alert(1)>', "javascript:alert(1)", "{{7*7}}{% raw %}",
    "<svg/onload=alert(1)>", "\u202egnp.exe", "\x1b[31mred", "${7*7}", "' onmouseover='alert(1)",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_what_an_agent_says_stays_text(tmp_path: Path, text: str) -> None:
    """Version, message, items, names of metrics: nothing of it becomes markup, a link, a template or a direction."""
    said = Report.model_validate(
        {"sequence": 1, "generation": 1, "outcome": "failed", "message": text,
         "items": [{"id": f"Deployment/shop/{text}", "state": "Failed", "reason": text[:64], "message": text}]}
    )  # fmt: skip
    seen = observed(
        "vps-1", *(item.model_dump() for item in said.items), version=text[:64], message=said.message,
        metrics={text[:64]: 1.0}, outcome=text,
    )  # fmt: skip

    async def scenario(pages: FleetPages) -> None:
        for path in ("/agents", "/agents/vps-1"):
            page = (await pages.get(path)).text
            for mark in (
                "<script>window",
                "<img",
                "<svg/",
                'href="javascript',
                "\u202e",
                "\x1b",
                ">49<",
                "onmouseover='",
            ):
                assert mark not in page, (path, mark)

    run(tmp_path, scenario, FILES, WaxControl(seen={"vps-1": seen}, present=frozenset({"vps-1"})))
