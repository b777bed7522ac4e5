"""Environments by name, or as gymnax objects, as the package's own `Env`.

`ENVIRONMENTS` holds what the package knows of an environment beyond what gymnax knows of it. An entry is all that a new
environment needs: it can then be trained, from images too, shown in videos, and evaluated in gymnasium.

gymnax 1.0 and later tells termination from truncation and keeps the true last observation in
`info["final_observation"]`. It is imported where it is first needed: its import takes seconds, and starts JAX's
backends, after which one CPU device per core can no longer be requested.
"""

from __future__ import annotations

import builtins
import importlib
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from purejaxrl.envs import cartpole
from purejaxrl.envs.gymnax_params import complete
from purejaxrl.envs.images import Images, Renderer, observe_images
from purejaxrl.errors import InputError, in_brief
from purejaxrl.types import ActionSpace, Continuous, Discrete, Env, PyTree, ScalarKey, Timestep

GYMNAX_INTERFACE = ("reset", "step", "observation_space", "action_space", "default_params")
UNLIMITED = 2**31 - 1
# What gymnax imports for its own animations alone.
FOR_ANIMATIONS = ("matplotlib", "matplotlib.pyplot", "matplotlib.colors", "seaborn")
_IMPORTING = threading.Lock()


class EnvEntry(NamedTuple):
    """What the package knows of one environment.

    Attributes:
        make: Function without arguments that returns the environment, an object with gymnax's interface, and its
            default parameters.
        solved_at: Mean return that counts as solved; None where no number is agreed.
        renderer: How the environment is rendered, as images to learn from and as frames of videos; None where it cannot
            be.
        gymnasium: Name of the same environment in gymnasium, whose observations and actions are the same; None where
            there is none.
    """

    make: Callable[[], tuple[Any, PyTree]]
    solved_at: float | None = None
    renderer: Renderer | None = None
    gymnasium: str | None = None


def make_cartpole(max_steps: int) -> tuple[Any, PyTree]:
    """Build gymnax's CartPole-v1 with episodes of at most `max_steps` steps: CartPole-v0 differs in nothing else."""
    env, params = _import_gymnax().make("CartPole-v1")
    return env, params.replace(max_steps_in_episode=max_steps)


ENVIRONMENTS = {
    "CartPole-v0": EnvEntry(partial(make_cartpole, 200), 195.0, cartpole.RENDERER, "CartPole-v1"),
    "CartPole-v1": EnvEntry(partial(make_cartpole, 500), 475.0, cartpole.RENDERER, "CartPole-v1"),
}


