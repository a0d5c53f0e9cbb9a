"""Conditions on objects: who has seen which version."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from reconciler.errors import Refused
from reconciler.web.preconditions import Tags, if_match, if_none_match, is_known, require_match

BLOB = "a" * 40


def asking(**headers: str) -> Request:
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": lines})


@pytest.mark.parametrize(
    ("header", "tags"),
    [
        ("*", Tags(True, ())),
        ('"a"', Tags(False, ("a",))),
        ('W/"a", "b" ,"c"', Tags(False, ("b", "c"), ("a",))),
    ],
)
def test_tags_are_read(header: str, tags: Tags) -> None:
    """A star, or a list of tags; weak ones are kept apart."""
    assert if_match(asking(if_match=header)) == if_none_match(asking(if_none_match=header)) == tags
    assert if_match(asking()) is None


@pytest.mark.parametrize("header", ["", "a", '"a', '"a",', '"a" "b"', '*, "a"'])
def test_what_is_no_tag_is_refused(header: str) -> None:
    """Nobody guesses what was meant."""
    with pytest.raises(Refused) as refused:
        if_match(asking(if_match=header))
    assert (refused.value.status, refused.value.code) == (400, "bad-condition")


def test_who_saw_it_may_change_it() -> None:
    """The version or the revision that is there counts; a weak tag and any other do not."""
    for good in (None, Tags(True, ()), Tags(False, (BLOB,)), Tags(False, ("r",))):
        require_match(good, BLOB, revision="r")
    for bad in (Tags(False, ("b",)), Tags(False, (), (BLOB,))):
        with pytest.raises(Refused, match="was changed since"):
            require_match(bad, BLOB, revision="r")
    with pytest.raises(Refused, match="no such object"):
        require_match(Tags(True, ()), "", revision="r")
    assert is_known(Tags(False, (), (BLOB,)), BLOB)
    assert not is_known(None, BLOB)
