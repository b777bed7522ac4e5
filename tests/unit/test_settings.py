"""The settings of a sweep: which there are, in which order, how ranges are drawn, and what is refused."""

import math

import numpy as np
import pytest

from purejaxrl.agents import AGENTS
from purejaxrl.components import hyperparameters as configs
from purejaxrl.components.hyperparameters import Real, check_fields, field_specs, leaf, static
from purejaxrl.errors import InputError
from purejaxrl.experiment.labels import columns_of, label_of, show
from purejaxrl.experiment.settings import Range, count_settings, draws, resolve_settings, rounded

DQN, A3C = AGENTS["dqn"], AGENTS["a3c"]
INF, NAN = math.inf, math.nan
# As much as is shown of 10**400.
HUGE = "1" + "0" * 79


def resolve(hyperparameters, agent=DQN, preset="original", **options):
    return resolve_settings(agent, "CartPole-v1", "default", preset, hyperparameters, **options)


def drawn(source, count=4000, field="lr", seed=0):
    """Draws of one field, without a Config for each."""
    return [values[field] for values in draws({field: source}, field_specs(DQN.Config), count, seed)]


def test_a_grid_varies_the_last_hyperparameter_fastest():
    settings = resolve({"lr": [1e-3, 1e-4], "gamma": 0.9, "double_q": [True, False], "batch_size": [7, 5, 6]})
    assert [tuple(setting.values.values()) for setting in settings] == [
        (1e-3, True, 7),
        (1e-3, True, 5),
        (1e-3, True, 6),
        (1e-3, False, 7),
        (1e-3, False, 5),
        (1e-3, False, 6),
        (1e-4, True, 7),
        (1e-4, True, 5),
        (1e-4, True, 6),
        (1e-4, False, 7),
        (1e-4, False, 5),
        (1e-4, False, 6),
    ]
    assert all(list(setting.values) == ["lr", "double_q", "batch_size"] for setting in settings)


def test_each_config_holds_its_values_and_the_fixed_ones():
    settings = resolve({"lr": [1e-3, 1e-4], "gamma": 0.9, "hidden_sizes": [(8,), (4, 4)]})
    fields = ("lr", "gamma", "hidden_sizes", "batch_size")
    assert [tuple(getattr(setting.config, field) for field in fields) for setting in settings] == [
        (1e-3, 0.9, (8,), 512),
        (1e-3, 0.9, (4, 4), 512),
        (1e-4, 0.9, (8,), 512),
        (1e-4, 0.9, (4, 4), 512),
    ]


def test_a_tuple_is_one_value_and_a_list_of_one_is_swept():
    (setting,) = resolve({"hidden_sizes": (16, 8), "eps_vals": (1.0, 0.1, 0.001)})
    assert setting.values == {}
    assert (setting.config.hidden_sizes, setting.config.eps_vals) == ((16, 8), (1.0, 0.1, 0.001))
    (setting,) = resolve({"hidden_sizes": [(16, 8)]})
    assert setting.values == {"hidden_sizes": (16, 8)}
    assert setting.config.hidden_sizes == (16, 8)
    assert [setting.config for setting in resolve({})] == [DQN.Config()]


def test_whole_numbers_may_be_written_as_floats():
    given = {"env_steps": [1e3, 2000], "hidden_sizes": [(8.0, 4), (2,)], "batch_size": np.float32(16), "lr": 1.0}
    settings = resolve(given)
    found = [(s.config.env_steps, s.config.hidden_sizes, s.config.batch_size) for s in settings]
    assert found == [(1000, (8, 4), 16), (1000, (2,), 16), (2000, (8, 4), 16), (2000, (2,), 16)]
    assert {type(number) for steps, sizes, batch in found for number in (steps, *sizes, batch)} == {int}
    assert settings[0].values == {"env_steps": 1000, "hidden_sizes": (8, 4)}
    assert type(settings[0].values["env_steps"]) is int
    assert type(settings[0].config.lr) is float


