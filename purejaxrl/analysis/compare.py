"""Comparison of run folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from purejaxrl.analysis.horizon import find_extents, find_horizon, scores_at
from purejaxrl.analysis.statistics import MAX_PAIRED_SETTINGS, Scores, describe, improvements, table
from purejaxrl.analysis.summary import RunSummary, parse_summary
from purejaxrl.errors import InputError, ResourceError, in_one_line, reason, warn
from purejaxrl.experiment.labels import label_of
from purejaxrl.experiment.run_config import Recorded, RecordedBudget, recorded_of
from purejaxrl.storage.files import absolute_path, home_path, read_json, replacing, write_figure, writing
from purejaxrl.storage.run_folder import is_system_file

# Pairs are printed of at most so many settings.
MAX_PRINTED_SETTINGS = 6
METRICS = ("run", "env_steps", "episodes", "return_100", "return_mean")


class Comparison(NamedTuple):
    """Settings of several run folders, in the order of the folders.

    Attributes:
        frame: Statistics as `purejaxrl.analysis.statistics.describe` returns them, a row per setting.
        labels: A label for each setting.
        scores: Scores of the runs of each setting.
        env: Name of the environment.
        solved_at: Mean return of 100 episodes that counts as solved, None where there is no threshold.
        stop_when_solved: Whether runs of any folder ended once they were solved.
        horizon: Env steps at which the runs are compared where budgets differ, None where whole trainings are.
        notes: Sentences that say what else than the settings differs.
    """

    frame: pd.DataFrame
    labels: list[str]
    scores: list[Scores]
    env: str
    solved_at: float | None
    stop_when_solved: bool
    horizon: int | None
    notes: list[str]

    @property
    def setting_of_run(self) -> np.ndarray:
        """The setting of each run of `read_metrics`, [runs]."""
        return np.repeat(np.arange(len(self.scores)), [len(scores.is_ok) for scores in self.scores])


def compare(paths: Sequence[str | Path]) -> Comparison:
    """Compare the settings of two or more run folders.

    Where their budgets differ all runs are compared at the largest number of env steps that every folder has; `horizon`
    and the column of that name say so.

    Args:
        paths: The run folders.

    Returns:
        The comparison. Labels are the folder's name (where names repeat, its path) and the swept values.

    Raises:
        InputError: If there are fewer than two folders, one is given twice, they differ in environment, observation
            type or threshold, or the files of one cannot be used.
    """
    if len(paths) < 2:
        raise InputError(f"compare: {len(paths)} folders given; give two or more")
    summaries = [read_summary(path) for path in paths]
    resolved = [absolute_path(path).resolve() for path in paths]
    for number in range(1, len(resolved)):
        if resolved[number] in resolved[:number]:
            raise InputError(f"compare: {paths[number]} is given twice; give each folder once")
    configs = [_read_config(path, summary) for path, summary in zip(paths, summaries, strict=True)]
    first = summaries[0]
    for path, summary, config in zip(paths, summaries, configs, strict=True):
        for what, one, other in (
            ("environment", first.env, summary.env),
            ("env_params", *_both_known(configs[0] and configs[0].env_params, config and config.env_params)),
            ("observation type", *_both_known(first.observation_type, summary.observation_type)),
            ("threshold", first.solved_at, summary.solved_at),
        ):
            if one != other:
                raise InputError(f"compare: {what} {one} in {paths[0]}, {other} in {path}; give folders of one {what}")
    names = [path.name for path in resolved]
    names = [str(path) for path in paths] if len(set(names)) < len(names) else names
    labels = [
        f"{name} {label_of(values)}".rstrip()
        for name, summary in zip(names, summaries, strict=True)
        for values in summary.settings
    ]
    budgets: list[list[RecordedBudget | None]] = [
        config.budgets if config else [None] * len(summary.settings)
        for config, summary in zip(configs, summaries, strict=True)
    ]
    horizon = find_horizon(summaries, budgets)
    notes = _describe_budgets(names, summaries, budgets, horizon)
    notes += describe_differences(
        names,
        {
            "Environment parameters": describe_env_params(configs),
            "Presets": [summary.preset for summary in summaries],
        },
    ).values()
    if horizon is not None:
        summaries = [
            summary._replace(scores=scores_at(home_path(path), summary, of_folder, horizon))
            for path, summary, of_folder in zip(paths, summaries, budgets, strict=True)
        ]
    scores = [scores for summary in summaries for scores in summary.scores_by_setting()]
    # Env steps to solve are what runs that were stopped and runs that were not have in common.
    stop_when_solved = any(summary.stop_when_solved for summary in summaries)
    frame = describe(scores, first.solved_at is not None, stop_when_solved)
    frame = frame if horizon is None else frame.assign(horizon=horizon)
    return Comparison(frame, labels, scores, first.env, first.solved_at, stop_when_solved, horizon, notes)


def _both_known(one: Any, other: Any) -> tuple[Any, Any]:
    """Both, or nothing where one of them is not known."""
    return (None, None) if one is None or other is None else (one, other)


def _describe_budgets(
    names: Sequence[str],
    summaries: Sequence[RunSummary],
    budgets: Sequence[Sequence[RecordedBudget | None]],
    horizon: int | None,
) -> list[str]:
    """Sentences about env steps where folders differ in them."""
    if horizon is not None:
        extents = [find_extents(*both) for both in zip(summaries, budgets, strict=True)]
        longest = [float(extent[np.isfinite(extent)].max(initial=0)) for extent in extents]
        shown = ", ".join(f"{steps:,.0f} in {name}" for name, steps in zip(names, longest, strict=True))
        return [f"Env steps differ ({shown}), so all runs are compared at {horizon:,}."]
    budget = budgets[0][0]
    begun = np.concatenate([summary.env_steps[summary.env_steps > 0] for summary in summaries])
    if budget is None or budget.kind != "episodes" or not len(begun) or begun.min() == begun.max():
        return []
    return [f"Runs had {budget} each, which took {begun.min():,.0f} to {begun.max():,.0f} env steps."]


def describe_differences(names: Sequence[str], values: dict[str, Sequence[Any]]) -> dict[str, str]:
    """Say in what run folders differ.

    Args:
        names: The folders' names.
        values: What each folder has, by what it is, as in {"Presets": ["tuned", "original"]}. None is not known.

    Returns:
        A sentence for everything that differs, by what it is.
    """
    sentences = {}
    for what, of_folders in values.items():
        by_value: dict[str, list[str]] = {}
        for name, value in zip(names, of_folders, strict=True):
            if value is not None:
                by_value.setdefault(str(value), []).append(name)
        if len(by_value) > 1:
            shown = "; ".join(f"{value} in {', '.join(those)}" for value, those in by_value.items())
            sentences[what] = f"{what} differ: {shown}."
    return sentences


def describe_env_params(configs: Sequence[Recorded | None]) -> list[str | None]:
    """Describe the parameters of the environments of several run folders.

    Args:
        configs: What was trained in each, None where it is not known.

    Returns:
        A text for each, None where it is not known.
    """
    return [None if config is None else _describe_params(config.env_params) for config in configs]


def _describe_params(params: dict[str, Any] | str | None) -> str:
    """Describe the parameters of one environment."""
    return "the defaults" if params is None else params if isinstance(params, str) else label_of(params)


def format_comparison(comparison: Comparison, width: int | None = None) -> str:
    """Format a comparison for a terminal.

    Args:
        comparison: The comparison.
        width: As for `purejaxrl.analysis.statistics.table`.

    Returns:
        A table of the settings, best first, and what else differs; where settings are few, followed by the probability
        of improvement of each pair.
    """
    lines = [table(comparison.frame, comparison.labels, width), *comparison.notes]
    if 1 < len(comparison.scores) <= MAX_PRINTED_SETTINGS:
        lines.append("probability that a run of the first is better than one of the second:")
        for setting, other, *figures in improvements(comparison.scores, comparison.stop_when_solved).itertuples(
            index=False
        ):
            probability, low, high = ("-" if np.isnan(figure) else f"{figure:.2f}" for figure in figures)
            pair = f"{comparison.labels[int(setting)]} > {comparison.labels[int(other)]}"
            lines.append(f"  {probability} [{low}, {high}]  {pair}")
    return "\n".join(lines)


def write_comparison(comparison: Comparison, paths: Sequence[str | Path], out: str | Path) -> None:
    """Write compare.csv, improvement.csv (unless there are many settings) and compare.png to a folder.

    The figure comes last, and if it cannot be plotted that is only a warning.

    Args:
        comparison: The comparison.
        paths: The run folders that it is of.
        out: A folder that is empty or does not exist.

    Raises:
        InputError: If the folder holds anything, or a metrics.csv cannot be read.
        ResourceError: If a file cannot be written.
    """
    out = home_path(out)
    files = ("compare.csv", "improvement.csv", "compare.png")
    with writing(out):
        if out.exists() and (not out.is_dir() or not all(is_system_file(entry.name) for entry in out.iterdir())):
            raise InputError(f"--out: {out} exists; give another folder")
    # What may be refused comes before anything is written.
    metrics = read_metrics(paths)
    with replacing(out / files[0]) as partial:
        comparison.frame.assign(setting=comparison.labels).to_csv(partial, index=False)
    if len(comparison.scores) <= MAX_PAIRED_SETTINGS:
        with replacing(out / files[1]) as partial:
            improvements(comparison.scores, comparison.stop_when_solved).to_csv(partial, index=False)
    try:
        title = f"{comparison.env}: {len(paths)} folders"
        if comparison.horizon is not None:
            metrics = metrics[metrics["env_steps"] <= comparison.horizon]
            title += f" at {comparison.horizon:,} env steps"
        _write_figure(comparison, metrics, title, out / files[2])
    except ResourceError:
        raise
    except Exception as error:
        warn(f"cannot plot {out / files[2]}: {in_one_line(error)}")


def _write_figure(comparison: Comparison, metrics: pd.DataFrame, title: str, path: Path) -> None:
    # Imported here, as a comparison that is only printed needs no figure.
    from purejaxrl.analysis import plots

    settings = (comparison.labels, comparison.setting_of_run)
    columns = {name: metrics[name].to_numpy() for name in metrics}
    with plots.default_style():
        figure = plots.sweep(columns, comparison.frame, *settings, title, comparison.solved_at)
        write_figure(path, figure, metadata={"Software": None})


def read_metrics(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Read metrics.csv of several run folders.

    Args:
        paths: The run folders. One without metrics.csv, or with an empty one, adds no rows.

    Returns:
        The rows of all folders, with the columns METRICS. Runs are numbered consecutively over the folders.

    Raises:
        InputError: If a metrics.csv or summary.json cannot be read.
    """
    frames, runs = [], 0
    for path in paths:
        in_folder = len(read_summary(path).scores.is_ok)
        file = home_path(path) / "metrics.csv"
        try:
            metrics = pd.read_csv(file, usecols=METRICS, dtype=np.float64).dropna(subset=["run", "env_steps"])
            if not metrics["run"].isin(range(in_folder)).all():
                raise ValueError(f"a run that is not among the {in_folder} of summary.json")
        except (FileNotFoundError, pd.errors.EmptyDataError):
            pass
        except (OSError, ValueError) as error:
            raise InputError(f"compare: cannot read {file}: {reason(error)}") from error
        else:
            frames.append(metrics.assign(run=metrics["run"].astype(np.int64) + runs))
        runs += in_folder
    nothing = pd.DataFrame({name: np.empty(0, np.int64 if name == "run" else np.float64) for name in METRICS})
    return pd.concat(frames, ignore_index=True) if frames else nothing


