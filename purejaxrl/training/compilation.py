"""The only loop on the host: it compiles, runs chunk after chunk, and hands each chunk's numbers out.

It knows nothing of files or screens; whoever iterates over `fit` writes and shows.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, UInt32

from purejaxrl.components.hyperparameters import Budget
from purejaxrl.errors import ResourceError
from purejaxrl.training import debugging, devices
from purejaxrl.training.devices import RUNS, RUNS_SECOND, SHARED
from purejaxrl.training.evaluation import Best, evaluate_and_keep
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.loop import Log, Span, advance_group, init_run, train_chunk
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


def start_run(
    agent: Agent, env: Env, budget: Budget, keeps_best: bool, config: Any, seed: UInt32[Array, ""]
) -> tuple[RunState, Best | None]:
    """The run that starts from jax.random.key(seed), and its params as the best so far, where that is kept."""
    state = init_run(agent, env, config, jax.random.key(seed), budget.stop_at)
    return state, Best(state.learner.params, jnp.asarray(-jnp.inf)) if keeps_best else None


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
    rows = max(shape[0] * shape[1], agent.batch_size(config))
    inputs = jax.ShapeDtypeStruct((rows, *env.input_shape), jnp.float32)
    group = devices.group_size(mesh, runs, bytes_of(inputs))
    width = devices.padded(runs, mesh.size * group)

    def jit(function: Callable[..., Any], in_specs: Any, out_specs: Any, donate: tuple[int, ...] = ()) -> Any:
        if is_checked:
            return debugging.jit_checked(function)
        return devices.shard_over_runs(function, mesh, in_specs, out_specs, donate)

    def of_runs(tree: PyTree) -> PyTree:
        return devices.as_shapes(tree, mesh)

    keeps_best = eval_episodes is not None
    configs, seeds = of_runs(shapes_of_settings(config, width))
    start = jax.vmap(partial(start_run, agent, env, budget, keeps_best))
    state, best = of_runs(shapes_of_runs(agent, env, config, budget, keeps_best, width))
    capacity = chunk_capacity(agent, env, budget, configs, state)
    if group == width // mesh.size:
        chunk = partial(advance_group, agent, env, budget, capacity)
    else:
        chunk = partial(train_chunk, agent, env, budget, capacity, group)
    lowered = [
        jit(start, (RUNS, RUNS), (RUNS, RUNS)).lower(configs, seeds),
        jit(chunk, (RUNS, RUNS, SHARED), (RUNS, RUNS_SECOND), (1,)).lower(configs, state, A_SPAN),
    ]
    if eval_episodes is not None:
        judge = jax.vmap(partial(evaluate_and_keep, agent, env, eval_episodes))
        who = of_runs((jax.ShapeDtypeStruct((width,), jnp.int32), jax.ShapeDtypeStruct((width,), bool)))
        arguments = (configs, state.learner.params, best, state.key, *who)
        lowered.append(jit(judge, (RUNS,) * 6, (RUNS, RUNS), (2,)).lower(*arguments))

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


def chunk_capacity(agent: Agent, env: Env, budget: Budget, configs: Any, state: RunState) -> int:
    """Iterations whose logs fit in LOG_BYTES, at most MAX_CHUNK."""
    one_iteration = partial(advance_group, agent, env, budget, 1)
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
