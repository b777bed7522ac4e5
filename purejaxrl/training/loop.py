"""The training loop inside a compiled program: one iteration, many iterations, groups of runs.

A run is a RunState. `iterate` advances one run by one rollout and one update. The vmap over runs stands inside the loop
over iterations, so that the clock is shared and never batched.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from purejaxrl.components.hyperparameters import Budget, find_budget
from purejaxrl.kernels.threefry import unrolled
from purejaxrl.training.devices import bytes_of
from purejaxrl.training.rollout import Ended, rollout
from purejaxrl.types import Agent, Env, Episode, Metrics, Progress, PyTree, RunState, ScalarKey

# Episodes whose mean return decides whether a run is solved.
WINDOW = 100
MAX_CHUNK = 16384


class Span(NamedTuple):
    """Iterations start .. start + length - 1 that a chunk covers, and the budget's amount, all scalars of int32."""

    start: Int[Array, ""]
    length: Int[Array, ""]
    amount: Int[Array, ""]


class Log(NamedTuple):
    """Report of one iteration of one run.

    Attributes:
        ended: Episodes that ended in the iteration.
        active: Whether the run was still training in it.
        metrics: The agent's metrics by name.
    """

    ended: Ended
    active: Bool[Array, ""]
    metrics: Metrics


def init_run(agent: Agent, env: Env, config: Any, key: ScalarKey, stop_at: float | None = None) -> RunState:
    """Initialize a run before its first step.

    Args:
        agent: The algorithm.
        env: The environment.
        config: The agent's hyperparameters.
        key: A random key, which is consumed; the state's key is an `unrolled` one.
        stop_at: Mean return at which the run ends as solved, None if it does not.

    Returns:
        The run's state.
    """
    actors = agent.rollout_shape(config)[1]
    run_key, learner_key, env_key = jax.random.split(unrolled(key), 3)
    observation, env_state = jax.vmap(env.reset)(jax.random.split(env_key, actors))
    return RunState(
        learner=agent.init(config, env, learner_key),
        env_state=env_state,
        observation=observation,
        episode=Episode(jnp.zeros(actors), jnp.zeros(actors, jnp.int32), jnp.zeros((), jnp.int32)),
        active=jnp.ones((), bool),
        key=run_key,
        recent=None if stop_at is None else jnp.zeros(WINDOW),
        carry=initial_carry(agent, env, config, (actors,)),
    )


def initial_carry(agent: Agent, env: Env, config: Any, lead: tuple[int, ...]) -> PyTree:
    """Return the recurrent state of actors at the start of an episode.

    Args:
        agent: The algorithm.
        env: The environment.
        config: The agent's hyperparameters.
        lead: Shape of the array of actors.

    Returns:
        The recurrent state, [*lead, ...].
    """
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (*lead, *jnp.shape(leaf))), agent.initial_carry(config, env)
    )


def iteration_keys(key: ScalarKey, iteration: Int[Array, ""]) -> Array:
    """Derive the random keys of an iteration from the run's key and the clock.

    The run's key itself stays. So a run that is frozen needs no selection between a fresh key and a used one, and what
    an iteration draws does not depend on how it was reached.

    Args:
        key: The run's key, which is not consumed.
        iteration: Number of the iteration.

    Returns:
        Keys [3] for the rollout, for the update, and for an evaluation before the iteration.
    """
    return jax.random.split(jax.random.fold_in(key, iteration), 3)


def iterate(
    agent: Agent,
    env: Env,
    config: Any,
    state: RunState,
    iteration: Int[Array, ""],
    budget: Budget,
    *,
    is_active: bool = False,
) -> tuple[RunState, Log]:
    """Advance one run by one rollout and one update.

    A run that had ended before this iteration stays as it is, except for its replay memory.

    Args:
        agent: The algorithm.
        env: The environment.
        config: The agent's hyperparameters.
        state: The run's state.
        iteration: Number of the iteration.
        budget: The run's budget.
        is_active: Whether the run is known not to have ended, so that nothing needs to be selected.

    Returns:
        The state after the iteration, and its log.
    """
    steps, actors = agent.rollout_shape(config)
    env_steps = iteration * (steps * actors)
    progress = Progress(
        iteration,
        env_steps,
        fraction_used(budget, iteration, env_steps, state.episode.finished),
        state.episode.finished,
    )
    rollout_key, update_key, _ = iteration_keys(state.key, iteration)
    moved, batch, ended = rollout(agent, env, config, state, progress, rollout_key)
    learner, metrics = agent.update(config, env, state.learner, batch, progress, update_key)

    active = state.active
    if budget.kind == "episodes":
        active = active & (moved.episode.finished < budget.amount)
    if budget.stop_at is not None and state.recent is not None:
        recent, best_mean = slide_window(state.recent, ended, state.episode.finished)
        moved, active = moved._replace(recent=recent), active & ~(best_mean >= budget.stop_at)
    advanced = moved._replace(learner=learner, active=active)
    advanced = advanced if is_active else freeze(state.active, advanced, state)
    return advanced, Log(ended, state.active, metrics)


