"""A3C against a serial reference in plain loops: one worker after another, with own copies and own environments."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PROGRESS, assert_same_bits, flat, train_one
from probes import Endless, OneStep, Signal, TwoSteps

from purejaxrl.agents import a3c
from purejaxrl.envs import make
from purejaxrl.training.loop import init_run, iteration_keys
from purejaxrl.training.rollout import rollout

# Short enough that many episodes are truncated, long enough that many poles have fallen before.
ENV = make("CartPole-v0", max_ep_len=14)
BASE = a3c.Config(
    episodes=None, env_steps=4 * 5 * 13, actors=4, t_max=5, hidden_sizes=(8,), lr=3e-3, entropy_coef=0.02, lam=0.9
)


def network(params, observation):
    """tanh layers, the last one linear, from the parameters of one network."""
    x = observation
    layers = len(params) // 2
    for layer in range(layers):
        x = jnp.dot(x, params[f"kernel_{layer}"]) + params[f"bias_{layer}"].reshape((1,) * (x.ndim - 1) + (-1,))
        x = jnp.tanh(x) if layer < layers - 1 else x
    return x


def theta_of(learner):
    """The parameters of both networks."""
    return a3c.Theta(learner.params.pi, learner.params.v)


@jax.jit
def act_once(theta, observation, noise):
    return jnp.argmax(network(theta.pi, observation) + noise)


@jax.jit
def values_of(theta, observation):
    return network(theta.v, observation)[:, 0]


@jax.jit
def gradient_of(theta, observation, action, advantage, target, entropy_coef, value_coef):
    """Of the mean over one worker's steps of -log pi(a|s) A - entropy_coef H + value_coef (V - R)^2."""

    def loss(theta):
        log_probs = jax.nn.log_softmax(network(theta.pi, observation))
        chosen = jnp.take_along_axis(log_probs, action[:, None], axis=-1)[:, 0]
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        value = network(theta.v, observation)[:, 0]
        return jnp.mean(-chosen * advantage - entropy_coef * entropy + value_coef * (value - target) ** 2)

    return jax.grad(loss)(theta)


class Optimizer:
    """Adam or RMSProp as their papers have them, in numpy; clipped to a global norm first."""

    def __init__(self, config, size):
        self.config, self.steps = config, 0
        self.first, self.second = np.zeros(size), np.zeros(size)

    def step(self, gradient, lr):
        config = self.config
        norm = np.sqrt(np.sum(gradient**2))
        if config.max_grad_norm is not None and norm > config.max_grad_norm:
            gradient = gradient * config.max_grad_norm / norm
        self.steps += 1
        if config.optimizer == "rmsprop":
            decay = config.rmsprop_decay
            self.second = decay * self.second + (1 - decay) * gradient**2
            return -lr * gradient / np.sqrt(self.second + config.rmsprop_eps)
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first, second = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
        return -lr * first / (np.sqrt(second) + 1e-8)


def advantages_and_targets(config, rewards, values, next_values, terminated, truncated):
    """lambda-returns minus V, step by step backwards, and the lambda-returns."""
    advantages = np.zeros(len(rewards))
    following = 0.0
    for t in reversed(range(len(rewards))):
        after = 0.0 if terminated[t] else next_values[t]
        delta = rewards[t] + config.gamma * after - values[t]
        following = delta + (0.0 if terminated[t] or truncated[t] else config.gamma * config.lam * following)
        advantages[t] = following
    return advantages, advantages + values


