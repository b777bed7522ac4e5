"""Settings of a sweep: every combination of the given alternatives, or samples from ranges.

In Python a list holds alternatives, a `Range` is sampled from, and a tuple is one value.
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
    """Range of numbers between `low` and `high` to sample uniformly or, with `log`, uniformly in their logarithm.

    >>> print(Range(1e-4, 1e-2, log=True))  # as the command line has it
    0.0001..0.01:log
    """

    low: float
    high: float
    log: bool = False

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}" + (":log" if self.log else "")


class Setting(NamedTuple):
    """One point of a sweep.

    Attributes:
        values: The swept hyperparameters by name.
        config: The complete Config.
    """

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
    best: presets.BestFile | None = None,
) -> list[Setting]:
    """Build and check the settings of a sweep; without lists and ranges there is one, with nothing swept.

    Args:
        agent: The algorithm.
        env_name: Name of the environment.
        observation_type: `default` or `img`.
        preset: Name of the preset, or the path that `best` was read from.
        hyperparameters: Values, lists of alternatives, and ranges by name.
        random: Number of settings to sample, each from all lists and ranges; None takes all combinations of the lists,
            the last hyperparameter varying fastest.
        seed: Seed of the NumPy generator that samples.
        best: What the preset's file holds, None for a preset that has a name.

    Returns:
        The settings.

    Raises:
        InputError: If a list is empty, a value is given twice, a range is wrong, or the preset does not allow a value.
    """
    specs = field_specs(agent.Config)
    hyperparameters = with_whole_numbers(hyperparameters, specs)
    swept = {name: value for name, value in hyperparameters.items() if isinstance(value, list | Range)}
    fixed = {name: value for name, value in hyperparameters.items() if name not in swept}
    for name, value in swept.items():
        if name not in specs:
            raise InputError(f"--{name}: {agent.name} has no such setting; it has {', '.join(specs)}")
        if isinstance(value, Range):
            _check_range(name, value, specs[name], random)
        else:
            _check_alternatives(name, value, specs[name])
    if random is not None and not swept:
        raise InputError(f"--random: {random} settings of what? give a list or a range for a hyperparameter")
    points = combinations(swept) if random is None else draws(swept, specs, random, seed)
    return [
        Setting(values, presets.resolve(agent, env_name, observation_type, preset, {**fixed, **values}, best))
        for values in points
    ]


def count_settings(hyperparameters: dict[str, Any], random: int | None) -> int:
    """Count the settings that `resolve_settings` would return.

    Args:
        hyperparameters: Values, lists of alternatives, and ranges by name.
        random: Number of settings to sample, None for all combinations.

    Returns:
        The number of settings.
    """
    if random is not None:
        return random
    return math.prod(len(value) for value in hyperparameters.values() if isinstance(value, list))


def combinations(lists: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Generate every combination of alternatives, the last name varying fastest.

    Args:
        lists: Lists of alternatives by name.

    Yields:
        One value per name.
    """
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))


def draws(swept: dict[str, Any], specs: dict[str, Spec], count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Sample settings independently.

    Args:
        swept: Lists of alternatives and ranges by name.
        specs: Specifications of the hyperparameters.
        count: Number of settings.
        seed: Seed of the NumPy generator.

    Yields:
        One value per name.
    """
    generator = np.random.default_rng(seed)
    for _ in range(count):
        yield {name: draw(generator, value, specs[name].kind) for name, value in swept.items()}


def draw(generator: np.random.Generator, source: list[Any] | Range, kind: type) -> Any:
    """Sample one of a list's values, or a number of a range.

    Args:
        generator: The random generator.
        source: The list or range.
        kind: Type of the hyperparameter; whole numbers are sampled where it is int, ends included.

    Returns:
        The value.
    """
    if not isinstance(source, Range):
        return source[generator.integers(len(source))]
    # Whole numbers get equal shares of the range around them.
    margin = 0.5 if kind is int else 0.0
    low, high = source.low - margin, source.high + margin
    scale, unscale = (math.log, math.exp) if source.log else (float, float)
    number = min(max(unscale(generator.uniform(scale(low), scale(high))), source.low), source.high)
    return int(number + 0.5) if kind is int else rounded(number, source)


def rounded(number: float, source: Range) -> float:
    """Round a number to four significant digits within a range, so that it can be read and typed again.

    Args:
        number: The number.
        source: The range.

    Returns:
        The rounded number.
    """
    scale = min(source.high - source.low, abs(number) or math.inf)
    return min(max(round(number, 3 - math.floor(math.log10(scale))), source.low), source.high)


def takes_range(spec: Spec) -> bool:
    """Check whether a hyperparameter is a single number, so that it can be sampled from a range.

    Args:
        spec: Specification of the hyperparameter.

    Returns:
        Whether it is.
    """
    return spec.length is None and not spec.choices and spec.kind not in (bool, object)


def _check_range(name: str, value: Range, spec: Spec, random: int | None) -> None:
    """Check that a range is valid for a hyperparameter, and that a number of samples was given."""
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
    # An end that is just not allowed itself, as 0 for a learning rate, is never drawn.
    lowest = max(bound for bound in (-math.inf, spec.above, spec.at_least) if bound is not None)
    highest = math.inf if spec.at_most is None else spec.at_most
    if value.low < lowest or value.high > highest:
        raise InputError(f"--{name}: {value} is not allowed; it takes {spec.allowed_in_full}")


def check_entries(name: str, values: list[Any], spec: Spec) -> None:
    """Check that a list of alternatives is not meant as a tuple.

    Args:
        name: Name of the hyperparameter.
        values: The list.
        spec: Specification of the hyperparameter.

    Raises:
        InputError: If it holds the numbers of a tuple.
    """
    if spec.length is not None and values and all(isinstance(value, int | float | np.number) for value in values):
        raise InputError(
            f"--{name}: {in_brief(values)} is a list, which holds alternatives; a tuple is one value: "
            f"{in_brief(tuple(values))}"
        )


def _check_alternatives(name: str, values: list[Any], spec: Spec) -> None:
    """Check that a list holds at least one alternative, and none twice; objects are compared by their labels."""
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
