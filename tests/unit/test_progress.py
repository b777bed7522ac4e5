"""What a training prints as it progresses, line by line."""

import fcntl
import io
import struct
import termios
import warnings

import numpy as np
import pytest
from helpers import terminal

from purejaxrl.errors import warn
from purejaxrl.experiment import progress
from purejaxrl.experiment.progress import Extent, Goal, Terminal, mean_of_settings
from purejaxrl.training.metrics import RunStats

NAN = np.nan


def stats_of(env_steps, returns, *, episodes=None, solved=None, over=None):
    """Runs with these mean returns over their last episodes, by default over 100 of them; NaN for no episodes."""
    runs, returns = len(env_steps), np.array(returns, float)
    episodes = np.where(np.isnan(returns), 0, 100) if episodes is None else np.array(episodes)
    return RunStats(
        episodes,
        np.array(env_steps),
        np.array(solved if solved is not None else [-1] * runs),
        np.where(episodes >= 100, returns, NAN),
        np.full(runs, NAN),
        np.array(over if over is not None else [False] * runs),
        returns,
    )


def lines_of(capsys, goal, *stages):
    """What is printed where there is no terminal, stage after stage of (stats, seconds)."""
    terminal = Terminal("title", "dqn", goal)
    terminal.start()
    for stats, seconds in stages:
        terminal.advance(stats, seconds)
    terminal.close()
    return capsys.readouterr().err.splitlines()


def test_a_training_counts_its_budget(capsys):
    goal = Goal(400, "env steps", Extent(np.array([400, 400]), np.array([0, 0])))
    assert lines_of(
        capsys,
        goal,
        (stats_of([100, 100], [NAN, NAN]), 0.5),
        (stats_of([400, 400], [150, 200], solved=[-1, 300], over=[True, True]), 2.0),
    ) == [
        "title",
        "dqn: 100/400 env steps, return -, solved 0/2, 400 env steps/s",
        "dqn: 400/400 env steps, return 175.0, solved 1/2, 400 env steps/s",
    ]


def test_episodes_count_where_they_are_the_budget_and_a_run_that_is_over_counts_whole(capsys):
    extent = Extent(np.array([9000, 9000]), np.array([10, 10]))
    goal = Goal(10, "episodes", extent, can_be_solved=False)
    assert lines_of(capsys, goal, (stats_of([50, 90], [6, 8], episodes=[4, 9], over=[False, True]), 1.0))[1:] == [
        "dqn: 7/10 episodes, return 7.0 (4-9 episodes), 140 env steps/s"
    ]


@pytest.mark.parametrize(
    ("returns", "episodes", "shown"),
    [
        ([NAN], [0], "return -"),
        ([21.4], [1], "return 21.4 (1 episode)"),
        ([21.4], [23], "return 21.4 (23 episodes)"),
        ([20, NAN, 40], [99, 0, 250], "return 30.0 (99-100 episodes)"),
        ([20, 40], [100, 250], "return 30.0"),
    ],
)
def test_a_return_says_of_how_many_episodes_it_is_the_mean_until_they_are_100(returns, episodes, shown, capsys):
    goal = Goal(400, "env steps", Extent(np.full(len(returns), 400), np.zeros(len(returns), int)), can_be_solved=False)
    _, line = lines_of(capsys, goal, (stats_of([100] * len(returns), returns, episodes=episodes), 1.0))
    assert line.split(", ")[1] == shown


def test_a_sweep_shows_runs_done_the_best_setting_and_the_rate_of_all(capsys):
    """Two settings of two runs; the second setting's mean is the better one, whatever its best run."""
    goal = Goal(100, "env steps", Extent(np.full(4, 100), np.zeros(4, int)), settings=["lr=0.1", "lr=0.2"])
    stats = stats_of([100, 100, 50, 0], [80, 20, 60, NAN], over=[True, True, False, False], solved=[40, -1, -1, -1])
    assert lines_of(capsys, goal, (stats, 0.5))[1:] == [
        "dqn: 62%, 2/4 runs done, best lr=0.2: 60.0, solved 1/4, 500 env steps/s"
    ]
    early = stats_of([100, 100, 50, 0], [80, 20, 60, NAN], episodes=[7, 5, 3, 0])
    assert ", best lr=0.2: 60.0 (3 episodes), " in lines_of(capsys, goal, (early, 0.5))[1]
    assert ", best -, " in lines_of(capsys, goal, (stats_of([1] * 4, [NAN] * 4), 0.5))[1]


