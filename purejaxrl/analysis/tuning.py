"""What a search for hyperparameters has found: how much each of them matters, and a figure of the search.

Both are computed from tune.csv, which holds a row for every setting and rung.
"""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator

from purejaxrl.analysis.plots import COLORS, OTHER_COLOR, default_style
from purejaxrl.analysis.tuned import Confirmation, confirmation_of
from purejaxrl.errors import InputError, reason
from purejaxrl.experiment.labels import counted, show, wrap_label
from purejaxrl.storage.files import home_path, read_json

if TYPE_CHECKING:
    import pandas as pd

# Columns of tune.csv besides the hyperparameters.
OWN = ("setting", "rung", "budget", "seeds", "env_steps", "score", "low", "high", "goes_on")
OBJECTIVES = {
    "final_return": "mean return of the last 100 episodes",
    "area": "mean return per env step",
    "steps_to_solve": "env steps to solve, fewer are better",
}
# Most groups that the values of a hyperparameter are split into.
BINS = 10
# Hyperparameters with bars, and in pairs.
BARS, PAIRED = 12, 4
# Numbers of no more different values are shown side by side, like names.
FEW_VALUES = 6
TICKS, TICK_LENGTH = 12, 14
WINNER_COLOR, LAST_COLOR = COLORS[1], COLORS[0]
COLOR_MAP = "viridis"


class Search(NamedTuple):
    """Content of tune.csv, with what else is known of the search.

    Attributes:
        table: Columns of tune.csv by name, [rows] each, in order of rungs.
        names: The swept hyperparameters, by their columns.
        objective: What the scores are, one of OBJECTIVES.
        title: Title of the figure.
        winner: The setting that won, None where the search has not ended.
        fresh: What fresh seeds say of the winner and of the preset, None where there are none.
    """

    table: dict[str, np.ndarray]
    names: list[str]
    objective: str
    title: str
    winner: int | None
    fresh: Confirmation | None


class Scale(NamedTuple):
    """How the values of a hyperparameter are placed along an axis.

    Attributes:
        places: A number for each value, [rows].
        is_log: Whether the axis is logarithmic.
        labels: A label for each of the numbers 0, 1, ...; none for a numeric axis.
    """

    places: np.ndarray
    is_log: bool
    labels: list[str]


def importance(table: Mapping[str, Any] | pd.DataFrame, *, is_lower_better: bool = False) -> dict[str, float]:
    """Estimate how much each hyperparameter matters: the share of the variance of the scores that it alone explains.

    This is the main effect of functional ANOVA (Hutter et al. 2014, An Efficient Approach for Assessing Hyperparameter
    Importance), Var(E[score | x]) / Var(score), where the other hyperparameters vary as they do in the search. The
    values x of n settings are split into B groups, by their quantiles or, where there are few, by value, and the share
    is estimated without the bias of a small sample (Kelley 1935, epsilon squared):

        SS_between = sum_b n_b (mean_b - mean)^2,  SS_within = sum_i (score_i - mean_b(i))^2
        share = max(0, (SS_between - (B - 1) SS_within / (n - B)) / (SS_between + SS_within))

    Each setting counts once, with its score in its first rung, as later rungs hold only settings that were selected. So
    the shares are those of learning up to the first rung's budget. What two hyperparameters do only together is in no
    share, and a sharp optimum within a group is averaged out.

    Args:
        table: Columns of tune.csv by name, [rows] each: a dict of arrays, or a DataFrame.
        is_lower_better: Whether low scores are good, as env steps to solve. A setting without a score counts as the
            worst.

    Returns:
        The share of each hyperparameter, in [0, 1]; NaN where there are too few settings to tell.

    >>> table = {"setting": np.arange(8), "rung": np.zeros(8), "budget": np.full(8, 1e4), "score": np.arange(8.0)}
    >>> importance({**table, "lr": np.arange(8.0) / 10, "mode": ["sync", "async"] * 4})
    {'lr': 0.7222222222222222, 'mode': 0.0}
    """
    _, first = np.unique(np.asarray(table["setting"]), return_index=True)
    score = np.asarray(table["score"], float)[first]
    is_known = np.isfinite(score)
    if not is_known.any():
        return dict.fromkeys(_hyperparameters(table), math.nan)
    score = np.where(is_known, score, np.max(score[is_known]) if is_lower_better else np.min(score[is_known]))
    # Settings that began at another budget differ by that, too.
    budget = np.asarray(table["budget"])[first]
    for amount in np.unique(budget):
        score = np.where(budget == amount, score - score[budget == amount].mean(), score)
    return {
        name: share_of_variance(_group(_numbers_or_texts(np.asarray(table[name])[first])), score)
        for name in _hyperparameters(table)
    }


