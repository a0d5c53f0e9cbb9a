"""A composition always says what its routes say, whatever the order of changes, and shares what did not change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.desired.composition import Composition, Fragments, NameTaken, RenderedRoute, joined
from schemas.objects import ObjectKey


def key(team: str, name: str) -> ObjectKey:
    return ObjectKey("Route", team, name)


def rendered(name: str, text: str, *, point: str | None = None) -> RenderedRoute:
    return RenderedRoute(Fragments({"http.routers": {name: f"    {name}: {text}"}}), point)


KEYS = st.builds(key, st.sampled_from(["a", "b", "c"]), st.sampled_from(["x", "y", "z"]))
CHANGES = st.dictionaries(KEYS, st.none() | st.integers(0, 9), max_size=5)


@given(st.lists(CHANGES, max_size=6))
def test_the_text_follows_from_the_routes_alone(steps: list[dict[ObjectKey, int | None]]) -> None:
    """After any changes the composition equals one that is made of what is left, in order of team and name."""
    composition = Composition()
    left: dict[ObjectKey, int] = {}
    for step in steps:
        changes = {one: None if text is None else rendered(one.name, str(text)) for one, text in step.items()}
        composition = composition.replaced(changes)
        left = {one: text for one, text in (left | step).items() if text is not None}
    whole = Composition().replaced({one: rendered(one.name, str(left[one])) for one in sorted(left)})
    assert composition == whole
    assert list(composition.parts) == sorted({one.team for one in left})
    lines = b"\n".join(texts["http.routers"] for texts in composition.texts).decode()
    assert lines == "\n".join(f"    {one.name}: {left[one]}" for one in sorted(left))
    assert len(composition) == len(left)


def test_a_change_leaves_the_parts_of_other_teams_as_they_are() -> None:
    """The part of a team without changes is the same object, so its text is neither made nor copied again."""
    before = Composition().replaced({key("a", "x"): rendered("x", "1"), key("b", "x"): rendered("x", "1")})
    after = before.replaced({key("a", "x"): rendered("x", "2")})
    assert after.parts["b"] is before.parts["b"]
    assert after.get(key("a", "x")) == rendered("x", "2").fragments
    assert before.get(key("a", "x")) == rendered("x", "1").fragments


def test_a_team_without_routes_is_gone() -> None:
    """Its last route leaves no part behind, and what is not there can be taken out."""
    composition = Composition().replaced({key("a", "x"): rendered("x", "1")})
    assert composition.replaced({key("a", "x"): None, key("b", "y"): None}) == Composition()
    assert composition.get(key("a", "nope")) is None
    assert composition.get(key("nope", "x")) is None


def test_a_deployment_has_no_part_in_it() -> None:
    """It may be called like a route of its team, and is still not mistaken for it."""
    composition = Composition().replaced({key("a", "x"): rendered("x", "1")})
    assert composition.get(ObjectKey("Deployment", "a", "x")) is None


def test_entry_points_of_all_routes_are_known() -> None:
    """Each once, and gone with the last route that needs it."""
    composition = Composition().replaced(
        {key("a", "x"): rendered("x", "1", point="events"), key("b", "x"): rendered("x", "1", point="events")}
    )
    assert composition.tls_entry_points == {"events"}
    assert composition.replaced({key("a", "x"): None}).tls_entry_points == {"events"}
    assert composition.replaced({key("a", "x"): None, key("b", "x"): None}).tls_entry_points == frozenset()


def test_two_objects_of_one_name_are_refused() -> None:
    """A file that holds a key twice would be read as if the first were not there."""
    with pytest.raises(NameTaken):
        joined([rendered("x", "1").fragments, rendered("x", "2").fragments])
    with pytest.raises(NameTaken):
        Composition().replaced({key("a", "x"): rendered("same", "1"), key("a", "y"): rendered("same", "2")})
