"""What benchmarks compute of what they measure."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl.components.networks import MLP

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import accelerator_report
import floor
import parity
import quotes
import solved

sys.path.pop(0)

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 2), (4, 1), (300, 2)])
def test_the_floor_counts_the_matrix_products_of_the_network(inputs, outputs):
    """XLA's own account of one sample there, and there and back; it counts biases and losses too, which are small."""
    network = MLP((32, 32), outputs, "relu")
    x = jnp.ones((64, inputs))
    params = network.init(jax.random.key(0), x)

    def loss(params):
        return jnp.sum(jnp.square(network.apply(params, x)))

    for work, function in ((floor.forward, loss), (floor.gradient, jax.grad(loss))):
        cost = jax.jit(function).lower(params).compile().cost_analysis()["flops"] / 64
        assert work(inputs, outputs, tanh=False).flops == pytest.approx(cost, rel=0.15)


def test_the_floor_of_vpg_by_hand():
    # Layers of 4 x 32, 32 x 32 and 32 x 2 (policy) or 32 x 1 (value); 4000 samples, 80 value steps and one policy step.
    value, policy = 2 * (128 + 1024 + 32), 2 * (128 + 1024 + 64)
    flops = 4000 * (policy + 2 * value + 3 * policy - 256 + 80 * (3 * value - 256))
    assert floor.VPG_EPOCH.flops == flops
    assert floor.VPG_EPOCH.tanh == 4000 * 64 * (1 + 2 + 1 + 80)
    # A sample's four numbers in 3 passes forward, and there and back in one policy and 80 value steps; 12 numbers a
    # transition, written and read; 1,282 (policy) and 1,249 (value) parameters and Adam's averages, read and written.
    moved = 4000 * (4 * (3 + 2 + 160) + 24) + 6 * (1282 + 80 * 1249)
    assert floor.VPG_EPOCH.bytes == 4 * moved


def contest(budget, amount):
    return parity.Contest("train", "script", budget, amount)


def episodes(*returns):
    returns = np.array(returns, float)
    return parity.Episodes(np.cumsum(returns).astype(int), returns)


def test_area_is_a_mean_over_episodes_or_over_env_steps():
    run = episodes(10, 30)
    assert parity.area(contest("episodes", 2), run) == 20
    assert parity.area(contest("epochs", 2), run) == (10 * 10 + 30 * 30) / 40


def test_curves_are_means_of_equal_parts():
    run = episodes(*np.repeat([1.0, 5.0, 9.0], parity.POINTS))
    np.testing.assert_allclose(parity.curve(contest("episodes", 180), run)[::20], [1, 5, 9])
    # A third of the episodes takes 1/15 of the env steps, so the second part of the budget is of fives already.
    by_steps = parity.curve(contest("epochs", 1), run)
    assert by_steps[0] == 1
    assert by_steps[-1] == 9
    assert np.isclose(by_steps, 5).sum() == pytest.approx(parity.POINTS / 3, abs=2)


def test_episodes_beyond_a_budget_of_episodes_are_dropped():
    run = episodes(1, 2, 3)
    assert parity.within_budget(contest("episodes", 2), run).returns.tolist() == [1, 2]
    assert parity.within_budget(contest("epochs", 2), run) is run


def test_the_interval_of_a_difference_covers_it_as_often_as_it_says():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        found = parity.difference((3 + rng.normal(size=30)).tolist(), rng.normal(size=30).tolist())
        covered += found["low"] < 3 < found["high"]
    assert 88 <= covered <= 100


def test_solved_is_the_end_of_the_first_full_window_at_the_threshold():
    returns = [0.0] * 50 + [200.0] * 150
    env_steps = list(range(10, 2010, 10))
    # Of 100 episodes 98 at 200 make 196, and 97 only 194.
    assert solved.solved_at(env_steps, returns) == env_steps[50 + 97]
    assert solved.solved_at(env_steps[:100], returns[:100]) is None
    assert solved.solved_at([1], [200.0]) is None


@pytest.mark.slow
def test_quotes_are_up_to_date():
    results = (BENCHMARKS / "RESULTS.md").read_text()
    for name, heading in quotes.QUOTES:
        text = (BENCHMARKS.parent / name).read_text()
        table = quotes.table_of(results, heading)
        assert table[0] in text, name
        assert quotes.with_rows(text, table) == text, name


@pytest.mark.slow
def test_quoted_tables_are_in_the_results():
    results = (BENCHMARKS / "RESULTS.md").read_text()
    head, *rows = quotes.table_of(results, "### At a glance")
    readme = (BENCHMARKS.parent / "README.md").read_text().splitlines()
    start = readme.index(head)
    assert readme[start + 2 : start + 2 + len(rows)] == rows


def test_quoted_rows_are_replaced_below_their_head_only():
    table = ["| a | b |", "| one | 1.5 |", "| one more | 2 |"]
    other = "| x | b |\n|---|---|\n| one | 7 |\n\n"
    text = other + "| a | b |\n|---|---|\n| one more | 9 |\n| other | 9 |\n| one | 9 |\n\n| one | 8"
    expected = text.replace("| one more | 9 |", "| one more | 2 |").replace("| one | 9 |", "| one | 1.5 |")
    assert quotes.with_rows(text, table) == expected
    notebook = json.dumps({"source": ["| a | b |\n", "|---|---|\n", "| one | 9 |\n", "end"]}, indent=1)
    assert json.loads(quotes.with_rows(notebook, table))["source"][2] == "| one | 1.5 |\n"


def test_the_accelerator_is_compared_with_what_was_measured():
    rates = {f"{name}, {seeds} seeds": 100.0 * seeds for name in accelerator_report.FORMS for seeds in (64, 256, 4096)}
    found = {
        "torch": "2",
        "ours": {label: {"env_steps_per_second": rate} for label, rate in rates.items()},
        "theirs": {"DQN, one environment, cuda, 1 process": {"env_steps_per_second": 50.0}},
    }
    lines = accelerator_report.torch_lines(found)
    assert [line for line in lines if "process" in line and line.startswith("|")] == [
        "| DQN, one environment | cuda, 1 process | 50 | 128 | 8,192 |"
    ]
    assert lines[-1] == "Not measured: PyTorch's VPG, DQN, images, A3C async and A3C sync."
