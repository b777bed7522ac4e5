"""From what training reports to the rows of episodes.csv and metrics.csv.

Rows do not depend on how training was cut into chunks: an interval's numbers are averaged at once when it is complete.
What is kept is bounded: the returns of each run's last 100 episodes, and the interval that is still open.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

WINDOW = 100
MAX_BINS = 256


class EpisodeRow(NamedTuple):
    """A line of episodes.csv. `episode` and `env_steps` count from 1."""

    run: int
    seed: int
    episode: int
    env_steps: int
    returns: float
    length: int


@dataclasses.dataclass
class RunRecord:
    """What is known of one run so far; `interval_` fields belong to the logging interval that is still open."""

    episodes: int = 0
    env_steps: int = 0
    solved_at_steps: int | None = None
    last_returns: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0))
    eval_return: float = np.nan
    interval_returns: list[np.ndarray] = dataclasses.field(default_factory=list)
    interval_metrics: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)

    @property
    def return_100(self) -> float:
        """Mean return of the last 100 episodes; NaN before there are so many."""
        return float(np.mean(self.last_returns)) if len(self.last_returns) == WINDOW else np.nan


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
            self.width *= 2
            old, self.counts = self.counts, {}
            self._merge((value // self.width * self.width, count) for value, count in old.items())

    def _merge(self, bins: Iterable[tuple[int, int]]) -> None:
        for value, count in bins:
            self.counts[int(value)] = self.counts.get(int(value), 0) + int(count)

    def as_dict(self) -> dict[str, Any]:
        """For summary.json."""
        return {"bin_width": self.width, "counts": dict(sorted(self.counts.items()))}


class Recorder:
    """Turns the chunks of a training into rows.

    Vectors of whole numbers among the metrics are tallied over all runs, `tallies` by name.

    steps: env steps of one iteration. log_every: env steps of a logging interval. max_episodes: an episode budget,
    beyond which rows are dropped. solved_at: the mean return over 100 episodes that counts as solved.
    """

    def __init__(
        self, seeds: list[int], steps: int, log_every: int, max_episodes: int | None, solved_at: float | None
    ) -> None:
        self.seeds, self.steps, self.log_every = seeds, steps, log_every
        self.max_episodes, self.solved_at = max_episodes, solved_at
        self.runs = [RunRecord() for _ in seeds]
        self.tallies: dict[str, Tally] = {}

    def add(
        self, start: int, log: Any, eval_return: np.ndarray | None, is_over: np.ndarray
    ) -> tuple[list[EpisodeRow], list[dict[str, Any]]]:
        """Rows that a chunk completes, for episodes.csv and metrics.csv, in order of env steps and run.

        start: the chunk's first iteration. log: `Log` of host arrays [length, runs, ...]. eval_return: [runs], if an
        evaluation followed the chunk, NaN for runs that it left out. is_over: [runs], whether the run has ended by now,
        so that its open interval is closed.
        """
        for name, values in log.metrics.items():
            if values.ndim > 2 and np.issubdtype(values.dtype, np.integer):
                self.tallies.setdefault(name, Tally()).add(values[log.active.astype(bool)])
        episode_rows: list[EpisodeRow] = []
        metric_rows: list[dict[str, Any]] = []
        for run, record in enumerate(self.runs):
            active = int(np.sum(log.active[:, run]))
            for first, last, is_closed in self._segments(start, active, bool(is_over[run])):
                episode_rows += self._take(run, start, first, last, log)
                if last == active and eval_return is not None and not np.isnan(eval_return[run]):
                    record.eval_return = float(eval_return[run])
                if is_closed:
                    metric_rows.append(self._close(run, start + last))
        episode_rows.sort(key=lambda row: (row.env_steps, row.run))
        metric_rows.sort(key=lambda row: (row["iteration"], row["run"]))
        return episode_rows, metric_rows

    def _segments(self, start: int, active: int, is_over: bool) -> Iterator[tuple[int, int, bool]]:
        """Cut a chunk's first `active` iterations where intervals close: (first, last + 1, whether one closes)."""
        ends = (start + 1 + np.arange(active, dtype=np.int64)) * self.steps
        closes = ends // self.log_every > (ends - self.steps) // self.log_every
        if active:
            closes[-1] |= is_over
        first = 0
        for last in np.nonzero(closes)[0] + 1:
            yield first, int(last), True
            first = int(last)
        if first < active:
            yield first, active, False

    def _take(self, run: int, start: int, first: int, last: int, log: Any) -> list[EpisodeRow]:
        """Count iterations first .. last - 1 of a chunk in."""
        record = self.runs[run]
        lengths = log.ended.length[first:last, run].ravel()
        ended = np.nonzero(lengths)[0]
        if self.max_episodes is not None:
            ended = ended[: self.max_episodes - record.episodes]
        returns = log.ended.returns[first:last, run].ravel()[ended].astype(np.float64)
        env_steps = (start + first) * self.steps + ended.astype(np.int64) + 1
        rows = [
            EpisodeRow(run, self.seeds[run], record.episodes + i, int(at), float(total), int(length))
            for i, (at, total, length) in enumerate(zip(env_steps, returns, lengths[ended], strict=True), start=1)
        ]
        self._look_for_solution(record, returns, env_steps)
        record.episodes += len(rows)
        record.env_steps = (start + last) * self.steps
        record.interval_returns.append(returns)
        record.interval_metrics.append({name: value[first:last, run] for name, value in log.metrics.items()})
        return rows

    def _look_for_solution(self, record: RunRecord, returns: np.ndarray, env_steps: np.ndarray) -> None:
        """Move the window of 100 episodes over new returns; note the first that is at or above the threshold."""
        history = np.concatenate([record.last_returns, returns])
        record.last_returns = history[-WINDOW:]
        if self.solved_at is None or record.solved_at_steps is not None or len(history) < WINDOW or not len(returns):
            return
        windows = np.lib.stride_tricks.sliding_window_view(history, WINDOW)[-len(returns) :]
        solved = np.nonzero(windows.mean(axis=1) >= self.solved_at)[0]
        if len(solved):
            record.solved_at_steps = int(env_steps[len(env_steps) - len(windows) + solved[0]])

    def _close(self, run: int, iteration: int) -> dict[str, Any]:
        """The row of the open interval, which ends after `iteration` iterations; then start a new one."""
        record = self.runs[run]
        returns = np.concatenate(record.interval_returns)
        row: dict[str, Any] = {
            "run": run,
            "seed": self.seeds[run],
            "iteration": iteration,
            "env_steps": iteration * self.steps,
            "episodes": record.episodes,
            "return_mean": returns.mean() if len(returns) else np.nan,
            "return_min": returns.min() if len(returns) else np.nan,
            "return_max": returns.max() if len(returns) else np.nan,
            "return_100": record.return_100,
            "eval_return": record.eval_return,
        }
        for name in record.interval_metrics[0]:
            row[name] = mean_of_known(np.concatenate([part[name] for part in record.interval_metrics]))
        record.eval_return, record.interval_returns, record.interval_metrics = np.nan, [], []
        return row


def mean_of_known(values: np.ndarray) -> float:
    """Mean of the entries that are not NaN (an iteration that did not learn reports NaN); NaN where there is none."""
    known = values[~np.isnan(values)]
    return float(known.mean(dtype=np.float64)) if len(known) else np.nan
