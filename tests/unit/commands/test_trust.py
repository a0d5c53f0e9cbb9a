"""Whom a command trusts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from reconciler.commands.trust import Trust, days_left
from reconciler.errors import Broken

HEX = "0123456789abcdef" * 4


class Stream:
    """A connection whose other end has shown a certificate, or speaks plain HTTP."""

    def __init__(self, ends: str | None) -> None:
        self._ends = ends

    def get_extra_info(self, _: str) -> Any:
        return None if self._ends is None else self

    def getpeercert(self) -> dict[str, Any]:
        return {"notAfter": self._ends}


@pytest.mark.parametrize("text", [HEX, HEX.upper(), ":".join(HEX[at : at + 2] for at in range(0, 64, 2)), f" {HEX}\n"])
def test_a_fingerprint_is_read_in_every_spelling(text: str) -> None:
    """Case, colons and space around it are of no account."""
    assert Trust.of_fingerprint(text).fingerprint == HEX


@pytest.mark.parametrize("text", ["", HEX[1:], HEX + "0", HEX[1:] + "g", "ä" * 64])
def test_what_is_no_fingerprint_is_refused(text: str) -> None:
    """A cut one must not count as a short one."""
    with pytest.raises(Broken, match="64 hexadecimal digits"):
        Trust.of_fingerprint(text)


@pytest.mark.parametrize(
    "content", [b"", b"nothing", b"\xff", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]
)
def test_a_file_without_roots_is_refused(tmp_path: Path, content: bytes) -> None:
    """It is named."""
    path = tmp_path / "ca.pem"
    path.write_bytes(content)
    with pytest.raises(Broken, match=r"ca\.pem holds no certificates"):
        Trust.of_file(path)
    with pytest.raises(Broken, match=r"absent\.pem holds no certificates"):
        Trust.of_file(tmp_path / "absent.pem")


@pytest.mark.parametrize(
    ("ends", "expected"), [(None, None), ("Jan  2 00:00:00 1970 GMT", 0.5), ("Jan  1 00:00:00 1970 GMT", -0.5)]
)
def test_the_end_of_what_was_presented_is_known(ends: str | None, expected: float | None) -> None:
    """In days from now; nothing over plain HTTP."""
    assert days_left(Stream(ends), 43_200.0) == expected
    assert days_left(None, 0.0) is None