def share_of_variance(groups: np.ndarray, score: np.ndarray) -> float:
    """Estimate the share of the variance of scores that lies between groups, as `importance` says.

    Args:
        groups: Group of each score, whole numbers from 0 without gaps, [n].
        score: The scores, [n].

    Returns:
        The share; NaN for fewer than two scores a group.
    """
    size = np.bincount(groups)
    if len(score) < 2 * len(size):
        return math.nan
    mean = np.bincount(groups, score) / size
    within = float(np.sum((score - mean[groups]) ** 2))
    between = float(np.sum(size * (mean - score.mean()) ** 2))
    if between + within <= 0:
        return 0.0
    by_chance = (len(size) - 1) * within / (len(score) - len(size))
    return max(0.0, (between - by_chance) / (between + within))


def _group(values: np.ndarray) -> np.ndarray:
    """Split values into groups: those that are equal where there are few, else about equally many neighbors."""
    distinct, groups = np.unique(values, return_inverse=True)
    bins = min(BINS, max(2, math.isqrt(len(values))))
    if len(distinct) <= bins or values.dtype.kind == "U":
        return groups
    edges = np.quantile(values, np.arange(1, bins) / bins)
    return np.unique(np.searchsorted(edges, values, side="right"), return_inverse=True)[1]


def _hyperparameters(table: Mapping[str, Any] | pd.DataFrame) -> list[str]:
    """The columns that are hyperparameters."""
    return [name for name in table if name not in OWN]


def _numbers_or_texts(values: np.ndarray) -> np.ndarray:
    """Convert a column to numbers where all of its entries are, else to texts."""
    texts = [show(value) for value in values.tolist()]
    try:
        return np.array([float(text) for text in texts])
    except ValueError:
        return np.array(texts)


