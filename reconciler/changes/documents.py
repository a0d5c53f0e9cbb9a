"""Edits of objects' files that keep what a person wrote: comments, order, and every line that is not touched. Pure.

1. The file becomes a document with its comments, and the document the wanted one; what stays keeps its place.
2. What that changes in the file is carried over to the text line by line (:mod:`reconciler.changes.lines`).
3. The result is read by the parser that will read the commit; where it does not hold exactly what is wanted, the
   document as a whole is written instead, and where even that does not, nothing is.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from difflib import SequenceMatcher
from typing import Any, Final, Literal

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString, SingleQuotedScalarString

from reconciler.changes.lines import carried_over
from reconciler.desired.edits import EditConflict
from reconciler.desired.yaml_editing import dump, load, plain
from reconciler.desired.yaml_reader import Unreadable, read_mapping

AgentState = Literal["active", "cordoned", "quarantined"]
_WIDE: Final = 80
"""Characters; what is longer is not written in one line of its own."""
_AMBIGUOUS: Final = frozenset(["true", "false", "yes", "no", "on", "off", "null", "y", "n", "~", ""])
"""Words that some readers of YAML take for no text."""


def put_document(path: str, text: str | None, document: Mapping[str, Any]) -> str:
    """Return the file with another document. Where nothing can be kept of what is there, it is written anew.

    Raises:
        EditConflict: the document cannot be written so that it reads back.
    """
    if text is not None:
        try:
            return _edited(path, text, lambda found: _put(found, document))
        except EditConflict:
            pass
    return _written(path, document)


def patch_document(path: str, text: str, patch: Mapping[str, Any]) -> str:
    """Return the file with a merge patch applied to its document (RFC 7396).

    Raises:
        EditConflict: the file cannot be read, or not edited safely.
    """
    return _edited(path, text, lambda found: _put(found, merge_patch(plain(found), patch)))


def merge_patch(target: object, patch: object) -> Any:  # noqa: ANN401 - any JSON
    """Apply a patch (RFC 7396, 2). Neither argument is changed."""
    if not isinstance(patch, Mapping):
        return deepcopy(patch)
    merged = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def set_weights(path: str, text: str, weights: Mapping[str, int]) -> str:
    """Return the route with other weights; backends that are not named keep theirs. Names as :func:`backend_name`.

    Raises:
        EditConflict: a name fits no backend or several, or the file cannot be edited safely.
    """

    def change(found: CommentedMap) -> None:
        backends = _backends(path, found)
        names = [backend_name(plain(one)) for one in backends]
        for name, weight in weights.items():
            fits = [index for index, known in enumerate(names) if known == name]
            if len(fits) != 1:
                known = ", ".join(dict.fromkeys(names))
                problem = "several backends" if fits else "no backend"
                raise EditConflict(f'"{name}" names {problem} of {path}; it has: {known}.')
            if plain(backends[fits[0]]).get("weight", 1) != weight:  # type: ignore[attr-defined]
                backends[fits[0]]["weight"] = weight

    return _edited(path, text, change)


def backend_name(backend: object) -> str:
    """Return ``agent:port``, ``deployment``, ``deployment:port`` or ``deployment:portName``, as a route writes it."""
    if not isinstance(backend, Mapping):
        return ""
    port = backend.get("port", backend.get("portName"))
    name = str(backend.get("agent") or backend.get("deployment") or "")
    return name if port is None else f"{name}:{port}"


def set_agent_state(path: str, text: str, state: AgentState) -> str:
    """Return the agent's file with its state; active is written by leaving it out.

    Raises:
        EditConflict: the file has no spec, or cannot be edited safely.
    """

    def change(found: CommentedMap) -> None:
        spec = found.get("spec")
        if not isinstance(spec, CommentedMap):
            raise EditConflict(f"{path} has no spec; mend the file first.")
        if state == "active":
            spec.pop("state", None)
        else:
            spec["state"] = state

    return _edited(path, text, change)


def agent_state(text: str) -> str:
    """Return what an agent's file says of its state, ``active`` where it says nothing that can be read."""
    try:
        spec = read_mapping(text.encode("utf-8", "surrogatepass")).get("spec")
    except Unreadable:
        return "active"
    return str(spec.get("state", "active")) if isinstance(spec, Mapping) else "active"


def _backends(path: str, found: CommentedMap) -> list[CommentedMap]:
    spec = found.get("spec")
    backends = spec.get("backends") if isinstance(spec, CommentedMap) else None
    if not isinstance(backends, list) or not all(isinstance(one, CommentedMap) for one in backends):
        raise EditConflict(f"{path} has no readable list of backends; mend the file first.")
    return backends


# --- the text ---------------------------------------------------------------------------------------------------------


