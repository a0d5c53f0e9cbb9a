"""What is said when two objects claim the same thing."""

from __future__ import annotations

from typing import Final

from reconciler.desired.claims import ANY, Claim
from reconciler.desired.finding import Finding

CONTESTED: Final = "contested"


def lost(claim: Claim, other: Claim) -> Finding:
    """Tell the owner of ``claim`` that ``other`` has it."""
    path, holder = claim.owner.path, other.owner.path
    if claim.scope.startswith("port:"):
        text = f'port {claim.pattern} of agent "{claim.scope.partition(":")[2]}" is taken by {holder}.'
        return Finding(path, "port-taken", text, "Choose another host port.", claim.field)
    if claim.scope.startswith("directory:"):
        agent = claim.scope.partition(":")[2]
        text = f'directory {claim.pattern} of agent "{agent}" is taken: {holder} has its files in {other.pattern}.'
        return Finding(path, "directory-taken", text, "Choose another directory, beside it.", claim.field)
    if claim.scope == "identity":
        text = f"the key of this agent is the key of {holder} as well."
        return Finding(path, "identity-taken", text, "Each agent has a key of its own; enrol it again.", claim.field)
    if claim.scope == "certificate":
        text = f'a certificate for "{claim.pattern}" exists already: {holder}.'
        return Finding(path, "certificate-taken", text, "Name each host in one certificate only.", claim.field)
    if claim.owner.team != other.owner.team:
        text = f'{_what(claim)} belongs to team "{other.owner.team}": {holder} answers {_what(other)}.'
        return Finding(path, "host-taken", text, "One host belongs to one team; choose another.", claim.field)
    if ANY in (claim.pattern, other.pattern):
        text = f"{_what(claim)} is taken: {holder} answers {_what(other)}."
        return Finding(path, "host-taken", text, "Use another entry point, or remove one of the two.", claim.field)
    same = " with the same paths, methods and headers" if claim.scope == "http" else ""
    text = f"{_what(claim)} is answered by {holder}{same}."
    return Finding(path, "host-taken", text, "Make one of them more specific, or remove one.", claim.field)


def contested(claim: Claim, other: Claim) -> Finding:
    """Tell the owner of ``claim``, which is in service, that ``other`` wants it as well and is kept out."""
    text = f"{other.owner.path} claims {_what(claim)} as well; this file sorts first and keeps it."
    hint = "If the other one is right, change this one."
    return Finding(claim.owner.path, CONTESTED, text, hint, claim.field, severity="warning")


def _what(claim: Claim) -> str:
    if claim.scope.startswith("port:"):
        return f"port {claim.pattern} of agent {claim.scope.partition(':')[2]}"
    if claim.scope.startswith("directory:"):
        return f"directory {claim.pattern} of agent {claim.scope.partition(':')[2]}"
    if claim.scope == "identity":
        return "this agent's key"
    return f"the whole entry point {claim.entry_point}" if claim.pattern == ANY else f'"{claim.pattern}"'
