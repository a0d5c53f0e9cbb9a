"""What people are told of a value that does not fit: what is wrong and what to write, in words of YAML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest
from ruamel.yaml import YAML

from reconciler.desired.explain import MAX_FINDINGS
from reconciler.desired.finding import Finding
from reconciler.desired.grammar import FORMS, RULES
from reconciler.desired.parse import parse_file
from schemas.access_api import ApiTokenRequest, RevocationRequest
from schemas.api import ApprovalRequest
from schemas.enrolment import EnrolmentRequest, NewTokenRequest
from schemas.objects import KINDS, key_of_path
from schemas.rotation_api import RotationRequest
from tests.support.documents import agent, deployment, document, fleet, route

EXAMPLE: Final = Path(__file__).parents[3] / "state-repo-example"
FILES: Final = sorted(
    path for path in EXAMPLE.rglob("*.yaml") if key_of_path(path.relative_to(EXAMPLE).as_posix()) is not None
)
PYTHON: Final = re.compile(
    r"\b(str|int|float|bool|dict|dictionary|tuple|instance|NoneType|None|input|validat\w*|Input|"
    r"string should|valid integer|[A-Z][a-z]+(Match|Check|Spec|Mapping|Probe|Cookie|Env|Reference|Usage|Model))\b"
)
BROKEN: Final[tuple[Any, ...]] = (
    *(None, "", "s3cr3t \x07\u00e9", "x" * 40_000, 12345678901, -1, 1.5, True),
    *([], ["s3cr3t \x07"], {}, {"s3cr3t": "s3cr3t"}),
)


def findings(path: str, document: Any) -> tuple[Finding, ...]:
    return parse_file(path, "b", json.dumps(document).encode()).findings


def places(value: Any, field: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the path of every value of a document."""
    if field:
        yield field
    items: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, below in items:
        yield from places(below, (*field, step))


def with_value(document: Any, field: tuple[str | int, ...], value: Any) -> Any:
    copy = deepcopy(document)
    at = copy
    for step in field[:-1]:
        at = at[step]
    at[field[-1]] = value
    return copy


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.relative_to(EXAMPLE).as_posix())
def test_whatever_is_broken_is_told_with_a_remedy(file: Path) -> None:
    """Every field of every kind, broken in a dozen ways: a hint, no word of Python, and nothing that may be secret."""
    path = file.relative_to(EXAMPLE).as_posix()
    good = json.loads(json.dumps(YAML(typ="safe").load(file)))
    assert findings(path, good) == ()
    for field in places(good):
        if field[0] in ("apiVersion", "kind"):
            continue
        for value in BROKEN:
            for one in findings(path, with_value(good, field, value)):
                told = f"{field} {str(value)[:20]!r}: {one.message} {one.hint}"
                assert one.hint, told
                assert PYTHON.search(f"{one.message} {one.hint}") is None, told
                assert len(told) < 700, told
                if {"env", "command", "headers", "sealed"} & {*field, *one.field[:-1]}:
                    assert "s3cr3t \x07" not in one.message + one.hint, told


SECRET: Final = "secrets/shop/db.yaml"
WEB: Final = "deployments/shop/web.yaml"
SITE: Final = "routes/shop/site.yaml"


