"""Small documents of each kind as YAML, and the way from them to a settled state."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from reconciler.desired.finding import Finding, to_problem
from reconciler.desired.locate import positions
from reconciler.desired.news import FileNews, Gone, Unusable
from reconciler.desired.parse import Parsed, examine_path, parse_file
from reconciler.desired.routing import compile_route
from reconciler.desired.settle import Settled, settle
from reconciler.desired.snapshot import File
from reconciler.desired.state import State
from schemas.objects import ObjectKey
from schemas.problem import Problem

DOMAIN: Final = "cloudlunacy.test"
HTPASSWD: Final = "user:$2y$05$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
SEALED: Final = "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n"


def document(kind: str, name: str, spec: Mapping[str, Any], **metadata: Any) -> bytes:
    """Write an object as JSON, which is YAML."""
    return json.dumps(
        {"apiVersion": "cloudlunacy/v1", "kind": kind, "metadata": {"name": name, **metadata}, "spec": spec}
    ).encode()


def team(name: str, *, hostnames: Iterable[str] = (f"*.app.{DOMAIN}",), agents: Iterable[str] = (), **more: Any) -> Any:
    return {"name": name, "hostnames": list(hostnames), "agents": list(agents), **more}


def fleet(*teams: Any, **spec: Any) -> bytes:
    """A fleet; without teams the team ``shop``, which may use vps-1 and vps-2."""
    return document(
        "Fleet", "example", {"domain": DOMAIN, "teams": teams or [team("shop", agents=["vps-1", "vps-2"])], **spec}
    )


def agent(name: str, *, labels: Mapping[str, str] | None = None, **spec: Any) -> bytes:
    spec = {"address": "127.0.0.1", "capabilities": ["container", "process", "mongodb"], **spec}
    return document("Agent", name, spec, labels=dict(labels or {}))


def route(
    name: str, *hostnames: str, backends: Iterable[Any] = ({"agent": "vps-1", "port": 8081},), **spec: Any
) -> bytes:
    spec = {"type": "http", "backends": list(backends), "tls": {"mode": "none"}, **spec}
    if hostnames:
        spec["hostnames"] = list(hostnames)
    return document("Route", name, spec)


def deployment(name: str, *agents: str, port: int = 8081, **spec: Any) -> bytes:
    spec = {"type": "container", "image": "web:1", "ports": [{"container": 8080, "host": port}], **spec}
    if agents:
        spec["agents"] = list(agents)
    return document("Deployment", name, spec)


def certificate(name: str, *dns_names: str, **spec: Any) -> bytes:
    return document("Certificate", name, {"dnsNames": list(dns_names), "issuer": "internal", **spec})


def secret(name: str, *keys: str) -> bytes:
    return document("Secret", name, {"sealed": dict.fromkeys(keys, SEALED)})


def blob_of(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def news_of(path: str, content: bytes | None) -> FileNews:
    """Say what became of one file; None: it is gone."""
    if content is None:
        return Gone(path)
    finding = examine_path(path, File("100644", blob_of(content)))
    if finding is not None:
        return Unusable(path, blob_of(content), finding)
    return parse_file(path, blob_of(content), content)


def parsed(path: str, content: bytes) -> Parsed:
    """Parse a file that must be good."""
    found = parse_file(path, blob_of(content), content)
    assert found.object is not None, found.findings
    return found


def settled(
    base: State,
    files: Mapping[str, bytes | None],
    revision: str = "a" * 40,
    *,
    refused: Mapping[ObjectKey, Finding] | None = None,
) -> Settled:
    """Settle a change of files with the real compile step; every sealed value opens to one htpasswd line."""
    news = [news_of(path, content) for path, content in files.items()]
    return settle(
        base, revision, news, compile_route=compile_route, open_sealed=lambda _: HTPASSWD, refused=refused or {}
    )


def state_of(files: Mapping[str, bytes | None]) -> State:
    """Settle files on top of nothing."""
    return settled(State(), files).state


def problems_of(state: State, files: Mapping[str, bytes | None]) -> list[Problem]:
    """Give every finding its line, as validate does."""
    problems = []
    for path, findings in state.findings.items():
        for finding, place in zip(findings, positions(files.get(path) or b"", findings), strict=True):
            problems.append(to_problem(finding, place, ""))
    return problems


def codes(state: State) -> dict[str, list[str]]:
    """Return path → codes of its findings."""
    return {path: [finding.code for finding in found] for path, found in state.findings.items()}
