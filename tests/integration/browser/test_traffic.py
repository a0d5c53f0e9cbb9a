"""Traffic, certificates, secrets, files and tokens in a real browser, on the running demo: looked at, and changed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Dialog, Page, expect

from tests.support.browser import WIDTHS, Window
from tests.support.demo import RunningDemo
from tests.support.visitors import Site
from tests.support.waiting import wait_for

STOREFRONT = "shop.example.test"
HOST = "fresh.app.cloudlunacy.test"
FILE = "/objects/routes/shop/fresh.yaml"
NASTY = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{7*7}}"


def front(demo: RunningDemo) -> str:
    """Where the demo's Traefik takes plain HTTP."""
    port = json.loads((demo.directory / "demo.json").read_text())["front"]["web"]
    return f"http://127.0.0.1:{port}"


def status_at(demo: RunningDemo, host: str) -> int:
    return httpx.get(front(demo), headers={"Host": host}, timeout=10).status_code


@pytest.fixture
def fresh(site: Site) -> Iterator[str]:
    """No route of that name is left behind."""
    yield HOST
    if any(one["path"] == FILE.removeprefix("/objects/") for one in site.ask("/objects", limit=500)["objects"]):
        demo = site.demo
        demo.git("pull", "--quiet", "--rebase")
        demo.git("rm", "--quiet", FILE.removeprefix("/objects/"))
        demo.git("commit", "--quiet", "--message", "As it was")
        demo.git("push", "--quiet")


def fill(page: Page, name: str) -> None:
    page.get_by_label("Team").select_option("shop")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("TLS").select_option("none")
    page.locator("#deployment-1").fill("web")


def test_a_route_is_made_and_deleted_without_scripts(site: Site, fresh: str) -> None:
    """What is wrong with the form is said at its fields. The page of the file takes the route away again."""
    demo = site.demo
    with site.visit(script=False) as window:
        page = window.open("/routes/new")
        window.allowed.add("/routes/new")  # what is wrong with the form comes with 422
        window.submit("Check")
        expect(page.get_by_text("Give the route a name.")).to_be_visible()
        fill(page, "fresh")
        window.submit("Check")
        expect(page.get_by_text("new host")).to_be_visible()
        assert status_at(demo, fresh) == 404
        window.submit("Commit")
        assert "/revisions/" in page.url
        wait_for(lambda: status_at(demo, fresh) == 200, 90, what=f"{fresh} through Traefik")
        page = window.open(f"/traffic/{fresh}")
        expect(page.get_by_text("serving").first).to_be_visible()
        found = site.ask("/explain", url=f"http://{fresh}/x")
        assert (found["outcome"], found["router"]["file"]) == ("backend", "routes/shop/fresh.yaml")
        page = window.open(FILE)
        expect(page.get_by_text("Add route shop/fresh").first).to_be_visible()
        window.submit("Delete…")
        expect(page.get_by_text("turns 404")).to_be_visible()
        window.submit("Commit")
        wait_for(lambda: status_at(demo, fresh) == 404, 90, what=f"no {fresh} any more")


@pytest.mark.parametrize("width", WIDTHS)
def test_the_box_is_asked_by_keyboard(site: Site, width: int) -> None:
    """What it says is what Traefik does."""
    with site.visit(width=width) as window:
        page = window.open("/traffic")
        page.get_by_role("textbox", name="URL").fill("http://web.app.cloudlunacy.test/")
        with page.expect_navigation():
            page.keyboard.press("Enter")
        expect(page.get_by_text("A backend answers it.")).to_be_visible()
        window.check()
    assert status_at(site.demo, "web.app.cloudlunacy.test") == 200
    assert site.ask("/explain", url="http://nobody.test/")["status"] == status_at(site.demo, "nobody.test") == 404


def test_figures_come_from_the_fronts(site: Site) -> None:
    """A route that is asked shows how often."""

    def counted() -> bool:
        httpx.get(front(site.demo), headers={"Host": "web.app.cloudlunacy.test"}, timeout=10)
        rows = site.ask("/traffic", text="web.app")["rows"]
        figures: dict[str, Any] = next((row["figures"] for row in rows if row.get("figures")), {})
        return float(figures.get("perSecond", 0)) > 0

    wait_for(counted, 90, what="figures of shop/web")


