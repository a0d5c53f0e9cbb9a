"""Volumes and files of programs lie beside the system, never over it."""

from __future__ import annotations

from collections.abc import Iterator

from reconciler.desired.finding import FieldPath, Finding
from schemas.deployment import DeploymentSpec
from schemas.mounts import refused


def mounts_are_beside_the_system(path: str, spec: DeploymentSpec) -> Iterator[Finding]:
    """Agents refuse the same; here it is said before anything is rolled out."""
    if spec.type != "process":
        return
    fields: list[tuple[FieldPath, str]] = [
        *((("spec", "volumes", index, "path"), one.path) for index, one in enumerate(spec.volumes)),
        *((("spec", "secretFiles", index, "path"), one.path) for index, one in enumerate(spec.secret_files)),
    ]
    found = refused(one for _, one in fields)
    for field, one in fields:
        if one in found:
            text = f"a program can have nothing at {one}: it {found[one]}."
            hint = "Use a path of its own, such as /srv/data for a volume and /run/secrets/key for a file."
            yield Finding(path, "mount-reserved", text, hint, field)
