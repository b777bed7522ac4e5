"""What a run folder gets after training: tables of statistics, and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from purejaxrl.analysis import plots, statistics
from purejaxrl.analysis.summary import parse_summary
from purejaxrl.analysis.tuning import plot_tuning
from purejaxrl.errors import InputError, in_one_line, reason, warn
from purejaxrl.experiment.labels import column_name, columns_of
from purejaxrl.experiment.run_config import Recorded, recorded_of
from purejaxrl.storage.csv_files import read_numbers
from purejaxrl.storage.files import write_figure
from purejaxrl.storage.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("run", "env_steps", "episodes", "return_100", "return_mean", "eval_return")
HISTOGRAM = "_histogram"


def write_statistics(folder: RunFolder, config: dict[str, Any], summary: dict[str, Any]) -> None:
    """Write sweep.csv, a row per setting, best first, and improvement.csv, a row per pair unless there are too many.

    Args:
        folder: The run folder, locked. Nothing is written to that of a training of one setting.
        config: Content of config.json.
        summary: Content of summary.json.

    Raises:
        InputError: If the content is damaged.
        ResourceError: If the files cannot be written.
    """
    run_config = recorded_of(config)
    if not run_config.is_sweep:
        return
    parsed = parse_summary(summary)
    scores = parsed.scores_by_setting()
    frame = statistics.describe(scores, parsed.solved_at is not None, parsed.stop_when_solved)
    order = statistics.ranking(frame)
    columns = {name: frame[name].to_numpy()[order] for name in frame}
    own = {"setting", *columns}
    swept = {column_name(name, own): values[order] for name, values in columns_of(run_config.settings).items()}
    folder.write_table("sweep.csv", {"setting": order, **swept, **columns})
    if 1 < len(scores) <= statistics.MAX_PAIRED_SETTINGS:
        pairs = statistics.improvements(scores, parsed.stop_when_solved)
        folder.write_table("improvement.csv", {name: pairs[name].to_numpy() for name in pairs})


def write_results(folder: RunFolder, config: dict[str, Any], summary: dict[str, Any]) -> None:
    """Write the tables and figures of a training that has ended; a figure that fails is only a warning.

    Args:
        folder: The run folder, locked.
        config: Content of config.json.
        summary: Content of summary.json.

    Raises:
        InputError: If the content is damaged.
        ResourceError: If the tables cannot be written.
    """
    write_statistics(folder, config, summary)
    try:
        write_figures(folder, recorded_of(config), summary)
    except Exception as error:
        warn(
            f"the figures could not be plotted, but everything else has been written: {in_one_line(error)}; "
            f"purejaxrl plot {folder.path} plots them again"
        )


def write_figures(folder: RunFolder, config: Recorded, summary: dict[str, Any]) -> list[Path]:
    """Write sweep.png or learning_curve.png, NAME_histogram.png for every histogram in summary.json, and tune.png.

    The user's matplotlib settings have no effect on them.

    Args:
        folder: The run folder, locked.
        config: What was trained.
        summary: Content of summary.json.

    Returns:
        The paths of the figures, none where there is no metrics.csv.

    Raises:
        InputError: If a file is damaged.
        ResourceError: If a figure cannot be written.
    """
    if not (folder.path / "metrics.csv").exists():
        return []
    file = folder.path / "metrics.csv"
    try:
        metrics = read_numbers(file, COLUMNS)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {reason(error)}") from error
    if not np.isin(metrics["run"], np.arange(config.runs)).all():
        raise InputError(f"cannot use {file}: it holds runs that config.json does not")
    with plots.default_style():
        if config.is_sweep:
            statistics = read_statistics(folder.path)
            setting_of_run = config.setting_of(np.arange(config.runs))
            arguments = (metrics, statistics, config.labels, setting_of_run, config.title, config.solved_at)
            figures = {"sweep.png": plots.sweep(*arguments)}
        else:
            figures = {"learning_curve.png": plots.learning_curve(metrics, config.title, config.solved_at)}
        for name in (name for name in summary if name.endswith(HISTOGRAM)):
            counts, width = _parse_histogram(summary[name])
            figures[f"{name}.png"] = plots.histogram(counts, width, config.title, name.removesuffix(HISTOGRAM))
        if (folder.path / "tune.csv").exists():
            figures["tune.png"] = plot_tuning(folder.path)
        for name, figure in figures.items():
            folder.write_figure(name, figure)
    return [folder.path / name for name in figures]


def write_curves(path: Path, plotters: Sequence[Callable[[Axes], Any]], title: str | None = None) -> None:
    """Write a figure of several plots on the same axes.

    Args:
        path: File to write, in any format that matplotlib knows.
        plotters: Functions that plot on the axes they are given, such as `Result.plot`.
        title: Title of the figure; by default the plotters'.

    Raises:
        InputError: If matplotlib cannot write a file of that name.
        ResourceError: If the file cannot be written.
    """
    check_figure_path(path)
    with plots.default_style():
        figure, axes = plots.new_figure()
        axes.set_title(title or "")
        for plotter in plotters:
            plotter(axes)
        plots.make_room_for_legend(figure)
        write_figure(path, figure)


def check_figure_path(path: Path) -> None:
    """Check that matplotlib can write a figure to a file of this name.

    Args:
        path: The file.

    Raises:
        InputError: If the name ends in no known format, or the path is a folder.
    """
    known = [f".{kind}" for kind in sorted(Figure().canvas.get_supported_filetypes())]
    if path.suffix.lower() not in known:
        raise InputError(f"--out: {path} is not allowed; the name of a figure ends in one of {', '.join(known)}")
    if path.is_dir():
        raise InputError(f"--out: {path} is a folder; give a file")


def read_statistics(path: Path) -> pd.DataFrame:
    """Read sweep.csv.

    Args:
        path: The run folder.

    Returns:
        A row per setting, in the order of the settings.

    Raises:
        InputError: If there is no sweep.csv, or it cannot be read.
    """
    import pandas as pd

    file = path / "sweep.csv"
    try:
        return pd.read_csv(file).sort_values("setting", ignore_index=True)
    except FileNotFoundError:
        raise InputError(f"{path} holds no {file.name}: the training has not ended") from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {reason(error)}") from error


def _parse_histogram(histogram: Any) -> tuple[dict[int, int], int]:
    """Counts by the first number of each bin, and the width of the bins."""
    try:
        counts = {int(value): int(count) for value, count in histogram["counts"].items()}
        return counts, int(histogram["bin_width"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"summary.json: it holds no histogram: {error}") from error
