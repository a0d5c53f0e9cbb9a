"""Users of the server that its owner lets programs of some teams run as, by their ids. PURE.

A deployment that names none has an id of its own (``OWN``) and needs nobody's leave. Whoever runs as somebody else's id
is taken for that account: by sockets that ask who is there, by keyrings, by limits that count a user.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final

from agent.deployments.driver import DriverError
from agent.deployments.workload import Workload

OWN: Final = range(1_900_000_000, 2_000_000_000)
"""Ids that deployments get by themselves. None can be named or granted: it may be another deployment's."""

Users = Mapping[str, Collection[int]]
"""Team → ids, of users and groups alike."""
NOBODY: Final[Users] = MappingProxyType({})


def require_grant(workload: Workload, users: Users) -> None:
    """Let a workload pass that names no user, or a user and group that its team was granted.

    Raises:
        DriverError: the owner lets no program of that team run as one of them.
    """
    named = workload.spec.user
    for one in map(int, named.split(":") if named is not None else ()):
        if one == 0:
            raise DriverError("NotGranted", "Programs do not run as root, whatever agent.toml says; name another user.")
        if one in OWN:
            text = f"Ids such as {one} are of deployments that name no user, and agent.toml gives none of them away."
            raise DriverError("NotGranted", text)
        team = workload.key.team
        if one not in users.get(team, ()):
            # the same words whether another team has it or the server knows it: neither is this team's business
            text = f"This server lets no program of team {team} run as {one} (users of [processes] in agent.toml)."
            raise DriverError("NotGranted", text, retryable=True)
