"""What roles may do, in scopes: the one place that says so. PURE.

================  ==========================================================================
viewer            read, and with it plan
operator          that, and operate, approve, enrol, write
member of a team  what a viewer may; operate, write and exec with what is the team's
administrator     everything
================  ==========================================================================

Endpoints ask for scopes and know nothing of roles (``reconciler.web.endpoint``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from reconciler.pki.authenticator import OPERATOR_SCOPES
from schemas.fleet import Access

Role = Literal["viewer", "operator", "administrator"]
ROLES: Final[tuple[Role, ...]] = get_args(Role)
SCOPES: Final[Mapping[Role, frozenset[str]]] = {
    "viewer": frozenset({"read"}),
    "operator": frozenset({"read", "plan", "operate", "approve", "enrol", "write"}),
    "administrator": OPERATOR_SCOPES,
}
OF_MEMBERS: Final = frozenset({"operate", "write", "exec"})
"""What members of a team may do with what is that team's, beside what a viewer may do."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What somebody may do: ``scopes`` everywhere, and more with what is a team's."""

    roles: tuple[str, ...] = ()
    """The most powerful first, then ``member of TEAM``; for people."""
    scopes: frozenset[str] = frozenset()
    of_teams: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.scopes)

    def covers(self, scopes: Collection[str], of_teams: Mapping[str, Collection[str]]) -> bool:
        """Say whether all of this may still be done."""
        return self.scopes.issuperset(scopes) and all(
            (self.of_teams.get(team, frozenset()) | self.scopes).issuperset(held) for team, held in of_teams.items()
        )


NO_RIGHTS: Final = Rights()


def rights(roles: Iterable[Role], teams: Iterable[str]) -> Rights:
    """Return what somebody may do who has all of these roles and is a member of all of these teams."""
    held, members = set(roles), sorted(set(teams))
    if not held and not members:
        return NO_RIGHTS
    named = [role for role in reversed(ROLES) if role in held]
    return Rights(
        roles=(*named, *(f"member of {team}" for team in members)),
        scopes=frozenset({"read"}).union(*(SCOPES[role] for role in held)),
        of_teams=dict.fromkeys(members, OF_MEMBERS),
    )


def rights_of_groups(groups: Iterable[str], access: Access) -> Rights:
    """Return what somebody may do who is in these groups of the provider; nothing where none of them is named."""
    own = frozenset(groups)
    grants = [grant for grant in access.groups if grant.group in own]
    return rights(
        (grant.role for grant in grants if grant.role is not None),
        (grant.team for grant in grants if grant.team is not None),
    )
