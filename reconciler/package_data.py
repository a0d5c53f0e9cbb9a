"""Where the files lie that come with the program and are no code: Jinja templates and the example state repo."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

DataName = Literal["state-repo-example", "templates"]

_PACKAGE: Final = Path(__file__).resolve().parent


def data_directory(name: DataName) -> Path:
    """Return the folder ``name``: inside the package where a wheel put it, else at the top of the checkout.

    Raises:
        FileNotFoundError: when neither is there, which means that the installation is damaged.
    """
    for candidate in (Path(_PACKAGE, "_data", name), Path(_PACKAGE.parent, name)):
        if candidate.is_dir():
            return candidate
    raise FileNotFoundError(f"the folder {name} that belongs to this program is missing; install it again")
