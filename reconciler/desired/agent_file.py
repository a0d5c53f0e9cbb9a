"""The edits of ``agents/<name>.yaml``: an enrolment writes the agent's identity, a revocation takes it out. Pure.

Where the file exists, a person wrote it: the identity is added and nothing else changes, comments and order stay.
Where there is none, a new one says what the agent said of itself. An identity that stands there already is never
replaced; to enrol another key, somebody deletes it first, and that is a commit too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

from ruamel.yaml.comments import CommentedMap

from reconciler.desired.edits import Edit, EditConflict
from reconciler.desired.yaml_editing import dump, load, plain, scalar


def enrolment_edit(
    name: str,
    thumbprint: str,
    *,
    address: str,
    capabilities: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> Edit:
    """Return the edit. All values have passed the grammar of ``schemas.names``.

    The edit raises EditConflict where the file has another identity, or cannot be edited safely.
    """

    def edit(content: bytes | None) -> bytes:
        if content is None:
            return _new_file(name, thumbprint, address, capabilities, labels or {}).encode()
        return _with_identity(name, content, thumbprint, address)

    return edit


def revocation_edit(name: str, thumbprint: str, *, quarantine: bool) -> Edit:
    """Return the edit that takes an agent out: the file is deleted, or says ``state: quarantined``.

    Where another key has enrolled since, nothing changes: it is not the one that was locked out. The edit raises
    EditConflict where a file cannot be edited safely; deleting needs no reading.
    """

    def edit(content: bytes | None) -> bytes | None:
        if content is None or _identity_in(name, content) not in (None, thumbprint):
            return content
        return _quarantined(name, content) if quarantine else None

    return edit


def _identity_in(name: str, content: bytes) -> str | None:
    try:
        spec = load(f"agents/{name}.yaml", content)[1].get("spec")
        return _identity_of(name, spec) if isinstance(spec, CommentedMap) else None
    except EditConflict:  # whatever it is, it is the file of who has to go
        return None


def _quarantined(name: str, content: bytes) -> bytes:
    text, document = load(f"agents/{name}.yaml", content)
    spec = document.get("spec")
    if not isinstance(spec, CommentedMap):
        raise EditConflict(f"agents/{name}.yaml has no spec; mend the file first.")
    if spec.get("state") == "quarantined":
        return content
    spec["state"] = "quarantined"
    return _written(name, text, document, "Write spec.state: quarantined by hand.")


def _new_file(name: str, thumbprint: str, address: str, capabilities: Sequence[str], labels: Mapping[str, str]) -> str:
    lines = [
        "# Written by enrolment. Everything but spec.identity may be edited; deleting the file revokes the agent.",
        "apiVersion: cloudlunacy/v1",
        "kind: Agent",
        "metadata:",
        f"  name: {scalar(name)}",
        *(["  labels:"] if labels else []),
        *(f"    {scalar(key)}: {scalar(value)}" for key, value in sorted(labels.items())),
        "spec:",
        f"  address: {scalar(address)}",
        *([f"  capabilities: [{', '.join(map(scalar, capabilities))}]"] if capabilities else []),
        "  identity:",
        f"    thumbprint: {scalar(thumbprint)}",
    ]
    return "\n".join(lines) + "\n"


def _with_identity(name: str, content: bytes, thumbprint: str, address: str) -> bytes:
    path = f"agents/{name}.yaml"
    text, document = load(path, content)
    spec = document.get("spec")
    if not isinstance(spec, CommentedMap):
        raise EditConflict(f"agents/{name}.yaml has no spec; mend the file first.")
    found = _identity_of(name, spec)
    if found == thumbprint:
        return content
    if found is not None:
        raise EditConflict(
            f'Agent "{name}" has another identity ({found}) in agents/{name}.yaml. '
            "Remove spec.identity there, or delete the file, before another key may enrol."
        )
    spec.setdefault("address", address)
    spec["identity"] = CommentedMap({"thumbprint": thumbprint})
    return _written(name, text, document, f"Add spec.identity.thumbprint: {thumbprint} by hand.")


def _written(name: str, text: str, document: CommentedMap, otherwise: str) -> bytes:
    """Return the file with the edited document, where it reads back as that."""
    wanted = deepcopy(plain(document))
    edited = dump(text, document)
    if plain(load(f"agents/{name}.yaml", edited)[1]) != wanted:
        raise EditConflict(f"agents/{name}.yaml cannot be edited without changing its form. {otherwise}")
    return edited


def _identity_of(name: str, spec: CommentedMap) -> str | None:
    identity = spec.get("identity")
    if identity is None:
        return None
    thumbprint = identity.get("thumbprint") if isinstance(identity, CommentedMap) else None
    if not isinstance(thumbprint, str):
        raise EditConflict(f"spec.identity in agents/{name}.yaml is not readable; mend or remove it first.")
    return str(thumbprint)