def serial(config, seed):
    """Workers taking turns; all random numbers are drawn from the same keys as the training draws them.

    Returns theta, every worker's copy, and the delay of every applied gradient by (round, worker).
    """
    run_key, learner_key, env_key = jax.random.split(jax.random.key(seed), 3)
    start = theta_of(a3c.init(config, ENV, learner_key))
    vector, unravel = jax.flatten_util.ravel_pytree(start)
    theta, optimizer = np.asarray(vector, np.float64), Optimizer(config, vector.size)
    actors, steps = config.actors, config.t_max
    copies, taken_at, updates, delays = [theta] * actors, [0] * actors, 0, []
    environments = [jax.jit(ENV.reset)(key) for key in jax.random.split(env_key, actors)]
    step_env = jax.jit(ENV.step)
    rounds = config.env_steps // (actors * steps)
    endings = np.zeros(2, int)
    for iteration in range(rounds):
        rollout_key, update_key, _ = iteration_keys(run_key, jnp.int32(iteration))
        act_key, steps_key = jax.random.split(rollout_key)
        noise = [jax.random.gumbel(key, (actors, 2)) for key in jax.random.split(act_key, steps)]
        env_keys = jax.random.split(steps_key, (steps, actors))
        order = jax.random.permutation(update_key, actors) if config.order == "random" else range(actors)
        lr = config.lr * (1 - iteration / rounds if config.lr_anneal else 1)
        delays.append([0] * actors)
        for worker in map(int, order):
            own = unravel(jnp.asarray(copies[worker], jnp.float32))
            rows = []
            for t in range(steps):
                observation, state = environments[worker]
                action = act_once(own, observation, noise[t][worker])
                after = step_env(env_keys[t, worker], state, action)
                rows.append(
                    (observation, action, after.reward, after.next_observation, after.terminated, after.truncated)
                )
                environments[worker] = (after.observation, after.state)
            observation, action, reward, next_observation, terminated, truncated = map(
                np.stack, zip(*rows, strict=True)
            )
            endings += np.sum(terminated & ~truncated), np.sum(truncated & ~terminated)
            values, next_values = values_of(own, observation), values_of(own, next_observation)
            advantage, target = advantages_and_targets(
                config, reward, np.asarray(values), np.asarray(next_values), terminated, truncated
            )
            gradient = gradient_of(
                own, observation, action, jnp.float32(advantage), jnp.float32(target),
                config.entropy_coef, config.value_coef,
            )  # fmt: skip
            theta = theta + optimizer.step(np.asarray(jax.flatten_util.ravel_pytree(gradient)[0], np.float64), lr)
            delays[-1][worker] = updates - taken_at[worker]
            updates += 1
            if (iteration + 1) % config.sync_every == 0:
                copies[worker], taken_at[worker] = theta, updates
    assert min(endings) > 0, "the comparison must see episodes end in both ways"
    return theta, np.stack(copies), np.array(delays)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"order": "random", "optimizer": "rmsprop", "lr": 1e-3}, marks=pytest.mark.slow),
        {"sync_every": 3, "optimizer": "rmsprop", "lr": 1e-3, "max_grad_norm": 1.0, "lr_anneal": True},
        {"sync_every": 3, "order": "random", "lr_anneal": True},
        pytest.param({"lam": 1.0, "gamma": 0.9, "value_coef": 2.0, "entropy_coef": 0.0}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_async_is_serial_round_robin(changes):
    """Fifty-two gradients: theta, all copies and all delays."""
    config = dataclasses.replace(BASE, **changes)
    theta, copies, delays = serial(config, 0)
    state, log = train_one(a3c.agent, config, ENV)
    assert delays.size >= 50
    np.testing.assert_allclose(flat(theta_of(state.learner)), theta, atol=1e-5)
    for worker in range(config.actors):
        own = jax.tree.map(lambda leaf, worker=worker: leaf[worker], state.learner.extra.theta)
        np.testing.assert_allclose(flat(own), copies[worker], atol=1e-5)
    np.testing.assert_array_equal(log.metrics["delay"], delays)


def test_the_reference_depends_on_the_order_of_turns():
    """What the comparison would miss if it were blind: another order gives another theta."""
    fixed, _, _ = serial(BASE, 0)
    other, _, _ = serial(dataclasses.replace(BASE, order="random"), 0)
    assert np.abs(fixed - other).max() > 1e-3


def test_sync_applies_the_average_of_the_workers_gradients():
    """One round, against the mean of the gradients that each actor's steps give."""
    config = dataclasses.replace(BASE, mode="sync", env_steps=20, optimizer="rmsprop", max_grad_norm=0.5)
    apart = dataclasses.replace(config, mode="async")
    run = init_run(a3c.agent, ENV, config, jax.random.key(0))
    _, batch, _ = rollout(a3c.agent, ENV, config, run, PROGRESS, jax.random.key(1))
    after, metrics = a3c.update(config, ENV, run.learner, batch, PROGRESS, jax.random.key(2))
    gradients = []
    for actor in range(4):
        own = jax.tree.map(lambda leaf, actor=actor: leaf[:, actor : actor + 1], batch)
        gradients.append(flat(jax.grad(lambda t, own=own: a3c.loss(apart, ENV, t, own)[0])(theta_of(run.learner))))
    step = Optimizer(config, gradients[0].size).step(np.mean(gradients, axis=0), config.lr)
    np.testing.assert_allclose(flat(theta_of(after)), flat(theta_of(run.learner)) + step, atol=1e-6)
    np.testing.assert_array_equal(metrics["delay"], [0])


@pytest.mark.slow
def test_with_one_actor_async_is_sync():
    states = [
        train_one(a3c.agent, dataclasses.replace(BASE, actors=1, env_steps=300, mode=mode), ENV)[0]
        for mode in ("async", "sync")
    ]
    assert_same_bits(states[0], states[1])


@pytest.mark.slow
@pytest.mark.parametrize("actors", [pytest.param(1, marks=pytest.mark.slow), 5])
def test_delays_in_steady_state(actors):
    base = dataclasses.replace(BASE, actors=actors, t_max=1, env_steps=actors * 400)
    _, log = train_one(a3c.agent, base, ENV)
    np.testing.assert_array_equal(log.metrics["delay"][0], np.arange(actors))
    assert np.all(np.asarray(log.metrics["delay"])[1:] == actors - 1)

    _, log = train_one(a3c.agent, dataclasses.replace(base, order="random"), ENV)
    delays = np.asarray(log.metrics["delay"])[1:]
    assert set(np.unique(delays)) == set(range(2 * actors - 1))
    assert delays.mean() == pytest.approx(actors - 1, abs=0.2)

    _, log = train_one(a3c.agent, dataclasses.replace(base, sync_every=3), ENV)
    delays = np.asarray(log.metrics["delay"])[3:9]
    expected = np.array([actors - 1, 2 * actors - 1, 3 * actors - 1] * 2)[:, None]
    np.testing.assert_array_equal(delays, np.broadcast_to(expected, (6, actors)))


def test_epsilon_of_rmsprop_is_under_the_root():
    config = dataclasses.replace(BASE, optimizer="rmsprop", rmsprop_eps=0.5, rmsprop_decay=0.75, lr=0.1)
    optimizer = a3c.make_optimizer(config)
    gradient = jnp.array([2.0, -0.1])
    step, _ = optimizer.update(gradient, optimizer.init(gradient))
    np.testing.assert_allclose(step, [-0.1 * 2 / np.sqrt(1 + 0.5), 0.1 * 0.1 / np.sqrt(0.0025 + 0.5)], rtol=1e-6)


@pytest.mark.parametrize("mode", ["async", pytest.param("sync", marks=pytest.mark.slow)])
def test_values_of_environments_where_they_are_known(mode):
    """V = 10 in an endless one although every episode is cut after 20 steps; it stops at termination."""
    lr = {"async": 1e-3, "sync": 1e-2}[mode]
    config = a3c.Config(
        episodes=None, env_steps=60_000, actors=8, t_max=10, gamma=0.9, lr=lr, lr_anneal=True, mode=mode,
        hidden_sizes=(16,),
    )  # fmt: skip
    for env, observations, values in (
        (make(Endless(), max_ep_len=20), [0.0], [10]),
        (make(OneStep()), [0.0], [1]),
        (make(TwoSteps()), [0.0, 1.0], [0.9, 1]),
    ):
        state, _ = train_one(a3c.agent, config, env)
        found = a3c.state_value(config, env, state.learner.params.v, jnp.array(observations)[:, None])
        np.testing.assert_allclose(found, values, rtol=0.04)


@pytest.mark.parametrize("mode", ["async", "sync"])
def test_policy_follows_the_observation(mode):
    config = a3c.Config(
        episodes=None, env_steps=20_000, actors=8, t_max=5, lr={"async": 3e-3, "sync": 1e-2}[mode], mode=mode,
        hidden_sizes=(16,),
    )  # fmt: skip
    env = make(Signal())
    state, _ = train_one(a3c.agent, config, env)
    greedy = a3c.policy(config, env, state.learner.params, jnp.array([[[0.0]], [[1.0]]])).action
    np.testing.assert_array_equal(greedy, [[0], [1]])
