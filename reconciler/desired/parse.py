"""One file → one object, or everything that is wrong with it.

1. The path decides kind, team and name, or says that no object may lie there (:func:`examine_path`).
2. The bytes become one mapping within limits (:mod:`reconciler.desired.yaml_reader`).
3. The mapping becomes a model; every field that does not fit is reported, not the first alone.
4. The document must be of the kind and name that its path says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from reconciler.desired.finding import FieldPath, Finding, did_you_mean
from reconciler.desired.locate import duplicate_key
from reconciler.desired.snapshot import REGULAR_FILE, File
from reconciler.desired.yaml_reader import MAX_BYTES, Unreadable, read_mapping
from schemas.base import API_VERSION
from schemas.names import PATTERN_SENTENCES
from schemas.objects import ADAPTERS, FLEET_PATH, FOLDERS, KINDS, TEAM_KINDS, AnyObject, ObjectKey, key_of_path

_YAML: Final = re.compile(r"\.ya?ml$", re.IGNORECASE)
_MODES: Final = {"120000": "a symbolic link", "160000": "a submodule", "100755": "an executable file"}
_UNKNOWN_FIELD: Final = "extra_forbidden"
_PRIVATE: Final = frozenset({"sealed", "env", "headers", "command"})
"""Fields whose values may be secrets: no message quotes them."""
MAX_FINDINGS: Final = 30
"""Of one file; nobody reads more at once."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What became of one file: an object, or findings."""

    path: str
    blob: str
    key: ObjectKey | None
    object: AnyObject | None
    kept: bytes = field(default=b"", compare=False, repr=False)
    """``document``, where it is there already."""
    findings: tuple[Finding, ...] = ()

    @property
    def document(self) -> bytes:
        """JSON of the object as written, from which a cache can make it again; empty where there is no object."""
        if self.kept or self.object is None:
            return self.kept
        return self.object.model_dump_json(by_alias=True, exclude_unset=True).encode()


def is_object_path(path: str) -> bool:
    """Say whether the reconciler looks at a path at all: the fleet file, and what lies in the folders of objects."""
    folder, slash, _ = path.partition("/")
    if not slash:
        return folder in FOLDERS or folder.lower() in {FLEET_PATH, "fleet.yml"}
    return folder.lower() in FOLDERS


def examine_path(path: str, file: File) -> Finding | None:
    """Check mode and path before anything is read. None means: read it. Files that are no YAML are nobody's problem."""
    if file.mode in _MODES and (file.mode != "100755" or _YAML.search(path)):
        return Finding(
            path,
            "not-a-regular-file",
            f"this is {_MODES[file.mode]}; only regular files (mode {REGULAR_FILE}) are read",
            "Commit the content itself." if file.mode != "100755" else f"Run: git update-index --chmod=-x {path}",
        )
    if not _YAML.search(path) or key_of_path(path) is not None:
        return None
    return Finding(path, "misplaced-file", f"no object belongs at this path; {_expected(path)}", _path_hint(path))


def _expected(path: str) -> str:
    kind = FOLDERS.get(path.partition("/")[0].lower())
    if kind is None:
        return "the fleet file is fleet.yaml"
    return f"{'an' if kind == 'Agent' else 'a'} {kind} lies at {_pattern(kind)}"


def _pattern(kind: str) -> str:
    folder = next(folder for folder, known in FOLDERS.items() if known == kind)
    return f"{folder}/<team>/<name>.yaml" if kind in TEAM_KINDS else f"{folder}/<name>.yaml"


def _path_hint(path: str) -> str:
    better = re.sub(r"\.ya?ml$", ".yaml", path, flags=re.IGNORECASE).lower().replace("_", "-")
    if better != path and key_of_path(better) is not None:
        return f"Rename it to {better}, or delete it if that file is there already."
    folder, *middle, name = better.split("/")
    kind = FOLDERS.get(folder)
    if kind is None or len(middle) == (kind in TEAM_KINDS):
        return "Names are RFC 1123 labels: lower-case letters, digits and inner hyphens."
    name = name if key_of_path(f"agents/{name}") is not None else "<name>.yaml"
    team = middle[0] if middle and key_of_path(f"agents/{middle[0]}.yaml") is not None else "<team>"
    return f"Move it to {folder}/{team}/{name}." if kind in TEAM_KINDS else f"Move it to {folder}/{name}."


