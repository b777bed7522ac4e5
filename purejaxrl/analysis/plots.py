"""Figures of runs, by matplotlib's object interface, so that no window and no global state is involved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import rc_context, rcdefaults
from matplotlib.axes import Axes
from matplotlib.cbook import normalize_kwargs
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from purejaxrl.analysis.statistics import ranking
from purejaxrl.experiment.intervals import interquartile_mean
from purejaxrl.experiment.labels import counted, wrap_label

if TYPE_CHECKING:
    import pandas as pd

# Columns of metrics.csv by name, [rows] each.
Metrics = Mapping[str, np.ndarray]

# Inches.
SIZE = (8, 4.8)
POINTS = 400
FAINT_LINES = 100
CURVES = 8
ROWS = 30
LABEL_LENGTH = 40
# Okabe and Ito's colors, which color-blind people can tell apart, with wine for their yellow, too light for a line.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#e69f00", "#56b4e9", "#882255")
COLOR, EVAL_COLOR = COLORS[:2]
OTHER_COLOR = "0.45"
# Named curves that a legend inside the axes has room for.
FEW = 4
RECENT = "recent_return"
THIN = "thin: fewer than 100 episodes so far"


@contextmanager
def default_style() -> Iterator[None]:
    """Use matplotlib's own defaults in this context, whatever the user's settings are."""
    with rc_context():
        rcdefaults()
        yield


def new_figure() -> tuple[Figure, Axes]:
    """Make a figure of one plot, and its axes."""
    figure = Figure(figsize=SIZE, dpi=120, layout="constrained")
    return figure, figure.subplots()


def learning_curve(metrics: Metrics, title: str, solved_at: float | None = None) -> Figure:
    """Plot the mean return of the last 100 episodes of one setting against env steps.

    Up to 100 runs are faint lines, the mean of all runs is a thick one. The band is one standard deviation over all
    runs, clipped to their range. A run that ended earlier continues with its last value. Until every run has had 100
    episodes the mean is thinner; runs with fewer contribute the mean of all their episodes. Where less than half of the
    runs ever have 100 episodes the mean of each interval is plotted instead. Greedy evaluations, if any, are a second
    line.

    Args:
        metrics: Columns of metrics.csv: run, env_steps, episodes, return_100, return_mean, eval_return; [rows] each.
        title: Title of the figure.
        solved_at: Return at which to mark the environment as solved.

    Returns:
        The figure.
    """
    figure, axes = new_figure()
    plot_runs(axes, metrics, title, solved_at)
    return figure


def plot_runs(
    axes: Axes,
    metrics: Metrics,
    title: str,
    solved_at: float | None = None,
    column: str | None = None,
    **style: Any,
) -> None:
    """Plot the curves of one setting, as `learning_curve` does, on axes that may hold others.

    Args:
        axes: Axes to plot on.
        metrics: As for `learning_curve`.
        title: Title of the axes, unless they have one.
        solved_at: Return at which to mark the environment as solved.
        column: Another column of `metrics` to plot.
        **style: Matplotlib properties of the mean line; faint lines and band have its color. With a `label` the greedy
            evaluations are left out, so that one name stands for one curve.
    """
    style = _normalized(style)
    color = style.pop("color", None) or _next_color(axes)
    name = style.pop("label", None)
    name = name and "\n".join(map(_wrapped, str(name).splitlines()))
    training = _training_column(metrics)
    wanted = {training: f"training, {_meaning(metrics)}"} if column is None else {column: column}
    if training == RECENT:
        metrics = add_recent_returns(metrics)
    is_evaluated = "eval_return" in metrics and np.isfinite(metrics["eval_return"]).any()
    if column is None and name is None and is_evaluated:
        wanted["eval_return"] = "greedy evaluation"
    for which, meaning in wanted.items():
        _add_runs(axes, metrics, which, name or meaning, color, **style)
        color = _next_color(axes)
    _finish(axes, title, "return" if column is None else column, solved_at if column is None else None)


def plot_settings(
    axes: Axes,
    metrics: Metrics,
    labels: Sequence[str],
    order: Any,
    setting_of_run: np.ndarray,
    title: str,
    solved_at: float | None = None,
    column: str | None = None,
    **style: Any,
) -> None:
    """Plot the curves of the 8 best settings, as `sweep` does, on axes that may hold others.

    Args:
        axes: Axes to plot on.
        metrics: As for `learning_curve`.
        labels: A label for each setting.
        order: The settings to choose from, best first.
        setting_of_run: The setting of each run number in `metrics`, [runs].
        title: Title of the axes, unless they have one.
        solved_at: Return at which to mark the environment as solved.
        column: Another column of `metrics` to plot.
        **style: Matplotlib properties of the lines; a `label` is put before those of the settings.
    """
    style = _normalized(style)
    name = style.pop("label", None)
    shown = [f"{name} {label}" if name else label for label in labels]
    _add_settings(axes, metrics, np.asarray(order)[:CURVES], setting_of_run, column, shown, **style)
    which = f", {CURVES} best of {len(order)} settings" if len(order) > CURVES else ""
    what = f"return, {_meaning(metrics)}" if column is None else column
    _finish(axes, title + which, what, solved_at if column is None else None)


def _finish(axes: Axes, title: str, ylabel: str, solved_at: float | None) -> None:
    """Add titles, threshold and legend. Axes that have a title keep it, as several Results may share them."""
    _add_threshold(axes, solved_at)
    axes.set(title=axes.get_title() or title, xlabel="env steps", ylabel=ylabel)
    _style_env_steps(axes)
    # What explains lines comes after their names.
    named = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda pair: pair[1] == THIN)
    if not named:
        return
    handles, names = zip(*named, strict=True)
    lines = "\n".join(names).count("\n") + 1
    if _count_named(axes) > FEW or lines > len(names):
        axes.legend(handles, names, loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize="small")
    else:
        axes.legend(handles, names, loc="best", framealpha=0.85, edgecolor="none")


def make_room_for_legend(figure: Figure) -> None:
    """Make a figure of one plot higher where the legend beside it needs that.

    Args:
        figure: The figure.
    """
    legend = figure.axes[0].get_legend()
    names = [text.get_text() for text in legend.get_texts()] if legend else []
    lines = "\n".join(names).count("\n") + 1
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, max(height, 1 + 0.15 * lines + 0.06 * len(names)))


def _normalized(style: dict[str, Any]) -> dict[str, Any]:
    """The style with matplotlib's long names for its short ones: lw, c, ls."""
    return dict(normalize_kwargs(style, Line2D))


