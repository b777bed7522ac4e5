"""The content of summary.json, checked, as anyone may have edited the file."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from purejaxrl.analysis.statistics import Scores
from purejaxrl.errors import InputError


class RunSummary(NamedTuple):
    """What statistics need of a summary.json. Settings have equally many runs, in order.

    Attributes:
        env: Name of the environment.
        solved_at: Mean return of 100 episodes that counts as solved, None where there is no threshold.
        stop_when_solved: Whether each run ended once it was solved.
        settings: Swept values of each setting by name; {} for the one setting of `train`.
        scores: Scores of all runs.
        env_steps: Env steps of each run, [runs].
        is_incomplete: Whether the training was stopped before its end.
        observation_type: `default` or `img`, None where it is not known.
        preset: Name of the preset, None where it is not known.
    """

    env: str
    solved_at: float | None
    stop_when_solved: bool
    settings: list[dict[str, Any]]
    scores: Scores
    env_steps: np.ndarray
    is_incomplete: bool
    observation_type: str | None
    preset: str | None

    @property
    def seeds(self) -> int:
        """Number of runs of each setting."""
        return len(self.env_steps) // len(self.settings)

    def scores_by_setting(self) -> list[Scores]:
        """Split the scores, one Scores for each setting in order."""
        parts = zip(*(np.split(values, len(self.settings)) for values in self.scores), strict=True)
        return [Scores(*values) for values in parts]


def parse_summary(content: dict[str, Any]) -> RunSummary:
    """Check and parse the content of a summary.json.

    Args:
        content: The JSON object.

    Returns:
        The parsed summary.

    Raises:
        InputError: If a field is missing or has a wrong type, length or range.
    """
    seeds = _whole(content, "seeds")
    settings = _list(content, "settings")
    if not settings or not all(isinstance(values, dict) for values in settings):
        raise InputError("settings is not a list of swept values")
    env = _field(content, "env")
    if not isinstance(env, str):
        raise InputError("env is not a name")
    stop_when_solved = _field(content, "stop_when_solved")
    if not isinstance(stop_when_solved, bool):
        raise InputError("stop_when_solved is neither true nor false")
    solved_at = None if _field(content, "solved_at") is None else _number(content["solved_at"], "solved_at")
    runs = seeds * len(settings)
    return RunSummary(
        env,
        solved_at,
        stop_when_solved,
        settings,
        _scores(content, runs),
        _env_steps(content, runs),
        content.get("stopped_by") is not None or content.get("fraction_done", 1) != 1,
        _name(content, "observation_type"),
        _name(content, "preset"),
    )


def interruption_of(content: dict[str, Any]) -> str:
    """Describe where a signal stopped a training.

    Args:
        content: Content of summary.json, {} before the training has ended.

    Returns:
        The description, as `interrupted at 50%`; without the share where an earlier version wrote the file, and empty
        where no signal stopped the training.
    """
    if content.get("stopped_by") is None:
        return ""
    try:
        share = _number(_field(content, "fraction_done"), "fraction_done")
    except InputError:
        return "interrupted"
    # Rounded as the display of progress does, but what was interrupted had not come to its end.
    return f"interrupted at {min(share, 0.99):.0%}"


def _scores(content: dict[str, Any], runs: int) -> Scores:
    failed = _list(content, "failed_runs")
    if not all(type(run) is int and 0 <= run < runs for run in failed):
        raise InputError(f"failed_runs is not a list of runs below {runs}")
    final_return = _numbers(content, "final_return_per_run", runs, missing=np.nan)
    area = _numbers(content, "area_under_curve_per_run", runs, missing=np.nan)
    to_solve = _numbers(content, "env_steps_to_solve_per_run", runs, missing=np.inf)
    # A run that an interrupt kept from beginning is neither ok nor unsolved.
    has_begun = _env_steps(content, runs) > 0
    is_ok = ~np.isin(np.arange(runs), failed) & has_begun
    return Scores(final_return, area, np.where(has_begun, to_solve, np.nan), is_ok)


def _env_steps(content: dict[str, Any], runs: int) -> np.ndarray:
    return _numbers(content, "env_steps_per_run", runs, missing=0.0)


def _name(content: dict[str, Any], name: str) -> str | None:
    """A name that says what was trained, None where there is none."""
    value = content.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} is not a name")
    return value


def _field(content: dict[str, Any], name: str) -> Any:
    if name not in content:
        raise InputError(f"lacks {name}")
    return content[name]


def _list(content: dict[str, Any], name: str) -> list[Any]:
    values = _field(content, name)
    if not isinstance(values, list):
        raise InputError(f"{name} is not a list")
    return values


def _whole(content: dict[str, Any], name: str) -> int:
    value = _field(content, name)
    if type(value) is not int or value < 1:
        raise InputError(f"{name} is not a whole number of at least 1")
    return value


def _numbers(content: dict[str, Any], name: str, count: int, missing: float) -> np.ndarray:
    """A list of as many numbers, null as `missing`."""
    values = _list(content, name)
    if len(values) != count:
        raise InputError(f"{name} has {len(values)} entries for {count} runs")
    return np.array([missing if value is None else _number(value, name) for value in values])


def _number(value: Any, name: str) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    except OverflowError:
        pass
    raise InputError(f"{name} holds {str(value)[:20]!r}, which is not a number")
