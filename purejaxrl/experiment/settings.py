"""The settings of a sweep: every combination of the alternatives given, or some drawn from ranges.

In Python a list holds alternatives and a `Range` is drawn from; a tuple is one value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from purejaxrl.components.hyperparameters import Spec, field_specs, with_whole_numbers
from purejaxrl.errors import InputError, in_brief
from purejaxrl.experiment import presets
from purejaxrl.experiment.labels import show
from purejaxrl.types import Agent

MAX_RUNS = 100_000


class Range(NamedTuple):
    """Numbers between `low` and `high`, drawn uniformly, or (`log`) uniformly in their logarithm.

    >>> print(Range(1e-4, 1e-2, log=True))  # as the command line has it
    0.0001..0.01:log
    """

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}" + (":log" if self.log else "")


class Setting(NamedTuple):
    """One point of a sweep: the swept hyperparameters, and the whole Config with them."""

    values: dict[str, Any]
    config: Any


def resolve_settings(
    agent: Agent,
    env_name: str,
    observation_type: str,
    preset: str,
    hyperparameters: dict[str, Any],
    *,
    random: int | None = None,
    seed: int = 0,
) -> list[Setting]:
    """The settings of a sweep, checked one by one. Without lists and ranges there is one, with nothing swept.

    random: draw so many settings, every range and list anew for each, from numpy's generator of `seed`; without it all
    combinations of the lists are taken, the last hyperparameter varying fastest.
    Raises InputError for an empty list, a value given twice, a wrong range, and whatever a preset does not allow.
    """
    specs = field_specs(agent.Config)
    hyperparameters = with_whole_numbers(hyperparameters, specs)
    swept = {name: value for name, value in hyperparameters.items() if isinstance(value, list | Range)}
    fixed = {name: value for name, value in hyperparameters.items() if name not in swept}
    for name, value in swept.items():
        if name not in specs:
            raise InputError(f"--{name}: {agent.name} has no such setting; it has {', '.join(specs)}")
        if isinstance(value, Range):
            check_range(name, value, specs[name], random)
        else:
            check_alternatives(name, value, specs[name])
    if random is not None and not swept:
        raise InputError(f"--random: {random} settings of what? give a list or a range for a hyperparameter")
    points = combinations(swept) if random is None else draws(swept, specs, random, seed)
    return [
        Setting(values, presets.resolve(agent, env_name, observation_type, preset, {**fixed, **values}))
        for values in points
    ]


def count_settings(hyperparameters: dict[str, Any], random: int | None) -> int:
    """How many settings `resolve_settings` would return."""
    if random is not None:
        return random
    return math.prod(len(value) for value in hyperparameters.values() if isinstance(value, list))


def combinations(lists: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination, the last name varying fastest."""
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))


def draws(swept: dict[str, Any], specs: dict[str, Spec], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """`count` settings drawn independently."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield {name: draw(generator, value, specs[name].kind) for name, value in swept.items()}


def draw(generator: np.random.Generator, source: list[Any] | Range, kind: type) -> Any:
    """One of a list's values, or a number of a range: whole, ends included, where the hyperparameter is whole."""
    if not isinstance(source, Range):
        return source[generator.integers(len(source))]
    # Whole numbers get equal shares of the range around them.
    margin = 0.5 if kind is int else 0.0
    low, high = source.low - margin, source.high + margin
    scale, unscale = (math.log, math.exp) if source.log else (float, float)
    number = min(max(unscale(generator.uniform(scale(low), scale(high))), source.low), source.high)
    return int(number + 0.5) if kind is int else rounded(number, source)


def rounded(number: float, source: Range) -> float:
    """A number with four digits that matter, so that it can be read and typed again; within its range still."""
    scale = min(source.high - source.low, abs(number) or math.inf)
    return min(max(round(number, 3 - math.floor(math.log10(scale))), source.low), source.high)


def takes_range(spec: Spec) -> bool:
    """Whether a hyperparameter is one number."""
    return spec.length is None and not spec.choices and spec.kind not in (bool, object)


def check_range(name: str, value: Range, spec: Spec, random: int | None) -> None:
    """Raise InputError where a range is empty, cannot be drawn from, or is not drawn from."""
    if not takes_range(spec):
        raise InputError(f"--{name}: {value} is a range; it takes {spec.allowed}")
    if random is None:
        raise InputError(f"--{name}: {value} is a range; give --random N to draw from it, or a list of values")
    ends = (value.low, value.high)
    if not all(isinstance(end, int | float | np.number) for end in ends):
        raise InputError(f"--{name}: {ends[0]!r}..{ends[1]!r} is not a range; its ends must be numbers")
    if not all(map(math.isfinite, ends)):
        raise InputError(f"--{name}: {value} is not a range; its ends must be finite numbers")
    if not value.low < value.high:
        raise InputError(f"--{name}: {value} is not a range; the first number must be below the second")
    if value.log and value.low <= 0:
        raise InputError(f"--{name}: {value} is not allowed; a logarithmic range starts above 0")
    if spec.kind is int and not all(float(end).is_integer() for end in ends):
        raise InputError(f"--{name}: {value} is not allowed; its ends must be whole numbers")
    # An end that is just not allowed itself, as 0 for a step size, is never drawn.
    lowest = max(bound for bound in (-math.inf, spec.above, spec.at_least) if bound is not None)
    highest = math.inf if spec.at_most is None else spec.at_most
    if value.low < lowest or value.high > highest:
        raise InputError(f"--{name}: {value} is not allowed; it takes {spec.allowed_in_full}")


def check_entries(name: str, values: list[Any], spec: Spec) -> None:
    """Raise InputError where a list holds the numbers of a tuple."""
    if spec.length is not None and values and all(isinstance(value, int | float | np.number) for value in values):
        raise InputError(
            f"--{name}: {in_brief(values)} is a list, which holds alternatives; a tuple is one value: "
            f"{in_brief(tuple(values))}"
        )


def check_alternatives(name: str, values: list[Any], spec: Spec) -> None:
    """Raise InputError where there is no alternative, or one twice; objects need labels that tell them apart."""
    if not values:
        raise InputError(f"--{name}: an empty list; give one value or more")
    check_entries(name, values, spec)
    seen = set()
    for value in values:
        if isinstance(value, list | Range | np.ndarray):
            shown = value if isinstance(value, Range) else in_brief(value)
            raise InputError(f"--{name}: {shown} within a list; a tuple is one value, a list holds alternatives")
        try:
            value = show(value) if spec.is_object else value
            is_known = value in seen
        except TypeError:
            raise InputError(
                f"--{name}: {in_brief(value)} is not allowed; alternatives are numbers, texts or tuples"
            ) from None
        if is_known:
            raise InputError(f"--{name}: {show(value)} is given twice")
        seen.add(value)
