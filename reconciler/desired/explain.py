"""From pydantic's errors to what a person reads: a sentence without a word of Python, and what to write in its place.

Nothing is quoted that stands under a field of :data:`PRIVATE`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from reconciler.desired.finding import FieldPath, Finding, did_you_mean
from reconciler.desired.grammar import ADDRESSES, FORMS, RULES, Form

PRIVATE: Final = frozenset({"sealed", "env", "headers", "command"})
"""Fields whose values may be secrets: no message quotes them."""
MAX_FINDINGS: Final = 30
"""Of one file; nobody reads more at once."""
_UNKNOWN_FIELD: Final = "extra_forbidden"
_WANTED: Final = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}
"""Type of JSON Schema → what it is called in YAML."""
_TYPE_ERROR: Final = re.compile(r"(_type|_parsing|_from_float|_attributes_type|finite_number)$")
_MOST_SHOWN: Final = 60


def explain(path: str, model: type[BaseModel], mapping: object, error: ValidationError) -> list[Finding]:
    """Turn what pydantic says of the mapping of a file into findings, at most one more than :data:`MAX_FINDINGS`."""
    details = _without_echoes(error.errors(include_url=False, include_input=False)[: 4 * MAX_FINDINGS])
    findings = [_explain(path, model, mapping, detail) for detail in details[:MAX_FINDINGS]]
    left = error.error_count() - len(findings)
    if left > MAX_FINDINGS:
        findings.append(Finding(path, "invalid-value", f"{left} more fields do not fit", "Mend the first ones."))
    return findings


def show(value: object) -> str:
    """Quote a value that is no secret, cut to what a line holds."""
    if value is None:
        return "missing"
    text = _written(value)
    if text is None:
        return "a number without end"
    return f'"{text[:_MOST_SHOWN]}…"' if len(text) > _MOST_SHOWN else f'"{text}"'


def _written(value: object) -> str | None:
    """Write a value; None where Python refuses to write a number of thousands of digits."""
    try:
        return str(value)
    except ValueError:
        return None


def dotted(field: FieldPath) -> str:
    """Write a field path as people do: ``spec.backends[0].port``."""
    text = ""
    for step in field:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return f"{text[:120]}…" if len(text) > 120 else text or "the document"


def _without_echoes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Drop the complaint that a list is too short where its entries are what is wrong."""
    fields = [detail["loc"] for detail in details]
    return [
        detail
        for detail in details
        if detail["type"] != "too_short"
        or not any(len(field) > len(detail["loc"]) and field[: len(detail["loc"])] == detail["loc"] for field in fields)
    ]


def _explain(path: str, model: type[BaseModel], mapping: object, detail: ErrorDetails) -> Finding:
    kind, loc = detail["type"], detail["loc"]
    of_key = loc[-1:] == ("[key]",)
    field: FieldPath = tuple(step for step in loc if step != "[key]")
    if kind == "invalid_key" or (kind == "string_type" and of_key):
        text = f"a key in {dotted(field[:-1])} is not a string: {show(field[-1])}"
        return Finding(path, "invalid-value", text, "Quote the key.", field[:-1])
    where = dotted(field)
    if kind == _UNKNOWN_FIELD:
        known = _properties(model, field[:-1])
        hint = did_you_mean(str(field[-1]), known) or (f"Known are: {', '.join(known)}." if known else "Remove it.")
        return Finding(path, "unknown-field", f'there is no field "{where}"', hint, field, at_key=True)
    if kind == "missing":
        return Finding(path, "missing-field", f'"{where}" is missing', f"Add {field[-1]}:.", field[:-1])
    if field[:2] == ("spec", "sealed") and len(field) == 3 and not of_key:
        secret = path.removeprefix("secrets/").removesuffix(".yaml")
        hint = f"Seal it: cloudlunacy secret seal {secret} KEY. Change it too: git keeps what stands here."
        return Finding(path, "invalid-value", f"{where} is no sealed value", hint, field)
    if of_key:
        return _of_key(path, field, detail)
    value = _Value(model, mapping, field)
    text, hint = value.told(detail)
    return Finding(path, "invalid-value", text, hint, field)