def _next_color(axes: Axes) -> str:
    """A color that no named line of the axes has yet, while there are any."""
    return COLORS[_count_named(axes) % len(COLORS)]


def _count_named(axes: Axes) -> int:
    """How many curves of the axes have a name."""
    return sum(label != THIN for label in axes.get_legend_handles_labels()[1])


def histogram(counts: dict[int, int], width: int, title: str, label: str) -> Figure:
    """Plot a histogram of whole numbers, with their mean marked.

    Args:
        counts: Count of each bin by the first number in it.
        width: How many numbers a bin holds.
        title: Title of the figure.
        label: What the numbers are.

    Returns:
        The figure.
    """
    figure, axes = new_figure()
    values = np.array(list(counts)) + (width - 1) / 2
    shares = np.array(list(counts.values())) / sum(counts.values())
    mean = float(values @ shares)
    axes.bar(values, shares, width=0.9 * width, color=COLOR)
    axes.axvline(mean, color=EVAL_COLOR, linewidth=1.5, label=f"mean {mean:.1f}")
    axes.set(title=title, xlabel=label, ylabel="share", xlim=(values.min() - 0.75 * width, values.max() + 0.75 * width))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25, axis="y")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def sweep(
    metrics: Metrics,
    statistics: pd.DataFrame,
    labels: Sequence[str],
    setting_of_run: np.ndarray,
    title: str,
    solved_at: float | None = None,
) -> Figure:
    """Plot settings side by side: learning curves of the 8 best, 95% intervals of the 30 best.

    A curve is the interquartile mean over a setting's runs of the mean return of the last 100 episodes (where less than
    half of all runs have 100 episodes, of each interval), its band the middle half of the runs; a run that ended
    earlier continues with its last value. Before every run of a setting has had 100 episodes its curve is thinner, and
    over all episodes of the runs that have had fewer. Dots are interquartile means, bars their intervals, in the colors
    of the curves, best on top.

    Args:
        metrics: Columns of metrics.csv: run, env_steps, episodes, return_100, return_mean; [rows] each.
        statistics: A row per setting, as `purejaxrl.analysis.statistics.describe` returns them.
        labels: A label for each setting.
        setting_of_run: The setting of each run number in `metrics`, [runs].
        title: Title of the figure.
        solved_at: Return at which to mark the environment as solved.

    Returns:
        The figure.
    """
    order = ranking(statistics)
    rows = min(len(order), ROWS)
    names = [_wrapped(labels[row]) for row in order[:rows]]
    lines = max((name.count("\n") + 1 for name in names), default=1)
    height = 0.24 if lines == 1 else 0.1 + 0.14 * lines
    figure = Figure(figsize=(14, max(4.8, 1.6 + height * rows)), dpi=120, layout="constrained")
    figure.suptitle(title, parse_math=False)
    curves, final, area = figure.subplots(1, 3, width_ratios=(2.2, 1, 1))
    _add_settings(curves, metrics, order[:CURVES], setting_of_run)
    _add_threshold(curves, solved_at)
    which = f", {CURVES} best of {len(order)} settings" if len(order) > CURVES else ""
    curves.set(title=f"learning curves{which}", xlabel="env steps", ylabel=f"return, {_meaning(metrics)}")
    _style_env_steps(curves)
    if curves.get_legend_handles_labels()[0]:
        curves.legend(loc="best", framealpha=0.85, edgecolor="none", fontsize="small")
    best = statistics.iloc[order[:rows]]
    _add_intervals(final, best, "final_return")
    _add_intervals(area, best, "area")
    if solved_at is not None and best["runs_final"].any():
        final.axvline(solved_at, color="0.4", linestyle=":", linewidth=1)
    which = f", {ROWS} best" if len(order) > ROWS else ""
    final.set(title=f"final return{which}", xlabel="IQM, 95% interval")
    area.set(title=f"area under curve{which}", xlabel="IQM, 95% interval")
    final.set_yticks(range(rows), names, parse_math=False, fontsize=10 if lines == 1 else 8)
    area.set_yticks(range(rows), [""] * rows)
    for label, color in zip(final.get_yticklabels(), _colors(rows), strict=True):
        label.set_color(color)
    return figure


