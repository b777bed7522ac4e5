"""The only loop on the host: it compiles, runs chunk after chunk, and hands each chunk's numbers out.

It knows nothing of files or screens; whoever iterates over `fit` writes and shows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, UInt32

from purejaxrl.config import MAX_ENV_STEPS, Budget
from purejaxrl.training import devices
from purejaxrl.training.devices import RUNS, RUNS_SECOND, SHARED
from purejaxrl.training.evaluate import Best, evaluate_and_keep
from purejaxrl.training.loop import Log, init_run, iterations_of, train_chunk, without_replay
from purejaxrl.types import Agent, Env, RunState

CHUNK_SECONDS = 1.0
LOG_BYTES = 32 * 2**20
MAX_CHUNK = 16384


class StopRequestedError(Exception):
    """Training was asked to stop while nothing could be handed out yet."""


class Program(NamedTuple):
    """The compiled functions of one training.

    `runs` are the real ones; arrays are padded to what mesh and groups need. `capacity` bounds a chunk's iterations.
    """

    agent: Agent
    env: Env
    budget: Budget
    mesh: Mesh
    runs: int
    capacity: int
    configs: Any
    state: RunState
    best: Best
    chunk: Callable[..., tuple[RunState, Log]]
    evaluate: Callable[..., tuple[Any, Best]] | None
    compile_seconds: float


class Chunk(NamedTuple):
    """What one chunk reports, on the host: iterations start .. start + length - 1 of all runs.

    log: arrays [length, runs, ...]. eval_return: [runs] after the chunk's last iteration, if an evaluation was due.
    is_over: [runs], whether the run has used up its budget.
    state and best stay on the devices, padded; the next chunk consumes them.
    """

    start: int
    length: int
    log: Log
    eval_return: np.ndarray | None
    is_over: np.ndarray
    state: RunState
    best: Best


def stack_runs(config: Any, runs: int) -> Any:
    """One config for every run: each leaf as [runs] float32."""
    return jax.tree.map(lambda leaf: jnp.full((runs,), leaf, jnp.float32), config)


def start_run(agent: Agent, env: Env, config: Any, seed: UInt32[Array, ""]) -> RunState:
    """The run that starts from jax.random.key(seed)."""
    return init_run(agent, env, config, jax.random.key(seed))


def compile_program(
    agent: Agent,
    env: Env,
    configs: Any,
    seeds: np.ndarray,
    budget: Budget,
    mesh: Mesh,
    shape: tuple[int, int],
    *,
    eval_episodes: int | None = None,
    should_stop: Callable[[], bool] = bool,
) -> Program:
    """Compile training (and evaluation, given its episodes) for R stacked configs and seeds, and start the runs.

    shape: the agent's rollout shape (T, N). Raises StopRequestedError when asked to stop.
    """
    started = time.perf_counter()
    runs = len(seeds)
    group = devices.group_size(mesh, runs, shape[0] * shape[1])
    count = devices.padded(runs, mesh.size * group)
    configs, seeds = place_runs((configs, seeds.astype(np.uint32)), count, mesh)

    def build(function: Callable[..., Any], in_specs: Any, out_specs: Any, donate: tuple[int, ...], *args: Any) -> Any:
        lowered = devices.shard_over_runs(function, mesh, in_specs, out_specs, donate).lower(*args)
        return call_interruptibly(lowered.compile, should_stop)

    start = build(jax.vmap(partial(start_run, agent, env)), (RUNS, RUNS), RUNS, (), configs, seeds)
    state = start(configs, seeds)
    best = Best(jax.tree.map(jnp.copy, without_replay(state.learner)), devices.place(jnp.full(count, -jnp.inf), mesh))
    numbers = (np.int32(0), np.int32(0), np.int32(budget.amount))
    capacity = chunk_capacity(agent, env, budget, configs, state)
    chunk = build(
        partial(train_chunk, agent, env, budget.kind, capacity, group),
        (RUNS, RUNS, SHARED, SHARED, SHARED),
        (RUNS, RUNS_SECOND),
        (1,),
        configs,
        state,
        *numbers,
    )
    evaluate = None
    if eval_episodes is not None:
        one = partial(evaluate_and_keep, agent, env, eval_episodes)
        who = place_runs((np.zeros(runs, np.int32), np.ones(runs, bool)), count, mesh)
        arguments = (configs, without_replay(state.learner), best, state.key, *who)
        evaluate = build(jax.vmap(one), (RUNS,) * 6, (RUNS, RUNS), (2,), *arguments)
    seconds = time.perf_counter() - started
    return Program(agent, env, budget, mesh, runs, capacity, configs, state, best, chunk, evaluate, seconds)


def place_runs(tree: Any, count: int, mesh: Mesh) -> Any:
    """Arrays [runs, ...] as [count, ...] on the devices of the mesh."""
    return devices.place(devices.pad_runs(jax.tree.map(jnp.asarray, tree), count), mesh)


def chunk_capacity(agent: Agent, env: Env, budget: Budget, configs: Any, state: RunState) -> int:
    """Iterations whose logs fit in LOG_BYTES, at most MAX_CHUNK."""
    one_iteration = partial(train_chunk, agent, env, budget.kind, 1, state.active.shape[0])
    shapes = jax.eval_shape(one_iteration, configs, state, *[jax.ShapeDtypeStruct((), jnp.int32)] * 3)
    one = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes[1]))
    return max(1, min(MAX_CHUNK, LOG_BYTES // one))


def call_interruptibly(function: Callable[[], Any], should_stop: Callable[[], bool]) -> Any:
    """Call a function that holds the interpreter for long in a thread, while signals reach the main one."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append((function(), None))
        except BaseException as error:
            outcome.append((None, error))

    # Not a daemon: the interpreter may not go away under a compiler that is at work.
    thread = threading.Thread(target=work)
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
        if should_stop():
            raise StopRequestedError
    result, error = outcome[0]
    if error is not None:
        raise error
    return result


