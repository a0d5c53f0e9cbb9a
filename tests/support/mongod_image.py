"""Images with a real mongod, made from the files of this machine: the program, its libraries, and nothing else."""

from __future__ import annotations

import io
import re
import subprocess
import tarfile
from pathlib import Path
from typing import Final

from tests.support.engine import DockerEngine

OWNER: Final = 999
"""Whose /data/db is in the images of MongoDB's maintainers."""
_LIBRARY: Final = re.compile(r"(/\S+) \(0x")


def make_mongod_image(engine: DockerEngine, tag: str, program: Path, *, libraries: Path | None = None) -> None:
    """Make an image with a mongod; ``libraries``: a directory with some that this machine does not have."""
    environment = {} if libraries is None else {"LD_LIBRARY_PATH": str(libraries)}
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True, env=environment).stdout
    files = {Path("usr/bin/mongod"): program}
    for found in map(Path, _LIBRARY.findall(listed)):
        if libraries is None or not found.is_relative_to(libraries):
            files[found.relative_to("/")] = found.resolve()
    archive = Path(engine.socket.removeprefix("unix://")).parent / "mongod.tar"
    with tarfile.open(archive, "w") as tar:
        for place, source in files.items():
            tar.add(source, str(place))
        for source in () if libraries is None else sorted(libraries.iterdir()):
            tar.add(source, f"usr/lib/{source.name}")  # links stay links: a library loaded twice is two
        for name, mode, owner in (("data", 0o755, 0), ("data/db", 0o755, OWNER), ("tmp", 0o1777, 0)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, mode, owner, owner
            tar.addfile(folder)
        passwd = b"root:x:0:0::/:/bin/sh\nmongodb:x:999:999::/data/db:/bin/false\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
    engine.import_image(tag, archive, changes=["ENV PATH=/usr/bin", "ENV LD_LIBRARY_PATH=/usr/lib"])
    archive.unlink()
