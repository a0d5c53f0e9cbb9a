"""Writes docs/reference from what the program is made of: schemas of objects, commands, and the API's own description.

``python -m tests.support.reference [--check]`` is what ``make reference`` and ``make check`` run. The texts depend on
neither the machine nor how Python's release at hand lays out its help.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
import structlog
from ruamel.yaml import YAML

from reconciler import cli
from reconciler.__main__ import COMMANDS
from reconciler.app.running import control_plane
from reconciler.settings import ENVIRONMENT, GitSettings, Settings
from schemas.generate import generate

FOLDER: Final = Path(__file__).parents[2] / "docs" / "reference"
MADE: Final = "<!-- made by `make reference`; change the models, the commands or the endpoints instead -->"
SHORTENED: Final = 60
"""Letters of a default that a table still shows."""


def pages() -> dict[str, str]:
    """Return every page by its name."""
    schemas = {name.removesuffix(".json"): json.loads(text) for name, text in sorted(generate().items())}
    objects = {f"{name}.md": _object_page(schema) for name, schema in schemas.items()}
    return objects | {"commands.md": _command_page(), "operations.md": _operation_page(asyncio.run(_openapi()))}


# --- objects ------------------------------------------------------------------------------------------------------


def _object_page(schema: Mapping[str, Any]) -> str:
    parts = [f"# {schema['title']}", "", MADE, "", _text(schema.get("description", "")), ""]
    for example in schema.get("examples", ())[:1]:
        parts += ["```yaml", _yaml(example), "```", ""]
    spec = schema["properties"]["spec"]["$ref"].rpartition("/")[2]
    definitions = schema["$defs"]
    for name in [spec, "Metadata", *sorted(definitions.keys() - {spec, "Metadata"})]:
        definition = definitions[name]
        parts += [f"## {'spec' if name == spec else 'metadata' if name == 'Metadata' else name}", ""]
        if definition.get("description"):
            parts += [_text(definition["description"]), ""]
        if "properties" in definition:
            parts += [*_fields(definition, spec), ""]
        else:
            parts += [_type(definition, spec), ""]
    return "\n".join(parts)


def _fields(definition: Mapping[str, Any], spec: str) -> Iterator[str]:
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    required = set(definition.get("required", ()))
    for name, field in definition["properties"].items():
        default = "*needed*" if name in required else f"`{_short(field['default'])}`" if "default" in field else ""
        yield f"| `{name}` | {_type(field, spec)} | {default} | {_cell(field.get('description', ''))} |"


def _type(field: Mapping[str, Any], spec: str) -> str:
    """Say in a few words which values fit."""
    if "$ref" in field:
        name = field["$ref"].rpartition("/")[2]
        return "[spec](#spec)" if name == spec else f"[{name}](#{name.lower()})"
    if "const" in field:
        return f"`{_short(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    for word in ("anyOf", "oneOf", "allOf"):
        if word in field:
            return " or ".join(dict.fromkeys(_type(one, spec) for one in field[word]))
    if field.get("type") == "array":
        return f"list of {_type(field['items'], spec)}" if "items" in field else "list"
    if field.get("type") == "object" and isinstance(field.get("additionalProperties"), dict):
        return f"map to {_type(field['additionalProperties'], spec)}"
    return _plain(field)


def _plain(field: Mapping[str, Any]) -> str:
    kind = str(field.get("type", "any"))
    low, high = field.get("minimum", field.get("exclusiveMinimum")), field.get("maximum")
    if low is not None or high is not None:
        kind += f" {'' if low is None else low}…{'' if high is None else high}"
    return kind


# --- commands -----------------------------------------------------------------------------------------------------


def parsers() -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Return every command with its words, such as ``("agent", "enrol")``."""
    for entry in COMMANDS:
        parser = cli.make_parser(COMMANDS, entry.name)
        yield from _below((entry.name,), _choices(parser)[entry.name])


def _below(
    words: tuple[str, ...], parser: argparse.ArgumentParser
) -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    yield words, parser
    for name, one in _choices(parser).items():
        yield from _below((*words, name), one)


