"""What can be said of a state only once it is settled.

Grants that the fleet has taken back while what was granted stays in service (docs/adr/0012), and names of services that
no route leads to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from reconciler.desired.finding import Finding
from reconciler.desired.policy import check
from reconciler.desired.service_names import ServiceNames
from reconciler.desired.state import State
from reconciler.desired.view import View
from schemas.objects import key_of_path

GRANTS: Final = frozenset(
    {
        "agent-not-granted",
        "host-not-owned",
        "image-not-granted",
        "name-not-owned",
        "port-not-granted",
        "unknown-team",
    }
)
"""Codes of findings that a change of the fleet file alone can bring about."""
STAYS: Final = "The grant was revoked; until this file is mended or deleted, its last good version goes on serving."


def revoked(state: State) -> tuple[str, ...]:
    """Return the files whose last good version serves without the grant that it needs, in order."""
    view = state.view()
    return tuple(sorted(path for path in state.quarantined if _is_revoked(state, path, view)))


def findings_of(state: State) -> dict[str, tuple[Finding, ...]]:
    """Return the findings by path; where a grant was revoked, a hint says what that leaves in service."""
    found = dict(state.findings) | {path: _explained(state.findings[path]) for path in revoked(state)}
    for one in ServiceNames(state).unrouted():
        found[one.path] = (*found.get(one.path, ()), one)
    return found


def _is_revoked(state: State, path: str, view: View) -> bool:
    key = key_of_path(path)
    served = state.served.get(key) if key is not None else None
    if served is None or not served.retained:
        return False
    if served.blob == state.blobs.get(path):
        return any(one.code in GRANTS for one in state.findings[path])
    # Another version is what was judged. A file that was broken on purpose must not hide what goes on being served.
    return any(one.code in GRANTS for one in check(served.key, served.object, view))


def _explained(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """Append the sentence to the finding that it fits best."""
    best = min(findings, key=lambda one: (one.code not in GRANTS, one.severity != "error"))
    return tuple(replace(one, hint=f"{one.hint} {STAYS}".lstrip()) if one is best else one for one in findings)
