"""What the fleet lets people do on this agent, as the agent's own item says it."""

from __future__ import annotations

from collections.abc import Sequence

from agent.services import Service
from schemas.session import EXEC, Item, ItemResult


class Allowance:
    """The service for kind Agent, which it leaves to another; what it has seen there last counts.

    Called with a team it says whether people may run programs in what that team deploys. Without a document: no.
    """

    def __init__(self, service: Service) -> None:
        self.kinds = service.kinds
        self._service = service
        self._teams: frozenset[str] = frozenset()

    def __call__(self, team: str) -> bool:
        return team in self._teams

    async def apply(self, items: tuple[Item, ...]) -> Sequence[ItemResult]:
        found = [team for item in items for team in _listed(item.spec.get(EXEC))]
        self._teams = frozenset(found)
        return await self._service.apply(items)


def _listed(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []
