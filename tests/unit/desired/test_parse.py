"""From a file to an object, or to everything that is wrong with it."""

from __future__ import annotations

from typing import Final

import pytest

from reconciler.desired.explain import MAX_FINDINGS
from reconciler.desired.finding import to_problem
from reconciler.desired.locate import positions
from reconciler.desired.parse import Parsed, examine_path, is_object_path, parse_file
from reconciler.desired.snapshot import File
from schemas.objects import ADAPTERS, ObjectKey
from schemas.route import Route
from tests.support.documents import agent, route

PATH: Final = "routes/shop/web.yaml"
GOOD: Final = b"""\
apiVersion: cloudlunacy/v1
kind: Route
metadata: {name: web}
spec:
  type: http
  hostnames: [web.app.cloudlunacy.test]
  backends: [{agent: vps-1, port: 8081, weight: 1}]
  tls: {mode: none}
"""


def problems(content: bytes, path: str = PATH) -> list[str]:
    parsed = parse_file(path, "b", content)
    places = positions(content, parsed.findings)
    return [str(to_problem(one, place, "")) for one, place in zip(parsed.findings, places, strict=True)]


def test_a_good_file_becomes_its_object() -> None:
    """The object carries what was written, and nothing is reported."""
    parsed = parse_file(PATH, "b1", GOOD)
    assert isinstance(parsed.object, Route)
    assert (parsed.key, parsed.blob, parsed.findings) == (ObjectKey("Route", "shop", "web"), "b1", ())
    assert parsed.object.spec.backends[0].agent == "vps-1"


@pytest.mark.parametrize(
    "content",
    [
        GOOD,
        route("web", "a.test", middlewares=[{"headers": {"request": {"X-A": ""}}}], methods=["GET"]),
        route("web", middlewares=[{"ipAllowList": {"ranges": ["10.0.0.1/8", "::1"]}}]),
    ],
)
def test_the_document_makes_an_equal_object_again(content: bytes) -> None:
    """What a cache keeps of an object validates to the same, down to which fields were written."""
    parsed = parse_file(PATH, "b", content)
    again = ADAPTERS["Route"].validate_json(parsed.document)
    assert again == parsed.object
    assert again.model_dump(exclude_unset=True) == parsed.object.model_dump(exclude_unset=True)


def test_a_kept_document_is_not_made_again() -> None:
    """A document that came from the cache goes back as it is."""
    assert Parsed(PATH, "b", None, None, b"{}").document == b"{}"


def test_a_file_with_findings_has_no_document() -> None:
    """Nothing that is wrong gets into a cache of objects."""
    assert parse_file(PATH, "b", b"a: [").document == b""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"name: web", b"name: wob", '3:18 wrong-name: metadata.name is "wob", but the file is called web.yaml'),
        (b"weight", b"wieght", '7:41 unknown-field: there is no field "spec.backends[0].wieght". Did you mean'),
        (
            b"8081",
            b'"x"',
            "7:35 invalid-value: spec.backends[0].port: a whole number is needed here, and this is text.",
        ),
        (b"8081", b"80.5", "7:35 invalid-value: spec.backends[0].port: a whole number is needed here"),
        (
            b"8081",
            b"1" + b"0" * 5000,
            "7:35 invalid-value: spec.backends[0].port: a number without end is out of range",
        ),
        (b"8081", b"true", "7:35 invalid-value: spec.backends[0].port: a whole number is needed here"),
        (b"Route", b"Rout", '2:7 wrong-kind: kind is "Rout", but this path holds a Route. Did you mean "Route"'),
        (b"Route", b"Agent", '2:7 wrong-kind: kind is "Agent", but this path holds a Route. Write kind: Route,'),
        (b"kind: Route\n", b"", "1:1 wrong-kind: kind is missing, but this path holds a Route. Write kind: Rou"),
        (b"Route", b"9" * 60_000, "2:7 wrong-kind: kind is a number without end, but this path holds a Route."),
        (b"cloudlunacy/v1", b"v2", '1:13 unknown-version: apiVersion is "v2", this control plane reads cloudlu'),
        (b"web.app", b"Web`.app", '6:15 invalid-value: spec.hostnames[0]: "Web`.app.cloudlunacy.test" is no ho'),
        (b"[web.app.cloudlunacy.test]", b"[10.0.0.1]", '6:15 invalid-value: spec.hostnames[0]: "10.0.0.1" is n'),
        (b"[web.app.cloudlunacy.test]", b"[WEB.test]", '6:15 invalid-value: spec.hostnames[0]: "WEB.test" is n'),
        (b"[web.app.cloudlunacy.test]", b"['{{7*7}}']", '6:15 invalid-value: spec.hostnames[0]: "{{7*7}}" is n'),
        (b"mode: none", b"mode: off", "8:15 invalid-value: spec.tls.mode: the value should be 'terminate', 'pa"),
        (b"{name: web}", b"{name: web, labels: {1: x}}", "3:31 invalid-value: a key in metadata.labels is not"),
        (b"spec:\n", b"1: 2\nspec:\n", "1:1 invalid-value: a key in the document is not a string"),
        (b"  backends: [{agent: vps-1, port: 8081, weight: 1}]\n", b"", '5:3 missing-field: "spec.backends" is'),
        (b"[{agent: vps-1, port: 8081, weight: 1}]", b"[]", "7:13 invalid-value: spec.backends needs at least"),
        (b"type: http", b"type: http\n  paths: [{prefix: /a/../b}]", "6:20 invalid-value: spec.paths[0].prefix"),
    ],
)
def test_a_wrong_field_is_reported_at_its_line(old: bytes, new: bytes, said: str) -> None:
    """Line, column, code, message and hint lead a person to the mistake and out of it."""
    found = problems(GOOD.replace(old, new))
    assert found[0].removeprefix(f"{PATH}:").startswith(said), found


