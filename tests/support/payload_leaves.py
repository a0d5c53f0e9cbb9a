"""Every place of a model that can be written to, found in the model itself, and documents with payloads there.

A path is a tuple of names of fields and of three marks: ``[]`` any entry of a list, ``{}`` any value of a mapping,
``{key}`` any key of a mapping, ``?`` the name of a field that there is not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from reconciler.desired.grammar import FORMS

Path = tuple[str, ...]
Schema = Mapping[str, Any]
UNKNOWN: Final = "?"
KEY: Final = "{key}"
_INNER: Final = ("anyOf", "oneOf", "allOf")
_OTHERS: Final = {
    "^sha256:[0-9a-f]{64}$": f"sha256:{'0' * 64}",
    "^[0-9a-f]{32}$": "0" * 32,
    "^[A-Za-z0-9_-]{43}$": "A" * 43,
}
"""What fits patterns that stand in no file."""


class Shape:
    """The JSON Schema of a model, by which documents of it are made."""

    def __init__(self, model: type[BaseModel] | TypeAdapter[Any]) -> None:
        is_model = isinstance(model, type)
        self._root: Schema = model.model_json_schema(by_alias=True) if is_model else model.json_schema(by_alias=True)  # type: ignore[union-attr]
        self._validate = model.model_validate if is_model else model.validate_python  # type: ignore[union-attr]

    def at(self, name: str) -> Schema:
        """Return one of several models that the root may be."""
        found: Schema = self._root["$defs"][name]
        return found

    @property
    def root(self) -> Schema:
        return self._root

    def leaves(self, node: Schema | None = None, path: Path = ()) -> Iterator[Path]:
        """Yield the path of every scalar, of every key, and one for an unknown field of each object."""
        node = self._known(self._root if node is None else node)
        for inner in (one for word in _INNER for one in node.get(word, ())):
            yield from self.leaves(inner, path)
        kind = node.get("type")
        if kind == "object":
            for name, one in node.get("properties", {}).items():
                yield from self.leaves(one, (*path, name))
            if "properties" in node:
                yield (*path, UNKNOWN)
            for value in _values(node):
                yield (*path, KEY)
                yield from self.leaves(value, (*path, "{}"))
        elif kind == "array":
            yield from self.leaves(node["items"], (*path, "[]"))
        elif kind not in (None, "null"):
            yield path

    def sample(self, node: Schema) -> Any:
        """Return the least that fits a schema, field by field."""
        node = self._known(node)
        if "const" in node or "enum" in node:
            return node.get("const", node.get("enum", [None])[0])
        for word in _INNER:
            if word in node:
                return self.sample(next(one for one in node[word] if one.get("type") != "null"))
        match node.get("type"):
            case "object":
                return {name: self.sample(node["properties"][name]) for name in node.get("required", ())} or {
                    self._key_of(node): self.sample(value) for value in _values(node)
                }
            case "array":
                return [self.sample(node["items"])] if node.get("minItems") else []
            case "integer" | "number":
                return node.get("minimum", 1)
            case "boolean":
                return False
        pattern = node.get("pattern", "")
        return FORMS[pattern].example if pattern in FORMS else _OTHERS.get(pattern, "x")

    def poisoned(self, places: Mapping[Path, str], start: Mapping[str, Any], node: Schema | None = None) -> Any:
        """Return ``start`` with a text at each place, and with what is required on the way there."""
        document = copy.deepcopy(dict(start))
        for path, text in places.items():
            self._put(document, self._root if node is None else node, path, text)
        return document

    def refuses(self, document: Any, path: Path) -> bool:
        """Say whether validation names this place of a document as wrong."""
        try:
            self._validate(document)
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
            return any(not one["loc"] or _is_at(path, [str(step) for step in one["loc"]]) for one in found)
        return False

    # --- parts ------------------------------------------------------------------------------------------------------

    def _known(self, node: Schema) -> Schema:
        while "$ref" in node:
            node = self._root["$defs"][node["$ref"].rpartition("/")[2]]
        return node

    def _key_of(self, node: Schema) -> str:
        pattern = node.get("propertyNames", {}).get("pattern") or next(iter(node.get("patternProperties", {})), "")
        return FORMS[pattern].example if pattern in FORMS else "x"

    def _chosen(self, node: Schema, step: str) -> Schema:
        """Follow a choice to the one that has the step."""
        node = self._known(node)
        for inner in (one for word in _INNER for one in node.get(word, ())):
            found = self._chosen(inner, step)
            if found and _has(found, step):
                return found
        return node

    def _put(self, at: Any, node: Schema, path: Path, text: str) -> None:
        step, *rest = path
        node = self._chosen(node, step)
        if step == KEY:
            value = at.pop(next(iter(at), ""), None)
            at[text] = self.sample(next(_values(node))) if value is None else value
            return
        name, inner = self._step(at, node, step)
        if step == UNKNOWN:
            at[text] = "x"
        elif not rest:
            _set(at, name, text)
        else:
            container: Any = at[name] if (len(at) > 0 if step == "[]" else name in at) else None
            if not isinstance(container, dict | list):
                container = self._container(inner, rest[0])
                _set(at, name, container)
            self._put(container, inner, tuple(rest), text)

    def _step(self, at: Any, node: Schema, step: str) -> tuple[Any, Schema]:
        """Return the name by which a step goes on in a document, and the schema of what is there."""
        match step:
            case "[]":
                return 0, node["items"]
            case "{}":
                return next(iter(at), self._key_of(node)), next(_values(node))
        return step, node.get("properties", {}).get(step, {})

    def _container(self, node: Schema, step: str) -> Any:
        chosen = self._chosen(node, step)
        return [] if step == "[]" else {} if step in ("{}", KEY) else self.sample(chosen)


def _values(node: Schema) -> Iterator[Schema]:
    found = (node.get("additionalProperties"), *node.get("patternProperties", {}).values())
    return (one for one in found if isinstance(one, Mapping))


def _has(node: Schema, step: str) -> bool:
    match step:
        case "[]":
            return node.get("type") == "array"
        case "{}" | "{key}":
            return any(True for _ in _values(node))
        case "?":
            return "properties" in node
    return step in node.get("properties", {})


def _set(at: Any, name: Any, value: Any) -> None:
    if isinstance(at, list) and not at:
        at.append(value)
    else:
        at[name] = value


def _is_at(path: Path, found: Sequence[str]) -> bool:
    """Say whether a place that pydantic names is this one: the same names, in this order."""
    names = [step for step in path if step not in ("[]", "{}", KEY, UNKNOWN)]
    left = iter(found)
    in_order = all(name in left for name in names)
    if path[-1] == KEY:
        return in_order and found[-1] == "[key]"
    return in_order and (path[-1] in ("{}", "[]", UNKNOWN) or found[-1] == path[-1])
