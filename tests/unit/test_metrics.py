"""Rows against numbers worked out by hand, however training is cut into chunks."""

import copy
import itertools
from typing import NamedTuple

import numpy as np
import pytest

from purejaxrl.training import metrics
from purejaxrl.training.metrics import EMPTY_TALLY, MetricsSpec, Tally, add_to_tally, merge_tallies

YES, NO = np.ones(1, bool), np.zeros(1, bool)


class Ended(NamedTuple):
    returns: np.ndarray
    length: np.ndarray


class Log(NamedTuple):
    ended: Ended
    active: np.ndarray
    metrics: dict


def log_of(lengths, active=None, loss=None):
    """A log [iterations, runs, T, N] whose returns are twice the lengths."""
    length = np.asarray(lengths)
    iterations, runs = length.shape[:2]
    return Log(
        Ended(length * 2.0, length),
        np.ones((iterations, runs), bool) if active is None else np.asarray(active),
        {"loss": np.zeros((iterations, runs)) if loss is None else np.asarray(loss, np.float64)},
    )


class Accumulator:
    """The state of `metrics` from chunk to chunk, of runs 0, 1, ... with seeds 40, 41, ..."""

    def __init__(self, runs=1, **options):
        options = {"max_episodes": None, "solved_at": None, **options}
        self.spec = MetricsSpec(np.arange(runs), 40 + np.arange(runs), **options)
        self.state = metrics.init(self.spec)

    def add(self, start, log, eval_return, is_over):
        """Record a chunk, and close where all runs are over; what was given stays as it was."""
        before = copy.deepcopy(self.state)
        state, rows = metrics.record(self.spec, self.state, start, log, eval_return, is_over)
        np.testing.assert_equal(self.state._asdict(), before._asdict())
        self.state = state
        if not is_over.all():
            return rows
        before = copy.deepcopy(state)
        self.state, last = metrics.close(self.spec, state, is_over=is_over)
        np.testing.assert_equal(state._asdict(), before._asdict())
        joined = {name: np.concatenate([rows.metrics[name], last.metrics[name]]) for name in rows.metrics}
        return rows.episodes, joined

    def stats(self):
        return metrics.stats(self.state)


def rows_of(table):
    """A table's rows, each a dict."""
    return [dict(zip(table, row, strict=True)) for row in zip(*map(np.ndarray.tolist, table.values()), strict=True)]


def cut(log, first, last):
    take = lambda leaf: leaf[first:last]  # noqa: E731
    return Log(
        Ended(take(log.ended.returns), take(log.ended.length)),
        take(log.active),
        {name: take(value) for name, value in log.metrics.items()},
    )


def test_vectors_of_whole_numbers_are_averaged_and_tallied():
    """Two runs; the second has ended after its first iteration, so what it reports afterwards does not count."""
    accumulator = Accumulator(2, steps=1, log_every=2)
    log = log_of(np.zeros((3, 2, 1, 1), int), active=[[1, 1], [1, 0], [1, 0]])
    log.metrics["delay"] = np.array([[[0, 1], [1, 0]], [[3, 3], [9, 9]], [[3, -2], [9, 9]]])
    _, first = accumulator.add(0, cut(log, 0, 2), None, is_over=np.array([False, True]))
    _, second = accumulator.add(2, cut(log, 2, 3), None, is_over=np.ones(2, bool))
    assert [(row["run"], row["iteration"], row["delay"]) for row in rows_of(first) + rows_of(second)] == [
        (1, 1, 0.5),
        (0, 2, 1.75),
        (0, 3, 0.5),
    ]
    assert accumulator.state.tallies["delay"].as_dict() == {"bin_width": 1, "counts": {-2: 1, 0: 2, 1: 2, 3: 3}}


def test_a_tally_stays_small():
    """A thousand different numbers, in pieces: bins of 4, none lost."""
    tally = EMPTY_TALLY
    for piece in np.split(np.arange(-8, 992), 100):
        tally = add_to_tally(tally, np.tile(piece, 2))
    assert tally.width == 4
    assert tally.counts == dict.fromkeys(range(-8, 992, 4), 8)


def test_rows_by_hand():
    # One run, T = 2 steps of N = 2 actors: four env steps per iteration; intervals of 8 env steps.
    lengths = [[[[0, 3], [5, 0]]], [[[0, 0], [0, 0]]], [[[7, 7], [0, 0]]]]
    accumulator = Accumulator(steps=4, log_every=8)
    episodes, rows = accumulator.add(0, log_of(lengths, loss=[[1], [np.nan], [5]]), None, is_over=YES)
    assert list(episodes) == ["run", "seed", "episode", "env_steps", "return", "length"]
    assert [tuple(row.values()) for row in rows_of(episodes)] == [
        (0, 40, 1, 2, 6.0, 3),
        (0, 40, 2, 3, 10.0, 5),
        (0, 40, 3, 9, 14.0, 7),
        (0, 40, 4, 10, 14.0, 7),
    ]
    rows = rows_of(rows)
    assert [row["env_steps"] for row in rows] == [8, 12]
    assert [row["iteration"] for row in rows] == [2, 3]
    assert [row["episodes"] for row in rows] == [2, 4]
    assert [(row["return_mean"], row["return_min"], row["return_max"]) for row in rows] == [(8, 6, 10), (14, 14, 14)]
    assert [row["loss"] for row in rows] == [1, 5]
    assert np.isnan(rows[0]["return_100"])


