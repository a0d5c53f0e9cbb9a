"""Agents, deployments and databases in a real browser, on the running demo: what is shown, and what people do there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import WIDTHS
from tests.support.orphans import tied
from tests.support.visitors import Site
from tests.support.waiting import wait_for

LONG = 90_000
PAGES = (
    "/agents", "/agents?q=nothing", "/agents/vps-1", "/agents/new", "/deployments", "/deployments?state=Failed",
    "/deployments/shop/api", "/deployments/shop/api/logs", "/databases", "/databases/shop/orders",
    "/databases/shop/orders/backups",
)  # fmt: skip


@pytest.mark.timeout(600)  # axe-core looks at eleven pages
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_are_without_fault(site: Site, width: int) -> None:
    """No error on the console, no violation of the policy, nothing that axe-core finds, no scrolling sideways."""
    with site.visit(width=width, dark=width == WIDTHS[0]) as window:
        for path in PAGES:
            page = window.open(path)
            expect(page.locator("#live")).to_have_text("Live", timeout=LONG)
            window.check()


def test_an_agent_is_drained_and_gets_requests_again(site: Site) -> None:
    """By forms alone: without scripts they do the same."""
    with site.visit(script=False) as window:
        page = window.open("/agents/vps-2")
        page.get_by_label("Keep requests away for").fill("1h")
        page.get_by_label("Because", exact=True).first.fill("a new disk")
        window.submit("Drain")
        expect(page.get_by_text("vps-2 is drained: fronts send no more requests there.")).to_be_visible()
        expect(page.get_by_text("a new disk").first).to_be_visible()
        assert site.ask("/agents/vps-2")["presence"] == "Drained"
        window.submit("Let requests come again")
        expect(page.get_by_text("vps-2 gets requests again.")).to_be_visible()


def test_cordoning_is_a_commit_in_the_name_of_who_did_it(site: Site) -> None:
    """The page says so by itself once the commit is in service."""
    with site.visit() as window:
        page = window.open("/agents/vps-2")
        window.submit("Cordon")
        expect(page.locator(".notice")).to_contain_text("vps-2 gets no new work: commit")
        expect(page.locator("#agent-head")).to_contain_text("cordoned", timeout=LONG)
        page = window.open("/agents/vps-2")
        window.submit("Uncordon")
        expect(page.locator("#agent-head")).to_contain_text("active", timeout=LONG)
        window.check()
    site.demo.git("pull", "--quiet", "--rebase")
    assert site.demo.git("log", "-2", "--format=%s").splitlines() == ["Uncordon agent vps-2", "Cordon agent vps-2"]


def test_a_log_is_followed_paused_and_sifted(site: Site) -> None:
    """What the app writes comes by itself; paused nothing moves; a filter leaves the lines that have the words."""
    with site.visit() as window:
        page = window.open("/deployments/shop/api/logs")
        log = page.locator("#log")
        expect(page.locator("#log-state")).to_contain_text("Following", timeout=LONG)
        expect(log).to_contain_text("listens at", timeout=LONG)
        page.get_by_label("Only lines with").fill("LISTENS")
        expect(log.locator(".line:visible")).to_have_count(1)
        page.get_by_label("Only lines with").fill("")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#log-state")).to_contain_text("paused")
        window.check()


def test_a_restart_is_begun_and_its_end_is_told(site: Site) -> None:
    """The page shows how it goes, and the timeline has it."""
    with site.visit() as window:
        page = window.open("/deployments/shop/api")
        window.submit("Restart")
        expect(page.locator(".notice")).to_contain_text("The restart of shop/api has begun")
        expect(page.locator(".errands .badge")).to_contain_text("Done", timeout=LONG)
        expect(page.locator("#events")).to_contain_text("CommandEnded", timeout=LONG)
        window.check()


def test_a_backup_is_made_and_listed(site: Site) -> None:
    """The list is the agent's own."""
    with site.visit() as window:
        page = window.open("/databases/shop/orders")
        window.submit("Back up now")
        expect(page.locator(".errands .badge")).to_contain_text("Done", timeout=LONG)
        page = window.open("/databases/shop/orders/backups")
        expect(page.locator("table")).to_contain_text("-asked")
        expect(page.locator("#restore")).to_contain_text("cloudlunacy deploy restore shop/orders --archive")


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Agents that a test begins; they end with it."""
    begun: list[subprocess.Popen[bytes]] = []
    yield begun
    for process in begun:
        process.terminate()
        process.wait(30)


def test_an_agent_enrols_by_the_command_that_is_shown(
    site: Site, tmp_path: Path, newcomer: list[subprocess.Popen[bytes]]
) -> None:
    """The page waits, says that it is enrolled, then that it is here, and leads there. The token is shown once."""
    data = tmp_path / "agent"
    environment = {**os.environ, "CLOUDLUNACY_CA_FILE": ""}
    with site.visit() as window:
        page = window.open("/agents/new")
        page.get_by_label("Name of the agent").fill("vps-9")
        window.submit("Make the line")
        line = page.locator("#line").inner_text()
        assert re.search(
            r"curl .* --pinnedpubkey '?sha256//.*/install\.sh\).*--ca-sha256 [0-9a-f]{64} --name vps-9$", line
        )
        token = page.locator("#token").text_content() or ""
        assert token in line
        expect(page.locator("#joined")).to_contain_text("Nobody has enrolled as vps-9 yet.")
        window.check()
        words = shlex.split((page.locator("#enrol").text_content() or "").replace("--data DIR", ""))
        command = [sys.executable, "-m", "reconciler", *words[1:], "--data", str(data), "--address", "127.0.0.1"]
        subprocess.run(command, input=token.encode(), check=True, env=environment, capture_output=True, timeout=120)
        expect(page.locator("#joined")).to_contain_text("waiting for its first heartbeat", timeout=LONG)
        run = [sys.executable, "-m", "reconciler", "agent", "run", "--data", str(data), "--engine", "off"]
        newcomer.append(
            subprocess.Popen(tied(run), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        expect(page.locator("#joined")).to_contain_text("vps-9 is here", timeout=LONG)
        page.get_by_role("link", name="To vps-9").click()
        expect(page.get_by_role("heading", name="vps-9")).to_be_visible()
        assert token not in page.content()
        window.check()
        lock_out(site, window.page)


def lock_out(site: Site, page: Page) -> None:
    """Revoke vps-9 on its page, by the keyboard alone."""
    page.get_by_text("Revoke its key…").press("Enter")
    page.get_by_label("Type vps-9 to confirm").fill("vps-9")
    page.get_by_label("Type vps-9 to confirm").press("Enter")
    expect(page.locator(".notice")).to_contain_text("vps-9 is locked out", timeout=LONG)
    wait_for(lambda: "vps-9" not in str(site.ask("/agents")), 90, what="vps-9 gone")


def test_who_may_only_look_sees_no_buttons(site: Site) -> None:
    """Pages offer what the person may do, and nothing else."""
    with site.visit("read") as window:
        for path in ("/agents/vps-1", "/deployments/shop/api", "/databases/shop/orders", "/agents"):
            page = window.open(path)
            expect(page.locator("main form[method=post]")).to_have_count(0)
            expect(page.get_by_role("link", name="Logs", exact=True)).to_have_count(0)
            window.check()
