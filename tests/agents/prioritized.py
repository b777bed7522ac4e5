"""DQN with proportional prioritized replay (Schaul et al. 2016, arXiv:1511.05952): a memory of a type of its own."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxrl import ActorOutput, Agent, Learner, Real, budget, config, leaf, static


@config
class Config:
    """Hyperparameters of DQN with prioritized replay."""

    env_steps: int = budget(20_000, "env steps of all actors")
    actors: int = static(4, "parallel environments per run", at_least=1)
    batch_size: int = static(64, "transitions per gradient step", at_least=1)
    capacity: int = static(4096, "transitions that the memory holds, a multiple of the actors", at_least=1)
    hidden_size: int = static(64, "units of the hidden layer", at_least=1)
    gamma: Real = leaf(0.99, "discount", at_least=0, at_most=1)
    lr: Real = leaf(1e-3, "learning rate", above=0)
    epsilon: Real = leaf(0.1, "share of random actions", at_least=0, at_most=1)
    tau: Real = leaf(0.02, "how far the target moves towards Q at every gradient step", at_least=0, at_most=1)
    alpha: Real = leaf(0.6, "how much the error decides what is replayed", at_least=0, at_most=1)


class Memory(NamedTuple):
    """Transitions [capacity, ...], and the priority of each, 0 where nothing is stored."""

    observation: jax.Array
    action: jax.Array
    reward: jax.Array
    terminated: jax.Array
    next_observation: jax.Array
    priority: jax.Array


def check(config, env):
    """Every combination of fields is allowed."""


def rollout_shape(config):
    """One step of every actor."""
    return 1, config.actors


def batch_size(config):
    """Transitions of one gradient step."""
    return config.batch_size


def init(config, env, key):
    """A network of one hidden layer, its copy as target, and an empty memory."""
    sizes = (env.observation_shape[0], config.hidden_size, env.action_space.num_actions)
    keys = jax.random.split(key, 2)
    params = [jax.random.normal(k, (a, b)) / a**0.5 for k, a, b in zip(keys, sizes, sizes[1:], strict=False)]
    rows = config.capacity
    numbers, flags = jnp.zeros(rows), jnp.zeros(rows, bool)
    observation = jnp.zeros((rows, *env.observation_shape))
    memory = Memory(observation, jnp.zeros(rows, jnp.int32), numbers, flags, jnp.copy(observation), jnp.copy(numbers))
    return Learner(params, optax.adam(1.0).init(params), memory, extra=jax.tree.map(jnp.copy, params))


def q_values(params, observation):
    """Q(s, .), [..., A]."""
    return jax.nn.relu(observation @ params[0]) @ params[1]


def act(config, env, learner, observation, carry, progress, key):
    """Epsilon-greedy."""
    explore, choose = jax.random.split(key)
    greedy = jnp.argmax(q_values(learner.params, observation), axis=-1)
    random = jax.random.randint(choose, greedy.shape, 0, env.action_space.num_actions)
    return ActorOutput(jnp.where(jax.random.uniform(explore, greedy.shape) < config.epsilon, random, greedy))


def policy(config, env, params, observation, carry):
    """The action with the highest value."""
    return ActorOutput(jnp.argmax(q_values(params, observation), axis=-1))


def errors(config, target_params, params, rows):
    """Temporal-difference errors [B]."""
    value = jnp.take_along_axis(q_values(params, rows.observation), rows.action[:, None], axis=-1)[:, 0]
    following = jnp.max(q_values(target_params, rows.next_observation), axis=-1)
    target = rows.reward + config.gamma * jnp.where(rows.terminated, 0.0, following)
    return value - jax.lax.stop_gradient(target)


def update(config, env, learner, batch, progress, key):
    """Store a step of every actor with the highest priority, and learn from what surprised most."""
    slots = (progress.iteration * config.actors + jnp.arange(config.actors)) % config.capacity
    memory, now = learner.memory, jax.tree.map(lambda leaf: leaf[0], batch)
    highest = jnp.full(config.actors, jnp.maximum(memory.priority.max(), 1.0))
    stored = (now.observation, now.action, now.reward, now.terminated, now.next_observation, highest)
    memory = jax.tree.map(lambda old, new: old.at[slots].set(new), memory, Memory(*stored))

    drawn = jax.random.categorical(key, config.alpha * jnp.log(memory.priority), shape=(config.batch_size,))
    rows = jax.tree.map(lambda leaf: leaf[drawn], memory)
    error = partial(errors, config, learner.extra)
    loss, gradient = jax.value_and_grad(lambda params: jnp.mean(jnp.square(error(params, rows))))(learner.params)
    step, opt_state = optax.adam(config.lr).update(gradient, learner.optimizer)
    memory = memory._replace(priority=memory.priority.at[drawn].set(jnp.abs(error(learner.params, rows)) + 1e-3))
    params = optax.apply_updates(learner.params, step)
    target = optax.incremental_update(params, learner.extra, config.tau)
    return Learner(params, opt_state, memory, extra=target), {"loss": loss}


agent = Agent("prioritized", Config, check, rollout_shape, init, act, policy, update, batch_size=batch_size)