def _of_key(path: str, field: FieldPath, detail: ErrorDetails) -> Finding:
    context = detail.get("ctx", {})
    form = FORMS.get(str(context.get("pattern")))
    key, where = show(field[-1]), dotted(field[:-1])
    if form is None:
        text = f"the key {key} in {where} is too long: at most {context.get('max_length', 63)} characters fit"
        return Finding(path, "invalid-value", text, "Shorten it.", field, at_key=True)
    text = f"the key {key} in {where} {form.sentence}"
    return Finding(path, "invalid-value", text, f"Write it like {form.example}.", field, at_key=True)


class _Value:
    """One value that does not fit: what stands there, and what the schema asks for."""

    def __init__(self, model: type[BaseModel], mapping: object, field: FieldPath) -> None:
        self.where = dotted(field)
        self.private = not PRIVATE.isdisjoint(field)
        self.value = _value_at(mapping, field)
        self.name = next((str(step) for step in reversed(field) if isinstance(step, str)), "")
        self.in_list = bool(field) and isinstance(field[-1], int)
        self.schema = _schema(model)
        self.node = _node(model, field)
        self.form = _form(self.node, self.name)

    def told(self, detail: ErrorDetails) -> tuple[str, str]:
        """Return the sentence and the hint."""
        kind, context = detail["type"], detail.get("ctx", {})
        if kind == "value_error":
            text = str(context.get("error", "the value does not fit"))
            return f"{self.where}: {text}", _hint_of_rule(text)
        if kind == "string_pattern_mismatch":
            return self._of_form(FORMS.get(str(context.get("pattern"))))
        if kind in ("literal_error", "enum"):
            return self._of_choice(str(context.get("expected", "")))
        if kind.startswith(("greater_than", "less_than")):
            return f"{self.where}: {self._shown('the number')} is out of range", f"Write {self._number()}."
        if kind in ("string_too_long", "too_long"):
            unit = "characters" if kind == "string_too_long" else "entries"
            return f"{self.where} is too long: at most {context.get('max_length')} {unit} fit", "Shorten it."
        if kind in ("string_too_short", "too_short"):
            unit = "character" if kind == "string_too_short" else "entry"
            return (
                f"{self.where} needs at least {context.get('min_length', 1)} {unit}",
                "Add one, or leave the field out.",
            )
        if _TYPE_ERROR.search(kind):
            return self._of_type()
        return f"{self.where}: the value does not fit", self._hint()

    def _of_form(self, form: Form | None) -> tuple[str, str]:
        if form is None:
            return f"{self.where}: the value does not have the form that is needed", "See the field's schema."
        if self.private:
            return f"{self.where}: the value {form.sentence}", f"Write it like {form.example}."
        return f"{self.where}: {show(self.value)} {form.sentence}", self._corrected(form)

    def _corrected(self, form: Form) -> str:
        size = re.fullmatch(r"\s*([1-9][0-9]{0,11})\s*([kKmMgGtT])[iI]?[bB]?\s*", _written(self.value) or "")
        if size is not None and form.example.endswith("Mi"):
            return f"Write it as {size[1]}{size[2].upper()}i."
        return f"Write it like {form.example}."

    def _of_choice(self, expected: str) -> tuple[str, str]:
        choices = re.findall(r"'([^']*)'", expected)
        close = "" if self.private else did_you_mean(_written(self.value) or "", choices)
        return (
            f"{self.where}: the value should be {expected}",
            close or f"Write {choices[0] if len(choices) == 1 else 'one of these'}.",
        )

    def _of_type(self) -> tuple[str, str]:
        wanted = _WANTED.get(str(self.node.get("type")), "another value")
        return f"{self.where}: {wanted} is needed here, and this is {_kind_of(self.value)}", self._hint()

    def _hint(self) -> str:
        """Say what to write in place of a value of another type."""
        wanted, value = self.node.get("type"), None if self.private else self.value
        if wanted == "string":
            return self._text_hint(value)
        if wanted in ("integer", "number"):
            if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value):
                return f"Remove the quotes: {self._line(value)}."
            return f"Write {self._number()}."
        if wanted == "boolean":
            return "Write true or false, without quotes."
        if wanted == "array":
            entry = self._entry_hint(value)
            return f"Write {entry}." if entry else "Write each entry on a line of its own, after a hyphen."
        return self._mapping_hint(value)

    def _text_hint(self, value: object) -> str:
        if isinstance(self.value, bool | int | float) and (self.form is None or self.form.is_free):
            return "Put it in quotes."
        if isinstance(value, bool | int | float) and self.form is not None:
            text = (_written(value) or "").lower() if isinstance(value, bool) else _written(value) or ""
            if text and isinstance(value, int) and self.form.example == "5s" and not isinstance(value, bool):
                return f"Write it with a unit: {self._line(f'{text}s')}." if value > 0 else "Write it like 5s."
            if self.form.pattern and re.fullmatch(self.form.pattern, text):
                return f"Put it in quotes: {self._line(chr(34) + text + chr(34))}."
        return f"Write it like {self.form.example}." if self.form is not None else "Write text, in quotes."

    def _line(self, text: str) -> str:
        return f"- {text}" if self.in_list else f"{self.name}: {text}"

    def _number(self) -> str:
        least = self.node.get("minimum", self.node.get("exclusiveMinimum"))
        most = self.node.get("maximum", self.node.get("exclusiveMaximum"))
        what = "a whole number" if self.node.get("type") == "integer" else "a number"
        if "exclusiveMinimum" in self.node:
            return f"{what} above {least}" + (f", at most {most}" if most is not None else "")
        if least is None or most is None:
            return what if least is None else f"{what} of {least} or more"
        return f"{what} from {least} to {most}"

    def _entry_hint(self, value: object) -> str:
        form = _form(_resolved(self.node.get("items", {}), self.schema), self.name)
        if _fits(value, form):
            return f"[{value}]"
        return f"a list, such as [{form.example}]" if form is not None else ""

    def _mapping_hint(self, value: object) -> str:
        properties: Mapping[str, Any] = self.node.get("properties", {})
        if not properties:
            return "Write a mapping: name: value, on a line of its own for each."
        first = next(iter(self.node.get("required", ())), next(iter(properties)))
        form = _form(_resolved(properties[first], self.schema), first)
        if _fits(value, form):
            return f"Write {{{first}: {value}}}."
        return f"Write a mapping; its fields are: {', '.join(properties)}."

    def _shown(self, otherwise: str) -> str:
        return otherwise if self.private or not isinstance(self.value, int | float) else show(self.value).strip('"')


