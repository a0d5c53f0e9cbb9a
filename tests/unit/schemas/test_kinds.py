"""Good and bad documents of every kind, with the words that a person gets."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from schemas.generate import file_name, generate
from schemas.objects import ADAPTERS, KINDS, Kind

SCHEMAS = {name: json.loads(text) for name, text in generate().items()}
SEALED = "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n"
HTTP = {"type": "http", "backends": [{"agent": "vps-1", "port": 80}]}
TCP = {"type": "tcp", "entryPoint": "events", "hostnames": ["a.b"], "backends": [{"agent": "vps-1", "port": 80}]}
MONGODB = {"type": "mongodb", "backends": [{"agent": "vps-1", "port": 27017}]}
CONTAINER = {"type": "container", "agents": ["vps-1"], "image": "web:1"}
PROCESS = {"type": "process", "agents": ["vps-1"], "command": ["/bin/app"]}
DATABASE = {"type": "mongodb", "agents": ["vps-1"], "mongodb": {"version": "6.0"}}
PAIR = {"team": "shop", "secret": "shop-tls"}
ACME = {"url": "https://acme.test:14000/dir"}
GOOD: dict[Kind, list[dict[str, Any]]] = {
    "Fleet": [
        {"domain": "example.com"},
        {"domain": "example.com", "teams": [{"name": "shop"}, {"name": "data"}]},
        {"domain": "example.com", "acme": {"email": "a.b+c@example.com", "challenge": "dns-01"}},
        {"domain": "example.com", "acme": {"directories": {"a": ACME, "b": ACME}, "directory": "b"}},
    ],
    "Agent": [{"address": "::1"}, {"address": "192.0.2.1", "state": "cordoned", "identity": {"thumbprint": "a" * 43}}],
    "Secret": [{"sealed": {"password": SEALED}}],
    "Certificate": [
        {"dnsNames": ["*.a.b"], "issuer": "acme", "lifetime": "48h", "renewBefore": "24h"},
        {"dnsNames": ["a.b"], "issuer": "acme", "acme": {"directory": "letsencrypt", "challenge": "http-01"}},
        {"dnsNames": ["a.b"], "issuer": "provided", "provided": PAIR},
    ],
    "Deployment": [
        CONTAINER,
        PROCESS,
        DATABASE,
        CONTAINER | {"image": f"registry.example.com:5000/a/b@sha256:{'0' * 64}"},
        {"type": "process", "agentSelector": {"region": "ams"}, "command": ["/bin/app", "--flag=a b"]},
        CONTAINER | {"healthCheck": {"tcp": {"port": 80}}},
    ],
    "Route": [
        HTTP,
        TCP,
        MONGODB,
        HTTP | {"backends": [{"deployment": "web"}]},
        HTTP | {"backends": [{"deployment": "web", "portName": "http"}], "paths": [{"exact": "/a"}, {"prefix": "/b"}]},
        HTTP | {"middlewares": [{"maintenance": {}}, {"redirect": {"scheme": "https"}}]},
        TCP | {"tls": {"mode": "passthrough"}},
        MONGODB | {"middlewares": [{"ipAllowList": {"ranges": ["::1"]}}, {"connectionLimit": {"amount": 100}}]},
        {"type": "tcp", "entryPoint": "raw", "tls": {"mode": "none"}, "backends": [{"agent": "vps-1", "port": 80}]},
    ],
}
# (kind, spec, where, the words)
BAD: list[tuple[Kind, dict[str, Any], str, str]] = [
    ("Fleet", {}, "spec.domain", "Field required"),
    ("Fleet", {"domain": "example.com", "teams": [{"name": "a"}, {"name": "a"}]}, "spec", 'team "a" is listed twice'),
    (
        "Fleet",
        {"domain": "example.com", "teams": [{"name": "a", "ports": [{"first": 9, "last": 8}]}]},
        "spec.teams.0.ports.0",
        "the first port, 9, is above the last, 8",
    ),
    ("Fleet", {"domain": "example.com", "deletionGuard": {"percent": 101}}, "spec.deletionGuard.percent", "less than"),
    ("Agent", {"address": "a b"}, "spec.address", "neither an IP address nor a host name"),
    ("Agent", {"address": "fe80::1%eth0"}, "spec.address", "an address with a zone (%…) means nothing"),
    ("Agent", {"address": "::1", "capabilities": ["vm"]}, "spec.capabilities.0", "'container', 'process' or 'mongodb'"),
    ("Agent", {"adress": "::1"}, "spec.adress", "Extra inputs are not permitted"),
    ("Secret", {"sealed": {}}, "spec.sealed", "at least 1 item"),
    ("Secret", {"sealed": {"password": "hunter2"}}, "spec.sealed.password", "pattern"),
    ("Certificate", {"dnsNames": [], "issuer": "internal"}, "spec.dnsNames", "at least 1 item"),
    (
        "Certificate",
        {"dnsNames": ["a.b"], "issuer": "internal", "lifetime": "24h"},
        "spec",
        "renewBefore 720h must be shorter than lifetime 24h",
    ),
    ("Certificate", {"dnsNames": ["a.b"], "issuer": "provided"}, "spec", "go together"),
    ("Certificate", {"dnsNames": ["a.b"], "issuer": "internal", "provided": PAIR}, "spec", "go together"),
    ("Certificate", {"dnsNames": ["a.b"], "issuer": "internal", "acme": {}}, "spec", "acme is for issuer acme"),
    (
        "Certificate",
        {"dnsNames": ["a.b"], "issuer": "provided", "provided": PAIR, "lifetime": "2160h"},
        "spec",
        "that the control plane renews",
    ),
    (
        "Certificate",
        {"dnsNames": ["a.b"], "issuer": "provided", "provided": PAIR, "usedBy": {"agents": ["a"]}},
        "spec",
        "a provided key stays on the fronts",
    ),
    ("Fleet", {"domain": "example.com", "acme": {"directories": {}}}, "spec.acme.directories", "at least 1 item"),
    (
        "Fleet",
        {"domain": "example.com", "acme": {"directories": {"a": {"url": "http://acme.test/dir"}}}},
        "spec.acme.directories.a.url",
        "pattern",
    ),
    ("Fleet", {"domain": "example.com", "acme": {"email": "me"}}, "spec.acme.email", "pattern"),
    (
        "Fleet",
        {"domain": "example.com", "acme": {"directory": "other"}},
        "spec",
        'acme.directory "other" is not one of acme.directories',
    ),
    (
        "Fleet",
        {"domain": "example.com", "acme": {"directories": {"a": ACME, "b": ACME}}},
        "spec",
        "several directories",
    ),
    ("Deployment", {"type": "container", "agents": ["vps-1"]}, "spec", "type container needs image"),
    ("Deployment", PROCESS | {"image": "a"}, "spec", "image is for type container, this is type process"),
    ("Deployment", {"type": "process", "agents": ["vps-1"]}, "spec", "type process needs command"),
    ("Deployment", {**PROCESS, "ports": [{"container": 80, "host": 8081}]}, "spec", "write 8081 for container too"),
    (
        "Deployment",
        {**PROCESS, "ports": [{"container": 8081, "host": 8081}], "env": {"PORT": "8081"}},
        "spec",
        "the agent gives PORT",
    ),
    ("Deployment", DATABASE | {"command": ["x"]}, "spec", "type mongodb needs mongodb and takes no command"),
    ("Deployment", CONTAINER | {"mongodb": {"version": "6.0"}}, "spec", "mongodb is for type mongodb"),
    ("Deployment", {"type": "container", "image": "a"}, "spec", "say where it runs: agents or agentSelector"),
    ("Deployment", CONTAINER | {"agents": ["a", "a"]}, "spec", "agent a is listed twice"),
    (
        "Deployment",
        CONTAINER | {"ports": [{"container": 1, "host": 80}, {"container": 2, "host": 80}]},
        "spec",
        "host port 80 is listed twice",
    ),
    (
        "Deployment",
        CONTAINER | {"env": {"A": "x"}, "secrets": [{"env": "A", "secret": "s", "key": "k"}]},
        "spec",
        "environment variable A is listed twice",
    ),
    ("Deployment", CONTAINER | {"healthCheck": {}}, "spec.healthCheck", "write exactly one of http, tcp and command"),
    ("Deployment", CONTAINER | {"image": "-v /:/host"}, "spec.image", "pattern"),
    ("Route", HTTP | {"backends": []}, "spec.backends", "at least 1 item"),
    ("Route", HTTP | {"backends": [{"port": 80}]}, "spec.backends.0", "write either agent or deployment"),
    ("Route", HTTP | {"backends": [{"agent": "a"}]}, "spec.backends.0", "agent needs port"),
    (
        "Route",
        HTTP | {"backends": [{"deployment": "a", "port": 1, "portName": "b"}]},
        "spec.backends.0",
        "write port or portName, not both",
    ),
    ("Route", HTTP | {"paths": [{}]}, "spec.paths.0", "write either prefix or exact"),
    ("Route", HTTP | {"tls": {"mode": "passthrough"}}, "spec", "tls.mode passthrough is for types tcp and mongodb"),
    ("Route", HTTP | {"entryPoint": "a"}, "spec", "entryPoint is for type tcp"),
    ("Route", TCP | {"paths": [{"prefix": "/"}]}, "spec", "paths is for type http, this is type tcp"),
    ("Route", {**TCP, "entryPoint": None}, "spec", "type tcp needs entryPoint"),
    ("Route", TCP | {"hostnames": []}, "spec", "type tcp with TLS needs hostnames (SNI)"),
    ("Route", TCP | {"tls": {"mode": "none"}}, "spec", "hostnames need TLS (SNI)"),
    ("Route", MONGODB | {"hostnames": ["a.b"]}, "spec", "leave hostnames out"),
    ("Route", MONGODB | {"tls": {"mode": "none"}}, "spec", "a route of type mongodb is always TLS"),
    ("Route", HTTP | {"middlewares": [{}]}, "spec.middlewares.0", "a middleware has exactly one key"),
    ("Route", HTTP | {"middlewares": [{"compress": None}]}, "spec.middlewares.0", "a middleware has exactly one key"),
    (
        "Route",
        HTTP | {"middlewares": [{"compress": {}, "retry": {"attempts": 1}}]},
        "spec.middlewares.0",
        "write a list entry for each",
    ),
    ("Route", HTTP | {"middlewares": [{"headers": {}}]}, "spec.middlewares.0.headers", "needs request or response"),
    ("Route", HTTP | {"middlewares": [{"redirect": {}}]}, "spec.middlewares.0.redirect", "needs scheme or host"),
    (
        "Route",
        HTTP | {"middlewares": [{"circuitBreaker": {}}]},
        "spec.middlewares.0.circuitBreaker",
        "networkErrorRatio",
    ),
    ("Route", HTTP | {"middlewares": [{"connectionLimit": {"amount": 1}}]}, "spec", "is for types tcp and mongodb"),
    ("Route", TCP | {"middlewares": [{"compress": {}}]}, "spec", "can have ipAllowList and connectionLimit"),
    (
        "Route",
        MONGODB | {"middlewares": [{"ipAllowList": {"ranges": ["::1"], "forwardedDepth": 1}}]},
        "spec",
        "forwardedDepth is for type http",
    ),
    (
        "Route",
        MONGODB | {"middlewares": [{"connectionLimit": {"amount": 0}}]},
        "spec.middlewares.0.connectionLimit.amount",
        "greater than or equal to 1",
    ),
]


def document(kind: Kind, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "cloudlunacy/v1", "kind": kind, "metadata": {"name": "x"}, "spec": spec}


@pytest.mark.parametrize(("kind", "spec"), [(kind, spec) for kind, specs in GOOD.items() for spec in specs])
def test_good_documents_are_valid_in_python_and_in_an_editor(kind: Kind, spec: dict[str, Any]) -> None:
    """The model and the generated schema agree."""
    ADAPTERS[kind].validate_python(document(kind, spec))
    jsonschema.validate(document(kind, spec), SCHEMAS[file_name(kind)])


@pytest.mark.parametrize(("kind", "spec", "where", "words"), BAD)
def test_bad_documents_are_refused_at_their_place_and_in_words(
    kind: Kind, spec: dict[str, Any], where: str, words: str
) -> None:
    """The place is the path in the YAML, the words say what to write instead."""
    with pytest.raises(ValidationError) as caught:
        ADAPTERS[kind].validate_python(document(kind, spec))
    found = [(".".join(map(str, error["loc"])), error["msg"]) for error in caught.value.errors()]
    assert any(place == where and words in message for place, message in found), found


@pytest.mark.parametrize(("kind", "spec"), [(kind, spec) for kind, spec, where, _ in BAD if where != "spec"])
def test_an_editor_shows_bad_values_as_bad(kind: Kind, spec: dict[str, Any]) -> None:
    """Where a single value or object is wrong the generated schema says so too, but for comparisons and addresses."""
    beyond_a_schema = ("address", "ports", "portName", "headers", "redirect", "circuitBreaker")
    text = json.dumps(spec)
    if not any(word in text for word in beyond_a_schema):
        assert not jsonschema.Draft202012Validator(SCHEMAS[file_name(kind)]).is_valid(document(kind, spec))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change",
    [{"apiVersion": "cloudlunacy/v2"}, {"kind": "Rout"}, {"status": {}}, {"metadata": {"name": "X"}}, {"metadata": {}}],
)
def test_the_envelope_is_strict(kind: Kind, change: dict[str, Any]) -> None:
    """Another version, another kind, an unknown field and a bad name are refused for every kind."""
    good = document(kind, GOOD[kind][0])
    with pytest.raises(ValidationError):
        ADAPTERS[kind].validate_python(good | change)
    assert not jsonschema.Draft202012Validator(SCHEMAS[file_name(kind)]).is_valid(good | change)


def test_values_do_not_appear_in_errors() -> None:
    """What somebody pasted into the wrong place, such as a password, is not in the text of the error."""
    with pytest.raises(ValidationError) as caught:
        ADAPTERS["Secret"].validate_python(document("Secret", {"sealed": {"password": "hunter2"}}))
    assert "hunter2" not in str(caught.value)


def test_objects_cannot_be_changed() -> None:
    """A parsed object may be shared and cached."""
    agent = ADAPTERS["Agent"].validate_python(document("Agent", {"address": "::1"}))
    with pytest.raises(ValidationError, match="frozen"):
        agent.metadata.name = "y"  # type: ignore[misc]


def test_yaml_words_stay_what_they_are() -> None:
    """A number where a string belongs is refused instead of guessed."""
    with pytest.raises(ValidationError):
        ADAPTERS["Deployment"].validate_python(document("Deployment", CONTAINER | {"env": {"A": 1}}))
