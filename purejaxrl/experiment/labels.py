"""Settings in words, as tables, pictures and CSV files have them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

# Runs beyond so many are counted; summary.json names all.
MAX_NAMED = 20


def show(value: Any) -> str:
    """A hyperparameter's value as tables and labels have it: 0.001, 32x32, off; of an object its description."""
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
    """An object in a word, the same in every process: its name or its type's; a dataclass with what it sets.

    `Torso(width=16 activation=relu)`. Defaults and fields that are not shown otherwise are left out.
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
    """Whether two values of a hyperparameter are the same; numbers as far as float32 can tell."""
    numbers = [isinstance(one, int | float | np.number) and not isinstance(one, bool) for one in (value, other)]
    return math.isclose(value, other, rel_tol=1e-6) if all(numbers) else show(value) == show(other)


def label_of(values: dict[str, Any]) -> str:
    """A setting in words: lr=0.001 hidden_sizes=32x32."""
    return " ".join(f"{name}={show(value)}" for name, value in values.items())


def columns_of(values: Iterable[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The swept hyperparameters as columns of text [settings]."""
    rows = list(values)
    return {name: np.array([show(row[name]) for row in rows]) for name in (rows[0] if rows else {})}


def name_runs(runs: Sequence[int]) -> str:
    """Runs by number; those beyond MAX_NAMED are counted."""
    more = len(runs) - MAX_NAMED
    return ", ".join(map(str, runs[:MAX_NAMED])) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def typed(values: Iterable[Any]) -> np.ndarray:
    """A hyperparameter's values as a column: numbers and truth values as such, all else as text, as `show` has it."""
    values = list(values)
    is_plain = {type(value) for value in values} in ({int}, {float}, {int, float}, {bool})
    return np.array(values if is_plain else [show(value) for value in values])