def _fits(value: object, form: Form | None) -> bool:
    """Say whether a value is a text of that form, and short enough to be shown."""
    known = isinstance(value, str) and len(value) <= _MOST_SHOWN and form is not None and form.pattern
    return bool(known and re.fullmatch(form.pattern, value))  # type: ignore[union-attr, call-overload]


def _kind_of(value: object) -> str:
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    return "text" if isinstance(value, str) else "a list" if isinstance(value, list) else "a mapping"


def _hint_of_rule(text: str) -> str:
    """Return what to do about a rule of the schema that the message states."""
    return next((hint for start, hint in RULES.items() if start in text), "Change the fields so that this holds.")


def _form(node: Mapping[str, Any], name: str) -> Form | None:
    pattern = node.get("pattern")
    if pattern is not None:
        found = FORMS.get(pattern)
        return None if found is None else found._replace(pattern=pattern)
    return ADDRESSES.get(name) if node.get("type") == "string" else None


def _value_at(value: object, field: FieldPath) -> object:
    for step in field:
        try:
            value = value[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return field[-1]
    return value


def _properties(model: type[BaseModel], field: FieldPath) -> list[str]:
    """Names that the mapping at ``field`` may hold; empty where they are free."""
    return sorted(_node(model, field).get("properties", {}))


def _node(model: type[BaseModel], field: FieldPath) -> dict[str, Any]:
    """Return the JSON Schema of the value at ``field``; empty where the schema does not know it."""
    schema = _schema(model)
    node: dict[str, Any] = schema
    for step in field:
        if isinstance(step, int):
            below = node.get("items", {})
        else:
            free: Any = node.get("additionalProperties") or next(iter(node.get("patternProperties", {}).values()), {})
            below = node.get("properties", {}).get(step, free)
        node = _resolved(below if isinstance(below, dict) else {}, schema)
    return node


def _resolved(node: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Follow references, and leave out that a field may be empty."""
    choices = [one for one in node.get("anyOf", [node]) if one.get("type") != "null"]
    found = choices[0] if choices else node
    reference = found.get("$ref") or next((one["$ref"] for one in found.get("allOf", ()) if "$ref" in one), None)
    return dict(schema["$defs"][reference.rpartition("/")[2]]) if reference else found


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)
