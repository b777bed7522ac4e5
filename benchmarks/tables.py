"""What the tables of RESULTS.md are made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ON_AN_ACCELERATOR = "On an accelerator: [below](#on-an-accelerator)."


def table_line(label: str, row: dict[str, Any] | None, cells: Callable[[dict[str, Any]], list[str]]) -> str:
    """A line of a table: what a result says, if there is one."""
    return "| " + " | ".join([label, *(["not measured"] if row is None else cells(row))]) + " |"


def shown(value: float | None) -> str:
    """A number for people."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}"


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def microseconds(seconds: float) -> str:
    """A short time for people."""
    return f"{seconds * 1e3:.1f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def machine_line(machine: dict[str, Any]) -> str:
    """Where and with what something was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"Measured on {machine['date']}: {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']:.0f} GiB, {machine['system']}; {versions}."
    )


def section(title: str, text: str, columns: list[str]) -> list[str]:
    """A heading, what is to be said, and the head of a table; its lines follow."""
    return [title, "", text, "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
