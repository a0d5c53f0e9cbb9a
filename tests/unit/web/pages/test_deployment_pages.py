"""Pages of deployments, their logs, and databases."""

from __future__ import annotations

import asyncio
import html
from datetime import UTC, datetime
from pathlib import Path

import pytest

from reconciler.web.errands import Errand
from schemas.observation import DeploymentObservation, DeploymentUsage, ObservedPort
from schemas.rollout_api import RolloutOnAgent, RolloutStatus
from tests.support.documents import fleet
from tests.support.fleet_pages import FILES, ORDERS, WEB, FleetPages, notice, observed, run
from tests.support.tokens import NOW
from tests.unit.web.asking import WaxControl

RUNNING = {"id": "Deployment/shop/web", "state": "Applied", "reason": "Running", "message": ""}
FAILED = {"id": "Deployment/shop/orders", "state": "Failed", "reason": "PortTaken", "message": "27117 is taken"}


def there(pages: FleetPages) -> None:
    """vps-1 is connected; web runs there, and orders does not."""
    pages.control.present, pages.control.seen = frozenset({"vps-1"}), {"vps-1": observed("vps-1", RUNNING, FAILED)}
    pages.told["vps-1", WEB] = DeploymentObservation(
        team="shop", name="web", health="healthy", ports=(ObservedPort(declared=8081, actual=20001),)
    )


async def ended(pages: FleetPages, errand: Errand) -> None:
    async with asyncio.timeout(30):
        while errand.ended is None:
            await asyncio.sleep(0.01)


def test_the_list_shows_what_is_bad_and_why(tmp_path: Path) -> None:
    """State, agents as wanted, what it runs, and the words of the agent where it is bad."""

    async def scenario(pages: FleetPages) -> None:
        there(pages)
        text = (await pages.get("/deployments")).text
        assert "vps-1: PortTaken: 27117 is taken" in text
        assert "MongoDB 6.0" in text
        assert "1 of 1" in text

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("query", "shown"),
    [("", ["orders", "web"]), ("team=shop", ["orders", "web"]), ("team=analytics", []), ("q=WEB", ["web"]),
     ("agent=vps-1", ["orders", "web"]), ("agent=vps-2", []), ("q=mongodb", ["orders"]), ("state=Failed", ["orders"]),
     ("state=Healthy", ["web"]), ("after=shop%2Forders", ["web"])],
)  # fmt: skip
def test_the_list_can_be_filtered(tmp_path: Path, query: str, shown: list[str]) -> None:
    """By team, agent, state and text."""

    async def scenario(pages: FleetPages) -> None:
        there(pages)
        text = (await pages.get(f"/deployments?{query}")).text
        assert [name for name in ("orders", "web") if f'href="/deployments/shop/{name}"' in text] == shown

    run(tmp_path, scenario)


@pytest.mark.parametrize("path", ["/deployments", "/databases"])
def test_where_there_is_none_the_page_says_what_to_do(tmp_path: Path, path: str) -> None:
    """An empty list is an answer with a next step."""

    async def scenario(pages: FleetPages) -> None:
        text = (await pages.get(path)).text
        assert "state repo" in text or "is all that one takes" in text
        assert 'href="/objects/deployments/shop/' in text
        assert 'href="/objects/deployments/shop/' not in (await pages.get(path, "read")).text

    run(tmp_path, scenario, {"fleet.yaml": fleet()})


def test_a_deployment_is_shown_beside_what_runs(tmp_path: Path) -> None:
    """Health, ports, version, the routes that lead there, usage and roll-out."""

    async def scenario(pages: FleetPages) -> None:
        there(pages)
        pages.rollouts[WEB] = RolloutStatus(
            team="shop", name="web", state="Paused", version="sha256:" + "1" * 64, max_unavailable=1,
            paused_by="person:eve",
            agents=(RolloutOnAgent(agent="vps-1", place="waiting", version="sha256:" + "0" * 64,
                                   since=datetime.fromtimestamp(NOW, UTC)),),
        )  # fmt: skip
        for number in range(20):
            usage = DeploymentUsage(team="shop", name="web", memory_bytes=2**20, cpu_seconds=number)
            pages.measures.usage("vps-1", [usage], NOW - 300 + 10 * number)
        text = (await pages.get("/deployments/shop/web")).text
        for said in ("8081 → 20001", "older than wanted", "Paused by person:eve", "Resume",
                     "/objects/routes/shop/web.yaml", "Memory in use", "/deployments/shop/web/logs"):  # fmt: skip
            assert said in text, said
        assert (await pages.get("/deployments/shop/none")).status_code == 404

    run(tmp_path, scenario)


