"""What the API says of a front: what its Traefik has loaded, and where it takes connections for databases."""

from __future__ import annotations

from reconciler.errors import Broken, Transient
from reconciler.steps.fronts import Front
from schemas.api import FrontStatus
from schemas.fleet import Fleet


async def front_status(front: Front, fleet: Fleet | None) -> FrontStatus:
    """Ask a front's Traefik; where it does not answer, the message says why."""
    said = FrontStatus(name=front.name, file=str(front.file.path))
    try:
        found = await front.api.entry_point(fleet.spec.entry_points.mongodb) if fleet is not None else None
        return said.model_copy(
            update={
                "loaded_generation": await front.api.generation(),
                "mongodb_port": found[1] if found is not None else None,
            }
        )
    except (Transient, Broken) as error:
        return said.model_copy(update={"message": str(error)})
