"""The files of routes that agents asked for, and the edits that make and delete them. Pure.

A file was made this way when it is, byte by byte, what is written here for some agent. Whatever a person has changed is
that person's from then on: it is never written over and never deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from reconciler.desired.edits import Edit, EditConflict
from reconciler.desired.yaml_editing import load, plain, scalar

ASKED_BY: Final = "cloudlunacy/asked-by"
"""Annotation: the agent that asked."""
DEPLOYMENT: Final = "cloudlunacy/deployment"


@dataclass(frozen=True, slots=True)
class AskedRoute:
    """What is to be written. All values have passed the grammar of ``schemas.names``."""

    path: str
    """Of the file."""
    name: str
    agent: str
    deployment: str
    hostname: str
    prefix: str
    port: int
    """Of the agent."""
    plain: bool = False
    """Without TLS."""

    def content(self) -> bytes:
        """Return the file."""
        lines = [
            f"# Asked for by agent {self.agent}, which may change and delete this file. Edit it, and it is yours.",
            "apiVersion: cloudlunacy/v1",
            "kind: Route",
            "metadata:",
            f"  name: {scalar(self.name)}",
            "  annotations:",
            f"    {ASKED_BY}: {scalar(self.agent)}",
            f"    {DEPLOYMENT}: {scalar(self.deployment)}",
            "spec:",
            "  type: http",
            f"  hostnames: [{scalar(self.hostname)}]",
            *([f"  paths: [{{prefix: {scalar(self.prefix)}}}]"] if self.prefix != "/" else []),
            f"  backends: [{{agent: {scalar(self.agent)}, port: {self.port:d}}}]",
            *(["  tls: {mode: none}"] if self.plain else []),
        ]
        return ("\n".join(lines) + "\n").encode()


def read(path: str, content: bytes) -> AskedRoute | None:
    """Return what was asked for where a file was made this way and is as it was made; None for any other file."""
    try:
        document: Any = plain(load(path, content)[1])
        notes, spec = document["metadata"]["annotations"], document["spec"]
        backend = spec["backends"][0]
        found = AskedRoute(
            path=path,
            name=str(document["metadata"]["name"]),
            agent=str(notes[ASKED_BY]),
            deployment=str(notes[DEPLOYMENT]),
            hostname=str(spec["hostnames"][0]),
            prefix=str(spec["paths"][0]["prefix"]) if "paths" in spec else "/",
            port=int(backend["port"]),
            plain=isinstance(spec.get("tls"), Mapping),
        )
    except (EditConflict, KeyError, IndexError, TypeError, ValueError, AttributeError):
        return None
    return found if found.content() == content else None


def putting(wanted: AskedRoute) -> Edit:
    """Return the edit that makes the file, or brings the agent's own up to date.

    The edit raises EditConflict where the file is somebody else's.
    """

    def edit(content: bytes | None) -> bytes:
        if content is not None:
            _require_own(wanted.path, wanted.agent, content)
        return wanted.content()

    return edit


def taking_back(path: str, agent: str) -> Edit:
    """Return the edit that deletes the agent's own file. It raises EditConflict where the file is somebody else's."""

    def edit(content: bytes | None) -> bytes | None:
        if content is not None:
            _require_own(path, agent, content)
        return None

    return edit


def _require_own(path: str, agent: str, content: bytes) -> None:
    found = read(path, content)
    if found is None:
        raise EditConflict(f"{path} was changed by somebody, so it is no longer the agent's. Edit it by hand.")
    if found.agent != agent:
        raise EditConflict(f"{path} was asked for by another agent.")