def parse_file(path: str, blob: str, content: bytes | None, key: ObjectKey | None = None) -> Parsed:
    """Parse the file at ``path``. ``content`` is None where the blob exceeds :data:`MAX_BYTES` and was not read.

    ``key`` is the path's, from a caller who has it already.
    """
    key = key or key_of_path(path)
    if key is None:
        raise AssertionError(f"{path} is no path of an object; examine_path comes first")
    if content is None:
        text = f"the file is larger than the {MAX_BYTES:,} bytes that are read"
        return _bad(path, blob, key, Finding(path, "file-too-large", text, "Split it: one object a file."))
    try:
        mapping = read_mapping(content)
    except Unreadable as error:
        position = error.position
        if error.code == "duplicate-key":
            position = duplicate_key(content) or position
        return _bad(path, blob, key, Finding(path, error.code, error.message, error.hint, position=position))
    return _validate(path, blob, key, mapping)


def _bad(path: str, blob: str, key: ObjectKey, *findings: Finding) -> Parsed:
    return Parsed(path, blob, key, None, findings=findings)


def _validate(path: str, blob: str, key: ObjectKey, mapping: dict[str, Any]) -> Parsed:
    if mapping.get("apiVersion") != API_VERSION or mapping.get("kind") != key.kind:
        return _bad(path, blob, key, *_check_envelope(path, key, mapping))
    try:
        found = ADAPTERS[key.kind].validate_python(mapping)
    except ValidationError as error:
        return _bad(path, blob, key, *_explain_all(path, KINDS[key.kind], mapping, error))
    name = found.metadata.name
    if key.kind != "Fleet" and name != key.name:
        text = f'metadata.name is "{name}", but the file is called {key.name}.yaml'
        return _bad(path, blob, key, Finding(path, "wrong-name", text, "Make them equal.", ("metadata", "name")))
    return Parsed(path, blob, key, found)


def _check_envelope(path: str, key: ObjectKey, mapping: Mapping[str, Any]) -> Iterable[Finding]:
    version, kind = mapping.get("apiVersion"), mapping.get("kind")
    if version != API_VERSION:
        text = f"apiVersion is {_show(version)}, this control plane reads {API_VERSION}"
        yield Finding(path, "unknown-version", text, f"Write apiVersion: {API_VERSION}.", ("apiVersion",))
    if kind != key.kind:
        text = f"kind is {_show(kind)}, but this path holds a {key.kind}"
        hint = f"Write kind: {key.kind}, or move the file."
        if isinstance(kind, str) and kind not in KINDS:
            hint = did_you_mean(kind, KINDS) or hint
        yield Finding(path, "wrong-kind", text, hint, ("kind",))


def _show(value: object) -> str:
    if value is None:
        return "missing"
    try:
        text = str(value)
    except ValueError:  # Python refuses to write numbers of thousands of digits
        return "a number without end"
    return f'"{text[:60]}…"' if len(text) > 60 else f'"{text}"'


