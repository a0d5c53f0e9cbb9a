"""The form for a new route: from its fields to a file. PURE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.names import NAME_PATTERN
from schemas.objects import ObjectKey, key_of_path
from schemas.problem import Problem

BACKENDS: Final = 4
"""Rows of the form."""
TLS_MODES: Final = (("terminate", "TLS, ended at the front"), ("none", "plain HTTP"))
_FIELDS: Final = {"name": "name", "hostnames": "host", "paths": "prefix", "tls": "tls", "backends": "agent-1"}
"""Key of the file → field of the form that it is made of."""


@dataclass(frozen=True, slots=True)
class RouteForm:
    """What was written. ``wrong``: field → what is wrong with it, before anything is asked of the server's rules."""

    values: Mapping[str, str]
    wrong: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> ObjectKey | None:
        """Where the route would be; None where team or name cannot be."""
        return key_of_path(f"routes/{self.values.get('team', '')}/{self.values.get('name', '')}.yaml")

    def document(self) -> dict[str, Any]:
        """Return the object."""
        said = self.values
        spec: dict[str, Any] = {"type": "http"}
        if said.get("host"):
            spec["hostnames"] = [said["host"]]
        if said.get("prefix") and said["prefix"] != "/":
            spec["paths"] = [{"prefix": said["prefix"]}]
        spec["backends"] = list(_backends(said))
        if said.get("tls", "terminate") != "terminate":
            spec["tls"] = {"mode": said["tls"]}
        return {
            "apiVersion": "cloudlunacy/v1",
            "kind": "Route",
            "metadata": {"name": said.get("name", "")},
            "spec": spec,
        }


def read_form(values: Mapping[str, str], teams: tuple[str, ...]) -> RouteForm:
    """Check what the schema could not say at its field: that there is a team, a name and a backend."""
    said = {name: value.strip() for name, value in values.items()}
    said["host"] = said.get("host", "").lower().removeprefix("https://").removeprefix("http://").partition("/")[0]
    wrong = {}
    if said.get("team") not in teams:
        wrong["team"] = "Choose a team." if not said.get("team") else "The fleet has no such team, or it is not yours."
    if not said.get("name"):
        wrong["name"] = "Give the route a name."
    elif key_of_path(f"routes/x/{said['name']}.yaml") is None:
        wrong["name"] = f"A name is in small letters, digits and hyphens ({NAME_PATTERN})."
    if not any(said.get(f"agent-{row}") or said.get(f"deployment-{row}") for row in range(1, BACKENDS + 1)):
        wrong["agent-1"] = "Name an agent with its port, or a deployment."
    for row in range(1, BACKENDS + 1):
        wrong.update(_wrong_backend(said, row))
    return RouteForm(said, wrong)


def _wrong_backend(said: Mapping[str, str], row: int) -> Iterator[tuple[str, str]]:
    agent, deployment, port = (said.get(f"{name}-{row}", "") for name in ("agent", "deployment", "port"))
    weight = said.get(f"weight-{row}", "")
    if agent and deployment:
        yield f"agent-{row}", "Either an agent or a deployment."
    elif agent and not port:
        yield f"port-{row}", "At which port of the agent?"
    if port and not (_number(port) and 0 < int(port) < 65536):
        yield f"port-{row}", "A port is a number from 1 to 65535."
    if weight and not (_number(weight) and int(weight) <= 1000):
        yield f"weight-{row}", "A weight is a number from 0 to 1000."


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def _backends(said: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    for row in range(1, BACKENDS + 1):
        agent, deployment, port = (said.get(f"{name}-{row}", "") for name in ("agent", "deployment", "port"))
        if not agent and not deployment:
            continue
        backend: dict[str, Any] = {"agent": agent} if agent else {"deployment": deployment}
        if _number(port):
            backend["port"] = int(port)
        weight = said.get(f"weight-{row}", "")
        if _number(weight) and int(weight) != 1:
            backend["weight"] = int(weight)
        yield backend


def field_of(problem: Problem, lines: tuple[str, ...]) -> str:
    """Return the field of the form that a problem is about; empty where it is about none.

    The file is ours, so the words at the problem's line, and above it, say where it is.
    """
    for line in reversed(lines[: problem.line]):
        key = line.strip().removeprefix("- ").partition(":")[0]
        if key in _FIELDS:
            return _FIELDS[key]
    return ""
