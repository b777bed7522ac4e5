"""What a run folder shows of a training that has ended: tables of statistics, and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purejaxrl.analysis import plots
from purejaxrl.errors import InputError, in_one_line, reason, warn
from purejaxrl.experiment.labels import columns_of
from purejaxrl.experiment.run_config import Recorded, recorded_of
from purejaxrl.storage.files import write_figure
from purejaxrl.storage.run_folder import RunFolder

COLUMNS = ("run", "env_steps", "return_100", "return_mean", "eval_return")
HISTOGRAM = "_histogram"


def write_statistics(folder: RunFolder, config: dict[str, Any], summary: dict[str, Any]) -> None:
    """Write sweep.csv, one row per setting, and improvement.csv, one row per pair of them, if there are not many."""
    recorded = recorded_of(config)
    if not recorded.is_sweep:
        return
    # Imported here, as it needs scipy and a training of one setting does not.
    from purejaxrl.analysis import statistics
    from purejaxrl.analysis.summary import facts_of

    facts = facts_of(summary)
    scores = facts.by_setting()
    frame = statistics.describe(scores, facts.solved_at is not None, facts.stop_when_solved)
    columns = {name: frame[name].to_numpy() for name in frame}
    swept = columns_of(recorded.settings)
    folder.write_table("sweep.csv", {"setting": np.arange(len(scores)), **swept, **columns})
    if 1 < len(scores) <= statistics.MAX_PAIRS_OF:
        pairs = statistics.improvements(scores, facts.stop_when_solved)
        folder.write_table("improvement.csv", {name: pairs[name].to_numpy() for name in pairs})


def try_to_draw(folder: RunFolder, config: dict[str, Any], summary: dict[str, Any]) -> None:
    """Draw what a run folder shows, once everything else has been written: a picture that fails costs nothing else."""
    try:
        write_pictures(folder, recorded_of(config), summary)
    except Exception as error:
        warn(
            f"the pictures could not be drawn, and all else has been written: {in_one_line(error)}; "
            f"purejaxrl plot {folder.path} draws them anew"
        )


def write_pictures(folder: RunFolder, recorded: Recorded, facts: dict[str, Any]) -> list[Path]:
    """Draw sweep.png or learning_curve.png, and NAME_histogram.png of every histogram in summary.json; return them all.

    The user's settings of matplotlib do not matter. facts: what summary.json holds. Without a metrics.csv nothing is
    drawn. Raises InputError where a file is damaged.
    """
    if not (folder.path / "metrics.csv").exists():
        return []
    metrics = read_table(folder.path / "metrics.csv", COLUMNS)
    if not metrics["run"].isin(range(recorded.runs)).all():
        raise InputError(f"cannot use {folder.path / 'metrics.csv'}: it holds runs that config.json does not")
    with plots.default_style():
        if recorded.is_sweep:
            statistics = read_table(folder.path / "sweep.csv")
            of_run = recorded.setting_of(np.arange(recorded.runs))
            arguments = (metrics, statistics, recorded.labels, of_run, recorded.title, recorded.solved_at)
            figures = {"sweep.png": plots.sweep(*arguments)}
        else:
            figures = {"learning_curve.png": plots.learning_curve(metrics, recorded.title, recorded.solved_at)}
        for name in (name for name in facts if name.endswith(HISTOGRAM)):
            counts, width = counts_of(facts[name])
            figures[f"{name}.png"] = plots.histogram(counts, width, recorded.title, name.removesuffix(HISTOGRAM))
        for name, figure in figures.items():
            folder.write_figure(name, figure)
    return [folder.path / name for name in figures]


def read_table(file: Path, columns: tuple[str, ...] | None = None) -> pd.DataFrame:
    """A CSV file of a run folder. Raises InputError where it cannot be read."""
    try:
        return pd.read_csv(file, usecols=columns)
    except FileNotFoundError:
        raise InputError(f"{file.parent} holds no {file.name}: the training has not ended") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {reason(error)}") from error


def counts_of(histogram: Any) -> tuple[dict[int, int], int]:
    """First number of each bin -> count, and the bins' width, of a histogram in summary.json."""
    try:
        counts = {int(value): int(count) for value, count in histogram["counts"].items()}
        return counts, int(histogram["bin_width"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"summary.json: it holds no histogram: {error}") from error


def check_target(path: Path) -> None:
    """Raise InputError unless matplotlib can write a picture of that name."""
    known = [f".{kind}" for kind in sorted(Figure().canvas.get_supported_filetypes())]
    if path.suffix.lower() not in known:
        raise InputError(f"--out: {path} is not allowed; a picture's name ends in one of {', '.join(known)}")
    if path.is_dir():
        raise InputError(f"--out: {path} is a folder; give a file")


def write_curves(path: Path, draws: Sequence[Callable[[Axes], Any]]) -> None:
    """Let all draw on the same axes, and write the picture.

    Raises InputError as `check_target` does, and ResourceError where it cannot be written.
    """
    check_target(path)
    with plots.default_style():
        figure = Figure(figsize=(8, 4.8), dpi=120, layout="constrained")
        axes = figure.subplots()
        for draw in draws:
            draw(axes)
        write_figure(path, figure)
