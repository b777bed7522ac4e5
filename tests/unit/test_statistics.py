"""Figures over runs, against numbers worked out by hand and a bootstrap written as a loop."""

import itertools

import numpy as np
import pytest
import scipy.stats

from purejaxrl.analysis import statistics
from purejaxrl.analysis.statistics import Scores
from purejaxrl.experiment import intervals

INF, NAN = np.inf, np.nan


def scores_of(final, area=None, steps=None, ok=None):
    n = len(final)
    return Scores(
        np.asarray(final, float),
        np.asarray([1] * n if area is None else area, float),
        np.asarray([INF] * n if steps is None else steps, float),
        np.ones(n, bool) if ok is None else np.asarray(ok, bool),
    )


def frame_of(final, area, steps, has_threshold=True):
    """A frame with the columns that the ranking uses."""
    settings = [scores_of([f], [a], [s]) for f, a, s in zip(final, area, steps, strict=True)]
    return statistics.describe(settings, has_threshold)


def never_begun(runs):
    """Runs that were interrupted before their first step."""
    return scores_of([NAN] * runs, area=[NAN] * runs, steps=[NAN] * runs, ok=[0] * runs)


def test_interquartile_mean_by_hand():
    """Of eight numbers the two lowest and the two highest go; of ten floor(2.5) = 2 each; of three none."""
    assert statistics.interquartile_mean(np.array([100, 3, 1, 4, 1000, -50, 2, 6.0])) == (2 + 3 + 4 + 6) / 4
    assert statistics.interquartile_mean(np.array([-99, -98, 1, 2, 3, 4, 5, 9, 98, 99.0])) == 4
    assert statistics.interquartile_mean(np.array([1, 2, 9.0])) == 4
    both = np.array([[0, 1, 3, 100.0], [0, 5, 7, 8.0]])
    np.testing.assert_array_equal(statistics.interquartile_mean(both), [2, 6])
    np.testing.assert_array_equal(statistics.interquartile_mean(both.T, axis=0), [2, 6])


def test_interval_is_that_of_a_loop():
    """Resampling one by one, trimming by sorting: the ends agree within the noise of 2000 resamples."""
    values = np.random.default_rng(1).gamma(2.0, 10.0, 12)
    rng = np.random.default_rng(2)
    means = [np.sort(rng.choice(values, 12))[3:9].mean() for _ in range(4000)]
    np.testing.assert_allclose(statistics.interval(values), np.quantile(means, (0.025, 0.975)), rtol=0.04)


@pytest.mark.parametrize("shape", [(2,), (3,), (12,), (5, 7)])
def test_intervals_and_means_are_those_of_scipy(shape, monkeypatch):
    # Two batches, and a rest.
    monkeypatch.setattr(intervals, "ELEMENTS_AT_ONCE", 900 * int(np.prod(shape)))
    values = np.random.default_rng(3).gamma(2.0, 10.0, shape)
    np.testing.assert_array_equal(statistics.interquartile_mean(values), scipy.stats.trim_mean(values, 0.25, axis=-1))
    settings = {"n_resamples": 2000, "batch": 900, "method": "percentile", "rng": 0, "axis": -1}
    expected = scipy.stats.bootstrap((values,), statistics.interquartile_mean, **settings).confidence_interval
    np.testing.assert_allclose(statistics.interval(values), (expected.low, expected.high), rtol=1e-12)


def test_intervals_cover():
    """Of normal data with 32 runs, about 95% of the intervals hold the true mean, and as many miss on either side."""
    low, high = statistics.interval(np.random.default_rng(0).normal(3.0, 2.0, (600, 32)))
    assert 0.91 < np.mean((low <= 3) & (high >= 3)) < 0.98
    assert np.mean(low > 3) > 0.01
    assert np.mean(high < 3) > 0.01


