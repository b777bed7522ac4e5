"""Which settings go on in a search, against rungs worked out by hand."""

import math

import numpy as np
import pytest
import scipy.stats

from purejaxrl.errors import InputError
from purejaxrl.experiment import search
from purejaxrl.experiment.intervals import student_quantile
from purejaxrl.experiment.search import Rung, RungResult, SearchSpec, Step
from purejaxrl.experiment.tune_plan import parse_duration
from purejaxrl.experiment.tune_time import choose
from purejaxrl.training.metrics import RunStats

INF, NAN = np.inf, np.nan


def spec_of(method="halving", settings=27, seeds=4, env_steps=9000, iteration=100, eta=3, objective="final_return"):
    return SearchSpec(method, objective, settings, seeds, env_steps, iteration, eta)


def result_of(rung, worth):
    """Every seed of a setting is worth the same, or as given."""
    worth = np.broadcast_to(np.asarray(worth, float).reshape(len(rung.settings), -1), (len(rung.settings), rung.seeds))
    return RungResult(rung, worth, worth.mean(axis=1))


def run(spec, worth):
    """All rungs where setting k is worth worth[k] in each."""
    results = []
    while (rung := search.next_rung(spec, results)) is not None:
        results.append(result_of(rung, [worth[setting] for setting in rung.settings]))
    return results


def test_halving_by_hand():
    """27 settings, eta 3: 9 are few enough for the last rung. Seeds double up to all of them."""
    spec = spec_of(settings=27, seeds=4)
    worth = [(7 * setting) % 27 for setting in range(27)]
    first, second = run(spec, worth)
    assert first.rung == Rung(tuple(range(27)), 2, 3000)
    # The best nine are worth 18 to 26.
    assert second.rung == Rung(tuple(setting for setting in range(27) if worth[setting] >= 18), 4, 9000)
    assert search.find_winner(spec, [first, second]) == (worth.index(26), search.Score(26, 26, 26))


@pytest.mark.parametrize(
    ("settings", "seeds", "env_steps", "steps"),
    [
        (256, 8, 81_000, [(256, 1, 3000), (86, 2, 9000), (29, 4, 27_000), (10, 8, 81_000)]),
        (1000, 8, 81_000, [(1000, 1, 1000), (334, 1, 3000), (112, 2, 9000), (38, 4, 27_000), (13, 8, 81_000)]),
        (1000, 5, 81_000, [(1000, 1, 1000), (334, 1, 3000), (112, 2, 9000), (38, 3, 27_000), (13, 5, 81_000)]),
        (16, 3, 900, [(16, 2, 300), (6, 3, 900)]),
        # Two rungs from 2 eta settings on.
        (6, 1, 900, [(6, 1, 300), (2, 1, 900)]),
        (5, 8, 900, [(5, 8, 900)]),
        # No rung is shorter than an iteration of 100 env steps.
        (1000, 8, 2699, [(1000, 2, 299), (334, 4, 899), (112, 8, 2699)]),
    ],
)
def test_the_ladder(settings, seeds, env_steps, steps):
    found = search.ladder(spec_of(settings=settings, seeds=seeds, env_steps=env_steps))
    assert found == [Step(*step) for step in steps]


def test_ties_go_by_the_mean_return_and_then_by_number():
    rung = Rung((3, 5, 8, 9), 1, 100)
    worth = np.array([[1.0], [2.0], [2.0], [2.0]])
    result = RungResult(rung, worth, np.array([9.0, 4.0, 6.0, 4.0]))
    assert search.ranking(result).tolist() == [2, 1, 3, 0]


def test_diverged_runs_are_last():
    """One of four seeds is cut off by the interquartile mean, two are not."""
    spec, rung = spec_of(), Rung((0, 1, 2), 4, 9000)
    stats = RunStats.empty(12)._replace(recent_return=np.array([9, 9, 9, 9, 5, 5, 5, 5, NAN, 1, 1, 1.0]))
    has_diverged = np.zeros(12, bool)
    has_diverged[:2] = True
    result = search.evaluate(spec, rung, stats, has_diverged)
    np.testing.assert_array_equal(result.worth, [[-INF, -INF, 9, 9], [5, 5, 5, 5], [-INF, 1, 1, 1]])
    assert search.ranking(result).tolist() == [1, 2, 0]
    first, second, third = search.score(spec, result)
    assert math.isnan(first.value)
    assert second == search.Score(5, 5, 5)
    assert third.value == 1
    assert math.isnan(third.low)


def test_scores_of_each_objective():
    rung = Rung((0, 1), 2, 1000)
    stats = RunStats.empty(4)._replace(
        recent_return=np.array([1, 3, 10, 20.0]),
        area=np.array([5, 7, 1, NAN]),
        solved_at_steps=np.array([400, -1, 300, 500]),
    )
    nobody = np.zeros(4, bool)
    found = {}
    for objective in search.OBJECTIVES:
        spec = spec_of(settings=2, seeds=2, env_steps=1000, objective=objective)
        found[objective] = search.evaluate(spec, rung, stats, nobody), spec
    scores = {objective: search.score(spec, result) for objective, (result, spec) in found.items()}
    assert [score.value for score in scores["final_return"]] == [2, 15]
    # The ends of the bootstrap of two values are these.
    assert scores["final_return"][0][1:] == (1, 3)
    assert scores["area"][0] == search.Score(6, 5, 7)
    assert math.isnan(scores["area"][1].value)
    # Not solved counts as twice the budget, and fewer are better.
    assert scores["steps_to_solve"] == [search.Score((400 + 2000) / 2, 400, 2000), search.Score(400, 300, 500)]
    assert search.ranking(found["steps_to_solve"][0]).tolist() == [1, 0]