@pytest.mark.parametrize(
    ("path", "content", "said"),
    [
        (
            WEB,
            deployment("web", "vps-1", resources={"memory": "128MB"}),
            (
                'spec.resources.memory: "128MB" is no size: write a whole number of bytes, or one with Ki, Mi, Gi '
                "or Ti (powers of 1024) Write it as 128Mi."
            ),
        ),
        (
            SITE,
            route("site", paths=["/x"]),
            "spec.paths[0]: a mapping is needed here, and this is text Write {prefix: /x}.",
        ),
        (
            SITE,
            route("site", backends=[{"agent": "vps-1", "port": "8081"}]),
            "spec.backends[0].port: a whole number is needed here, and this is text Remove the quotes: port: 8081.",
        ),
        (
            SITE,
            route("site", backends=["vps-1"]),
            "spec.backends[0]: a mapping is needed here, and this is text Write {agent: vps-1}.",
        ),
        (
            SITE,
            route("site", backends=[{"agent": "vps-1", "port": 70000}]),
            "spec.backends[0].port: 70000 is out of range Write a whole number from 1 to 65535.",
        ),
        (
            SITE,
            route("site", healthCheck={"interval": 5}),
            (
                "spec.healthCheck.interval: text is needed here, and this is a number "
                "Write it with a unit: interval: 5s."
            ),
        ),
        (
            SITE,
            route("site", tls={"mode": "passtrough"}),
            (
                "spec.tls.mode: the value should be 'terminate', 'passthrough' or 'none' "
                'Did you mean "passthrough"?'
            ),
        ),
        (
            "agents/vps-1.yaml",
            agent("vps-1", address=127.1),
            (
                "spec.address: text is needed here, and this is a number "
                "Write it like 203.0.113.7, or a host name."
            ),
        ),
        (
            "fleet.yaml",
            fleet({"name": "shop", "agents": "vps-1"}),
            "spec.teams[0].agents: a list is needed here, and this is text Write [vps-1].",
        ),
        (
            WEB,
            deployment("web", "vps-1", env={"A": 5}),
            "spec.env.A: text is needed here, and this is a number Put it in quotes.",
        ),
        (
            WEB,
            document("Deployment", "web", {"type": "container", "image": "web:1", "agents": "vps-1"}),
            "spec.agents: a list is needed here, and this is text Write [vps-1].",
        ),
        (
            WEB,
            document("Deployment", "web", {"type": "mongodb", "agents": ["a"], "mongodb": {"version": 8.0}}),
            'spec.mongodb.version: text is needed here, and this is a number Put it in quotes: version: "8.0".',
        ),
        (SECRET, document("Secret", "db", {"sealed": {"a": 5}}), "spec.sealed.a is no sealed value Seal it: "),
    ],
)  # fmt: skip
def test_a_slip_is_told_with_what_to_write(path: str, content: bytes, said: str) -> None:
    """The sentence says what is wrong, and the hint is the line as it should stand where that can be known."""
    told = [f"{one.message} {one.hint}" for one in parse_file(path, "b", content).findings]
    assert any(one.startswith(said) for one in told), told


@pytest.mark.parametrize("field", ["type: ", "transport: {dialTimeout: ", "tls: {mode: ", "hostnames: [", "paths: ["])
def test_a_number_without_end_is_told_like_any_other(field: str) -> None:
    """Python refuses to write it, and nobody has to."""
    end = {"{": "}", "[": "]"}.get(next((one for one in field if one in "{["), ""), "")
    text = f"apiVersion: cloudlunacy/v1\nkind: Route\nmetadata: {{name: site}}\nspec:\n  {field}1{'0' * 5000}{end}\n"
    found = parse_file(SITE, "b", text.encode()).findings
    assert found
    assert all(one.hint for one in found)


def test_every_pattern_of_every_kind_has_its_sentence() -> None:
    """Nobody has to read a regular expression, and each example is a value that fits."""
    requests = (ApiTokenRequest, ApprovalRequest, EnrolmentRequest, NewTokenRequest, RevocationRequest, RotationRequest)
    for model in (*KINDS.values(), *requests):
        patterns = set(re.findall(r'"pattern": ("(?:[^"\\]|\\.)*")', json.dumps(model.model_json_schema())))
        for pattern in map(json.loads, patterns):
            assert pattern in FORMS, pattern
    for pattern, form in FORMS.items():
        assert re.search(pattern, form.example) or "secret seal" in form.example, form


def test_every_rule_is_told_with_what_to_do() -> None:
    """Each word that leads from a rule's message to its remedy stands in some validator of the schemas."""
    folder = EXAMPLE.parent / "schemas"
    text = "".join(path.read_text() for path in folder.glob("*.py"))
    assert [word for word in RULES if word not in text] == []


def test_a_flood_is_cut_and_says_so() -> None:
    """The rest is counted, with a hint as well."""
    files = document("Route", "site", {"type": "http", "backends": [{"agent": "A", "port": 0}] * 60})
    found = parse_file(SITE, "b", files).findings
    assert len(found) == MAX_FINDINGS + 1
    assert all(one.hint for one in found)