def test_a_budget_may_be_swept_and_none_is_a_value():
    settings = resolve({"env_steps": [100, 200], "max_ep_len": [None, 50]})
    found = [(s.config.episodes, s.config.env_steps, s.config.max_ep_len) for s in settings]
    assert found == [(None, 100, None), (None, 100, 50), (None, 200, None), (None, 200, 50)]


def test_each_variant_takes_its_own_tuned_entry():
    """TUNED has 1e-3 for a3c in mode async and 7e-3 in mode sync; what is given goes before either."""
    asynchronous, synchronous = resolve({"mode": ["async", "sync"]}, agent=A3C, preset="tuned")
    assert (asynchronous.config.mode, asynchronous.config.lr) == ("async", 1e-3)
    assert (synchronous.config.mode, synchronous.config.lr) == ("sync", 7e-3)
    assert asynchronous.config.env_steps == synchronous.config.env_steps == 500_000
    assert synchronous.values == {"mode": "sync"}
    settings = resolve({"mode": ["async", "sync"], "lr": [1e-2, 2e-2]}, agent=A3C, preset="tuned")
    assert [setting.config.lr for setting in settings] == [1e-2, 2e-2, 1e-2, 2e-2]


def test_there_are_as_many_random_settings_as_requested():
    swept = {"lr": Range(1e-4, 1e-2, log=True), "hidden_sizes": [(8,), (4, 4)], "batch_size": Range(16, 32)}
    settings = resolve({**swept, "gamma": 0.9}, random=30)
    assert len(settings) == 30
    for values, config in settings:
        assert list(values) == list(swept)
        assert all(getattr(config, name) == value for name, value in values.items())
        assert type(config.batch_size) is int
        assert config.gamma == 0.9
    assert {setting.values["hidden_sizes"] for setting in settings} == {(8,), (4, 4)}
    assert len({setting.values["lr"] for setting in settings}) == 30
    # Lists alone are drawn from, too: with replacement, and more often than there are values.
    assert {setting.config.lr for setting in resolve({"lr": [1e-3, 1e-4]}, random=20)} == {1e-3, 1e-4}


