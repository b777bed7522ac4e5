"""Pure functions from the logs of training to the rows of episodes.csv and metrics.csv.

    state = init(spec)
    state, rows = record(spec, state, start, log, ...)    after every chunk
    state, rows = close(spec, state)                      when nothing will follow

`record` assumes nothing about the future: the row of an interval is returned once the next iteration has begun, or the
run has ended before it. `close` returns the rows that are left. So a checkpoint taken before `close` is that of a
training that continues, and a larger budget gives the rows of a training that had it from the start.

Rows do not depend on how training was cut into chunks: whatever is summed is summed in one order, entry after entry.
What is kept is bounded: the returns of each run's last 100 episodes, and sums over the interval that is still open.
Everything is done for all runs at once, as arrays: events are the episodes that ended in a chunk, sorted by run.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

WINDOW = 100
MAX_BINS = 256
ROWS_AT_ONCE = 16384

EPISODE_COLUMNS = ("run", "seed", "episode", "env_steps", "return", "length")

METRIC_COLUMNS = (
    "run", "seed", "iteration", "env_steps", "episodes", "return_mean", "return_min", "return_max", "return_100",
    "eval_return",
)  # fmt: skip

Table = dict[str, np.ndarray]


class RunStats(NamedTuple):
    """Statistics of runs so far, one entry per run [runs].

    Attributes:
        episodes: Number of finished episodes.
        env_steps: Number of env steps, counting all actors.
        solved_at_steps: Env steps at the end of the episode that completed the first full window at or above the
            threshold, -1 where there was none.
        return_100: Mean return of the last 100 episodes, NaN where there were fewer.
        area: Area under the curve of return_mean in metrics.csv, divided by its env steps. An interval in which no
            episode ended has the value of the one before; those before the first that ended are left out. NaN where
            there is no other, or a return is NaN.
        is_over: Whether the run has ended.
        recent_return: Mean return of the last episodes, up to 100 of them, NaN where none has ended.
    """

    episodes: np.ndarray
    env_steps: np.ndarray
    solved_at_steps: np.ndarray
    return_100: np.ndarray
    area: np.ndarray
    is_over: np.ndarray
    recent_return: np.ndarray

    @property
    def has_begun(self) -> np.ndarray:
        """Whether each run has taken a step, [runs]."""
        return self.env_steps > 0

    @staticmethod
    def empty(runs: int) -> RunStats:
        """Return the statistics of runs that have not begun.

        Args:
            runs: Number of runs.

        Returns:
            The statistics.
        """
        zeros, unknown = np.zeros(runs, np.int64), np.full(runs, np.nan)
        return RunStats(zeros, zeros.copy(), zeros - 1, unknown, unknown.copy(), np.zeros(runs, bool), unknown.copy())


class Tally(NamedTuple):
    """Histogram of whole numbers.

    The width of bins is 1 and doubles whenever there would be more than MAX_BINS bins, so memory stays bounded.

    Attributes:
        width: Width of a bin.
        counts: Number of values in each bin, by the first number of the bin.
    """

    width: int
    counts: dict[int, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the histogram in the form of summary.json."""
        return {"bin_width": self.width, "counts": dict(sorted(self.counts.items()))}


EMPTY_TALLY = Tally(1, {})


