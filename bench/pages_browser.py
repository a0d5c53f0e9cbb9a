"""A browser that stays on the longest lists while the fleet beats: what it holds, and how often it asks."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, NamedTuple

from reconciler.pki.authenticator import SESSION_COOKIE

if TYPE_CHECKING:
    from bench.big_fleet import Served
    from tests.support.browser import Window

SECONDS: Final = 60
PAGES: Final = ("/agents", "/traffic")
_NUMBERS: Final = """() => ({
  nodes: document.getElementsByTagName("*").length,
  rows: document.querySelectorAll("main tr").length,
  heap: Math.round((performance.memory?.usedJSHeapSize ?? 0) / 1024),
})"""


class Stay(NamedTuple):
    """A while on a page: elements and KiB of the heap in the beginning and in the end, and how often it was fetched."""

    path: str
    rows: int
    nodes: int
    nodes_after: int
    heap: int
    heap_after: int
    fetched: int
    seconds: int
    longest_block: float
    """Milliseconds for which the page answered nobody."""
    faults: tuple[str, ...]


def stay_on_pages(served: Served) -> list[Stay]:
    """Open each of the pages and look at it for a while; nothing where there is no browser."""
    try:
        from tests.support.browser import chromium, window  # noqa: PLC0415 - Playwright is there for tests alone
    except ImportError:
        return []
    with chromium() as browser, ExitStack() as open_ones:
        visits = [_Visit(open_ones.enter_context(window(browser, served.address)), served, path) for path in PAGES]
        visits[0].window.page.wait_for_timeout(SECONDS * 1000)
        return [visit.leave() for visit in visits]


class _Visit:
    def __init__(self, window: Window, served: Served, path: str) -> None:
        self.window, self._path, self._url, self._asked = window, path, served.address + path, list[str]()
        window.page.context.add_cookies(
            [{"name": SESSION_COOKIE, "value": served.cookie, "url": served.address, "secure": True, "httpOnly": True}]
        )
        window.open(path)
        window.page.evaluate(_WATCH)
        window.page.on("request", lambda request: self._asked.append(request.url))
        self._before, self._began = window.page.evaluate(_NUMBERS), time.monotonic()

    def leave(self) -> Stay:
        seconds, page = time.monotonic() - self._began, self.window.page
        after = page.evaluate(_NUMBERS)
        return Stay(
            path=self._path,
            rows=after["rows"],
            nodes=self._before["nodes"],
            nodes_after=after["nodes"],
            heap=self._before["heap"],
            heap_after=after["heap"],
            fetched=sum(url.partition("?")[0] == self._url for url in self._asked),
            seconds=round(seconds),
            longest_block=round(page.evaluate("window.__longest"), 1),
            faults=tuple(self.window.complaints[:5]),
        )


_WATCH: Final = """() => {
  window.__longest = 0;
  new PerformanceObserver((list) => {
    for (const one of list.getEntries()) window.__longest = Math.max(window.__longest, one.duration);
  }).observe({ entryTypes: ["longtask"] });
}"""
