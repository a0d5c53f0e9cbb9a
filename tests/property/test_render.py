"""For all strings: what is quoted reads back as itself, and a rule is exactly the one meant."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from yaml_rs import loads

from reconciler.desired.compile_problem import CompileProblem
from reconciler.desired.matching import http_matches, literal
from reconciler.desired.quoting import quote
from reconciler.desired.render import Renderer
from reconciler.desired.traefik_model import TraefikObject
from reconciler.traefik.templates import load_templates

RENDERER = Renderer(load_templates())
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    TEXT | st.booleans() | st.integers(-(2**53), 2**53),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)
ATTACKS = [
    '{{ env "HOME" }}',
    "{{7*7}}",
    "{% for x in y %}",
    "`) || Host(`victim.test",
    '"}}\n  evil: {"rule": "x"}',
    "\r\n# x",
    "\u2028\u2029\u0085\ufeff\x00\x1b[31m",
    "!!python/object:x",
    "*alias &anchor",
    "😀\U0010ffff\ufffe\uffff",
    "\\u007b\\u007b",
]


def attacks(test: Any) -> Any:
    for attack in ATTACKS:
        test = example(attack)(test)
    return test


@given(TEXT)
@attacks
def test_a_quoted_string_is_itself_to_every_reader(text: str) -> None:
    """JSON, YAML 1.2 in Rust and ruamel's YAML read the string back; Go's template engine finds no action in it."""
    quoted = quote(text)
    assert json.loads(quoted) == text
    assert loads(f"a: {quoted}\n") == {"a": text}
    assert YAML(typ="safe", pure=True).load(io.StringIO(f"a: {quoted}\n")) == {"a": text}
    assert not re.search(r"[{}\n\r\u2028\u2029]", quoted)


@given(VALUES)
def test_quoted_collections_are_themselves(value: Any) -> None:
    """Nested lists and dicts too, on one line without a template action."""
    quoted = quote(value)
    assert json.loads(quoted) == value
    assert "{{" not in quoted
    assert len(quoted.splitlines()) == 1


@given(TEXT, TEXT)
@example('{{ env "HOME" }}', "{{7*7}}")
@example('x"}}, "evil": {"compress": {', "\n")
def test_any_string_stays_one_value_in_a_document(name: str, value: str) -> None:
    """Whatever a header's name and value are, the document holds the one middleware and the marker, nothing else."""
    headers = {"headers": {"customRequestHeaders": {name: value}}}
    text = RENDERER.document(
        [RENDERER.fragments([TraefikObject("http.middlewares", name, headers)])], generation=3, revision=value
    )
    assert loads(text) == {
        "http": {
            "services": {f"cloudlunacy__generation-3-{value[:12]}": {"loadBalancer": {"servers": []}}},
            "middlewares": {name: headers},
        }
    }
    assert "{{" not in text


@given(TEXT)
@attacks
def test_a_literal_is_one_raw_string_or_refused(text: str) -> None:
    """What enters a rule is between the only two back-ticks of its literal and has no line end."""
    try:
        written = literal(text, ())
    except CompileProblem:
        assert "`" in text or not text.isascii() or not text.isprintable() or not text
    else:
        assert written == f"`{text}`"
        assert written.count("`") == 2


@given(TEXT)
@attacks
def test_a_host_cannot_widen_its_rule(host: str) -> None:
    """A rule has as many matchers as hosts, whatever the host is."""
    try:
        (match,) = http_matches((host,), ())
    except CompileProblem:
        return
    assert match.rule.startswith(("Host(`", "HostRegexp(`^"))
    assert match.rule.count("`") == 2
