"""What pages load besides themselves: styles, modules of ours, icons. Read once; small enough to be kept.

The path carries a digest over all of them, so that a browser may keep a file for ever, modules import each other by
relative paths, and a page of a newer version never meets a file of an older one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from reconciler.errors import Refused
from reconciler.web.endpoint import Endpoint
from reconciler.web.pages.headers import SECURITY

TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
FOR_EVER: Final = "public, max-age=31536000, immutable"


class Statics:
    """The files of a folder. ``endpoints()`` is the table; ``url()`` says where one of them is."""

    def __init__(self, folder: Path) -> None:
        files = sorted(path for path in folder.iterdir() if path.suffix in TYPES)
        self._contents = {path.name: path.read_bytes() for path in files}
        whole = hashlib.sha256()
        for name, content in self._contents.items():
            whole.update(f"{name}\0{len(content)}\0".encode() + content)
        self.digest = whole.hexdigest()[:16]

    def url(self, name: str) -> str:
        """Return the path of a file.

        Raises:
            KeyError: when there is none of that name: a template is wrong.
        """
        if name not in self._contents:
            raise KeyError(f"there is no static file {name}")
        return f"/static/{self.digest}/{name}"

    def endpoints(self) -> tuple[Endpoint, ...]:
        """The table."""
        return (Endpoint("GET", "/static/{digest}/{name}", "Styles and modules of pages", self.file, page=True),)

    async def file(self, request: Request) -> Response:
        """Answer with a file of this very version; another version's is not here."""
        name = request.path_params["name"]
        content = self._contents.get(name)
        if content is None or request.path_params["digest"] != self.digest:
            raise Refused("there is no such file in this version.", status=404, code="not-found")
        headers = {**SECURITY, "Cache-Control": FOR_EVER}
        return Response(content, headers=headers, media_type=TYPES[Path(name).suffix])
