"""Load the templates that ship with the package."""

from __future__ import annotations

from pathlib import Path

from reconciler.errors import Broken

_PACKAGE = Path(__file__).resolve().parent.parent


def load_templates() -> dict[str, str]:
    """Read all Traefik templates: file name → source. From the wheel's data, or from the repository in a checkout.

    Raises:
        Broken: when they are not there.
    """
    for folder in (_PACKAGE / "_data" / "templates" / "traefik", _PACKAGE.parent / "templates" / "traefik"):
        found = sorted(folder.glob("*.j2"))
        if found:
            return {path.name: path.read_text(encoding="utf-8") for path in found}
    raise Broken("the Traefik templates are missing from this installation", hint="Install the package again.")
