"""Rows against numbers worked out by hand, however training is cut into chunks."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest

from purejaxrl.results.recorder import Recorder, Tally, mean_of_known

YES, NO = np.ones(2, bool), np.zeros(2, bool)


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


def cut(log, first, last):
    take = lambda leaf: leaf[first:last]  # noqa: E731
    return Log(
        Ended(take(log.ended.returns), take(log.ended.length)),
        take(log.active),
        {name: take(value) for name, value in log.metrics.items()},
    )


def test_vectors_of_whole_numbers_are_averaged_and_tallied():
    """Two runs; the second has ended after its first iteration, so what it reports afterwards does not count."""
    recorder = Recorder([0, 1], steps=1, log_every=2, max_episodes=None, solved_at=None)
    log = log_of(np.zeros((3, 2, 1, 1), int), active=[[1, 1], [1, 0], [1, 0]])
    log.metrics["delay"] = np.array([[[0, 1], [1, 0]], [[3, 3], [9, 9]], [[3, -2], [9, 9]]])
    _, first = recorder.add(0, cut(log, 0, 2), None, is_over=np.array([False, True]))
    _, second = recorder.add(2, cut(log, 2, 3), None, is_over=YES)
    assert [(row["run"], row["iteration"], row["delay"]) for row in first + second] == [
        (1, 1, 0.5),
        (0, 2, 1.75),
        (0, 3, 0.5),
    ]
    assert recorder.tallies["delay"].as_dict() == {"bin_width": 1, "counts": {-2: 1, 0: 2, 1: 2, 3: 3}}


def test_a_tally_stays_small():
    """A thousand different numbers, in pieces: bins of 4, none lost."""
    tally = Tally()
    for piece in np.split(np.arange(-8, 992), 100):
        tally.add(np.tile(piece, 2))
    assert tally.width == 4
    assert tally.counts == dict.fromkeys(range(-8, 992, 4), 8)


def test_rows_by_hand():
    # One run, T = 2 steps of N = 2 actors: four env steps per iteration; intervals of 8 env steps.
    lengths = [[[[0, 3], [5, 0]]], [[[0, 0], [0, 0]]], [[[7, 7], [0, 0]]]]
    recorder = Recorder([40], steps=4, log_every=8, max_episodes=None, solved_at=None)
    episodes, metrics = recorder.add(0, log_of(lengths, loss=[[1], [np.nan], [5]]), None, is_over=YES)
    assert [tuple(row) for row in episodes] == [
        (0, 40, 1, 2, 6.0, 3),
        (0, 40, 2, 3, 10.0, 5),
        (0, 40, 3, 9, 14.0, 7),
        (0, 40, 4, 10, 14.0, 7),
    ]
    assert [row["env_steps"] for row in metrics] == [8, 12]
    assert [row["iteration"] for row in metrics] == [2, 3]
    assert [row["episodes"] for row in metrics] == [2, 4]
    assert [(row["return_mean"], row["return_min"], row["return_max"]) for row in metrics] == [(8, 6, 10), (14, 14, 14)]
    assert [row["loss"] for row in metrics] == [1, 5]
    assert np.isnan(metrics[0]["return_100"])


def test_an_interval_without_an_ended_episode_has_empty_returns():
    recorder = Recorder([0], steps=1, log_every=1, max_episodes=None, solved_at=None)
    _, (row,) = recorder.add(0, log_of([[[[0]]]]), None, is_over=YES)
    assert np.isnan(row["return_mean"])
    assert np.isnan(row["return_min"])
    assert np.isnan(row["return_max"])


@pytest.mark.parametrize("cuts", [[], [1], [3, 4, 5], list(range(1, 40))])
def test_chunks_do_not_show(cuts):
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 3, (40, 3, 2, 2))
    active = np.arange(40)[:, None] < np.array([40, 25, 7])
    log = log_of(lengths, active, rng.normal(size=(40, 3)))
    whole = Recorder([0, 1, 2], steps=4, log_every=10, max_episodes=60, solved_at=4.0)
    parts = Recorder([0, 1, 2], steps=4, log_every=10, max_episodes=60, solved_at=4.0)
    expected = whole.add(0, log, None, is_over=np.ones(3, bool))
    episodes, metrics = [], []
    edges = [0, *cuts, 40]
    for first, last in itertools.pairwise(edges):
        rows = parts.add(first, cut(log, first, last), None, is_over=np.array([40, 25, 7]) <= last)
        episodes += rows[0]
        metrics += rows[1]
    assert episodes == expected[0]
    np.testing.assert_equal(metrics, expected[1])
    assert [run.env_steps for run in parts.runs] == [160, 100, 28]


def test_rows_beyond_the_episode_budget_are_dropped():
    """Three actors end in the iteration in which the budget of 2 is reached."""
    recorder = Recorder([0], steps=3, log_every=3, max_episodes=2, solved_at=None)
    episodes, metrics = recorder.add(0, log_of([[[[4, 5, 6]]]]), None, is_over=YES)
    assert [(row.env_steps, row.length) for row in episodes] == [(1, 4), (2, 5)]
    assert metrics[0]["return_mean"] == 9
    assert recorder.runs[0].episodes == 2


def test_solved_is_the_first_full_window_at_or_above():
    """Returns 2 x (1, 1, ..., 3, 3, ...): 150 episodes of return 2, then 6; a window with half of each averages 4."""
    lengths = np.where(np.arange(300) < 150, 1, 3).reshape(300, 1, 1, 1)
    recorder = Recorder([0], steps=1, log_every=1000, max_episodes=None, solved_at=4.0)
    recorder.add(0, cut(log_of(lengths), 0, 170), None, is_over=NO)
    assert recorder.runs[0].solved_at_steps is None
    recorder.add(170, cut(log_of(lengths), 170, 300), None, is_over=YES)
    assert recorder.runs[0].solved_at_steps == 200
    assert recorder.runs[0].return_100 == 6
    high = np.full((99, 1, 1, 1), 500)
    recorder = Recorder([0], steps=1, log_every=1000, max_episodes=None, solved_at=4.0)
    recorder.add(0, log_of(high), None, is_over=NO)
    assert recorder.runs[0].solved_at_steps is None
    assert np.isnan(recorder.runs[0].return_100)
    recorder.add(99, log_of(high[:1]), None, is_over=YES)
    assert recorder.runs[0].solved_at_steps == 100


def test_evaluations_stand_in_the_row_that_closes_next():
    recorder = Recorder([0, 1], steps=1, log_every=4, max_episodes=None, solved_at=None)
    log = log_of(np.zeros((2, 2, 1, 1), int))
    assert recorder.add(0, log, np.array([7.0, 8.0]), is_over=NO)[1] == []
    _, rows = recorder.add(2, log, None, is_over=NO)
    assert [row["eval_return"] for row in rows] == [7, 8]
    _, rows = recorder.add(4, log, None, is_over=YES)
    assert all(np.isnan(row["eval_return"]) for row in rows)


def test_mean_of_known():
    assert mean_of_known(np.array([1.0, np.nan, 3.0])) == 2
    assert np.isnan(mean_of_known(np.array([np.nan])))
