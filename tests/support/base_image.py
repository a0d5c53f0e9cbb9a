"""Base images made from Debian's packages, because none can be pulled where the tests run."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from tests.support.engine import DockerEngine
from tests.support.parts import require

TRUST: Final = Path("/etc/ssl/certs/ca-certificates.crt")
SECONDS: Final = 300


def import_debian_with_python(engine: DockerEngine, tag: str, suite: str, folder: Path) -> None:
    """Make an image ``tag`` with what the official ``python:…-slim-<suite>`` has: Debian, apt and ``python``.

    The Python is Debian's. It trusts whom this machine trusts, so that packages come through a proxy too.
    """
    archive = folder / "base.tar"
    made = subprocess.run(
        [
            *(
                require("mmdebstrap"),
                "--quiet",
                "--variant=minbase",
                "--dpkgopt=force-unsafe-io",
                "--include=python3-venv,ca-certificates",
            ),
            '--customize-hook=ln -s python3 "$1/usr/bin/python"',
            *([f'--customize-hook=cp {TRUST} "$1{TRUST}"'] if TRUST.is_file() else []),
            *(suite, archive),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert made.returncode == 0, f"mmdebstrap could not make a base image:\n{made.stderr[-3000:]}"
    engine.import_image(tag, archive, changes=["ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
    archive.unlink()