def plot_tuning(path: str | Path) -> Figure:
    """Plot a search: its course, the importance of each hyperparameter, and the most important ones in pairs.

    On top, on the left, a line for every setting shows its score after each rung: that of the winner, of those that
    reached the last rung, and, gray, of those that were dropped. A search of a single rung shows the settings by rank
    instead. To their right stand the winner and the preset as fresh seeds judged them. On the right are the shares of
    `importance`. Below are the settings by pairs of the most important hyperparameters, colored by the last score they
    had.

    Args:
        path: The run folder of the search. It needs tune.csv; best.json adds the winner and the fresh seeds.

    Returns:
        The figure.

    Raises:
        InputError: If a file is damaged, or there is no tune.csv.
    """
    search = read_search(home_path(path))
    with default_style():
        shares = importance(search.table, is_lower_better=search.objective == "steps_to_solve")
        shown = _most_important(search, shares)
        pairs = list(itertools.combinations(shown, 2))
        alone = shown if len(shown) <= 2 else []
        panels = len(pairs) + len(alone)
        rows = -(-panels // 3)
        figure = Figure(figsize=(14, 4.8 + 3.9 * rows), dpi=120, layout="constrained")
        figure.suptitle(search.title, parse_math=False)
        parts: Any = figure.subfigures(1 + bool(panels), 1, height_ratios=[4.8, 3.9 * rows][: 1 + bool(panels)])
        above, *below = np.atleast_1d(parts)
        course, bars = above.subplots(1, 2, width_ratios=(2, 1))
        _plot_course(course, search)
        _plot_importance(bars, search, shares)
        if panels:
            places = below[0].subplots(rows, min(panels, 3), squeeze=False).ravel()
            for axes, names in zip(places, [*pairs, *((name,) for name in alone)], strict=True):
                colored = _plot_settings(axes, search, names)
            bar = below[0].colorbar(colored, ax=places.tolist(), pad=0.01, aspect=25 * rows)
            if search.objective == "steps_to_solve":
                bar.ax.yaxis.set_major_formatter(lambda value, _: _format_steps(value))
            bar.set_label("last score")
    return figure


def read_search(path: Path) -> Search:
    """Read tune.csv, best.json and the objective in config.json of a run folder.

    Args:
        path: The run folder.

    Returns:
        What they hold.

    Raises:
        InputError: If a file is damaged, or there is no tune.csv.
    """
    file = path / "tune.csv"
    try:
        with file.open(newline="") as lines:
            header, *rows = [*csv.reader(lines)] or [[]]
        if missing := [name for name in OWN if name not in header]:
            raise ValueError(f"it has no column {missing[0]}")
        if not rows or any(len(row) != len(header) for row in rows):
            raise ValueError("its rows are not whole")
        columns = dict(zip(header, map(list, zip(*rows, strict=True)), strict=True))
        table: dict[str, np.ndarray] = {
            name: np.array([float(text or "nan") for text in columns[name]])
            if name in OWN
            else _numbers_or_texts(np.array(columns[name]))
            for name in header
        }
        table |= {name: table[name].astype(int) for name in ("setting", "rung")}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {file}: {reason(error)}") from error
    order = np.lexsort((table["setting"], table["rung"]))
    table = {name: values[order] for name, values in table.items()}
    best = read_json(path / "best.json") if (path / "best.json").exists() else {}
    found_by = best.get("found_by")
    found_by = found_by if isinstance(found_by, dict) else {}
    config = read_json(path / "config.json") if (path / "config.json").exists() else {}
    objective, winner = config.get("tune", found_by).get("objective"), found_by.get("setting")
    objective = objective if objective in OBJECTIVES else "final_return"
    winner = winner if type(winner) is int and winner in table["setting"] else None
    settings = counted(len(np.unique(table["setting"])), "setting")
    where = f"{best['algorithm']} on {best['env']}, " if {"algorithm", "env"} <= best.keys() else ""
    method = f", {found_by['method']}" if "method" in found_by else ""
    try:
        fresh = confirmation_of(found_by) if found_by else None
    except (KeyError, TypeError) as error:
        raise InputError(f"cannot use {path / 'best.json'}: it does not say what was found ({error!r})") from error
    return Search(table, _hyperparameters(table), objective, f"{where}{settings}{method}", winner, fresh)


def _most_important(search: Search, shares: dict[str, float]) -> list[str]:
    """Choose the hyperparameters to plot in pairs, of those that differ between settings."""
    varying = [name for name in search.names if len(np.unique(search.table[name])) > 1]
    return sorted(varying, key=lambda name: -np.nan_to_num(shares[name]))[:PAIRED]


def _plot_course(axes: Axes, search: Search) -> None:
    """Plot the scores of all settings after each rung, and those with fresh seeds behind them."""
    table = search.table
    budgets = np.unique(table["budget"])
    end = _plot_ranks(axes, search) if len(budgets) == 1 else _plot_rungs(axes, search, budgets)
    if search.fresh is not None:
        for judged, label, marker, color, place in zip(
            (search.fresh.winner, search.fresh.preset),
            ("winner", "preset"),
            "Ds",
            (WINNER_COLOR, "black"),
            end,
            strict=True,
        ):
            text = f"{label}, {counted(search.fresh.seeds, 'fresh seed')}: {_format_score(search, judged.score)}"
            if np.isfinite(judged.low):
                text += f" [{_format_score(search, judged.low)}, {_format_score(search, judged.high)}]"
                axes.vlines(place, judged.low, judged.high, color=color, linewidth=2, zorder=5)
            axes.scatter([place], [judged.score], marker=marker, s=45, color=color, zorder=6, label=text)
    axes.set_ylabel(OBJECTIVES[search.objective])
    if search.objective == "steps_to_solve":
        axes.yaxis.set_major_formatter(lambda value, _: _format_steps(value))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="best", framealpha=0.85, edgecolor="none", fontsize="small")


