"""Every page in a real browser, on the running demo: as wide as a phone and as a desk, light and dark."""

from __future__ import annotations

from typing import Final

import pytest
from playwright.sync_api import expect

from tests.integration.test_access_matrix import TABLE
from tests.support.browser import PHONE, WIDTHS, Window
from tests.support.demo import RunningDemo
from tests.support.visitors import Site

LONG: Final = 90_000
STOREFRONT: Final = "shop.example.test"
PAGES: Final[dict[str, tuple[str, ...]]] = {
    "/": ("/",),
    "/traffic": (
        "/traffic",
        "/traffic?text=nothing",
        f"/traffic?url=https://{STOREFRONT}/cart",
        "/traffic?url=https://nobody.app.cloudlunacy.test/",
        "/traffic?url=mongodb://vps-1.mongodb.cloudlunacy.test/?tls=true",
    ),
    "/traffic/{host}": (f"/traffic/{STOREFRONT}",),
    "/agents": ("/agents", "/agents?q=nothing"),
    "/agents/{name}": ("/agents/vps-1",),
    "/agents/new": ("/agents/new",),
    "/agents/new/{name}": ("/agents/new/vps-7",),
    "/deployments": ("/deployments", "/deployments?state=Failed"),
    "/deployments/{team}/{name}": ("/deployments/shop/api",),
    "/deployments/{team}/{name}/logs": ("/deployments/shop/api/logs",),
    "/databases": ("/databases",),
    "/databases/{team}/{name}": ("/databases/shop/orders",),
    "/databases/{team}/{name}/backups": ("/databases/shop/orders/backups",),
    "/certificates": ("/certificates",),
    "/certificates/{name}": ("/certificates/apps",),
    "/secrets": ("/secrets",),
    "/revisions": ("/revisions",),
    "/revisions/{revision}": ("/revisions/newest",),
    "/revisions/{revision}/revert": ("/revisions/{moved}/revert",),
    "/events": ("/events", "/events?severity=error&q=nothing"),
    "/objects/{path:path}": (
        "/objects/routes/shop/web.yaml",
        "/objects/routes/shop/web.yaml?edit=1",
        "/objects/fleet.yaml",
        "/objects/secrets/shop/admin.yaml",
    ),
    "/routes/new": ("/routes/new",),
    "/tokens": ("/tokens",),
    "/sessions": ("/sessions",),
    "/api": ("/api",),
}
"""Endpoint → what of it is looked at."""
FOR_STRANGERS: Final = {"/login": ("/login",), "/login/link": ("/login/link?key=none",)}
NO_PAGES: Final = {"/login/oidc", "/login/oidc/callback"}
"""These lead on, to a provider and back."""
PROGRAMS: Final = ("/api/v1/", "/.well-known/", "/static/", "/install", "/healthz", "/readyz", "/metrics", "/openapi.")


def test_no_page_is_forgotten() -> None:
    """What the application serves to people is what the tests below look at."""
    served = {path for method, path in TABLE if method == "GET" and not path.startswith(PROGRAMS)}
    assert served == PAGES.keys() | FOR_STRANGERS.keys() | NO_PAGES


@pytest.fixture(scope="module")
def moved(demo: RunningDemo) -> str:
    """A revision that can be taken back."""
    path = "routes/shop/balanced.yaml"
    text = (demo.work / path).read_text(encoding="utf-8")
    return demo.push("Say nothing new", {path: f"{text}# seen\n"})


def check(window: Window, *, live: bool = True) -> None:
    """Look at a page as it is, and once more in the dark."""
    if live:
        expect(window.page.locator("#live")).to_have_text("Live", timeout=LONG)
    window.check()
    window.check_dark()


@pytest.mark.timeout(600)  # axe-core looks at forty pages
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_are_without_fault(site: Site, moved: str, width: int) -> None:
    """No error on the console, no violation of the policy, no failed request, nothing that axe-core finds, no scrolling
    sideways.
    """
    with site.member("administrator", width=width) as window:
        for path in (path for paths in PAGES.values() for path in paths):
            window.open(path.replace("{moved}", moved))
            check(window)
        window.open("/api")
        window.open(window.page.locator("a[href^='/api?operation=']").first.get_attribute("href") or "")
        check(window)


@pytest.mark.parametrize("width", WIDTHS)
def test_pages_for_strangers_are_without_fault(site: Site, width: int) -> None:
    """Where one logs in, and what a link says that is no good."""
    with site.stranger(width) as window:
        window.allowed.add("/login/link")  # 403
        for path in ("/login", "/login/link?key=none"):
            window.open(path)
            check(window, live=False)


def test_a_page_that_is_not_there_is_a_page(site: Site) -> None:
    """With a way on."""
    with site.visit(width=PHONE) as window:
        window.allowed.add("/nowhere")
        expect(window.open("/nowhere").get_by_role("heading", name="Not found")).to_be_visible()
        check(window)