def make(
    env: Any,
    env_params: PyTree | None = None,
    *,
    max_ep_len: int | None = None,
    solved_at: float | None = None,
    images: Images | None = None,
    renderer: Renderer | None = None,
) -> Env:
    """Build an `Env` from an environment's name, from a gymnax environment, or from another `Env`.

    Args:
        env: A name of `ENVIRONMENTS` or of gymnax's registry, an object with gymnax's interface, or an `Env`.
        env_params: Parameters of a gymnax environment in place of its defaults: all of them, or a dict of those that
            differ.
        max_ep_len: Truncate episodes after this many steps, on top of the environment's own limit.
        solved_at: Mean return that counts as solved, in place of the agreed one.
        images: How observations are rendered as images; None for state vectors.
        renderer: How to render, in place of the environment's own renderer.

    Returns:
        The environment, whose `reset` and `step` are pure functions.

    Raises:
        InputError: If the name is unknown, no agent handles its spaces, nothing limits its episodes, an argument does
            not fit it, or images are asked for and there is no renderer.

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
        made = _from_gymnax(env, env_params, solved_at)
    if made.max_episode_steps == UNLIMITED and max_ep_len is None:
        raise InputError(f"--max_ep_len: {made.name} has no time limit of its own; give the steps of an episode")
    if max_ep_len is not None and max_ep_len < made.max_episode_steps:
        made = limit_steps(made, max_ep_len)
    return made if images is None else observe_images(made, find_renderer(made.name, renderer), images)


def names() -> list[str]:
    """List the names that `make` accepts: those of `ENVIRONMENTS`, then the others of gymnax."""
    return list(dict.fromkeys([*ENVIRONMENTS, *_import_gymnax().registered_envs]))


def env_name(env: Any) -> str:
    """Return the name of an environment that was given by name, or as an object of gymnax."""
    return env if isinstance(env, str) else str(getattr(env, "name", type(env).__name__))


def rendered_names() -> list[str]:
    """List the environments that have a renderer."""
    return [name for name, entry in ENVIRONMENTS.items() if entry.renderer is not None]


def find_renderer(name: str, renderer: Renderer | None = None) -> Renderer:
    """Return the renderer of an environment.

    Args:
        name: The environment's name.
        renderer: A renderer to use in place of the environment's own.

    Raises:
        InputError: If `renderer` is not a `Renderer`, or none is given and the environment has none.
    """
    found = ENVIRONMENTS[name].renderer if renderer is None and name in ENVIRONMENTS else renderer
    if found is None:
        raise InputError(
            f"--observation_type: img needs a renderer, and {name} has none; {', '.join(rendered_names())} have one "
            "(a Renderer of your own is passed as renderer=, state vectors are --observation_type default)"
        )
    if not isinstance(found, Renderer):
        raise InputError(f"--renderer: {renderer!r} is no Renderer(select, render)")
    return found


def _from_gymnax(env: Any, env_params: PyTree | None, solved_at: float | None) -> Env:
    """Adapt a gymnax environment, given by name or as an object, to `Env`; arguments and errors as for `make`."""
    name, given = env_name(env), env_params
    env, env_params, _ = with_params(env, given)
    try:
        encode = _observation_encoder(name, env.observation_space(env_params))
        observation = jax.eval_shape(lambda: encode(env.reset(jax.random.key(0), env_params)[0]))
        space = convert_action_space(name, env.action_space(env_params))
        max_episode_steps = int(getattr(env_params, "max_steps_in_episode", UNLIMITED))
    except Exception as error:
        if given is None or isinstance(error, InputError):
            raise
        raise InputError(f"--env_params: {name} cannot be reset with them: {in_brief(error)}") from error
    if solved_at is None and name in ENVIRONMENTS:
        solved_at = ENVIRONMENTS[name].solved_at
    return Env(
        name=name,
        observation_shape=observation.shape,
        action_space=space,
        max_episode_steps=max_episode_steps,
        solved_at=solved_at,
        reset=partial(_reset_gymnax, env, env_params, encode),
        step=partial(_step_gymnax, env, env_params, encode, space),
    )


def with_params(env: Any, given: PyTree | None) -> tuple[Any, PyTree, PyTree]:
    """Look up a gymnax environment and its parameters.

    Args:
        env: A name, or an object with gymnax's interface.
        given: Parameters in place of the defaults: all of them, a dict of those that differ, or None.

    Returns:
        The environment, the parameters to use, and its default parameters.

    Raises:
        InputError: If there is no such environment, or `given` are not parameters of it.
    """
    name = env_name(env)
    if isinstance(env, str):
        found, default = _make_by_name(env)
        if not isinstance(given, dict | type(default) | None):
            kind = f"{type(default).__module__}.{type(default).__qualname__}"
            raise InputError(f"--env_params: {in_brief(given)} is not allowed; {name} takes {kind}, or a dict")
        return found, complete(name, default, given), default
    missing = [attribute for attribute in GYMNAX_INTERFACE if not hasattr(env, attribute)]
    if missing:
        raise InputError(f"--env: {env!r} is no name, Env or gymnax environment; it has no {missing[0]}")
    return env, complete(name, env.default_params, given), env.default_params


def _make_by_name(name: str) -> tuple[Any, PyTree]:
    """Build the environment of `ENVIRONMENTS` or gymnax that has this name, with its default parameters."""
    if name in ENVIRONMENTS:
        return ENVIRONMENTS[name].make()
    gymnax = _import_gymnax()
    if name not in gymnax.registered_envs:
        raise InputError(f"--env: unknown environment {name!r}; known are {', '.join(names())}")
    try:
        return gymnax.make(name)
    except Exception as error:
        raise InputError(f"--env: gymnax cannot build {name}: {error}") from error


def _import_gymnax() -> ModuleType:
    """Import gymnax, but what it imports for its own animations, in a second, only once that is used.

    Its modules get stand-ins; nobody else does, whatever other threads import meanwhile.
    """
    with _IMPORTING:
        if "gymnax" not in sys.modules:
            standard = builtins.__import__
            builtins.__import__ = partial(_import_for, standard, _stand_ins())
            try:
                import gymnax
            finally:
                builtins.__import__ = standard
    import gymnax

    return gymnax


def _import_for(
    standard: Callable, stand_ins: dict[str, ModuleType], name: str, globals: Any = None, *more: Any, **options: Any
) -> ModuleType:
    """Import a module as a module of `globals` asks for it; gymnax's are given stand-ins where there are any."""
    if name in stand_ins and str((globals or {}).get("__name__")).partition(".")[0] == "gymnax":
        # As `__import__` does, which is asked for names in it next.
        return stand_ins[name.partition(".")[0]]
    return standard(name, globals, *more, **options)