def test_an_interval_without_an_ended_episode_has_empty_returns():
    accumulator = Accumulator(steps=1, log_every=1)
    (row,) = rows_of(accumulator.add(0, log_of([[[[0]]]]), None, is_over=YES)[1])
    assert np.isnan(row["return_mean"])
    assert np.isnan(row["return_min"])
    assert np.isnan(row["return_max"])


def loop_rows(log, active, steps, log_every, max_episodes, solved_at):
    """What the metrics should be, one event at a time: episode rows, metric rows, solved steps, areas, of every run."""
    length, returns = log.ended.length, log.ended.returns
    episode_rows, metric_rows, solved, areas = [], [], [], []
    for run, iterations in enumerate(active):
        history, since, losses, solved_at_steps, area, closed_at, last_mean = [], [], [], -1, [], 0, None
        for iteration in range(iterations):
            flat = zip(length[iteration, run].ravel(), returns[iteration, run].ravel(), strict=True)
            for position, (episode_length, total) in enumerate(flat):
                if episode_length and len(history) < max_episodes:
                    history.append(total)
                    since.append(total)
                    at = iteration * steps + position + 1
                    episode_rows.append((at, run, 40 + run, len(history), total, episode_length))
                    if len(history) >= 100 and np.mean(history[-100:]) >= solved_at and solved_at_steps < 0:
                        solved_at_steps = at
            losses.append(log.metrics["loss"][iteration, run])
            end = (iteration + 1) * steps
            if end // log_every > (end - steps) // log_every or iteration == iterations - 1:
                known = [loss for loss in losses if not np.isnan(loss)]
                last_mean = np.mean(since) if since else last_mean
                if last_mean is not None:
                    area.append((last_mean, end - closed_at))
                metric_rows.append({
                    "run": run, "seed": 40 + run, "iteration": iteration + 1, "env_steps": end,
                    "episodes": len(history),
                    "return_mean": np.mean(since) if since else np.nan,
                    "return_min": min(since, default=np.nan), "return_max": max(since, default=np.nan),
                    "return_100": np.mean(history[-100:]) if len(history) >= 100 else np.nan, "eval_return": np.nan,
                    "loss": np.mean(known) if known else np.nan,
                })  # fmt: skip
                since, losses, closed_at = [], [], end
        solved.append(solved_at_steps)
        areas.append(np.average([v for v, _ in area], weights=[w for _, w in area]) if area else np.nan)
    metric_rows.sort(key=lambda row: (row["iteration"], row["run"]))
    return sorted(episode_rows), metric_rows, solved, areas


@pytest.mark.parametrize("log_every", [4, 10, 1000])
@pytest.mark.parametrize("cuts", [[], [1], [3, 4, 5], list(range(1, 100))])
def test_rows_are_those_of_a_plain_loop_however_training_is_cut(cuts, log_every):
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 3, (100, 4, 2, 2)) * rng.integers(0, 2, (100, 4, 1, 1))
    ends = [100, 25, 7, 100]
    active = np.arange(100)[:, None] < np.array(ends)
    loss = np.where(rng.random((100, 4)) < 0.3, np.nan, rng.normal(size=(100, 4)))
    lengths[:9, 0] = 0
    log = log_of(lengths, active, loss)
    options = {"steps": 4, "log_every": log_every, "max_episodes": 115, "solved_at": 2.99}
    expected_episodes, expected_metrics, solved, areas = loop_rows(log, ends, **options)
    accumulator, whole = Accumulator(4, **options), Accumulator(4, **options)
    at_once = whole.add(0, log, None, is_over=np.ones(4, bool))
    episodes, rows = [], []
    for first, last in itertools.pairwise([0, *cuts, 100]):
        tables = accumulator.add(first, cut(log, first, last), None, is_over=np.array(ends) <= last)
        episodes += rows_of(tables[0])
        rows += rows_of(tables[1])
    # To the last bit: the cut may not show.
    np.testing.assert_equal(episodes, rows_of(at_once[0]))
    np.testing.assert_equal(rows, rows_of(at_once[1]))
    np.testing.assert_equal(accumulator.stats()._asdict(), whole.stats()._asdict())

    assert [
        (row["env_steps"], row["run"], *list(row.values())[1:3], row["return"], row["length"]) for row in episodes
    ] == [(at, run, seed, number, total, length) for at, run, seed, number, total, length in expected_episodes]
    for row, expected in zip(rows, expected_metrics, strict=True):
        assert row == pytest.approx(expected, nan_ok=True, rel=1e-12)
    stats = accumulator.stats()
    assert stats.solved_at_steps.tolist() == solved
    assert min(solved) < 0 < max(solved)
    np.testing.assert_allclose(stats.area, areas, rtol=1e-12)
    np.testing.assert_array_equal(stats.env_steps, np.array(ends) * 4)
    assert stats.episodes.max() == 115
    returns = [[row["return"] for row in episodes if row["run"] == run] for run in range(4)]
    np.testing.assert_allclose(stats.recent_return, [np.mean(of_run[-100:]) for of_run in returns], rtol=1e-12)
    assert min(map(len, returns)) < 100


