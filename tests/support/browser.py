"""A real browser on pages of ours: what it complains of, and what makes a page hard to use.

``window(…)`` opens a :class:`Window`. While it is open everything is noted that no page of ours may cause: errors on
the console, uncaught exceptions, violations of the content security policy, requests that fail or go to another host.
:meth:`Window.check` looks at all of it, and has axe-core look at the page.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Dialog, Page, Request, Response, sync_playwright

from tests.support.parts import require

PHONE: Final = 360
DESK: Final = 1400
WIDTHS: Final = (PHONE, DESK)
PATIENCE: Final = 60_000.0
"""Milliseconds that the browser may take for anything: the machine does much at once."""
ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
AXE: Final = "axe_playwright_python"
"""The package that carries axe-core."""
_RULES: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_NOTE_VIOLATIONS: Final = """
window.__violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.__violations.push(`${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""


@cache
def _axe() -> str:
    found = importlib.util.find_spec(AXE)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the Chromium of the machine. Playwright's loop holds the thread meanwhile: no test beside may use asyncio."""
    program = require("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Window:
    """One page of a browser, and what went wrong on it. ``allowed`` are paths that may answer with an error."""

    page: Page
    origin: str
    complaints: list[str] = field(default_factory=list)
    allowed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self._console(message.type, message.text, message.location))
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("dialog", self._asked_by_script)
        self.page.on("requestfailed", self._failed)
        self.page.on("request", self._asked)
        self.page.on("response", self._answered)

    def open(self, path: str) -> Page:
        """Go to a page and wait until it is there."""
        self.page.goto(self.origin + path, wait_until="load")
        return self.page

    def submit(self, button: str) -> None:
        """Press a button that sends a form, and wait for the page that answers."""
        with self.page.expect_navigation(wait_until="load"):
            self.page.get_by_role("button", name=button, exact=True).click()

    def check(self) -> None:
        """Fail where the page complains, breaks its policy, is wider than the window, or axe-core finds something."""
        violations = self.page.evaluate("window.__violations ?? []")
        assert (self.complaints, violations) == ([], []), self.page.url
        self.check_width()
        self.check_accessibility()

    def check_width(self) -> None:
        """Fail where one has to scroll sideways to read the page."""
        wide = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if wide > 0:
            found = self.page.evaluate(
                """() => [...document.querySelectorAll("main *, header *")]
                .filter((one) => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll, pre"))
                .slice(0, 5).map((one) => `${one.localName}.${one.className}`)"""
            )
            raise AssertionError(f"{self.page.url} is {wide} px too wide: {found}")

    def check_accessibility(self) -> None:
        """Fail on what axe-core says of the page (WCAG 2.2 A and AA, and its best practices)."""
        self._ask_axe("tag", _RULES)

    def check_dark(self) -> None:
        """Fail on what axe-core says of the colours of the page in the dark; the rest of it is the same there."""
        self.page.emulate_media(color_scheme="dark")
        try:
            self._ask_axe("rule", ["color-contrast"])
        finally:
            self.page.emulate_media(color_scheme="light")

    def _ask_axe(self, kind: str, values: list[str]) -> None:
        self.page.evaluate(f"() => {{ if (!window.axe) {{ {_axe()} }} }}")
        found: dict[str, Any] = self.page.evaluate(
            "(only) => axe.run(document, { runOnly: only, resultTypes: ['violations'] })",
            {"type": kind, "values": values},
        )
        said = [
            f"{one['id']} ({one['impact']}): {one['help']}: {[node['html'][:200] for node in one['nodes'][:4]]}"
            for one in found["violations"]
        ]
        assert not said, f"{self.page.url}\n" + "\n".join(said)

    # --- what is noted ------------------------------------------------------------------------------------------

    def _console(self, kind: str, text: str, location: Any) -> None:
        where = urlsplit(str(location.get("url", ""))).path
        if kind in ("error", "warning") and where not in self.allowed:
            self.complaints.append(f"console: {text} at {json.dumps(location)}")

    def _asked_by_script(self, dialog: Dialog) -> None:
        self.complaints.append(f"a script asks: {dialog.message}")
        dialog.dismiss()

    def _failed(self, request: Request) -> None:
        # a page that is left ends what it still had open
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"request failed: {request.url}: {request.failure}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((f"{self.origin}/", "data:", "blob:", "about:")):
            self.complaints.append(f"another host is asked: {request.url}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and urlsplit(response.url).path not in self.allowed:
            self.complaints.append(f"{response.status}: {response.request.method} {response.url}")


@contextmanager
def window(
    browser: Browser, origin: str, *, width: int = DESK, dark: bool = False, script: bool = True, **options: Any
) -> Iterator[Window]:
    """Open a window with a profile of its own: nobody is logged in there. ``options`` are those of a context."""
    context: BrowserContext = browser.new_context(
        ignore_https_errors=True,
        viewport={"width": width, "height": 900 if width > PHONE else 740},
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
        reduced_motion="reduce",
        locale="en-GB",
        timezone_id="UTC",
        **options,
    )
    context.set_default_timeout(PATIENCE)
    context.set_default_navigation_timeout(PATIENCE)
    if script:
        context.add_init_script(_NOTE_VIOLATIONS)
    try:
        yield Window(context.new_page(), origin)
    finally:
        context.close()
