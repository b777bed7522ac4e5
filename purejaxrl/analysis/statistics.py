"""What many runs say together: interquartile means, bootstrap intervals, probabilities of improvement.

Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice, arXiv:2108.13264. There is
one environment here, so the strata of the stratified bootstrap are the settings: the runs of each are resampled on
their own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0
ELEMENTS_AT_ONCE = 4_000_000
# Settings of which all pairs are worth a file; beyond that each is compared with the best only.
MAX_PAIRS_OF = 32
TABLE_ROWS = 20
TABLE_WIDTH = 120
SHORTEST_LABEL = 12
FINAL = ("final_return_iqm", "final_return_low", "final_return_high")
AREA = ("area_iqm", "area_low", "area_high")
REASONS = {
    "final_return": "",
    "area_under_curve": "Some runs had fewer than 100 episodes, so settings are ranked by area under curve.",
    "env_steps_to_solve": "Runs ended once they were solved, so settings are ranked by env steps to solve.",
}
IMPROVES = ("best_improves", "best_improves_low", "best_improves_high")


class Scores(NamedTuple):
    """Runs of one setting: one entry per run, each [runs].

    final_return: mean return of the last 100 episodes, NaN where a run had fewer. area_under_curve: mean training
    return per env step, NaN where no episode ended. env_steps_to_solve: infinity where the run never reached the
    threshold, NaN where it never began. is_ok: False where the run diverged or never began.
    """

    final_return: np.ndarray
    area_under_curve: np.ndarray
    env_steps_to_solve: np.ndarray
    is_ok: np.ndarray


def interquartile_mean(values: np.ndarray, axis: int = -1) -> Any:
    """Mean of what is left without the lowest and the highest floor(n / 4) values; below four values, the mean.

    >>> print(interquartile_mean(np.array([0.0, 10.0, 20.0, 900.0])))
    15.0
    """
    return stats.trim_mean(values, 0.25, axis=axis)


def interval(values: np.ndarray, statistic: Callable[..., Any] = interquartile_mean) -> tuple[Any, Any]:
    """95% percentile bootstrap interval of the interquartile mean, or of another statistic, (low, high).

    values: [..., n] without NaN; low, high: [...], NaN for fewer than two values.
    """
    if values.shape[-1] < 2:
        nothing = np.full(values.shape[:-1], np.nan)[()]
        return nothing, nothing
    return _bootstrap((values,), statistic, elements=values.size)


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Probability that a run of x is higher than one of y, (probability, low, high).

    P = 1 / (n m) sum_ij (1[x_i > y_j] + 1/2 1[x_i = y_j]), the Mann-Whitney U statistic over n m (Agarwal et al. 2021,
    section 4.3). The 95% percentile bootstrap interval resamples x and y each on its own.

    x: [n], y: [m] without NaN. P is NaN where either is empty, the interval where either has fewer than two values.

    >>> probability, low, high = probability_of_improvement(np.array([3.0, 4.0]), np.array([1.0, 3.0]))
    >>> probability  # of the four pairs three are won and one is a tie
    0.875
    """
    n, m = len(x), len(y)
    if not n or not m:
        return math.nan, math.nan, math.nan
    distinct, ranks = np.unique(np.concatenate([x, y]), return_inverse=True)
    ranks_of_x, ranks_of_y = ranks[:n], ranks[n:]

    def share_of_wins(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        counts_of_x, counts_of_y = (_count(ranks, len(distinct)) for ranks in (x, y))
        beaten = np.cumsum(counts_of_y, axis=axis) - counts_of_y / 2
        return np.sum(counts_of_x * beaten, axis=axis) / (n * m)

    probability = share_of_wins(ranks_of_x[None], ranks_of_y[None], -1).item()
    if min(n, m) < 2:
        return probability, math.nan, math.nan
    low, high = _bootstrap((ranks_of_x, ranks_of_y), share_of_wins, elements=n + m)
    return probability, float(low), float(high)


def describe(settings: Sequence[Scores], has_threshold: bool, stopped_when_solved: bool = False) -> pd.DataFrame:
    """One row per setting, in the given order.

    rank (1 is best) and what it goes by, see `measure_of`; runs, runs_ok (did not diverge), runs_final (have a final
    return); final_return_* and area_*: interquartile mean, 95% interval and median; solved_fraction;
    env_steps_to_solve_median, infinity where that run never solved; best_improves*: probability that a run of the best
    setting is better than one of this.

    A run that diverged counts with the returns it had, and as the worst of all where they are not finite. A run without
    a final return is left out of the final_return_* columns. NaN stands where there is nothing: in the best setting's
    own best_improves*, and in what is about solving without a threshold.
    """
    measure = measure_of(settings, stopped_when_solved)
    finals = [scores.final_return[np.isfinite(scores.final_return)] for scores in settings]
    areas = [scores.area_under_curve[np.isfinite(scores.area_under_curve)] for scores in settings]
    steps = [scores.env_steps_to_solve[~np.isnan(scores.env_steps_to_solve)] for scores in settings]
    frame = pd.DataFrame(
        {
            "rank": 0,
            "ranked_by": measure,
            "runs": [len(scores.is_ok) for scores in settings],
            "runs_ok": [int(np.sum(scores.is_ok)) for scores in settings],
            "runs_final": [len(final) for final in finals],
        }
    )
    frame[list(FINAL)] = _means_with_intervals(finals)
    frame["final_return_median"] = [_median(final) for final in finals]
    frame[list(AREA)] = _means_with_intervals(areas)
    frame["area_median"] = [_median(area) for area in areas]
    shares = [float(np.mean(np.isfinite(step))) if len(step) else math.nan for step in steps]
    frame["solved_fraction"] = shares if has_threshold else math.nan
    frame["env_steps_to_solve_median"] = [_median(step) for step in steps] if has_threshold else math.nan
    frame["rank"] = _ranks(frame, settings, measure)
    compared = [compared_values(scores, measure) for scores in settings]
    best = ranking(frame)[0]
    frame[list(IMPROVES)] = [
        (math.nan, math.nan, math.nan) if row == best else probability_of_improvement(compared[best], values)
        for row, values in enumerate(compared)
    ]
    return frame


def measure_of(settings: Sequence[Scores], stopped_when_solved: bool) -> str:
    """What settings are ranked and compared by.

    Their final returns; or, where a run that did not diverge has none, areas under the curve: it may have had fewer
    than 100 episodes because they were long, and leaving it out would punish the best. Where runs were stopped when
    solved, env steps to solve: the final return then says only by how much a run overshot the threshold.
    """
    if stopped_when_solved:
        return "env_steps_to_solve"
    is_complete = all(np.isfinite(scores.final_return[scores.is_ok]).all() for scores in settings)
    return "final_return" if is_complete else "area_under_curve"


def compared_values(scores: Scores, measure: str) -> np.ndarray:
    """The measure of a setting's runs, higher is better; without runs that never began or have nothing to compare.

    A diverged run whose value is not finite counts as -infinity.
    """
    has_begun = ~np.isnan(scores.env_steps_to_solve)
    if measure == "env_steps_to_solve":
        return -scores.env_steps_to_solve[has_begun]
    values = scores.final_return if measure == "final_return" else scores.area_under_curve
    values = np.where(~scores.is_ok & ~np.isfinite(values), -np.inf, values)[has_begun]
    return values[np.isfinite(values) | (values == -np.inf)]


def _ranks(frame: pd.DataFrame, settings: Sequence[Scores], measure: str) -> np.ndarray:
    """Places of the settings, 1 for the best: by the measure (its median, where it is env steps, else its interquartile
    mean); ties by final return, area and env steps to solve, then as given. Without a run that is ok a setting is last.
    """
    values = [compared_values(scores, measure) for scores in settings]
    middle = _median if measure == "env_steps_to_solve" else _interquartile_mean_of_any
    order = frame[["final_return_iqm", "area_iqm", "env_steps_to_solve_median"]].copy()
    order.insert(0, "has_ok", frame["runs_ok"] > 0)
    order.insert(1, "measure", [middle(value) for value in values])
    is_ascending = [False, False, False, False, True]
    order = order.sort_values(list(order), ascending=is_ascending, na_position="last", kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order.index.to_numpy()] = np.arange(1, len(order) + 1)
    return ranks


def ranking(frame: pd.DataFrame) -> np.ndarray:
    """Rows of `describe`, best first, as positions."""
    return np.argsort(frame["rank"].to_numpy(), kind="stable")


def best_run(scores: Scores, stopped_when_solved: bool = False) -> int:
    """Place of the best run by `measure_of` them, diverged ones last; ties by final return, area, then the first."""
    measure = measure_of([scores], stopped_when_solved)
    first = -scores.env_steps_to_solve if measure == "env_steps_to_solve" else getattr(scores, measure)
    columns = (scores.area_under_curve, scores.final_return, first, scores.is_ok.astype(float))
    # lexsort goes by its last column first; nan stands for what is worst.
    return int(
        np.lexsort([-np.nan_to_num(values, nan=-np.inf, posinf=np.inf, neginf=-np.inf) for values in columns])[0]
    )


def improvements(settings: Sequence[Scores], stopped_when_solved: bool = False) -> pd.DataFrame:
    """`probability_of_improvement` of setting over other, for every pair: setting, other, probability, low, high."""
    measure = measure_of(settings, stopped_when_solved)
    compared = [compared_values(scores, measure) for scores in settings]
    rows = [
        (setting, other, *probability_of_improvement(compared[setting], compared[other]))
        for setting, other in itertools.combinations(range(len(compared)), 2)
    ]
    return pd.DataFrame(rows, columns=["setting", "other", "probability", "low", "high"])


def table(frame: pd.DataFrame, labels: Sequence[str]) -> str:
    """`describe` as text, the 20 best first: interquartile means with their 95% intervals, the median final return.

    A star marks final returns that not every run has. Labels are shortened to keep within 120 characters.
    """
    order = ranking(frame)[:TABLE_ROWS]
    shown = frame.iloc[order]
    cells = [_aligned(column) for column in figures(shown)]
    room = max(SHORTEST_LABEL, TABLE_WIDTH - sum(2 + len(column[0]) for column in cells))
    names = ["", "setting", *(shorten(labels[row], room) for row in order)]
    width = max(map(len, names))
    lines = ["  ".join([name.ljust(width), *row]).rstrip() for name, *row in zip(names, *cells, strict=True)]
    if len(frame) > len(shown):
        lines.append(f"... and {len(frame) - len(shown)} more")
    return "\n".join([*lines, *notes_of(shown)])


def notes_of(shown: pd.DataFrame) -> list[str]:
    """What must be said below rows of `describe`."""
    is_partial = _is_partial(shown).any()
    star = (
        ["* over fewer runs: the others diverged, did not begin or had fewer than 100 episodes"] if is_partial else []
    )
    reason = REASONS[str(shown["ranked_by"].iloc[0])]
    return [*star, reason] if reason else star


def figures(shown: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    """What tables tell of rows of `describe`: both lines of a heading, and the cells of its column as text."""
    is_partial = _is_partial(shown)
    marks = np.where(is_partial, "*", " " if is_partial.any() else "")
    return [
        ("runs", "ok", [f"{ok} of {runs}" for ok, runs in zip(shown["runs_ok"], shown["runs"], strict=True)]),
        ("final return", "IQM [95%]", [a + b for a, b in zip(_with_intervals(shown, FINAL), marks, strict=True)]),
        ("median", "return", _numbers(shown["final_return_median"])),
        ("area under curve", "IQM [95%]", _with_intervals(shown, AREA)),
        ("", "solved", ["-" if math.isnan(share) else f"{share:.0%}" for share in shown["solved_fraction"]]),
        ("env steps", "to solve", [_env_steps(steps) for steps in shown["env_steps_to_solve_median"]]),
        ("P(best", "improves)", ["-" if math.isnan(share) else f"{share:.2f}" for share in shown["best_improves"]]),
    ]


def _is_partial(frame: pd.DataFrame) -> Any:
    """Rows whose final returns are over fewer runs than there are."""
    return (frame["runs_final"] < frame["runs"]) & (frame["runs_final"] > 0)


def shorten(label: str, length: int) -> str:
    """A label in one line of at most `length` characters: what is too long loses its middle."""
    label = " ".join(label.split())
    if len(label) <= length:
        return label
    head = (length - 3) // 2
    return f"{label[:head]}...{label[len(label) - (length - 3 - head) :]}"


def _bootstrap(samples: tuple[np.ndarray, ...], statistic: Any, elements: int) -> tuple[Any, Any]:
    """Percentile bootstrap; `elements` of one resample decide how many are held in memory at once."""
    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=RESAMPLES,
        batch=max(1, ELEMENTS_AT_ONCE // elements),
        vectorized=True,
        axis=-1,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=SEED,
    )
    return found.confidence_interval.low, found.confidence_interval.high


def _count(ranks: np.ndarray, distinct: int) -> np.ndarray:
    """How often each of the whole numbers below `distinct` is in each row: [rows, n] -> [rows, distinct]."""
    rows = len(ranks)
    flat = (ranks + distinct * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * distinct).reshape(rows, distinct)


def _means_with_intervals(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Interquartile mean, low and high of each sample, [samples, 3]. Samples of one size are resampled together."""
    figures = np.full((len(samples), 3), np.nan)
    sizes = np.array([len(sample) for sample in samples])
    for size in np.unique(sizes[sizes > 0]):
        rows = np.flatnonzero(sizes == size)
        values = np.stack([samples[row] for row in rows.tolist()])
        figures[rows] = np.stack([interquartile_mean(values), *interval(values)], axis=-1)
    return figures


def _interquartile_mean_of_any(values: np.ndarray) -> float:
    return float(interquartile_mean(values)) if len(values) else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _with_intervals(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Three columns as `mean [low, high]`, the parts below one another."""
    values = frame[list(columns)].to_numpy()
    numbers = np.array(_numbers(values.ravel())).reshape(values.shape)
    width = max(map(len, numbers.ravel()))
    has_interval = ~np.isnan(values[:, 1])
    blank = " " * (2 * width + 5) if has_interval.any() else ""
    return [
        f"{mean:>{width}}" + (f" [{low:>{width}}, {high:>{width}}]" if is_known else blank)
        for (mean, low, high), is_known in zip(numbers, has_interval, strict=True)
    ]


def _numbers(values: Any) -> list[str]:
    """Numbers with as many decimals as the largest of them leaves room for: four digits, at most four decimals."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    is_plain = largest == 0 or 1e-3 <= largest < 1e6
    spec = f"z.{np.clip(3 - math.floor(math.log10(largest or 1)), 0, 4)}f" if is_plain else ".3g"
    return ["-" if math.isnan(value) else format(value, spec) for value in values]


def _env_steps(steps: float) -> str:
    if math.isnan(steps):
        return "-"
    return "never" if math.isinf(steps) else f"{steps:.0f}"


def _aligned(column: tuple[str, str, list[str]]) -> list[str]:
    """Both lines of the heading and the cells of a column, as wide as one another."""
    upper, lower, cells = column
    width = max(map(len, [upper, lower, *cells]))
    return [text.rjust(width) for text in (upper, lower, *cells)]
