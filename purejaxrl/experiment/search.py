"""Methods that search for the best of many settings, as pure functions from the results so far to what trains next.

A search is a sequence of rungs. In a rung some settings train with some seeds each, up to a number of env steps per
run; runs that have trained in the rung before go on where they were. Nothing here trains, and nothing is random: the
same results always lead to the same rung, so that an interrupted search is repeated from what it has recorded.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from purejaxrl.components.hyperparameters import config, static
from purejaxrl.errors import InputError
from purejaxrl.experiment.intervals import interquartile_mean, interval, student_quantile
from purejaxrl.training.metrics import RunStats, area_until

# Settings, and seeds of each, unless the user says how many.
SETTINGS = 256
SEEDS = 8
OBJECTIVES = ("final_return", "area", "steps_to_solve")
# A rung of no more settings is the last one.
LAST_RUNG = 15
# Parts of the budget after each of which racing compares settings.
SLICES = 10
# Probability that racing drops a setting although it is as good as the best: over all settings and slices.
ERROR_RATE = 0.05


@config
class Search:
    """Options of a search for the best hyperparameters, each with one value.

    `purejaxrl.tune` takes and describes them, with the same defaults.
    """

    settings: int | None = static(
        None, "settings to try, drawn from the space of hyperparameters, 256 unless given", at_least=2, optional=True
    )
    objective: str = static(
        "final_return",
        "final_return: mean return of the last 100 episodes; area: mean return per env step; steps_to_solve: env steps",
        choices=OBJECTIVES,
    )
    method: str = static(
        "halving",
        "halving: the best train on with more seeds; hyperband: halving from several first budgets; racing: settings "
        "are dropped once they are worse; random: all train to the end",
        choices=("halving", "hyperband", "racing", "random"),
    )
    eta: int = static(3, "one setting in so many goes on to the next rung, with so many times the budget", at_least=2)
    confirm_seeds: int = static(32, "fresh seeds that judge the winner and the preset; 0: none", at_least=0)
    time: str | None = static(
        None, "time for everything, as 90s, 2m or 1h, in place of --settings and a budget", kind=str, optional=True
    )


class SearchSpec(NamedTuple):
    """Constants on which a search depends.

    Attributes:
        method: One of the methods of `Search`.
        objective: One of OBJECTIVES.
        settings: Number of settings.
        seeds: Greatest number of seeds of a setting.
        env_steps: The full budget of a run.
        iteration: Env steps of the longest iteration of any setting.
        eta: Of so many settings one goes on.
        kept: How many settings go on to each rung of halving after the first, where time has decided that; others
            follow from eta.
        stop_at: Mean return at which a run ends as solved, None if it does not.
    """

    method: str
    objective: str
    settings: int
    seeds: int
    env_steps: int
    iteration: int
    eta: int
    kept: tuple[int, ...] = ()
    stop_at: float | None = None


class Rung(NamedTuple):
    """What trains next.

    Attributes:
        settings: The settings, in order.
        seeds: Number of seeds of each, counted from the first.
        env_steps: Env steps up to which each run trains.
    """

    settings: tuple[int, ...]
    seeds: int
    env_steps: int


class RungResult(NamedTuple):
    """What has become of a rung.

    Attributes:
        rung: The rung.
        worth: Value of each run by the objective, higher is better, -inf for a run that diverged or has no value yet,
            [settings, seeds].
        returns: Mean return of each setting, by which ties are decided, -inf where it is not known, [settings].
    """

    rung: Rung
    worth: np.ndarray
    returns: np.ndarray


class Score(NamedTuple):
    """Score of a setting, in the unit of the objective.

    Attributes:
        value: Interquartile mean over its seeds, NaN where too many of them diverged or have no value yet.
        low: Lower end of its 95% bootstrap interval, NaN with one seed.
        high: Upper end.
    """

    value: float
    low: float
    high: float


class Step(NamedTuple):
    """Size of a rung of successive halving: the number of settings, their seeds, and env steps per run."""

    settings: int
    seeds: int
    env_steps: int


def check_search(spec: SearchSpec) -> None:
    """Check that a search can be divided into rungs.

    Args:
        spec: The search.

    Raises:
        InputError: If the budget is too small, or there are too few seeds for the method.
    """
    if spec.method == "racing" and spec.seeds < 2:
        raise InputError(f"--method: racing compares intervals over seeds; give --seeds 2 or more, not {spec.seeds}")
    parts = 2 if spec.method == "racing" else spec.eta
    is_divided = spec.method == "racing" or (spec.method != "random" and spec.settings >= 2 * spec.eta)
    if is_divided and spec.env_steps < parts * spec.iteration:
        raise InputError(
            f"--env_steps: {spec.env_steps} does not divide into rungs; {spec.method} takes at least "
            f"{parts * spec.iteration}, {parts} iterations of {spec.iteration} env steps"
        )


def next_rung(spec: SearchSpec, results: Sequence[RungResult]) -> Rung | None:
    """Decide what trains next.

    Args:
        spec: The search.
        results: The rungs so far, in order.

    Returns:
        The next rung, None where the search has ended.
    """
    everything = tuple(range(spec.settings))
    if spec.method == "halving":
        return halve(spec, everything, ladder(spec), results)
    if spec.method == "hyperband":
        return hyperband(spec, results)
    if spec.method == "racing":
        return race(spec, results)
    return None if results else Rung(everything, spec.seeds, spec.env_steps)


def ladder(spec: SearchSpec) -> list[Step]:
    """Plan the rungs of successive halving.

    The last rung has the full budget, all seeds, and up to LAST_RUNG settings where the budget divides so often; each
    rung before has eta times the settings, 1 / eta of the budget, and half of the seeds (Jamieson and Talwalkar 2016,
    arXiv:1502.07943).

    Args:
        spec: The search.

    Returns:
        The rungs; two at least where there are 2 eta settings or more.
    """
    most = 1
    while spec.env_steps // spec.eta**most >= spec.iteration:
        most += 1
    wanted = 2 if spec.settings >= 2 * spec.eta else 1
    while -(-spec.settings // spec.eta ** (wanted - 1)) > LAST_RUNG:
        wanted += 1
    return steps_of(spec, spec.settings, min(wanted, most))


def steps_of(spec: SearchSpec, settings: int, rungs: int) -> list[Step]:
    """Plan a number of rungs of successive halving that begins with some settings.

    Args:
        spec: The search.
        settings: Number of settings of the first rung.
        rungs: Number of rungs.

    Returns:
        The rungs.
    """
    return [
        Step(
            -(-settings // spec.eta**rung),
            -(-spec.seeds // 2 ** (rungs - 1 - rung)),
            spec.env_steps // spec.eta ** (rungs - 1 - rung),
        )
        for rung in range(rungs)
    ]


def halve(
    spec: SearchSpec, settings: tuple[int, ...], steps: Sequence[Step], results: Sequence[RungResult]
) -> Rung | None:
    """Decide what trains next in successive halving: the best of the rung before.

    Args:
        spec: The search.
        settings: The settings of its first rung.
        steps: Its rungs.
        results: Those so far, in order.

    Returns:
        The next rung, None after the last one.
    """
    if len(results) == len(steps):
        return None
    step = steps[len(results)]
    if results:
        last, place = results[-1], len(results) - 1
        count = spec.kept[place] if place < len(spec.kept) else -(-len(last.rung.settings) // spec.eta)
        settings = tuple(sorted(last.rung.settings[best] for best in ranking(last)[:count].tolist()))
    return Rung(settings, step.seeds, step.env_steps)


def brackets(spec: SearchSpec) -> list[tuple[tuple[int, ...], list[Step]]]:
    """Plan the brackets of Hyperband (Li et al. 2018, arXiv:1603.06560, algorithm 1).

    Bracket s = s_max, ..., 0 is successive halving of s + 1 rungs, and so begins with eta^-s of the budget. It gets a
    share of the settings in proportion to (s_max + 1) / (s + 1) eta^s, which makes brackets cost about the same. s_max
    is that of successive halving alone.

    Args:
        spec: The search.

    Returns:
        The settings and the rungs of each bracket; no two brackets share a setting.
    """
    rungs = len(ladder(spec))
    weights = [math.ceil(rungs / count * spec.eta ** (count - 1)) for count in range(rungs, 0, -1)]
    ends = [round(spec.settings * sum(weights[: place + 1]) / sum(weights)) for place in range(rungs)]
    # Where settings are all combinations of lists, neighbours are alike.
    order = np.random.default_rng(0).permutation(spec.settings)
    parts = [tuple(sorted(part.tolist())) for part in np.split(order, ends[:-1])]
    return [
        (part, steps_of(spec, len(part), count)) for part, count in zip(parts, range(rungs, 0, -1), strict=True) if part
    ]


def hyperband(spec: SearchSpec, results: Sequence[RungResult]) -> Rung | None:
    """Decide what trains next in Hyperband: bracket after bracket of successive halving.

    Args:
        spec: The search.
        results: The rungs so far, in order.

    Returns:
        The next rung, None after the last bracket.
    """
    for settings, steps in brackets(spec):
        rung = halve(spec, settings, steps, results[: len(steps)])
        if rung is not None:
            return rung
        results = results[len(steps) :]
    return None


def race(spec: SearchSpec, results: Sequence[RungResult]) -> Rung | None:
    """Decide what trains next in a race: all that are not known to be worse than the best.

    All seeds train through equal slices of the budget. After each, a setting is dropped if its Student-t interval of
    the mean over seeds lies below that of the best setting. With m comparisons, settings left times slices, intervals
    cover with probability 1 - ERROR_RATE / m (Bonferroni).

    Args:
        spec: The search.
        results: The rungs so far, in order.

    Returns:
        The next rung, None after the last slice.
    """
    slices = min(SLICES, spec.env_steps // spec.iteration)
    if len(results) == slices:
        return None
    settings = tuple(range(spec.settings))
    if results:
        last = results[-1]
        settings = tuple(np.array(last.rung.settings)[_is_in_the_race(last.worth, slices)].tolist())
    return Rung(settings, spec.seeds, spec.env_steps * (len(results) + 1) // slices)


def _is_in_the_race(worth: np.ndarray, slices: int) -> np.ndarray:
    """Whether each setting's interval reaches that of the best, [settings]; the best itself always is.

    A setting of which a seed has no value has no interval, and stays as long as it has an interquartile mean.
    """
    count, seeds = worth.shape
    is_known, has_value = np.isfinite(worth).all(axis=1), np.isfinite(interquartile_mean(worth))
    if not is_known.any():
        return has_value if has_value.any() else np.ones(count, bool)
    finite = np.where(is_known[:, None], worth, 0.0)
    mean = np.where(is_known, finite.mean(axis=1), -np.inf)
    quantile = student_quantile(ERROR_RATE / (2 * count * slices), seeds - 1)
    margin = quantile * finite.std(axis=1, ddof=1) / math.sqrt(seeds)
    best = int(np.argmax(mean))
    return np.where(is_known, mean + margin >= mean[best] - margin[best], has_value)


def evaluate(spec: SearchSpec, rung: Rung, stats: RunStats, has_diverged: np.ndarray) -> RungResult:
    """Evaluate the runs of a rung by the objective.

    Args:
        spec: The search.
        rung: The rung.
        stats: Statistics of its runs, one setting after another, [settings * seeds].
        has_diverged: Whether each has diverged, likewise.

    Returns:
        The result. A run that is not solved counts as one that takes twice the budget (penalized average runtime,
        PAR2).
    """
    if spec.objective == "steps_to_solve":
        is_solved = stats.solved_at_steps >= 0
        values = -np.where(is_solved, stats.solved_at_steps, 2 * spec.env_steps).astype(float)
    else:
        areas = stats.area if spec.stop_at is None else area_until(stats, rung.env_steps, spec.stop_at)
        values = areas if spec.objective == "area" else stats.recent_return
    shape = (len(rung.settings), rung.seeds)
    worth, returns = (
        np.where(np.isfinite(one) & ~has_diverged, one, -np.inf).reshape(shape) for one in (values, stats.recent_return)
    )
    return RungResult(rung, worth, returns.mean(axis=1))


def ranking(result: RungResult) -> np.ndarray:
    """Order the settings of a rung.

    Args:
        result: The rung.

    Returns:
        Positions of its settings, best first: by interquartile mean, then by mean return, then as they are numbered.
    """
    return np.lexsort((-result.returns, -interquartile_mean(result.worth)))


def score(spec: SearchSpec, result: RungResult) -> list[Score]:
    """Score the settings of a rung.

    Args:
        spec: The search.
        result: The rung.

    Returns:
        Their scores. Those of steps_to_solve are env steps, of which fewer are better; all others are returns.
    """
    sign = -1.0 if spec.objective == "steps_to_solve" else 1.0
    mean = interquartile_mean(result.worth)
    # The ends are not known where a resample may hold nothing but diverged runs.
    with np.errstate(invalid="ignore"):
        low, high = interval(result.worth)
    is_sure = np.isfinite(low) & np.isfinite(high)
    low, high = np.where(is_sure, low, np.nan), np.where(is_sure, high, np.nan)
    low, high = (-high, -low) if spec.objective == "steps_to_solve" else (low, high)
    figures = np.stack([sign * mean, low, high], axis=1)
    return [Score(*row) for row in np.where(np.isfinite(figures), figures, np.nan).tolist()]


def find_winner(spec: SearchSpec, results: Sequence[RungResult]) -> tuple[int, Score]:
    """Find the best setting among those that have trained for the full budget.

    Args:
        spec: The search.
        results: All rungs.

    Returns:
        The setting and its score.
    """
    last = [result for result in results if result.rung.env_steps == spec.env_steps]
    whole = RungResult(
        last[0].rung._replace(settings=sum((result.rung.settings for result in last), ())),
        np.concatenate([result.worth for result in last]),
        np.concatenate([result.returns for result in last]),
    )
    place = int(ranking(whole)[0])
    return whole.rung.settings[place], score(spec, whole)[place]


def plan_rungs(spec: SearchSpec) -> list[Rung]:
    """Plan the rungs of a search without knowing which settings go on: their sizes are those of the search.

    Args:
        spec: The search.

    Returns:
        The rungs, each with the first settings of those that might go on; of racing, as if none were ever dropped.
    """
    results: list[RungResult] = []
    while (rung := next_rung(spec, results)) is not None:
        shape = (len(rung.settings), rung.seeds)
        results.append(RungResult(rung, np.zeros(shape), np.zeros(shape[0])))
    return [result.rung for result in results]


def keep_in_time(spec: SearchSpec, results: Sequence[RungResult], env_steps: float) -> int:
    """Compute how many settings of successive halving can go on.

    Args:
        spec: The search.
        results: The rungs so far, not all.
        env_steps: Env steps that all following rungs may take.

    Returns:
        The greatest number, at least 2 where there are two.
    """
    steps, last = ladder(spec)[len(results) - 1 :], len(results[-1].rung.settings)
    # What a setting costs that trains on from one rung to the next.
    costs = [
        after.seeds * after.env_steps - before.seeds * before.env_steps for before, after in itertools.pairwise(steps)
    ]
    count = last
    while count > min(2, last):
        if sum(-(-count // spec.eta**rung) * cost for rung, cost in enumerate(costs)) <= env_steps:
            break
        count -= 1
    return count


def count_env_steps(rungs: Sequence[Rung]) -> int:
    """Count the env steps of rungs, where runs go on from the rung before.

    Args:
        rungs: The rungs, in order.

    Returns:
        The number of env steps.
    """
    total, before = 0, Rung((), 0, 0)
    for rung in rungs:
        continued = len(set(rung.settings) & set(before.settings)) * min(rung.seeds, before.seeds)
        total += len(rung.settings) * rung.seeds * rung.env_steps - continued * before.env_steps
        before = rung
    return total
