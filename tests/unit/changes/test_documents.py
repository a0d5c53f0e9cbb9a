"""What a person wrote survives an edit, and what was wanted is what is read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.changes.documents import (
    backend_name,
    exact,
    merge_patch,
    patch_document,
    put_document,
    set_agent_state,
    set_weights,
)
from reconciler.desired.edits import EditConflict
from reconciler.desired.yaml_reader import read_mapping

PATH = "routes/shop/web.yaml"
EXAMPLE = Path(__file__).parents[3] / "state-repo-example"
FILES = sorted(str(path.relative_to(EXAMPLE)) for path in EXAMPLE.glob("[a-z]*/**/*.yaml"))
ROUTE = """\
# The shop.
apiVersion: cloudlunacy/v1
kind: Route
metadata:
  name: web    # as people know it

spec:
  type:   http
  # Both machines.
  backends:
  - {agent: vps-1,   port: 8081, weight: 3}
  - agent: vps-2   # the old one
    port: 8082
  # Plain for now.
  tls: { mode: none }
# The end.
"""


def changed_lines(before: str, after: str) -> list[str]:
    old, new = before.splitlines(), after.splitlines()
    return [line for line in new if line not in old]


def test_weights_change_two_lines() -> None:
    """Only the lines of the backends are written anew, comments and odd spaces stay."""
    after = set_weights(PATH, ROUTE, {"vps-1:8081": 90, "vps-2:8082": 10})
    assert changed_lines(ROUTE, after) == ["  - {agent: vps-1, port: 8081, weight: 90}", "    weight: 10"]
    assert [line for line in ROUTE.splitlines() if line not in after.splitlines()] == [
        "  - {agent: vps-1,   port: 8081, weight: 3}"
    ]
    backends = read_mapping(after.encode())["spec"]["backends"]
    assert [(backend_name(one), one["weight"]) for one in backends] == [("vps-1:8081", 90), ("vps-2:8082", 10)]


def test_weights_that_are_there_change_nothing() -> None:
    """What a weight is without being written counts as its weight."""
    assert set_weights(PATH, ROUTE, {"vps-1:8081": 3, "vps-2:8082": 1}) == ROUTE


@pytest.mark.parametrize(
    ("name", "says"), [("vps-9:1", "no backend"), ("vps-1", "it has: vps-1:8081, vps-2:8082")]
)  # fmt: skip
def test_weights_of_an_unknown_backend(name: str, says: str) -> None:
    """A name that fits nothing is refused, and the message says which there are."""
    with pytest.raises(EditConflict, match=says):
        set_weights(PATH, ROUTE, {name: 1})


def test_weights_of_backends_that_cannot_be_told_apart() -> None:
    """Two of one name are both left alone."""
    text = ROUTE.replace("vps-2", "vps-1").replace("8082", "8081")
    with pytest.raises(EditConflict, match="several backends"):
        set_weights(PATH, text, {"vps-1:8081": 1})


def test_agent_state_comes_and_goes() -> None:
    """Cordoning adds a line, taking it back removes it and nothing else."""
    text = (EXAMPLE / "agents/vps-1.yaml").read_text()
    cordoned = set_agent_state("agents/vps-1.yaml", text, "cordoned")
    assert changed_lines(text, cordoned) == ["  state: cordoned"]
    assert set_agent_state("agents/vps-1.yaml", cordoned, "active") == text


def test_a_key_goes_before_the_comment_of_what_follows() -> None:
    """A comment stays with the lines below it, though the parser hangs it to those above."""
    after = patch_document(PATH, ROUTE, {"metadata": {"labels": {"tier": "front"}}})
    assert "  name: web    # as people know it\n  labels:\n    tier: front\n\nspec:" in after
    after = patch_document(PATH, ROUTE, {"spec": {"sticky": {"name": "c"}}})
    assert after.endswith("  tls: { mode: none }\n  sticky:\n    name: c\n# The end.\n")


def test_the_comment_of_what_follows_outlives_what_goes() -> None:
    """Deleting a block leaves the comment that is about the next one."""
    after = patch_document(PATH, ROUTE, {"spec": {"backends": None}})
    assert after.endswith("  type:   http\n  # Both machines.\n  # Plain for now.\n  tls: { mode: none }\n# The end.\n")


def test_carriage_returns_stay() -> None:
    """A file with the line ends of another system keeps them."""
    text = ROUTE.replace("\n", "\r\n")
    after = set_weights(PATH, text, {"vps-2:8082": 7})
    assert after.count("\n") == after.count("\r\n")
    assert changed_lines(text, after) == ["    weight: 7"]


def test_a_document_is_put_into_a_file() -> None:
    """What is the same keeps its form, what differs is written, what is new follows what precedes it."""
    document = read_mapping(ROUTE.encode())
    assert put_document(PATH, ROUTE, document) == ROUTE
    document["spec"] = {"type": "http", "hostnames": ["a.example.com"], **document["spec"]}
    document["spec"]["backends"] = [document["spec"]["backends"][1]]
    after = put_document(PATH, ROUTE, document)
    assert read_mapping(after.encode()) == document
    assert changed_lines(ROUTE, after) == ["  hostnames: [a.example.com]"]
    assert "# the old one" in after


@pytest.mark.parametrize("text", ["a: &x 1\nb: *x\n", "[", "- list\n", None])
def test_a_file_that_cannot_be_kept_is_written_anew(text: str | None) -> None:
    """Whatever stood there, the document is what is read then."""
    document = {"apiVersion": "cloudlunacy/v1", "spec": {"on": "yes", "list": [1, {"a": "x"}], "text": "a\nb\n"}}
    assert read_mapping(put_document(PATH, text, document).encode()) == document


def test_a_file_that_cannot_be_read_is_not_patched() -> None:
    """What cannot be read cannot be changed in part."""
    with pytest.raises(EditConflict, match="mend it first"):
        patch_document(PATH, "a: [", {"a": 1})


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_as_the_standard_says(target: object, patch: object, result: object) -> None:
    """The examples of RFC 7396, appendix A."""
    assert merge_patch(target, patch) == result


# --- whatever is wanted -----------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["a", "name", "agent", "port", "spec", "x-y"])
SCALARS = (
    st.booleans()
    | st.integers(-1000, 100_000)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126) | st.just("\n"), max_size=12)
    | st.sampled_from(["yes", "on", "null", "0x10", "1e3", "# no", "a: b", " a ", "- x", "*a", "&a", "!t", "%", "1:2"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
DOCUMENTS: st.SearchStrategy[dict[str, Any]] = st.dictionaries(KEYS, VALUES, min_size=1, max_size=4)


@settings(max_examples=25)
@given(st.sampled_from(FILES), st.data())
def test_a_patched_file_reads_as_what_was_wanted(name: str, data: st.DataObject) -> None:
    """A value put anywhere into a file of the example is read there; all other lines are those that were there."""
    text = (EXAMPLE / name).read_text()
    document = read_mapping(text.encode())
    key = data.draw(st.sampled_from(sorted(document["spec"])))
    patch = {"spec": {key: data.draw(VALUES)}}
    try:
        after = patch_document(name, text, patch)
    except EditConflict:  # what could be taken for a tag or an alias is left to people
        assert re.search("[!&*%]", json.dumps(patch))
        return
    assert exact(read_mapping(after.encode())) == exact(merge_patch(document, patch))
    top = text.index("\nspec:")
    assert after.startswith(text[:top])


@settings(max_examples=25)
@given(st.sampled_from(FILES), st.data())
def test_comments_survive(name: str, data: st.DataObject) -> None:
    """A comment above a field that stays is still there, whatever else is changed."""
    text = (EXAMPLE / name).read_text()
    document = read_mapping(text.encode())
    key = data.draw(st.sampled_from(sorted(document["spec"])))
    index = next(place for place, line in enumerate(text.splitlines()) if line.startswith(f"  {key}:"))
    lines = text.splitlines(keepends=True)
    commented = "".join([*lines[:index], "  # Say why.\n", *lines[index:]])
    other = {one: None for one in document["spec"] if one != key and data.draw(st.booleans())}
    after = patch_document(name, commented, {"spec": other, "metadata": {"labels": {"a": "b"}}})
    assert f"  # Say why.\n  {key}:" in after


@settings(max_examples=40)
@given(DOCUMENTS, DOCUMENTS)
def test_any_document_becomes_any_other(old: dict[str, Any], new: dict[str, Any]) -> None:
    """What is put into a file is what is read from it."""
    for text in (json.dumps(old), put_document("x.yaml", None, old)):
        assert exact(read_mapping(put_document("x.yaml", text, new).encode())) == exact(new)


def test_items_below_a_comment_keep_their_indentation() -> None:
    """How lists are indented is seen in the first one, whatever stands above its first item."""
    text = "spec:\n  backends:\n    # Why.\n\n    - {agent: a, port: 1}\n    - {agent: b, port: 2}\n"
    assert set_weights(PATH, text, {"a:1": 5}) == text.replace("port: 1}", "port: 1, weight: 5}")
