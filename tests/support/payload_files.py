"""A state repo whose every field is an attack: what validation takes is in service, the rest are problems."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final, NamedTuple

from reconciler.pki.sealing import seal
from schemas.objects import KINDS, Kind
from tests.support import documents
from tests.support.documents import DOMAIN, team
from tests.support.git_repos import EPOCH, BareRepo
from tests.support.payload_leaves import KEY, UNKNOWN, Path, Shape
from tests.support.payloads import MORE_PAYLOADS, Table

Files = dict[str, bytes | str | None]
COUNT: Final = len(MORE_PAYLOADS)
AGENTS: Final = tuple(f"vps-{number}" for number in range(COUNT))
SPARE: Final = tuple(f"spare-{number}" for number in range(6))
"""Agents that people lock out and cordon."""
ROUNDS: Final = 3
"""Payloads for each leaf that refuses them."""
AT_ONCE: Final = 26
"""Leaves of one file: of more problems than 30 a file is told only how many they are."""
FOLDERS: Final[Mapping[Kind, str]] = {
    "Agent": "agents", "Certificate": "certificates", "Secret": "secrets/shop", "Deployment": "deployments/shop",
    "Route": "routes/shop",
}  # fmt: skip
TOLD: Final = "routes/shop/told.yaml"
"""The file that many commits are about."""
CHANGED: Final = "routes/shop/changed.yaml"
"""The file that people change."""


class Refusal(NamedTuple):
    """A file that is kept out. ``signs``: what is said of each place of it."""

    path: str
    content: bytes
    signs: tuple[str, ...]


def dotted(path: Path) -> str:
    """Write a place as problems do, up to where a payload stands in for a name."""
    text = ""
    for step in path:
        if step in ("{}", KEY, UNKNOWN):
            break
        text += "[0]" if step == "[]" else f".{step}" if text else step
    return text


@cache
def accepted(kind: Kind) -> Mapping[str, set[int]]:
    """Return the leaves of a kind that take some payload, with the numbers of those."""
    shape = Shape(KINDS[kind])
    found: dict[str, set[int]] = {}
    for path in shape.leaves():
        for number, payload in enumerate(MORE_PAYLOADS):
            document = shape.poisoned({path: f"{payload};z000"}, _start(shape, kind))
            if not shape.refuses(document, path):
                found.setdefault(".".join(path), set()).add(number)
    return found


def refused(table: Table, kind: Kind, rounds: int = ROUNDS) -> Iterator[Refusal]:
    """Yield files in which every leaf of a kind that refuses a payload holds one, in each round another."""
    shape, takes = Shape(KINDS[kind]), accepted(kind)
    leaves = list(dict.fromkeys(shape.leaves()))
    envelope = [path for path in leaves if path[0] in ("apiVersion", "kind")]
    rest = [path for path in leaves if path not in envelope]
    groups = [rest[at : at + AT_ONCE] for at in range(0, len(rest), AT_ONCE)] + [envelope]
    for turn in range(rounds):
        for number, group in enumerate(groups):
            places = {}
            for index, path in enumerate(group):
                wanted = (index + number * 7 + turn * 5) % COUNT
                free = [one for one in range(COUNT) if one not in takes.get(".".join(path), ())]
                if free:
                    payload = wanted if wanted in free else free[wanted % len(free)]
                    places[path] = table.put(kind, ".".join(path), payload)
            name = f"wrong-{turn}-{number}"
            document = shape.poisoned(places, _start(shape, kind, name))
            file = "fleet.yaml" if kind == "Fleet" else f"{FOLDERS[kind]}/{name}.yaml"
            yield Refusal(file, _written(document), tuple(map(dotted, places)))


def live(table: Table, recipient: str, thumbprints: Mapping[str, str]) -> Files:
    """Return the files in service: every field that takes payloads has all that it takes."""

    def all_of(kind: Kind, leaf: str) -> list[str]:
        return [table.put(kind, leaf, number) for number in sorted(accepted(kind).get(leaf, ()))]

    def words(kind: Kind) -> dict[str, Any]:
        return {"annotations": _numbered(all_of(kind, "metadata.annotations.{}"), "note-{}")}

    agents = [*AGENTS, *SPARE]
    groups = [{"group": one, "role": "viewer"} for one in all_of("Fleet", "spec.access.groups.[].group")]
    fleet = {
        "domain": DOMAIN,
        "teams": [team("shop", agents=agents)],
        "access": {"groups": groups},
        "commands": {"exec": ["shop"]},
        "deletionGuard": {"percent": 0, "minimum": 1},
        "agentRoutes": [{"team": "shop", "hostnames": [f"*.app.{DOMAIN}"]}],
    }
    sealed = {"login": seal("swordfish", [recipient])}
    files: Files = {
        "fleet.yaml": _document("Fleet", "example", fleet, **words("Fleet")),
        "secrets/shop/registry.yaml": _document("Secret", "registry", {"sealed": sealed}, **words("Secret")),
        "certificates/apps.yaml": _document(
            "Certificate", "apps", {"dnsNames": [f"*.app.{DOMAIN}"], "issuer": "internal"}, **words("Certificate")
        ),
        "deployments/shop/web.yaml": _document("Deployment", "web", _web(all_of), **words("Deployment")),
        "deployments/shop/orders.yaml": _document(
            "Deployment",
            "orders",
            {"type": "mongodb", "agents": list(AGENTS), "mongodb": {"version": "7.0"}, "ports": _ports(27017, 27117)},
        ),
        "routes/shop/web.yaml": _document("Route", "web", _route(all_of), **words("Route")),
        CHANGED: documents.route("changed", f"changed.app.{DOMAIN}", backends=_two()),
        TOLD: documents.route("told", f"told.app.{DOMAIN}", backends=_two()),
        "routes/shop/two.yaml": documents.route("two", f"two.app.{DOMAIN}", backends=_two()),
    }
    for name in agents:
        spec = {"address": "127.0.0.1", "capabilities": ["container", "process", "mongodb"],
                "identity": {"thumbprint": thumbprints[name]}}  # fmt: skip
        files[f"agents/{name}.yaml"] = _document("Agent", name, spec, **(words("Agent") if name == "vps-0" else {}))
    for number, username in enumerate(all_of("Deployment", "spec.registry.username")):
        registry = {"username": username, "password": {"name": "registry", "key": "login"}}
        spec = {"type": "container", "image": "registry.example.test/web:1", "agents": ["vps-0"], "registry": registry}
        files[f"deployments/shop/as-{number}.yaml"] = _document("Deployment", f"as-{number}", spec)
    return files


def odd(table: Table) -> Files:
    """Return files with payloads in their names, folders and comments, and files that are nothing but a payload."""
    files: Files = {}
    said: list[str] = []
    newline = "\n"
    for number in range(COUNT):
        for leaf, pattern in (("file", "routes/shop/{}.yaml"), ("folder", "deployments/{}/web.yaml"),
                              ("agent file", "agents/{}.yaml"), ("other file", "notes/{}.txt")):  # fmt: skip
            without = "/" if "//" in MORE_PAYLOADS[number] else ""  # no part of a path is empty
            name = table.put("Repository", leaf, number, without)
            files[pattern.format(name)] = b"kind: Route\n"
        text = table.put("Repository", "text", number, without="\n")
        files[f"routes/shop/raw-{number}.yaml"] = f"{text}\n"
        comment = f"# {table.put('Repository', 'comment', number, without=newline)}\n"
        if comment[2:-1].isprintable():
            said.append(comment)
        else:  # which no file may have
            files[f"agents/said-{number}.yaml"] = f"{comment}{documents.agent(f'said-{number}').decode()}\n"
    files["agents/said.yaml"] = "".join([*said, documents.agent("said").decode()])
    return files


def tell(table: Table, repo: BareRepo) -> str:
    """Commit with payloads in what a commit says of itself; return the last one's id."""
    for number in range(COUNT):
        subject = table.put("Commit", "subject", number, without="\n")
        body = table.put("Commit", "body", number)
        actor = table.put("Commit", "trailer CloudLunacy-Actor", number, without="\n")
        author = table.put("Commit", "author", number, without="<>\n")
        mail = table.put("Commit", "e-mail", number, without="<>\n ")
        text = f"{subject}\n\n{body}\n\nCloudLunacy-Actor: {actor}\n".encode()
        at = EPOCH + 10_000 + number
        content = documents.route(
            "told", f"told.app.{DOMAIN}", backends=_two(number + 1), healthCheck={"path": f"/{number}"}
        )
        head = f"commit refs/heads/{repo.branch}\nauthor {author} <{mail}> {at} +0000\n"
        head += f"committer {author} <{mail}> {at} +0000\ndata {len(text)}\n"
        change = f"from {repo.tip()}\nM 100644 inline {TOLD}\ndata {len(content)}\n".encode() + content
        repo.fast_import(head.encode() + text + b"\n" + change + b"\n")
    return repo.tip() or ""


