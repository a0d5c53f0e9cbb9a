"""Makes the pictures of docs/screenshots anew: ``python -m tests.support.screenshots``, or ``make screenshots``.

A demo is brought up, given something to show, and looked at. Ids, ports and times differ from run to run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.browser import DESK, PHONE, Window, chromium
from tests.support.demo import UP, RunningDemo
from tests.support.visitors import Site
from tests.support.waiting import wait_for

FOLDER: Final = Path(__file__).parents[2] / "docs" / "screenshots"
ROUTE: Final = "routes/shop/web.yaml"
PAGES: Final = {
    "overview": "/",
    "traffic": "/traffic",
    "explained": "/traffic?url=https://shop.example.test/cart",
    "host": "/traffic/shop.example.test",
    "agents": "/agents",
    "agent": "/agents/vps-1",
    "enrol": "/agents/new",
    "deployments": "/deployments",
    "deployment": "/deployments/shop/web",
    "logs": "/deployments/shop/web/logs",
    "databases": "/databases",
    "database": "/databases/shop/orders",
    "certificates": "/certificates",
    "certificate": "/certificates/apps",
    "secrets": "/secrets",
    "object": "/objects/routes/shop/web.yaml",
    "new-route": "/routes/new",
    "revisions": "/revisions",
    "events": "/events",
    "tokens": "/tokens",
    "sessions": "/sessions",
    "api": "/api",
}
ON_A_PHONE: Final = ("overview", "traffic", "agent")
HEIGHT: Final = 640
"""Of a picture at the desk: enough to know a page by, and small."""


@contextmanager
def _demo() -> Iterator[RunningDemo]:
    with tempfile.TemporaryDirectory() as folder:
        demo = RunningDemo(Path(folder))
        try:
            demo.wait_for(UP)
            yield demo
        finally:
            demo.close()


def _take(window: Window, name: str, path: str) -> None:
    page = window.open(path)
    page.locator("#live").get_by_text("Live").wait_for()
    if path.endswith("/logs"):
        page.locator("#log-state").get_by_text("Following").wait_for()
    page.screenshot(path=FOLDER / f"{name}.png", scale="css", animations="disabled")


def main() -> None:
    """Take every picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _demo() as demo, chromium() as browser:
        site = Site(demo, browser)
        demo.git("pull", "--quiet", "--rebase")
        text = (demo.work / ROUTE).read_text(encoding="utf-8")
        moved = demo.push("Limit the shop less", {ROUTE: text.replace("average: 100", "average: 200")})
        site.settled(moved, "Converged")
        # they come with the second reading of the fronts
        wait_for(lambda: any(row.get("figures") for row in site.ask("/traffic")["rows"]), 90, what="figures")
        with site.member("administrator", width=PHONE) as phone:
            for name in ON_A_PHONE:
                _take(phone, f"{name}-phone", PAGES[name])
        with site.member("administrator") as desk:
            desk.page.set_viewport_size({"width": DESK, "height": HEIGHT})
            for name, path in PAGES.items():
                _take(desk, name, path)
            _take(desk, "revision", f"/revisions/{moved}")
            desk.page.emulate_media(color_scheme="dark")
            _take(desk, "overview-dark", PAGES["overview"])
            desk.page.emulate_media(color_scheme="light")
            routes = sorted(str(path.relative_to(demo.work)) for path in (demo.work / "routes").glob("*/*.yaml"))
            held = demo.push("Take every route down", dict.fromkeys(routes))
            site.settled(held, "Held")
            _take(desk, "revision-held", f"/revisions/{held}")
            _take(desk, "overview-needs", PAGES["overview"])


if __name__ == "__main__":
    main()