def test_intervals_of_many_settings_are_those_of_each():
    values = np.random.default_rng(0).normal(size=(3, 7))
    low, high = statistics.interval(values)
    assert [statistics.interval(row) for row in values] == list(zip(low, high, strict=True))
    assert np.isnan(statistics.interval(np.array([1.0]))).all()
    assert np.isnan(statistics.interval(np.ones((4, 1)))).all()
    assert statistics.interval(np.ones((4, 1)))[0].shape == (4,)


def test_memory_is_bounded(monkeypatch):
    """With room for two resamples of 3 x 5 at a time no larger piece is ever made, and the interval stays."""
    seen = []
    interquartile_mean = statistics.interquartile_mean
    watched = lambda values, axis: (seen.append(values.size), interquartile_mean(values, axis))[1]  # noqa: E731
    values = np.random.default_rng(0).normal(size=(3, 5))
    expected = statistics.interval(values)
    monkeypatch.setattr(intervals, "ELEMENTS_AT_ONCE", 30)
    np.testing.assert_array_equal(statistics.interval(values, watched), expected)
    assert max(seen) == 30
    assert sum(seen) == 2000 * 15


def test_probability_of_improvement_by_hand():
    """Pairs of (1, 3, 5) and (3, 4): 1 beats none, 3 ties one, 5 beats two: 2.5 of 6."""
    x, y = np.array([5, 1, 3.0]), np.array([4, 3.0])
    assert statistics.probability_of_improvement(x, y)[0] == 2.5 / 6
    assert statistics.probability_of_improvement(y, x)[0] == 3.5 / 6
    assert statistics.probability_of_improvement(x, x)[0] == 0.5
    assert statistics.probability_of_improvement(x + 9, y) == (1, 1, 1)


def test_interval_of_the_probability_of_improvement_is_that_of_a_loop():
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 9, 15).astype(float), rng.integers(0, 7, 10).astype(float)

    def probability(x, y):
        return np.mean([(a > b) + (a == b) / 2 for a, b in itertools.product(x, y)])

    found, low, high = statistics.probability_of_improvement(x, y)
    assert found == pytest.approx(probability(x, y), abs=1e-12)
    resampled = [probability(rng.choice(x, len(x)), rng.choice(y, len(y))) for _ in range(1500)]
    np.testing.assert_allclose((low, high), np.quantile(resampled, (0.025, 0.975)), atol=0.03)
    assert low < found < high


def test_too_few_runs_have_no_probability_or_no_interval():
    some = np.array([1.0, 2.0])
    assert np.isnan(statistics.probability_of_improvement(some, np.empty(0))).all()
    assert np.isnan(statistics.probability_of_improvement(np.empty(0), some)).all()
    probability, low, high = statistics.probability_of_improvement(some, np.array([1.0]))
    assert probability == 0.75
    assert np.isnan([low, high]).all()


def test_describe_by_hand():
    """The second setting is best. Runs that diverged or have no final return stay in all that can be said of them."""
    worse = scores_of(
        [10, NAN, 30, NAN, 20], area=[1, 2, 3, 4, NAN], steps=[500, INF, 100, INF, INF], ok=[1, 0, 1, 0, 1]
    )
    better = scores_of([20, 40], area=[3, 8], steps=[300, INF])
    frame = statistics.describe([worse, better], has_threshold=True)
    row, best = frame.iloc[0], frame.iloc[1]
    assert (row["runs"], row["runs_ok"], row["runs_final"]) == (5, 3, 3)
    assert (row["final_return_iqm"], row["final_return_median"]) == (20, 20)
    assert 10 <= row["final_return_low"] < 20 < row["final_return_high"] <= 30
    assert (row["area_iqm"], row["area_median"]) == (2.5, 2.5)
    assert (row["solved_fraction"], row["env_steps_to_solve_median"]) == (0.4, INF)
    # Pairs of (20, 40) and (10, -inf, 30, -inf, 20), as two diverged: 1 + 1 + 0 + 1 + 1/2 and 5 of 10.
    assert row["best_improves"] == 8.5 / 10
    assert row["best_improves_low"] < 8.5 / 10 <= row["best_improves_high"]
    assert list(frame["rank"]) == [2, 1]
    assert list(frame["ranked_by"]) == ["final_return"] * 2
    assert (best["solved_fraction"], best["env_steps_to_solve_median"]) == (0.5, INF)
    assert best[["best_improves", "best_improves_low", "best_improves_high"]].isna().all()


