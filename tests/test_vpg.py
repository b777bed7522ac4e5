"""VPG against its equations, and its values on environments where they are known."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PROGRESS, train_one
from probes import Endless, OneStep, Signal, TwoSteps

from purejaxrl.agents import vpg
from purejaxrl.components.hyperparameters import Budget
from purejaxrl.envs import make
from purejaxrl.training.loop import init_run, iterate
from purejaxrl.training.rollout import rollout


def probe_config(**changes):
    return vpg.Config(
        **{
            "epochs": 60, "steps_per_epoch": 200, "actors": 10, "max_ep_len": 20, "v_lr": 3e-2, "pi_lr": 3e-2,
            "train_v_iters": 20, "hidden_sizes": (16,), "gamma": 0.9, **changes,
        }
    )  # fmt: skip


def value_at(config, env, state, observation):
    return float(vpg.state_value(config, env, state.learner.params.v, jnp.array([observation])))


def test_value_of_an_endless_environment():
    """V = 1 / (1 - gamma) = 10, although every episode is truncated after 20 steps.

    Were truncation taken for termination, V would be the mean of 1 + .9 + ... over the steps left: about 6.
    """
    config = probe_config()
    env = make(Endless(), max_ep_len=config.max_ep_len)
    state, _ = train_one(vpg.agent, config, env)
    assert value_at(config, env, state, 0.0) == pytest.approx(10, abs=0.3)


def test_value_where_the_batch_cuts_every_episode():
    """Batches of 20 steps cut episodes of 1000: the cut bootstraps too."""
    config = probe_config(max_ep_len=1000)
    env = make(Endless(), max_ep_len=1000)
    state, _ = train_one(vpg.agent, config, env)
    assert value_at(config, env, state, 0.0) == pytest.approx(10, abs=0.3)


def test_value_stops_at_termination():
    config = probe_config()
    env = make(OneStep())
    state, _ = train_one(vpg.agent, config, env)
    assert value_at(config, env, state, 0.0) == pytest.approx(1, abs=0.05)
    env = make(TwoSteps())
    state, _ = train_one(vpg.agent, config, env)
    assert value_at(config, env, state, 0.0) == pytest.approx(0.9, abs=0.05)
    assert value_at(config, env, state, 1.0) == pytest.approx(1, abs=0.05)


def test_policy_follows_the_observation():
    config = probe_config()
    env = make(Signal())
    state, _ = train_one(vpg.agent, config, env)
    logits = vpg.action_distribution(config, env, state.learner.params.pi, jnp.array([[0.0], [1.0]]))
    probabilities = jax.nn.softmax(logits)
    assert probabilities[0, 0] > 0.95
    assert probabilities[1, 1] > 0.95
    greedy = vpg.policy(config, env, state.learner.params, jnp.array([[[0.0]], [[1.0]]])).action
    np.testing.assert_array_equal(greedy, [[0], [1]])


def collect(config, env):
    state = init_run(vpg.agent, env, config, jax.random.key(0))
    return state, rollout(vpg.agent, env, config, state, PROGRESS, jax.random.key(1))[1]


def test_one_policy_step_is_adam_on_the_policy_gradient():
    """Against the mean of A grad log pi, one sample at a time; Adam's first step is lr g / (|g| + 1e-8)."""
    config = probe_config(steps_per_epoch=40, actors=4, entropy_coef=0.0, lam=0.9)
    env = make("CartPole-v0")
    state, batch = collect(config, env)
    learner, _ = vpg.update(config, env, state.learner, batch, PROGRESS, jax.random.key(2))
    assert learner.optimizer.pi[0].count == 1
    assert learner.optimizer.v[0].count == config.train_v_iters == 20

    value = np.asarray(vpg.state_value(config, env, state.learner.params.v, batch.observation))
    next_value = np.asarray(vpg.state_value(config, env, state.learner.params.v, batch.next_observation))
    advantage = np.zeros((10, 4))
    for n in range(4):
        following = 0.0
        for t in reversed(range(10)):
            delta = batch.reward[t, n] + 0.9 * next_value[t, n] * (not batch.terminated[t, n]) - value[t, n]
            is_end = batch.terminated[t, n] or batch.truncated[t, n]
            following = advantage[t, n] = delta + 0.81 * (0.0 if is_end else following)
    advantage = (advantage - advantage.mean()) / advantage.std()

    def log_prob(params, t, n):
        logits = vpg.action_distribution(config, env, params, batch.observation[t, n])
        return jax.nn.log_softmax(logits)[batch.action[t, n]]

    one = jax.jit(jax.grad(log_prob))
    gradients = [(one(state.learner.params.pi, t, n), advantage[t, n]) for t in range(10) for n in range(4)]
    expected = jax.tree.map(
        lambda *leaves: -sum(leaves) / 40, *(jax.tree.map(lambda g, a=a: g * a, g) for g, a in gradients)
    )
    step = jax.tree.map(lambda new, old: new - old, learner.params.pi, state.learner.params.pi)
    first_of_adam = jax.tree.map(lambda g: -3e-2 * g / (np.abs(g) + 1e-8), expected)
    chex.assert_trees_all_close(step, first_of_adam, atol=3e-4)


@pytest.mark.slow
def test_entropy_bonus_flattens_the_policy():
    env = make("CartPole-v0")
    entropies = []
    for weight in (0.0, 100.0):
        config = probe_config(steps_per_epoch=400, entropy_coef=weight, epochs=20)
        _, log = train_one(vpg.agent, config, env)
        entropies.append(float(log.metrics["entropy"][-1]))
    assert entropies[1] > np.log(2) - 1e-3
    assert entropies[0] < entropies[1] - 0.01


def test_annealed_learning_rates_reach_zero():
    """The last of 4 epochs starts with 3/4 of the budget used, so its steps are a quarter as long."""
    env = make("CartPole-v0")
    base = probe_config(epochs=4, steps_per_epoch=40, actors=4, train_v_iters=1)
    annealed = probe_config(epochs=4, steps_per_epoch=40, actors=4, train_v_iters=1, lr_anneal=True)
    state = init_run(vpg.agent, env, base, jax.random.key(0))
    step = {}
    for name, config in (("constant", base), ("annealed", annealed)):
        after, _ = iterate(vpg.agent, env, config, state, jnp.int32(3), Budget("epochs", 4))
        step[name] = np.asarray(after.learner.params.v["kernel_0"] - state.learner.params.v["kernel_0"])
    np.testing.assert_allclose(step["annealed"], step["constant"] / 4, rtol=1e-3, atol=1e-7)
