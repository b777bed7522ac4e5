"""Parameters of gymnax environments, compared, changed by name, and converted to the values in config.json and back.

Parameters are a dataclass, a NamedTuple or a dict. A value is plain, so that JSON can hold it, if it is a finite
number, a boolean, a string, None, or a tuple of these.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from purejaxrl.errors import InputError, in_brief
from purejaxrl.types import PyTree


def complete(name: str, default: PyTree, given: PyTree | None) -> PyTree:
    """Complete the parameters that a user has given.

    Args:
        name: The environment's name, for error messages.
        default: Its default parameters.
        given: All parameters, a dict of those that differ from the defaults, or None.

    Returns:
        All parameters.

    Raises:
        InputError: If a dict holds what the defaults do not, or a value of another kind.
    """
    if given is None:
        return default
    is_partial = isinstance(given, dict) and not isinstance(default, dict)
    return replace(f"--env_params: {name}", default, given) if is_partial else given


def _named_values(params: PyTree) -> dict[str, Any] | None:
    """Return parameters as a dict by name, or None if they have no names."""
    if dataclasses.is_dataclass(params) and not isinstance(params, type):
        return {field.name: getattr(params, field.name) for field in dataclasses.fields(params) if field.init}
    if isinstance(params, tuple):  # A NamedTuple has no base class of its own; its fields are what tells it apart.
        return dict(zip(params._fields, params, strict=True)) if hasattr(params, "_fields") else None
    return params if isinstance(params, dict) and all(isinstance(name, str) for name in params) else None


def plain_values(params: PyTree, default: PyTree) -> dict[str, Any] | None:
    """Return the values of parameters that config.json holds, from which `replace` makes the parameters again.

    Args:
        params: The parameters.
        default: The environment's default parameters.

    Returns:
        Values by name, without those that are not plain but equal their default; None if others are not plain.
    """
    fields, defaults = _named_values(params), _named_values(default)
    if fields is None or defaults is None or type(params) is not type(default) or fields.keys() != defaults.keys():
        return None
    values = {}
    for name, value in fields.items():
        if _is_plain(value) and _fits(value, defaults[name]):
            values[name] = value
        elif not _is_same(value, defaults[name]):
            return None
    return values


def replace(where: str, default: PyTree, values: dict[str, Any]) -> PyTree:
    """Replace default parameters by values.

    Args:
        where: What an error message begins with.
        default: The environment's default parameters.
        values: New values by name; lists, as JSON has them, stand for tuples.

    Returns:
        Parameters of the type of the defaults.

    Raises:
        InputError: If a name is unknown or a value is of another kind; the message names the first.
    """
    defaults = _named_values(default)
    if defaults is None:
        raise InputError(f"{where} takes no values by name, as its parameters are {type(default).__name__}")
    for name, value in values.items():
        if name not in defaults:
            raise InputError(f"{where} has no {name!r}; it has {', '.join(defaults)}")
        if _is_plain(defaults[name]) and not _fits(value, defaults[name]):
            kind = in_brief(defaults[name])
            raise InputError(f"{where}: {name} is {in_brief(value)}; it must be of the kind of {kind}")
    found = {**defaults, **{name: _as_tuples(value) for name, value in values.items()}}
    if dataclasses.is_dataclass(default):
        return dataclasses.replace(default, **found)  # type: ignore[type-var]
    return found if isinstance(default, dict) else type(default)(**found)


def check_same(given: PyTree, before: PyTree) -> None:
    """Check that parameters equal those of an earlier training.

    Args:
        given: The parameters given now.
        before: Those that config.json holds.

    Raises:
        InputError: If they differ; the message names the first that does.
    """
    fields, expected = _named_values(given), _named_values(before)
    if fields is None or expected is None:
        if not _is_same(given, before):
            raise InputError(f"env_params: {in_brief(given)} was given, and config.json has {in_brief(before)}")
        return
    for name in {**expected, **fields}:
        if name not in fields or name not in expected or not _is_same(fields[name], expected[name]):
            values = [in_brief(values[name]) if name in values else "missing" for values in (fields, expected)]
            raise InputError(f"env_params: {name} is {values[0]}, and in config.json it is {values[1]}")


def _is_plain(value: Any) -> bool:
    """Whether JSON can hold a value and give it back."""
    if type(value) is tuple:
        return all(map(_is_plain, value))
    if isinstance(value, float | np.floating):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int | np.integer | np.bool_)


def _fits(value: Any, default: Any) -> bool:
    """Whether a value is of the same kind as the default, if there is one."""
    return default is None or _kind(value) == _kind(default)


def _kind(value: Any) -> str:
    """Name the kind of a value: any number or boolean is a number, any list or tuple a tuple, else its type."""
    if isinstance(value, int | float | np.integer | np.floating | np.bool_):
        return "number"
    return "tuple" if isinstance(value, tuple | list) else type(value).__name__


def _as_tuples(value: Any) -> Any:
    """Convert lists to tuples, at every depth."""
    return tuple(map(_as_tuples, value)) if isinstance(value, list) else value


def _is_same(value: Any, other: Any) -> bool:
    """Whether two pytrees have the same structure and equal leaves."""
    structures: list[Any] = [jax.tree.structure(value), jax.tree.structure(other)]
    if structures[0] != structures[1]:
        return False
    pairs = zip(jax.tree.leaves(value), jax.tree.leaves(other), strict=True)
    try:
        return all(one is another or bool(np.array_equal(one, another)) for one, another in pairs)
    except ValueError:  # of objects that hold arrays
        return False
