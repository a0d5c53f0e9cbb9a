"""Files as git would give them, and what each of them is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from reconciler.desired.news import FileNews, Gone, Unusable
from reconciler.desired.parse import Parsed, examine_path, is_object_path, parse_file
from reconciler.desired.snapshot import Change, File
from schemas.objects import key_of_path


@dataclass(frozen=True, slots=True)
class Tree:
    """Object files: path → entry, and blob → content. A file that is too large has no content."""

    files: Mapping[str, File]
    contents: Mapping[str, bytes]

    def news(self) -> list[FileNews]:
        """Say what each file is, as :func:`reconciler.desired.settle.settle` takes it."""
        return [one for path, file in sorted(self.files.items()) if (one := self._file(path, file)) is not None]

    def _file(self, path: str, file: File) -> Parsed | Unusable | None:
        finding = examine_path(path, file)
        if finding is not None:
            return Unusable(path, file.blob, finding)
        if key_of_path(path) is None:
            return None
        return parse_file(path, file.blob, self.contents.get(file.blob))


def news_of(changes: Iterable[Change], contents: Mapping[str, bytes]) -> list[FileNews]:
    """Say what became of each changed file that can be an object. ``contents``: by blob."""
    objects = [change for change in changes if is_object_path(change.path)]
    tree = Tree({change.path: change.file for change in objects if change.file is not None}, contents)
    return [*(Gone(change.path) for change in objects if change.file is None), *tree.news()]


def blob_id(content: bytes) -> str:
    """Return the id that git gives a blob (SHA-1 object format)."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
