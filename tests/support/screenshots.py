"""Makes the pictures of docs/screenshots anew: ``python -m tests.support.screenshots``, or ``make screenshots``.

A demo is brought up, given something to show, and looked at. Ids, ports and times differ from run to run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.support.browser import DESK, PHONE, chromium
from tests.support.demo import UP, RunningDemo
from tests.support.visitors import Site
from tests.support.waiting import wait_for

FOLDER: Final = Path(__file__).parents[2] / "docs" / "screenshots"
ROUTE: Final = "routes/shop/web.yaml"
PAGES: Final = {
    "overview": "/",
    "traffic": "/traffic",
    "agent": "/agents/vps-1",
    "deployments": "/deployments",
    "deployment": "/deployments/shop/web",
    "certificates": "/certificates",
    "events": "/events",
}
ON_A_PHONE: Final = ("overview", "traffic", "agent")


@contextmanager
def _demo() -> Iterator[RunningDemo]:
    with tempfile.TemporaryDirectory() as folder:
        demo = RunningDemo(Path(folder))
        try:
            demo.wait_for(UP)
            yield demo
        finally:
            demo.close()


def _settled(site: Site, revision: str, *states: str) -> None:
    wait_for(lambda: site.ask(f"/revisions/{revision}")["state"] in states, 90, what=f"{states} of {revision}")


def _take(site: Site, name: str, path: str, *, width: int = DESK, dark: bool = False) -> None:
    with site.member("administrator", width=width, dark=dark) as window:
        page = window.open(path)
        page.locator("#live").get_by_text("Live").wait_for()
        page.screenshot(path=FOLDER / f"{name}.png", scale="css", animations="disabled")


def main() -> None:
    """Take every picture."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with _demo() as demo, chromium() as browser:
        site = Site(demo, browser)
        demo.git("pull", "--quiet", "--rebase")
        text = (demo.work / ROUTE).read_text(encoding="utf-8")
        moved = demo.push("Limit the shop less", {ROUTE: text.replace("average: 100", "average: 200")})
        _settled(site, moved, "Converged")
        for name, path in PAGES.items():
            _take(site, name, path)
        for name in ON_A_PHONE:
            _take(site, f"{name}-phone", PAGES[name], width=PHONE)
        _take(site, "revision", f"/revisions/{moved}")
        _take(site, "overview-dark", "/", dark=True)
        routes = sorted(str(path.relative_to(demo.work)) for path in (demo.work / "routes").glob("*/*.yaml"))
        held = demo.push("Take every route down", dict.fromkeys(routes))
        _settled(site, held, "Held")
        _take(site, "revision-held", f"/revisions/{held}")
        _take(site, "overview-needs", "/")


if __name__ == "__main__":
    main()
