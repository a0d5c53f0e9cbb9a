"""JSON Schemas (draft 2020-12) of every kind, for editors and for checks that do not run Python.

They say what the models say, field by field; rules between fields are added where a schema can express them. Two things
are narrower than the models on purpose: a field is left out instead of set to null, and names are written as in YAML.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from schemas.base import API_VERSION
from schemas.objects import KINDS, Kind

_ONE_KEY: Final[dict[str, Any]] = {"minProperties": 1, "maxProperties": 1}
_AGENT_OR_DEPLOYMENT: Final[dict[str, Any]] = {"oneOf": [{"required": ["agent", "port"]}, {"required": ["deployment"]}]}


def _when(kind: str, *fields: str) -> dict[str, Any]:
    return {
        "if": {"properties": {"type": {"const": kind}}, "required": ["type"]},
        "then": {"required": list(fields)},
    }


_BETWEEN_FIELDS: Final[dict[str, dict[str, Any]]] = {
    "Middleware": _ONE_KEY,
    "PathMatch": _ONE_KEY,
    "Backend": _AGENT_OR_DEPLOYMENT,
    "ServiceAddress": _AGENT_OR_DEPLOYMENT,
    "DeploymentHealthCheck": {"oneOf": [{"required": [probe]} for probe in ("http", "tcp", "command")]},
    "DeploymentSpec": {
        "allOf": [_when("container", "image"), _when("process", "command"), _when("mongodb", "mongodb")],
        "anyOf": [{"required": ["agents"]}, {"required": ["agentSelector"]}],
    },
    "Reload": {"oneOf": [{"required": ["signal", "pidFile"]}, {"required": ["command"]}]},
    "RouteSpec": {"allOf": [_when("tcp", "entryPoint")]},
    "ServiceTLS": {"dependentRequired": {"group": ["directory"]}},
}
"""Model → what its validators say, as far as a schema can."""


def _example(kind: Kind, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


EXAMPLES: Final[dict[Kind, tuple[dict[str, Any], ...]]] = {
    "Fleet": (
        _example(
            "Fleet",
            "example",
            {
                "domain": "example.com",
                "teams": [{"name": "shop", "hostnames": ["*.app.example.com"], "agents": ["vps-1"]}],
            },
        ),
    ),
    "Agent": (_example("Agent", "vps-1", {"address": "192.0.2.10", "capabilities": ["container", "mongodb"]}),),
    "Secret": (
        _example(
            "Secret",
            "database",
            {"sealed": {"password": "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n-----END AGE ENCRYPTED FILE-----\n"}},
        ),
    ),
    "Certificate": (_example("Certificate", "apps", {"dnsNames": ["*.app.example.com"], "issuer": "internal"}),),
    "Deployment": (
        _example(
            "Deployment",
            "web",
            {
                "type": "container",
                "agents": ["vps-1"],
                "image": "web:1",
                "ports": [{"container": 8080, "host": 8081}],
                "healthCheck": {"http": {"path": "/", "port": 8080}, "interval": "5s"},
            },
        ),
    ),
    "Route": (
        _example(
            "Route",
            "web",
            {
                "type": "http",
                "hostnames": ["web.app.example.com"],
                "backends": [{"agent": "vps-1", "port": 8081}],
                "middlewares": [{"rateLimit": {"average": 100, "burst": 50}}],
            },
        ),
        _example("Route", "db", {"type": "mongodb", "backends": [{"agent": "vps-1", "port": 27117}]}),
    ),
}


def file_name(kind: Kind) -> str:
    """Return the name of the kind's schema, such as ``route.json``."""
    return f"{kind.lower()}.json"


def generate() -> dict[str, str]:
    """Return file name → text of the schema, which ends in a line break, for every kind."""
    return {
        file_name(kind): json.dumps(_schema(kind, model), indent=2, ensure_ascii=False).replace("``", "`") + "\n"
        for kind, model in KINDS.items()
    }


def _schema(kind: Kind, model: type[BaseModel]) -> dict[str, Any]:
    body = model.model_json_schema(by_alias=True)
    definitions = {name: _tidy(name, definition) for name, definition in sorted(body.pop("$defs").items())}
    top = _tidy(kind, body)
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "$id": f"urn:{API_VERSION.replace('/', ':')}:{kind.lower()}",
        "title": kind,
        "description": _first_line(sys.modules[model.__module__].__doc__),
        **{key: value for key, value in top.items() if key not in ("title", "description")},
        "examples": list(EXAMPLES[kind]),
        "$defs": definitions,
    }


def _tidy(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    """Drop pydantic's invented field titles and the null of optional fields; add the rules between fields."""
    properties = {field: _without_null(schema) for field, schema in definition.get("properties", {}).items()}
    tidied = {**definition, **({"properties": properties} if properties else {})}
    return {**tidied, **_BETWEEN_FIELDS.get(name, {})}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in schema.items() if key != "title"}
    if kept.get("default", ...) is None:
        del kept["default"]
    if isinstance(kept.get("default"), dict):
        kept["default"] = {field: value for field, value in kept["default"].items() if value is not None}
    alternatives = [option for option in kept.get("anyOf", []) if option != {"type": "null"}]
    if len(alternatives) == 1:
        del kept["anyOf"]
        return {**alternatives[0], **kept}
    return kept


def _first_line(docstring: str | None) -> str:
    return (docstring or "").strip().partition("\n")[0]
