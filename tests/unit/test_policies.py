"""Categorical and Gaussian policies against scipy, epsilon-greedy against counts and hand-computed rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from purejaxrl.components.distributions import (
    categorical_entropy,
    categorical_log_prob,
    categorical_sample,
    entropy,
    gaussian_entropy,
    gaussian_log_prob,
    greedy_action,
    log_prob,
    sample_action,
)
from purejaxrl.components.exploration import epsilon_greedy, epsilon_schedule
from purejaxrl.types import Continuous, Discrete

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


MEAN = jnp.array([[0.0, 1.0, -3.0], [2.0, 0.5, 10.0]])
LOG_STD = jnp.array([[0.0, -2.0, 1.5], [-0.3, 0.3, 3.0]])


def test_gaussian_log_prob_and_entropy_against_scipy():
    normal = scipy.stats.norm(np.asarray(MEAN, np.float64), np.exp(np.asarray(LOG_STD, np.float64)))
    np.testing.assert_allclose(gaussian_entropy(LOG_STD), normal.entropy().sum(axis=-1), rtol=1e-6)
    for action in (MEAN, MEAN + 0.7, jnp.zeros((2, 3))):
        expected = normal.logpdf(np.asarray(action, np.float64)).sum(axis=-1)
        np.testing.assert_allclose(gaussian_log_prob(MEAN, LOG_STD, action), expected, rtol=2e-6)


def test_actions_of_any_shape_have_the_density_of_their_entries():
    """A policy over [3, 2, 3] actions, described by 2 * 6 numbers each."""
    space = Continuous((2, 3), -1.0, 1.0)
    distribution = jnp.concatenate([MEAN.reshape(1, 6), LOG_STD.reshape(1, 6)], axis=-1).repeat(4, axis=0)
    action = sample_action(space, distribution, jax.random.key(0))
    assert action.shape == (4, 2, 3)
    np.testing.assert_array_equal(greedy_action(space, distribution), jnp.stack([MEAN] * 4))
    normal = scipy.stats.norm(np.asarray(MEAN, np.float64), np.exp(np.asarray(LOG_STD, np.float64)))
    expected = normal.logpdf(np.asarray(action, np.float64)).sum(axis=(1, 2))
    np.testing.assert_allclose(log_prob(space, distribution, action), expected, rtol=1e-5)
    np.testing.assert_allclose(entropy(space, distribution), normal.entropy().sum(), rtol=1e-6)


def test_gaussian_samples_follow_the_normal_distribution():
    distribution = jnp.tile(jnp.array([[0.5, -1.0, 0.7, -0.4]]), (20_000, 1))
    draws = np.asarray(sample_action(Continuous((2,), -1.0, 1.0), distribution, jax.random.key(3)))
    for dimension, (mean, log_std) in enumerate([(0.5, 0.7), (-1.0, -0.4)]):
        assert scipy.stats.kstest(draws[:, dimension], scipy.stats.norm(mean, np.exp(log_std)).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03
    # Far outside the bounds as well: clipping is the environment's.
    assert np.max(np.abs(draws)) > 3


def test_the_greedy_discrete_action():
    assert list(greedy_action(Discrete(3), LOGITS)) == [0, 0, 0]
    assert list(greedy_action(Discrete(3), jnp.roll(LOGITS, 1, axis=-1)))[1:] == [1, 1]


def test_epsilon_at_start_middle_and_far_end():
    # rate 0.001: after 1000 steps 1/e of the way is left.
    steps = jnp.array([0, 1000, 693, 10**7])
    expected = [1.0, 0.01 + 0.99 / np.e, 0.01 + 0.99 * np.exp(-0.693), 0.01]
    np.testing.assert_allclose(epsilon_schedule(steps, 1.0, 0.01, 0.001), expected, rtol=1e-6)
    np.testing.assert_allclose(epsilon_schedule(steps, 0.3, 0.3, 0.001), 0.3, rtol=1e-6)


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