def test_final_returns_are_compared_where_every_run_has_one():
    """Areas would turn the order round. Pairs of (20, 40) and (10, 20, 30): 1 + 1/2 + 0 + 3 of 6."""
    frame = statistics.describe([scores_of([10, 30, 20], area=[9, 9, 9]), scores_of([20, 40], area=[7, 8])], True)
    assert list(statistics.ranking(frame)) == [1, 0]
    assert frame["best_improves"][0] == 4.5 / 6


@pytest.mark.parametrize("final", [[NAN, NAN, NAN], [NAN, 120, 130]])
def test_the_best_may_have_no_final_return_because_its_episodes_are_long(final):
    """It learned to balance for 500 steps, so that the budget ended before its 100th episode; the other fails early."""
    poor = scores_of([200, 210, 190], area=[150, 160, 140])
    best = scores_of(final, area=[450, 145, 470])
    frame = statistics.describe([poor, best], has_threshold=True)
    assert list(statistics.ranking(frame)) == [1, 0]
    # 450 and 470 beat all three, 145 beats 140.
    assert frame["best_improves"][0] == 7 / 9
    assert statistics.improvements([poor, best])["probability"][0] == pytest.approx(2 / 9, abs=1e-12)
    _, _, first, _, *notes = statistics.table(frame, ["poor", "best"]).splitlines()
    assert first.split()[0] == "best"
    assert notes[-1] == "Some runs had fewer than 100 episodes, so settings are ranked by area under curve."
    assert [note[0] for note in notes[:-1]] == (["*"] if np.isfinite(final).any() else [])


def test_a_diverged_run_counts_with_its_returns():
    frame = statistics.describe([scores_of([1, 2, 9], ok=[1, 1, 0])], has_threshold=False)
    assert (frame["final_return_iqm"][0], frame["runs_final"][0], frame["runs_ok"][0]) == (4, 3, 2)


@pytest.mark.parametrize("area", [[NAN, NAN, NAN], [900, 900, 900]])
def test_a_setting_that_diverged_altogether_is_last(area):
    """It does not turn the others to their areas, which have the opposite order, and any run beats its runs."""
    diverged = scores_of([NAN, NAN, NAN], area, ok=[0, 0, 0])
    poor, good = scores_of([1, 2, 3], area=[90, 91, 92]), scores_of([20, 30, 40], area=[7, 8, 9])
    settings = [diverged, poor, good]
    frame = statistics.describe(settings, has_threshold=True)
    assert set(frame["ranked_by"]) == {"final_return"}
    assert list(frame["rank"]) == [3, 2, 1]
    assert list(frame.loc[0, ["best_improves", "best_improves_low", "best_improves_high"]]) == [1, 1, 1]
    assert list(statistics.improvements(settings)["probability"]) == [0, 0, 0]
    lines = statistics.table(frame, ["diverged", "poor", "good"]).splitlines()
    assert len(lines) == 5
    assert lines[-1].split()[:5] == ["diverged", "0", "of", "3", "-"]
    assert lines[-1].split()[-1] == "1.00"


def test_settings_that_all_diverged_tie():
    """By their final returns, of which there is none; the areas decide on the order, and no run beats another."""
    settings = [scores_of([NAN] * 2, area=[area] * 2, ok=[0, 0]) for area in (3, 5, NAN)]
    frame = statistics.describe(settings, has_threshold=True)
    assert set(frame["ranked_by"]) == {"final_return"}
    assert list(frame["rank"]) == [2, 1, 3]
    assert list(frame["best_improves"][[0, 2]]) == [0.5, 0.5]


