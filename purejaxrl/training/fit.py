"""The only loop on the host: it compiles, runs chunk after chunk, and hands each chunk's numbers out.

It knows nothing of files or screens; whoever iterates over `fit` writes and shows.
"""

from __future__ import annotations

import math
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
from purejaxrl.errors import ResourceError
from purejaxrl.learning.keys import is_key, keys_of_bits
from purejaxrl.training import debugging, devices
from purejaxrl.training.devices import RUNS, RUNS_SECOND, SHARED
from purejaxrl.training.evaluate import Best, evaluate_and_keep
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.loop import Log, Span, init_run, iterations_of, train_chunk, without_replay
from purejaxrl.types import Agent, Env, PyTree, RunState

CHUNK_SECONDS = 1.0
LOG_BYTES = 32 * 2**20
MAX_CHUNK = 16384
# What programs are compiled for; the numbers come with every call.
A_SPAN: Any = Span(*[jax.ShapeDtypeStruct((), jnp.int32)] * 3)  # type: ignore[arg-type]


class StopRequestedError(Exception):
    """Training was asked to stop while nothing could be handed out yet."""


class Program(NamedTuple):
    """The compiled functions of a training of `width` runs side by side, and what they need.

    Fewer runs are padded to `width`, which is a multiple of what mesh and groups take. `capacity` bounds a chunk's
    iterations. carry: shapes of state and best. memory: bytes, on the device that needs most or, where devices share
    one memory, on all together.
    """

    agent: Agent
    env: Env
    budget: Budget
    shape: tuple[int, int]
    mesh: Mesh
    width: int
    capacity: int
    start: Callable[..., tuple[RunState, Best | None]]
    chunk: Callable[..., tuple[RunState, Log]]
    evaluate: Callable[..., tuple[Any, Best]] | None
    carry: tuple[RunState, Best | None]
    memory: int
    compile_seconds: float


class Standing(NamedTuple):
    """Where runs stood when training stopped: state and best [runs, ...] on the host, keys as their bits."""

    state: RunState
    best: Best | None
    iteration: int


class Onward(NamedTuple):
    """What a chunk would say if the budget did not end with it: what a larger budget goes on from."""

    eval_return: np.ndarray | None
    is_over: np.ndarray
    best: Best | None


class Chunk(NamedTuple):
    """What one chunk reports, on the host: iterations start .. start + length - 1 of all runs.

    log: arrays [length, runs, ...]. eval_return: [runs] after the chunk's last iteration, if an evaluation was due.
    is_over: [runs], whether the run has ended.
    state and best stay on the devices, padded; the next chunk consumes them.
    onward: with the last chunk of a budget that is counted in iterations.
    """

    start: int
    length: int
    log: Log
    eval_return: np.ndarray | None
    is_over: np.ndarray
    state: RunState
    best: Best | None
    onward: Onward | None = None


def start_run(
    agent: Agent, env: Env, budget: Budget, keeps_best: bool, config: Any, seed: UInt32[Array, ""]
) -> tuple[RunState, Best | None]:
    """The run that starts from jax.random.key(seed), and its learner as the best so far, where that is kept."""
    state = init_run(agent, env, config, jax.random.key(seed), budget.stop_at)
    return state, Best(without_replay(state.learner), jnp.asarray(-jnp.inf)) if keeps_best else None


