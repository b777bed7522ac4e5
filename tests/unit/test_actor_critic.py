"""The policy gradient against gradients known in closed form, on one-step bandits."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Target

from purejaxrl.agents import a3c, vpg
from purejaxrl.components.actor_critic import next_state_value, policy_gradient_loss
from purejaxrl.components.distributions import sample_action
from purejaxrl.envs import make
from purejaxrl.training.loop import make_train
from purejaxrl.types import Continuous, Discrete

SAMPLES = 400_000


def estimated_gradient(space, distribution, reward, entropy_coef=0.0):
    """The gradient that the loss gives from many sampled actions, uphill."""
    env = make("CartPole-v0")._replace(action_space=space)
    actions = sample_action(space, jnp.tile(distribution[None], (SAMPLES, 1)), jax.random.key(0))
    advantage = reward(actions)

    def loss(distribution):
        tiled = jnp.broadcast_to(distribution[None], (SAMPLES, distribution.size))
        return policy_gradient_loss(env, tiled, actions, advantage, entropy_coef)[0]

    return -jax.grad(loss)(distribution)


def test_discrete_bandit():
    """J = sum_a pi_a r_a under softmax: dJ / dlogit_a = pi_a (r_a - J)."""
    rewards, logits = np.array([1.0, -2.0, 0.5]), jnp.array([0.3, -0.5, 1.0])
    pi = np.exp(logits) / np.exp(logits).sum()
    expected = pi * (rewards - pi @ rewards)
    actual = estimated_gradient(Discrete(3), logits, lambda action: jnp.asarray(rewards, jnp.float32)[action])
    np.testing.assert_allclose(actual, expected, atol=0.01)


def test_entropy_of_a_discrete_bandit():
    """H = -sum_a pi_a log pi_a: dH / dlogit_a = -pi_a (log pi_a + H)."""
    logits = jnp.array([0.3, -0.5, 1.0])
    pi = np.exp(logits) / np.exp(logits).sum()
    entropy = -pi @ np.log(pi)
    actual = estimated_gradient(Discrete(3), logits, lambda action: jnp.zeros(SAMPLES), entropy_coef=2.0)
    np.testing.assert_allclose(actual, -2.0 * pi * (np.log(pi) + entropy), atol=1e-4)


def test_continuous_bandit():
    """r = -|a - c|^2: J = -sum_d ((mean_d - c_d)^2 + std_d^2), so dJ/dmean = -2 (mean - c), dJ/dlog std = -2 std^2.

    An entropy bonus adds its weight to every d/dlog std.
    """
    mean, log_std, optimum = np.array([0.2, -0.4]), np.array([-0.5, 0.1]), np.array([0.3, -0.6])
    distribution = jnp.array([*mean, *log_std])
    reward = lambda action: -jnp.sum(jnp.square(action - jnp.asarray(optimum, jnp.float32)[None]), axis=-1)  # noqa: E731
    actual = estimated_gradient(Continuous((2,), -1.0, 1.0), distribution, reward, entropy_coef=0.7)
    expected = [*(-2 * (mean - optimum)), *(-2 * np.exp(2 * log_std) + 0.7)]
    np.testing.assert_allclose(actual, expected, atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "config"),
    [
        (vpg.agent, vpg.Config(epochs=300, steps_per_epoch=200, pi_lr=1e-2, v_lr=2e-2, train_v_iters=5)),
        pytest.param(a3c.agent, a3c.Config(episodes=None, env_steps=60_000, t_max=10, lr=1e-3), marks=pytest.mark.slow),
        (a3c.agent, a3c.Config(episodes=None, env_steps=100_000, t_max=10, lr=5e-3, mode="sync")),
    ],
    ids=["vpg", "a3c async", "a3c sync"],
)
def test_the_mean_finds_the_optimum_of_a_continuous_bandit(agent, config):
    """Sixteen seeds, all of them."""
    env = make(Target())
    train = make_train(agent, dataclasses.replace(config, actors=20, lr_anneal=True), env)
    states, _ = jax.jit(jax.vmap(train))(jax.vmap(jax.random.key)(jnp.arange(16)))
    mean = jax.vmap(lambda params: agent.policy(config, env, params, jnp.zeros(1)).action)(states.learner.params)
    np.testing.assert_allclose(mean, np.broadcast_to(Target.optimum, (16, 2)), atol=0.05)


def test_next_state_value_is_v_of_the_next_observation():
    steps, actors = 9, 4
    observation, fresh = jax.random.normal(jax.random.key(0), (2, steps + 1, actors, 3))
    ending = np.zeros((2, steps, actors), bool)
    terminated, truncated = ending
    truncated[[2, 3, 8], 0], truncated[[0, 5], 1], terminated[[4, 8], 1], truncated[4, 1] = True, True, True, True
    terminated[:, 2] = True
    ended = (terminated | truncated)[..., None]
    next_observation = jnp.where(ended, fresh[1:], observation[1:])

    def value_of(inputs):
        return jnp.sum(jnp.sin(inputs), axis=-1)

    found = next_state_value(value_of, value_of(observation[:-1]), next_observation, jnp.asarray(truncated))
    expected = value_of(next_observation)
    np.testing.assert_allclose(found[~terminated], expected[~terminated], rtol=1e-6)
