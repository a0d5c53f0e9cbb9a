"""Edits of a secret touch the lines of the values that change, and no others."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.edits import EditConflict
from reconciler.desired.parse import parse_file
from reconciler.desired.secret_file import new_file, sealed_values, with_values
from reconciler.desired.yaml_editing import load
from schemas.secret import Secret
from tests.support.documents import SEALED

PATH = "secrets/shop/db.yaml"
OTHER = SEALED.replace("YWdl", "b3RoZXI=\nb3RoZXI=")
WRITTEN = f"""\
# yaml-language-server: $schema=../../.cloudlunacy/schemas/secret.json
apiVersion: cloudlunacy/v1
kind: Secret   # of the shop
metadata: {{name: db}}

spec:
  # all of them
  sealed:
    # of the user "shop"
    password: |   # since May
      {SEALED.strip().replace(chr(10), chr(10) + "      ")}

    # before the URI
    "uri": |-
      {SEALED.strip().replace(chr(10), chr(10) + "      ")}
    # before the key
    api-key: "{SEALED.replace(chr(10), chr(92) + "n")}"  # quoted
    # last
  # end of sealed
# end of file
"""


def values(content: bytes) -> dict[str, object]:
    return sealed_values(PATH, load(PATH, content)[1])


def changed(**changes: str | None) -> tuple[list[str], list[str]]:
    """Return the lines that an edit of WRITTEN takes away and adds, without those of the armour."""
    edited = with_values(PATH, WRITTEN.encode(), {key.replace("_", "-"): value for key, value in changes.items()})
    before, after = WRITTEN.splitlines(), edited.decode().splitlines()
    assert parse_file(PATH, "b", edited).object is not None
    gone = [line for line in before if line not in after]
    new = [line for line in after if line not in before]
    return [line for line in gone if "=" not in line], [line for line in new if "=" not in line]


def test_a_new_file_is_a_secret_with_the_header_for_editors() -> None:
    """What is written first is valid, and looks like the example."""
    written = new_file("db", {"password": SEALED, "true": OTHER})
    found = parse_file(PATH, "b", written).object
    assert isinstance(found, Secret)
    assert found.spec.sealed == {"password": SEALED, "true": OTHER}
    assert written.decode().splitlines()[:8] == [
        "# yaml-language-server: $schema=../../.cloudlunacy/schemas/secret.json",
        "apiVersion: cloudlunacy/v1",
        "kind: Secret",
        "metadata:",
        "  name: db",
        "spec:",
        "  sealed:",
        "    password: |",
    ]


@pytest.mark.parametrize("key", ["password", "uri", "api-key"])
def test_a_value_is_replaced_in_its_place(key: str) -> None:
    """Comments, order and the other values stay as they are written."""
    edited = with_values(PATH, WRITTEN.encode(), {key: OTHER})
    assert values(edited) == {**values(WRITTEN.encode()), key: OTHER}
    assert list(values(edited)) == ["password", "uri", "api-key"]
    assert [line for line in WRITTEN.splitlines() if "#" in line and key not in line] == [
        line for line in edited.decode().splitlines() if "#" in line and key not in line
    ]


def test_only_the_lines_of_the_value_differ() -> None:
    """The line with the key keeps its comment, and takes the form of a literal."""
    assert changed(password=OTHER) == ([], [])
    assert changed(uri=OTHER) == (['    "uri": |-'], ['    "uri": |'])
    assert changed(api_key=OTHER)[1] == ["    api-key: |  # quoted"]


def test_a_new_value_comes_after_the_last() -> None:
    """In the order in which they were given, indented as the others."""
    assert changed(first=OTHER, second=OTHER) == ([], ["    first: |", "    second: |"])
    edited = with_values(PATH, WRITTEN.encode(), {"first": OTHER, "true": OTHER, "1.0": OTHER})
    assert list(values(edited)) == ["password", "uri", "api-key", "first", "true", "1.0"]


def test_a_value_is_taken_out_and_comments_stay() -> None:
    """A comment may be about more than the value below it, so a person decides about it."""
    edited = with_values(PATH, WRITTEN.encode(), {"uri": None, "none": None})
    assert list(values(edited)) == ["password", "api-key"]
    assert "    # before the URI\n    # before the key\n" in edited.decode()


@pytest.mark.parametrize(
    "content",
    [
        WRITTEN.replace("\n", "\r\n"),
        WRITTEN.rstrip("\n"),
        "\n".join(" " * (len(line) - len(line.lstrip())) + line for line in WRITTEN.split("\n")),
        f"kind: Secret\nspec:\n  sealed:\n    password: |\n      {OTHER.strip().replace(chr(10), chr(10) + '      ')}",
        "kind: Secret\nspec:\n  sealed:\n    password:  # to come\n    x: y\n",
        "kind: Secret\nspec:\n  sealed:\n    password: forgotten to\n      be sealed  # oh\n    x: y\n",
        "kind: Secret\nspec:\n  sealed:\n    password: >-\n\n      forgotten\n\n\n    x: y",
        "kind: Secret\nspec:\n  sealed:\n    x: y\n    password: |+\n      forgotten\n\n\n\n",
    ],
)  # fmt: skip
def test_other_ways_to_write_a_file_are_kept(content: str) -> None:
    """Line ends, indentation, missing line ends and values that nobody sealed."""
    edited = with_values(PATH, content.encode(), {"password": OTHER, "new": SEALED})
    assert values(edited) == {**values(content.encode()), "password": OTHER, "new": SEALED}
    assert ("\r\n" in content) == (b"\r\n" in edited)
    assert edited.count(b"#") == content.count("#")
    assert b"forgotten" not in edited


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("kind: Secret\nspec: {sealed: {a: b}}\n", "cannot be edited without changing its form"),
        ("kind: Secret\nspec:\n  sealed: {a: canary}\n", "cannot be edited without changing its form"),
        ("kind: Secret\nspec:\n  sealed:\n    a:\n      b: canary\n    c: d\n", "cannot be edited without"),
        ("kind: Secret\nspec:\n  sealed:\n    ? a\n    : canary\n    c: d\n", "cannot be edited without"),
        ("kind: Secret\nspec:\n  sealed:\n    a: &x canary\n    c: *x\n", "uses YAML aliases"),
        ("kind: Secret\nspec:\n  sealed: canary\n", "is no secret with values"),
        ("kind: Route\nspec:\n  sealed:\n    a: canary\n", "is no secret with values"),
        ("kind: Secret\nspec: canary\n", "is no secret with values"),
        ("- canary\n", "holds no object"),
        ("", "holds no object"),
        ("a: 'canary\n", "cannot be read as YAML"),
        ("# " + "x" * 70_000, "is larger than"),
    ],
)
def test_what_cannot_be_edited_is_refused_without_its_values(content: str, sentence: str) -> None:
    """A sentence names the file; nothing is written, and nothing of the file is said."""
    with pytest.raises(EditConflict, match=sentence) as refusal:
        with_values(PATH, content.encode(), {"a": OTHER})
    assert PATH in str(refusal.value)
    assert "canary" not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_a_file_does_not_outgrow_what_is_read() -> None:
    """What the control plane would not read is not written."""
    with pytest.raises(EditConflict, match="would be larger"):
        with_values(PATH, WRITTEN.encode(), {"a": SEALED.replace("YWdl", "YWdl\n" * 15_000)})


def test_the_last_value_is_not_taken_out() -> None:
    """A secret without values is none."""
    with pytest.raises(EditConflict, match="delete the file instead"):
        with_values(PATH, new_file("db", {"a": SEALED}), {"a": None})


KEYS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
REMARKS = st.text(string.ascii_letters + " #:|'\"-", max_size=20).map(lambda text: f"# {text}".rstrip())
ARMOURS = st.text(string.ascii_letters + "+/=", min_size=1, max_size=200).map(
    lambda body: f"-----BEGIN AGE ENCRYPTED FILE-----\n{body}\n-----END AGE ENCRYPTED FILE-----\n"
)


@given(
    entries=st.dictionaries(KEYS, st.tuples(ARMOURS, REMARKS, st.booleans()), min_size=1, max_size=5),
    changes=st.dictionaries(KEYS, st.one_of(st.none(), ARMOURS), max_size=5),
    data=st.data(),
)
def test_any_edit_does_what_it_says_and_keeps_every_comment(
    entries: dict[str, tuple[str, str, bool]], changes: dict[str, str | None], data: st.DataObject
) -> None:
    """Whatever the comments, keys and changes: the values are those wanted, and no comment is lost or moved."""
    content = new_file("db", {key: armour for key, (armour, _, _) in entries.items()}).decode()
    for (_, remark, above), line in zip(
        entries.values(), [line for line in content.splitlines() if line.endswith(": |")], strict=True
    ):
        content = content.replace(line, f"    {remark}\n{line}" if above else f"{line} {remark}", 1)
    known = data.draw(st.lists(st.sampled_from(sorted(entries)), unique=True))
    changes |= {key: data.draw(st.one_of(st.none(), ARMOURS)) for key in known}
    wanted = {**{key: armour for key, (armour, _, _) in entries.items()}, **changes}
    wanted = {key: armour for key, armour in wanted.items() if armour is not None}
    if not wanted:
        with pytest.raises(EditConflict):
            with_values(PATH, content.encode(), changes)
        return
    edited = with_values(PATH, content.encode(), changes)
    assert values(edited) == wanted
    kept = [remark for key, (_, remark, above) in entries.items() if above or key in wanted]
    found = [line.strip() if line.strip().startswith("#") else line.partition(": | ")[2]
             for line in edited.decode().splitlines()[1:] if "#" in line]  # fmt: skip
    assert sorted(found) == sorted(kept)
