"""Names of container images, and patterns of those that a team may use. PURE.

An image without a registry is Docker Hub's, as every engine reads it: ``nginx:1`` is ``docker.io/library/nginx:1``.
"""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field, StringConstraints

_PART: Final = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_PARTS: Final = re.compile(rf"{_PART}(?:/{_PART})*")

ImagePattern = Annotated[
    str,
    StringConstraints(
        pattern=rf"^(?:\*|(?:[a-z0-9.-]+(?::[0-9]{{1,5}})?/)?{_PART}(?:/{_PART})*(?:/\*)?)$", max_length=512
    ),
    Field(description="Image without tag and digest; /* at the end covers all below, * alone all of Docker Hub."),
]


def image_name(image: str) -> str:
    """Return the whole name of an image or of a pattern, registry included; tag and digest stay."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash or image == "*" else f"docker.io/library/{image}"


def repository(image: str) -> str:
    """Return the whole name without tag and digest."""
    registry, _, path = image_name(image).partition("@")[0].partition("/")
    return f"{registry}/{path.partition(':')[0]}"


def allows(pattern: str, image: str) -> bool:
    """Say whether a pattern covers an image. An engine's own grammar decides what a part of a path may be."""
    whole, name = image_name(pattern), repository(image)
    if _PARTS.fullmatch(name.partition("/")[2]) is None:
        return False
    return name.startswith(whole[:-1]) if whole.endswith("/*") else name == whole