def test_roll_outs_are_paused_and_resumed(tmp_path: Path) -> None:
    """By a form each, in words."""

    async def scenario(pages: FleetPages) -> None:
        assert "is paused" in notice(await pages.post("/deployments/shop/web/pause", {}))
        assert "go on" in notice(await pages.post("/deployments/shop/web/resume", {}))
        assert pages.doings.paused == [("pause", WEB), ("resume", WEB)]

    run(tmp_path, scenario)


def test_a_restart_goes_on_when_the_browser_leaves(tmp_path: Path) -> None:
    """The page says how it goes; a second one is refused meanwhile; how it ended stays."""

    async def scenario(pages: FleetPages) -> None:
        there(pages)
        began = notice(await pages.post("/deployments/shop/web/restart", {}))
        assert began == "The restart of shop/web has begun on vps-1; how it goes stands below."
        assert "Restart</strong> on vps-1" in (await pages.get("/deployments/shop/web")).text
        again = notice(await pages.post("/deployments/shop/web/restart", {}))
        assert again.startswith("Not done. operator:ann began a restart of shop/web already")
        command = pages.talking.told[0]
        pages.talking.says["restart"], pages.talking.fails["restart"] = ["Draining\n"], "Superseded"
        pages.talking._answer("vps-1", command)  # type: ignore[arg-type]
        await ended(pages, pages.errands.of(WEB)[0])
        text = (await pages.get("/deployments/shop/web")).text
        assert "Superseded" in text
        assert "Draining" in text

    run(tmp_path, scenario)


def test_a_restart_that_cannot_begin_says_why(tmp_path: Path) -> None:
    """Its agent is away; nothing is left under way."""

    async def scenario(pages: FleetPages) -> None:
        pages.talking.connected = frozenset()
        said = notice(await pages.post("/deployments/shop/web/restart", {}))
        assert said.startswith('Not done. Agent "vps-1" is not connected.')
        assert pages.errands.of(WEB) == ()
        assert "It does not run on such an agent" in notice(
            await pages.post("/deployments/shop/web/restart", {"agent": "vps-2"})
        )

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "path", ["/deployments/shop/web/pause", "/deployments/shop/web/resume", "/deployments/shop/web/restart",
             "/databases/shop/orders/backup"],
)  # fmt: skip
def test_only_who_may_operate_acts(tmp_path: Path, path: str) -> None:
    """Without the scope, or from another site: 403, and the page has no such form."""

    async def scenario(pages: FleetPages) -> None:
        others = {"read", "plan", "approve", "enrol", "write", "exec"}
        assert (await pages.post(path, {}, *others)).status_code == 403
        assert (await pages.post(path, {}, Origin="https://evil.example")).status_code == 403
        assert (pages.doings.paused, pages.talking.told) == ([], [])
        assert path not in (await pages.get(path.rpartition("/")[0], "read")).text

    run(tmp_path, scenario)


def test_logs_are_shown_as_text(tmp_path: Path) -> None:
    """Escapes for terminals are gone, everything else stands there as it was written."""
    lines = ["\x1b[31mred\x1b[0m and <b>bold</b>", "\x1b]0;title\x07{{7*7}}", "tab\there \u202eevil", "bell\x07"]

    async def scenario(pages: FleetPages) -> None:
        there(pages)
        pages.talking.says["logs"] = ["\n".join(lines) + "\n"]
        text = (await pages.get("/deployments/shop/web/logs")).text
        for said in ("red and &lt;b&gt;bold&lt;/b&gt;", ">{{7*7}}<", "\\u202eevil", "bell\\x07"):
            assert said in text, said
        assert text.count('<div class="line">') == 4
        assert 'data-follow="/api/v1/deployments/shop/web/logs?follow=true&amp;tail=200"' in text
        assert (await pages.get("/deployments/shop/web/logs", "read")).status_code == 403
        assert (await pages.get("/deployments/shop/web/logs?tail=x")).status_code == 400

    run(tmp_path, scenario)


