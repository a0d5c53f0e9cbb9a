"""Agents, deployments and databases in a real browser, on the running demo: what is shown, and what people do there."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.support.visitors import Site

LONG = 90_000


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


def test_who_may_only_look_sees_no_buttons(site: Site) -> None:
    """Pages offer what the person may do, and nothing else."""
    with site.visit("read") as window:
        for path in ("/agents/vps-1", "/deployments/shop/api", "/databases/shop/orders", "/agents"):
            page = window.open(path)
            expect(page.locator("main form[method=post]")).to_have_count(0)
            expect(page.get_by_role("link", name="Logs", exact=True)).to_have_count(0)
            window.check()
