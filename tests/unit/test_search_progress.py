"""What is shown of a search while it runs."""

import io
import math

import numpy as np
import pytest

from purejaxrl.experiment import search_progress
from purejaxrl.experiment.progress import Silent, terminal_of
from purejaxrl.experiment.search import Score
from purejaxrl.experiment.search_progress import Relay, SafeSearchReporter, SearchTerminal, Standing, search_reporter_of
from purejaxrl.experiment.settings import Range
from purejaxrl.experiment.tune_plan import plan_tune
from purejaxrl.training.metrics import RunStats

FIRST = Standing(1, 4, 256, 1, 3000, "", None)
SECOND = Standing(2, 4, 86, 2, 9000, "lr=0.01 gamma=0.98", Score(231.24, 201.1, 250.0))


def stats_of(env_steps):
    return RunStats.empty(4)._replace(env_steps=np.full(4, env_steps // 4))


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (Score(231.24, 201.1, 250.0), "231.2 [201.1, 250.0]"),
        (Score(-80.7, math.nan, math.nan), "-80.7"),
        (Score(123_456.7, 100_000.0, 200_000.4), "123,457 [100,000, 200,000]"),
        (Score(math.nan, math.nan, math.nan), "-"),
    ],
)
def test_scores_as_text(score, text):
    assert search_progress.format_score(score) == text


@pytest.mark.parametrize(("count", "text"), [(12_400_000, "12.4 M"), (2_400_000_000, "2,400 M"), (40_000, "0.04 M")])
def test_env_steps_as_text(count, text):
    assert search_progress.millions(count) == text


def test_lines_where_there_is_no_terminal(monkeypatch):
    stream, now = io.StringIO(), [100.0]
    monkeypatch.setattr(search_progress.time, "monotonic", lambda: now[0])
    shown = SearchTerminal("a3c on CartPole-v1", "a3c", 10_000_000, 2_400_000_000, stream=stream)
    shown.start()
    shown.begin_rung(FIRST)
    shown.advance(stats_of(400_000), 1.0)
    shown.begin_rung(SECOND)
    now[0] += 11
    shown.advance(stats_of(12_400_000), 12.0)
    shown.close()
    assert stream.getvalue().splitlines() == [
        "a3c on CartPole-v1",
        "a3c: rung 1 of 4, 256 settings x 1 seed up to 3,000 env steps",
        "a3c: rung 2 of 4, 86 settings x 2 seeds up to 9,000 env steps, best lr=0.01 gamma=0.98: 231.2 [201.1, 250.0]",
        "a3c: rung 2 of 4, 86 settings x 2 seeds up to 9,000 env steps, best lr=0.01 gamma=0.98: 231.2 [201.1, 250.0], "
        "12.4 M of 2,400 M env steps",
    ]


@pytest.mark.parametrize(
    ("columns", "facts"),
    [
        (None, "rung 2/4, 86 settings, best lr=0.01 gamma=0.98: 231.2 [201.1, 250.0], 5.0 M of 2,400 M env steps"),
        (110, "rung 2/4, 86 settings, best 231.2 [201.1, 250.0], 5.0 M of 2,400 M env steps"),
        (40, "rung 2/4"),
    ],
)
def test_a_line_as_wide_as_the_terminal(columns, facts, monkeypatch):
    monkeypatch.setattr(search_progress, "terminal_columns", lambda stream: columns)
    stream = io.StringIO()
    shown = SearchTerminal("", "a3c", 10_000_000, 2_400_000_000, stream=stream, is_live=True)
    # What is not begun shows nothing.
    shown.advance(stats_of(0), 0.0)
    shown.close()
    shown.start()
    shown.begin_rung(SECOND)
    shown.advance(stats_of(5_000_000), 10.0)
    shown.close()
    lines = [line.strip() for line in stream.getvalue().replace("\r", "\n").splitlines() if "50%" in line]
    assert lines[-1].startswith("a3c:  50%")
    assert lines[-1].endswith(facts)


class Failing(Silent):
    """A reporter of one's own that notes what it is told, until it fails."""

    def __init__(self):
        self.notes, self.closed = [], 0

    def note(self, text):
        self.notes.append(text)

    def advance(self, stats, seconds):
        raise ValueError("no terminal")

    def close(self):
        self.closed += 1


def test_a_reporter_that_fails_is_not_called_again():
    own = Failing()
    safe = SafeSearchReporter(Relay(own))
    safe.start()
    safe.begin_rung(SECOND)
    with pytest.warns(UserWarning, match=r"Relay.advance failed, and the search goes on without it: ValueError: no"):
        safe.advance(stats_of(4), 1.0)
    safe.begin_rung(FIRST)
    safe.close()
    assert own.notes == [search_progress.describe(SECOND)]
    assert own.closed == 0
    safe = SafeSearchReporter(Relay(own))
    safe.close()
    safe.close()
    assert own.closed == 1


def test_reporters_by_argument(monkeypatch):
    tune = plan_tune("a3c", lr=Range(1e-4, 1e-2, log=True), settings=27, seeds=4, env_steps=90_000)
    shown = search_reporter_of(terminal_of, tune)
    assert shown.title == (
        "a3c on CartPole-v0, preset original: 27 settings x up to 4 seeds x 90,000 env steps, halving in 2 rungs"
    )
    assert (shown.planned, shown.full) == (27 * 2 * 30_000 + 9 * 2 * 60_000 + 9 * 2 * 90_000, 27 * 4 * 90_000)
    bar = search_reporter_of(True, tune)
    assert (bar.title, bar.is_live) == ("", True)
    for silent in (False, None):
        assert isinstance(search_reporter_of(silent, tune).reporter, Silent)
    own = Failing()
    assert search_reporter_of(own, tune).reporter is own
    monkeypatch.setattr("sys.stderr", None)
    assert isinstance(search_reporter_of(True, tune).reporter, Silent)