def test_one_seed_has_no_interval():
    (score,) = search.score(spec_of(), result_of(Rung((4,), 1, 100), [7.0]))
    assert score.value == 7
    assert np.isnan(score[1:]).all()


def test_brackets_of_hyperband_by_hand():
    """s_max = 3: weights ceil(4 / (s + 1) 3^s) are 27, 12, 6 and 4, of 49."""
    spec = spec_of("hyperband", settings=256, seeds=8, env_steps=81_000)
    brackets = search.brackets(spec)
    assert [len(settings) for settings, _ in brackets] == [141, 63, 31, 21]
    assert sorted(sum((settings for settings, _ in brackets), ())) == [*range(256)]
    assert [steps for _, steps in brackets] == [
        [Step(141, 1, 3000), Step(47, 2, 9000), Step(16, 4, 27_000), Step(6, 8, 81_000)],
        [Step(63, 2, 9000), Step(21, 4, 27_000), Step(7, 8, 81_000)],
        [Step(31, 4, 27_000), Step(11, 8, 81_000)],
        [Step(21, 8, 81_000)],
    ]
    worth = np.random.default_rng(0).permutation(256).astype(float)
    results = run(spec, worth)
    assert len(results) == 10
    # Whatever bracket it is in, the best of all comes to its last rung.
    assert search.find_winner(spec, results)[0] == np.argmax(worth)


def test_a_race_drops_what_is_worse_for_certain():
    """Three seeds, ten slices, three settings: 30 comparisons, so t at 0.05 / 60 with 2 degrees of freedom."""
    spec = spec_of("racing", settings=3, seeds=3, env_steps=1000, iteration=10)
    first = search.next_rung(spec, [])
    assert first == Rung((0, 1, 2), 3, 100)
    quantile = scipy.stats.t.isf(0.05 / 60, 2)
    # Both have a standard error of 1, so intervals touch where means are two quantiles apart.
    around = np.array([-1, 0, 1.0]) * math.sqrt(3)
    for gap, left in ((2 * quantile - 0.1, (0, 1, 2)), (2 * quantile + 0.1, (1, 2))):
        result = result_of(first, [around, around + gap, around + gap - 1])
        assert search.next_rung(spec, [result]) == Rung(left, 3, 200)
    result = result_of(first, [[-INF, 500, 500], around, around])
    assert search.next_rung(spec, [result]).settings == (1, 2)
    nothing = result_of(first, [[-INF] * 3] * 3)
    assert search.next_rung(spec, [nothing]).settings == (0, 1, 2)


def test_a_race_ends_with_the_budget():
    spec = spec_of("racing", settings=2, seeds=2, env_steps=350, iteration=100)
    results = run(spec, [1, 1])
    assert [result.rung.env_steps for result in results] == [116, 233, 350]
    assert search.find_winner(spec, results)[0] == 0
    # The one that is left trains on.
    results = run(spec._replace(env_steps=10_000), [1, 2])
    assert [len(result.rung.settings) for result in results] == [2, *[1] * 9]


def test_a_random_search_is_one_rung():
    spec = spec_of("random", settings=4)
    (result,) = run(spec, [1, 3, 2, 0])
    assert result.rung == Rung((0, 1, 2, 3), 4, 9000)
    assert search.find_winner(spec, [result])[0] == 1


def test_env_steps_of_a_search_by_hand():
    """Of 27 settings x 2 seeds nine go on with two more seeds each."""
    rungs = search.plan_rungs(spec_of(settings=27, seeds=4))
    assert search.count_env_steps(rungs) == 27 * 2 * 3000 + 9 * 2 * (9000 - 3000) + 9 * 2 * 9000
    assert search.count_env_steps(search.plan_rungs(spec_of("random", settings=4))) == 4 * 4 * 9000


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 31])
@pytest.mark.parametrize("tail", [0.4, 0.025, 1e-3, 2.5e-7])
def test_quantiles_of_student(freedom, tail):
    assert student_quantile(tail, freedom) == pytest.approx(scipy.stats.t.isf(tail, freedom), rel=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"env_steps": 299}, "env_steps: 299 does not divide into rungs; halving takes at least 300, 3 iterations of"),
        ({"method": "hyperband", "env_steps": 299}, "hyperband takes at least 300"),
        ({"method": "racing", "env_steps": 199}, "racing takes at least 200, 2 iterations of 100 env steps"),
        ({"method": "racing", "seeds": 1}, "method: racing compares intervals over seeds; give seeds 2 or more, not 1"),
    ],
)
def test_what_cannot_be_divided_is_refused(options, said):
    with pytest.raises(InputError) as caught:
        search.check_search(spec_of(**options))
    assert said in str(caught.value)


