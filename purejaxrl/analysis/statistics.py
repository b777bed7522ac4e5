"""Statistics of many runs: interquartile means, bootstrap intervals, probabilities of improvement.

Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice, arXiv:2108.13264. There is
one environment here, so the strata of the stratified bootstrap are the settings: the runs of each are resampled on
their own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from purejaxrl.experiment.intervals import bootstrap, interquartile_mean, interval
from purejaxrl.experiment.labels import wrap_label

if TYPE_CHECKING:
    import pandas as pd

# Settings of which all pairs are worth a file; beyond that each is compared with the best only.
MAX_PAIRED_SETTINGS = 32
TABLE_ROWS = 20
TABLE_WIDTH = 120
# Headings of the columns that are left out of a table, in this order, where a terminal is too narrow.
LEFT_OUT = ("median", "P(best")
FINAL = ("final_return_iqm", "final_return_low", "final_return_high")
AREA = ("area_iqm", "area_low", "area_high")
REASONS = {
    "final_return": "",
    "area_under_curve": "Some runs had fewer than 100 episodes, so settings are ranked by area under curve.",
    "env_steps_to_solve": "Runs ended once they were solved, so settings are ranked by env steps to solve.",
}
SOLVED_ONLY = "env steps to solve: the median over the runs that were solved"
IMPROVES = ("best_improves", "best_improves_low", "best_improves_high")


class Scores(NamedTuple):
    """Scores of some runs, one entry per run.

    Attributes:
        final_return: Mean return of the last 100 episodes, [runs]; NaN where a run had fewer.
        area_under_curve: Mean training return per env step, [runs]; NaN where no episode ended.
        env_steps_to_solve: Env steps until the threshold was reached, [runs]; infinity where a run never reached it,
            NaN where it never began.
        is_ok: False where a run diverged or never began, [runs].
    """

    final_return: np.ndarray
    area_under_curve: np.ndarray
    env_steps_to_solve: np.ndarray
    is_ok: np.ndarray


def probability_of_improvement(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Probability that a run of x is better than a run of y.

    P = 1 / (n m) sum_ij (1[x_i > y_j] + 1/2 1[x_i = y_j]), the Mann-Whitney U statistic over n m (Agarwal et al. 2021,
    section 4.3). The 95% percentile bootstrap interval resamples x and y each on its own.

    Args:
        x: Values of runs without NaN, higher is better, [n].
        y: Values of the other runs, [m].

    Returns:
        P and both ends of its interval. P is NaN where x or y is empty, the interval where either has fewer than two
        values.

    >>> probability, low, high = probability_of_improvement(np.array([3.0, 4.0]), np.array([1.0, 3.0]))
    >>> probability  # of the four pairs three are won and one is a tie
    0.875
    """
    n, m = len(x), len(y)
    if not n or not m:
        return math.nan, math.nan, math.nan
    distinct, ranks = np.unique(np.concatenate([x, y]), return_inverse=True)
    x_ranks, y_ranks = ranks[:n], ranks[n:]

    def share_of_wins(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
        x_counts, y_counts = (_count(ranks, len(distinct)) for ranks in (x, y))
        beaten = np.cumsum(y_counts, axis=axis) - y_counts / 2
        return np.sum(x_counts * beaten, axis=axis) / (n * m)

    probability = share_of_wins(x_ranks[None], y_ranks[None], -1).item()
    if min(n, m) < 2:
        return probability, math.nan, math.nan
    low, high = bootstrap((x_ranks, y_ranks), share_of_wins, elements=n + m)
    return probability, float(low), float(high)


def describe(settings: Sequence[Scores], has_threshold: bool, stopped_when_solved: bool = False) -> pd.DataFrame:
    """Describe and rank settings by their runs.

    A run that diverged counts with the returns it had, and as the worst of all where they are not finite. A run without
    a final return is left out of the final_return_* columns.

    Args:
        settings: Scores of the runs of each setting.
        has_threshold: Whether there is a return that counts as solved.
        stopped_when_solved: Whether runs ended once they were solved.

    Returns:
        A row per setting, in the given order: rank (1 is best); ranked_by, see `ranking_measure`; runs, runs_ok (did
        not diverge), runs_final (have a final return); final_return_* and area_*: interquartile mean, 95% interval and
        median; solved_fraction; solved_env_steps_median, of the env steps to solve of the runs that were solved;
        env_steps_to_solve_median, of all runs, infinity where the median run never solved; best_improves*: probability
        that a run of the best setting is better than one of this. NaN stands for what is not defined: the best
        setting's own best_improves*, solved_env_steps_median where no run was solved, and everything about solving
        without a threshold.
    """
    # It takes long to import, and a training of one setting does without.
    import pandas as pd

    measure = ranking_measure(settings, stopped_when_solved)
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
    solved = [_median(step[np.isfinite(step)]) for step in steps]
    frame["solved_env_steps_median"] = solved if has_threshold else math.nan
    frame["env_steps_to_solve_median"] = [_median(step) for step in steps] if has_threshold else math.nan
    frame["rank"] = _ranks(frame, settings, measure)
    compared = [compared_values(scores, measure) for scores in settings]
    best = ranking(frame)[0]
    frame[list(IMPROVES)] = [
        (math.nan, math.nan, math.nan) if row == best else probability_of_improvement(compared[best], values)
        for row, values in enumerate(compared)
    ]
    return frame


def ranking_measure(settings: Sequence[Scores], stopped_when_solved: bool) -> str:
    """Choose the measure by which settings are ranked and compared.

    It is the final return; or, where a run that did not diverge has none, the area under the curve: such a run may have
    had fewer than 100 episodes because they were long, and leaving it out would punish the best. Where runs were
    stopped when solved it is env steps to solve, as the final return then only says by how much a run overshot.

    Args:
        settings: Scores of the runs of each setting.
        stopped_when_solved: Whether runs ended once they were solved.

    Returns:
        `final_return`, `area_under_curve` or `env_steps_to_solve`.
    """
    if stopped_when_solved:
        return "env_steps_to_solve"
    is_complete = all(np.isfinite(scores.final_return[scores.is_ok]).all() for scores in settings)
    return "final_return" if is_complete else "area_under_curve"


def compared_values(scores: Scores, measure: str) -> np.ndarray:
    """Values by which the runs of a setting are compared.

    Args:
        scores: Scores of the runs.
        measure: As `ranking_measure` returns it.

    Returns:
        A value per run, higher is better, without runs that never began or have no value. A diverged run whose value is
        not finite counts as -infinity.
    """
    has_begun = ~np.isnan(scores.env_steps_to_solve)
    if measure == "env_steps_to_solve":
        return -scores.env_steps_to_solve[has_begun]
    values = scores.final_return if measure == "final_return" else scores.area_under_curve
    values = np.where(~scores.is_ok & ~np.isfinite(values), -np.inf, values)[has_begun]
    return values[np.isfinite(values) | (values == -np.inf)]


def _ranks(frame: pd.DataFrame, settings: Sequence[Scores], measure: str) -> np.ndarray:
    """Ranks of the settings, 1 for the best. A setting without a run that is ok is last.

    They go by the measure: its median where it is env steps, else its interquartile mean; ties by final return, area
    and env steps to solve, then by the given order.
    """
    values = [compared_values(scores, measure) for scores in settings]
    middle = _median if measure == "env_steps_to_solve" else _interquartile_mean_or_nan
    order = frame[["final_return_iqm", "area_iqm", "env_steps_to_solve_median"]].copy()
    order.insert(0, "has_ok", frame["runs_ok"] > 0)
    order.insert(1, "measure", [middle(value) for value in values])
    is_ascending = [False, False, False, False, True]
    order = order.sort_values(list(order), ascending=is_ascending, na_position="last", kind="stable")
    ranks = np.empty(len(order), np.int64)
    ranks[order.index.to_numpy()] = np.arange(1, len(order) + 1)
    return ranks


def ranking(frame: pd.DataFrame) -> np.ndarray:
    """Order settings by rank.

    Args:
        frame: Rows as `describe` returns them.

    Returns:
        Positions of the rows, best first.
    """
    return np.argsort(frame["rank"].to_numpy(), kind="stable")


def best_run(scores: Scores, stopped_when_solved: bool = False) -> int:
    """Find the best run by `ranking_measure`; ties go by final return, area, then position. Diverged runs are last.

    Args:
        scores: Scores of the runs.
        stopped_when_solved: Whether runs ended once they were solved.

    Returns:
        Its position in `scores`.
    """
    measure = ranking_measure([scores], stopped_when_solved)
    first = -scores.env_steps_to_solve if measure == "env_steps_to_solve" else getattr(scores, measure)
    columns = (scores.area_under_curve, scores.final_return, first, scores.is_ok.astype(float))
    # lexsort goes by its last column first; nan stands for what is worst.
    return int(
        np.lexsort([-np.nan_to_num(values, nan=-np.inf, posinf=np.inf, neginf=-np.inf) for values in columns])[0]
    )


def improvements(settings: Sequence[Scores], stopped_when_solved: bool = False) -> pd.DataFrame:
    """Compute the probability of improvement for every pair of settings.

    Args:
        settings: Scores of the runs of each setting.
        stopped_when_solved: Whether runs ended once they were solved.

    Returns:
        A row per pair: setting, other, and the probability with low and high as `probability_of_improvement` has them.
    """
    import pandas as pd

    measure = ranking_measure(settings, stopped_when_solved)
    compared = [compared_values(scores, measure) for scores in settings]
    rows = [
        (setting, other, *probability_of_improvement(compared[setting], compared[other]))
        for setting, other in itertools.combinations(range(len(compared)), 2)
    ]
    return pd.DataFrame(rows, columns=["setting", "other", "probability", "low", "high"])


def table(frame: pd.DataFrame, labels: Sequence[str], width: int | None = None) -> str:
    """Format the 20 best settings as a table for a terminal, best first.

    Where a line has no room for the longest label, every label stands above its figures, whole.

    Args:
        frame: Rows as `describe` returns them.
        labels: A label for each row.
        width: Greatest number of characters of a line, by default 120. Where not even the figures have room, their
            medians and then the probabilities of improvement are left out.

    Returns:
        Lines of text. A star marks final returns that not every run has.
    """
    order = ranking(frame)[:TABLE_ROWS]
    shown = frame.iloc[order]
    lines = settings_table([labels[row] for row in order], table_columns(shown), len(frame), width)
    return "\n".join([*lines, *footnotes(shown)])


def evaluation_table(settings: pd.DataFrame, width: int | None = None) -> str:
    """Format the evaluation of the 20 best settings as a table for a terminal.

    Args:
        settings: Rows as `purejaxrl.Evaluation.settings` has them, best first.
        width: As for `table`.

    Returns:
        Lines of text.
    """
    shown = settings[:TABLE_ROWS]
    columns = [
        ("", "runs", [str(runs) for runs in shown["runs"]]),
        ("return", "mean [95%]", with_intervals(shown, ("mean", "low", "high"))),
    ]
    return "\n".join(settings_table(shown["label"].tolist(), columns, len(settings), width))


def settings_table(
    labels: Sequence[str], columns: list[tuple[str, str, list[str]]], count: int, width: int | None
) -> list[str]:
    """Format a table of settings, whose labels stand above their figures, whole, where a line has no room for them.

    Args:
        labels: A label for each row.
        columns: For each column both lines of its heading, and its cells as text.
        count: Number of settings, of which the first are shown.
        width: Greatest number of characters of a line, by default 120. Where not even the figures have room, medians
            and then probabilities of improvement are left out.

    Returns:
        The lines.
    """
    width = width or TABLE_WIDTH
    names = ["", "setting", *(" ".join(label.split()) for label in labels)]
    lines = _lines([_aligned(column) for column in columns])
    longest = max(map(len, names))
    if longest + 2 + len(lines[0]) <= width:
        lines = [f"{name.ljust(longest)}  {line}".rstrip() for name, line in zip(names, lines, strict=True)]
    else:
        for heading in LEFT_OUT:
            if len(lines[0]) > width:
                columns = [column for column in columns if column[0] != heading]
                lines = _lines([_aligned(column) for column in columns])
        upper, lower, *figures = lines
        lines = [names[1], upper, lower]
        for name, line in zip(names[2:], figures, strict=True):
            lines += [*wrap_label(name, width), line.rstrip()]
    return [*lines, f"... and {count - len(labels)} more"] if count > len(labels) else lines


def _lines(columns: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table, from its columns."""
    return ["  ".join(row) for row in zip(*columns, strict=True)]


def footnotes(shown: pd.DataFrame) -> list[str]:
    """Explain what is special about a table of settings.

    Args:
        shown: Rows as `describe` returns them.

    Returns:
        Sentences to show below the table.
    """
    is_partial = _is_partial(shown).any()
    star = (
        ["* over fewer runs: the others diverged, did not begin or had fewer than 100 episodes"] if is_partial else []
    )
    is_mixed = ((shown["solved_fraction"] > 0) & (shown["solved_fraction"] < 1)).any()
    reason = REASONS[str(shown["ranked_by"].iloc[0])]
    return [*star, *([SOLVED_ONLY] if is_mixed else []), *([reason] if reason else [])]


def table_columns(shown: pd.DataFrame) -> list[tuple[str, str, list[str]]]:
    """Format the columns of a table of settings.

    Args:
        shown: Rows as `describe` returns them.

    Returns:
        For each column both lines of its heading, and its cells as text.
    """
    is_partial = _is_partial(shown)
    marks = np.where(is_partial, "*", " " if is_partial.any() else "")
    return [
        ("runs", "ok", [f"{ok} of {runs}" for ok, runs in zip(shown["runs_ok"], shown["runs"], strict=True)]),
        ("final return", "IQM [95%]", [a + b for a, b in zip(with_intervals(shown, FINAL), marks, strict=True)]),
        ("median", "return", _numbers(shown["final_return_median"])),
        ("area under curve", "IQM [95%]", with_intervals(shown, AREA)),
        ("", "solved", ["-" if math.isnan(share) else f"{share:.0%}" for share in shown["solved_fraction"]]),
        ("env steps", "to solve", _env_steps(shown)),
        ("P(best", "improves)", ["-" if math.isnan(share) else f"{share:.2f}" for share in shown["best_improves"]]),
    ]


def _is_partial(frame: pd.DataFrame) -> Any:
    """Rows whose final returns are over fewer runs than there are."""
    return (frame["runs_final"] < frame["runs"]) & (frame["runs_final"] > 0)


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


def _interquartile_mean_or_nan(values: np.ndarray) -> float:
    return float(interquartile_mean(values)) if len(values) else math.nan


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def with_intervals(frame: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Format three columns as `mean [low, high]`, the parts below one another.

    Args:
        frame: A table with the columns.
        columns: Names of the columns of means, lower and upper ends.

    Returns:
        A text for each row; without an interval where the lower end is NaN.
    """
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


def _env_steps(shown: pd.DataFrame) -> list[str]:
    """Median env steps to solve of the runs that were solved, as text."""
    return [
        "-" if math.isnan(share) else f"{steps:.0f}" if share else "never"
        for share, steps in zip(shown["solved_fraction"], shown["solved_env_steps_median"], strict=True)
    ]


def _aligned(column: tuple[str, str, list[str]]) -> list[str]:
    """Both lines of the heading and the cells of a column, as wide as one another."""
    upper, lower, cells = column
    width = max(map(len, [upper, lower, *cells]))
    return [text.rjust(width) for text in (upper, lower, *cells)]
