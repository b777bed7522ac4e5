"""The parameters of a gymnax environment by value, as config.json has them, and back.

A record of parameters is a dataclass, a NamedTuple or a dict. Its values are plain where they are finite numbers, truth
values, texts, None, or tuples of these.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from purejaxrl.errors import InputError
from purejaxrl.types import PyTree


def complete(name: str, default: PyTree, given: PyTree | None) -> PyTree:
    """All parameters of an environment of that name: its defaults, those given, or the defaults with a dict's values.

    Raises InputError where a dict holds what the defaults do not.
    """
    if given is None:
        return default
    is_partial = isinstance(given, dict) and not isinstance(default, dict)
    return replaced(f"--env_params: {name}", default, given) if is_partial else given


def fields_of(params: PyTree) -> dict[str, Any] | None:
    """The parameters by name, None where this is no record of them."""
    if dataclasses.is_dataclass(params) and not isinstance(params, type):
        return {field.name: getattr(params, field.name) for field in dataclasses.fields(params) if field.init}
    if isinstance(params, tuple) and hasattr(params, "_fields"):
        return dict(zip(params._fields, params, strict=True))
    return params if isinstance(params, dict) and all(isinstance(name, str) for name in params) else None


def values_of(params: PyTree, default: PyTree) -> dict[str, Any] | None:
    """What config.json can hold of the parameters, so that `replaced` finds them again; None where it cannot.

    A value that is not plain is left out where it is the default.
    """
    fields, defaults = fields_of(params), fields_of(default)
    if fields is None or defaults is None or type(params) is not type(default) or fields.keys() != defaults.keys():
        return None
    values = {}
    for name, value in fields.items():
        if is_plain(value) and fits(value, defaults[name]):
            values[name] = value
        elif not is_same(value, defaults[name]):
            return None
    return values


def replaced(where: str, default: PyTree, values: dict[str, Any]) -> PyTree:
    """The defaults with these values in their places; JSON's lists are tuples.

    where: what the message begins with. Raises InputError naming the first value that has no place there.
    """
    defaults = fields_of(default)
    if defaults is None:
        raise InputError(f"{where} takes no values by name, as its parameters are {type(default).__name__}")
    for name, value in values.items():
        if name not in defaults:
            raise InputError(f"{where} has no {name!r}; it has {', '.join(defaults)}")
        if is_plain(defaults[name]) and not fits(value, defaults[name]):
            raise InputError(f"{where}: {name} is {shown(value)}; it must be of the kind of {shown(defaults[name])}")
    found = {**defaults, **{name: as_tuples(value) for name, value in values.items()}}
    if dataclasses.is_dataclass(default):
        return dataclasses.replace(default, **found)  # type: ignore[type-var]
    return found if isinstance(default, dict) else type(default)(**found)


def check_same(given: PyTree, before: PyTree) -> None:
    """Raise InputError naming the first parameter that differs from what config.json has."""
    fields, expected = fields_of(given), fields_of(before)
    if fields is None or expected is None:
        if not is_same(given, before):
            raise InputError(f"env_params: {shown(given)} was given, and config.json has {shown(before)}")
        return
    for name in {**expected, **fields}:
        if name not in fields or name not in expected or not is_same(fields[name], expected[name]):
            values = [shown(values[name]) if name in values else "missing" for values in (fields, expected)]
            raise InputError(f"env_params: {name} is {values[0]}, and in config.json it is {values[1]}")


def is_plain(value: Any) -> bool:
    """Whether JSON can hold it and give it back."""
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return all(map(is_plain, value))
    if isinstance(value, float | np.floating):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int | np.integer | np.bool_)


def fits(value: Any, default: Any) -> bool:
    """Whether a value can stand where this one is the default: any number or truth value for another."""
    return default is None or kind_of(value) == kind_of(default)


def kind_of(value: Any) -> str:
    """A number, a tuple, or the name of its type."""
    if isinstance(value, int | float | np.integer | np.floating | np.bool_):
        return "number"
    return "tuple" if isinstance(value, tuple | list) else type(value).__name__


def as_tuples(value: Any) -> Any:
    """JSON's lists as tuples, at every depth."""
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def is_same(value: Any, other: Any) -> bool:
    """Whether all entries of two values are equal."""
    structures: list[Any] = [jax.tree.structure(value), jax.tree.structure(other)]
    if structures[0] != structures[1]:
        return False
    pairs = zip(jax.tree.leaves(value), jax.tree.leaves(other), strict=True)
    try:
        return all(one is another or bool(np.array_equal(one, another)) for one, another in pairs)
    except ValueError:  # of objects that hold arrays
        return False


def shown(value: Any) -> str:
    """A value in a line, cut where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