def test_fronts_are_asked_for_a_certificate(site: Site) -> None:
    """By a button, with an answer on the page."""
    with site.visit() as window:
        page = window.open("/certificates/apps")
        window.submit("Ask the fronts")
        expect(page.get_by_text("front-1 shows it.")).to_be_visible()
        window.check()


def test_weights_are_moved_with_what_that_does(site: Site) -> None:
    """Nothing is written before the last step."""
    with site.visit() as window:
        page = window.open(f"/traffic/{STOREFRONT}")
        page.get_by_text("Move traffic").click()
        page.get_by_label("Weight of").first.fill("7")
        window.submit("Check")
        expect(page.get_by_text("changes backend")).to_be_visible()
        expect(page.get_by_role("button", name="Commit")).to_be_visible()
        window.check()


@pytest.mark.parametrize("width", WIDTHS)
def test_a_token_is_shown_once(site: Site, width: int) -> None:
    """To an administrator, who may end it."""
    with site.member("administrator", width=width) as window:
        page = window.open("/tokens")
        page.get_by_label("Name").fill(f"browser-{width}")
        window.submit("Make the token")
        expect(page.locator("#token")).to_contain_text("clt_")
        window.check()
        window.submit(f"Revoke browser-{width}")
        expect(page.get_by_text(f"The token browser-{width} is good no more.")).to_be_visible()
        expect(page.locator("#token")).to_have_count(0)
        window.check()


def test_what_a_tenant_wrote_stays_text(site: Site) -> None:
    """Payloads in annotations, env, headers, commit subjects and names of authors: nothing of it runs."""
    demo = site.demo
    dialogs: list[str] = []

    def noted(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    demo.git("pull", "--quiet", "--rebase")
    before = demo.git("rev-parse", "HEAD")
    write(demo, "routes/shop/web.yaml", lambda text: text.replace("DENY", "'<script>alert(1)</script>'"))
    write(
        demo,
        "deployments/shop/web.yaml",
        lambda text: text.replace("metadata:\n", f"metadata:\n  annotations: {{note: {json.dumps(NASTY)}}}\n").replace(
            "hello", json.dumps(NASTY)
        ),
    )
    (demo.work / "routes/shop/broken.yaml").write_text(f"kind: {json.dumps(NASTY)}\n")
    demo.git("add", "--all")
    demo.git("-c", f"user.name=x {NASTY}", "commit", "--quiet", "--message", NASTY)
    demo.git("push", "--quiet")
    revision = demo.git("rev-parse", "HEAD")
    try:
        wait_for(lambda: site.ask("/status")["revision"] == revision, 90, what="the payloads published")
        with site.visit() as window:
            window.page.on("dialog", noted)
            for path in (
                "/traffic",
                "/traffic/web.app.cloudlunacy.test",
                "/traffic?url=http://web.app.cloudlunacy.test/",
                f"/traffic?text={NASTY}&url={NASTY}",
                "/objects/routes/shop/web.yaml",
                "/objects/deployments/shop/web.yaml",
                "/objects/routes/shop/broken.yaml",
                "/objects/routes/shop/broken.yaml?edit=1",
                "/routes/new?name=" + NASTY,
                "/deployments/shop/web",
                "/",
                "/revisions",
                f"/revisions/{revision}",
                f"/revisions/{revision}/revert",
                f"/events?q={NASTY}&actor={NASTY}",
                "/events",
            ):
                page = window.open(path)
                assert page.locator("main script, main img").count() == 0
                check_quietly(window)
        assert dialogs == []
    finally:
        demo.git("pull", "--quiet", "--rebase")
        demo.git("rm", "--quiet", "routes/shop/broken.yaml")
        demo.git("checkout", "--quiet", before, "--", ".")
        demo.git("commit", "--quiet", "--all", "--message", "As it was")
        demo.git("push", "--quiet")


def write(demo: RunningDemo, path: str, edit: Callable[[str], str]) -> None:
    file = demo.work / path
    file.write_text(edit(file.read_text()))


def check_quietly(window: Window) -> None:
    """Everything but axe-core, which needs seconds."""
    violations = window.page.evaluate("window.__violations ?? []")
    assert (window.complaints, violations) == ([], []), window.page.url
    window.check_width()
