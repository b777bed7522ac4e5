"""Environments by name or as gymnax objects, turned into the package's own Env record.

gymnax (1.0 and later) tells termination from truncation and keeps the true last observation in
`info["final_observation"]`; both are carried on here and nowhere lost.

gymnax is imported where it is first needed: its import takes seconds, and starts JAX's backends, after which nobody can
ask for one CPU device per core any more.
"""

from __future__ import annotations

import sys
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from purejaxrl.envs.gymnax_params import complete, shown
from purejaxrl.envs.images import Images, Renderer, find_renderer, observe_images
from purejaxrl.errors import InputError
from purejaxrl.types import ActionSpace, Continuous, Discrete, Env, PyTree, ScalarKey, Timestep

# gymnax registers CartPole-v1 alone; v0 is the same physics with 200 steps.
CARTPOLE_STEPS = {"CartPole-v0": 200, "CartPole-v1": 500}
OBJECT_NEEDS = ("reset", "step", "observation_space", "action_space", "default_params")
UNLIMITED = 2**31 - 1
SOLVED_AT = {"CartPole-v0": 195.0, "CartPole-v1": 475.0}


def make(
    env: Any,
    env_params: PyTree | None = None,
    *,
    max_ep_len: int | None = None,
    solved_at: float | None = None,
    images: Images | None = None,
    renderer: Renderer | None = None,
) -> Env:
    """Build an Env from a name or from a gymnax environment object; an Env itself is only limited, or given images.

    env: `CartPole-v0`, `CartPole-v1`, any name registered with gymnax, an object with gymnax's `reset`, `step`,
    `observation_space` and `action_space`, or an Env. env_params: the parameters of a gymnax environment where they are
    not its defaults: all, or a dict of those changed.
    max_ep_len: truncate episodes after this many steps, on top of the environment's own limit.
    solved_at: mean return that counts as solved, where no agreed number exists or another is wanted.
    images: observe images as this says, not vectors; renderer: how to render them, if not as CartPole.
    Raises InputError for an unknown name, for spaces that no agent handles, where nothing limits the episodes, and for
    images where there is no renderer.

    >>> env = make("CartPole-v0")
    >>> observation, state = env.reset(jax.random.key(0))
    >>> timestep = env.step(jax.random.key(1), state, jnp.int32(1))
    >>> observation.shape, env.action_space, env.max_episode_steps, float(timestep.reward)
    ((4,), Discrete(num_actions=2), 200, 1.0)
    """
    if isinstance(env, Env) and env_params is not None:
        raise InputError(f"--env_params: they go with an environment of gymnax; {env.name} is an Env, which has none")
    if isinstance(env, Env):
        made = env if solved_at is None else env._replace(solved_at=solved_at)
    else:
        made = from_gymnax(env, env_params, solved_at)
    if made.max_episode_steps == UNLIMITED and max_ep_len is None:
        raise InputError(f"--max_ep_len: {made.name} has no time limit of its own; give the steps of an episode")
    if max_ep_len is not None and max_ep_len < made.max_episode_steps:
        made = limit_steps(made, max_ep_len)
    return made if images is None else observe_images(made, find_renderer(made.name, renderer), images)


def from_gymnax(env: Any, env_params: PyTree | None, solved_at: float | None) -> Env:
    """The Env of a name or of a gymnax object, with the time limit that it has."""
    name, given = env_name(env), env_params
    env, env_params, _ = with_params(env, given)
    try:
        encode = encoder_of(name, env.observation_space(env_params))
        observation = jax.eval_shape(lambda key: encode(env.reset(key, env_params)[0]), jax.random.key(0))
        space = convert_action_space(name, env.action_space(env_params))
        max_episode_steps = int(getattr(env_params, "max_steps_in_episode", UNLIMITED))
    except Exception as error:
        if given is None or isinstance(error, InputError):
            raise
        raise InputError(f"--env_params: {name} cannot be reset with them: {shown(error)}") from error
    return Env(
        name=name,
        observation_shape=observation.shape,
        action_space=space,
        max_episode_steps=max_episode_steps,
        solved_at=SOLVED_AT.get(name) if solved_at is None else solved_at,
        reset=partial(reset_gymnax, env, env_params, encode),
        step=partial(step_gymnax, env, env_params, encode, space),
    )


def with_params(env: Any, given: PyTree | None) -> tuple[Any, PyTree, PyTree]:
    """The gymnax environment of a name or an object, the parameters that it is played with, and its defaults.

    Raises InputError where it is no environment, or the parameters given are not of its kind.
    """
    name = env_name(env)
    if isinstance(env, str):
        found, default = make_gymnax(env)
        if not isinstance(given, dict | type(default) | None):
            kind = f"{type(default).__module__}.{type(default).__qualname__}"
            raise InputError(f"--env_params: {shown(given)} is not allowed; {name} takes {kind}, or a dict")
        return found, complete(name, default, given), default
    missing = [word for word in OBJECT_NEEDS if not hasattr(env, word)]
    if missing:
        raise InputError(f"--env: {env!r} is no name, Env or gymnax environment; it has no {missing[0]}")
    return env, complete(name, env.default_params, given), env.default_params


def env_name(env: Any) -> str:
    """The name given, or that of an environment object."""
    return env if isinstance(env, str) else str(getattr(env, "name", type(env).__name__))


