"""Checks that a user's own Agent or Env satisfies the contract that the rest of the package relies on.

Everything is checked on the host, by shapes alone (`jax.eval_shape`), before anything compiles. An InputError says in
one line whose function it is, what was found and what is expected; an exception raised by the function is its cause.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl.agents import AGENTS
from purejaxrl.components.hyperparameters import BUDGETS
from purejaxrl.errors import InputError, in_brief, in_one_line
from purejaxrl.kernels.threefry import is_key, unrolled
from purejaxrl.storage.checkpoint import describe, named_leaves
from purejaxrl.training.loop import initial_carry
from purejaxrl.training.metrics import METRIC_COLUMNS
from purejaxrl.types import ActorOutput, Agent, Discrete, Env, Learner, Progress, PyTree, Timestep, Transition

ARRAYS = (jax.Array, np.ndarray, np.generic, bool, int, float)
FUNCTIONS = {
    "check": "(config, env)",
    "rollout_shape": "(config)",
    "init": "(config, env, key)",
    "act": "(config, env, learner, observation, carry, progress, key)",
    "policy": "(config, env, params, observation, carry)",
    "update": "(config, env, learner, batch, progress, key)",
    "initial_carry": "(config, env)",
    "batch_size": "(config)",
}


def check_record(agent: Agent) -> None:
    """Check that every part of an Agent is there and of the right type.

    Args:
        agent: The agent.

    Raises:
        InputError: If a part is missing or of another type.
    """
    if not isinstance(agent.name, str) or not agent.name:
        raise InputError(f"agent {agent.name!r}: name is a {type(agent.name).__name__}; it must be a text")
    if not isinstance(agent.summary, str):
        raise InputError(f"agent {agent.name!r}: summary is a {type(agent.summary).__name__}; it must be a text")
    for name, arguments in FUNCTIONS.items():
        found = getattr(agent, name)
        if not callable(found):
            raise InputError(f"agent {agent.name!r}: {name} is {in_brief(found)}; it must be a function {arguments}")
    kind = agent.Config
    is_made = isinstance(kind, type) and "__dataclass_fields__" in vars(kind)
    fields = dataclasses.fields(kind) if is_made else ()
    unmade = [field.name for field in fields if "spec" not in field.metadata]
    if not is_made or unmade:
        found = f"its field {unmade[0]} is none of them" if unmade else f"{kind!r} is not"
        raise InputError(f"agent {agent.name!r}: Config must be made with @config, leaf and static; {found}")
    budgets = [field.name for field in fields if field.metadata["spec"].is_budget]
    if not budgets:
        raise InputError(
            f"agent {agent.name!r}: Config has no budget; it needs a field made with purejaxrl.budget, of the name "
            f"{', '.join(BUDGETS)}"
        )
    for name in budgets:
        if name not in BUDGETS:
            raise InputError(f"agent {agent.name!r}: a budget {name} is not known; use one of {', '.join(BUDGETS)}")


class Inputs(NamedTuple):
    """Shapes of the arguments with which the functions of an agent are called, for one run.

    Attributes:
        config: The Config, with shapes as leaves.
        key: A random key.
        progress: The progress of the run.
        observation: (*lead) -> observations with these leading axes.
    """

    config: Any
    key: Any
    progress: Progress
    observation: Callable[..., Any]


def _input_shapes(config: Any, env: Env) -> Inputs:
    """Return the shapes of the arguments with which the functions of an agent are called."""
    whole: Any = jax.ShapeDtypeStruct((), jnp.int32)
    real: Any = _as_shape(0.0)
    # A number of a Config is real inside a program, however it was written.
    config = jax.tree.map(lambda leaf: _as_shape(leaf) if isinstance(leaf, jax.Array) else real, config)
    key = jax.eval_shape(lambda: unrolled(jax.random.key(0)))

    def observation(*lead: int) -> Any:
        return jax.ShapeDtypeStruct((*lead, *env.observation_shape), real.dtype)

    return Inputs(config, key, Progress(whole, whole, real, whole), observation)


def check_agent(agent: Agent, config: Any, env: Env) -> None:
    """Call the functions of an Agent for shapes, and check that their results fit together.

    Built-in agents are not checked.

    Args:
        agent: The agent.
        config: Its Config.
        env: The environment.

    Raises:
        InputError: If the result of a function does not fit, naming the first.
    """
    if AGENTS.get(agent.name) is agent:
        return
    where = f"agent {agent.name!r}"
    steps, actors = check_rollout_shape(agent, config)
    config, key, progress, observation = _input_shapes(config, env)

    def shapes(name: str, *arguments: Any, look: Callable[[Any], None] = lambda _: None) -> Any:
        function = getattr(agent, name)
        words = f"{where}: {name}{FUNCTIONS[name]}"
        return _shapes_of(words, lambda config, *rest: function(config, env, *rest), config, *arguments, look=look)

    def expect(kind: type, name: str) -> Callable[[Any], None]:
        def look(found: Any) -> None:
            if not isinstance(found, kind):
                wanted = f"a purejaxrl.{kind.__name__}"
                raise InputError(f"{where}: {name} returned {_kind_of(found)}; it must return {wanted}")

        return look

    learner = shapes("init", key, look=expect(Learner, "init"))
    initial = shapes("initial_carry")

    def carry(*lead: int) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*lead, *leaf.shape), leaf.dtype), initial)

    acted = shapes("act", learner, observation(actors), carry(actors), progress, key, look=expect(ActorOutput, "act"))
    _check_action(f"{where}: act", acted.action, env, (actors,))
    check_same(f"{where}: act", "the carry", carry(actors), acted.carry, "initial_carry")
    for name, leaf in named_leaves(acted.extras).items():
        if leaf.shape[:1] != (actors,):
            raise InputError(
                f"{where}: act returned extras {name or ''} as {describe(leaf)}; the first axis is that of the "
                f"{actors} actors"
            )
    for lead in ((), (3,), (2, 3)):
        words = f"{where}: policy of observations {list(observation(*lead).shape)}"
        greedy = shapes("policy", learner.params, observation(*lead), carry(*lead), look=expect(ActorOutput, "policy"))
        _check_action(words, greedy.action, env, lead)
        check_same(words, "the carry", carry(*lead), greedy.carry, "initial_carry")

    batch = _rollout_shapes(env, observation, acted, (steps, actors))

    def is_pair(found: Any) -> None:
        if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], dict)):
            raise InputError(f"{where}: update returned {_kind_of(found)}; it must return (Learner, metrics by name)")
        expect(Learner, "update, as the first of two,")(found[0])

    after, metrics = shapes("update", learner, batch, progress, key, look=is_pair)
    check_same(f"{where}: update", "the learner", learner, after, "init")
    check_metrics(where, metrics)


def _rollout_shapes(env: Env, observation: Callable[..., Any], acted: ActorOutput, lead: tuple[int, int]) -> Transition:
    """Return the shapes of the transitions of a rollout."""
    action, extras = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((lead[0], *leaf.shape), leaf.dtype), (acted.action, acted.extras)
    )
    reward: Any = jax.ShapeDtypeStruct(lead, _as_shape(0.0).dtype)
    ended: Any = jax.ShapeDtypeStruct(lead, jnp.bool_)
    return Transition(observation(*lead), action, reward, ended, ended, observation(*lead), extras)


def uses_fraction(agent: Agent, config: Any, env: Env) -> str | None:
    """Find out which of an agent's functions, `act` or `update`, depends on `progress.fraction`.

    Args:
        agent: The agent.
        config: Its Config, of which only the static fields matter, not the values of leaves.
        env: The environment.

    Returns:
        Name of the first function that does, or None.
    """
    steps, actors = agent.rollout_shape(config)
    config, key, progress, observation = _input_shapes(config, env)
    learner = jax.eval_shape(lambda config, key: agent.init(config, env, key), config, key)
    carry = jax.eval_shape(lambda config: initial_carry(agent, env, config, (actors,)), config)

    def act(fraction: Any, config: Any, learner: Any, progress: Progress, carry: Any, key: Any, seen: Any) -> Any:
        progress = progress._replace(fraction=fraction)
        return agent.act(config, env, learner, seen, carry, progress, key)

    def update(fraction: Any, config: Any, learner: Any, progress: Progress, batch: Any, key: Any) -> Any:
        return agent.update(config, env, learner, batch, progress._replace(fraction=fraction), key)

    shared = (progress.fraction, config, learner, progress)
    arguments: dict[Callable[..., Any], tuple[Any, ...]] = {act: (*shared, carry, key, observation(actors))}
    acted = jax.eval_shape(act, *arguments[act])
    arguments[update] = (*shared, _rollout_shapes(env, observation, acted, (steps, actors)), key)
    for function, shapes in arguments.items():
        program = jax.make_jaxpr(function)(*shapes).jaxpr
        if is_used(program, program.invars[0]):
            return function.__name__
    return None


def is_used(program: Any, variable: Any) -> bool:
    """Check whether any operation of a jaxpr uses a variable.

    Args:
        program: The jaxpr.
        variable: The variable.

    Returns:
        Whether one does; a call of a function counts only if the function uses it.
    """
    for equation in program.eqns:
        for place, operand in enumerate(equation.invars):
            if operand is variable:
                inner = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None
                if inner is None or is_used(inner.jaxpr, inner.jaxpr.invars[place]):
                    return True
    return any(variable is result for result in program.outvars)


def check_rollout_shape(agent: Agent, config: Any) -> tuple[int, int]:
    """Check the steps and actors that an agent declares for an iteration.

    Args:
        agent: The agent.
        config: Its Config.

    Returns:
        (T, N), the steps and actors.

    Raises:
        InputError: If they are not two whole numbers from 1.
    """
    where = f"agent {agent.name!r}"
    try:
        shape = agent.rollout_shape(config)
    except Exception as error:
        raise InputError(f"{where}: rollout_shape(config) raised {in_one_line(error)}") from error
    is_pair = isinstance(shape, tuple) and len(shape) == 2
    if not is_pair or not all(type(number) is int and number >= 1 for number in shape):
        raise InputError(
            f"{where}: rollout_shape returned {in_brief(shape)}; it must return (steps, actors), two ints from 1"
        )
    return shape


def _shapes_of(words: str, function: Callable[..., Any], *arguments: Any, look: Callable[[Any], None]) -> Any:
    """Compute the shapes of the arrays that a function returns."""

    def traced(*arguments: Any) -> Any:
        found = function(*arguments)
        look(found)
        for name, leaf in named_leaves(found).items():
            if not isinstance(leaf, ARRAYS):
                place = f" at {name}" if name else ""
                raise InputError(f"{words} returned {_kind_of(leaf)}{place}; it must return arrays, or a tree of them")
        return found

    try:
        return jax.eval_shape(traced, *arguments)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{words} raised {in_one_line(error)}") from error


def _check_action(words: str, action: Any, env: Env, lead: tuple[int, ...]) -> None:
    """Check that actions have the shape and type of the environment's action space."""
    space = env.action_space
    is_discrete = isinstance(space, Discrete)
    shape = lead if isinstance(space, Discrete) else (*lead, *space.shape)
    kind, name = (jnp.integer, "whole numbers") if is_discrete else (jnp.floating, "real numbers")
    found = described(action)
    if getattr(action, "shape", None) != shape or not jnp.issubdtype(action.dtype, kind):
        raise InputError(f"{words} returned {found}; {env.name} takes {name} of shape {list(shape)}")


