"""From what training reports to the rows of episodes.csv and metrics.csv.

Rows do not depend on how training was cut into chunks: whatever is summed is summed in one order, entry after entry.
What is kept is bounded: the returns of each run's last 100 episodes, and sums over the interval that is still open.
Everything is done for all runs at once, as arrays: events are the episodes that ended in a chunk, sorted by run.
"""

from __future__ import annotations

from collections.abc import Iterable
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

# What a Recorder keeps from chunk to chunk beside the sums of the open interval, which are named after OPEN.
KEPT = (
    "episodes", "env_steps", "solved_at_steps", "is_over", "recent", "area", "area_steps", "last_mean", "closed_at",
    "counted", "eval_return",
)  # fmt: skip
OPEN = "interval/"

Table = dict[str, np.ndarray]


class Records(NamedTuple):
    """What is known of runs so far, one entry per run [runs].

    solved_at_steps: env steps of the episode that completed the first full window at or above the threshold, -1 where
    there was none. return_100: mean return of the last 100 episodes, NaN where there were fewer. area: area under the
    curve of return_mean in metrics.csv, divided by its env steps: an interval in which no episode ended has the value
    of the one before, those before the first that ended are left out; NaN where there is no other, or a return is NaN.
    """

    episodes: np.ndarray
    env_steps: np.ndarray
    solved_at_steps: np.ndarray
    return_100: np.ndarray
    area: np.ndarray
    is_over: np.ndarray

    @property
    def has_begun(self) -> np.ndarray:
        """Whether a run has taken a step, [runs]."""
        return self.env_steps > 0

    @staticmethod
    def empty(runs: int) -> Records:
        """Records of runs that have not begun."""
        zeros, unknown = np.zeros(runs, np.int64), np.full(runs, np.nan)
        return Records(zeros, zeros.copy(), zeros - 1, unknown, unknown.copy(), np.zeros(runs, bool))