def test_a_superb_run_does_not_make_up_for_three_that_diverged():
    """Of four the lowest and the highest go: three that diverged are -inf in the middle, one is trimmed off."""
    superb = scores_of([NAN, 500, NAN, NAN], area=[400] * 4, ok=[0, 1, 0, 0])
    solid = scores_of([100, 110, 120, 130])
    unlucky = scores_of([200, 201, NAN, 203], ok=[1, 1, 0, 1])
    frame = statistics.describe([superb, solid, unlucky], has_threshold=True)
    assert set(frame["ranked_by"]) == {"final_return"}
    assert list(frame["rank"]) == [3, 2, 1]
    assert list(frame["final_return_iqm"]) == [500, 115, (200 + 201 + 203) / 3]
    # Three runs of `unlucky` beat the three that diverged, the fourth ties with them; all of `solid` beat those three.
    assert frame["best_improves"][0] == (3 * 3 + 3 * 0.5) / 16
    assert statistics.improvements([superb, solid])["probability"][0] == 4 / 16
    lines = statistics.table(frame, ["superb", "solid", "unlucky"]).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["unlucky", "solid", "superb"]
    assert lines[5:] == ["* over fewer runs: the others diverged, did not begin or had fewer than 100 episodes"]


def test_a_diverged_run_counts_with_its_area_or_as_the_worst():
    """Areas are compared as the first run of `short` has no final return. Of two runs nothing is trimmed."""
    short = scores_of([NAN, 5], area=[30, 32])
    finite = scores_of([NAN, 5], area=[40, 10], ok=[0, 1])
    worst = scores_of([NAN, 5], area=[NAN, 99], ok=[0, 1])
    frame = statistics.describe([worst, finite, short], has_threshold=True)
    assert set(frame["ranked_by"]) == {"area_under_curve"}
    assert list(frame["rank"]) == [3, 2, 1]
    assert list(frame["best_improves"][:2]) == [0.5, 0.5]
    np.testing.assert_array_equal(statistics.compared_values(worst, "area_under_curve"), [-INF, 99])
    np.testing.assert_array_equal(statistics.compared_values(finite, "area_under_curve"), [40, 10])


# Runs that ended once they were solved: the sooner, the less they overshot the threshold of 475.
SOON = scores_of([475, 476, 475], area=[470] * 3, steps=[100, 450, 300])
LATE = scores_of([490, 495, 470], area=[480] * 3, steps=[400, 500, INF])
NEVER = scores_of([300, 300, 300], area=[200] * 3, steps=[INF] * 3)
NEARLY = scores_of([470, 470, NAN], area=[190] * 3, steps=[INF] * 3)


def test_runs_stopped_when_solved_are_ranked_by_env_steps_to_solve():
    """Settings that never solved follow by their final returns; a run without one does not turn them to areas."""
    settings = [NEVER, LATE, SOON, NEARLY]
    frame = statistics.describe(settings, has_threshold=True, stopped_when_solved=True)
    assert set(frame["ranked_by"]) == {"env_steps_to_solve"}
    assert list(frame["env_steps_to_solve_median"]) == [INF, 500, 300, INF]
    assert list(frame["rank"]) == [4, 2, 1, 3]
    assert list(statistics.ranking(frame)) == [2, 1, 3, 0]
    # 100 and 300 are below all of 400, 500 and infinity, 450 is below two of them; all three are below infinity.
    np.testing.assert_allclose(frame["best_improves"], [1, 8 / 9, NAN, 1])
    complete = statistics.describe(settings[:3], has_threshold=True)
    assert set(complete["ranked_by"]) == {"final_return"}
    assert list(complete["rank"]) == [3, 1, 2]


def test_improvements_in_env_steps_to_solve():
    """400 and 500 beat three runs that never solved, infinity ties with them: (6 + 3/2) of 9."""
    settings = [NEVER, LATE, SOON, NEARLY]
    frame = statistics.improvements(settings, stopped_when_solved=True)
    assert list(zip(frame["setting"], frame["other"], strict=True)) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    np.testing.assert_allclose(frame["probability"], [1.5 / 9, 0, 0.5, 1 / 9, 7.5 / 9, 1])


