"""Numbers for people."""

from __future__ import annotations

import pytest

from reconciler.web.amounts import amount
from schemas.metrics import Unit


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.25, "ratio", "25 %"), (0, "bytes", "0 B"), (2.0**30, "bytes", "1.0 GiB"), (300 * 2.0**20, "bytes", "300 MiB"),
     (1536, "bytes/s", "1.5 KiB/s"), (90, "seconds", "90 s"), (7200, "seconds", "2 h"), (3, "count", "3"),
     (0.5, "cores", "0.5"), (0.0031, "cores", "0.0031"), (0, "cores", "0")],
)  # fmt: skip
def test_a_number_has_a_unit_that_fits(value: float, unit: Unit, text: str) -> None:
    """And no more digits than anybody reads."""
    assert amount(value, unit) == text