def add_to_tally(tally: Tally, values: np.ndarray) -> Tally:
    """Count whole numbers in a histogram.

    Args:
        tally: The histogram.
        values: Whole numbers, of any shape.

    Returns:
        The histogram with the numbers.
    """
    numbers, counts = np.unique(values // tally.width * tally.width, return_counts=True)
    return merge_tallies(tally, Tally(tally.width, dict(zip(numbers.tolist(), counts.tolist(), strict=True))))


def merge_tallies(one: Tally, other: Tally) -> Tally:
    """Add two histograms.

    Args:
        one: The first histogram.
        other: The second histogram.

    Returns:
        The histogram of what both have counted.
    """
    width, counts = max(one.width, other.width), _in_bins(one, max(one.width, other.width))
    for value, count in _in_bins(other, width).items():
        counts[value] = counts.get(value, 0) + count
    while len(counts) > MAX_BINS:
        width *= 2
        counts = _in_bins(Tally(width // 2, counts), width)
    return Tally(width, counts)


def _in_bins(tally: Tally, width: int) -> dict[int, int]:
    """Convert the counts of a histogram to bins of a larger width."""
    counts: dict[int, int] = {}
    for value, count in tally.counts.items():
        start = int(value) // width * width
        counts[start] = counts.get(start, 0) + int(count)
    return counts


def pack_tallies(tallies: dict[str, Tally]) -> dict[str, Any]:
    """Convert histograms to values that JSON can hold.

    Args:
        tallies: Histograms by name.

    Returns:
        Lists and numbers by name.
    """
    return {name: [tally.width, list(tally.counts.items())] for name, tally in tallies.items()}


def unpack_tallies(packed: dict[str, Any]) -> dict[str, Tally]:
    """Restore histograms from the values that `pack_tallies` returned.

    Args:
        packed: Lists and numbers by name.

    Returns:
        Histograms by name.
    """
    return {
        name: Tally(int(width), {int(value): int(count) for value, count in counts})
        for name, (width, counts) in packed.items()
    }


class MetricsSpec(NamedTuple):
    """Constants on which the rows of a batch of runs depend.

    Attributes:
        runs: The runs' numbers, as they stand in rows [runs].
        seeds: Their seeds [runs].
        steps: Env steps of one iteration.
        log_every: Env steps of a logging interval.
        max_episodes: A budget of episodes, beyond which rows are dropped; None for another budget.
        solved_at: The mean return over 100 episodes that counts as solved; None for none.
    """

    runs: np.ndarray
    seeds: np.ndarray
    steps: int
    log_every: int
    max_episodes: int | None
    solved_at: float | None


class MetricsState(NamedTuple):
    """State that `record` keeps from chunk to chunk, [runs, ...] each; it is never changed in place.

    Attributes:
        episodes: Number of finished episodes.
        env_steps: Env steps at the end of the run's last iteration.
        solved_at_steps: As in RunStats.
        is_over: Whether the run has ended.
        recent: Returns of its last 100 episodes, the newest last.
        area: Sum of return_mean times env steps over the rows returned so far.
        area_steps: The env steps of these rows.
        last_mean: The mean return that an interval without episodes takes over.
        closed_at: Env steps at the last row.
        counted: Episodes at the last row.
        eval_return: Result of an evaluation that belongs in the run's next row, NaN for none.
        is_open: Whether the run's last iteration belongs to no row yet.
        interval: Sums over the interval that the last iteration belongs to, by name.
        tallies: Histograms of the metrics that are vectors of whole numbers, over all runs.
    """

    episodes: np.ndarray
    env_steps: np.ndarray
    solved_at_steps: np.ndarray
    is_over: np.ndarray
    recent: np.ndarray
    area: np.ndarray
    area_steps: np.ndarray
    last_mean: np.ndarray
    closed_at: np.ndarray
    counted: np.ndarray
    eval_return: np.ndarray
    is_open: np.ndarray
    interval: Table
    tallies: dict[str, Tally]


class Rows(NamedTuple):
    """Rows of episodes.csv and metrics.csv, column by column, in order of env steps and run."""

    episodes: Table
    metrics: Table


class Events(NamedTuple):
    """Episodes that ended, sorted by run and then by step and actor, [events] each.

    Attributes:
        run: Index of the run within the batch.
        iteration: Index of the iteration within the chunk.
        number: Number of the episode within its run, from 1.
        env_steps: Env steps of the run at the end of the episode.
        returns: Return of the episode.
        length: Length of the episode in steps.
    """

    run: np.ndarray
    iteration: np.ndarray
    number: np.ndarray
    env_steps: np.ndarray
    returns: np.ndarray
    length: np.ndarray


class History(NamedTuple):
    """Returns around a chunk: every run's last 100 before it, then its new ones, run after run.

    Attributes:
        returns: The returns, [100 * runs + events].
        starts: Where each run's returns start, [runs].
        ends: Where they end, [runs].
        new: How many of them are new, [runs].
    """

    returns: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    new: np.ndarray

    def window_means(self, first: np.ndarray) -> np.ndarray:
        """Compute the means of windows of 100 returns, some at a time to bound the memory.

        Args:
            first: Where each window starts, [windows].

        Returns:
            The means [windows].
        """
        windows = np.lib.stride_tricks.sliding_window_view(self.returns, WINDOW)
        parts = [windows[first[at : at + ROWS_AT_ONCE]].mean(axis=1) for at in range(0, len(first), ROWS_AT_ONCE)]
        return np.concatenate(parts) if parts else np.empty(0)


def init(spec: MetricsSpec, tallies: dict[str, Tally] | None = None) -> MetricsState:
    """Initialize the state of runs that have not begun.

    Args:
        spec: What rows depend on.
        tallies: Histograms of earlier batches.

    Returns:
        The state.
    """
    count = len(spec.runs)
    zeros, unknown = np.zeros(count), np.full(count, np.nan)
    whole, no = np.zeros(count, np.int64), np.zeros(count, bool)
    recent = np.zeros((count, WINDOW))
    return MetricsState(
        whole, whole, whole - 1, no, recent, zeros, zeros, unknown, whole, whole, unknown, no, {}, tallies or {}
    )


def stats(state: MetricsState) -> RunStats:
    """Compute the statistics of the runs so far.

    Args:
        state: The state after the last chunk.

    Returns:
        The statistics [runs].
    """
    known = state.episodes >= WINDOW
    return RunStats(
        state.episodes,
        state.env_steps,
        state.solved_at_steps,
        np.where(known, state.recent.mean(axis=1), np.nan),
        divide(state.area, state.area_steps),
        state.is_over,
        divide(state.recent.sum(axis=1), np.minimum(state.episodes, WINDOW)),
    )


def record(
    spec: MetricsSpec,
    state: MetricsState,
    start: int,
    log: Any,
    eval_return: np.ndarray | None,
    has_ended: np.ndarray,
) -> tuple[MetricsState, Rows]:
    """Record a chunk of iterations.

    Args:
        spec: What rows depend on.
        state: The state after the chunks before.
        start: The chunk's first iteration.
        log: `purejaxrl.training.loop.Log` of host arrays [iterations, runs, ...].
        eval_return: Mean returns of an evaluation after each run's last iteration [runs], NaN for runs that were not
            evaluated; None where there was none.
        has_ended: Whether each run has ended by itself, [runs].

    Returns:
        The new state, and the rows that the chunk completes.
    """
    is_active = log.active.astype(bool)
    active = is_active.sum(axis=0)
    tallies = dict(state.tallies)
    for name, values in log.metrics.items():
        if values.ndim > 2 and np.issubdtype(values.dtype, np.integer):
            tallies[name] = add_to_tally(tallies.get(name, EMPTY_TALLY), values[is_active])
    events = _find_events(spec, state, start, log, is_active)
    history = _join_history(state, events)
    interval = _intervals(spec, start, len(is_active))
    sums = _sum_intervals(state, interval, log, is_active, events)

    # Iterations -1 .. length - 2 of the chunk, after which a row may be due: -1 is the last one before it.
    is_ongoing = np.vstack([state.is_open, is_active])
    begins_anew = np.diff(interval, prepend=0) > 0
    iteration, run = np.nonzero(is_ongoing[:-1] & (begins_anew[:, None] | ~is_ongoing[1:]))
    row = (np.concatenate([[0], interval])[iteration], run)
    ended = np.cumsum(sums["episodes"], axis=0)[row]
    episodes = state.episodes[run] + ended
    return_100 = np.where(episodes >= WINDOW, history.window_means(history.starts[run] + ended), np.nan)
    metrics = _make_rows(spec, run, start + iteration, episodes, return_100, {name: sums[name][row] for name in sums})
    is_last_of_run = ~is_ongoing[iteration + 1, run] & (iteration > 0)
    metrics["eval_return"], pending = _place_evaluations(state.eval_return, run, is_last_of_run, eval_return)

    state = _add_areas(state, run, metrics)._replace(
        episodes=state.episodes + history.new,
        env_steps=np.where(active > 0, (start + active) * spec.steps, state.env_steps),
        solved_at_steps=_find_solutions(spec, state, events, history),
        is_over=state.is_over | has_ended,
        recent=history.returns[history.ends[:, None] + np.arange(-WINDOW, 0)],
        eval_return=pending,
        is_open=is_active[-1],
        interval={name: values[-1] for name, values in sums.items() if name != "episodes"},
        tallies=tallies,
    )
    order = np.lexsort((events.run, events.env_steps))
    columns = (spec.runs[events.run], spec.seeds[events.run], events.number, *events[3:])
    episode_rows = {name: values[order] for name, values in zip(EPISODE_COLUMNS, columns, strict=True)}
    return state, Rows(episode_rows, metrics)


def close(
    spec: MetricsSpec, state: MetricsState, eval_return: np.ndarray | None = None, is_over: np.ndarray | None = None
) -> tuple[MetricsState, Rows]:
    """Return the rows of intervals that are still open, because nothing will follow.

    Args:
        spec: What rows depend on.
        state: The state after all chunks.
        eval_return: An evaluation of runs whose budget has ended [runs], NaN for the others; None for none.
        is_over: Whether each run has ended, [runs]; None where training was stopped.

    Returns:
        The new state, and the rows; there are no episodes among them.
    """
    nothing = {name: np.empty(0) for name in EPISODE_COLUMNS}
    run = np.nonzero(state.is_open)[0]
    episodes = state.episodes[run]
    return_100 = np.where(episodes >= WINDOW, state.recent[run].mean(axis=1), np.nan)
    sums = {name: values[run] for name, values in state.interval.items()}
    metrics = _make_rows(spec, run, state.env_steps[run] // spec.steps, episodes, return_100, sums)
    metrics["eval_return"], pending = _place_evaluations(state.eval_return, run, np.ones(len(run), bool), eval_return)
    state = _add_areas(state, run, metrics)._replace(eval_return=pending, is_open=np.zeros_like(state.is_open))
    return state if is_over is None else state._replace(is_over=state.is_over | is_over), Rows(nothing, metrics)


def _find_events(spec: MetricsSpec, state: MetricsState, start: int, log: Any, is_active: np.ndarray) -> Events:
    """Find the episodes that ended in a chunk, without those beyond the budget."""
    iteration, run, step, actor = np.nonzero((log.ended.length > 0) & is_active[..., None, None])
    by_run = np.argsort(run, kind="stable")
    iteration, run, step, actor = iteration[by_run], run[by_run], step[by_run], actor[by_run]
    number = state.episodes[run] + _rank_within(run) + 1
    if spec.max_episodes is not None:
        kept = number <= spec.max_episodes
        iteration, run, step, actor, number = (x[kept] for x in (iteration, run, step, actor, number))
    at = (iteration, run, step, actor)
    position = step * log.ended.length.shape[3] + actor
    env_steps = (start + iteration) * spec.steps + position + 1
    returns = log.ended.returns[at].astype(np.float64)
    return Events(run, iteration, number, env_steps, returns, log.ended.length[at].astype(np.int64))


def _join_history(state: MetricsState, events: Events) -> History:
    new = np.bincount(events.run, minlength=len(state.episodes))
    ends = np.cumsum(new + WINDOW)
    starts = ends - new - WINDOW
    returns = np.empty(ends[-1])
    returns[starts[:, None] + np.arange(WINDOW)] = state.recent
    returns[starts[events.run] + WINDOW + _rank_within(events.run)] = events.returns
    return History(returns, starts, ends, new)


def _find_solutions(spec: MetricsSpec, state: MetricsState, events: Events, history: History) -> np.ndarray:
    """Find the env steps at which each run was solved, -1 where it was not.

    A run is solved at the end of its first full window at or above the threshold.
    """
    if spec.solved_at is None:
        return state.solved_at_steps
    candidates = np.nonzero((events.number >= WINDOW) & (state.solved_at_steps[events.run] < 0))[0]
    first = history.starts[events.run] + _rank_within(events.run) + 1
    solved = candidates[history.window_means(first[candidates]) >= spec.solved_at]
    first_of_run = solved[np.unique(events.run[solved], return_index=True)[1]]
    found = state.solved_at_steps.copy()
    found[events.run[first_of_run]] = events.env_steps[first_of_run]
    return found


def _intervals(spec: MetricsSpec, start: int, length: int) -> np.ndarray:
    """The logging interval that each of `length` iterations belongs to, 0 being that of the iteration before them."""
    first = max(start - 1, 0)
    passed = np.arange(first, start + length, dtype=np.int64) * spec.steps // spec.log_every
    return np.cumsum(np.diff(passed) > 0) if start else np.cumsum(np.diff(passed, prepend=0) > 0)


def _sum_intervals(state: MetricsState, interval: np.ndarray, log: Any, is_active: np.ndarray, events: Events) -> Table:
    """Sums over each interval of a chunk and each run [intervals, runs]; the first go on from the open interval."""
    count, intervals = is_active.shape[1], int(interval[-1]) + 1

    def begin(name: str, empty: float) -> np.ndarray:
        table = np.full((intervals, count), empty, np.float64)
        if state.interval:
            table[0] = state.interval[name]
        return table

    sums = {"returns": begin("returns", 0), "known": begin("known", 0), "min": begin("min", np.inf)}
    sums |= {"max": begin("max", -np.inf), "episodes": np.zeros((intervals, count), np.int64)}
    at = (interval[events.iteration], events.run)
    np.add.at(sums["returns"], at, events.returns)
    np.add.at(sums["known"], at, 1.0)
    np.minimum.at(sums["min"], at, events.returns)
    np.maximum.at(sums["max"], at, events.returns)
    np.add.at(sums["episodes"], at, 1)
    for name, values in log.metrics.items():
        values = values.reshape(*is_active.shape, -1).mean(axis=2, dtype=np.float64)
        # An iteration that did not learn reports NaN.
        known = is_active & ~np.isnan(values)
        sums[f"sum {name}"], sums[f"count {name}"] = begin(f"sum {name}", 0), begin(f"count {name}", 0)
        np.add.at(sums[f"sum {name}"], interval, np.where(known, values, 0.0))
        np.add.at(sums[f"count {name}"], interval, known.astype(float))
    return sums


def _make_rows(
    spec: MetricsSpec, run: np.ndarray, iteration: np.ndarray, episodes: np.ndarray, return_100: np.ndarray, sums: Table
) -> Table:
    """Build rows of metrics.csv, one per entry of the arguments; `eval_return` is left unknown.

    Args:
        spec: What rows depend on.
        run: Index of the run within the batch.
        iteration: Number of iterations of the run.
        episodes: Number of its finished episodes.
        return_100: Mean return of its last 100 episodes.
        sums: Sums over the row's interval, by name.

    Returns:
        The rows, column by column.
    """
    unknown = np.full(len(run), np.nan)
    if not len(run):
        sums = {**dict.fromkeys(("returns", "known", "min", "max"), unknown), **sums}
    rows = {
        "run": spec.runs[run],
        "seed": spec.seeds[run],
        "iteration": iteration,
        "env_steps": iteration * spec.steps,
        "episodes": episodes,
        "return_mean": divide(sums["returns"], sums["known"]),
        "return_min": np.where(sums["known"] > 0, sums["min"], np.nan),
        "return_max": np.where(sums["known"] > 0, sums["max"], np.nan),
        "return_100": return_100,
        "eval_return": unknown,
    }
    names = [name.removeprefix("sum ") for name in sums if name.startswith("sum ")]
    return rows | {name: divide(sums[f"sum {name}"], sums[f"count {name}"]) for name in names}


def _place_evaluations(
    pending: np.ndarray, run: np.ndarray, is_last_of_run: np.ndarray, eval_return: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Assign evaluations to rows.

    Args:
        pending: Evaluations that wait for a run's next row, [runs].
        run: Index of each row's run within the batch.
        is_last_of_run: Whether the run has no iteration after the row.
        eval_return: New evaluations [runs]; each belongs in the row that the run's last iteration ends, or waits.

    Returns:
        The evaluation of each row, NaN for none, and those [runs] that wait for the next one.
    """
    is_first = np.zeros(len(run), bool)
    is_first[np.unique(run, return_index=True)[1]] = True
    placed, waiting = np.where(is_first, pending[run], np.nan), pending.copy()
    waiting[run] = np.nan
    if eval_return is not None:
        is_known = ~np.isnan(eval_return)
        is_now = is_last_of_run & is_known[run]
        placed[is_now] = eval_return[run[is_now]]
        is_known[run[is_now]] = False
        waiting[is_known] = eval_return[is_known]
    return placed, waiting


def _add_areas(state: MetricsState, run: np.ndarray, rows: Table) -> MetricsState:
    """Add the intervals of rows to the area under each run's learning curve."""
    by_run = np.argsort(run, kind="stable")
    run, env_steps, episodes, return_mean = (
        values[by_run] for values in (run, rows["env_steps"], rows["episodes"], rows["return_mean"])
    )
    is_first = np.diff(run, prepend=-1) > 0
    # A NaN among returns is a return; what an interval without an episode has is none.
    before = np.where(is_first, state.counted[run], np.roll(episodes, 1))
    is_empty = episodes == before
    value = np.where(is_first & is_empty, state.last_mean[run], return_mean)
    value = value[np.maximum.accumulate(np.where(is_first | ~is_empty, np.arange(len(run)), 0))]
    steps = np.diff(env_steps, prepend=0)
    steps[is_first] = (env_steps - state.closed_at[run])[is_first]
    has_begun = episodes > 0
    area, area_steps = state.area.copy(), state.area_steps.copy()
    np.add.at(area, run[has_begun], (value * steps)[has_begun])
    np.add.at(area_steps, run[has_begun], steps[has_begun].astype(float))
    # The last of each run stays.
    last_mean, closed_at, counted = state.last_mean.copy(), state.closed_at.copy(), state.counted.copy()
    last_mean[run], closed_at[run], counted[run] = value, env_steps, episodes
    return state._replace(area=area, area_steps=area_steps, last_mean=last_mean, closed_at=closed_at, counted=counted)


def _rank_within(run: np.ndarray) -> np.ndarray:
    """Count the entries of the same run before each entry."""
    return np.arange(len(run)) - np.searchsorted(run, run)


def area_until(stats: RunStats, env_steps: np.ndarray | int, threshold: float) -> np.ndarray:
    """Compute areas under learning curves where runs end once they are solved.

    Such a run counts as continuing at the threshold: learning sooner must not look worse.

    Args:
        stats: Statistics of the runs.
        env_steps: Env steps to which they would have trained, [runs] or a number.
        threshold: The mean return at which they end.

    Returns:
        The areas, divided by env steps, [runs].
    """
    is_cut = stats.is_over & (stats.solved_at_steps >= 0)
    left = np.where(is_cut, np.maximum(env_steps - stats.env_steps, 0), 0)
    return (stats.area * stats.env_steps + threshold * left) / np.maximum(stats.env_steps + left, 1)


def divide(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Compute total / count, NaN where the count is 0.

    Args:
        total: Sums.
        count: Counts, of the same shape.

    Returns:
        The quotients.
    """
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