def test_table_of_runs_stopped_when_solved():
    frame = statistics.describe([NEVER, LATE, SOON], has_threshold=True, stopped_when_solved=True)
    lines = statistics.table(frame, ["never", "late", "soon"]).splitlines()
    assert [line.split()[0] for line in lines[2:5]] == ["soon", "late", "never"]
    assert [line.split()[-3:] for line in lines[2:5]] == [
        ["100%", "300", "-"],
        ["67%", "450", "0.89"],
        ["0%", "never", "1.00"],
    ]
    assert lines[5:] == [
        "env steps to solve: the median over the runs that were solved",
        "Runs ended once they were solved, so settings are ranked by env steps to solve.",
    ]


def test_runs_that_never_began_are_left_out():
    """Four runs, of which three began and two solved; the median run of those three took 300 env steps."""
    some = scores_of([10, 20, 30, NAN], area=[1, 2, 3, NAN], steps=[100, 300, INF, NAN], ok=[1, 1, 1, 0])
    full = scores_of([15, 24], area=[4, 6], steps=[200, 500])
    frame = statistics.describe([some, full], has_threshold=True)
    row = frame.iloc[0]
    assert (row["runs"], row["runs_ok"], row["runs_final"]) == (4, 3, 3)
    assert (row["final_return_iqm"], row["final_return_median"], row["area_iqm"], row["area_median"]) == (20, 20, 2, 2)
    assert (row["solved_fraction"], row["env_steps_to_solve_median"]) == (2 / 3, 300)
    assert (row["ranked_by"], *frame["rank"]) == ("final_return", 1, 2)
    # 10 beats none, 20 one, 30 two; in env steps 100 beats two, 300 one, infinity none.
    assert frame["best_improves"][1] == 3 / 6
    by_steps = statistics.describe([some, full], has_threshold=True, stopped_when_solved=True)
    assert list(by_steps["rank"]) == [1, 2]
    assert by_steps["best_improves"][1] == 3 / 6
    np.testing.assert_array_equal(statistics.compared_values(some, "final_return"), [10, 20, 30])
    np.testing.assert_array_equal(statistics.compared_values(some, "area_under_curve"), [1, 2, 3])
    np.testing.assert_array_equal(statistics.compared_values(some, "env_steps_to_solve"), [-100, -300, -INF])


@pytest.mark.parametrize("stopped_when_solved", [False, True])
def test_a_setting_of_which_no_run_began_is_last(stopped_when_solved):
    """Nothing is known of it, so that even one that diverged and never solved is before it."""
    diverged = scores_of([NAN, NAN], area=[NAN, NAN], ok=[0, 0])
    settings = [never_begun(2), diverged, scores_of([3, 4], steps=[50, 60])]
    frame = statistics.describe(settings, True, stopped_when_solved)
    assert frame["ranked_by"][0] == ("env_steps_to_solve" if stopped_when_solved else "final_return")
    assert list(frame["rank"]) == [3, 2, 1]
    assert list(frame.loc[0, ["runs", "runs_ok", "runs_final"]]) == [2, 0, 0]
    known = {"rank", "ranked_by", "runs", "runs_ok", "runs_final"}
    assert frame.loc[0, [name for name in frame if name not in known]].isna().all()
    assert frame["best_improves"][1] == 1
    probabilities = statistics.improvements(settings, stopped_when_solved)["probability"]
    np.testing.assert_array_equal(probabilities, [NAN, NAN, 0])
    last = statistics.table(frame, ["never", "diverged", "good"]).splitlines()[4]
    assert last.split() == ["never", "0", "of", "2", *["-"] * 6]


