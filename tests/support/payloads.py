"""What an attacker writes wherever something may be written (docs/threats.md, 18), and how to tell that it stayed text.

:class:`Table` marks each payload that it hands out, so that one can tell where it came from when it is seen again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from playwright.sync_api import Page

from schemas.text import visible

PAYLOADS: Final = (
    "<script>window.owned=1;alert(1)</script>",
    '"><img src=x onerror="window.owned=1">',
    "javascript:window.owned=1",
    "<svg/onload=window.owned=1>",
    "{{7*7}}${7*7}{% raw %}",
    "\u202egpj.exe\u2066",
    "\x1b[31mred\x1b]0;title\x07",
    "'-window.owned-' onmouseover='window.owned=1'",
    "</textarea></title></style><iframe src=javascript:alert(1)>",
)
MORE_PAYLOADS: Final = (
    *PAYLOADS,
    "</script><script>window.owned=1</script>",
    "data:text/html,<script>window.owned=1</script>",
    "java\tscr\nipt:window.owned=1",
    "<a href=x onclick=window.owned=1>here</a>",
    "&lt;script&gt;window.owned=1&lt;/script&gt;",
    "<style>main{background:url(//evil.example)}</style>",
    "` onmouseover=`window.owned=1` x=`",
)
"""Shorter than 60 characters, so that each fits with its mark into every field that is for words."""
_MARK: Final = re.compile(r";z[0-9a-z]{3}")
_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"
_TERMINAL: Final = "\x1b[31mred\x1b]0;title\x07"
_SHAPELESS: Final = dict.fromkeys(map(ord, "\x1b\x07\u202e\u2066"))


class Row(NamedTuple):
    """A payload in one place: ``source`` is whose, such as ``Route``, and ``leaf`` which field of it."""

    source: str
    leaf: str
    payload: int
    text: str


@dataclass
class Table:
    """Every payload that was supplied, by its mark."""

    rows: dict[str, Row] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)

    def put(self, source: str, leaf: str, payload: int, without: str = "") -> str:
        """Return the payload of this number with a mark of its own, and remember where it is put.

        ``without``: characters that cannot even be written there.
        """
        number = len(self.rows)
        mark = ";z" + "".join(_DIGITS[number // 36**place % 36] for place in (2, 1, 0))
        text = MORE_PAYLOADS[payload % len(MORE_PAYLOADS)].translate(dict.fromkeys(map(ord, without))) + mark
        self.rows[mark] = Row(source, leaf, payload % len(MORE_PAYLOADS), text)
        return text

    def are(self, source: str) -> dict[str, set[int]]:
        """Return the leaves of a source, each with the payloads that were put there."""
        found: dict[str, set[int]] = {}
        for row in self.rows.values():
            if row.source == source:
                found.setdefault(row.leaf, set()).add(row.payload)
        return found

    def each(self, source: str, leaf: str) -> Iterator[str]:
        """Yield all payloads for one place, or in other words for a list of them."""
        for payload in range(len(MORE_PAYLOADS)):
            yield self.put(source, leaf, payload)

    def read(self, text: str) -> None:
        """Take note of the rows that a page shows whole, as text."""
        shown = "".join(text.split())
        for mark in set(_MARK.findall(shown)) & self.rows.keys() - self.seen:
            if any("".join(one.split()) in shown for one in spellings(self.rows[mark].text)):
                self.seen.add(mark)

    def unseen(self) -> dict[tuple[str, str], set[int]]:
        """Return source and leaf → the payloads that no page has shown whole."""
        found: dict[tuple[str, str], set[int]] = {}
        for mark in self.rows.keys() - self.seen:
            row = self.rows[mark]
            found.setdefault((row.source, row.leaf), set()).add(row.payload)
        return found


def spellings(text: str) -> tuple[str, ...]:
    """Return how people may read a text: as it is, in a file of JSON, and without what has no shape."""
    plain = text.translate(_SHAPELESS)
    found = (text, plain, text.replace(_TERMINAL, "red").translate(_SHAPELESS), json.dumps(text)[1:-1])
    return tuple(dict.fromkeys(map(visible, (*found, *("".join(one.split()) for one in found)))))


_LOOK: Final = r"""
() => {
  const all = [...document.querySelectorAll("*")], name = (one) => one.outerHTML.slice(0, 200), wrong = [];
  const note = (what, found) => wrong.push(...found.map((one) => `${what}: ${name(one)}`));
  const leads = (value) => {
    try {
      const url = new URL(value, document.baseURI);
      return /^https?:$/.test(url.protocol) && url.origin === location.origin;
    } catch { return false; }
  };
  note("handler", all.filter((one) => [...one.attributes].some((at) => /^on|^srcdoc$/i.test(at.name))));
  for (const at of ["href", "src", "action", "formaction", "data", "poster", "xlink:href", "ping", "background"])
    note(`leads elsewhere by ${at}`, all.filter((one) => one.hasAttribute(at) && !leads(one.getAttribute(at))));
  const mine = "main svg.falls, main svg.share-bar, main figure.chart svg, main svg.lifetime";
  note("element", [...document.querySelectorAll(
    "main img, main iframe, main frame, main script, main object, main embed, main base, main link, main meta, " +
    "main style, main video, main audio, main template, main svg script, main svg foreignObject, main svg a, " +
    "main math, main marquee")]);
  note("drawing", [...document.querySelectorAll("main svg")].filter((one) => !one.matches(mine)));
  note("style", all.filter((one) => /evil|url|expression/i.test(one.getAttribute("style") ?? "")));
  const said = [document.documentElement.textContent];
  for (const one of all)
    for (const at of ["value", "title", "aria-label", "placeholder", "alt", "content", "data-follow", "data-label"])
      if (one.hasAttribute(at)) said.push(one.getAttribute(at));
  for (const one of document.querySelectorAll("textarea, input")) said.push(one.value);
  return {
    owned: window.owned ?? null, wrong, violations: window.__violations ?? [], text: said.join("\n"),
    next: document.querySelector("a[rel=next]")?.getAttribute("href") ?? "",
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    broad: all.filter((one) => one.getBoundingClientRect().right > innerWidth + 1 && !one.closest(".scroll, pre"))
      .slice(0, 6).map((one) => `${one.localName}.${one.className}`),
    forms: [...document.forms].map((one) => [
      one.getAttribute("method") ?? "get", new URL(one.getAttribute("action") ?? "", location.href).pathname,
      [...one.elements].map((field) => field.name).filter(Boolean)]),
  };
}
"""
_UNSEEN: Final = re.compile("[\u202a-\u202e\u2066-\u2069\x1b\x07\x00]")


class Looked(NamedTuple):
    """A page as it was found. ``wrong``: why it is not inert, or not fit to be read."""

    text: str
    next: str
    """Address of the page that goes on with a list."""
    forms: tuple[tuple[str, str, list[str]], ...]
    """Method, path and names of fields."""
    wrong: tuple[str, ...]


def look(page: Page) -> Looked:
    """Look whether something on a page is more than text, and whether all of it can be read."""
    found: dict[str, Any] = page.evaluate(_LOOK)
    wrong = [*found["wrong"], *(f"policy: {one}" for one in found["violations"])]
    if found["owned"] is not None:
        wrong.append("a script of theirs ran")
    if hidden := _UNSEEN.search(found["text"]):
        at = hidden.start()
        wrong.append(f"U+{ord(hidden[0]):04X} in the text: {found['text'][max(0, at - 60) : at + 60]!r}")
    if found["wide"] > 0:
        wrong.append(f"{found['wide']} px too wide: {found['broad']}")
    return Looked(found["text"], found["next"], tuple(map(tuple, found["forms"])), tuple(wrong))