@pytest.mark.parametrize("options", [{"settings": 5}, {"method": "random"}])
def test_one_rung_takes_any_budget(options):
    search.check_search(spec_of(**{**options, "env_steps": 100}))


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2m", 120), ("1.5h", 5400), (" .5M ", 30), ("10 s", 10)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "m", "0s", "-1m", "2 days", "1h30m", "inf s", "1e3s"])
def test_what_is_no_duration(text):
    with pytest.raises(
        InputError, match=r"^time: .* is not allowed; it takes a number of s, m or h, as 90s, 2m or 1h$"
    ):
        parse_duration(text)


def cost(spec, choice):
    spec = spec._replace(settings=choice.settings, env_steps=choice.env_steps)
    return search.count_env_steps(search.plan_rungs(spec)) + 2 * choice.confirm_seeds * choice.env_steps


@pytest.mark.parametrize("env_steps", [3e6, 2e7, 1e8])
def test_what_there_is_time_for(env_steps):
    """As many settings as fit, of which one more step of the list would not."""
    spec = spec_of(seeds=8, env_steps=500_000)
    choice = choose(spec, 32, env_steps, is_budget_given=False)
    assert choice.confirm_seeds == 32
    assert cost(spec, choice) <= env_steps
    assert choice.env_steps <= 500_000
    if choice.settings < 256:
        assert cost(spec, choice._replace(settings=int(choice.settings * 1.11) + 1)) > env_steps
    given = choose(spec, 32, env_steps, is_budget_given=True)
    assert given.env_steps == 500_000
    # A third of the time.
    assert given.confirm_seeds == max(min(32, int(env_steps / 3 / 1_000_000)), 2)
    assert cost(spec, given) <= env_steps or given.settings == 6


def test_settings_that_go_on_in_time():
    """Of 27 settings nine would go on, each with two more seeds: 4 x 9000 - 2 x 3000 env steps for each."""
    spec = spec_of(settings=27, seeds=4)
    (first,) = [result_of(Rung(tuple(range(27)), 2, 3000), range(27))]
    for count in (3, 9, 27):
        assert search.keep_in_time(spec, [first], count * 30_000) == count
        assert search.keep_in_time(spec, [first], count * 30_000 - 1) == count - 1
    assert search.keep_in_time(spec, [first], -1.0) == 2
    assert search.keep_in_time(spec, [first], 1e9) == 27
    chosen = search.next_rung(spec._replace(kept=(4,)), [first])
    assert chosen == Rung((23, 24, 25, 26), 4, 9000)
    # With four rungs, what follows counts, too: 256, then c, c / 3 and c / 9 settings.
    spec = spec_of(settings=256, seeds=8, env_steps=81_000)
    first = result_of(Rung(tuple(range(256)), 1, 3000), range(256))
    each = [2 * 9000 - 3000, 4 * 27_000 - 2 * 9000, 8 * 81_000 - 4 * 27_000]
    assert search.keep_in_time(spec, [first], 18 * each[0] + 6 * each[1] + 2 * each[2]) == 18


def test_a_race_drops_nobody_for_a_seed_without_a_value():
    """Nor anybody where no setting has an interval; one that has not even an interquartile mean is out."""
    inf = np.inf
    worth = np.array([[100.0, 101, 99, 100], [500, 500, 500, -inf], [-inf, -inf, -inf, -inf], [300, 301, 299, 300]])
    assert search._is_in_the_race(worth, 10).tolist() == [False, True, False, True]
    assert search._is_in_the_race(worth[1:3], 10).tolist() == [True, False]
    assert search._is_in_the_race(worth[2:3], 10).tolist() == [True]


def test_learning_sooner_does_not_look_worse():
    """A run that was solved at 20 k of 100 k env steps counts as going on at 475, where the other never got there."""
    stats = RunStats.empty(2)._replace(
        area=np.array([200.0, 400.0]),
        env_steps=np.array([20_000, 100_000]),
        solved_at_steps=np.array([20_000, -1]),
        is_over=np.array([True, True]),
    )
    spec = spec_of(settings=2, seeds=1)._replace(objective="area", stop_at=475.0)
    worth = search.evaluate(spec, search.Rung((0, 1), 1, 100_000), stats, np.zeros(2, bool)).worth
    np.testing.assert_allclose(worth, [[(200 * 20 + 475 * 80) / 100], [400]])
    at_once = search.evaluate(spec._replace(stop_at=None), search.Rung((0, 1), 1, 100_000), stats, np.zeros(2, bool))
    np.testing.assert_allclose(at_once.worth, [[200], [400]])


def test_an_interval_has_both_ends_or_none():
    spec = spec_of(settings=1, seeds=4)._replace(objective="steps_to_solve")
    result = search.RungResult(search.Rung((0,), 4, 1), np.array([[-10.0, -11, -12, -np.inf]]), np.zeros(1))
    (found,) = search.score(spec, result)
    assert np.isnan(found.low) == np.isnan(found.high)