def fit(
    program: Program,
    shape: tuple[int, int],
    *,
    eval_every: int | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
) -> Iterator[Chunk]:
    """Train until the budget is used up, in chunks of about `chunk_seconds`; stop iterating to stop earlier.

    eval_every: env steps between evaluations; every run has one more at its end. The cut into chunks never changes a
    result.
    """
    state, best = program.state, program.best
    steps = shape[0] * shape[1]
    limit = min(iterations_of(program.budget, shape, program.env.max_episode_steps), MAX_ENV_STEPS // steps)
    iteration, length = 0, 1
    next_eval = eval_every or 0
    while iteration < limit:
        until_eval = -(-next_eval // steps) - iteration if eval_every else limit
        length = max(1, min(length, program.capacity, until_eval, limit - iteration))

        started = time.perf_counter()
        state, log = program.chunk(
            program.configs, state, np.int32(iteration), np.int32(length), np.int32(program.budget.amount)
        )
        log = trim(log, length, program.runs)
        seconds = time.perf_counter() - started
        iteration += length
        is_over = ~np.asarray(state.active)[: program.runs] | (iteration >= limit)

        eval_return = None
        was_active = log.active.sum(axis=0)
        is_due = (was_active > 0) & (is_over | (iteration * steps >= next_eval))
        if program.evaluate and is_due.any():
            # A run that ended within the chunk is evaluated as of its own end, so that the cut cannot matter.
            ends = (iteration - length + was_active).astype(np.int32)
            who = place_runs((ends, is_due), state.active.shape[0], program.mesh)
            arguments = (program.configs, without_replay(state.learner), best, state.key)
            eval_return, best = program.evaluate(*arguments, *who)
            eval_return = np.asarray(eval_return)[: program.runs]
        if eval_every and iteration * steps >= next_eval:
            next_eval = (iteration * steps // eval_every + 1) * eval_every
        yield Chunk(iteration - length, length, log, eval_return, is_over, state, best)
        if is_over.all():
            return
        length = next_length(length, seconds, chunk_seconds)


def trim(log: Log, length: int, runs: int) -> Log:
    """A chunk's log on the host, without the entries that mean nothing. Waits for the device."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:length, :runs], log)


def next_length(length: int, seconds: float, target: float) -> int:
    """Iterations that should take about `target` seconds; growing at most eightfold, as first chunks are slow."""
    return max(1, min(length * 8, int(length * target / max(seconds, 1e-6))))
