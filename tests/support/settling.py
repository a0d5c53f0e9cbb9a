"""Take a folder of YAML through everything that decides, as the control plane does with a commit."""

from __future__ import annotations

from pathlib import Path

from reconciler.desired.news import FileNews
from reconciler.desired.parse import parse_file
from reconciler.desired.routing import compile_route
from reconciler.desired.settle import settle
from reconciler.desired.state import State
from schemas.objects import key_of_path

HTPASSWD = "admin:$2y$05$abcdefghijklmnopqrstuuAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
"""What every sealed value opens to."""


def settle_folder(folder: Path) -> State:
    """Return the state of a first commit that holds the folder's objects."""
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))
    news: list[FileNews] = [
        parse_file(path, f"blob-{number}", Path(folder, path).read_bytes())
        for number, path in enumerate(paths)
        if key_of_path(path) is not None
    ]
    return settle(State(), "0" * 40, news, compile_route=compile_route, open_sealed=lambda _: HTPASSWD).state
