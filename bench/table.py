"""Rows as a Markdown table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

HEAD = "| row | measured against | ours | theirs | ratio | reach | |"


def as_table(rows: Iterable[Mapping[str, Any]]) -> str:
    lines = [HEAD, "|---|---|---:|---:|---:|---:|---|"]
    for row in rows:
        sign = "≤" if row["sense"] == "most" else "≥"
        reach = f"{sign} {row['reach']:g}×" if row["counts"] else ""
        verdict = ("hit" if row["hit"] else "**missed**") if row["counts"] else ""
        cells = (
            row["name"] + (f" ({row['notes']})" if row["notes"] else ""),
            row["against"],
            _amount(row["ours"], row["unit"]),
            _amount(row["reference"], row["unit"]),
            f"{row['ratio']:g}×",
            reach,
            verdict,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def with_table(page: str, machine: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the page with the table of this run between its marks."""
    before, start, rest = page.partition("<!-- table -->")
    _, end, after = rest.partition("<!-- /table -->")
    what = (
        f"Measured on {machine['date']}: {machine['cores']} cores, {machine['system']}, Python {machine['python']}, "
        f"git {machine['git']}, load {machine['load']:g} at the end."
    )
    return f"{before}{start}\n{what}\n\n{as_table(rows)}\n{end}{after}"


def _amount(value: float, unit: str) -> str:
    if unit == "ms" and value >= 1000:
        return f"{value / 1000:.2f} s"
    return f"{value:g} {unit}"
