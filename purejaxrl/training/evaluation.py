"""Greedy evaluation in separate environments and with separate keys, without learning."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from purejaxrl.training.loop import initial_carry, iteration_keys
from purejaxrl.types import Agent, Env, PyTree, ScalarKey


class Best(NamedTuple):
    """Params with the highest mean evaluation return so far, and that return."""

    params: PyTree
    eval_return: Float[Array, ""]


def evaluate(
    agent: Agent, env: Env, episodes: int, config: Any, params: PyTree, key: ScalarKey
) -> Float[Array, " episodes"]:
    """Compute the returns of whole episodes of the greedy policy, played side by side.

    Args:
        agent: The algorithm.
        env: The environment.
        episodes: Number of episodes.
        config: The agent's hyperparameters.
        params: The learner's params.
        key: A random key, which is consumed.

    Returns:
        Returns [episodes].
    """
    reset_key, step_key = jax.random.split(key)
    observation, env_state = jax.vmap(env.reset)(jax.random.split(reset_key, episodes))
    carry = initial_carry(agent, env, config, (episodes,))
    start = (jnp.zeros((), jnp.int32), env_state, observation, carry, jnp.zeros(episodes), jnp.ones(episodes, bool))

    def go_on(carry: tuple) -> Array:
        t, _, _, _, _, is_running = carry
        return (t < env.max_episode_steps) & jnp.any(is_running)

    def step(carry: tuple) -> tuple:
        t, env_state, observation, actor_carry, returns, is_running = carry
        keys = jax.random.split(jax.random.fold_in(step_key, t), episodes)
        action, _, actor_carry = agent.policy(config, env, params, observation, actor_carry)
        timestep = jax.vmap(env.step)(keys, env_state, action)
        returns = returns + jnp.where(is_running, timestep.reward, 0.0)
        # Only an environment's first episode counts, so its recurrent state needs no reset.
        is_running = is_running & ~(timestep.terminated | timestep.truncated)
        return t + 1, timestep.state, timestep.observation, actor_carry, returns, is_running

    return jax.lax.while_loop(go_on, step, start)[4]


def evaluate_and_keep(
    agent: Agent,
    env: Env,
    episodes: int,
    config: Any,
    params: PyTree,
    best: Best,
    key: ScalarKey,
    iteration: Int[Array, ""],
    is_due: Bool[Array, ""],
) -> tuple[Float[Array, ""], Best]:
    """Evaluate the greedy policy before an iteration, and keep its params if they are the best so far.

    Args:
        agent: The algorithm.
        env: The environment.
        episodes: Number of episodes.
        config: The agent's hyperparameters.
        params: The learner's params.
        best: The best params so far.
        key: The run's key, which is not consumed.
        iteration: Number of the iteration.
        is_due: Whether the evaluation counts.

    Returns:
        The mean return and the best params; where the evaluation is not due, NaN and `best` unchanged.
    """
    _, _, evaluation_key = iteration_keys(key, iteration)
    eval_return = jnp.mean(evaluate(agent, env, episodes, config, params, evaluation_key))
    is_better = is_due & (eval_return > best.eval_return)
    kept = jax.tree.map(partial(jnp.where, is_better), Best(params, eval_return), best)
    return jnp.where(is_due, eval_return, jnp.nan), kept
