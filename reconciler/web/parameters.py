"""What stands in a path and behind the question mark: one description that is checked and published.

A query that has what an endpoint does not know, or not in the form that is described, is refused: who misspells a
filter would otherwise take everything for what was asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from starlette.datastructures import QueryParams

from reconciler.errors import Refused
from schemas.names import NAME_PATTERN
from schemas.text import visible

LARGEST_PAGE: Final = 1000
SECONDS: Final[Mapping[str, Any]] = {"type": "number", "exclusiveMinimum": 0, "maximum": 3600}
LONGEST: Final = 1024
PLAIN: Final = r"^[^\x00-\x1f\x7f]*$"
"""No control characters."""
TIME: Final = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(Z|[+-][0-9]{2}:[0-9]{2})"
    r"|[1-9][0-9]{0,5}[smhd])$"
)
"""A time with its zone (RFC 3339), or how long ago: 30s, 5m, 6h, 7d."""
REVISION: Final = r"^(newest|[0-9a-f]{7,64})$"


@dataclass(frozen=True, slots=True)
class Parameter:
    """``text`` says what it does. ``schema`` is JSON Schema of one value: of a string, or of a whole number."""

    text: str
    schema: Mapping[str, Any]
    many: bool = False
    """It may be given several times."""
    example: Any = None
    """Of one value."""

    def described(self, name: str, where: str) -> dict[str, Any]:
        """Return it as OpenAPI does (3.1.1, 4.8.12)."""
        schema: dict[str, Any] = dict(self.schema)
        if self.many:
            schema = {"type": "array", "items": schema, "maxItems": 100}
        example = {} if self.example is None else {"example": [self.example] if self.many else self.example}
        required = {"required": True} if where == "path" else {}
        return {"name": name, "in": where, "description": self.text, **required, "schema": schema, **example}

    def fault(self, value: str) -> str:
        """Return what is wrong with a value, empty where nothing is."""
        schema = self.schema
        if schema.get("type") == "integer":
            low, high = schema.get("minimum", 0), schema["maximum"]
            is_number = value.isascii() and value.isdigit() and len(value) <= 20
            return "" if is_number and low <= int(value) <= high else f"must be a whole number from {low} to {high}"
        if schema.get("type") == "number":
            return "" if _in_range(value, schema) else f"must be a number up to {schema['maximum']}"
        if "enum" in schema:
            return "" if value in schema["enum"] else f"must be one of {', '.join(map(str, schema['enum']))}"
        if len(value) > schema.get("maxLength", LONGEST):
            return f"must have at most {schema.get('maxLength', LONGEST)} characters"
        if len(value) < schema.get("minLength", 0) or not _matches(schema.get("pattern", PLAIN), value):
            return "does not have the form that the description of the API names"
        return ""


def _in_range(value: str, schema: Mapping[str, Any]) -> bool:
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", value, re.ASCII):
        return False
    found = float(value)
    return bool(schema.get("exclusiveMinimum", -1.0) < found <= schema["maximum"])


def _matches(pattern: str, value: str) -> bool:
    """Patterns are anchored with ^ and $, which in Python lets a line end pass."""
    return re.fullmatch(pattern.removeprefix("^").removesuffix("$"), value) is not None


def text(
    what: str, *, example: str | None = None, longest: int = LONGEST, pattern: str = PLAIN, many: bool = False
) -> Parameter:
    """Any text in one line, or what fits a pattern."""
    return Parameter(what, {"type": "string", "maxLength": longest, "pattern": pattern}, many=many, example=example)


def number(what: str, largest: int, *, smallest: int = 0, example: int | None = None) -> Parameter:
    """A whole number."""
    return Parameter(what, {"type": "integer", "minimum": smallest, "maximum": largest}, example=example)


def one_of(what: str, values: Sequence[str], *, many: bool = False) -> Parameter:
    """One of some words."""
    return Parameter(what, {"type": "string", "enum": list(values)}, many=many, example=values[0])


def name_of(what: str, example: str = "shop") -> Parameter:
    """A name of an object or a team."""
    return text(what, example=example, longest=63, pattern=NAME_PATTERN)


def pages(of: str, example: str) -> dict[str, Parameter]:
    """The two parameters of lists that go by name."""
    return {
        "limit": number(f"How many {of} at most.", LARGEST_PAGE, example=20),
        "after": text("What `next` of the former page said: a page begins behind it.", example=example),
    }


USUAL: Final[Mapping[str, Mapping[str, Any]]] = {
    "limit": {"type": "integer", "minimum": 0, "maximum": LARGEST_PAGE},
    "tail": {"type": "integer", "minimum": 0, "maximum": 10_000},
    "follow": {"type": "string", "enum": ["true", "false"]},
    "agent": {"type": "string", "pattern": NAME_PATTERN, "maxLength": 63},
    "team": {"type": "string", "pattern": NAME_PATTERN, "maxLength": 63},
    "from": {"type": "string", "pattern": TIME, "maxLength": 40},
    "to": {"type": "string", "pattern": TIME, "maxLength": 40},
    "step": {"type": "integer", "minimum": 0, "maximum": 9_999_999},
}
"""Of parameters that an endpoint only names, by name."""
MANY: Final = frozenset({"metric", "header"})
PATH: Final[Mapping[str, Parameter]] = {
    "team": name_of("The team that owns it."),
    "name": name_of("Its name.", "web"),
    "revision": text("A commit, by seven digits or more, or `newest`.", example="newest", longest=64, pattern=REVISION),
    "checksum": text(
        "Of a plan, or of a rewrite of history, as the status of a revision shows it.",
        example=f"sha256:{'0' * 64}",
        longest=140,
        pattern=r"^(sha256:[0-9a-f]{64}|rewrite:[0-9a-f]{40,64}\.\.[0-9a-f]{40,64})$",
    ),
    "path": text(
        "The object's file in the state repo.",
        example="routes/shop/web.yaml",
        longest=255,
        pattern=r"^[a-z0-9-]+(/[a-z0-9-]+){0,2}\.yaml$",
    ),
    "host": text("A host, or `*.` and a host.", example="shop.example.com", longest=253, pattern=r"^[a-z0-9.*-]+$"),
    "token": text("Name or id of a token.", example="ci-deploy", longest=64, pattern=r"^[A-Za-z0-9_-]+$"),
    "id": text("Its id.", example="1767225600001", longest=64, pattern=r"^[A-Za-z0-9_-]+$"),
    "event": text("Its id.", example="1767225600001", longest=16, pattern=r"^[0-9]{1,16}$"),
    "key": text("Key id in hexadecimal digits.", example="00ff", longest=128, pattern=r"^[0-9a-f]+$"),
    "subject": one_of("Which key.", ("age", "access", "desired", "intermediate", "operator", "root", "server")),
    "wheel": text("File name.", example="cloudlunacy-1.0-py3-none-any.whl", longest=200, pattern=r"^[A-Za-z0-9._+-]+$"),
}


def parameter_of(name: str, said: str | Parameter) -> Parameter:
    """Return what an endpoint means that says no more than what a parameter does."""
    if isinstance(said, Parameter):
        return said
    return Parameter(said, USUAL.get(name, {"type": "string", "maxLength": LONGEST, "pattern": PLAIN}), name in MANY)


def path_parameter(name: str) -> Parameter:
    """Return the parameter of a path by its name."""
    return PATH.get(name) or text("", longest=255)


def check_query(query: QueryParams, known: Mapping[str, Parameter]) -> None:
    """Refuse a query that is not as described.

    Raises:
        Refused: 400 ``bad-query``.
    """
    for name in query:
        parameter = known.get(name)
        if parameter is None:
            there_are = ", ".join(sorted(known)) or "none"
            raise _bad(f'There is no query parameter "{visible(name)[:40]}" here.', f"There are: {there_are}.")
        values = query.getlist(name)
        if len(values) > (100 if parameter.many else 1):
            raise _bad(f"{name} is given too often.", "Give it once." if not parameter.many else "Give it less often.")
        for value in values:
            if fault := parameter.fault(value):
                raise _bad(f"{name} {fault}.", parameter.text)


def _bad(message: str, hint: str) -> Refused:
    return Refused(message, status=400, code="bad-query", hint=hint)
