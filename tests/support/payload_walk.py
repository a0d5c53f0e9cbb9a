"""A browser that goes through all pages, with forms and questions that are attacks, and notes what is not mere text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from playwright.sync_api import Page, Response, expect

from reconciler.pki.authenticator import SESSION_COOKIE
from reconciler.web.pages.kit import NOTICE_COOKIE
from tests.support.browser import Window
from tests.support.payload_files import COUNT
from tests.support.payloads import MORE_PAYLOADS, Looked, Table, look

ASKED: Final = ("after", "before", "edit", "key", "name", "next", "operation", "range", "state", "code", "error")
"""What pages are asked besides the fields of their forms."""
PARTICULAR: Final = frozenset({"after", "before", "severity", "since", "tail", "until"})
"""What is refused unless it is of a certain form, so that the rest is not looked at."""
REFUSED: Final = frozenset({"/login/link?key=none"})
"""Pages that say no."""
FIXED: Final[Mapping[str, Mapping[str, str]]] = {
    "/agents/new": {"ttl": "15m"},
    "/agents/{name}/drain": {"lasting": "1h"},
    "/agents/{name}/revoke": {"keep": "quarantine"},
    "/objects/{path:path}": {"do": "check", "what": "", "blob": ""},
    "/routes/new": {
        "do": "check", "team": "shop", "name": "fresh", "agent-1": "vps-0", "port-1": "8081", "tls": "none",
    },
    "/tokens": {"kind": "person", "scope": "read", "expires": "1h"},
    "/traffic/{host}/weights": {"do": "check", "path": "routes/shop/two.yaml", "weight:vps-0:8081": "2"},
}  # fmt: skip
"""Path → what else is to be in a form for the rest to be looked at."""
_SEND: Final = """([action, fields]) => {
  const form = document.createElement("form");
  form.method = "post";
  form.action = action;
  for (const [name, value] of fields) {
    const one = document.createElement("textarea");
    one.name = name;
    one.value = value;
    form.append(one);
  }
  document.body.append(form);
  HTMLFormElement.prototype.submit.call(form);
}"""


@dataclass
class Walk:
    """``found``: what is wrong, each with its page. ``cookies``: of those who look, each in turn."""

    window: Window
    table: Table
    cookies: list[str]
    found: list[str] = field(default_factory=list)
    opened: dict[str, str] = field(default_factory=dict)
    """Address → its text."""
    forms: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """Method and path → the names of all fields that such a form had."""
    _count: int = 0

    def __post_init__(self) -> None:
        self.window.page.on("response", self._answered)

    def open(self, path: str, *, may_fail: bool = False) -> Looked:
        """Open a page as the next of those who look."""
        self._be(self._count)
        self.window.allowed |= {urlsplit(path).path} if may_fail else set()
        page = self.window.open(path)
        if urlsplit(path).path.endswith("/logs") and page.locator("#log-state").count():
            expect(page.locator("#log-state")).to_contain_text("Not following since")  # all has been said
        return self._take(path, page)

    def follow(self, paths: Iterable[str]) -> None:
        """Open pages, and those that go on with their lists."""
        waiting = list(dict.fromkeys(paths))
        for path in waiting:
            following = self.open(path, may_fail=path in REFUSED).next
            if following and following not in waiting:
                waiting.append(following)

    def send(self, path: str, fields: Iterable[tuple[str, str]]) -> None:
        """Send a form from a page of ours."""
        self.window.allowed.add(path)
        with self.window.page.expect_navigation(wait_until="load"):
            self.window.page.evaluate(_SEND, [path, [list(pair) for pair in fields]])
        self._take(f"POST {path}", self.window.page)

    # --- what strangers and people write into addresses and forms --------------------------------------------------

    def ask(self, path: str) -> None:
        """Ask a page by everything that pages can be asked by."""
        of_forms = self.forms.get(("get", path), set())
        names = sorted({*of_forms, *ASKED})
        usual = [name for name in names if name not in PARTICULAR]
        for wanted in (usual, names) if of_forms else (usual,):
            said = [(name, self._word("query", f"{path} {name}", number)) for number, name in enumerate(wanted)]
            self.open(f"{path.partition('?')[0]}?{urlencode(said)}", may_fail=True)

    def name(self, path: str) -> None:
        """Open a page of something that cannot be."""
        filled = re.sub(r"\{(\w+)(:path)?\}", lambda at: quote(self._word("path", at[0], 0), safe=""), path)
        self.open(filled, may_fail=True)

    def fill(self, endpoint: str, path: str) -> None:
        """Send a form twice: with payloads in all of its fields, and where it is good but for those that take any."""
        names = sorted(self.forms.get(("post", path), set()) | set(FIXED.get(endpoint, ())))
        for fixed in ({}, FIXED.get(endpoint, {})):
            words = [self._word("form", f"{endpoint} {name}", number) for number, name in enumerate(names)]
            self.send(path, [(name, fixed.get(name, word)) for name, word in zip(names, words, strict=True)])

    def notice(self, path: str) -> None:
        """Open a page with payloads in the cookie by which one page of ours tells the next what was done."""
        for first in range(0, COUNT, 4):
            words = [self.table.put("cookie", NOTICE_COOKIE, number) for number in range(first, first + 4)]
            value = quote(" ".join(words), safe="")
            self.window.page.context.add_cookies(
                [{"name": NOTICE_COOKIE, "value": value, "url": self.window.origin, "secure": True}]
            )
            self.open(path)

    def log_out(self) -> None:
        """Nobody is logged in from here on."""
        self.open("/")
        self.window.allowed.add("/api/v1/stream")  # the page before may still have asked what is new
        self.send("/logout", [])
        self.cookies = []

    # --- parts ----------------------------------------------------------------------------------------------------

    def _word(self, source: str, leaf: str, number: int) -> str:
        return self.table.put(source, leaf, (self._count + number) % len(MORE_PAYLOADS))

    def _be(self, number: int) -> None:
        if not self.cookies:
            self.window.page.context.clear_cookies()
            return
        value = self.cookies[number % len(self.cookies)]
        self.window.page.context.add_cookies(
            [{"name": SESSION_COOKIE, "value": value, "url": self.window.origin, "secure": True}]
        )

    def _take(self, path: str, page: Page) -> Looked:
        self._count += 1
        found = look(page)
        complaints = tuple(self.window.complaints)
        self.window.complaints.clear()
        self.window.allowed.clear()
        self.found += [f"{path}: {one}" for one in (*found.wrong, *complaints)]
        self.table.read(found.text)
        self.opened[path] = found.text
        for method, action, names in found.forms:
            self.forms.setdefault((method, action), set()).update(names)
        return found

    def _answered(self, response: Response) -> None:
        if response.status >= 500:
            self.found.append(f"{response.status}: {response.request.method} {response.url}")