def test_a_sweep_of_which_nothing_began():
    for stopped_when_solved in (False, True):
        frame = statistics.describe([never_begun(2), never_begun(1)], True, stopped_when_solved)
        assert list(frame["rank"]) == [1, 2]
        assert frame["best_improves"].isna().all()
        assert len(statistics.table(frame, ["a", "b"]).splitlines()) >= 4


def test_medians_to_solve_are_over_all_runs_and_over_those_solved():
    """Solved by three of five: the median run took the most of them. Means of two middles and no threshold."""
    settings = [scores_of([1] * len(steps), steps=steps) for steps in ([30, INF, 10, INF, 20], [10, 30], [10, INF])]
    frame = statistics.describe(settings, True)
    assert list(frame["env_steps_to_solve_median"]) == [30, 20, INF]
    assert list(frame["solved_env_steps_median"]) == [20, 20, 10]
    assert list(frame["solved_fraction"]) == [0.6, 1, 0.5]
    never = statistics.describe([scores_of([1], steps=[INF])], has_threshold=True)
    assert never["solved_env_steps_median"].isna().all()
    frame = statistics.describe(settings, has_threshold=False)
    assert frame[["solved_fraction", "solved_env_steps_median", "env_steps_to_solve_median"]].isna().all(axis=None)


def test_nothing_known_is_nan():
    """No run has a final return or an area, as all diverged; a single run has no interval."""
    settings = [scores_of([NAN, NAN], area=[NAN, NAN], ok=[0, 0]), scores_of([3], area=[4])]
    frame = statistics.describe(settings, has_threshold=True)
    assert frame.iloc[0].filter(regex="final_return_|area_|improves_").isna().all()
    assert frame["best_improves"][0] == 1
    assert list(frame["runs_final"]) == [0, 1]
    assert list(frame.iloc[1][["final_return_iqm", "final_return_median", "area_iqm", "area_median"]]) == [3, 3, 4, 4]
    assert frame.iloc[1][["final_return_low", "final_return_high", "area_low", "area_high"]].isna().all()
    assert statistics.describe(settings[:1], True)["best_improves"].isna().all()


def test_settings_with_different_numbers_of_runs_keep_their_rows():
    settings = [scores_of(np.arange(n) ** 2 + 10.0 * n) for n in (3, 2, 4, 3, 2)]
    frame = statistics.describe(settings, has_threshold=True)
    for row, scores in zip(frame.itertuples(), settings, strict=True):
        assert row.final_return_iqm == statistics.interquartile_mean(scores.final_return)
        assert (row.final_return_low, row.final_return_high) == statistics.interval(scores.final_return)


def test_ranking():
    """By final return, ties by area, then by env steps to solve, then as given; unknown comes last."""
    values = {"final": [5, 5, 5, 5, 9, 5], "area": [2, 2, 3, 2, 0, NAN], "steps": [INF, 7, INF, 7, INF, 1]}
    frame = frame_of(**values)
    assert list(statistics.ranking(frame)) == [4, 2, 1, 3, 0, 5]
    assert list(frame["rank"]) == [5, 3, 2, 4, 1, 6]
    frame = frame_of(**values, has_threshold=False)
    assert list(statistics.ranking(frame)) == [4, 2, 0, 1, 3, 5]
    assert list(statistics.ranking(frame.set_index(frame.index + 50))) == [4, 2, 0, 1, 3, 5]


def test_ranking_where_some_run_has_no_final_return():
    """By area, ties by the final returns that there are, then by env steps to solve, then as given."""
    frame = frame_of(
        final=[NAN, 5, 5, 5, 6, 9, NAN, 5], area=[8, 2, 2, 3, 2, 0, 9, NAN], steps=[1, INF, 7, INF, 7, INF, 1, 1]
    )
    assert list(statistics.ranking(frame)) == [6, 0, 3, 4, 2, 1, 5, 7]
    assert list(statistics.ranking(frame.set_index(frame.index + 50))) == [6, 0, 3, 4, 2, 1, 5, 7]


