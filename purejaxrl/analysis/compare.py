"""Comparison of run folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from purejaxrl.analysis.statistics import MAX_PAIRED_SETTINGS, Scores, describe, improvements, table
from purejaxrl.analysis.summary import RunSummary, parse_summary
from purejaxrl.errors import InputError, ResourceError, in_one_line, reason, warn
from purejaxrl.experiment.labels import label_of
from purejaxrl.storage.files import absolute_path, home_path, replacing, write_figure, writing
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
    """

    frame: pd.DataFrame
    labels: list[str]
    scores: list[Scores]
    env: str
    solved_at: float | None
    stop_when_solved: bool

    @property
    def setting_of_run(self) -> np.ndarray:
        """The setting of each run of `read_metrics`, [runs]."""
        return np.repeat(np.arange(len(self.scores)), [len(scores.is_ok) for scores in self.scores])


def compare(paths: Sequence[str | Path]) -> Comparison:
    """Compare the settings of two or more run folders.

    Args:
        paths: The run folders.

    Returns:
        The comparison. Labels are the folder's name (where names repeat, its path) and the swept values.

    Raises:
        InputError: If there are fewer than two folders, one is given twice, they differ in environment or threshold, or
            the summary.json of one cannot be used.
    """
    if len(paths) < 2:
        raise InputError(f"compare: {len(paths)} folders given; give two or more")
    summaries = [read_summary(path) for path in paths]
    resolved = [absolute_path(path).resolve() for path in paths]
    for number in range(1, len(resolved)):
        if resolved[number] in resolved[:number]:
            raise InputError(f"compare: {paths[number]} is given twice; give each folder once")
    first = summaries[0]
    for path, summary in zip(paths, summaries, strict=True):
        for what, one, other in (
            ("environment", first.env, summary.env),
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
    scores = [scores for summary in summaries for scores in summary.scores_by_setting()]
    # Env steps to solve are what runs that were stopped and runs that were not have in common.
    stop_when_solved = any(summary.stop_when_solved for summary in summaries)
    frame = describe(scores, first.solved_at is not None, stop_when_solved)
    return Comparison(frame, labels, scores, first.env, first.solved_at, stop_when_solved)


def format_comparison(comparison: Comparison, width: int | None = None) -> str:
    """Format a comparison for a terminal.

    Args:
        comparison: The comparison.
        width: As for `purejaxrl.analysis.statistics.table`.

    Returns:
        A table of the settings, best first; where they are few, followed by the probability of improvement of each
        pair.
    """
    lines = [table(comparison.frame, comparison.labels, width)]
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
        _write_figure(comparison, metrics, f"{comparison.env}: {len(paths)} folders", out / files[2])
    except ResourceError:
        raise
    except Exception as error:
        warn(f"cannot plot {out / files[2]}: {in_one_line(error)}")


def _write_figure(comparison: Comparison, metrics: pd.DataFrame, title: str, path: Path) -> None:
    # Imported here, as a comparison that is only printed needs no figure.
    from purejaxrl.analysis import plots

    settings = (comparison.labels, comparison.setting_of_run)
    with plots.default_style():
        figure = plots.sweep(metrics, comparison.frame, *settings, title, comparison.solved_at)
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
