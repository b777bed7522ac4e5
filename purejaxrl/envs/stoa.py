"""Environments of other libraries, by way of stoa (pip install stoa-env), which has adapters for them.

stoa gives brax, jumanji, MuJoCo Playground, pgx, navix, xminigrid and kinetix one interface. Its objects are taken as
they come here: nothing of stoa is imported, so any object with that interface will do.
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
    """An environment with stoa's interface as an Env: `train("vpg", env=from_stoa(BraxToStoa(env), ...))`.

    env: without an AutoResetWrapper; an episode is reset here, where that is needed. max_episode_steps: after these
    steps episodes are truncated, on top of what the environment does itself. observe: what makes one array of an
    observation, where it is a structure of several.
    A last step with discount 0 terminates; with any other discount it is cut off, and its value is bootstrapped.
    Raises InputError where observations are not single arrays, or actions neither discrete nor a box of numbers.
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
        reset=partial(reset_stoa, env, observe),
        step=partial(step_stoa, env, observe, space),
    )
    return limit_steps(made, max_episode_steps)


def convert_action_space(name: str, space: Any) -> ActionSpace:
    """The package's word for a stoa action space. Raises InputError where there is none."""
    count = getattr(space, "num_values", None)
    if isinstance(count, int):
        return Discrete(count)
    if count is None and hasattr(space, "minimum") and hasattr(space, "maximum"):
        return Continuous(tuple(space.shape), space.minimum, space.maximum)
    raise InputError(f"--env: {name} has actions of a {type(space).__name__}; agents take discrete ones or a box")


def reset_stoa(env: Any, observe: Callable, key: ScalarKey) -> tuple[Array, PyTree]:
    """Start an episode. Consumes `key`."""
    state, timestep = env.reset(key)
    return as_float(observe(timestep.observation)), state


def step_stoa(
    env: Any, observe: Callable, space: ActionSpace, key: ScalarKey, state: PyTree, action: Array
) -> Timestep:
    """One step, and the start of an episode where that was the last. Consumes `key`."""
    if isinstance(space, Continuous):
        action = jnp.clip(action, space.low, space.high)
    state, timestep = env.step(state, action)
    is_last, reached = timestep.last(), as_float(observe(timestep.observation))
    observation, state = jax.tree.map(partial(jnp.where, is_last), reset_stoa(env, observe, key), (reached, state))
    is_end = timestep.discount == 0
    return Timestep(
        state, observation, as_float(timestep.reward), is_last & is_end, is_last & ~is_end, next_observation=reached
    )