def add_recent_returns(metrics: Metrics) -> Metrics:
    """Add the mean return of the last episodes of each run: of 100, and of all while these are fewer.

    Args:
        metrics: Columns of metrics.csv: run, env_steps, episodes, return_100, return_mean; [rows] each.

    Returns:
        The rows by run and env steps, with a column recent_return, which is NaN where no episode has ended.
    """
    rows = _rows(metrics, np.lexsort((metrics["env_steps"], metrics["run"])))
    episodes, starts = rows["episodes"], _starts(rows["run"])
    ended = np.concatenate([np.diff(part, prepend=0) for part in np.split(episodes, starts)])
    returns = np.where(ended > 0, rows["return_mean"] * ended, 0.0)
    # NaN returns propagate.
    total = np.concatenate([np.cumsum(part) for part in np.split(returns, starts)])
    of_all = np.where(episodes > 0, total / np.maximum(episodes, 1), np.nan)
    return {**rows, RECENT: np.where(np.isnan(rows["return_100"]), of_all, rows["return_100"])}


def _rows(metrics: Metrics, which: np.ndarray) -> dict[str, np.ndarray]:
    """Pick rows by their numbers, or by a mask."""
    return {name: values[which] for name, values in metrics.items()}


def _starts(run: np.ndarray) -> np.ndarray:
    """Rows at which another run begins, where rows are in order of runs."""
    return np.flatnonzero(np.diff(run)) + 1


def _wrapped(label: str) -> str:
    """The label of a setting, whole, in lines that a figure has room for."""
    return "\n".join(wrap_label(label, LABEL_LENGTH))


def _training_column(metrics: Metrics) -> str:
    """The mean of up to 100 episodes, where half of the runs or more ever have as many."""
    known = np.unique(metrics["run"][~np.isnan(metrics["return_100"])]).size if "return_100" in metrics else 0
    return RECENT if known and 2 * known >= np.unique(metrics["run"]).size else "return_mean"


def _meaning(metrics: Metrics) -> str:
    return "mean of 100 episodes" if _training_column(metrics) == RECENT else "mean of the interval"


def _add_threshold(axes: Axes, solved_at: float | None) -> None:
    gid = f"solved at {solved_at}"
    if solved_at is None or any(line.get_gid() == gid for line in axes.lines):
        return
    axes.axhline(solved_at, color="0.4", linestyle=":", linewidth=1, gid=gid)
    axes.annotate(
        f"solved: {solved_at:g}",
        (0.01, solved_at),
        xycoords=("axes fraction", "data"),
        fontsize=8,
        color="0.3",
        va="bottom",
    )