def _plot_rungs(axes: Axes, search: Search, budgets: np.ndarray) -> tuple[float, float]:
    """Plot a line for each setting, and return two places to the right of the last budget."""
    table = search.table
    last_budget = budgets[-1]
    curves = _curves(table)
    is_last = {setting: curve[-1, 0] == last_budget for setting, curve in curves.items()}
    dropped = [curve for setting, curve in curves.items() if not is_last[setting]]
    last = [curve for setting, curve in curves.items() if is_last[setting] and setting != search.winner]
    for group, color, alpha, label in (
        (dropped, OTHER_COLOR, min(0.6, max(0.08, 25 / max(len(dropped), 1))), "dropped"),
        (last, LAST_COLOR, min(0.9, max(0.1, 12 / max(len(last), 1))), "in the last rung"),
    ):
        if group:
            ends = np.concatenate([curve[-1:] for curve in group])
            axes.add_collection(LineCollection(group, colors=color, alpha=alpha, linewidths=1))
            axes.scatter(ends[:, 0], ends[:, 1], color=color, alpha=min(1, 2 * alpha), s=9, linewidths=0)
            axes.plot([], [], color=color, marker=".", linewidth=1, label=f"{counted(len(group), 'setting')} {label}")
    if search.winner in curves:
        rows = np.flatnonzero(table["setting"] == search.winner)
        spent, score = table["budget"][rows], table["score"][rows]
        line: dict[str, Any] = {"color": WINNER_COLOR, "linewidth": 2.2, "marker": "o", "markersize": 5, "zorder": 4}
        axes.plot(spent, score, label=f"winner, setting {search.winner}: {_format_score(search, score[-1])}", **line)
        axes.vlines(spent, table["low"][rows], table["high"][rows], color=WINNER_COLOR, linewidth=1, zorder=4)
    # Halving multiplies the budget from rung to rung, racing adds to it.
    if last_budget > 1.5 * budgets[-2]:
        axes.set_xscale("log")
        width = last_budget / budgets[0]
        end = (last_budget * width**0.05, last_budget * width**0.09)
    else:
        width = last_budget - budgets[0]
        end = (last_budget + 0.05 * width, last_budget + 0.09 * width)
    axes.set_xticks(budgets if len(budgets) <= TICKS else budgets[:: -(-len(budgets) // TICKS)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(lambda value, _: _format_steps(value))
    axes.set(xlabel="env steps per run", title="score after each rung")
    axes.autoscale_view()
    return end


def _plot_ranks(axes: Axes, search: Search) -> tuple[float, float]:
    """Plot the settings of a single rung from the best to the worst, and return two places to the right of them."""
    table = search.table
    score = table["score"]
    known = np.flatnonzero(np.isfinite(score))
    order = known[np.argsort(score[known] if search.objective == "steps_to_solve" else -score[known], kind="stable")]
    rank = np.arange(1, len(order) + 1)
    alpha = min(0.6, max(0.1, 60 / max(len(order), 1)))
    axes.vlines(rank, table["low"][order], table["high"][order], color=OTHER_COLOR, alpha=alpha, linewidth=1)
    axes.scatter(rank, score[order], color=LAST_COLOR, s=14, linewidths=0, zorder=3, label="settings")
    is_winner = table["setting"][order] == search.winner
    if is_winner.any():
        place, row = rank[is_winner], order[is_winner]
        axes.vlines(place, table["low"][row], table["high"][row], color=WINNER_COLOR, linewidth=1.5, zorder=4)
        text = f"winner, setting {search.winner}: {_format_score(search, score[row][0])}"
        axes.scatter(place, score[row], color=WINNER_COLOR, s=45, zorder=5, label=text)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    budget = _format_steps(float(table["budget"][0]))
    axes.set(xlabel="rank", title=f"scores after {budget} env steps per run, with 95% intervals")
    return len(order) + 1 + 0.03 * len(order), len(order) + 1 + 0.07 * len(order) + 0.4


def _plot_importance(axes: Axes, search: Search, shares: dict[str, float]) -> None:
    """Plot the share of each hyperparameter as a bar, the largest on top, and what is left."""
    known = {name: share for name, share in shares.items() if np.isfinite(share)}
    budgets = np.unique(search.table["budget"][np.unique(search.table["setting"], return_index=True)[1]])
    after = (
        " or ".join(map(_format_steps, budgets))
        if len(budgets) <= 2
        else f"{_format_steps(budgets[0])} to {_format_steps(budgets[-1])}"
    )
    axes.set(title=f"importance for the score after {after} env steps", xlabel="share of variance explained alone")
    axes.spines[["top", "right"]].set_visible(False)
    if not known:
        axes.text(0.5, 0.5, "too few settings", transform=axes.transAxes, ha="center", color="0.4")
        axes.set(xticks=[], yticks=[])
        return
    names = sorted(known, key=lambda name: -known[name])[:BARS]
    rest = max(0.0, 1 - sum(known.values()))
    bars = [*(known[name] for name in names), rest]
    colors = [LAST_COLOR] * len(names) + ["0.8"]
    axes.barh(range(len(bars)), bars, color=colors, height=0.7)
    for row, share in enumerate(bars):
        axes.text(share + 0.01, row, f"{share:.0%}", va="center", fontsize=9)
    more = f" and {len(known) - len(names)} more" if len(known) > len(names) else ""
    axes.set_yticks(range(len(bars)), [*names, f"interactions,\nchance{more}"])
    axes.set(xlim=(0, min(1.1, 1.2 * max(bars) + 0.02)), ylim=(max(len(bars), 4) - 0.4, -0.6))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(alpha=0.25, axis="x")


def _plot_settings(axes: Axes, search: Search, names: Sequence[str]) -> Any:
    """Plot the settings by two hyperparameters, or their scores by one, and return what has the colors."""
    table = search.table
    _, last_from_end = np.unique(table["setting"][::-1], return_index=True)
    rows = len(table["setting"]) - 1 - last_from_end
    score = table["score"][rows]
    sign = -1 if search.objective == "steps_to_solve" else 1
    # The best are plotted last, above the others.
    order = rows[np.argsort(np.where(np.isfinite(score), sign * score, -np.inf), kind="stable")]
    score = table["score"][order]
    is_known = np.isfinite(score)
    scales = [scale_of(table[name][order], seed) for seed, name in enumerate(names)]
    x, y = scales[0].places, scales[1].places if len(names) == 2 else score
    size = 12 + 40 / math.sqrt(1 + len(order) / 30)
    # A few bad scores do not take all of the colors.
    ends = sign * np.quantile(sign * score[is_known], (0.02, 1)) if is_known.any() else np.array([0.0, 1.0])
    colors: dict[str, Any] = {"cmap": COLOR_MAP if sign > 0 else f"{COLOR_MAP}_r", "vmin": min(ends), "vmax": max(ends)}
    if len(names) == 2:
        axes.scatter(x[~is_known], y[~is_known], marker="x", color=OTHER_COLOR, s=size, linewidths=1)
    colored = axes.scatter(x[is_known], y[is_known], c=score[is_known], s=size, linewidths=0, alpha=0.9, **colors)
    is_winner = table["setting"][order] == search.winner
    style: dict[str, Any] = {"facecolor": "none", "edgecolor": WINNER_COLOR, "linewidths": 2, "zorder": 5}
    axes.scatter(x[is_winner], y[is_winner], s=140, label="winner", **style)
    for axis, name, scale in zip("xy", names, scales, strict=False):
        _set_scale(axes, axis, name, scale)
    if len(names) == 1:
        axes.set_ylabel("last score")
        if sign < 0:
            axes.yaxis.set_major_formatter(lambda value, _: _format_steps(value))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return colored


def scale_of(values: np.ndarray, seed: int = 0) -> Scale:
    """Choose how the values of a hyperparameter are placed along an axis.

    Names, and numbers of which there are few, stand side by side, each a little beside its place so that equal values
    do not hide each other. Other numbers have a logarithmic axis where they are spread evenly along that.

    Args:
        values: The values, numbers or texts, [rows].
        seed: Seed of the small shifts.

    Returns:
        The places.

    >>> scale_of(10.0 ** np.arange(-4, 4)).is_log, scale_of(np.arange(1.0, 20.0)).is_log
    (True, False)
    """
    distinct = np.unique(values)
    is_text = values.dtype.kind == "U"
    if is_text or len(distinct) <= FEW_VALUES:
        # 64x64 stands before 128x128.
        names = sorted(distinct.tolist(), key=lambda value: (len(value), value)) if is_text else distinct.tolist()
        shift = np.random.default_rng(seed).uniform(-0.22, 0.22, len(values))
        return Scale(np.array([names.index(value) for value in values.tolist()]) + shift, False, list(map(show, names)))
    low, high = distinct[0], distinct[-1]
    if low <= 0 or high < 5 * low:
        return Scale(values, False, [])
    # Half of the values lie below the middle of the scale that they were drawn on.
    off_log, off = (abs(np.mean(values < middle) - 0.5) for middle in (math.sqrt(low * high), (low + high) / 2))
    return Scale(values, bool(off_log < off), [])


def _set_scale(axes: Axes, axis: str, name: str, scale: Scale) -> None:
    """Label an axis with a hyperparameter and its values."""
    getattr(axes, f"set_{axis}label")(name)
    if scale.is_log:
        getattr(axes, f"set_{axis}scale")("log")
    if scale.labels:
        step = -(-len(scale.labels) // TICKS)
        shown = ["\n".join(wrap_label(label, TICK_LENGTH)) for label in scale.labels][::step]
        is_wide = axis == "x" and sum(map(len, shown)) > 30
        style = {"rotation": 30, "ha": "right"} if is_wide else {}
        getattr(axes, f"set_{axis}lim")(-0.5, len(scale.labels) - 0.5)
        getattr(axes, f"set_{axis}ticks")(range(0, len(scale.labels), step), shown, fontsize=8, **style)


def _curves(table: dict[str, np.ndarray]) -> dict[int, np.ndarray]:
    """Env steps and scores [rungs, 2] of each setting that has any score, in order of rungs."""
    known = np.flatnonzero(np.isfinite(table["score"]))
    known = known[np.argsort(table["setting"][known], kind="stable")]
    points = np.stack([table["budget"][known], table["score"][known]], axis=1)
    settings, starts = np.unique(table["setting"][known], return_index=True)
    return dict(zip(settings.tolist(), np.split(points, starts[1:]), strict=True))


def _format_steps(number: float) -> str:
    """Format a number of env steps in a few characters."""
    return f"{number / 1e6:.3g} M" if number >= 1e6 else f"{number / 1e3:.3g} k"


def _format_score(search: Search, score: float) -> str:
    """Format a score in a few characters."""
    return _format_steps(score) if search.objective == "steps_to_solve" else f"{score:.4g}"
