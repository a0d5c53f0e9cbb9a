"""Load the Traefik templates that ship with the package."""

from __future__ import annotations

from reconciler.errors import Broken
from reconciler.package_data import data_directory


def load_templates() -> dict[str, str]:
    """Read all of them: file name → source.

    Raises:
        Broken: when they are not there.
    """
    try:
        found = sorted((data_directory("templates") / "traefik").glob("*.j2"))
    except FileNotFoundError:
        found = []
    if not found:
        raise Broken("the Traefik templates are missing from this installation", hint="Install the package again.")
    return {path.name: path.read_text(encoding="utf-8") for path in found}