def slide_window(
    recent: Float[Array, " W"], ended: Ended, finished: Int[Array, ""]
) -> tuple[Float[Array, " W"], Float[Array, ""]]:
    """Move a window of W episodes over those that ended in a rollout, in order of step and actor.

    Args:
        recent: Returns of the last W episodes before the rollout, zeros where there were fewer, [W].
        ended: Episodes that ended in the rollout.
        finished: Number of episodes that had ended before it.

    Returns:
        Returns of the last W episodes now, [W], and the highest mean of any full window, -inf where none was full.
    """
    window, returns, is_end = recent.shape[0], ended.returns.ravel(), ended.length.ravel() > 0
    count = jnp.cumsum(is_end)
    place = jnp.where(is_end, window + count - 1, window + returns.size)
    history = jnp.concatenate([recent, jnp.zeros_like(returns)]).at[place].set(returns, mode="drop")
    total = jnp.cumsum(history)
    number = jnp.arange(1, returns.size + 1)
    is_full = (number <= count[-1]) & (finished + number >= window)
    means = jnp.where(is_full, (total[window:] - total[:-window]) / window, -jnp.inf)
    return jax.lax.dynamic_slice_in_dim(history, count[-1], window), jnp.max(means)


def fraction_used(
    budget: Budget, iteration: Int[Array, ""], env_steps: Int[Array, ""], episodes: Int[Array, ""]
) -> Array:
    """Compute the share of the budget that was used before an iteration.

    Args:
        budget: The run's budget.
        iteration: Number of finished iterations.
        env_steps: Number of env steps, counting all actors.
        episodes: Number of finished episodes.

    Returns:
        The share, in [0, 1].
    """
    used = {"epochs": iteration, "env_steps": env_steps, "episodes": episodes}[budget.kind]
    return jnp.clip(used / budget.amount, 0.0, 1.0)


def freeze(active: Bool[Array, ""], advanced: RunState, state: RunState) -> RunState:
    """Select the advanced state while the run is active, else the state before.

    The learner's memory is always the advanced one, as selecting would copy it.

    Args:
        active: Whether the run was active.
        advanced: The state after an iteration.
        state: The state before it.

    Returns:
        The selected state.
    """

    def selectable(state: RunState) -> RunState:
        return state._replace(key=None, learner=state.learner._replace(memory=None))

    selected = jax.tree.map(partial(jnp.where, active), selectable(advanced), selectable(state))
    return selected._replace(key=state.key, learner=selected.learner._replace(memory=advanced.learner.memory))


