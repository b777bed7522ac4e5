"""Short learning tests, several seeds each: what a broken algorithm would not reach."""

import numpy as np
import pytest

import purejaxrl


def test_vpg_learns_cartpole():
    result = purejaxrl.train("vpg", preset="tuned", env="CartPole-v0", seeds=4, env_steps=200_000)
    final = np.array(result.summary["final_return_per_run"])
    assert np.all(final > 150), final


def test_dqn_learns_cartpole():
    result = purejaxrl.train("dqn", preset="tuned", env="CartPole-v0", seeds=4, env_steps=60_000)
    final = np.array(result.summary["final_return_per_run"])
    assert np.mean(final > 120) >= 0.75, final


@pytest.mark.slow
def test_presets_solve_cartpole_v1():
    for algorithm, env_steps in (("vpg", 1_000_000), ("dqn", 200_000)):
        result = purejaxrl.train(algorithm, preset="tuned", env="CartPole-v1", seeds=8, env_steps=env_steps)
        assert result.summary["solved_runs"] >= 7
