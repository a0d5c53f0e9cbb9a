from __future__ import annotations

import json
import re
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.commands.problem_formats import STYLES, format_problems, summarise
from schemas.problem import Problem

AGENT = Problem(
    file="routes/shop/web.yaml",
    line=7,
    column=5,
    code="unknown-agent",
    message='backend names agent "vsp-1", which does not exist.',
    hint='Did you mean "vps-1"?',
    object="Route/shop/web",
)
UNUSED = Problem(
    file="secrets/shop/old.yaml", code="unused-secret", severity="warning", message="nothing uses it.", object=""
)
EVERYTHING = st.text(st.characters(), max_size=60)
PROBLEMS = st.builds(
    Problem,
    file=EVERYTHING.filter(bool),
    line=st.integers(1, 10**6),
    column=st.integers(1, 10**4),
    code=st.sampled_from(["unknown-agent", "bad-yaml"]),
    severity=st.sampled_from(["error", "warning"]),
    message=EVERYTHING,
    hint=EVERYTHING,
    object=EVERYTHING,
)


def test_text_is_one_line_for_each_problem_in_order_of_place() -> None:
    """The shape that editors and people know: file:line:column code: message hint."""
    assert format_problems([UNUSED, AGENT], 12, "text") == (
        'routes/shop/web.yaml:7:5 unknown-agent: backend names agent "vsp-1", which does not exist. '
        'Did you mean "vps-1"?\n'
        "secrets/shop/old.yaml:1:1 unused-secret: nothing uses it.\n"
    )


def test_text_has_colours_only_when_told() -> None:
    """Without its escape sequences the coloured text is the plain one."""
    plain = format_problems([AGENT, UNUSED], 2, "text")
    coloured = format_problems([AGENT, UNUSED], 2, "text", colour=True)
    assert "\x1b" not in plain
    assert coloured != plain
    assert re.sub(r"\x1b\[[0-9]+m", "", coloured) == plain


def test_the_summary_groups_by_code() -> None:
    """The most frequent code comes first."""
    assert summarise([AGENT, AGENT.model_copy(update={"line": 9}), UNUSED], 12) == (
        "12 objects checked: 2 errors and 1 warning in 2 files.\n  2 unknown-agent\n  1 unused-secret\n"
    )


@pytest.mark.parametrize(
    ("problems", "objects", "expected"),
    [
        ([], 0, "0 objects checked, no problems.\n"),
        ([], 1, "1 object checked, no problems.\n"),
        ([UNUSED], 1, "1 object checked: 1 warning in 1 file.\n  1 unused-secret\n"),
    ],
)
def test_the_summary_counts_in_words(problems: list[Problem], objects: int, expected: str) -> None:
    """One is singular, and nothing is said of what did not occur."""
    assert summarise(problems, objects) == expected


def test_json_has_the_fields_of_the_contract() -> None:
    """problems with their eight fields, and the number of objects."""
    assert json.loads(format_problems([AGENT], 12, "json")) == {
        "problems": [
            {
                "file": "routes/shop/web.yaml",
                "line": 7,
                "column": 5,
                "code": "unknown-agent",
                "severity": "error",
                "message": 'backend names agent "vsp-1", which does not exist.',
                "hint": 'Did you mean "vps-1"?',
                "object": "Route/shop/web",
            }
        ],
        "objects": 12,
    }


def test_github_annotations_are_escaped_workflow_commands() -> None:
    """Per cent signs and line breaks everywhere, colons and commas in properties as well."""
    problem = AGENT.model_copy(update={"file": "a,b:c%.yaml", "message": "100 %\r\n::error::no", "hint": ""})
    assert format_problems([problem], 1, "github") == (
        "::error file=a%2Cb%3Ac%25.yaml,line=7,col=5,title=unknown-agent (Route/shop/web)::100 %25%0D%0A::error::no\n"
    )


def test_sarif_names_rules_places_and_fingerprints() -> None:
    """What a forge needs to show a result at its line and to know it again."""
    log = json.loads(format_problems([UNUSED, AGENT], 2, "sarif"))
    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["unknown-agent", "unused-secret"]
    assert run["results"][0] == {
        "ruleId": "unknown-agent",
        "ruleIndex": 0,
        "level": "error",
        "message": {"text": 'backend names agent "vsp-1", which does not exist. Did you mean "vps-1"?'},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": "routes/shop/web.yaml"},
                    "region": {"startLine": 7, "startColumn": 5},
                },
                "logicalLocations": [{"fullyQualifiedName": "Route/shop/web", "kind": "resource"}],
            }
        ],
        "partialFingerprints": run["results"][0]["partialFingerprints"],
    }