def _style_env_steps(axes: Axes) -> None:
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _add_runs(axes: Axes, metrics: Metrics, column: str, label: str, color: str, **style: Any) -> None:
    curves, full_from = _find_curves(metrics, column)
    if not curves:
        return
    for env_steps, values in curves[:: -(-len(curves) // FAINT_LINES)]:
        axes.plot(env_steps, values, color=color, alpha=0.25, linewidth=0.8)
    grid, values = _on_one_grid(curves)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    name = f"{label} ({counted(len(curves), 'run')})"
    _add_line(axes, grid, mean, full_from, **{"linewidth": 2, **style, "color": color, "label": name})
    if len(curves) > 1:
        # Returns have a bound, which the mean and a deviation together may pass.
        low = np.maximum(mean - deviation, values.min(axis=0))
        high = np.minimum(mean + deviation, values.max(axis=0))
        axes.fill_between(grid, low, high, color=color, alpha=0.15, linewidth=0)


def _add_line(axes: Axes, grid: np.ndarray, values: np.ndarray, full_from: float, **style: Any) -> None:
    """A line that is half as wide, and explained, before the env steps from which windows are full."""
    first = int(np.searchsorted(grid, full_from))
    is_ever_full = first < len(grid) - 1
    if first:
        name = None if is_ever_full else style["label"]
        (thin,) = axes.plot(grid[: first + 1], values[: first + 1], **{**style, "label": name})
        thin.set_linewidth(thin.get_linewidth() / 2)
    if is_ever_full:
        axes.plot(grid[first:], values[first:], **style)
    if first and THIN not in axes.get_legend_handles_labels()[1]:
        axes.plot([], [], color=OTHER_COLOR, linewidth=0.9, label=THIN)


def _add_settings(
    axes: Axes,
    metrics: Metrics,
    settings: np.ndarray,
    setting_of_run: np.ndarray,
    column: str | None = None,
    labels: Sequence[str] | None = None,
    **style: Any,
) -> None:
    column = column or _training_column(metrics)
    if column == RECENT:
        metrics = add_recent_returns(metrics)
    taken = _count_named(axes) if labels is not None else 0
    setting_of_row = setting_of_run[metrics["run"].astype(np.int64)]
    if np.isnan(metrics[column]).all():
        _mark_empty(axes, "no returns")
    for rank, setting in enumerate(settings):
        color = style.get("color") or COLORS[(taken + rank) % len(COLORS)]
        name = {"label": None if labels is None else _wrapped(labels[setting])}
        curves, full_from = _find_curves(_rows(metrics, setting_of_row == setting), column)
        if not curves:
            continue
        grid, values = _on_one_grid(curves)
        # The best is plotted last, above the others.
        line = {"linewidth": 1.8, "zorder": 3 - rank / CURVES, **name, **style, "color": color}
        _add_line(axes, grid, interquartile_mean(values, axis=0), full_from, **line)
        if len(curves) > 1:
            low, high = np.quantile(values, (0.25, 0.75), axis=0)
            axes.fill_between(grid, low, high, color=color, alpha=0.12, linewidth=0)


def _add_intervals(axes: Axes, best: pd.DataFrame, measure: str) -> None:
    """Interquartile mean and interval of each row, first row on top."""
    rows = np.arange(len(best))
    mean, low, high = (best[f"{measure}_{part}"].to_numpy(float) for part in ("iqm", "low", "high"))
    colors = np.array(_colors(len(best)))
    has_mean, has_interval = np.isfinite(mean), np.isfinite(low)
    axes.hlines(rows[has_interval], low[has_interval], high[has_interval], colors=colors[has_interval], linewidth=2)
    axes.scatter(mean[has_mean], rows[has_mean], c=colors[has_mean], s=26, zorder=3)
    axes.locator_params(axis="x", nbins=5)
    if not has_mean.any():
        _mark_empty(axes, "not known")
    axes.set_ylim(len(best) - 0.4, -0.6)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _colors(count: int) -> list[str]:
    """A color for each row: the first are those of the curves."""
    return [*COLORS, *[OTHER_COLOR] * count][:count]


def _mark_empty(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.6, text, transform=axes.transAxes, ha="center", color="0.4")
    axes.set_xticks([])


def _find_curves(metrics: Metrics, column: str) -> tuple[list[tuple[np.ndarray, np.ndarray]], float]:
    """Curves of the runs, and for `recent_return` the env steps from which each of them has had 100 episodes.

    Runs that never have as many are left out, unless that is more than half of them.
    """
    if column != RECENT:
        return _curves(metrics, column), -np.inf
    # They are sorted, so the first of a run's rows is its earliest.
    full = _rows(metrics, ~np.isnan(metrics["return_100"]))
    runs, first = np.unique(full["run"], return_index=True)
    if not len(runs) or 2 * len(runs) < np.unique(metrics["run"]).size:
        return _curves(metrics, column), np.inf
    return _curves(_rows(metrics, np.isin(metrics["run"], runs)), column), float(full["env_steps"][first].max())


def _curves(metrics: Metrics, column: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Env steps and values of each run that has any, by run."""
    known = _rows(metrics, ~np.isnan(metrics[column]))
    known = _rows(known, np.lexsort((known["env_steps"], known["run"])))
    if not known["run"].size:
        return []
    starts = _starts(known["run"])
    return list(zip(np.split(known["env_steps"], starts), np.split(known[column], starts), strict=True))


def _on_one_grid(curves: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Env steps [points] from where every run has begun, and the runs' values there [runs, points]."""
    start = max(env_steps[0] for env_steps, _ in curves)
    grid = np.linspace(start, max(env_steps[-1] for env_steps, _ in curves), POINTS)
    return grid, np.stack([np.interp(grid, env_steps, values) for env_steps, values in curves])
