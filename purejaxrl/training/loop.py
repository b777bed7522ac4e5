"""How any agent is run inside a compiled program: one iteration, many iterations, groups of runs.

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
from purejaxrl.training.rollout import Ended, rollout
from purejaxrl.types import Agent, Env, Episode, Metrics, Progress, PyTree, RunState, ScalarKey

# Episodes whose mean return decides whether a run is solved.
WINDOW = 100


class Span(NamedTuple):
    """What a chunk covers: iterations start .. start + length - 1, and the budget's amount. Whole numbers [] int32."""

    start: Int[Array, ""]
    length: Int[Array, ""]
    amount: Int[Array, ""]


class Log(NamedTuple):
    """What one iteration of one run reports. `active`: whether the run was still training in it."""

    ended: Ended
    active: Bool[Array, ""]
    metrics: Metrics


def init_run(agent: Agent, env: Env, config: Any, key: ScalarKey, stop_at: float | None = None) -> RunState:
    """A run before its first step. Consumes `key`. stop_at: the Budget's. The state's key is an `unrolled` one."""
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
    """The recurrent state of as many actors [*lead] at the start of an episode."""
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (*lead, *jnp.shape(leaf))), agent.initial_carry(config, env)
    )


def iteration_keys(key: ScalarKey, iteration: Int[Array, ""]) -> Array:
    """Keys [3] for the rollout and the update of an iteration, and for an evaluation before it.

    They derive from the run's key and the clock; the run's key itself stays. So a run that is frozen needs no selection
    between a fresh key and a used one, and what an iteration draws does not depend on how it was reached.
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

    A run that had ended before this iteration stays as it is, but for its replay rows. is_active: it is known not to
    have ended, and nothing of it is selected.
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

    recent: returns of the last W episodes before it (zeros where there were fewer); finished: how many there were.
    Returns the last W now, and the highest mean of W episodes on the way, -inf where no window was full.
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
    """Share of the budget used before an iteration, in [0, 1]."""
    used = {"epochs": iteration, "env_steps": env_steps, "episodes": episodes}[budget.kind]
    return jnp.clip(used / budget.amount, 0.0, 1.0)


def freeze(active: Bool[Array, ""], advanced: RunState, state: RunState) -> RunState:
    """`advanced` while the run is active, else `state`; memory always passes through, as selecting would copy it."""

    def selectable(state: RunState) -> RunState:
        return state._replace(key=None, learner=state.learner._replace(memory=None))

    selected = jax.tree.map(partial(jnp.where, active), selectable(advanced), selectable(state))
    return selected._replace(key=state.key, learner=selected.learner._replace(memory=advanced.learner.memory))


def iterations_of(budget: Budget, shape: tuple[int, int], max_episode_steps: int) -> int:
    """Iterations after which the budget is used up for certain.

    `env_steps` is rounded up to whole iterations. For `episodes` it is the bound that every episode may last
    `max_episode_steps`; runs are usually done earlier.
    """
    steps, actors = shape
    if budget.kind == "epochs":
        return budget.amount
    if budget.kind == "env_steps":
        return -(-budget.amount // (steps * actors))
    rounds = -(-budget.amount // actors)
    return -(-rounds * max_episode_steps // steps)


def make_train(agent: Agent, config: Any, env: Env) -> Callable[[ScalarKey], tuple[RunState, Log]]:
    """The whole run as a pure function key -> (RunState, Log[iterations, ...]).

    One `lax.scan` of fixed length: jit it, vmap it over keys, differentiate through it. The Log holds one entry per
    iteration; where `active` is False the run had already ended and the entry means nothing.
    Nothing is checked here; `purejaxrl.make_train` does that first.
    """
    budget = find_budget(config)
    iterations = iterations_of(budget, agent.rollout_shape(config), env.max_episode_steps)
    return partial(train_run, agent, env, config, budget, iterations)


def train_run(
    agent: Agent, env: Env, config: Any, budget: Budget, iterations: int, key: ScalarKey
) -> tuple[RunState, Log]:
    """One run from key to end, as a scan. Consumes `key`."""
    state = init_run(agent, env, config, key, budget.stop_at)
    return jax.lax.scan(
        lambda state, iteration: iterate(agent, env, config, state, iteration, budget), state, jnp.arange(iterations)
    )


def train_chunk(
    agent: Agent, env: Env, budget: Budget, capacity: int, group: int, configs: Any, state: RunState, span: Span
) -> tuple[RunState, Log]:
    """Advance R runs over a span of iterations, `group` runs at a time.

    configs and state are stacked over runs; `group` divides R. The span is data, at most `capacity` long, so that
    chunks of any length are one compiled program; its amount replaces the budget's. The Log has `capacity` entries
    [capacity, R, ...], of which the first `span.length` mean something.
    """
    runs = state.active.shape[0]
    advance = partial(advance_group, agent, env, budget, capacity)
    shapes = jax.eval_shape(advance, configs, state, span)[1]
    log = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    keys = state.key

    def advance_one(index: Array, carry: tuple) -> tuple:
        state, log = carry
        take = partial(jax.lax.dynamic_slice_in_dim, start_index=index * group, slice_size=group)
        put = partial(jax.lax.dynamic_update_slice_in_dim, start_index=index * group)
        part = jax.tree.map(take, state._replace(key=keys))
        part, entries = advance(jax.tree.map(take, configs), part, span)
        state = jax.tree.map(partial(put, axis=0), state, part._replace(key=None))
        return state, jax.tree.map(partial(put, axis=1), log, entries)

    state, log = jax.lax.fori_loop(0, runs // group, advance_one, (state._replace(key=None), log))
    return state._replace(key=keys), log


def advance_group(
    agent: Agent, env: Env, budget: Budget, capacity: int, configs: Any, state: RunState, span: Span
) -> tuple[RunState, Log]:
    """The runs of one group side by side; it stops early once none of them is active."""
    # The loop goes on while any run is active: the only one is.
    is_active = state.active.shape[0] == 1
    one_step = partial(iterate, agent, env, budget=budget._replace(amount=span.amount), is_active=is_active)
    step = jax.vmap(one_step, in_axes=(0, 0, None))
    shapes = jax.eval_shape(step, configs, state, span.start)[1]
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