def check_same(words: str, what: str, before: PyTree, after: PyTree, origin: str) -> None:
    """Check that a function has kept the structure, shapes and types of a tree.

    Args:
        words: Description of the function, for messages.
        what: Name of the tree, for messages.
        before: The tree before.
        after: The tree that the function returned.
        origin: Name of the function that made the tree before.

    Raises:
        InputError: If it has not, naming the first array that differs.
    """
    was, now = named_leaves(before), named_leaves(after)
    for name in [*was, *(name for name in now if name not in was)]:
        old, new = (describe(tree[name]) if name in tree else "nothing" for tree in (was, now))
        if old != new:
            found = f"{words} returned {name or what} as {new}"
            raise InputError(f"{found}; {origin} made it {old}, and {what} must keep its arrays")
    kinds: list[Any] = [jax.tree.structure(before), jax.tree.structure(after)]
    if kinds[0] != kinds[1]:
        raise InputError(f"{words} returned {what} as another kind of tree; it must stay as {origin} made it")


def check_metrics(where: str, metrics: dict[Any, Any]) -> None:
    """Check that metrics are numbers, or vectors of whole numbers, with valid names that are not used otherwise.

    Args:
        where: Description of the agent, for messages.
        metrics: Metrics by name.

    Raises:
        InputError: If they are not.
    """
    for name, value in metrics.items():
        if not isinstance(name, str) or not name or set(name) & set(',"\n'):
            raise InputError(f"{where}: update reports a metric {name!r}; a name must be a text without commas")
        if name in METRIC_COLUMNS:
            raise InputError(
                f"{where}: update reports a metric {name!r}; metrics.csv has a column of that name already"
            )
        is_array = hasattr(value, "shape") and hasattr(value, "dtype")
        is_number = is_array and value.ndim == 0 and not is_key(value)
        if not is_number and not (is_array and value.ndim == 1 and jnp.issubdtype(value.dtype, jnp.integer)):
            raise InputError(
                f"{where}: update reports {name} as {described(value)}; it must be one number, or a vector of ints"
            )


