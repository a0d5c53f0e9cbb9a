"""What roles may do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from reconciler.access.roles import NO_RIGHTS, ROLES, Rights, Role, rights, rights_of_groups
from reconciler.pki.authenticator import OPERATOR_SCOPES, Identity
from schemas.fleet import Access, FleetSpec

ALL: tuple[str, ...] = tuple(sorted(OPERATOR_SCOPES))
GROUPS = st.lists(st.sampled_from(["devs", "ops", "shop", "Ops", "nobody"]), max_size=4)
ACCESS = Access.model_validate(
    {
        "groups": [
            {"group": "devs", "role": "viewer"},
            {"group": "ops", "role": "operator"},
            {"group": "root", "role": "administrator"},
            {"group": "shop", "team": "shop"},
            {"group": "shop", "team": "blog"},
        ]
    }
)


def identity(found: Rights) -> Identity:
    return Identity("person", "ada", found.scopes, "s1", of_teams=found.of_teams)


def allowed(found: Rights, team: str | None = None) -> set[str]:
    return {scope for scope in ALL if identity(found).may(scope, team)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("role", "scopes"),
    [
        ("viewer", {"read", "plan"}),
        ("operator", {"read", "plan", "operate", "approve", "enrol", "write"}),
        ("administrator", set(ALL)),
    ],
)
def test_a_role_may_what_the_table_says(role: Role, scopes: set[str]) -> None:
    """And the same with what is a team's as with everything."""
    assert allowed(rights([role], [])) == allowed(rights([role], []), "shop") == scopes


def test_a_member_runs_and_changes_what_is_the_teams() -> None:
    """Everywhere else a member is a viewer."""
    member = rights([], ["shop"])
    assert allowed(member) == allowed(member, "blog") == {"read", "plan"}
    assert allowed(member, "shop") == {"read", "plan", "operate", "write", "exec"}
    assert member.roles == ("member of shop",)


def test_no_role_but_the_administrators_makes_tokens_or_sessions() -> None:
    """Who could make credentials could have every scope."""
    assert [role for role in ROLES if "admin" in allowed(rights([role], ["shop"]), "shop")] == ["administrator"]


def test_groups_give_what_the_fleet_file_says() -> None:
    """All groups count together; letters count as they are; who is in none may nothing at all."""
    found = rights_of_groups(["ops", "shop", "unknown"], ACCESS)
    assert found.roles == ("operator", "member of blog", "member of shop")
    assert allowed(found, "shop") == {"read", "plan", "operate", "approve", "enrol", "write", "exec"}
    for strangers in ([], ["OPS"], ["unknown"], ["ops "]):
        assert rights_of_groups(strangers, ACCESS) == NO_RIGHTS
    assert not NO_RIGHTS
    assert allowed(NO_RIGHTS, "shop") == set()


@given(GROUPS, GROUPS)
def test_more_groups_never_take_anything_away(some: list[str], more: list[str]) -> None:
    """What few groups may, those and others may; what is not covered is seen."""
    few, many = rights_of_groups(some, ACCESS), rights_of_groups([*some, *more], ACCESS)
    assert many.covers(few.scopes, few.of_teams)
    assert few.covers(many.scopes, many.of_teams) == (allowed(many) <= allowed(few) and all(
        allowed(many, team) <= allowed(few, team) for team in many.of_teams
    ))  # fmt: skip


def test_the_fleet_file_names_teams_that_there_are() -> None:
    """A grant has a role or a team, and a team that is listed."""
    FleetSpec.model_validate({"domain": "a.example", "teams": [{"name": "shop"}],
                              "access": {"groups": [{"group": "x", "team": "shop"}]}})  # fmt: skip
    for wrong in ({"group": "x"}, {"group": "x", "team": "shop", "role": "viewer"}, {"group": "x", "team": "shop"},
                  {"group": "", "role": "viewer"}, {"group": "a\nb", "role": "viewer"},
                  {"group": "x", "role": "root"}):  # fmt: skip
        with pytest.raises(ValidationError):
            FleetSpec.model_validate({"domain": "a.example", "access": {"groups": [wrong]}})