def _choices(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _command_page() -> str:
    parts = ["# Commands", "", MADE, ""]
    parts += [
        "Exit codes: 0 success, 1 failure or problems found, 2 usage; `plan`: 0 no change, 2 change, 1 error.",
        "",
    ]
    helps = {entry.name: entry.help for entry in COMMANDS}
    for words, parser in parsers():
        parts += [f"{'##' if len(words) == 1 else '###'} {' '.join(words)}", ""]
        parts += [_text(parser.description or f"{helps.get(words[0], '').capitalize()}."), ""]
        rows = [_argument(parser, action) for action in parser._actions if not isinstance(action, argparse._HelpAction)]
        if rows := [row for row in rows if row]:
            parts += ["| argument | meaning |", "|---|---|", *rows, ""]
    parts += ["## Environment", "", "| variable | meaning |", "|---|---|"]
    parts += [f"| `{name}` | {_cell(text)} |" for name, text in ENVIRONMENT.items()]
    return "\n".join([*parts, ""])


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    if action.help == argparse.SUPPRESS:
        return ""
    if isinstance(action, argparse._SubParsersAction):
        return "| *action* | " + ", ".join(f"`{name}`" for name in action.choices) + " |"
    value = action.metavar or (
        "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper().replace("_", "-")
    )
    value = " ".join(value) if isinstance(value, tuple) else value
    takes = "" if action.nargs == 0 else f" {value}"
    shown = ", ".join(f"`{flag}{takes}`" for flag in action.option_strings) or f"`{value}`"
    said = parser._get_formatter()._expand_help(action) if action.help else ""
    needed = " *Needed.*" if action.required and action.option_strings else ""
    return f"| {shown.replace('|', chr(92) + '|')} | {_cell(said)}{needed} |"


# --- the API ------------------------------------------------------------------------------------------------------


async def _openapi() -> dict[str, Any]:
    """Return what the control plane says of itself: one is put together, and nothing of it runs."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as name:
        settings = Settings(git=GitSettings(repo=f"file://{name}/repo"), data=Path(name, "data"), port=0)
        async with control_plane(settings) as plane:
            transport = httpx.ASGITransport(app=plane.server.config.app)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url=plane.address) as client:
                found: dict[str, Any] = (await client.get("/openapi.json")).json()
    return found


def _operation_page(document: Mapping[str, Any]) -> str:
    parts = ["# Operations of the API", "", MADE, ""]
    where = "The whole of it, with the shapes, is at `/openapi.json` of a control plane, and browsable at `/api`"
    parts += [f"{where}; how it is used is in [API](../api.md).", ""]
    rows: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, one in methods.items():
            rows.setdefault((one.get("tags") or ["others"])[0], []).append(_operation(method, path, one))
    texts = {one["name"]: one.get("description", "") for one in document.get("tags", ())}
    for tag in [*(name for name in texts if name in rows), *sorted(rows.keys() - texts.keys())]:
        parts += [f"## {tag}", "", _text(texts.get(tag, "")), ""] if texts.get(tag) else [f"## {tag}", ""]
        parts += ["| operation | does | scope |", "|---|---|---|", *rows[tag], ""]
    return "\n".join(parts)


def _operation(method: str, path: str, one: Mapping[str, Any]) -> str:
    scopes = sorted({scope for way in one.get("security", ()) for wanted in way.values() for scope in wanted})
    shown = ", ".join(f"`{scope}`" for scope in scopes)
    return f"| `{method.upper()} {path}` | {_cell(one.get('summary', ''))} | {shown} |"


# --- texts --------------------------------------------------------------------------------------------------------


def _yaml(document: Mapping[str, Any]) -> str:
    yaml, text = YAML(), io.StringIO()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(document, text)
    return text.getvalue().rstrip()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _code(text if len(text) <= SHORTENED else f"{text[: SHORTENED - 1]}…")


def _code(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def _text(text: str) -> str:
    """Return running text; what looks like a tag outside of code is shown as it is written."""
    joined = " ".join(text.replace("``", "`").split())
    return "".join(
        part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*").replace("[", "\\[")
        for part in re.split(r"(`[^`]*`)", joined)
    )


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


# --- files --------------------------------------------------------------------------------------------------------


def stale(made: Mapping[str, str]) -> Iterable[str]:
    """Name the pages that are missing, different, or of nothing."""
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    return sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))


def main() -> int:
    parser = argparse.ArgumentParser(description="Write docs/reference.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where a page is not up to date")
    options = parser.parse_args()
    made = pages()
    found = stale(made)
    if options.check:
        for name in found:
            sys.stderr.write(f"docs/reference/{name} is not what the program says now; run make reference\n")
        return 1 if found else 0
    FOLDER.mkdir(exist_ok=True)
    for name in found:
        path = FOLDER / name
        if name in made:
            path.write_text(made[name], encoding="utf-8")
        else:
            path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
