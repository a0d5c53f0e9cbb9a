"""Values as a person edits them come back as they were, and mistakes are told without quoting one."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reconciler.desired.edits import EditConflict
from reconciler.desired.secret_text import from_text, to_text

PATH = "secrets/shop/db.yaml"
KEYS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", fullmatch=True)


@given(st.dictionaries(KEYS, st.text(max_size=300), min_size=1, max_size=4))
@example({"true": "true", "null": "null", "1": "1", "a": "~", "b": "0x1f", "c": "2020-01-01", "d": "=", "e": "<<"})
@example({"a": "\n", "b": "\n\n", "c": "x\n\n", "d": " x\ny", "e": "x \n", "f": "\tx\ny", "g": "x\r\ny", "h": "# x\ny"})
@example(
    {"a": "\x00", "b": "\x85\u2028\ufeff", "c": "\U0001f600\n", "d": "'\"\\", "e": "---\nx", "f": "...\n", "g": "-"}
)
@example({"a": "-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----\n"})
def test_any_values_come_back(values: dict[str, str]) -> None:
    """Whatever the editor is given and saves unchanged is what was there, in order."""
    assert list(from_text(to_text(PATH, values)).items()) == list(values.items())


def test_a_person_can_read_it() -> None:
    """Simple words stand alone, others in single quotes, several lines as a block; what cannot be seen is escaped."""
    text = to_text(PATH, {"a": "hunter2", "b": "it's {x} # 5", "c": "one\ntwo\n", "d": "one\ntwo", "e": "\x1b"})
    assert text.splitlines()[2:] == [
        "a: hunter2",
        "b: 'it''s {x} # 5'",
        "c: |",
        "  one",
        "  two",
        "d: |-",
        "  one",
        "  two",
        'e: "\\u001b"',
    ]
    assert PATH in text


@pytest.mark.parametrize("value", ["0123", "yes", "null", "~", "1e3", "2020-01-01", "0x1f", "1_000"])
def test_what_is_typed_is_text(value: str) -> None:
    """Nothing becomes a number, a date or a truth value."""
    assert from_text(f"a: {value}\n") == {"a": value}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no value"),
        ("# nothing\n", "holds no value"),
        ("canary", "not written as KEY: VALUE"),
        ("- canary", "not written as KEY: VALUE"),
        ("a: 'canary", "not written as KEY: VALUE \\(line 1, column"),
        ("a: x\nb: canary: y\n", "not written as KEY: VALUE \\(line 2, column"),
        ("a: canary\na: x\n", "stands twice \\(line 2, column 1"),
        ("canary key!: x\n", "Key 1 is no key"),
        (f"a: x\n{'k' * 64}: x\n", "Key 2 is no key"),
        ("a: [canary]\n", 'value of "a" is no text'),
        ("a: {canary: x}\n", 'value of "a" is no text'),
        ("a: " + "x" * 70_000, "longer than"),
        ("[" * 5000, "not written as KEY: VALUE"),
    ],
)
def test_mistakes_are_told_by_their_place(text: str, sentence: str) -> None:
    """A sentence says where, and nothing of what stands there."""
    with pytest.raises(EditConflict, match=sentence) as refusal:
        from_text(text)
    assert "canary" not in str(refusal.value)
    assert refusal.value.__cause__ is None