def _read_config(path: str | Path, summary: RunSummary) -> Recorded | None:
    """What config.json of a run folder says was trained, None where there is none."""
    file = home_path(path) / "config.json"
    if not file.exists():
        return None
    try:
        config = recorded_of(read_json(file))
    except InputError as error:
        raise InputError(f"compare: {file.parent}: {error}") from error
    if config.runs != summary.seeds * len(summary.settings) or len(config.settings) != len(summary.settings):
        raise InputError(
            f"compare: {file.parent}: config.json has {len(config.settings)} settings and {config.seeds} seeds, "
            f"summary.json {len(summary.settings)} and {summary.seeds}"
        )
    return config


def read_summary(path: str | Path) -> RunSummary:
    """Read summary.json of a run folder.

    Args:
        path: The run folder.

    Returns:
        The parsed summary.

    Raises:
        InputError: If the file is missing, cannot be read, or lacks something.
    """
    path = home_path(path)
    file = path / "summary.json"
    try:
        if not path.exists():
            raise InputError(f"compare: {path} does not exist; give the folder of a run")
        if not path.is_dir():
            raise InputError(f"compare: {path} is a file; give the folder of a run")
        if not file.exists():
            raise InputError(f"compare: {path} holds no summary.json; give the folder of a run that has ended")
        content = json.loads(file.read_text())
    except OSError as error:
        raise InputError(f"compare: cannot read {file}: {error.strerror or error}") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"compare: {file} is not valid JSON: {reason(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"compare: {file} holds a {type(content).__name__}; it should hold a JSON object")
    try:
        return parse_summary(content)
    except InputError as error:
        raise InputError(f"compare: {file}: {error}") from error
