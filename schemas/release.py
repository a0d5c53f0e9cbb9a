"""The program as the control plane hands it to agents: the script, what it installs, and the wheel itself."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field

from schemas.base import Model

SCRIPT_PATH: Final = "/install.sh"
RELEASE_PATH: Final = "/install/release.json"
CONSTRAINTS_PATH: Final = "/install/constraints.txt"
WHEEL_PATH: Final = "/install/{wheel}"


class Release(Model):
    version: Annotated[str, Field(max_length=64)]
    wheel: Annotated[str, Field(pattern=r"^cloudlunacy-[0-9A-Za-z.!+_]{1,64}-py3-none-any\.whl$")]
    """Name of the file."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