def iterations_of(budget: Budget, shape: tuple[int, int], max_episode_steps: int) -> int:
    """Compute the number of iterations after which the budget is used up for certain.

    `env_steps` is rounded up to whole iterations. For `episodes` it is the bound that every episode may last
    `max_episode_steps`; runs are usually done earlier.

    Args:
        budget: The run's budget.
        shape: (T, N), the steps and actors of one iteration.
        max_episode_steps: Upper bound on the steps of an episode.

    Returns:
        The number of iterations.
    """
    steps, actors = shape
    if budget.kind == "epochs":
        return budget.amount
    if budget.kind == "env_steps":
        return -(-budget.amount // (steps * actors))
    rounds = -(-budget.amount // actors)
    return -(-rounds * max_episode_steps // steps)


def make_train(agent: Agent, config: Any, env: Env) -> Callable[[ScalarKey], tuple[RunState, Log]]:
    """Build a training run as a pure function of a random key, without any checks; see `purejaxrl.make_train`.

    Args:
        agent: The algorithm.
        config: The agent's hyperparameters.
        env: The environment.

    Returns:
        A function key -> (RunState, Log [iterations, ...]). Where the log's `active` is False the run had already
        ended, and the entry means nothing.
    """
    budget = find_budget(config)
    iterations = iterations_of(budget, agent.rollout_shape(config), env.max_episode_steps)
    return partial(_train_run, agent, env, config, budget, iterations)


def _train_run(
    agent: Agent, env: Env, config: Any, budget: Budget, iterations: int, key: ScalarKey
) -> tuple[RunState, Log]:
    """Train one run from its key to its end, as one scan."""
    state = init_run(agent, env, config, key, budget.stop_at)
    return jax.lax.scan(
        lambda state, iteration: iterate(agent, env, config, state, iteration, budget), state, jnp.arange(iterations)
    )


def train_chunk(
    agent: Agent,
    env: Env,
    budget: Budget,
    log_bytes: int,
    group: int,
    configs: Any,
    state: RunState,
    span: Span,
    *,
    is_whole: bool = True,
) -> tuple[RunState, Log]:
    """Advance R runs over a span of iterations, a group of runs at a time.

    The span is data, so that chunks of any length are one compiled program; its amount replaces the budget's.

    Args:
        agent: The algorithm.
        env: The environment.
        budget: Budget of each run.
        log_bytes: Most bytes that the log may take, which decides the largest length of a span, its `capacity`.
        group: Number of runs to advance side by side, less than R; it divides R.
        configs: Stacked configs, [R].
        state: States of the runs, [R, ...].
        span: The iterations.
        is_whole: Whether XLA gets an iteration as a part of the whole, which it makes faster, or as a function of its
            own, whose operations know the lines that they come from.

    Returns:
        The states after the span, and the log [capacity, R, ...], of which the first `span.length` entries are valid.
    """
    runs = state.active.shape[0]
    groups = runs // group
    # Under jit it is traced once, for its shapes and for the loop.
    one_group = partial(advance_group, agent, env, budget, log_bytes // groups, is_whole=is_whole)
    advance = jax.jit(one_group, inline=is_whole)
    first = partial(jax.tree.map, partial(jax.lax.slice_in_dim, start_index=0, limit_index=group))
    shapes = jax.eval_shape(lambda configs, state: advance(first(configs), first(state), span)[1], configs, state)
    log = jax.tree.map(lambda leaf: jnp.zeros((leaf.shape[0], runs, *leaf.shape[2:]), leaf.dtype), shapes)

    keys = state.key

    def advance_one(index: Array, carry: tuple) -> tuple:
        state, log = carry
        take = partial(jax.lax.dynamic_slice_in_dim, start_index=index * group, slice_size=group)
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=index * group)
        part = jax.tree.map(take, state._replace(key=keys))
        part, entries = advance(jax.tree.map(take, configs), part, span)
        state = jax.tree.map(partial(put, axis=0), state, part._replace(key=None))
        return state, jax.tree.map(partial(put, axis=1), log, entries)

    state, log = jax.lax.fori_loop(0, groups, advance_one, (state._replace(key=None), log))
    return state._replace(key=keys), log


def advance_group(
    agent: Agent,
    env: Env,
    budget: Budget,
    log_bytes: int,
    configs: Any,
    state: RunState,
    span: Span,
    *,
    is_whole: bool = True,
) -> tuple[RunState, Log]:
    """Advance the runs of one group side by side until none of them is active or the span ends.

    Args:
        agent: The algorithm.
        env: The environment.
        budget: Budget of each run.
        log_bytes: Most bytes that the log may take, which decides the largest length of a span, its `capacity`.
        configs: Stacked configs of the group.
        state: States of its runs.
        span: The iterations.
        is_whole: Whether XLA gets an iteration as a part of the whole, which it makes faster, or as a function of its
            own, whose operations know the lines that they come from.

    Returns:
        The states after the span, and the log [capacity, group, ...].
    """
    # The loop goes on while any run is active: the only one is.
    is_active = state.active.shape[0] == 1
    one_step = partial(iterate, agent, env, budget=budget._replace(amount=span.amount), is_active=is_active)
    # Under jit it is traced once, for its shapes and for the loop.
    step = jax.jit(jax.vmap(one_step, in_axes=(0, 0, None)), inline=is_whole)
    shapes = jax.eval_shape(step, configs, state, span.start)[1]
    capacity = max(1, min(MAX_CHUNK, log_bytes // bytes_of(shapes)))
    log = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), shapes)

    def go_on(carry: tuple) -> Array:
        done, state, _ = carry
        return (done < span.length) & jnp.any(state.active)

    def advance(carry: tuple) -> tuple:
        done, state, log = carry
        state, entry = step(configs, state, span.start + done)
        log = jax.tree.map(partial(jax.lax.dynamic_update_index_in_dim, index=done, axis=0), log, entry)
        return done + 1, state, log

    _, state, log = jax.lax.while_loop(go_on, advance, (jnp.zeros((), jnp.int32), state, log))
    return state, log