def test_a_seed_decides_the_draws():
    swept = {"lr": Range(1e-4, 1e-2, log=True), "batch_size": Range(16, 128), "loss": ["mse", "huber"]}
    first, again, other = (resolve(swept, random=5, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert all(a.values["lr"] != b.values["lr"] for a, b in zip(first, other, strict=True))
    # Fewer settings are the first of more.
    assert resolve(swept, random=2, seed=3) == first[:2]
    # Neither a list nor a range is drawn once for all settings.
    assert all(len({setting.values[name] for setting in first}) > 1 for name in swept)


def test_uniform_draws():
    """Quartiles of 2..6 are 3, 4 and 5; those of 4000 draws have a standard error of at most 0.032."""
    values = drawn(Range(2.0, 6.0))
    assert 2 <= min(values) < 2.01
    assert 5.99 < max(values) <= 6
    np.testing.assert_allclose(np.quantile(values, (0.25, 0.5, 0.75)), (3, 4, 5), atol=0.12)


def test_logarithmic_draws():
    """Quartiles of 1e-4..1e-2 are 10 ** -3.5, -3 and -2.5; uniform draws would have a median of 5e-3."""
    values = drawn(Range(1e-4, 1e-2, log=True))
    assert 1e-4 <= min(values) < 1.01e-4
    assert 0.99e-2 < max(values) <= 1e-2
    np.testing.assert_allclose(np.log10(np.quantile(values, (0.25, 0.5, 0.75))), (-3.5, -3, -2.5), atol=0.06)


def test_rounding_leads_out_of_no_range():
    """Between two neighboring numbers exp(log(x)) is below 1e-4 or above it, but never one of them."""
    low, high = 1e-4, math.nextafter(1e-4, 1)
    assert math.exp(math.log(low)) not in (low, high)
    assert set(drawn(Range(low, high, log=True), count=20)) <= {low, high}


def test_whole_draws_hold_both_ends_as_often_as_the_others():
    """1000 each of 4000, with a standard deviation of 27; rounding without a margin would give the ends 667."""
    values = drawn(Range(2, 5), field="batch_size")
    assert set(map(type, values)) == {int}
    numbers, counts = np.unique(values, return_counts=True)
    assert list(numbers) == [2, 3, 4, 5]
    np.testing.assert_allclose(counts, 1000, atol=110)


def test_logarithmic_whole_draws():
    """k has log((k + 1/2) / (k - 1/2)) of log(4.5 / 0.5): of 4000, log(3) / log(9) of them are 1."""
    numbers, counts = np.unique(drawn(Range(1, 4, log=True), field="batch_size"), return_counts=True)
    assert list(numbers) == [1, 2, 3, 4]
    np.testing.assert_allclose(counts, [2000, 930, 613, 458], atol=110)


def test_draws_from_a_list_are_even():
    values, counts = np.unique(drawn(["mse", "huber"], field="loss"), return_counts=True)
    assert list(values) == ["huber", "mse"]
    np.testing.assert_allclose(counts, 2000, atol=130)


@pytest.mark.parametrize(
    ("hyperparameters", "random", "count"),
    [
        ({}, None, 1),
        ({"lr": 1e-3, "hidden_sizes": (8, 8, 8)}, None, 1),
        ({"lr": [1e-3, 1e-4, 1e-5], "hidden_sizes": [(8,), (4,)], "gamma": 0.9}, None, 6),
        ({"lr": [1e-3, 1e-4, 1e-5]}, 7, 7),
        ({"lr": Range(1e-4, 1e-3)}, 2, 2),
    ],
)
def test_count_settings(hyperparameters, random, count):
    assert count_settings(hyperparameters, random) == count
    assert len(resolve(hyperparameters, random=random)) == count


def test_count_settings_of_an_empty_list():
    assert count_settings({"lr": [], "gamma": [0.9, 0.99]}, None) == 0


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "off"),
        (True, "true"),
        (np.False_, "false"),
        (3, "3"),
        (1_000_000, "1000000"),
        (0.001, "0.001"),
        (1e-5, "1e-05"),
        (1.0, "1"),
        (0.1 + 0.2, "0.3"),
        (np.float32(0.1), "0.100000001"),
        ("huber", "huber"),
        ((32,), "32"),
        ((32, 64), "32x64"),
        ((1.0, 0.01, 0.001), "1x0.01x0.001"),
        ([8, 8], "8x8"),
    ],
)
def test_show(value, shown):
    assert show(value) == shown


def test_labels_and_columns():
    rows = [
        {"lr": 0.001, "hidden_sizes": (32, 32), "max_grad_norm": None, "lr_anneal": True},
        {"lr": 1e-05, "hidden_sizes": (8,), "max_grad_norm": 0.5, "lr_anneal": False},
    ]
    assert label_of(rows[0]) == "lr=0.001 hidden_sizes=32x32 max_grad_norm=off lr_anneal=true"
    assert label_of({}) == ""
    columns = {name: column.tolist() for name, column in columns_of(iter(rows)).items()}
    assert columns == {
        "lr": ["0.001", "1e-05"],
        "hidden_sizes": ["32x32", "8"],
        "max_grad_norm": ["off", "0.5"],
        "lr_anneal": ["true", "false"],
    }
    assert columns_of([]) == columns_of([{}, {}]) == {}


def test_a_range_in_words():
    assert str(Range(1e-4, 1e-2, log=True)) == "0.0001..0.01:log"
    assert str(Range(16, 128)) == "16..128"