def test_logs_that_cannot_be_had_are_said(tmp_path: Path) -> None:
    """The agent is away: a sentence in place of lines."""

    async def scenario(pages: FleetPages) -> None:
        pages.talking.connected = frozenset()
        text = html.unescape((await pages.get("/deployments/shop/web/logs")).text)
        assert 'Agent "vps-1" is not connected.' in text
        assert "It has written nothing that could be had." in text

    run(tmp_path, scenario)


def test_a_page_that_is_fetched_again_asks_no_agent(tmp_path: Path) -> None:
    """Only who opens the page has lines asked for: what a module fetches costs no command."""

    async def scenario(pages: FleetPages) -> None:
        there(pages)
        headers = {"Accept": "text/html", "Sec-Fetch-Mode": "cors", **pages.one.bearer("admin")}
        for path in ("/deployments/shop/web/logs", "/databases/shop/orders/backups"):
            assert (await pages.request("GET", path, headers=headers)).status_code == 200
        assert pages.talking.told == []

    run(tmp_path, scenario)


def test_a_database_has_an_address_to_copy_without_its_password(tmp_path: Path) -> None:
    """A gap where the password belongs, the command that fills it, users by name, and what is wrong."""

    async def scenario(pages: FleetPages) -> None:
        there(pages)
        text = html.unescape((await pages.get("/databases/shop/orders")).text)
        uri = "mongodb://shop:<password>@vps-1.mongodb.cloudlunacy.test:27018/shop?tls=true&authMechanism=SCRAM-SHA-256"
        assert uri in text
        assert "cloudlunacy mongodb uri vps-1.mongodb.cloudlunacy.test --show-password --data DIR" in text
        assert "shop: readWrite of shop, password from" in text
        assert "PortTaken: 27117 is taken" in text
        assert 'version: "7.0"' in text
        assert "Back up now" in text
        assert "AGE ENCRYPTED" not in text
        assert (await pages.get("/databases/shop/web")).status_code == 404
        assert "6.0" in (await pages.get("/databases")).text

    run(tmp_path, scenario)


def test_backups_are_listed_and_made(tmp_path: Path) -> None:
    """Newest first with their age; the restore command names the newest; making one goes on in the background."""
    lines = [
        "20261121T114500Z-interval  2026-11-21 11:45:00 UTC  2.0 MiB  100 documents",
        "20261122T114500Z-asked  2026-11-22 11:45:00 UTC  3.0 MiB  18204 documents",
        "<script>",
    ]
    said = "\n".join(lines) + "\n"

    async def scenario(pages: FleetPages) -> None:
        there(pages)
        pages.talking.says |= {"backups": [said], "backup": ["20261122T120000Z-asked\n"]}
        text = (await pages.get("/databases/shop/orders/backups")).text
        assert text.index("20261122T114500Z-asked") < text.index("20261121T114500Z-interval")
        assert "&lt;script&gt;" in text
        assert "--archive 20261122T114500Z-asked" in text
        assert "has begun on vps-1" in notice(await pages.post("/databases/shop/orders/backup", {}))
        await ended(pages, pages.errands.of(ORDERS)[0])
        assert "20261122T120000Z-asked" in (await pages.get("/databases/shop/orders")).text

    run(tmp_path, scenario)


HOSTILE = '<script>window.owned=1</script>"><img src=x onerror=alert(1)>{{7*7}}'


def test_what_an_agent_says_of_a_deployment_stays_text(tmp_path: Path) -> None:
    """Reason, message, step, output of a restart: all of it is text."""
    item = {"id": "Deployment/shop/web", "state": "Failed", "reason": HOSTILE[:64], "message": HOSTILE}
    seen = observed("vps-1", item, message=HOSTILE, version=HOSTILE[:64])

    async def scenario(pages: FleetPages) -> None:
        step = DeploymentObservation(team="shop", name="web", health="stopped", step=HOSTILE[:64])
        pages.told["vps-1", WEB] = step
        pages.talking.says["restart"], pages.talking.fails["restart"] = [HOSTILE], HOSTILE[:64]
        await pages.post("/deployments/shop/web/restart", {})
        await ended(pages, pages.errands.of(WEB)[0])
        for path in ("/deployments", "/deployments/shop/web", "/agents/vps-1"):
            page = (await pages.get(path)).text
            assert "<script>window" not in page
            assert "<img" not in page
            assert ">49" not in page

    run(tmp_path, scenario, FILES, WaxControl(seen={"vps-1": seen}, present=frozenset({"vps-1"})))
