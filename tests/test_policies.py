"""Categorical policies against scipy, epsilon-greedy against counts and hand-computed rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from purejaxrl.learning.policies import (
    categorical_entropy,
    categorical_log_prob,
    categorical_sample,
    epsilon_at,
    epsilon_greedy,
)

LOGITS = jnp.array([[0.0, 0.0, 0.0], [1.0, -2.0, 0.5], [50.0, -50.0, 0.0]])


def test_log_prob_and_entropy_against_scipy():
    probabilities = np.asarray(jax.nn.softmax(LOGITS), np.float64)
    expected = [scipy.stats.entropy(p) for p in probabilities]
    np.testing.assert_allclose(categorical_entropy(LOGITS), expected, atol=1e-6)
    for action in range(3):
        expected = jax.scipy.special.logsumexp(LOGITS, axis=-1)
        actual = categorical_log_prob(LOGITS, jnp.full(3, action))
        np.testing.assert_allclose(actual, LOGITS[:, action] - expected, atol=1e-5)


def test_samples_follow_the_probabilities():
    draws = categorical_sample(jax.random.key(0), jnp.tile(LOGITS[1], (50_000, 1)))
    expected = np.asarray(jax.nn.softmax(LOGITS[1]), np.float64) * 50_000
    assert scipy.stats.chisquare(np.bincount(draws, minlength=3), expected / expected.sum() * 50_000).pvalue > 1e-3


def test_epsilon_at_start_middle_and_far_end():
    # rate 0.001: after 1000 steps 1/e of the way is left.
    steps = jnp.array([0, 1000, 693, 10**7])
    expected = [1.0, 0.01 + 0.99 / np.e, 0.01 + 0.99 * np.exp(-0.693), 0.01]
    np.testing.assert_allclose(epsilon_at(steps, 1.0, 0.01, 0.001), expected, rtol=1e-6)
    np.testing.assert_allclose(epsilon_at(steps, 0.3, 0.3, 0.001), 0.3, rtol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_epsilon_greedy_takes_each_action_as_often_as_it_should(epsilon):
    q_value = jnp.tile(jnp.array([1.0, 3.0, 2.0]), (60_000, 1))
    actions = epsilon_greedy(jax.random.key(1), q_value, jnp.full(60_000, epsilon))
    share = np.bincount(actions, minlength=3) / 60_000
    np.testing.assert_allclose(share, np.array([epsilon / 3, 1 - epsilon * 2 / 3, epsilon / 3]), atol=0.008)


def test_each_actor_has_its_own_epsilon():
    q_value = jnp.tile(jnp.array([0.0, 1.0]), (4000, 1))
    epsilon = jnp.where(jnp.arange(4000) < 2000, 0.0, 1.0)
    actions = epsilon_greedy(jax.random.key(2), q_value, epsilon)
    assert np.all(actions[:2000] == 1)
    assert 0.45 < np.mean(actions[2000:]) < 0.55
