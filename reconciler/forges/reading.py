"""Fields of what a forge answers. An answer of another shape is a forge that is not itself: try again later."""

from __future__ import annotations

from typing import Any

from reconciler.errors import Transient


def strange(what: str) -> Transient:
    return Transient(f"the forge answers without {what}.", reason="ForgeUnavailable")


def field(document: Any, *names: str) -> Any:  # noqa: ANN401 - JSON
    """Return what stands at a path of names, None where it ends early."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def text(document: Any, *names: str) -> str:  # noqa: ANN401 - JSON
    """Return a text, empty where there is none."""
    found = field(document, *names)
    return found if isinstance(found, str) else ""


def number(document: Any, *names: str) -> int:  # noqa: ANN401 - JSON
    """Return a number.

    Raises:
        Transient: there is none.
    """
    found = field(document, *names)
    if not isinstance(found, int) or isinstance(found, bool):
        raise strange(f'a number "{".".join(names)}"')
    return found


def items(document: Any) -> list[Any]:  # noqa: ANN401 - JSON
    """Return a list.

    Raises:
        Transient: it is none.
    """
    if not isinstance(document, list):
        raise strange("a list")
    return document