def test_a_sarif_fingerprint_follows_the_problem_to_another_line() -> None:
    """A line added above makes no new result; another message does."""
    problems = [AGENT, AGENT.model_copy(update={"line": 8}), AGENT.model_copy(update={"message": "other"})]
    results = [json.loads(format_problems([problem], 1, "sarif"))["runs"][0]["results"][0] for problem in problems]
    marks = [result["partialFingerprints"]["problem/v1"] for result in results]
    assert marks[0] == marks[1] != marks[2]


def test_junit_has_a_failing_case_for_each_file_with_errors() -> None:
    """Warnings are output of their case and fail nothing."""
    suite = ET.fromstring(format_problems([AGENT, UNUSED], 12, "junit").encode())[0]
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    assert [case.get("name") for case in suite] == [
        "12 objects checked",
        "routes/shop/web.yaml",
        "secrets/shop/old.yaml",
    ]
    failure = suite[1].find("failure")
    assert failure is not None
    assert (failure.get("type"), failure.get("message")) == ("unknown-agent", AGENT.message)
    assert failure.text == format_problems([AGENT], 12, "text")
    assert suite[2].findtext("system-out") == format_problems([UNUSED], 12, "text")


def test_no_problems_are_valid_documents_too() -> None:
    """A machine that reads the answer gets a document and not nothing."""
    assert format_problems([], 3, "text") == ""
    assert format_problems([], 3, "github") == ""
    assert json.loads(format_problems([], 3, "json")) == {"problems": [], "objects": 3}
    assert json.loads(format_problems([], 3, "sarif"))["runs"][0]["results"] == []
    assert ET.fromstring(format_problems([], 3, "junit").encode())[0].get("tests") == "1"


@given(st.lists(PROBLEMS, max_size=4))
def test_a_problem_is_always_one_line_and_cannot_write_to_the_terminal(problems: list[Problem]) -> None:
    """Line breaks, escape sequences and lone surrogates in a file's text are shown as escapes."""
    text = format_problems(problems, 1, "text")
    assert text.count("\n") == len(text.splitlines()) == len(problems)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", text)


@given(PROBLEMS)
def test_an_annotation_reads_back_as_it_was_meant(problem: Problem) -> None:
    """One command a line; properties split at commas give back the file."""
    line = format_problems([problem], 1, "github")
    assert line.count("\n") == len(line.splitlines()) == 1
    match = re.fullmatch(r"::(error|warning) ([^:]*)::(.*)\n", line)
    assert match is not None
    properties = dict(pair.split("=", 1) for pair in match[2].split(","))
    assert (properties["line"], properties["col"]) == (str(problem.line), str(problem.column))
    if problem.file.isprintable():
        assert unquote_to_bytes(properties["file"]).decode() == problem.file


@given(st.lists(PROBLEMS, max_size=4))
def test_sarif_is_json_whose_uris_are_ascii_and_read_back(problems: list[Problem]) -> None:
    """A path of any bytes becomes a URI reference, and every result names a rule that is there."""
    run = json.loads(format_problems(problems, 1, "sarif"))["runs"][0]
    rules = run["tool"]["driver"]["rules"]
    for result in run["results"]:
        uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        assert re.fullmatch(r"[A-Za-z0-9._~/@!$&'()*+,;=%-]*", uri)
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]


@given(st.lists(PROBLEMS, max_size=4))
def test_junit_is_xml_whatever_a_problem_says(problems: list[Problem]) -> None:
    """Characters that XML cannot carry are replaced."""
    suite = ET.fromstring(format_problems(problems, 1, "junit").encode())[0]
    assert len(suite.findall("testcase/failure")) == int(suite.get("failures", "-1"))


@given(st.lists(PROBLEMS, max_size=3), st.sampled_from(STYLES))
def test_every_format_can_be_printed(problems: list[Problem], style: str) -> None:
    """No lone surrogate is left that would end the command with UnicodeEncodeError."""
    format_problems(problems, 1, style).encode("utf-8")  # type: ignore[arg-type]
