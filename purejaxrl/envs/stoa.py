"""Environments with the interface of stoa (pip install stoa-env), which has adapters for those of other libraries.

stoa gives brax, jumanji, MuJoCo Playground, pgx, navix, xminigrid and kinetix one interface. Nothing of stoa is
imported here, so any object with that interface will do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from purejaxrl.envs.registry import UNLIMITED, as_float, limit_steps
from purejaxrl.errors import InputError
from purejaxrl.types import ActionSpace, Continuous, Discrete, Env, PyTree, ScalarKey, Timestep


def from_stoa(
    env: Any,
    *,
    name: str,
    max_episode_steps: int,
    solved_at: float | None = None,
    observe: Callable[[Any], Array] = as_float,
) -> Env:
    """Adapt an environment with stoa's interface to `Env`: `train("vpg", env=from_stoa(BraxToStoa(env), ...))`.

    A last step with discount 0 terminates the episode; one with any other discount truncates it.

    Args:
        env: The environment, without an AutoResetWrapper: episodes are reset here.
        name: A name for it.
        max_episode_steps: Truncate episodes after this many steps, on top of the environment's own limit.
        solved_at: Mean return that counts as solved; None for none.
        observe: Function that makes one array of an observation, needed if that is a structure of several.

    Returns:
        The environment, whose `reset` and `step` are pure functions.

    Raises:
        InputError: If observations are not single arrays, or actions are neither discrete nor a box of numbers.
    """
    seen = jax.eval_shape(lambda key: env.reset(key)[1].observation, jax.random.key(0))
    if observe is as_float and not isinstance(seen, jax.ShapeDtypeStruct):
        found = type(seen).__name__
        raise InputError(f"--env: {name} observes a {found} and agents one array; give observe=, which makes one of it")
    observation = jax.eval_shape(lambda seen: as_float(observe(seen)), seen)
    space = convert_action_space(name, env.action_space())
    made = Env(
        name=name,
        observation_shape=observation.shape,
        action_space=space,
        max_episode_steps=UNLIMITED,
        solved_at=solved_at,
        reset=partial(_reset_stoa, env, observe),
        step=partial(_step_stoa, env, observe, space),
    )
    return limit_steps(made, max_episode_steps)


def convert_action_space(name: str, space: Any) -> ActionSpace:
    """Convert an action space of stoa. Raises InputError, which names the environment, unless discrete or a box."""
    count = getattr(space, "num_values", None)
    if isinstance(count, int):
        return Discrete(count)
    if count is None and hasattr(space, "minimum") and hasattr(space, "maximum"):
        return Continuous(tuple(space.shape), space.minimum, space.maximum)
    raise InputError(f"--env: {name} has actions of a {type(space).__name__}; agents take discrete ones or a box")


def _reset_stoa(env: Any, observe: Callable, key: ScalarKey) -> tuple[Array, PyTree]:
    """Start an episode; `Env.reset` of an environment of stoa. Consumes `key`."""
    state, timestep = env.reset(key)
    return as_float(observe(timestep.observation)), state


def _step_stoa(
    env: Any, observe: Callable, space: ActionSpace, key: ScalarKey, state: PyTree, action: Array
) -> Timestep:
    """Take one step, and reset if it ended the episode; `Env.step` of an environment of stoa. Consumes `key`."""
    if isinstance(space, Continuous):
        action = jnp.clip(action, space.low, space.high)
    state, timestep = env.step(state, action)
    is_last, reached = timestep.last(), as_float(observe(timestep.observation))
    observation, state = jax.tree.map(partial(jnp.where, is_last), _reset_stoa(env, observe, key), (reached, state))
    is_end = timestep.discount == 0
    return Timestep(
        state, observation, as_float(timestep.reward), is_last & is_end, is_last & ~is_end, next_observation=reached
    )
