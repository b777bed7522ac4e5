"""Scores of runs as they were after so many env steps, so that trainings with different budgets can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from purejaxrl.analysis.statistics import Scores
from purejaxrl.analysis.summary import RunSummary
from purejaxrl.errors import InputError, reason
from purejaxrl.experiment.run_config import RecordedBudget
from purejaxrl.training.metrics import WINDOW


def find_extents(summary: RunSummary, budgets: Sequence[RecordedBudget | None]) -> np.ndarray:
    """Find the env steps up to which the runs of each setting are known.

    These are the env steps of the budget. With a budget of episodes they are those of the longest run, because such a
    run no longer changes. Where the training was interrupted they are those of the shortest.

    Args:
        summary: Content of summary.json.
        budgets: The budget of each setting, None where config.json does not say.

    Returns:
        Env steps [settings], infinity where no run has begun.
    """
    extents = []
    for budget, env_steps, scores in zip(
        budgets, np.split(summary.env_steps, len(budgets)), summary.scores_by_setting(), strict=True
    ):
        is_solved = np.isfinite(scores.env_steps_to_solve)
        has_used_budget = (env_steps > 0) & ~(summary.stop_when_solved & is_solved)
        reached = env_steps[has_used_budget] if has_used_budget.any() else env_steps[env_steps > 0]
        # A budget is rounded up to whole iterations, and runs that were solved may have ended before it.
        amount = budget.amount if budget is not None and budget.kind == "env_steps" else np.inf
        if not len(reached):
            extents.append(np.inf)
        elif not has_used_budget.any() and np.isfinite(amount):
            extents.append(float(amount))
        else:
            extents.append(float(min(amount, reached.min() if summary.is_incomplete else reached.max())))
    return np.array(extents)


def find_horizon(summaries: Sequence[RunSummary], budgets: Sequence[Sequence[RecordedBudget | None]]) -> int | None:
    """Find the largest number of env steps at which all settings of several run folders are known.

    Args:
        summaries: Content of each folder's summary.json.
        budgets: The budget of each of its settings.

    Returns:
        The env steps; None where all settings had the same budget, and used it up.
    """
    distinct = {budget for of_folder in budgets for budget in of_folder}
    if len(distinct) == 1 and None not in distinct and not any(summary.is_incomplete for summary in summaries):
        return None
    extents = np.concatenate([find_extents(*both) for both in zip(summaries, budgets, strict=True)])
    known = extents[np.isfinite(extents)]
    return int(known.min()) if len(np.unique(known)) > 1 else None


def scores_at(path: Path, summary: RunSummary, budgets: Sequence[RecordedBudget | None], horizon: int) -> Scores:
    """Compute the scores that all runs of a folder had after so many env steps.

    The final return is the mean of the last 100 episodes that had ended by then (of the last row of metrics.csv where
    there is no episodes.csv), the area that under the curve up to there. A run that had ended before has the scores it
    ended with; one that was stopped because it was solved counts as staying at the threshold.

    Args:
        path: The run folder.
        summary: Content of its summary.json.
        budgets: The budget of each of its settings.
        horizon: The env steps.

    Returns:
        The scores of all runs.

    Raises:
        InputError: If a file that is needed is missing or damaged.
    """
    final, area, to_solve, is_ok = (values.copy() for values in summary.scores)
    is_longer = summary.env_steps > horizon
    is_in_steps = np.repeat([budget is None or budget.kind != "episodes" for budget in budgets], summary.seeds)
    is_stopped = summary.stop_when_solved & np.isfinite(to_solve) & is_in_steps & (summary.env_steps > 0)
    runs = np.flatnonzero(is_longer | is_stopped)
    if len(runs):
        metrics = _read(path / "metrics.csv", ["run", "env_steps", "episodes", "return_mean", "return_100"])
        if metrics is None:
            raise InputError(
                f"compare: {path} holds no metrics.csv, from which returns at {horizon:,} env steps are read; give "
                "folders of one budget"
            )
        by_run = dict(iter(metrics.groupby("run")))
        ended = _read(path / "episodes.csv", ["run", "env_steps", "return"]) if is_longer.any() else None
        returns = None if ended is None else dict(iter(ended[ended["env_steps"] <= horizon].groupby("run")["return"]))
        for run in runs.tolist():
            rows = by_run.get(run, metrics[:0])
            area[run] = _area(rows, horizon)
            if is_stopped[run] and summary.env_steps[run] < horizon:
                stayed = horizon - summary.env_steps[run]
                area[run] += (float(summary.solved_at or 0.0) - area[run]) * stayed / horizon
            if is_longer[run]:
                own = rows.loc[rows["env_steps"] <= horizon, "return_100"][-1:]
                window = own if returns is None else returns.get(run, own[:0])[-WINDOW:]
                is_full = len(window) == (1 if returns is None else WINDOW)
                final[run] = window.to_numpy().mean() if is_full else np.nan
    return Scores(final, area, np.where(to_solve > horizon, np.inf, to_solve), is_ok)


def _area(rows: pd.DataFrame, horizon: int) -> float:
    """The area under the curve of one run up to the horizon, divided by its env steps.

    As in `purejaxrl.training.metrics.RunStats`, an interval in which no episode ended has the value of the one before.
    """
    episodes = rows["episodes"].to_numpy(float)
    env_steps = np.minimum(rows["env_steps"].to_numpy(float), horizon)
    steps = np.diff(env_steps, prepend=0.0)
    has_ended = np.diff(episodes, prepend=0.0) > 0
    last = np.maximum.accumulate(np.where(has_ended, np.arange(len(rows)), 0))
    values = rows["return_mean"].to_numpy(float)[last]
    counted = (episodes > 0) & (steps > 0)
    return float(np.sum(values[counted] * steps[counted]) / steps[counted].sum()) if counted.any() else np.nan


def _read(file: Path, columns: list[str]) -> pd.DataFrame | None:
    """Rows in order of run and env steps, None where there is no file."""
    try:
        rows = pd.read_csv(file, usecols=columns, dtype=np.float64).dropna(subset=["run", "env_steps"])
        return rows.sort_values(["run", "env_steps"], kind="stable")
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"compare: cannot read {file}: {reason(error)}") from error