def test_lines_are_few(monkeypatch, capsys):
    clock = iter([100.0, 100.0, 101.0, 105.0, 111.0, 111.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    goal = Goal(100, "env steps", Extent(np.array([100]), np.array([0])))
    stages = [(stats_of([steps], [NAN]), 1.0) for steps in (10, 20, 30, 40)]
    assert [line.split(",")[0] for line in lines_of(capsys, goal, *stages)[1:]] == [
        "dqn: 10/100 env steps",
        "dqn: 40/100 env steps",
    ]


@pytest.mark.parametrize("columns", [40, 80, 120, 200, 0])
@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_whatever_is_printed_after_a_bar_stands_on_a_line_of_its_own(columns, seconds, monkeypatch):
    """Also where compilation took longer than training so far. A terminal may say that it has no columns."""
    goal = Goal(400, "env steps", Extent(np.array([400, 400]), np.array([0, 0])))
    with terminal(columns) as (stream, lines):
        monkeypatch.setattr("sys.stderr", stream)
        shown = Terminal("title", "dqn", goal)
        shown.start()
        shown.advance(stats_of([100, 100], [NAN, NAN]), seconds)
        shown.note("a note")
        shown.advance(stats_of([400, 400], [150, 200], over=[True, True]), seconds)
        shown.close()
        print("2 of 2 runs ok", file=stream)
    first, note, bar, last = lines
    assert (first, note, last) == ("title", "dqn: a note", "2 of 2 runs ok")
    assert bar.startswith("dqn: 100%")


def test_a_bar_that_was_never_advanced_ends_its_line():
    goal = Goal(400, "env steps", Extent(np.array([400]), np.array([0])))
    with terminal(80) as (stream, lines):
        shown = Terminal("", "dqn", goal, stream=stream)
        shown.start()
        shown.close()
        print("purejaxrl: stopped", file=stream)
    assert lines == ["dqn, starting:   0%|        | 0/400 env steps [00:00<?]", "purejaxrl: stopped"]


def test_a_bar_follows_the_width_of_its_terminal():
    goal = Goal(400, "env steps", Extent(np.array([400]), np.array([0])))
    with terminal(200) as (stream, lines):
        shown = Terminal("", "dqn", goal, stream=stream)
        shown.start()
        fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        stream.write("\r" + " " * 60)
        shown.advance(stats_of([100], [NAN]), 1.0)
        shown.close()
    assert len(lines[-1]) <= 40


@pytest.mark.parametrize(
    ("columns", "bar"),
    [
        (120, "|██      | 100/400 env steps [00:01<00:03], return 21.4 (23 episodes), solved 0/1, 100 env steps/s"),
        (100, "|██      | 100/400 env steps [00:01<00:03], return 21.4 (23 episodes), solved 0/1"),
        (80, "|██      | 100/400 env steps [00:01<00:03], return 21.4 (23 episodes)"),
        (70, " 100/400 env steps [00:01<00:03], return 21.4 (23 episodes)"),
    ],
)
def test_a_bar_leaves_out_what_its_terminal_has_no_room_for(columns, bar):
    goal = Goal(400, "env steps", Extent(np.array([400]), np.array([0])))
    with terminal(columns) as (stream, lines):
        shown = Terminal("", "dqn", goal, stream=stream)
        shown.start()
        shown.advance(stats_of([100], [21.4], episodes=[23]), 1.0)
        shown.close()
    assert lines == [f"dqn:  25%{bar}"]


@pytest.mark.parametrize("columns", [80, 120, 160])
def test_the_best_setting_can_be_read_whole_at_any_width(columns):
    """In the bar, or on a line above it where the bar has no room."""
    labels = [f"gamma=0.99 lam=0.97 pi_lr=0.00{n} v_lr=0.001 hidden_sizes=64x64x64 entropy_coef=0.01" for n in (1, 2)]
    goal = Goal(100, "env steps", Extent(np.full(2, 100), np.zeros(2, int)), settings=labels)
    with terminal(columns) as (stream, lines):
        shown = Terminal("", "a3c", goal, stream=stream)
        shown.start()
        for _ in range(3):
            shown.advance(stats_of([10, 10], [20, 30], episodes=[7, 9]), 1.0)
        shown.close()
    assert "".join(lines).count(labels[1]) == 1
    is_wide = columns == 160
    assert f"best {labels[1] if is_wide else 'setting 1'}: 30.0 (9 episodes)" in lines[-1]
    assert len(lines) == (1 if is_wide else 2 + (len("a3c: setting 1 is " + labels[1]) - 1) // columns)


def test_a_bar_in_a_notebook_ends_its_line():
    """There the stream is no terminal, and the next print follows."""
    goal = Goal(400, "env steps", Extent(np.array([400]), np.array([0])))
    stream = io.StringIO()
    shown = Terminal("", "dqn", goal, stream=stream, is_live=True)
    shown.start()
    shown.advance(stats_of([400], [150], over=[True]), 0.5)
    shown.close()
    print("printed", file=stream)
    *_, bar, last = stream.getvalue().splitlines()
    assert bar.endswith("return 150.0, solved 0/1, 800 env steps/s")
    assert last == "printed"


def test_a_warning_stands_on_a_line_above_the_bar(monkeypatch):
    goal = Goal(400, "env steps", Extent(np.array([400]), np.array([0])))
    with terminal(80) as (stream, lines), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: print(message, file=stream)
        monkeypatch.setattr("sys.stderr", stream)
        shown = Terminal("", "dqn", goal)
        shown.start()
        warn("a logger failed")
        shown.advance(stats_of([400], [150], over=[True]), 0.5)
        shown.close()
    assert lines[0] == "a logger failed"
    assert lines[1].startswith("dqn: 100%|")
    assert len(lines) == 2


@pytest.mark.parametrize(("episodes", "bound"), [(0, "about"), (9, "up to")])
def test_a_long_training_says_so_once(episodes, bound, capsys):
    """A hundredth in six seconds: ten minutes less these six seconds."""
    goal = Goal(100, "env steps", Extent(np.array([100]), np.array([episodes])), hint="; try another")
    said = lines_of(capsys, goal, *[(stats_of([1], [NAN]), 6.0)] * 2)
    assert [line for line in said if "minutes" in line] == [f"dqn: this will take {bound} 10 minutes; try another"]


def test_nothing_done_yet_promises_nothing(capsys):
    goal = Goal(100, "env steps", Extent(np.array([100]), np.array([0])))
    assert not any("minutes" in line for line in lines_of(capsys, goal, (stats_of([0], [NAN]), 99.0)))


def test_mean_of_settings_by_hand():
    np.testing.assert_array_equal(mean_of_settings(np.array([1, 3, NAN, 5, NAN, NAN]), 3), [2, 5, NAN])
