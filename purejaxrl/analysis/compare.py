"""Run folders beside one another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from purejaxrl.analysis.statistics import MAX_PAIRS_OF, Scores, describe, improvements, table
from purejaxrl.analysis.summary import facts_of
from purejaxrl.errors import InputError, ResourceError, in_one_line, warn
from purejaxrl.experiment.labels import label_of
from purejaxrl.storage.files import absolute_path, home_path, replacing, write_figure, writing
from purejaxrl.storage.run_folder import is_system_file

# Settings of which all pairs are printed.
PAIRS_SHOWN_OF = 6
METRICS = ("run", "env_steps", "return_100", "return_mean")


class Folder(NamedTuple):
    """What summary.json of a run folder says: a label and the Scores of each setting, in order."""

    env: str
    solved_at: float | None
    stop_when_solved: bool
    labels: list[str]
    scores: list[Scores]


class Comparison(NamedTuple):
    """Settings of several run folders, in the order of the folders: a row of the frame, a label, Scores for each."""

    frame: pd.DataFrame
    labels: list[str]
    scores: list[Scores]
    env: str
    solved_at: float | None
    stop_when_solved: bool

    @property
    def setting_of_run(self) -> np.ndarray:
        """The setting of each run of `metrics_of`, [runs]."""
        return np.repeat(np.arange(len(self.scores)), [len(scores.is_ok) for scores in self.scores])


def compare(paths: Sequence[str | Path]) -> Comparison:
    """Statistics of the settings of two or more run folders.

    A label is the folder's name, its path as given where names repeat, and the swept values. Raises InputError where
    there are fewer than two folders, one is given twice or is none, see `read`, or they differ in environment or
    threshold.
    """
    if len(paths) < 2:
        raise InputError(f"compare: {len(paths)} folders given; give two or more")
    folders = [read(path) for path in paths]
    resolved = [absolute_path(path).resolve() for path in paths]
    for number in range(1, len(resolved)):
        if resolved[number] in resolved[:number]:
            raise InputError(f"compare: {paths[number]} is given twice; give each folder once")
    first = folders[0]
    for path, folder in zip(paths, folders, strict=True):
        for what, one, other in (
            ("environment", first.env, folder.env),
            ("threshold", first.solved_at, folder.solved_at),
        ):
            if one != other:
                raise InputError(f"compare: {what} {one} in {paths[0]}, {other} in {path}; give folders of one {what}")
    if len({place.name for place in resolved}) < len(resolved):
        folders = [read(path, str(path)) for path in paths]
    labels = [label for folder in folders for label in folder.labels]
    scores = [scores for folder in folders for scores in folder.scores]
    # Env steps to solve are what runs that were stopped and runs that were not have in common.
    stop_when_solved = any(folder.stop_when_solved for folder in folders)
    frame = describe(scores, first.solved_at is not None, stop_when_solved)
    return Comparison(frame, labels, scores, first.env, first.solved_at, stop_when_solved)


def in_words(comparison: Comparison) -> str:
    """A table for a terminal: the settings, best first, and the probability of improvement of each pair, if few."""
    lines = [table(comparison.frame, comparison.labels)]
    if 1 < len(comparison.scores) <= PAIRS_SHOWN_OF:
        lines.append("probability that a run of the first is better than one of the second:")
        for setting, other, *figures in improvements(comparison.scores, comparison.stop_when_solved).itertuples(
            index=False
        ):
            probability, low, high = ("-" if np.isnan(figure) else f"{figure:.2f}" for figure in figures)
            pair = f"{comparison.labels[int(setting)]} > {comparison.labels[int(other)]}"
            lines.append(f"  {probability} [{low}, {high}]  {pair}")
    return "\n".join(lines)


def write(comparison: Comparison, paths: Sequence[str | Path], out: str | Path) -> None:
    """Write compare.csv, where settings are few improvement.csv, and compare.png to a folder.

    The plot comes last, and where it cannot be drawn there is a warning. Raises InputError where the folder holds
    anything, and ResourceError naming the file that cannot be written.
    """
    out = home_path(out)
    files = ("compare.csv", "improvement.csv", "compare.png")
    with writing(out):
        if out.exists() and (not out.is_dir() or not all(is_system_file(entry.name) for entry in out.iterdir())):
            raise InputError(f"--out: {out} exists; give another folder")
    # What may be refused comes before anything is written.
    metrics = metrics_of(paths)
    with replacing(out / files[0]) as partial:
        comparison.frame.assign(setting=comparison.labels).to_csv(partial, index=False)
    if len(comparison.scores) <= MAX_PAIRS_OF:
        with replacing(out / files[1]) as partial:
            improvements(comparison.scores, comparison.stop_when_solved).to_csv(partial, index=False)
    try:
        _draw(comparison, metrics, f"{comparison.env}: {len(paths)} folders", out / files[2])
    except ResourceError:
        raise
    except Exception as error:
        warn(f"cannot draw {out / files[2]}: {in_one_line(error)}")


def _draw(comparison: Comparison, metrics: pd.DataFrame, title: str, path: Path) -> None:
    # Imported here, as a comparison that is only printed draws nothing.
    from purejaxrl.analysis import plots

    settings = (comparison.labels, comparison.setting_of_run)
    with plots.default_style():
        figure = plots.sweep(metrics, comparison.frame, *settings, title, comparison.solved_at)
        write_figure(path, figure, metadata={"Software": None})


def read(path: str | Path, name: str | None = None) -> Folder:
    """The results of a run folder, from its summary.json; labels begin with `name`, by default the folder's.

    Raises InputError where the folder or its summary.json is missing, cannot be read, or lacks something.
    """
    path = home_path(path)
    content = _read_summary(path)
    try:
        facts = facts_of(content)
    except InputError as error:
        raise InputError(f"compare: {path / 'summary.json'}: {error}") from error
    name = path.resolve().name if name is None else name
    labels = [f"{name} {label_of(values)}".rstrip() for values in facts.settings]
    return Folder(facts.env, facts.solved_at, facts.stop_when_solved, labels, facts.by_setting())


def metrics_of(paths: Sequence[str | Path]) -> pd.DataFrame:
    """metrics.csv of several run folders below one another, the columns that `plots.sweep` needs.

    Runs are numbered through in the order of the folders. A folder without metrics.csv, or with an empty one, adds no
    rows. Raises InputError where one cannot be read.
    """
    frames, runs = [], 0
    for path in paths:
        in_folder = sum(len(scores.is_ok) for scores in read(path).scores)
        file = home_path(path) / "metrics.csv"
        try:
            metrics = pd.read_csv(file, usecols=METRICS, dtype=np.float64).dropna(subset=["run", "env_steps"])
            if not metrics["run"].isin(range(in_folder)).all():
                raise ValueError(f"a run that is not among the {in_folder} of summary.json")
        except (FileNotFoundError, pd.errors.EmptyDataError):
            pass
        except (OSError, ValueError) as error:
            raise InputError(f"compare: cannot read {file}: {_in_one_line(error)}") from error
        else:
            frames.append(metrics.assign(run=metrics["run"].astype(np.int64) + runs))
        runs += in_folder
    nothing = pd.DataFrame({name: np.empty(0, np.int64 if name == "run" else np.float64) for name in METRICS})
    return pd.concat(frames, ignore_index=True) if frames else nothing


def _read_summary(path: Path) -> dict[str, Any]:
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
        raise InputError(f"compare: {file} is not valid JSON: {_in_one_line(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"compare: {file} holds a {type(content).__name__}; it should hold a JSON object")
    return content


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
