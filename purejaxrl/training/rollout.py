"""Collecting experience: a scan of act and step, with the statistics of the episodes that end in it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from purejaxrl.kernels.threefry import split_for_scan
from purejaxrl.types import Agent, Env, Episode, Progress, PyTree, RunState, ScalarKey, Transition


class Ended(NamedTuple):
    """Return and length of each episode that ended, by step and actor; the length is 0 where none did."""

    returns: Float[Array, "T N"]
    length: Int[Array, "T N"]


def rollout(
    agent: Agent, env: Env, config: Any, state: RunState, progress: Progress, key: ScalarKey
) -> tuple[RunState, Transition, Ended]:
    """Let N actors act for T steps.

    Args:
        agent: The algorithm.
        env: The environment.
        config: The agent's hyperparameters.
        state: The run's state; its own key is not used.
        progress: How much of its budget the run has used.
        key: A random key, which is consumed.

    Returns:
        The state after the last step, the transitions [T, N, ...], and the episodes that ended.
    """
    steps, actors = agent.rollout_shape(config)
    act_key, env_key = jax.random.split(key)
    act_keys, as_key = split_for_scan(act_key, steps)
    env_keys, _ = split_for_scan(env_key, (steps, actors))

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple[Transition, Ended]]:
        env_state, observation, episode, actor_carry = carry
        t, act_bits, env_bits = inputs
        now = progress._replace(env_steps=progress.env_steps + t * actors)
        action, extras, actor_carry = agent.act(
            config, env, state.learner, observation, actor_carry, now, as_key(act_bits)
        )
        timestep = jax.vmap(env.step)(as_key(env_bits), env_state, action)
        done = timestep.terminated | timestep.truncated
        episode, ended = advance(episode, timestep.reward, done)
        actor_carry = reset_carry(agent, env, config, actor_carry, done)
        transition = Transition(
            observation,
            action,
            timestep.reward,
            timestep.terminated,
            timestep.truncated,
            timestep.next_observation,
            extras,
        )
        return (timestep.state, timestep.observation, episode, actor_carry), (transition, ended)

    start = (state.env_state, state.observation, state.episode, state.carry)
    end, (batch, ended) = jax.lax.scan(step, start, (jnp.arange(steps), act_keys, env_keys), unroll=steps == 1)
    env_state, observation, episode, actor_carry = end
    moved = state._replace(env_state=env_state, observation=observation, episode=episode, carry=actor_carry)
    return moved, batch, ended


def reset_carry(agent: Agent, env: Env, config: Any, carry: PyTree, done: Bool[Array, "*lead"]) -> PyTree:
    """Reset the recurrent state of actors whose episode is done.

    Args:
        agent: The agent, whose `initial_carry` an episode begins with.
        env: The environment.
        config: The agent's Config.
        carry: The recurrent state after a step, [*lead, ...].
        done: Whether the step ended the episode, [*lead].

    Returns:
        The recurrent state that the next action starts from, [*lead, ...].
    """

    def reset(initial: Array, current: Array) -> Array:
        mask = done.reshape(*done.shape, *[1] * (current.ndim - done.ndim))
        return jnp.where(mask, jnp.broadcast_to(initial, current.shape), current)

    return jax.tree.map(reset, agent.initial_carry(config, env), carry)


def advance(episode: Episode, reward: Float[Array, " N"], done: Array) -> tuple[Episode, Ended]:
    """Add one step to the statistics of every actor's episode, and restart those of episodes that are done.

    Args:
        episode: Statistics before the step.
        reward: Rewards of the step, [N].
        done: Whether the step ended the episode, [N].

    Returns:
        Statistics after the step, and the episodes that ended.
    """
    returns, length = episode.returns + reward, episode.length + 1
    ended = Ended(jnp.where(done, returns, 0.0), jnp.where(done, length, 0))
    running = Episode(
        jnp.where(done, 0.0, returns), jnp.where(done, 0, length), episode.finished + jnp.sum(done, dtype=jnp.int32)
    )
    return running, ended