def compile_fitting(
    agent: Agent,
    env: Env,
    config: Any,
    runs: int,
    budget: Budget,
    local: list[jax.Device],
    *,
    memory_limit: int,
    eval_episodes: int | None = None,
    should_stop: Callable[[], bool] = bool,
    is_checked: bool = False,
) -> Program:
    """The Program for as many of `runs` side by side as fit in memory: by what the compiler says that it needs.

    config: of any of the runs; its leaves are not looked at. memory_limit: bytes per memory, see `devices`.
    Raises ResourceError where not even one run fits, and StopRequestedError when asked to stop.
    """
    started = time.perf_counter()
    compile_width = partial(
        compile_program,
        agent,
        env,
        config,
        budget,
        local,
        eval_episodes=eval_episodes,
        should_stop=should_stop,
        is_checked=is_checked,
    )
    start = partial(start_run, agent, env, budget, eval_episodes is not None)
    one_run = bytes_of(jax.eval_shape(start, config, np.uint32(0)))
    width = min(runs, devices.widest_batch(local, agent.rollout_shape(config)), max(memory_limit // one_run, 1))
    while True:
        # Batches of equal size: the last one should not be mostly padding.
        width = -(-runs // -(-runs // width))
        if one_run <= memory_limit:
            program = compile_width(width)
            if program.memory <= memory_limit:
                return program._replace(compile_seconds=time.perf_counter() - started)
            one_run = max(program.memory // width, one_run)
        if width == 1:
            raise ResourceError(
                f"--max_memory: one run needs {mebibytes(one_run)}, and {mebibytes(memory_limit)} may be used"
            )
        width = max(min(width - 1, memory_limit // one_run), 1)


def compile_program(
    agent: Agent,
    env: Env,
    config: Any,
    budget: Budget,
    local: list[jax.Device],
    runs: int,
    *,
    eval_episodes: int | None = None,
    should_stop: Callable[[], bool] = bool,
    is_checked: bool = False,
) -> Program:
    """Compile training (and evaluation, given its episodes) for `runs` side by side. Nothing is allocated.

    is_checked: with the checks of `debugging`, on one device. Raises StopRequestedError when asked to stop.
    """
    started = time.perf_counter()
    mesh, shape = devices.mesh_for(local[:1] if is_checked else local, runs), agent.rollout_shape(config)
    rows = max(shape[0] * shape[1], getattr(config, "batch_size", 0))
    inputs = jax.ShapeDtypeStruct((rows, *env.input_shape), jnp.float32)
    group = devices.group_size(mesh, runs, bytes_of(inputs))
    width = devices.padded(runs, mesh.size * group)

    def lower(function: Callable[..., Any], in_specs: Any, out_specs: Any, donate: tuple[int, ...], *args: Any) -> Any:
        if is_checked:
            return debugging.jit_checked(function).lower(*args)
        return devices.shard_over_runs(function, mesh, in_specs, out_specs, donate).lower(*args)

    def of_runs(tree: PyTree) -> PyTree:
        return devices.as_shapes(tree, mesh)

    keeps_best = eval_episodes is not None
    configs, seeds = of_runs(shapes_of_settings(config, width))
    start = jax.vmap(partial(start_run, agent, env, budget, keeps_best))
    state, best = of_runs(shapes_of_runs(agent, env, config, budget, keeps_best, width))
    capacity = chunk_capacity(agent, env, budget, configs, state)
    chunk = partial(train_chunk, agent, env, budget, capacity, group)
    lowered = [
        lower(start, (RUNS, RUNS), (RUNS, RUNS), (), configs, seeds),
        lower(chunk, (RUNS, RUNS, SHARED), (RUNS, RUNS_SECOND), (1,), configs, state, A_SPAN),
    ]
    if eval_episodes is not None:
        judge = jax.vmap(partial(evaluate_and_keep, agent, env, eval_episodes))
        who = of_runs((jax.ShapeDtypeStruct((width,), jnp.int32), jax.ShapeDtypeStruct((width,), bool)))
        arguments = (configs, without_replay(state.learner), best, state.key, *who)
        lowered.append(lower(judge, (RUNS,) * 6, (RUNS, RUNS), (2,), *arguments))

    # JAX's settings go by thread, and compiling has one of its own.
    compile_all = standard_jax()(lambda: [part.compile(devices.COMPILER_OPTIONS) for part in lowered])
    compiled = call_interruptibly(compile_all, should_stop)
    held = bytes_of((configs, state, best)) // mesh.size
    # Where there is padding, the state is copied without it at the end.
    final = 0 if width == runs else bytes_of(state) // mesh.size
    while_running = held + max(final, *(transient_bytes(part) for part in compiled[1:]))
    at_start = bytes_of(configs) // mesh.size + transient_bytes(compiled[0])
    memory = devices.on_one_memory(max(at_start, while_running), mesh)
    called = [debugging.raising(part) for part in compiled] if is_checked else compiled
    evaluate = called[2] if eval_episodes is not None else None
    seconds = time.perf_counter() - started
    return Program(
        agent,
        env,
        budget,
        shape,
        mesh,
        width,
        capacity,
        called[0],
        called[1],
        evaluate,
        (state, best),
        memory,
        seconds,
    )


def shapes_of_settings(config: Any, runs: int) -> tuple[Any, Any]:
    """Shapes of the stacked configs and seeds of so many runs."""
    a_real, a_seed = (jax.ShapeDtypeStruct((runs,), dtype) for dtype in (jnp.float32, jnp.uint32))
    return jax.tree.map(lambda _: a_real, config), a_seed


def shapes_of_runs(
    agent: Agent, env: Env, config: Any, budget: Budget, keeps_best: bool, runs: int
) -> tuple[RunState, Best | None]:
    """Shapes of the states of so many runs and of the best learners, where these are kept."""
    start = jax.vmap(partial(start_run, agent, env, budget, keeps_best))
    shapes: tuple[RunState, Best | None] = jax.eval_shape(start, *shapes_of_settings(config, runs))
    return shapes


def mebibytes(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / 2**20:,.1f} MiB"


def bytes_of(tree: PyTree) -> int:
    """What arrays, or shapes of arrays, take in memory."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def transient_bytes(compiled: Any) -> int:
    """What a compiled program needs on one device beside its arguments, by its own memory analysis."""
    found = compiled.memory_analysis()
    return found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes


def place_runs(tree: Any, width: int, mesh: Mesh) -> Any:
    """Arrays [runs, ...] as [width, ...] on the devices of the mesh."""
    return devices.place(devices.pad_runs(tree, width), mesh)


def chunk_capacity(agent: Agent, env: Env, budget: Budget, configs: Any, state: RunState) -> int:
    """Iterations whose logs fit in LOG_BYTES, at most MAX_CHUNK."""
    one_iteration = partial(train_chunk, agent, env, budget, 1, state.active.shape[0])
    return max(1, min(MAX_CHUNK, LOG_BYTES // bytes_of(jax.eval_shape(one_iteration, configs, state, A_SPAN)[1])))


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
    configs: Any,
    seeds: np.ndarray,
    *,
    eval_every: int | None = None,
    standing: Standing | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
) -> Iterator[Chunk]:
    """Train runs, given as stacked configs and seeds [runs], at most `program.width`, until all have ended.

    The cut into chunks of about `chunk_seconds` never changes a result; stop iterating to stop earlier.
    eval_every: env steps between evaluations; every run has one more at its end. standing: where to go on.
    """
    runs, steps = len(seeds), program.shape[0] * program.shape[1]
    configs, seeds = place_runs((configs, seeds.astype(np.uint32)), program.width, program.mesh)
    if standing is None:
        state, best = program.start(configs, seeds)
    else:
        state, best = place_standing(program, standing)
    amount = program.budget.amount
    limit = min(iterations_of(program.budget, program.shape, program.env.max_episode_steps), MAX_ENV_STEPS // steps)
    iteration, length = 0 if standing is None else standing.iteration, 1
    # Evaluations stand at the multiples of eval_every.
    next_eval = (iteration * steps // eval_every + 1) * eval_every if eval_every else 0
    # The caller may hold it on; the devices' copy is what training consumes.
    del standing
    while iteration < limit:
        until_eval = -(-next_eval // steps) - iteration if eval_every else limit
        length = max(1, min(length, program.capacity, until_eval, limit - iteration))

        started = time.perf_counter()
        state, log = program.chunk(configs, state, span_of(iteration, length, amount))
        log = trim(log, length, runs)
        seconds = time.perf_counter() - started
        iteration += length
        has_ended = ~np.asarray(state.active)[:runs]
        is_over = has_ended | (iteration >= limit)

        eval_return, onward = None, None
        was_active = log.active.sum(axis=0)
        is_due = (was_active > 0) & (is_over | (iteration * steps >= next_eval))
        is_due_onward = (was_active > 0) & (has_ended | (iteration * steps >= next_eval))
        if program.evaluate and is_due.any():
            earlier = None if is_due_onward.all() or iteration < limit else jax.tree.map(np.asarray, best)
            # A run that ended within the chunk is evaluated as of its own end, so that the cut cannot matter.
            ends = (iteration - length + was_active).astype(np.int32)
            who = place_runs((ends, is_due), program.width, program.mesh)
            eval_return, best = program.evaluate(configs, without_replay(state.learner), best, state.key, *who)
            eval_return = np.asarray(eval_return)[:runs]
            if earlier is not None:
                onward = undo_evaluations(np.asarray(eval_return), has_ended, best, earlier, np.asarray(is_due_onward))
        if iteration >= limit and onward is None:
            onward = Onward(eval_return, has_ended, best)
        if eval_every and iteration * steps >= next_eval:
            next_eval = (iteration * steps // eval_every + 1) * eval_every
        yield Chunk(iteration - length, length, log, eval_return, is_over, state, best, onward)
        if is_over.all():
            return
        length = next_length(length, seconds, chunk_seconds)


def place_standing(program: Program, standing: Standing) -> tuple[RunState, Best | None]:
    """States and best learners from the host on the program's devices, padded, and keys as such again."""

    def place(shape: jax.ShapeDtypeStruct, leaf: np.ndarray) -> Array:
        placed = place_runs(leaf, program.width, program.mesh)
        return keys_of_bits(placed, shape) if is_key(shape) else placed

    return jax.tree.map(place, program.carry, (standing.state, standing.best))


def undo_evaluations(
    eval_return: np.ndarray, has_ended: np.ndarray, best: Any, earlier: Any, is_due: np.ndarray
) -> Onward:
    """Evaluations of the runs for which they were due, the others left as they were `earlier`. is_due: [runs]."""

    def choose(new: Array, old: np.ndarray) -> np.ndarray:
        chosen = np.array(old)
        chosen[: len(is_due)][is_due] = np.asarray(new)[: len(is_due)][is_due]
        return chosen

    return Onward(np.where(is_due, eval_return, np.nan), has_ended, jax.tree.map(choose, best, earlier))


def span_of(start: int, length: int, amount: int) -> Any:
    """A Span as compiled programs take it."""
    return Span(*np.array([start, length, amount], np.int32))


def trim(log: Log, length: int, runs: int) -> Log:
    """A chunk's log on the host, without the entries that mean nothing. Waits for the device."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:length, :runs], log)


def next_length(length: int, seconds: float, target: float) -> int:
    """Iterations that should take about `target` seconds; growing at most eightfold, as first chunks are slow."""
    return max(1, min(length * 8, int(length * target / max(seconds, 1e-6))))