@pytest.mark.parametrize(
    ("hyperparameters", "random", "said"),
    [
        ({"lr": []}, None, ["lr", "empty list", "one value or more"]),
        ({"lr": []}, 3, ["lr", "empty list"]),
        ({"lr": [1e-3, 1e-4, 0.001]}, None, ["lr: 0.001 is given twice"]),
        ({"hidden_sizes": [(8, 8), (8,), (8, 8)]}, None, ["hidden_sizes: 8x8 is given twice"]),
        ({"max_ep_len": [None, None]}, None, ["max_ep_len: off is given twice"]),
        ({"lr": [1e-3, 1e-3]}, 2, ["lr: 0.001 is given twice"]),
        ({"hidden_sizes": [[8, 8], (4,)]}, None, ["hidden_sizes: [8, 8]", "tuple is one value"]),
        ({"hidden_sizes": [32, 32]}, None, ["hidden_sizes: [32, 32] is a list", "a tuple is one value: (32, 32)"]),
        ({"hidden_sizes": [32, 64]}, None, ["hidden_sizes: [32, 64] is a list", "a tuple is one value: (32, 64)"]),
        ({"eps_vals": [1, 0.01, 0.001]}, None, ["eps_vals: [1, 0.01, 0.001]", "one value: (1, 0.01, 0.001)"]),
        ({"env_steps": 3e9}, None, ["env_steps: 3000000000 is not allowed", "at least 1 and at most 2147483647"]),
        ({"env_steps": Range(1, 3e9)}, 2, ["env_steps: 1..3e+09 is not allowed", "at most 2147483647"]),
        ({"env_steps": 0}, None, ["env_steps: 0 is not allowed; it takes a whole number at least 1"]),
        ({"lr": 1e-50}, None, ["lr: 1e-50 is not allowed; in float32 1e-50 is 0, and it takes", "above 0"]),
        ({"lr": [1e-3, 1e39]}, None, ["lr: 1e+39 is not allowed; in float32 1e+39 is infinite", "a finite number"]),
        ({"gamma": 1.0000001}, None, ["gamma: 1.0000001 is not allowed; it takes", "at most 1"]),
        (
            {"lr": np.zeros((9, 99))},
            None,
            ["lr: array([[0.,", "... is not allowed; it takes a finite number above 0"],
        ),
        ({"lr": [1e-3, Range(1e-4, 1e-3)]}, 2, ["lr: 0.0001..0.001", "within a list"]),
        ({"lr": Range(1e-4, 1e-2)}, None, ["lr: 0.0001..0.01 is a range", "random N"]),
        ({"lr": Range(1e-2, 1e-4)}, 2, ["lr: 0.01..0.0001", "below the second"]),
        ({"lr": Range(1e-3, 1e-3)}, 2, ["lr: 0.001..0.001", "below the second"]),
        ({"lr": Range(0, 1e-3, log=True)}, 2, ["lr: 0..0.001:log", "above 0"]),
        ({"lr": Range(-1, 1e-3, log=True)}, 2, ["lr: -1..0.001:log", "above 0"]),
        ({"lr": Range(NAN, 1e-3)}, 2, ["lr: nan..0.001 is not a range"]),
        ({"lr": Range(1e-3, NAN)}, 2, ["lr: 0.001..nan is not a range"]),
        ({"lr": Range(1e-3, INF)}, 2, ["lr: 0.001..inf is not a range"]),
        ({"lr": Range(-INF, 1e-3)}, 2, ["lr: -inf..0.001 is not a range"]),
        ({"hidden_sizes": Range(8, 16)}, 2, ["hidden_sizes: 8..16 is a range", "one or more whole numbers"]),
        ({"eps_vals": Range(0.1, 1)}, 2, ["eps_vals: 0.1..1 is a range", "3 finite numbers"]),
        ({"loss": Range(0, 1)}, 2, ["loss: 0..1 is a range", "one of mse, huber"]),
        ({"double_q": Range(0, 1)}, 2, ["double_q: 0..1 is a range", "true or false"]),
        # That no number of settings helps comes before the advice to give one.
        ({"double_q": Range(0, 1)}, None, ["double_q: 0..1 is a range", "true or false"]),
        ({"batch_size": Range(1.5, 8)}, 2, ["batch_size: 1.5..8", "whole numbers"]),
        ({"batch_size": Range(1, 8.5)}, 2, ["batch_size: 1..8.5", "whole numbers"]),
        ({}, 3, ["random: 3 settings of what?", "a list or a range"]),
        ({"lr": 1e-3, "hidden_sizes": (8, 8)}, 3, ["random: 3 settings of what?", "a list or a range"]),
        ({"lrr": [1e-3, 1e-4]}, None, ["lrr: dqn has no such setting", "lr, lr_anneal"]),
        ({"lrr": Range(1e-3, 1e-2)}, 2, ["lrr: dqn has no such setting", "lr, lr_anneal"]),
        ({"lrr": 1e-3, "lr": [1e-3]}, None, ["lrr: dqn has no such setting", "lr, lr_anneal"]),
        ({"lr": [1e-3, -1.0]}, None, ["lr: -1 is not allowed", "above 0"]),
        ({"lr": Range(-2, -1)}, 2, ["lr: -2..-1 is not allowed", "above 0"]),
        ({"episodes": [5, 6], "env_steps": [5, 6]}, None, ["episodes and env_steps are two budgets"]),
    ],
)
def test_what_is_refused(hyperparameters, random, said):
    with pytest.raises(InputError) as caught:
        resolve(hyperparameters, random=random)
    message = str(caught.value)
    assert all(part in message for part in said), message
    assert "\n" not in message


