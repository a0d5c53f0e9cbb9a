"""The program that runs here, as a wheel: what a new agent installs, so that both ends are of one version.

It is made of what is installed (or checked out), so no index is asked for a package of that name, and nobody has to put
a file somewhere. The same installation always makes the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, get_args

from reconciler.errors import Broken
from reconciler.package_data import DataName, data_directory
from schemas.release import Release

NAME: Final = "cloudlunacy"
PACKAGES: Final = ("agent", "reconciler", "schemas")
_DATA: Final = "reconciler/_data"
_LEFT_OUT: Final = frozenset({"__pycache__"})
_WHEEL: Final = "Wheel-Version: 1.0\nGenerator: cloudlunacy\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_TIME: Final = (1980, 1, 1, 0, 0, 0)


class OwnWheel(NamedTuple):
    release: Release
    content: bytes
    constraints: str
    """The versions of everything that the program needs, as they are here: one ``name==version`` a line, for pip."""


def own_wheel() -> OwnWheel:
    """Make the wheel. Raises Broken where the installation does not say what it is made of."""
    distribution = importlib.metadata.distribution(NAME)
    about = f"{NAME}-{distribution.version}.dist-info"
    files = {**_packages(), **_data()}
    for name in ("METADATA", "entry_points.txt"):
        text = distribution.read_text(name)
        if text is None:
            raise Broken(f"this installation of {NAME} has no {name}.", hint="Install it again.")
        files[f"{about}/{name}"] = text.encode()
    files[f"{about}/WHEEL"] = _WHEEL.encode()
    content = _archive(files, f"{about}/RECORD")
    wheel = f"{NAME}-{distribution.version}-py3-none-any.whl"
    release = Release(version=distribution.version, wheel=wheel, sha256=hashlib.sha256(content).hexdigest())
    return OwnWheel(release, content, "".join(f"{one}\n" for one in sorted(_needed())))


def _packages() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise Broken(f"the package {package} of this program is missing.", hint="Install it again.")
        found |= _folder(Path(spec.submodule_search_locations[0]), package)
    return {path: content for path, content in found.items() if not path.startswith(f"{_DATA}/")}


def _data() -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name in get_args(DataName):
        found |= _folder(data_directory(name), f"{_DATA}/{name}")
    return found


def _folder(folder: Path, name: str) -> dict[str, bytes]:
    return {
        f"{name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _LEFT_OUT & set(path.parts) and path.suffix != ".pyc"
    }


def _archive(files: dict[str, bytes], record: str) -> bytes:
    lines = "".join(f"{path},sha256={_digest(content)},{len(content)}\n" for path, content in sorted(files.items()))
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in (*sorted(files.items()), (record, f"{lines}{record},,\n".encode())):
            entry = zipfile.ZipInfo(path, _TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return target.getvalue()


def _needed() -> Iterator[str]:
    """Yield what is installed of all that the program requires, and what that requires."""
    waiting, seen = [NAME], {NAME}
    while waiting:
        name = waiting.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # required on other machines only
        if name != NAME:
            yield f"{name}=={distribution.version}"
        for requirement in distribution.requires or ():
            found = re.match(r"[A-Za-z0-9._-]+", requirement)
            needed = re.sub(r"[-_.]+", "-", found.group()).lower() if found else NAME
            if "extra ==" not in requirement and needed not in seen:
                seen.add(needed)
                waiting.append(needed)


def _digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
