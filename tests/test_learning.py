"""Short learning tests, several seeds each: what a broken algorithm would not reach."""

import numpy as np
import pytest

import purejaxrl

pytestmark = pytest.mark.slow


def test_vpg_learns_cartpole():
    result = purejaxrl.train("vpg", preset="tuned", env="CartPole-v0", seeds=4, env_steps=200_000)
    final = np.array(result.summary_json["final_return_per_run"])
    assert np.all(final > 150), final


def test_dqn_learns_cartpole():
    result = purejaxrl.train("dqn", preset="tuned", env="CartPole-v0", seeds=4, env_steps=40_000)
    final = np.array(result.summary_json["final_return_per_run"])
    assert np.mean(final > 150) >= 0.75, final


def test_vpg_learns_cartpole_from_images():
    result = purejaxrl.train(
        "vpg", preset="tuned", observation_type="img", env="CartPole-v0", seeds=2, env_steps=100_000
    )
    final = np.array(result.summary_json["final_return_per_run"])
    assert np.all(final > 150), final


def test_dqn_learns_cartpole_from_images():
    result = purejaxrl.train("dqn", preset="tuned", observation_type="img", env="CartPole-v0", seeds=4)
    assert result.summary_json["solved_runs"] >= 3


@pytest.mark.parametrize("mode", ["async", pytest.param("sync", marks=pytest.mark.slow)])
def test_a3c_learns_cartpole(mode):
    result = purejaxrl.train("a3c", preset="tuned", env="CartPole-v1", mode=mode, seeds=8, env_steps=300_000)
    final = np.array(result.summary_json["final_return_per_run"])
    assert np.mean(final > 400) >= 0.75, final


@pytest.mark.parametrize("algorithm", ["vpg", "a3c"])
def test_presets_swing_the_pendulum_up(algorithm):
    result = purejaxrl.train(algorithm, preset="tuned", env="Pendulum-v1", seeds=8)
    final = np.array(result.summary_json["final_return_per_run"])
    assert np.sum(final > -700) >= 6, final


def test_presets_solve_cartpole_v1():
    for algorithm, env_steps in (("vpg", 500_000), ("a3c", 500_000), ("dqn", 200_000)):
        result = purejaxrl.train(algorithm, preset="tuned", env="CartPole-v1", seeds=8, env_steps=env_steps)
        assert result.summary_json["solved_runs"] >= 7