def test_improvements_of_every_pair():
    settings = [scores_of([1, 3]), scores_of([2, 2]), scores_of([9, 3])]
    frame = statistics.improvements(settings)
    assert list(zip(frame["setting"], frame["other"], strict=True)) == [(0, 1), (0, 2), (1, 2)]
    assert list(frame["probability"]) == [0.5, 0.125, 0]
    assert (frame["low"][0], frame["high"][0]) == (0, 1)
    assert list(statistics.improvements(settings[:1]).columns) == ["setting", "other", "probability", "low", "high"]


def test_improvements_in_area_where_some_run_has_no_final_return():
    """That is decided once for all pairs: the first two have all final returns, and yet are compared by area."""
    settings = [scores_of([1, 1], [8, 2]), scores_of([2, 2], [5, 5]), scores_of([NAN, 9], [2, NAN])]
    assert list(statistics.improvements(settings)["probability"]) == [0.5, 0.75, 1]


def test_table_by_hand():
    settings = [
        scores_of([100, 100], area=[50, 50], steps=[4000, INF], ok=[1, 0]),
        scores_of([200, 200], area=[150, 150], steps=[3000, 1000]),
        scores_of([7], area=[NAN]),
        scores_of([150, NAN, 150], area=[20, 20, 20]),
    ]
    frame = statistics.describe(settings, has_threshold=True)
    assert statistics.table(frame, ["one", "two", "three", "four"]).splitlines() == [
        "           runs           final return  median      area under curve          env steps     P(best",
        "setting      ok              IQM [95%]  return             IQM [95%]  solved   to solve  improves)",
        "two      2 of 2  200.0 [200.0, 200.0]    200.0  150.0 [150.0, 150.0]    100%       2000          -",
        "one      1 of 2  100.0 [100.0, 100.0]    100.0   50.0 [ 50.0,  50.0]     50%       4000       1.00",
        "four     3 of 3  150.0 [150.0, 150.0]*   150.0   20.0 [ 20.0,  20.0]      0%      never       1.00",
        "three    1 of 1    7.0                     7.0      -                     0%      never          -",
        "* over fewer runs: the others diverged, did not begin or had fewer than 100 episodes",
        "env steps to solve: the median over the runs that were solved",
        "Some runs had fewer than 100 episodes, so settings are ranked by area under curve.",
    ]
    frame = statistics.describe(settings[:2], has_threshold=True)
    assert statistics.table(frame, ["one", "two"]).splitlines() == [
        "           runs          final return  median      area under curve          env steps     P(best",
        "setting      ok             IQM [95%]  return             IQM [95%]  solved   to solve  improves)",
        "two      2 of 2  200.0 [200.0, 200.0]   200.0  150.0 [150.0, 150.0]    100%       2000          -",
        "one      1 of 2  100.0 [100.0, 100.0]   100.0   50.0 [ 50.0,  50.0]     50%       4000       1.00",
        "env steps to solve: the median over the runs that were solved",
    ]
    assert statistics.table(frame, ["one", "two"], 80).splitlines() == [
        "setting",
        "  runs          final return      area under curve          env steps     P(best",
        "    ok             IQM [95%]             IQM [95%]  solved   to solve  improves)",
        "two",
        "2 of 2  200.0 [200.0, 200.0]  150.0 [150.0, 150.0]    100%       2000          -",
        "one",
        "1 of 2  100.0 [100.0, 100.0]   50.0 [ 50.0,  50.0]     50%       4000       1.00",
        "env steps to solve: the median over the runs that were solved",
    ]


def test_table_without_a_threshold():
    frame = statistics.describe([scores_of([1, 2]), scores_of([3, 4])], has_threshold=False)
    assert [line.split()[-3:] for line in statistics.table(frame, ["a", "b"]).splitlines()[2:]] == [
        ["-", "-", "-"],
        ["-", "-", "1.00"],
    ]


LONG = [f"sweep-of-the-night learning_rate=0.{n:04d} hidden_sizes=64x64 seed_offset={n}" for n in range(23)]