@configs.config
class Own:
    """Not checked by the suite's type checker, as nothing is outside of it."""

    sizes: tuple[int, ...] = static((4,), "a tuple", length=0, at_least=1)
    steps: int = static(1, "a whole number", at_least=1)
    rate: Real = leaf(1.0, "a number")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sizes": 32}, "sizes: 32 is not allowed; it takes a tuple of one or more whole numbers at least 1"),
        ({"sizes": [8, 8]}, "sizes: [8, 8] is not allowed; it takes a tuple of one or more whole numbers at least 1"),
        ({"sizes": (8, 0)}, "sizes: 8 0 is not allowed; it takes one or more whole numbers at least 1"),
        ({"steps": 1.5}, "steps: 1.5 is not allowed; it takes a whole number at least 1"),
        ({"steps": 1e300}, "steps: 1e+300 is not allowed; it takes a whole number at least 1 and at most 2147483647"),
        (
            {"rate": 10**400},
            f"rate: {HUGE}... is not allowed; in float32 {HUGE}... is infinite, and it takes a finite number",
        ),
        ({"rate": math.inf}, "rate: inf is not allowed; it takes a finite number"),
        ({"steps": "x" * 500}, f"steps: '{'x' * 79}... is not allowed; it takes a whole number at least 1"),
    ],
)
def test_values_of_other_types_are_refused_with_what_is_taken(values, said):
    with pytest.raises(InputError) as caught:
        check_fields(Own(**values))
    assert str(caught.value) == said


def test_an_environment_without_a_tuned_entry():
    with pytest.raises(InputError, match="tuned has no entry for dqn Acrobot-v1 default"):
        resolve_settings(DQN, "Acrobot-v1", "default", "tuned", {"lr": [1e-3, 1e-4]})


@pytest.mark.parametrize("source", [Range(0.9, 1.5), Range(-0.1, 0.9)])
def test_a_range_beyond_the_bounds_is_refused_whatever_the_seed(source):
    with pytest.raises(
        InputError, match=r"gamma: .* is not allowed; it takes a finite number at least 0 and at most 1"
    ):
        resolve({"gamma": source}, random=1)
    assert 0 < resolve({"lr": Range(0, 1e-2)}, random=1)[0].config.lr < 1e-2


@pytest.mark.parametrize(
    ("number", "source", "expected"),
    [
        (0.00123456, Range(1e-4, 1e-2, log=True), 0.001235),
        (0.95678912, Range(0.9, 0.999), 0.95679),
        (0.9999912367, Range(0.99999, 0.999995), 0.999991237),
        (0.0000123456, Range(0, 1e-2), 0.00001235),
        (0.0, Range(0, 1), 0.0),
        (-12.34567, Range(-20, -10), -12.35),
        (0.99994, Range(0.5, 0.99992), 0.9999),
        (1.23456789, Range(1.2345, 1.2350), 1.2345679),
    ],
)
def test_drawn_numbers_have_four_digits_that_matter(number, source, expected):
    assert rounded(number, source) == expected