def test_all_that_is_wrong_is_reported_at_once() -> None:
    """One push is enough to see every mistake of a file."""
    content = GOOD.replace(b"weight", b"wieght").replace(b"8081", b"0").replace(b"web.app", b"_")
    assert [text.split()[1] for text in problems(content)] == ["invalid-value:", "invalid-value:", "unknown-field:"]


def test_a_flood_of_mistakes_is_cut() -> None:
    """Thousands of wrong fields are counted, not listed."""
    content = GOOD + b"  headers: [" + b"{}, " * 5000 + b"]\n" + b"".join(b"x%d: 1\n" % n for n in range(1000))
    parsed = parse_file(PATH, "b", content)
    assert MAX_FINDINGS <= len(parsed.findings) <= MAX_FINDINGS + 1


def test_duplicate_keys_point_at_the_second() -> None:
    """The later of two equal keys is where the mistake stands."""
    assert problems(b"a: 1\nb: {c: 1, c: 2}\n") == [
        f'{PATH}:2:11 duplicate-key: the key "c" stands twice in one mapping. Keep one of them.'
    ]


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", "1e999"])
def test_numbers_without_a_value_are_refused(value: str) -> None:
    """No limit of a deployment can be infinite or no number at all."""
    content = f"""\
apiVersion: cloudlunacy/v1
kind: Deployment
metadata: {{name: web}}
spec: {{type: container, image: "web:1", agents: [a], resources: {{cpus: {value}}}}}
"""
    found = problems(content.encode(), "deployments/shop/web.yaml")
    assert [text.split()[1] for text in found] == ["invalid-value:"]


def test_content_that_was_too_large_to_read_is_reported() -> None:
    """None stands for content over the limit."""
    assert [one.code for one in parse_file(PATH, "b", None).findings] == ["file-too-large"]


def test_an_agent_keeps_its_address_in_one_form() -> None:
    """Equal addresses are equal strings."""
    parsed = parse_file("agents/a.yaml", "b", agent("a", address="0:0:0:0:0:0:0:1"))
    assert parsed.object is not None
    assert parsed.object.spec.address == "::1"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "mode", "code"),
    [
        ("routes/shop/web.yaml", "100644", None),
        ("routes/shop/README.md", "100644", None),
        ("routes/shop/run.sh", "100755", None),
        ("routes/shop/web.yaml", "100755", "not-a-regular-file"),
        ("routes/shop/web.yaml", "120000", "not-a-regular-file"),
        ("routes", "120000", "not-a-regular-file"),
        ("routes/shop", "160000", "not-a-regular-file"),
        ("routes/shop/web.yml", "100644", "misplaced-file"),
        ("routes/Shop/web.yaml", "100644", "misplaced-file"),
        ("Routes/shop/web.yaml", "100644", "misplaced-file"),
        ("routes/web.yaml", "100644", "misplaced-file"),
        ("routes/a/b/web.yaml", "100644", "misplaced-file"),
        ("routes/shop/../web.yaml", "100644", "misplaced-file"),
        ("routes/shop/w\udce9b.yaml", "100644", "misplaced-file"),
        ("agents/con.yaml", "100644", "misplaced-file"),
        ("routes/nul/web.yaml", "100644", "misplaced-file"),
        ("fleet.yml", "100644", "misplaced-file"),
        ("Fleet.yaml", "100644", "misplaced-file"),
    ],
)
def test_a_path_is_judged_before_anything_is_read(path: str, mode: str, code: str | None) -> None:
    """Links, submodules, device names, other cases and foreign places are problems; files that are no YAML are not."""
    assert is_object_path(path)
    finding = examine_path(path, File(mode, "b"))
    assert (finding.code if finding else None) == code


@pytest.mark.parametrize("path", ["README.md", ".github/workflows/ci.yaml", "docs/routes/a.yaml", "other.yaml"])
def test_other_files_are_nobodys_business(path: str) -> None:
    """A repository may hold anything beside the objects."""
    assert not is_object_path(path)


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("Routes/Shop/My_Web.yml", "Rename it to routes/shop/my-web.yaml, or delete it if that file is there already."),
        ("routes/loose.yaml", "Move it to routes/<team>/loose.yaml."),
        ("routes/shop/eu/web.yaml", "Move it to routes/shop/web.yaml."),
        ("deployments/a/b/c/Web.yml", "Move it to deployments/a/web.yaml."),
        ("agents/ams/vps-1.yaml", "Move it to agents/vps-1.yaml."),
        ("routes/sh op/eu/w$.yaml", "Move it to routes/<team>/<name>.yaml."),
        ("routes/shop/w$.yaml", "Names are RFC 1123 labels: lower-case letters, digits and inner hyphens."),
    ],
)
def test_a_misplaced_file_is_told_where_it_belongs(path: str, hint: str) -> None:
    """Spelling asks for another name, depth for another folder, and nobody is sent onto a file that is there."""
    finding = examine_path(path, File("100644", "b"))
    assert finding is not None
    assert finding.hint == hint
