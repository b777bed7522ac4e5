"""Rows of RESULTS.md that are quoted elsewhere, kept as they stand there; `python benchmarks/report.py` does so."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Where, and the section of RESULTS.md whose tables are quoted.
QUOTES = (
    ("README.md", "### At a glance"),
    ("notebooks/06_against_pytorch.ipynb", "### DQN"),
    ("notebooks/06_against_pytorch.ipynb", "## The same learning as PyTorch's"),
)


def update_quotes(results: str) -> None:
    """Write the files anew."""
    for name, heading in QUOTES:
        file = ROOT / name
        file.write_text(with_rows(file.read_text(), table_of(results, heading)))


def table_of(results: str, heading: str) -> list[str]:
    """The head and the rows of a section's table."""
    lines = results.splitlines()
    below = lines[lines.index(heading) :]
    start = next(i for i, line in enumerate(below) if line.startswith("|"))
    end = next(i for i in range(start, len(below)) if not below[i].startswith("|"))
    head, _, *rows = below[start:end]
    return [head, *rows]


def with_rows(text: str, table: list[str]) -> str:
    """Text, or a notebook's JSON, in which rows below this head are those with the same first cell."""
    head, *rows = table
    lines, is_inside = text.split("\n"), False
    for number, line in enumerate(lines):
        is_inside = head in line or (is_inside and "|" in line)
        for row in rows if is_inside else ():
            label = "|".join(row.split("|")[:2]) + "|"
            # In JSON a line ends before its escaped end.
            lines[number] = re.sub(rf'{re.escape(label)}[^"\\]*', lambda _, row=row: row, lines[number])
    return "\n".join(lines)
