"""Text for settings and values, as used in tables, plots and CSV files."""

from __future__ import annotations

import dataclasses
import math
import os
import textwrap
from collections.abc import Container, Iterable, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

import numpy as np

# Runs beyond so many are counted; summary.json names all.
MAX_NAMED = 20
# Width assumed if the terminal reports none.
USUAL_COLUMNS = 80


def show(value: Any) -> str:
    """Format the value of a hyperparameter as tables and labels show it: 0.001, 32x32, off.

    Args:
        value: The value.

    Returns:
        The text; for an object, its description.
    """
    if value is None:
        return "off"
    if isinstance(value, tuple | list):
        return "x".join(map(show, value))
    if isinstance(value, bool | np.bool_):
        return str(value).lower()
    if isinstance(value, str | int | np.integer):
        return str(value)
    return f"{value:.9g}" if isinstance(value, float | np.floating) else describe(value)


def describe(value: Any) -> str:
    """Describe an object in one word, the same in every process: by its name or that of its type.

    A dataclass is described with the fields that it sets, as in `Torso(width=16 activation=relu)`, without defaults and
    fields that its repr does not show.

    Args:
        value: The object.

    Returns:
        The text.
    """
    name = type(value).__name__
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        own_name = getattr(value, "__name__", name)
        return own_name if isinstance(own_name, str) else name
    fields = [field for field in dataclasses.fields(value) if field.repr and hasattr(value, field.name)]
    given = {field.name: getattr(value, field.name) for field in fields if not _is_default(value, field)}
    # What stands in a field of a CSV file holds no commas.
    return " ".join(f"{name}({label_of(given)})".replace(",", " ").split()) if given else name


def _is_default(value: Any, field: dataclasses.Field) -> bool:
    found = getattr(value, field.name)
    return found is field.default or bool(np.all(found == field.default))


def is_same(value: Any, other: Any) -> bool:
    """Check whether two values of a hyperparameter are the same, comparing numbers with the precision of float32.

    Args:
        value: The first value.
        other: The second value.

    Returns:
        Whether they are.
    """
    numbers = [isinstance(one, int | float | np.number) and not isinstance(one, bool) for one in (value, other)]
    return math.isclose(value, other, rel_tol=1e-6) if all(numbers) else show(value) == show(other)


def label_of(values: dict[str, Any]) -> str:
    """Format a setting as text, as in lr=0.001 hidden_sizes=32x32.

    Args:
        values: Hyperparameters by name.

    Returns:
        The text.
    """
    return " ".join(f"{name}={show(value)}" for name, value in values.items())


def is_preset_file(preset: str) -> bool:
    """Check whether a preset is given as the path of a file, which ends in .json or contains a path separator."""
    return preset.endswith(".json") or "/" in preset or os.sep in preset


def preset_name(preset: str) -> str:
    """Name a preset as titles, labels and run folders do: a file by its stem, a best.json by its folder.

    Args:
        preset: Name of a preset, or path of a file.

    Returns:
        The name, without path separators.

    >>> preset_name("tuned"), preset_name("results/mine/best.json"), preset_name("results/fast.json")
    ('tuned', 'mine', 'fast')
    """
    if not is_preset_file(preset):
        return preset
    path = PurePath(preset)
    folder = path.parent.name
    return folder if path.stem == "best" and folder not in ("", "..") else path.stem


def wrap_label(label: str, length: int) -> list[str]:
    """Break a label into lines, between its words where these are not too long.

    Args:
        label: The label.
        length: Greatest number of characters of a line.

    Returns:
        The lines, at least one.

    >>> wrap_label("lr=0.001 hidden_sizes=32x32", 20)
    ['lr=0.001', 'hidden_sizes=32x32']
    """
    return textwrap.wrap(label, length, break_on_hyphens=False) or [""]


def terminal_columns(stream: Any) -> int | None:
    """Return the width of a terminal.

    Args:
        stream: A stream to write to.

    Returns:
        The number of columns, None if the stream is no terminal.
    """
    with suppress(AttributeError, OSError, ValueError):
        # A terminal that does not know its width says 0.
        return os.get_terminal_size(stream.fileno()).columns or USUAL_COLUMNS
    return None


def columns_of(values: Iterable[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Convert the swept hyperparameters of settings to columns of text.

    Args:
        values: Hyperparameters by name, one dict per setting.

    Returns:
        Columns [settings] by name.
    """
    rows = list(values)
    return {name: np.array([show(row[name]) for row in rows]) for name in (rows[0] if rows else {})}


def column_name(name: str, taken: Container[str]) -> str:
    """Name the column of a swept hyperparameter in a table that has columns of its own.

    Args:
        name: The hyperparameter.
        taken: Names of the table's own columns.

    Returns:
        The name, as swept_NAME where it is taken.
    """
    return f"swept_{name}" if name in taken else name


def name_runs(runs: Sequence[int]) -> str:
    """List runs by number, up to MAX_NAMED of them.

    Args:
        runs: Numbers of the runs.

    Returns:
        The text, which ends with the count of those not listed.
    """
    more = len(runs) - MAX_NAMED
    return ", ".join(map(str, runs[:MAX_NAMED])) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """Format a count with its noun, as in 1 run or 2 runs.

    Args:
        number: The count.
        noun: The noun in the singular.

    Returns:
        The text.
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def typed(values: Iterable[Any]) -> np.ndarray:
    """Convert the values of a hyperparameter to a column, which keeps the type of numbers and booleans.

    Args:
        values: One value per setting.

    Returns:
        The column [settings]; values of other or mixed types are text, formatted by `show`.
    """
    values = list(values)
    is_plain = {type(value) for value in values} in ({int}, {float}, {int, float}, {bool})
    return np.array(values if is_plain else [show(value) for value in values])