# --- parts ----------------------------------------------------------------------------------------------------------


def _start(shape: Shape, kind: Kind, name: str = "web") -> dict[str, Any]:
    spec = shape.sample(shape.at(f"{kind}Spec"))
    return {"apiVersion": "cloudlunacy/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _written(document: Any) -> bytes:
    return json.dumps(document, indent=1).encode()


def _document(kind: str, name: str, spec: Mapping[str, Any], **metadata: Any) -> bytes:
    return _written(json.loads(documents.document(kind, name, spec, **metadata)))


def _numbered(values: list[str], name: str) -> dict[str, str]:
    return {name.format(number): value for number, value in enumerate(values)}


def _ports(container: int, host: int) -> list[dict[str, Any]]:
    return [{"container": container, "host": host}]


def _two(weight: int = 1) -> list[dict[str, Any]]:
    return [{"agent": "vps-0", "port": 8081, "weight": weight}, {"agent": "vps-1", "port": 8081}]


def _web(all_of: Any) -> dict[str, Any]:
    return {
        "type": "container",
        "image": "web:1",
        "agents": list(AGENTS),
        "ports": _ports(8080, 8081),
        "command": all_of("Deployment", "spec.command.[]"),
        "env": _numbered(all_of("Deployment", "spec.env.{}"), "SAID_{}"),
        "healthCheck": {"command": {"command": all_of("Deployment", "spec.healthCheck.command.command.[]")}},
    }


def _route(all_of: Any) -> dict[str, Any]:
    def headers(leaf: str) -> dict[str, str]:
        return _numbered(all_of("Route", leaf), "X-Said-{}")

    values = all_of("Route", "spec.headers.[].value")
    both = {side: headers(f"spec.middlewares.[].headers.{side}.{{}}") for side in ("request", "response")}
    return {
        "type": "http",
        "hostnames": [f"web.app.{DOMAIN}"],
        "headers": [{"name": f"X-Asked-{number}", "value": value} for number, value in enumerate(values)],
        "backends": [{"deployment": "web"}],
        "healthCheck": {"headers": headers("spec.healthCheck.headers.{}")},
        "middlewares": [{"headers": both}],
        "tls": {"mode": "none"},
    }
