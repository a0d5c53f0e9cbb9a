"""Files in which the machine's administrator says what only the machine decides: TOML, named by a variable each.

Words are written with hyphens. Where a file may hold secrets it is refused while others may read it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from reconciler.desired.grammar import FORMS, Form, sentence_of
from reconciler.errors import Broken
from reconciler.pki.private_files import read_private


class FileSettings(BaseModel):
    """A table of such a file."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
        hide_input_in_errors=True,
    )


S = TypeVar("S", bound=FileSettings)


def read_settings_file(
    path: Path, model: type[S], *, hint: str, private: bool = True, forms: Mapping[str, Form] = FORMS
) -> S:
    """Read a file. ``forms``: words for the patterns of its values.

    Raises:
        Broken: it is open to others, cannot be read, or does not say what it should. No message repeats a value.
    """
    try:
        content = read_private(path) if private else path.read_bytes()
        return model.model_validate(tomllib.loads(content.decode()))
    except OSError as error:
        raise Broken(f"{path} cannot be read: {error.strerror}.", hint=hint) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise Broken(f"{path}: {where}: {sentence_of(first, 'this', forms)}.", hint=hint) from None
    except ValueError:
        raise Broken(f"{path} is no TOML.", hint=hint) from None