def test_rows_beyond_the_episode_budget_are_dropped():
    """Three actors end in the iteration in which the budget of 2 is reached."""
    accumulator = Accumulator(steps=3, log_every=3, max_episodes=2)
    assert np.isnan(accumulator.stats().recent_return).all()
    episodes, rows = accumulator.add(0, log_of([[[[4, 5, 6]]]]), None, is_over=YES)
    assert [(row["env_steps"], row["length"]) for row in rows_of(episodes)] == [(1, 4), (2, 5)]
    assert rows["return_mean"].tolist() == [9]
    assert accumulator.stats().episodes.tolist() == [2]


def test_solved_is_the_first_full_window_at_or_above():
    """Returns 2 x (1, 1, ..., 3, 3, ...): 150 episodes of return 2, then 6; a window with half of each averages 4."""
    lengths = np.where(np.arange(300) < 150, 1, 3).reshape(300, 1, 1, 1)
    accumulator = Accumulator(steps=1, log_every=1000, solved_at=4.0)
    accumulator.add(0, cut(log_of(lengths), 0, 170), None, is_over=NO)
    assert accumulator.stats().solved_at_steps.tolist() == [-1]
    accumulator.add(170, cut(log_of(lengths), 170, 300), None, is_over=YES)
    assert accumulator.stats().solved_at_steps.tolist() == [200]
    assert accumulator.stats().return_100.tolist() == [6]
    high = np.full((99, 1, 1, 1), 500)
    accumulator = Accumulator(steps=1, log_every=1000, solved_at=4.0)
    accumulator.add(0, log_of(high), None, is_over=NO)
    assert accumulator.stats().solved_at_steps.tolist() == [-1]
    assert np.isnan(accumulator.stats().return_100).all()
    assert accumulator.stats().recent_return.tolist() == [1000]
    accumulator.add(99, log_of(high[:1]), None, is_over=YES)
    assert accumulator.stats().solved_at_steps.tolist() == [100]


def test_evaluations_are_in_the_row_that_closes_next():
    accumulator = Accumulator(2, steps=1, log_every=4)
    log = log_of(np.zeros((2, 2, 1, 1), int))
    no, yes = np.zeros(2, bool), np.ones(2, bool)
    assert rows_of(accumulator.add(0, log, np.array([7.0, 8.0]), is_over=no)[1]) == []
    # The row of an interval is handed out with the chunk that begins the next.
    assert rows_of(accumulator.add(2, log, None, is_over=no)[1]) == []
    _, rows = accumulator.add(4, log, None, is_over=no)
    assert rows["eval_return"].tolist() == [7, 8]
    _, rows = accumulator.add(6, log, np.array([np.nan, 9.0]), is_over=yes)
    np.testing.assert_array_equal(rows["eval_return"], [np.nan, 9])


def test_a_tally_takes_another_in():
    """Bins of 4 and of 1: the wider ones win, and nothing is lost."""
    tally, other = add_to_tally(EMPTY_TALLY, np.arange(10)), add_to_tally(EMPTY_TALLY, np.arange(1000))
    assert merge_tallies(other, tally) == Tally(4, merge_tallies(tally, other).counts)
    tally = merge_tallies(tally, other)
    assert tally.width == 4
    assert sum(tally.counts.values()) == 1010
    assert tally.counts[0] == 8
    assert tally.counts[8] == 6


def test_closing_is_apart_from_recording():
    """A training that ends, and one with a larger budget, have the same state before `close`, and the same rows."""
    log = log_of(np.tile([[[[0, 3], [5, 0]]]], (6, 2, 1, 1)))
    options = {"steps": 4, "log_every": 8}
    whole = Accumulator(2, **options)
    _, expected = whole.add(0, log, np.array([1.0, 2.0]), is_over=np.ones(2, bool))
    spec = whole.spec
    state, first = metrics.record(spec, metrics.init(spec), 0, cut(log, 0, 3), None, np.zeros(2, bool))
    closed, last = metrics.close(spec, state, np.array([7.0, np.nan]), np.ones(2, bool))
    assert last.metrics["env_steps"].tolist() == [12, 12]
    np.testing.assert_array_equal(last.metrics["eval_return"], [7, np.nan])
    assert metrics.stats(closed).is_over.all()
    assert not metrics.stats(state).is_over.any()
    # Nothing is handed out twice.
    assert rows_of(metrics.close(spec, closed)[1].metrics) == []
    state, second = metrics.record(spec, state, 3, cut(log, 3, 6), np.array([1.0, 2.0]), np.ones(2, bool))
    _, third = metrics.close(spec, state)
    rows = rows_of(first.metrics) + rows_of(second.metrics) + rows_of(third.metrics)
    np.testing.assert_equal(rows, rows_of(expected))