def names() -> list[str]:
    """Names that `make` knows, CartPole first."""
    gymnax = import_gymnax()
    return [*CARTPOLE_STEPS, *(name for name in gymnax.registered_envs if name not in CARTPOLE_STEPS)]


def import_gymnax() -> ModuleType:
    """gymnax, and seaborn only once something of it is used: importing it takes half a second, and gymnax needs it for
    its animations alone.
    """
    is_early = not {"gymnax", "seaborn"} & set(sys.modules)
    if is_early:
        sys.modules["seaborn"] = stand_in = ModuleType("seaborn")
        stand_in.__getattr__ = part_of_seaborn  # type: ignore[method-assign]
    try:
        import gymnax
    finally:
        if is_early:
            del sys.modules["seaborn"]
    return gymnax


def part_of_seaborn(name: str) -> Any:
    """What seaborn has of that name."""
    import seaborn

    return getattr(seaborn, name)


def make_gymnax(name: str) -> tuple[Any, Any]:
    """The gymnax environment of that name and its parameters."""
    gymnax = import_gymnax()
    if name in CARTPOLE_STEPS:
        env, params = gymnax.make("CartPole-v1")
        return env, params.replace(max_steps_in_episode=CARTPOLE_STEPS[name])
    if name not in gymnax.registered_envs:
        raise InputError(f"--env: unknown environment {name!r}; known are {', '.join(names())}")
    try:
        return gymnax.make(name)
    except Exception as error:
        raise InputError(f"--env: gymnax cannot build {name}: {error}") from error


def convert_action_space(name: str, space: Any) -> ActionSpace:
    """The package's word for a gymnax action space."""
    from gymnax.environments import spaces

    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, spaces.Box):
        return Continuous(tuple(space.shape), space.low, space.high)
    raise InputError(f"--env: {name} has actions of a {type(space).__name__} space; agents take Discrete or Box")


def encoder_of(name: str, space: Any) -> Any:
    """What turns an observation of that gymnax space into an array of floats: Box as it is, Discrete as one-hot."""
    from gymnax.environments import spaces

    if isinstance(space, spaces.Discrete):
        return partial(one_hot, int(space.n))
    if isinstance(space, spaces.Box):
        return as_float
    raise InputError(f"--env: {name} has observations of a {type(space).__name__} space; agents take Box or Discrete")


def as_float(observation: Array) -> Array:
    """The observation in JAX's default precision, float32 unless x64 is enabled."""
    return jnp.asarray(observation, float)


def one_hot(num_categories: int, observation: Int[Array, ""]) -> Array:
    """The observed category as a vector of floats."""
    return jax.nn.one_hot(observation, num_categories, dtype=float)


def reset_gymnax(env: Any, params: PyTree, encode: Any, key: ScalarKey) -> tuple[Array, PyTree]:
    """Start an episode. Consumes `key`."""
    observation, state = env.reset(key, params)
    return encode(observation), state


def step_gymnax(
    env: Any, params: PyTree, encode: Any, space: ActionSpace, key: ScalarKey, state: PyTree, action: Array
) -> Timestep:
    """One step by gymnax's public `step`, which wrappers and environments may override. Consumes `key`.

    A continuous action is clipped to the bounds of its space.
    """
    if isinstance(space, Continuous):
        action = jnp.clip(action, space.low, space.high)
    found = env.step(key, state, action, params)
    if len(found) != 6:
        raise InputError(
            f"--env: step of {env_name(env)} returns {len(found)} values; as gymnax since 1.0 it must return six: "
            "observation, state, reward, terminated, truncated, info"
        )
    observation, state, reward, terminated, truncated, info = found
    if "final_observation" not in info:
        raise InputError(f"--env: step of {env_name(env)} must tell the last observation in info['final_observation']")
    return Timestep(
        state,
        encode(observation),
        jnp.asarray(reward, float),
        jnp.asarray(terminated, bool),
        jnp.asarray(truncated, bool),
        encode(info["final_observation"]),
    )


class TimedState(NamedTuple):
    """An environment's state and the steps of its episode so far."""

    inner: PyTree
    steps: Int[Array, ""]


def limit_steps(env: Env, max_ep_len: int) -> Env:
    """The environment with episodes truncated after `max_ep_len` steps."""
    return env._replace(
        max_episode_steps=min(env.max_episode_steps, max_ep_len),
        reset=partial(reset_limited, env),
        step=partial(step_limited, env, max_ep_len),
    )


def reset_limited(env: Env, key: ScalarKey) -> tuple[Array, TimedState]:
    """Start an episode at step 0. Consumes `key`."""
    observation, state = env.reset(key)
    return observation, TimedState(state, jnp.zeros((), jnp.int32))


def step_limited(env: Env, max_ep_len: int, key: ScalarKey, state: TimedState, action: Array) -> Timestep:
    """One step; where the limit is reached and the environment goes on, truncate and reset. Consumes `key`."""
    step_key, reset_key = jax.random.split(key)
    timestep = env.step(step_key, state.inner, action)
    steps = state.steps + 1
    is_over = steps >= max_ep_len
    is_cut = is_over & ~(timestep.terminated | timestep.truncated)

    fresh = env.reset(reset_key)
    observation, inner = jax.tree.map(partial(jnp.where, is_cut), fresh, (timestep.observation, timestep.state))
    truncated = timestep.truncated | is_over
    steps = jnp.where(timestep.terminated | truncated, 0, steps)
    return timestep._replace(state=TimedState(inner, steps), observation=observation, truncated=truncated)
