"""Whom programs run as is what the server's owner granted their team."""

from __future__ import annotations

from typing import Final

import pytest

from agent.deployments.driver import DriverError
from agent.deployments.process_confinement import user_of
from agent.deployments.process_users import NOBODY, OWN, Users, require_grant
from agent.deployments.workload import Key, Workload
from schemas.deployment import DeploymentSpec

USERS: Final[Users] = {"shop": (1500, 1501), "data": (1600,)}


def process(user: str | None, team: str = "shop") -> Workload:
    found = {"type": "process", "agents": ["vps-1"], "command": ["/bin/web"], "user": user}
    return Workload(Key(team, "web"), DeploymentSpec.model_validate(found))


@pytest.mark.parametrize("users", [NOBODY, USERS])
def test_who_names_no_user_needs_no_grant(users: Users) -> None:
    """The default is a user of the deployment's own, which takes nothing from anybody."""
    require_grant(process(None), users)


@pytest.mark.parametrize("user", ["1500", "1501:1501", "1500:1501"])
def test_what_the_owner_lists_for_the_team_may_be_named(user: str) -> None:
    """An id that is listed counts for users and for groups."""
    require_grant(process(user), USERS)


@pytest.mark.parametrize(
    ("user", "team", "users"),
    [
        ("1500", "shop", NOBODY),
        ("1600", "shop", USERS),
        ("1500", "data", USERS),
        ("1500", "other", USERS),
        ("1500:1600", "shop", USERS),
        ("1600:1500", "shop", USERS),
    ],
)
def test_anybody_else_is_nobody_to_run_as(user: str, team: str, users: Users) -> None:
    """Neither what another team has nor a foreign group is taken on; it is tried again, for the owner may grant it."""
    with pytest.raises(DriverError, match=r"agent\.toml") as caught:
        require_grant(process(user, team), users)
    assert (caught.value.reason, caught.value.retryable) == ("NotGranted", True)


@pytest.mark.parametrize("user", ["0", "0:1500", "1500:0", "1900000000", "1500:1999999999"])
def test_root_and_what_deployments_get_by_themselves_are_never_granted(user: str) -> None:
    """Not even a list that has them helps, so trying again does not either."""
    with pytest.raises(DriverError, match=r"agent\.toml") as caught:
        require_grant(process(user), {"shop": (0, 1500, OWN[0], OWN[-1])})
    assert (caught.value.reason, caught.value.retryable) == ("NotGranted", False)


def test_what_deployments_get_by_themselves_is_in_the_range_that_nobody_names() -> None:
    """The range ends where its last id does."""
    assert all(user_of("vps-1", Key("shop", f"web-{number}")) in OWN for number in range(100))
    require_grant(process(str(OWN[-1] + 1)), {"shop": (OWN[-1] + 1,)})