def check_env(env: Env) -> None:
    """Call `reset` and `step` of an Env for shapes, and check that these fit its fields.

    Args:
        env: The environment.

    Raises:
        InputError: If they do not.
    """
    where, real = f"--env: {env.name}", _as_shape(0.0)
    key = jax.eval_shape(lambda: unrolled(jax.random.key(0)))
    if type(env.max_episode_steps) is not int or env.max_episode_steps < 1:
        raise InputError(f"{where}: max_episode_steps is {env.max_episode_steps!r}; it must be an int from 1")

    def is_pair(found: Any) -> None:
        if not (isinstance(found, tuple) and len(found) == 2):
            raise InputError(f"{where}: reset returned {_kind_of(found)}; it must return (observation, state)")

    def is_timestep(found: Any) -> None:
        if not isinstance(found, Timestep):
            raise InputError(f"{where}: step returned {_kind_of(found)}; it must return a purejaxrl.Timestep")

    observation, state = _shapes_of(f"{where}: reset(key)", env.reset, key, look=is_pair)
    space = env.action_space
    kind = ((), jnp.int32) if isinstance(space, Discrete) else (space.shape, real.dtype)
    action = jax.ShapeDtypeStruct(*kind)
    step = _shapes_of(f"{where}: step(key, state, action)", env.step, key, state, action, look=is_timestep)
    check_same(f"{where}: step", "the state", state, step.state, "reset")
    seen = jax.ShapeDtypeStruct(tuple(env.observation_shape), real.dtype)
    flag = jax.ShapeDtypeStruct((), jnp.bool_)
    for words, found, wanted in (
        ("reset: observation", observation, seen),
        ("step: observation", step.observation, seen),
        ("step: next_observation", step.next_observation, seen),
        ("step: reward", step.reward, real),
        ("step: terminated", step.terminated, flag),
        ("step: truncated", step.truncated, flag),
    ):
        if described(found) != describe(wanted):
            raise InputError(f"{where}: {words} is {described(found)}; it must be {describe(wanted)}")


def _as_shape(leaf: Any) -> jax.ShapeDtypeStruct:
    """Return the shape and type of a number or an array."""
    return jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf))


def described(found: Any) -> str:
    """Describe an array by type and shape, anything else by its kind.

    Args:
        found: The array or object.

    Returns:
        The description, for messages.
    """
    return describe(found) if hasattr(found, "shape") and hasattr(found, "dtype") else _kind_of(found)


def _kind_of(found: Any) -> str:
    """Describe the kind of an object in a few words."""
    if isinstance(found, tuple) and type(found) is tuple:
        return f"{len(found)} values"
    return "None" if found is None else f"a {type(found).__name__}"
