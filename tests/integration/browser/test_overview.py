"""Overview, revisions and events in a real browser, on the running demo: as they are, as they change, what they do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.support.browser import PHONE
from tests.support.demo import RunningDemo
from tests.support.visitors import Site

ROUTE = "routes/shop/web.yaml"
LONG = 60_000
ODD = "<img src=x onerror=alert(1)> \u202e <script>alert(1)</script>"


@pytest.fixture
def mended(demo: RunningDemo) -> Iterator[RunningDemo]:
    """The demo, whose branch is put back where it was."""
    demo.git("pull", "--quiet", "--rebase")
    before = demo.git("rev-parse", "HEAD")
    yield demo
    demo.git("pull", "--quiet", "--rebase")
    if demo.git("diff", "--name-only", before, "HEAD"):
        demo.git("checkout", "--quiet", before, "--", ".")
        demo.git("commit", "--quiet", "--all", "--message", "As it was")
        demo.git("push", "--quiet")


def test_who_is_not_logged_in_comes_to_where_one_does(site: Site) -> None:
    """And would come back to the page."""
    with site.stranger() as window:
        page = window.open("/revisions?before=1")
        assert page.url.endswith("/login?next=/revisions%3Fbefore%3D1")
        window.check()


def test_a_session_is_all_that_a_browser_needs(site: Site) -> None:
    """Logged in by a link: pages are live, forms come from pages of ours, and logging out ends it."""
    with site.member("viewer") as window:
        page = window.open("/revisions/newest")
        expect(page.locator("#live")).to_have_text("Live")
        expect(page.get_by_role("link", name="Roll back …")).to_have_count(0)
        window.check()
        page.locator("summary .who").click()
        window.check_accessibility()
        window.submit("Log out")
        assert "/login" in page.url
        page = window.open("/")
        assert page.url.endswith("/login")
        window.check()


def test_without_script_and_without_a_mouse(site: Site) -> None:
    """Everything is there; the navigation of a phone opens by the keyboard; the first stop leads to the content."""
    with site.visit(width=PHONE, script=False) as window:
        page = window.open("/revisions")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.get_by_text("Menu", exact=True).focus()
        page.keyboard.press("Enter")
        page.get_by_role("navigation", name="Main").get_by_role("link", name="Events").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Events")).to_be_visible()
        page.get_by_label("Words").fill("enrolled")
        page.keyboard.press("Enter")
        expect(page.get_by_text("AgentEnrolled").first).to_be_visible()
        assert "q=enrolled" in page.url


def test_what_is_pushed_shows_up_by_itself(site: Site, mended: RunningDemo) -> None:
    """A file that is kept out appears on the open overview; its page has the line, and a button that takes it back.

    What has focus keeps it meanwhile, and a commit's words stay words.
    """
    text = (mended.work / ROUTE).read_text(encoding="utf-8")
    with site.visit() as window:
        page = window.open("/")
        expect(page.get_by_text("Nothing needs you.")).to_be_visible(timeout=LONG)
        page.get_by_role("link", name="All revisions").focus()
        page.evaluate("window.__same = true")
        revision = mended.push(f"A typo {ODD}", {ROUTE: text.replace("vps-1", "vsp-1")})
        kept_out = re.compile(rf"{re.escape(ROUTE)}:\d+ is kept out")
        expect(page.locator("#needs strong").filter(has_text=kept_out).first).to_be_visible(timeout=LONG)
        expect(page.get_by_role("link", name="All revisions")).to_be_focused()
        assert page.evaluate("window.__same"), "the page was not exchanged as a whole"
        window.check()
        page = window.open(f"/revisions/{revision}")
        expect(page.locator("#problems").get_by_text("unknown-agent")).to_be_visible()
        expect(page.locator("#problems pre").filter(has_text="vsp-1").first).to_be_visible()
        window.check()
        expect(page.get_by_role("heading", name="A typo <img")).to_be_visible()
        with page.expect_navigation():
            page.get_by_role("link", name="Roll back …").click()
        expect(page.get_by_role("heading", name="What this would do")).to_be_visible()
        window.check()
        window.submit("Roll back")
        expect(page.locator(".notice")).to_contain_text("Committed as")
        window.check()
        page = window.open("/")
        expect(page.get_by_text("Nothing needs you.")).to_be_visible(timeout=LONG)


def test_a_held_deletion_is_approved_on_a_phone(site: Site, mended: RunningDemo) -> None:
    """Who may not is told who can. The overview leads to it; the page says what it does; one button lets it through."""
    routes = sorted((mended.work / "routes").glob("*/*.yaml"))
    gone = [str(path.relative_to(mended.work)) for path in routes]
    revision = mended.push("Delete every route", dict.fromkeys(gone))
    site.settled(revision, "Held")
    with site.visit("read", width=PHONE) as window:
        page = window.open(f"/revisions/{revision}")
        expect(page.get_by_text("can let it through")).to_be_visible()
        expect(page.get_by_role("button", name="Approve this plan")).to_have_count(0)
    with site.visit(width=PHONE) as window:
        page = window.open("/")
        with page.expect_navigation():
            page.get_by_role("link", name="Look and approve").click()
        expect(page.get_by_role("heading", name="It waits for a person")).to_be_visible()
        expect(page.locator("#plan").get_by_text("removed").first).to_be_visible()
        window.check()
        window.submit("Approve this plan")
        expect(page.get_by_text("Approved. It goes on at once.")).to_be_visible()
        expect(page.locator("#standing").get_by_text("Converged")).to_be_visible(timeout=LONG)
        window.check()


def test_a_page_says_when_it_is_not_live_any_more(site: Site) -> None:
    """The stream is away: the sign says since when. It is back: so is the page."""
    with site.visit() as window:
        page = window.open("/")
        expect(page.locator("#live")).to_have_text("Live")
        page.context.set_offline(True)
        expect(page.locator("#live")).to_contain_text("Not live since", timeout=LONG)
        window.check_accessibility()
        page.context.set_offline(False)
        expect(page.locator("#live")).to_have_text("Live", timeout=LONG)


def test_a_page_says_when_the_session_has_ended(site: Site) -> None:
    """And leads to where one logs in, and back."""
    with site.visit("read", "plan") as window:
        page = window.open("/events")
        expect(page.locator("#live")).to_have_text("Live")
        site.log_out("read", "plan")
        link = page.get_by_role("link", name="log in again")
        expect(link).to_be_visible(timeout=LONG)
        expect(link).to_have_attribute("href", "/login?next=%2Fevents")
