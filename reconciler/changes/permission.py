"""Who may write which file. Pure: a list of checks, each with its reason.

A change touches the files of objects and no others. Whose they are is said by their path: those of a team need
``write`` for that team, agents and certificates need it for all, ``fleet.yaml`` decides what others may and needs
``admin``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, Protocol

from reconciler.errors import Refused
from schemas.agent import Agent
from schemas.fleet import Fleet
from schemas.objects import FLEET_PATH, TEAM_KINDS, AnyObject, ObjectKey, key_of_path

_HINT: Final = (
    "Objects lie at fleet.yaml, agents/<name>.yaml, certificates/<name>.yaml, and routes/, deployments/ or "
    "secrets/<team>/<name>.yaml."
)


class Caller(Protocol):
    """:class:`reconciler.pki.authenticator.Identity`."""

    def require(self, scope: Literal["admin", "write", "enrol"], team: str | None = None) -> None:
        """Refuse who may not do it.

        Raises:
            Refused: 403.
        """
        ...


def keys_of(paths: Iterable[str]) -> dict[str, ObjectKey]:
    """Return the key that each path stands for.

    Raises:
        Refused: 422 ``not-an-object``, 422 ``twice``.
    """
    keys: dict[str, ObjectKey] = {}
    for path in paths:
        key = key_of_path(path)
        if key is None:
            raise Refused(f'No object belongs at "{path}".', status=422, code="not-an-object", hint=_HINT)
        if path in keys:
            raise Refused(f'"{path}" is named twice in one change.', status=422, code="twice")
        keys[path] = key
    return keys


def require_writable(caller: Caller, keys: Iterable[ObjectKey]) -> None:
    """Refuse who may not write one of these files.

    Raises:
        Refused: 403 ``insufficient-scope``, ``other-team``.
    """
    for key in keys:
        if key.kind == "Fleet":
            caller.require("admin")
        else:
            caller.require("write", key.team if key.kind in TEAM_KINDS else None)


def require_enrolling(caller: Caller, before: AnyObject | None, after: AnyObject | None) -> None:
    """Writing the key of an agent lets in who has that key: it needs what making an enrolment token needs.

    Raises:
        Refused: 403 ``insufficient-scope``.
    """
    known = before.spec.identity if isinstance(before, Agent) else None
    wanted = after.spec.identity if isinstance(after, Agent) else None
    if wanted is not None and wanted != known:
        caller.require("enrol")


def becomes_proposal(fleet: Fleet, paths: Iterable[str], wanted: bool | None) -> bool:
    """Say whether a change goes onto a branch of its own.

    Raises:
        Refused: 403 ``pull-request-needed``; 403 ``signature-needed`` for the fleet file of a fleet that asks for
            signatures, because what is committed here carries none.
    """
    proposal = wanted if wanted is not None else fleet.spec.changes.mode == "pull-request"
    if not proposal and fleet.spec.changes.mode == "pull-request":
        text = "Changes of this fleet are pull requests (spec.changes.mode in fleet.yaml)."
        raise Refused(text, status=403, code="pull-request-needed", hint="Leave proposal out, or set it to true.")
    if not proposal and fleet.spec.signatures.mode != "none" and FLEET_PATH in paths:
        text = "This fleet asks for signed commits, and fleet.yaml says so itself: only a signed commit may change it."
        raise Refused(text, status=403, code="signature-needed", hint="Push a signed commit, or set proposal to true.")
    return proposal
