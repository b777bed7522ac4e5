"""Greedy evaluation, apart from training: own environments, own keys, nothing learned."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from purejaxrl.training.loop import initial_carry, iteration_keys
from purejaxrl.types import Agent, Env, PyTree, ScalarKey


class Best(NamedTuple):
    """The learner's params with the highest mean evaluation return so far, and that return."""

    params: PyTree
    eval_return: Float[Array, ""]


def evaluate(
    agent: Agent, env: Env, episodes: int, config: Any, params: PyTree, key: ScalarKey
) -> Float[Array, " episodes"]:
    """Returns of `episodes` whole episodes of the greedy policy, played side by side. Consumes `key`."""
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
    """Mean return of the greedy policy before an iteration, and the better of `params` and `best` by it.

    key: the run's, which is not consumed. Where it is not due, the return is NaN and the best stays.
    """
    _, _, evaluation_key = iteration_keys(key, iteration)
    eval_return = jnp.mean(evaluate(agent, env, episodes, config, params, evaluation_key))
    is_better = is_due & (eval_return > best.eval_return)
    kept = jax.tree.map(partial(jnp.where, is_better), Best(params, eval_return), best)
    return jnp.where(is_due, eval_return, jnp.nan), kept