class Tally:
    """How often whole numbers came, in bins of `width`: `counts` by the first number of a bin.

    The width is 1 and doubles whenever there would be more than MAX_BINS bins, so memory stays bounded.
    """

    def __init__(self) -> None:
        self.width = 1
        self.counts: dict[int, int] = {}

    def add(self, values: np.ndarray) -> None:
        """Count values of any shape in."""
        self._merge(zip(*np.unique(values // self.width * self.width, return_counts=True), strict=True))
        while len(self.counts) > MAX_BINS:
            self._widen()

    def absorb(self, width: int, counts: dict[int, int]) -> None:
        """Count another tally in."""
        while self.width < width:
            self._widen()
        self._merge((value // self.width * self.width, count) for value, count in counts.items())
        while len(self.counts) > MAX_BINS:
            self._widen()

    def _widen(self) -> None:
        self.width *= 2
        old, self.counts = self.counts, {}
        self._merge((value // self.width * self.width, count) for value, count in old.items())

    def _merge(self, bins: Iterable[tuple[int, int]]) -> None:
        for value, count in bins:
            self.counts[int(value)] = self.counts.get(int(value), 0) + int(count)

    def as_dict(self) -> dict[str, Any]:
        """For summary.json."""
        return {"bin_width": self.width, "counts": dict(sorted(self.counts.items()))}


def pack_tallies(tallies: dict[str, Tally]) -> dict[str, Any]:
    """Tallies as JSON holds them."""
    return {name: [tally.width, list(tally.counts.items())] for name, tally in tallies.items()}


def absorb_tallies(tallies: dict[str, Tally], packed: dict[str, Any]) -> None:
    """Count packed tallies in."""
    for name, (width, counts) in packed.items():
        tallies.setdefault(name, Tally()).absorb(int(width), {int(value): int(count) for value, count in counts})


class Events(NamedTuple):
    """Episodes that ended, sorted by run and then by step and actor.

    run, iteration (within the chunk), number (of the episode, from 1), env_steps, returns, length: [events].
    """

    run: np.ndarray
    iteration: np.ndarray
    number: np.ndarray
    env_steps: np.ndarray
    returns: np.ndarray
    length: np.ndarray


class History(NamedTuple):
    """Returns around a chunk: every run's last 100 before it, then its new ones, run after run.

    returns: [100 * runs + events]. starts, ends: [runs], where each run's lie. new: [runs], how many are new.
    """

    returns: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    new: np.ndarray

    def means(self, first: np.ndarray) -> np.ndarray:
        """Means of the windows of 100 that begin at `first`; some at a time, to bound the memory."""
        windows = np.lib.stride_tricks.sliding_window_view(self.returns, WINDOW)
        parts = [windows[first[at : at + ROWS_AT_ONCE]].mean(axis=1) for at in range(0, len(first), ROWS_AT_ONCE)]
        return np.concatenate(parts) if parts else np.empty(0)


class Recorder:
    """Turns the chunks of a batch of runs into rows.

    Vectors of whole numbers among the metrics are counted into `tallies` by name.

    runs, seeds: [runs], as they shall stand in rows. steps: env steps of one iteration. log_every: env steps of a
    logging interval. max_episodes: an episode budget, beyond which rows are dropped. solved_at: the mean return over
    100 episodes that counts as solved.
    """

    def __init__(
        self,
        runs: np.ndarray,
        seeds: np.ndarray,
        steps: int,
        log_every: int,
        max_episodes: int | None,
        solved_at: float | None,
        tallies: dict[str, Tally] | None = None,
    ) -> None:
        self.runs, self.seeds, self.steps, self.log_every = runs, seeds, steps, log_every
        self.max_episodes, self.solved_at = max_episodes, solved_at
        self.tallies = {} if tallies is None else tallies
        count = len(runs)
        self.episodes, self.env_steps = np.zeros((2, count), np.int64)
        self.solved_at_steps = np.full(count, -1, np.int64)
        self.is_over = np.zeros(count, bool)
        self.recent = np.zeros((count, WINDOW))
        self.area, self.area_steps = np.zeros((2, count))
        self.last_mean = np.full(count, np.nan)
        self.closed_at, self.counted = np.zeros((2, count), np.int64)
        self.eval_return = np.full(count, np.nan)
        self.interval: Table = {}

    def arrays(self) -> Table:
        """All that it has kept, by name: copies, [runs, ...] each."""
        kept = {name: getattr(self, name).copy() for name in KEPT}
        return kept | {OPEN + name: values.copy() for name, values in self.interval.items()}

    def restore(self, arrays: Table) -> None:
        """Go on from what another one had kept."""
        for name in KEPT:
            setattr(self, name, arrays[name])
        self.interval = {name.removeprefix(OPEN): arrays[name] for name in arrays if name.startswith(OPEN)}

    def records(self) -> Records:
        """What is known of the runs by now."""
        known = self.episodes >= WINDOW
        return Records(
            self.episodes,
            self.env_steps,
            self.solved_at_steps,
            np.where(known, self.recent.mean(axis=1), np.nan),
            divide(self.area, self.area_steps),
            self.is_over,
        )

    def add(
        self, start: int, log: Any, eval_return: np.ndarray | None, is_over: np.ndarray, is_last: bool = False
    ) -> tuple[Table, Table]:
        """Rows that a chunk completes, for episodes.csv and metrics.csv, in order of env steps and run.

        start: the chunk's first iteration. log: `Log` of host arrays [length, runs, ...]. eval_return: [runs], if an
        evaluation followed the chunk, NaN for runs that it left out. is_over: [runs], whether the run has ended by now,
        so that its open interval is closed; with is_last, as nothing will follow, all are.
        """
        is_active = log.active.astype(bool)
        active = is_active.sum(axis=0)
        for name, values in log.metrics.items():
            if values.ndim > 2 and np.issubdtype(values.dtype, np.integer):
                self.tallies.setdefault(name, Tally()).add(values[is_active])
        events = self._events(start, log, is_active)
        history = self._history(events)
        self._look_for_solution(events, history)
        iteration, run = self._closings(start, active, len(is_active), is_over | is_last)
        metric_rows = self._metric_rows(start, iteration, run, log, is_active, events, history)
        metric_rows["eval_return"] = self._place_evaluations(run, iteration == active[run] - 1, eval_return)
        self._add_areas(run, metric_rows)

        self.episodes += history.new
        self.env_steps = np.where(active > 0, (start + active) * self.steps, self.env_steps)
        self.recent = history.returns[history.ends[:, None] + np.arange(-WINDOW, 0)]
        self.is_over = self.is_over | is_over

        order = np.lexsort((events.run, events.env_steps))
        columns = (self.runs[events.run], self.seeds[events.run], events.number, *events[3:])
        episode_rows = {name: values[order] for name, values in zip(EPISODE_COLUMNS, columns, strict=True)}
        return episode_rows, metric_rows

    def _events(self, start: int, log: Any, is_active: np.ndarray) -> Events:
        """The episodes that ended in a chunk, but for those beyond the budget."""
        iteration, run, step, actor = np.nonzero((log.ended.length > 0) & is_active[..., None, None])
        by_run = np.argsort(run, kind="stable")
        iteration, run, step, actor = iteration[by_run], run[by_run], step[by_run], actor[by_run]
        number = self.episodes[run] + rank_within(run) + 1
        if self.max_episodes is not None:
            kept = number <= self.max_episodes
            iteration, run, step, actor, number = (x[kept] for x in (iteration, run, step, actor, number))
        at = (iteration, run, step, actor)
        position = step * log.ended.length.shape[3] + actor
        env_steps = (start + iteration) * self.steps + position + 1
        returns = log.ended.returns[at].astype(np.float64)
        return Events(run, iteration, number, env_steps, returns, log.ended.length[at].astype(np.int64))

    def _history(self, events: Events) -> History:
        new = np.bincount(events.run, minlength=len(self.runs))
        ends = np.cumsum(new + WINDOW)
        starts = ends - new - WINDOW
        returns = np.empty(ends[-1])
        returns[starts[:, None] + np.arange(WINDOW)] = self.recent
        returns[starts[events.run] + WINDOW + rank_within(events.run)] = events.returns
        return History(returns, starts, ends, new)

    def _look_for_solution(self, events: Events, history: History) -> None:
        """Note the first full window of each run that is at or above the threshold."""
        if self.solved_at is None:
            return
        candidates = np.nonzero((events.number >= WINDOW) & (self.solved_at_steps[events.run] < 0))[0]
        first = history.starts[events.run] + rank_within(events.run) + 1
        solved = candidates[history.means(first[candidates]) >= self.solved_at]
        first_of_run = solved[np.unique(events.run[solved], return_index=True)[1]]
        self.solved_at_steps[events.run[first_of_run]] = events.env_steps[first_of_run]

    def _interval_of(self, start: int, length: int) -> np.ndarray:
        """The logging interval that each of `length` iterations and the next one belong to, 0 being the open one."""
        passed = (start + np.arange(length + 1, dtype=np.int64)) * self.steps // self.log_every
        return np.cumsum(np.diff(passed, prepend=passed[0]) > 0)

    def _closings(
        self, start: int, active: np.ndarray, length: int, is_closing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Iteration (within the chunk) and run of every interval that ends in it, in this order.

        Intervals end at fixed env steps, and with the last of a run's `active` iterations where it is closing.
        """
        closes = np.diff(self._interval_of(start, length)) > 0
        iterations = np.arange(length)[:, None]
        is_end = closes[:, None] | (is_closing & (iterations == active - 1))
        iteration, run = np.nonzero(is_end & (iterations < active))
        return iteration, run

    def _metric_rows(
        self,
        start: int,
        iteration: np.ndarray,
        run: np.ndarray,
        log: Any,
        is_active: np.ndarray,
        events: Events,
        history: History,
    ) -> Table:
        """The rows of intervals that end with some iterations of some runs. `eval_return` is left unknown."""
        interval_of = self._interval_of(start, len(is_active))
        sums = self._sum_intervals(int(interval_of[-1]) + 1, interval_of[:-1], log, is_active, events)
        row = (interval_of[iteration], run)
        ended = np.cumsum(sums["episodes"], axis=0)[row]
        episodes = self.episodes[run] + ended
        known = sums["known"][row] > 0
        rows = {
            "run": self.runs[run],
            "seed": self.seeds[run],
            "iteration": start + iteration + 1,
            "env_steps": (start + iteration + 1) * self.steps,
            "episodes": episodes,
            "return_mean": divide(sums["returns"][row], sums["known"][row]),
            "return_min": np.where(known, sums["min"][row], np.nan),
            "return_max": np.where(known, sums["max"][row], np.nan),
            "return_100": np.where(episodes >= WINDOW, history.means(history.starts[run] + ended), np.nan),
            "eval_return": np.full(len(run), np.nan),
        }
        rows |= {name: divide(sums[f"sum {name}"][row], sums[f"count {name}"][row]) for name in log.metrics}
        self.interval = {name: values[-1] for name, values in sums.items() if name != "episodes"}
        return rows

    def _place_evaluations(self, run: np.ndarray, is_last: np.ndarray, eval_return: np.ndarray | None) -> np.ndarray:
        """The evaluation that each row tells of, NaN for none: one stands in the run's row that closes next.

        run: of each row. is_last: whether the row ends with the run's last iteration in the chunk, which an evaluation
        [runs] follows, if there was one.
        """
        is_first = np.zeros(len(run), bool)
        is_first[np.unique(run, return_index=True)[1]] = True
        placed = np.where(is_first, self.eval_return[run], np.nan)
        self.eval_return[run] = np.nan
        if eval_return is not None:
            is_known = ~np.isnan(eval_return)
            is_now = is_last & is_known[run]
            placed[is_now] = eval_return[run[is_now]]
            is_known[run[is_now]] = False
            self.eval_return[is_known] = eval_return[is_known]
        return placed

    def _add_areas(self, run: np.ndarray, rows: Table) -> None:
        """Add the intervals of some rows, whose runs are given, to the area under each run's curve."""
        by_run = np.argsort(run, kind="stable")
        run, env_steps, episodes, return_mean = (
            values[by_run] for values in (run, rows["env_steps"], rows["episodes"], rows["return_mean"])
        )
        is_first = np.diff(run, prepend=-1) > 0
        # A NaN among returns is a return; what an interval without an episode has is none.
        before = np.where(is_first, self.counted[run], np.roll(episodes, 1))
        is_empty = episodes == before
        value = np.where(is_first & is_empty, self.last_mean[run], return_mean)
        value = value[np.maximum.accumulate(np.where(is_first | ~is_empty, np.arange(len(run)), 0))]
        steps = np.diff(env_steps, prepend=0)
        steps[is_first] = (env_steps - self.closed_at[run])[is_first]
        has_begun = episodes > 0
        np.add.at(self.area, run[has_begun], (value * steps)[has_begun])
        np.add.at(self.area_steps, run[has_begun], steps[has_begun].astype(float))
        # The last of each run stays.
        self.last_mean[run], self.closed_at[run], self.counted[run] = value, env_steps, episodes

    def _sum_intervals(
        self, intervals: int, interval_of: np.ndarray, log: Any, is_active: np.ndarray, events: Events
    ) -> Table:
        """Sums over each interval of a chunk and each run [intervals, runs]; the first go on from the open interval."""
        count = len(self.runs)

        def begin(name: str, empty: float) -> np.ndarray:
            table = np.full((intervals, count), empty, np.float64)
            if self.interval:
                table[0] = self.interval[name]
            return table

        sums = {"returns": begin("returns", 0), "known": begin("known", 0), "min": begin("min", np.inf)}
        sums |= {"max": begin("max", -np.inf), "episodes": np.zeros((intervals, count), np.int64)}
        at = (interval_of[events.iteration], events.run)
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
            np.add.at(sums[f"sum {name}"], interval_of, np.where(known, values, 0.0))
            np.add.at(sums[f"count {name}"], interval_of, known.astype(float))
        return sums


def rank_within(run: np.ndarray) -> np.ndarray:
    """How many entries of the same run stand before each; `run` is sorted."""
    return np.arange(len(run)) - np.searchsorted(run, run)


def divide(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """total / count, NaN where there is nothing."""
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
