"""Pictures of a run. matplotlib's object interface, so that no window and no global state is involved."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

POINTS = 400
COLOR = "#1f77b4"
EVAL_COLOR = "#d95f02"


def learning_curve(metrics: pd.DataFrame, title: str, solved_at: float | None = None) -> Figure:
    """Mean return of the last 100 episodes against env steps: a faint line per run, their mean, a band.

    The band is the standard deviation over runs. A run that ended earlier goes on with its last value. Where no run has
    100 episodes the mean of each interval is drawn. Greedy evaluations, if any, are a second line.
    """
    figure = Figure(figsize=(8, 4.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    has_windows = "return_100" in metrics and metrics["return_100"].notna().any()
    column = "return_100" if has_windows else "return_mean"
    label = "training, mean of 100 episodes" if has_windows else "training, mean of the interval"
    _draw_runs(axes, metrics, column, label, COLOR)
    if "eval_return" in metrics and metrics["eval_return"].notna().any():
        _draw_runs(axes, metrics, "eval_return", "greedy evaluation", EVAL_COLOR)
    if solved_at is not None:
        axes.axhline(solved_at, color="0.4", linestyle=":", linewidth=1)
        axes.annotate(
            f"solved: {solved_at:g}",
            (0.01, solved_at),
            xycoords=("axes fraction", "data"),
            fontsize=8,
            color="0.3",
            va="bottom",
        )
    axes.set(title=title, xlabel="env steps", ylabel="return")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M" if value >= 1e6 else f"{value / 1e3:g} k")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", frameon=False)
    return figure


def histogram(counts: dict[int, int], width: int, title: str, label: str) -> Figure:
    """How often whole numbers came, first number of a bin -> count, as a share of all; the mean is marked."""
    figure = Figure(figsize=(8, 4.8), dpi=120, layout="constrained")
    axes = figure.subplots()
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


def _draw_runs(axes, metrics: pd.DataFrame, column: str, label: str, color: str) -> None:  # type: ignore[no-untyped-def]
    known = metrics.loc[metrics[column].notna(), ["run", "env_steps", column]]
    if known.empty:
        return
    curves = [group.sort_values("env_steps") for _, group in known.groupby("run")]
    for curve in curves:
        axes.plot(curve["env_steps"], curve[column], color=color, alpha=0.25, linewidth=0.8)
    start = max(curve["env_steps"].iloc[0] for curve in curves)
    grid = np.linspace(start, known["env_steps"].max(), POINTS)
    values = np.stack([np.interp(grid, curve["env_steps"], curve[column]) for curve in curves])
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    axes.plot(grid, mean, color=color, linewidth=2, label=f"{label} ({len(curves)} runs)")
    if len(curves) > 1:
        axes.fill_between(grid, mean - deviation, mean + deviation, color=color, alpha=0.15, linewidth=0)
