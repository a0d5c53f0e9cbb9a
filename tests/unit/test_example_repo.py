"""The example state repo is complete, and right under the models and under the generated schemas."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
from ruamel.yaml import YAML

from reconciler.desired.agent_file import enrolment_edit
from schemas.names import covers
from schemas.objects import ADAPTERS, KINDS, key_of_path
from tests.support import parts
from tests.support.settling import settle_folder

ROOT: Final = Path(__file__).parents[2]
EXAMPLE: Final = Path(ROOT, "state-repo-example")
OBJECTS: Final = sorted(
    path.relative_to(EXAMPLE).as_posix()
    for path in EXAMPLE.rglob("*.y*ml")
    if not any(part.startswith(".") for part in path.relative_to(EXAMPLE).parts)
)


def load(path: str) -> Any:
    return YAML(typ="safe").load(Path(EXAMPLE, path))


def specs(kind: str) -> list[dict[str, Any]]:
    return [load(path)["spec"] for path in OBJECTS if load(path)["kind"] == kind]


@pytest.mark.parametrize("path", OBJECTS)
def test_every_object_is_valid_and_lies_where_it_says(path: str) -> None:
    """The path names a kind, and the document is of that kind, by that name, and valid."""
    key = key_of_path(path)
    assert key is not None
    document = load(path)
    parsed = ADAPTERS[key.kind].validate_python(document)
    assert (parsed.kind, parsed.metadata.name) == (key.kind, key.name or parsed.metadata.name)
    jsonschema.validate(document, json.loads(Path(ROOT, f"schemas/json/{key.kind.lower()}.json").read_text()))


@pytest.mark.parametrize("path", OBJECTS)
def test_the_first_line_leads_an_editor_to_the_schema(path: str) -> None:
    """The header's relative path ends at the schema of the document's kind."""
    first = Path(EXAMPLE, path).read_text().partition("\n")[0]
    match = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert match is not None
    schema = json.loads(Path(EXAMPLE, path).parent.joinpath(match[1]).read_text())
    assert schema["title"] == load(path)["kind"]


@pytest.mark.parametrize("path", ["state-repo-example/agents/vps-1.yaml", "templates/state-repo/agents/vps-1.yaml.j2"])
def test_what_a_file_says_of_its_identity_stays_true_once_it_has_one(path: str) -> None:
    """No comment under the identity that was added says that it is still to come."""
    edited = enrolment_edit("vps-1", "x" * 43, address="127.0.0.1")(Path(ROOT, path).read_bytes())
    assert edited is not None
    assert edited.decode().endswith(f"  identity:\n    thumbprint: {'x' * 43}\n")


def test_every_kind_and_every_type_is_shown() -> None:
    """Nobody has to guess how a kind or a type of route or deployment is written."""
    assert {load(path)["kind"] for path in OBJECTS} == set(KINDS)
    assert {spec["type"] for spec in specs("Route")} == {"http", "tcp", "mongodb"}
    assert {spec["type"] for spec in specs("Deployment")} == {"container", "process", "mongodb"}
    assert len(load("fleet.yaml")["spec"]["teams"]) == 2


def test_every_middleware_is_shown() -> None:
    """Each middleware that a route may list stands in some route."""
    schema = json.loads(Path(ROOT, "schemas/json/route.json").read_text())
    shown = {key for spec in specs("Route") for middleware in spec.get("middlewares", []) for key in middleware}
    assert shown == set(schema["$defs"]["Middleware"]["properties"])


def test_the_teams_use_only_what_is_theirs() -> None:
    """Each host of a route is granted to the team by the fleet."""
    granted = {team["name"]: team["hostnames"] for team in load("fleet.yaml")["spec"]["teams"]}
    for path in OBJECTS:
        if path.startswith("routes/"):
            team = path.split("/")[1]
            for host in load(path)["spec"].get("hostnames", []):
                assert any(covers(pattern, host) for pattern in granted[team]), (path, host)


def test_every_name_that_ends_tls_has_a_certificate() -> None:
    """A host of a route that terminates TLS is covered by some certificate."""
    names = [name for spec in specs("Certificate") for name in spec["dnsNames"]]
    for spec in specs("Route"):
        if spec.get("tls", {}).get("mode", "terminate") == "terminate":
            for host in spec.get("hostnames", []):
                assert any(covers(name, host) for name in names), host


def test_agents_come_without_identity() -> None:
    """The identity is what enrolment adds, so that the demo can enrol them."""
    assert all("identity" not in spec for spec in specs("Agent"))


def test_sealed_values_are_age_files_sealed_to_the_recipient_of_the_fleet() -> None:
    """Each value is an age file with one X25519 recipient stanza."""
    for spec in specs("Secret"):
        for armoured in spec["sealed"].values():
            body = base64.b64decode("".join(armoured.strip().splitlines()[1:-1]))
            assert body.startswith(b"age-encryption.org/v1\n-> X25519 ")


def test_the_words_of_the_readme_name_every_port_of_the_apps() -> None:
    """A reader who starts apps behind the agents finds each port in the table."""
    readme = Path(EXAMPLE, "README.md").read_text()
    ports = {backend["port"] for spec in specs("Route") for backend in spec["backends"] if "port" in backend}
    ports |= {mapping["host"] for spec in specs("Deployment") for mapping in spec.get("ports", [])}
    assert [port for port in sorted(ports) if str(port) not in readme] == []


def test_git_tracks_all_of_the_example() -> None:
    """No ignore rule keeps a file of the example, such as those in dotted folders, out of a commit."""
    git = parts.require("git")
    ignored = subprocess.run(
        [git, "-C", ROOT, "ls-files", "--others", "--ignored", "--exclude-standard", "state-repo-example"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ignored.stdout == ""


def test_all_of_it_goes_into_service() -> None:
    """References, ownership, conflicts and the compile step find nothing to say, not even a warning."""
    state = settle_folder(EXAMPLE)
    assert {path: found for path, found in state.findings.items() if found} == {}
    assert sorted(key.path for key in state.served) == OBJECTS
