"""Which images the deployments of a team may run. PURE."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.desired.finding import FieldPath, Finding
from schemas.deployment import DeploymentSpec
from schemas.fleet import Team
from schemas.images import allows, repository


def images_not_granted(path: str, spec: DeploymentSpec, team: Team) -> Iterator[Finding]:
    """Yield what the team's list does not cover; without a list it may run any image."""
    if team.images is None:
        return
    for image, field in _images(spec):
        if not any(allows(pattern, image) for pattern in team.images):
            text = f'team "{team.name}" may not run image "{image}" ({repository(image)}).'
            known = ", ".join(team.images) or "none"
            hint = f"Grant it in fleet.yaml under teams, {team.name}, images; it has: {known}."
            yield Finding(path, "image-not-granted", text, hint, field)


def _images(spec: DeploymentSpec) -> Iterator[tuple[str, FieldPath]]:
    if spec.image is not None:
        yield spec.image, ("spec", "image")
    if spec.mongodb is not None and spec.mongodb.image is not None:
        yield spec.mongodb.image, ("spec", "mongodb", "image")