@pytest.fixture(scope="module")
def described():
    rng = np.random.default_rng(0)
    settings = [scores_of(rng.normal(-480 + n, 9, 10), rng.normal(-490, 9, 10)) for n in range(23)]
    return statistics.describe(settings, has_threshold=True)


def test_table_shows_the_20_best_in_a_line_each_where_there_is_room(described):
    lines = statistics.table(described, LONG, 200).splitlines()
    assert len(lines) == 2 + 20 + 1
    assert lines[-1] == "... and 3 more"
    for line, row in zip(lines[2:22], statistics.ranking(described)[:20], strict=True):
        assert line.startswith(f"{LONG[row]}  ")


@pytest.mark.parametrize("width", [80, 120, None, 160])
def test_table_shows_every_label_whole_above_its_figures_where_there_is_none(described, width):
    lines = statistics.table(described, LONG, width).splitlines()
    assert max(map(len, lines)) <= (width or 120)
    heading, upper, lower, *rows, more = lines
    assert (heading, more) == ("setting", "... and 3 more")
    assert rows[::2] == [LONG[row] for row in statistics.ranking(described)[:20]]
    assert all(row.startswith("10 of 10  -") for row in rows[1::2])
    assert ("median" in upper) == (width != 80)
    assert ("P(best improves)" in f"{upper.split()[-1]} {lower.split()[-1]}") == (width != 80)
    whole = statistics.table(described, LONG, 200).splitlines()
    medians = [row.split("]")[1].split()[0] for row in whole[2:22]]
    assert all((median in row.split("]")[1]) == (width != 80) for median, row in zip(medians, rows[1::2], strict=True))


@pytest.mark.parametrize("width", [80, 120, 160])
def test_labels_longer_than_a_line_are_wrapped_between_their_words(described, width):
    words = [f"hyperparameter_{word}=0.001" for word in range(30)]
    lines = statistics.table(described, [f"n={n}\n{' '.join(words)}" for n in range(23)], width).splitlines()
    assert max(map(len, lines)) <= width
    best = statistics.ranking(described)[0]
    first_figures = next(at for at, line in enumerate(lines) if line.startswith("10 of 10"))
    assert " ".join(lines[3:first_figures]).split() == [f"n={best}", *words]


def test_a_word_longer_than_a_line_is_not_cut_either(described):
    lines = statistics.table(described, [f"{'x' * 100}{n:02d}" for n in range(23)], 80).splitlines()
    assert lines[3] + lines[4] == f"{'x' * 100}{statistics.ranking(described)[0]:02d}"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([487.31, -3.14159, NAN], ["487.3", "-3.1", "-"]),
        ([0.98765, -0.00001], ["0.9877", "0.0000"]),
        ([12.345, 1], ["12.35", "1.00"]),
        ([123456.7], ["123457"]),
        ([12345678.0, 1], ["1.23e+07", "1"]),
        ([0.0, NAN], ["0.000", "-"]),
        ([0.000012345], ["1.23e-05"]),
        ([NAN], ["-"]),
    ],
)
def test_numbers_have_the_decimals_of_the_largest(values, expected):
    shown = statistics.table(
        statistics.describe([scores_of([value]) for value in values], has_threshold=True), list("abc")[: len(values)]
    )
    medians = {line.split()[0]: line.split()[5] for line in shown.splitlines()[2 : 2 + len(values)]}
    assert medians == dict(zip("abc", expected, strict=False))


def test_a_setting_without_a_run_that_is_ok_is_last_whatever_it_is_ranked_by():
    """A short run elsewhere makes the area decide, and the diverged setting has a high and finite one."""
    diverged = scores_of([NAN, NAN], area=[900, 900], steps=[INF, INF], ok=[0, 0])
    short = scores_of([NAN, 20], area=[30, 20], steps=[INF, INF])
    frame = statistics.describe([diverged, short], has_threshold=True)
    assert frame["ranked_by"].tolist() == ["area_under_curve"] * 2
    assert frame["rank"].tolist() == [2, 1]