def _without_echoes(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """Drop the complaint that a list is too short where its entries are what is wrong."""
    fields = [detail["loc"] for detail in details]
    return [
        detail
        for detail in details
        if detail["type"] != "too_short"
        or not any(len(field) > len(detail["loc"]) and field[: len(detail["loc"])] == detail["loc"] for field in fields)
    ]


def _explain_all(path: str, model: type[BaseModel], mapping: object, error: ValidationError) -> list[Finding]:
    details = _without_echoes(error.errors(include_url=False, include_input=False)[: 4 * MAX_FINDINGS])
    findings = [_explain(path, model, mapping, detail) for detail in details[:MAX_FINDINGS]]
    left = error.error_count() - len(findings)
    if left > MAX_FINDINGS:
        findings.append(Finding(path, "invalid-value", f"{left} more fields do not fit", "Mend the first ones."))
    return findings


def _explain(path: str, model: type[BaseModel], mapping: object, detail: ErrorDetails) -> Finding:
    """Turn one error of pydantic into a finding."""
    field: FieldPath = tuple(step for step in detail["loc"] if step != "[key]")
    if detail["type"] == "invalid_key" or (detail["type"] == "string_type" and detail["loc"][-1] == "[key]"):
        text = f"a key in {dotted(field[:-1])} is not a string: {_show(field[-1])}"
        return Finding(path, "invalid-value", text, "Quote the key.", field[:-1])
    kind, where = detail["type"], dotted(field)
    if kind == _UNKNOWN_FIELD:
        known = _fields_at(model, field[:-1])
        hint = did_you_mean(str(field[-1]), known) or (f"Known are: {', '.join(known)}." if known else "Remove it.")
        return Finding(path, "unknown-field", f'there is no field "{where}"', hint, field, at_key=True)
    if kind == "missing":
        return Finding(path, "missing-field", f'"{where}" is missing', f"Add {field[-1]}:.", field[:-1])
    context = detail.get("ctx", {})
    if kind == "value_error":
        return Finding(path, "invalid-value", f"{where}: {context.get('error', detail['msg'])}", "", field)
    sealed = field[:2] == ("spec", "sealed") and len(field) == 3
    if sealed or (kind == "string_pattern_mismatch" and not _PRIVATE.isdisjoint(field[:-1])):
        return _explain_private(path, field, of_key=detail["loc"][-1] == "[key]")
    if kind == "string_pattern_mismatch":
        sentence = PATTERN_SENTENCES.get(str(context.get("pattern")), "the value does not have the form that is needed")
        return Finding(path, "invalid-value", f"{where}: {_show(_value_at(mapping, field))} {sentence}", "", field)
    if kind == "too_short":
        return Finding(path, "invalid-value", f"{where} needs at least {context.get('min_length', 1)} entry", "", field)
    message = detail["msg"].replace("Input should", "the value should")
    return Finding(path, "invalid-value", f"{where}: {message}", "", field)


def _explain_private(path: str, field: FieldPath, *, of_key: bool) -> Finding:
    """Say that a value has the wrong form without quoting it: it may be a secret."""
    if of_key:
        text = f"the key {_show(field[-1])} in {dotted(field[:-1])} does not have the form that is needed"
        return Finding(path, "invalid-value", text, "", field, at_key=True)
    if field[:2] == ("spec", "sealed"):
        secret = path.removeprefix("secrets/").removesuffix(".yaml")
        hint = f"Seal it: cloudlunacy secret seal {secret} KEY. Change it too: git keeps what stands here."
        return Finding(path, "invalid-value", f"{dotted(field)} is no sealed value", hint, field)
    text = f"{dotted(field)}: the value does not have the form that is needed"
    return Finding(path, "invalid-value", text, "", field)


def dotted(field: FieldPath) -> str:
    """Write a field path as people do: ``spec.backends[0].port``."""
    text = ""
    for step in field:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return f"{text[:120]}…" if len(text) > 120 else text or "the document"


def _value_at(value: object, field: FieldPath) -> object:
    for step in field:
        try:
            value = value[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return field[-1]
    return value


def _fields_at(model: type[BaseModel], field: FieldPath) -> list[str]:
    """Names that the mapping at ``field`` may hold; empty where they are free."""
    schema = _schema(model)
    node: Any = schema
    for step in field:
        node = _resolve(schema, node)
        node = node.get("items", {}) if isinstance(step, int) else node.get("properties", {}).get(step, {})
    return sorted(_resolve(schema, node).get("properties", {}))


@cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def _resolve(schema: Mapping[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    for choice in node.get("anyOf", [node]):
        if "$ref" in choice:
            return dict(schema["$defs"][choice["$ref"].rpartition("/")[2]])
    return node
