"""One file → one object, or everything that is wrong with it.

1. The path decides kind, team and name, or says that no object may lie there (:func:`examine_path`).
2. The bytes become one mapping within limits (:mod:`reconciler.desired.yaml_reader`).
3. The mapping becomes a model; every field that does not fit is reported (:mod:`reconciler.desired.explain`).
4. The document must be of the kind and name that its path says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from reconciler.desired.explain import explain, show
from reconciler.desired.finding import Finding, did_you_mean
from reconciler.desired.locate import duplicate_key
from reconciler.desired.snapshot import REGULAR_FILE, File
from reconciler.desired.yaml_reader import MAX_BYTES, Unreadable, read_mapping
from schemas.base import API_VERSION
from schemas.objects import ADAPTERS, FLEET_PATH, FOLDERS, KINDS, TEAM_KINDS, AnyObject, ObjectKey, key_of_path

_YAML: Final = re.compile(r"\.ya?ml$", re.IGNORECASE)
_MODES: Final = {"120000": "a symbolic link", "160000": "a submodule", "100755": "an executable file"}


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
        return _bad(path, blob, key, *explain(path, KINDS[key.kind], mapping, error))
    name = found.metadata.name
    if key.kind != "Fleet" and name != key.name:
        text = f'metadata.name is "{name}", but the file is called {key.name}.yaml'
        return _bad(path, blob, key, Finding(path, "wrong-name", text, "Make them equal.", ("metadata", "name")))
    return Parsed(path, blob, key, found)


def _check_envelope(path: str, key: ObjectKey, mapping: Mapping[str, Any]) -> Iterable[Finding]:
    version, kind = mapping.get("apiVersion"), mapping.get("kind")
    if version != API_VERSION:
        text = f"apiVersion is {show(version)}, this control plane reads {API_VERSION}"
        yield Finding(path, "unknown-version", text, f"Write apiVersion: {API_VERSION}.", ("apiVersion",))
    if kind != key.kind:
        text = f"kind is {show(kind)}, but this path holds a {key.kind}"
        hint = f"Write kind: {key.kind}, or move the file."
        if isinstance(kind, str) and kind not in KINDS:
            hint = did_you_mean(kind, KINDS) or hint
        yield Finding(path, "wrong-kind", text, hint, ("kind",))
