"""Problems as text for a person, and as JSON, GitHub annotations, SARIF and JUnit for machines. Pure.

Everything in a problem may quote what somebody wrote into a file, so each format escapes what its reader would take for
something else: control characters in a terminal, line breaks in a workflow command, characters that XML forbids.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, get_args
from xml.etree import ElementTree as ET

from schemas.problem import Problem
from schemas.text import visible

Style = Literal["text", "json", "github", "sarif", "junit"]
STYLES: Final[tuple[Style, ...]] = get_args(Style)
DOCUMENTATION: Final = "docs/problems.md"
SARIF_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

_RESET: Final = "\x1b[0m"
_BOLD: Final = "\x1b[1m"
_DIM: Final = "\x1b[2m"
_COLOURS: Final = {"error": "\x1b[31m", "warning": "\x1b[33m"}
_NOT_XML: Final = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def format_problems(problems: Sequence[Problem], objects: int, style: Style, *, colour: bool = False) -> str:
    """Return what goes to standard output; it ends in a line break, or is empty where there is nothing to say.

    Args:
        problems: in any order; they are shown by file, line, column and code.
        objects: how many objects were looked at.
        style: one of :data:`STYLES`.
        colour: for style text alone: mark severity and place with ANSI colours.
    """
    ordered = sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column, problem.code))
    formats: dict[Style, Callable[[], str]] = {
        "text": lambda: _text(ordered, colour=colour),
        "json": lambda: _json({"problems": [_plain(problem) for problem in ordered], "objects": objects}),
        "github": lambda: "".join(f"{_annotation(problem)}\n" for problem in ordered),
        "sarif": lambda: _json(_sarif(ordered)),
        "junit": lambda: _junit(ordered, objects),
    }
    return formats[style]()


def summarise(problems: Sequence[Problem], objects: int) -> str:
    """Return the last words for standard error: how many, of which code, in how many files."""
    checked = _count(objects, "object")
    if not problems:
        return f"{checked} checked, no problems.\n"
    errors = [problem for problem in problems if problem.severity == "error"]
    found = [_count(len(errors), "error")] if errors else []
    if len(errors) < len(problems):
        found.append(_count(len(problems) - len(errors), "warning"))
    codes = sorted({problem.code for problem in problems})
    by_code = {code: sum(problem.code == code for problem in problems) for code in codes}
    widest = max(len(str(count)) for count in by_code.values())
    lines = [
        f"  {count:>{widest}} {code}" for code, count in sorted(by_code.items(), key=lambda item: (-item[1], item[0]))
    ]
    files = _count(len({problem.file for problem in problems}), "file")
    return "\n".join([f"{checked} checked: {' and '.join(found)} in {files}.", *lines]) + "\n"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _text(problems: Sequence[Problem], *, colour: bool) -> str:
    return "".join(f"{_line(problem, colour=colour)}\n" for problem in problems)


def _line(problem: Problem, *, colour: bool) -> str:
    place = f"{visible(problem.file)}:{problem.line}:{problem.column}"
    message, hint = visible(problem.message), visible(problem.hint)
    if not colour:
        return f"{place} {problem.code}: {message} {hint}".rstrip()
    code = f"{_COLOURS[problem.severity]}{problem.code}{_RESET}"
    return f"{_BOLD}{place}{_RESET} {code}: {message}{f' {_DIM}{hint}{_RESET}' if hint else ''}"


def _plain(problem: Problem) -> dict[str, Any]:
    return problem.model_dump(mode="python", by_alias=True)


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _annotation(problem: Problem) -> str:
    """Write a workflow command.

    Source: https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
    """
    properties = {
        "file": problem.file,
        "line": str(problem.line),
        "col": str(problem.column),
        "title": f"{problem.code}{f' ({problem.object})' if problem.object else ''}",
    }
    written = ",".join(f"{name}={_escape_property(value)}" for name, value in properties.items())
    return f"::{problem.severity} {written}::{_escape_data(f'{problem.message} {problem.hint}'.rstrip())}"


def _escape_data(text: str) -> str:
    """Escape as the toolkit does, and show what is left of control characters."""
    return visible(text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A"))


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")


def _sarif(problems: Sequence[Problem]) -> dict[str, Any]:
    """Build a SARIF 2.1.0 log with one run and one rule for each code that occurs."""
    codes = sorted({problem.code for problem in problems})
    rules = [
        {"id": code, "name": _pascal(code), "shortDescription": {"text": code.replace("-", " ")}, "help": _help(code)}
        for code in codes
    ]
    driver = {"name": "CloudLunacy", "rules": rules}
    results = [_result(problem, codes.index(problem.code)) for problem in problems]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _result(problem: Problem, rule_index: int) -> dict[str, Any]:
    location: dict[str, Any] = {
        "physicalLocation": {
            "artifactLocation": {"uri": _uri(problem.file)},
            "region": {"startLine": max(problem.line, 1), "startColumn": max(problem.column, 1)},
        }
    }
    if problem.object:
        location["logicalLocations"] = [{"fullyQualifiedName": problem.object, "kind": "resource"}]
    return {
        "ruleId": problem.code,
        "ruleIndex": rule_index,
        "level": problem.severity,
        "message": {"text": f"{problem.message} {problem.hint}".rstrip()},
        "locations": [location],
        "partialFingerprints": {"problem/v1": _fingerprint(problem)},
    }


def _fingerprint(problem: Problem) -> str:
    """Stay the same when the problem moves to another line, so that a forge does not report it as a new one."""
    parts = [problem.file, problem.object, problem.code, problem.message]
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _uri(path: str) -> str:
    """Percent-encode a path (RFC 3986, pchar and slashes), bytes that are not UTF-8 included."""
    kept = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/@!$&'()*+,;=")
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # no path that git gave
        raw = path.encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if byte in kept else f"%{byte:02X}" for byte in raw)


def _pascal(code: str) -> str:
    return "".join(word.capitalize() for word in code.split("-"))


def _help(code: str) -> dict[str, str]:
    # Not helpUri, which has to be absolute: the page is part of the installed version.
    return {"text": f"{DOCUMENTATION} of CloudLunacy says more about {code}."}


def _junit(problems: Sequence[Problem], objects: int) -> str:
    """Build one test case for each file with problems, and one that stands for all objects without."""
    files = sorted({problem.file for problem in problems})
    failing = sorted({problem.file for problem in problems if problem.severity == "error"})
    suite = ET.Element(
        "testsuite",
        name="cloudlunacy validate",
        tests=str(len(files) + 1),
        failures=str(len(failing)),
        errors="0",
        skipped="0",
    )
    ET.SubElement(suite, "testcase", classname="cloudlunacy", name=f"{_count(objects, 'object')} checked")
    for file in files:
        _test_case(suite, file, [problem for problem in problems if problem.file == file])
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _test_case(suite: ET.Element, file: str, problems: Sequence[Problem]) -> None:
    """Errors are one failure, warnings are what the case printed."""
    case = ET.SubElement(suite, "testcase", classname="cloudlunacy", name=_xml(visible(file)), file=_xml(visible(file)))
    errors = [problem for problem in problems if problem.severity == "error"]
    warnings = [problem for problem in problems if problem.severity == "warning"]
    if errors:
        codes = ", ".join(sorted({problem.code for problem in errors}))
        failure = ET.SubElement(case, "failure", type=codes, message=_xml(visible(errors[0].message)))
        failure.text = _xml(_text(errors, colour=False))
    if warnings:
        ET.SubElement(case, "system-out").text = _xml(_text(warnings, colour=False))


def _xml(text: str) -> str:
    """Replace what XML 1.0 cannot carry in any form."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