def _edited(path: str, text: str, change: Callable[[CommentedMap], None]) -> str:
    if "\r\n" in text and text.count("\n") == text.count("\r\n"):
        return _edited(path, text.replace("\r\n", "\n"), change).replace("\n", "\r\n")
    own, document = load(path, text.encode("utf-8", "surrogatepass"))
    before, copy = exact(plain(document)), _dumped(path, own, document)
    change(document)
    wanted = exact(plain(document))
    if wanted == before and _holds(own, wanted):
        return own
    edited = _dumped(path, own, document)
    for candidate in _candidates(own, copy, edited):
        if _holds(candidate, wanted):
            return candidate
    raise EditConflict(f"{path} cannot be edited without changing its form; edit it by hand.")


def _candidates(own: str, copy: str, edited: str) -> Iterator[str]:
    yield carried_over(own, copy, edited)
    yield carried_over(own, copy, edited, keep_comments=False)
    yield edited


def _dumped(path: str, own: str, document: CommentedMap) -> str:
    try:
        return dump(own, document).decode()
    except (YAMLError, ValueError, TypeError, AttributeError, RecursionError):
        raise EditConflict(f"{path} cannot be written as YAML; edit it by hand.") from None


def _written(path: str, document: Mapping[str, Any]) -> str:
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 10 * _WIDE
    yaml.indent(mapping=2, sequence=4, offset=2)
    out, wanted = io.StringIO(), exact(document)
    with contextlib.suppress(YAMLError, ValueError, TypeError, RecursionError):
        yaml.dump(_fresh(document), out)
    for text in (out.getvalue(), _as_json(document)):
        if _holds(text, wanted):
            return text
    raise EditConflict(f"{path} cannot be written so that it reads back as what is wanted.")


def _as_json(document: Mapping[str, Any]) -> str:
    """Write a document as JSON, which is YAML, without a character that could mean something else there."""
    text = json.dumps(document, indent=2, default=str) + "\n"
    return re.sub(r"[!&*%\x7f]", lambda found: f"\\u{ord(found[0]):04x}", text)


def _holds(text: str, wanted: str) -> bool:
    try:
        return exact(read_mapping(text.encode("utf-8", "surrogatepass"))) == wanted
    except Unreadable:
        return False


def exact(value: object) -> str:
    """Return what two values share when they mean the same: true is not 1, and the order of a mapping says nothing."""
    return json.dumps(value, sort_keys=True, default=str)


# --- the document -----------------------------------------------------------------------------------------------------


def _put(found: CommentedMap, wanted: Mapping[str, Any]) -> None:
    """Turn a mapping into another one; what is new comes after what stands before it there."""
    for key in [key for key in found if key not in wanted]:
        del found[key]
    after = 0
    for key, value in wanted.items():
        if key in found:
            found[key] = _turned(found[key], value)
            after = list(found).index(key) + 1
        else:
            found.insert(after, key, _fresh(value))
            after += 1


def _put_items(found: CommentedSeq, wanted: Sequence[Any]) -> None:
    matcher = SequenceMatcher(None, [exact(plain(one)) for one in found], [exact(one) for one in wanted], False)
    for tag, first, last, start, end in reversed(matcher.get_opcodes()):
        if tag == "equal":
            continue
        pairs = min(last - first, end - start)
        for index in reversed(range(first + pairs, last)):
            del found[index]
        for offset in range(pairs):
            found[first + offset] = _turned(found[first + offset], wanted[start + offset])
        for offset in range(pairs, end - start):
            found.insert(first + offset, _fresh(wanted[start + offset], in_list=True))


def _turned(found: Any, wanted: Any) -> Any:  # noqa: ANN401 - any YAML
    if exact(plain(found)) == exact(wanted):
        return found
    if isinstance(found, CommentedMap) and isinstance(wanted, Mapping):
        _put(found, wanted)
        return found
    if isinstance(found, CommentedSeq) and isinstance(wanted, list | tuple):
        _put_items(found, wanted)
        return found
    if isinstance(wanted, str) and isinstance(found, DoubleQuotedScalarString | SingleQuotedScalarString):
        return type(found)(wanted)
    return _fresh(wanted)


def _fresh(value: Any, *, in_list: bool = False) -> Any:  # noqa: ANN401 - any YAML
    """Return a value as it is written where nothing stood before: short things in one line."""
    if isinstance(value, Mapping):
        mapping = CommentedMap({str(key): _fresh(item) for key, item in value.items()})
        if not mapping or (in_list and _is_short(value.values())):
            mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list | tuple):
        items = CommentedSeq([_fresh(item, in_list=True) for item in value])
        if _is_short(value):
            items.fa.set_flow_style()
        return items
    if isinstance(value, str) and value.lower() in _AMBIGUOUS:
        return DoubleQuotedScalarString(value)
    if isinstance(value, str) and "\n" in value:
        return LiteralScalarString(value)
    return value


def _is_short(values: Any) -> bool:  # noqa: ANN401 - any collection
    items = list(values)
    scalars = all(item is None or isinstance(item, str | int | float) for item in items)
    return scalars and sum(len(str(item)) + 2 for item in items) <= _WIDE and "\n" not in "".join(map(str, items))