def _stand_ins() -> dict[str, ModuleType]:
    """Return modules that import those in FOR_ANIMATIONS when they are asked for an attribute."""
    found = {name: ModuleType(name) for name in FOR_ANIMATIONS}
    for name, module in found.items():
        module.__getattr__ = partial(_attribute_of, name)  # type: ignore[method-assign]
        package, _, own = name.rpartition(".")
        if package:
            setattr(found[package], own, module)
    return found


def _attribute_of(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def convert_action_space(name: str, space: Any) -> ActionSpace:
    """Convert an action space of gymnax. Raises InputError, which names the environment, unless Discrete or Box."""
    from gymnax.environments import spaces

    if isinstance(space, spaces.Discrete):
        return Discrete(int(space.n))
    if isinstance(space, spaces.Box):
        return Continuous(tuple(space.shape), space.low, space.high)
    raise InputError(f"--env: {name} has actions of a {type(space).__name__} space; agents take Discrete or Box")


def _observation_encoder(name: str, space: Any) -> Callable[[Array], Array]:
    """Return the function that turns observations of a gymnax space into arrays of floats, one-hot for Discrete."""
    from gymnax.environments import spaces

    if isinstance(space, spaces.Discrete):
        return partial(one_hot, int(space.n))
    if isinstance(space, spaces.Box):
        return as_float
    raise InputError(f"--env: {name} has observations of a {type(space).__name__} space; agents take Box or Discrete")


def as_float(observation: Array) -> Array:
    """Convert an observation to JAX's default precision: float32, unless x64 is enabled."""
    return jnp.asarray(observation, float)


def one_hot(num_categories: int, observation: Int[Array, ""]) -> Array:
    """Encode an observed category as a vector [num_categories] of floats."""
    return jax.nn.one_hot(observation, num_categories, dtype=float)


def _reset_gymnax(env: Any, params: PyTree, encode: Callable, key: ScalarKey) -> tuple[Array, PyTree]:
    """Start an episode; `Env.reset` of a gymnax environment. Consumes `key`."""
    observation, state = env.reset(key, params)
    return encode(observation), state


def _step_gymnax(
    env: Any, params: PyTree, encode: Callable, space: ActionSpace, key: ScalarKey, state: PyTree, action: Array
) -> Timestep:
    """Take one step; `Env.step` of a gymnax environment. Consumes `key`.

    It calls gymnax's public `step`, which wrappers override, and clips a continuous action to the bounds of its space.
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
    """State of an environment, and how many steps its current episode has taken."""

    inner: PyTree
    steps: Int[Array, ""]


def limit_steps(env: Env, max_ep_len: int) -> Env:
    """Truncate the episodes of an environment after `max_ep_len` steps, if not earlier."""
    return env._replace(
        max_episode_steps=min(env.max_episode_steps, max_ep_len),
        reset=partial(_reset_limited, env),
        step=partial(_step_limited, env, max_ep_len),
    )


def _reset_limited(env: Env, key: ScalarKey) -> tuple[Array, TimedState]:
    """Start an episode, and count its steps from 0. Consumes `key`."""
    observation, state = env.reset(key)
    return observation, TimedState(state, jnp.zeros((), jnp.int32))


def _step_limited(env: Env, max_ep_len: int, key: ScalarKey, state: TimedState, action: Array) -> Timestep:
    """Take one step; truncate and reset where the limit is reached and the episode has not ended. Consumes `key`."""
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
