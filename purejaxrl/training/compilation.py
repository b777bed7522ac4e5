"""Compilation of a training into programs that fit in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, UInt32

from purejaxrl.components.hyperparameters import Budget
from purejaxrl.errors import ResourceError
from purejaxrl.training import debugging, devices
from purejaxrl.training.devices import RUNS, RUNS_SECOND, SHARED, bytes_of
from purejaxrl.training.evaluation import Best, evaluate_and_keep
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.loop import Log, Span, advance_group, init_run, train_chunk
from purejaxrl.types import Agent, Env, PyTree, RunState

CHUNK_SECONDS = 1.0
LOG_BYTES = 32 * 2**20
# What programs are compiled for; the numbers come with every call.
A_SPAN: Any = Span(*[jax.ShapeDtypeStruct((), jnp.int32)] * 3)  # type: ignore[arg-type]


class StopRequestedError(Exception):
    """Raised where training was asked to stop before it had anything to report."""


class Serialized(NamedTuple):
    """A compiled function as XLA serializes it, and the shapes of its result."""

    executable: bytes
    result: PyTree


class Layout(NamedTuple):
    """How runs are laid out on the devices of one machine.

    Attributes:
        batch: Number of runs of a batch, padding included.
        group: Number of runs that a device computes side by side.
        devices: Number of devices.
    """

    batch: int
    group: int
    devices: int


class Program(NamedTuple):
    """Compiled functions that train `width` runs side by side, and the data that belongs to them.

    Attributes:
        agent: The algorithm.
        env: The environment.
        budget: The budget of each run.
        shape: (T, N), the steps and actors of one iteration.
        mesh: The devices.
        width: Number of runs, a multiple of what mesh and groups take; fewer runs are padded to it.
        capacity: Largest number of iterations of a chunk.
        start: (configs, seeds) -> (state, best).
        chunk: (configs, state, span) -> (state, Log).
        evaluate: (configs, params, best, key, iteration, is_due) -> (returns, best); None without evaluations.
        carry: Shapes of state and best.
        memory: Bytes on the device that needs most or, where devices share one memory, on all together.
        compile_seconds: How long compilation took.
        serialized: The functions by name, to be written to disk; empty where that was not asked for or is impossible.
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
    serialized: Mapping[str, Serialized] = MappingProxyType({})


def _start_run(
    agent: Agent, env: Env, budget: Budget, keeps_best: bool, config: Any, seed: UInt32[Array, ""]
) -> tuple[RunState, Best | None]:
    """Initialize the run of a seed."""
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
    tag: str | None = None,
) -> Program:
    """Compile a Program for as many runs side by side as fit in memory, by the compiler's own analysis.

    Args:
        agent: The algorithm.
        env: The environment.
        config: Config of any of the runs; the values of its leaves do not matter.
        runs: Number of runs.
        budget: Budget of each run.
        local: The devices.
        memory_limit: Bytes that may be used per memory, see `devices`.
        eval_episodes: Episodes of an evaluation, None without evaluations.
        should_stop: Whether compilation should be abandoned.
        is_checked: Whether to compile with the checks of `debugging`, on one device.
        tag: Name of the Program on disk, None if it is not to be written there.

    Returns:
        The Program.

    Raises:
        ResourceError: If not even one run fits.
        StopRequestedError: If asked to stop.
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
        tag=tag,
    )
    one_run = bytes_of(shapes_of_runs(agent, env, config, budget, eval_episodes is not None, 1))
    width = _first_width(agent, config, runs, local, one_run, memory_limit)
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


def _first_width(agent: Agent, config: Any, runs: int, local: list[jax.Device], one_run: int, memory_limit: int) -> int:
    """Compute the largest width that may fit, as far as that is known before compilation."""
    return min(runs, devices.widest_batch(local, agent.rollout_shape(config)), max(memory_limit // one_run, 1))


def plan_layout(
    agent: Agent,
    env: Env,
    config: Any,
    runs: int,
    budget: Budget,
    local: list[jax.Device],
    *,
    memory_limit: int,
    keeps_best: bool,
) -> Layout:
    """Compute how `compile_fitting` lays runs out, unless the compiler finds that they need more memory than is known.

    Args:
        agent: The algorithm.
        env: The environment.
        config: Config of any of the runs.
        runs: Number of runs.
        budget: Budget of each run.
        local: The devices.
        memory_limit: Bytes that may be used per memory, see `devices`.
        keeps_best: Whether the best parameters are kept.

    Returns:
        The layout.
    """
    one_run = bytes_of(shapes_of_runs(agent, env, config, budget, keeps_best, 1))
    width = -(-runs // -(-runs // _first_width(agent, config, runs, local, one_run, memory_limit)))
    mesh = devices.mesh_for(local, width)
    group = _group_size(agent, env, config, mesh, width)
    return Layout(devices.padded(width, mesh.size * group), group, mesh.size)


def _group_size(agent: Agent, env: Env, config: Any, mesh: Mesh, runs: int) -> int:
    """Compute how many of its runs a device computes side by side, by the size of what one learns from at a time."""
    shape = agent.rollout_shape(config)
    rows = max(shape[0] * shape[1], agent.batch_size(config))
    inputs = jax.ShapeDtypeStruct((rows, *env.input_shape), jnp.float32)
    return devices.group_size(mesh, runs, bytes_of(inputs))


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
    tag: str | None = None,
) -> Program:
    """Compile training, and evaluation if asked for, of a number of runs side by side; nothing is allocated.

    Args:
        agent: The algorithm.
        env: The environment.
        config: Config of any of the runs; the values of its leaves do not matter.
        budget: Budget of each run.
        local: The devices.
        runs: Number of runs.
        eval_episodes: Episodes of an evaluation, None without evaluations.
        should_stop: Whether compilation should be abandoned.
        is_checked: Whether to compile with the checks of `debugging`, on one device.
        tag: Name of the Program on disk, None if it is not to be written there.

    Returns:
        The Program.

    Raises:
        StopRequestedError: If asked to stop.
    """
    started = time.perf_counter()
    mesh, shape = devices.mesh_for(local[:1] if is_checked else local, runs), agent.rollout_shape(config)
    group = _group_size(agent, env, config, mesh, runs)
    width = devices.padded(runs, mesh.size * group)

    def jit(function: Callable[..., Any], in_specs: Any, out_specs: Any, donate: tuple[int, ...] = ()) -> Any:
        if is_checked:
            return debugging.jit_checked(function)
        return devices.shard_over_runs(function, mesh, in_specs, out_specs, donate, tag)

    def of_runs(tree: PyTree) -> PyTree:
        return devices.as_shapes(tree, mesh)

    keeps_best = eval_episodes is not None
    configs, seeds = of_runs(_shapes_of_settings(config, width))
    start = jax.vmap(partial(_start_run, agent, env, budget, keeps_best))
    state, best = of_runs(shapes_of_runs(agent, env, config, budget, keeps_best, width))
    log_bytes = LOG_BYTES // mesh.size
    if group == width // mesh.size:
        chunk = partial(advance_group, agent, env, budget, log_bytes, is_whole=not is_checked)
    else:
        chunk = partial(train_chunk, agent, env, budget, log_bytes, group, is_whole=not is_checked)
    # What takes longest to compile comes first.
    parts: dict[str, tuple[Any, tuple[Any, ...]]] = {}
    parts["chunk"] = (jit(chunk, (RUNS, RUNS, SHARED), (RUNS, RUNS_SECOND), (1,)), (configs, state, A_SPAN))
    if eval_episodes is not None:
        judge = jax.vmap(partial(evaluate_and_keep, agent, env, eval_episodes))
        who = of_runs((jax.ShapeDtypeStruct((width,), jnp.int32), jax.ShapeDtypeStruct((width,), bool)))
        arguments = (configs, state.learner.params, best, state.key, *who)
        parts["evaluate"] = (jit(judge, (RUNS,) * 6, (RUNS, RUNS), (2,)), arguments)
    parts["start"] = (jit(start, (RUNS, RUNS), (RUNS, RUNS)), (configs, seeds))
    # The compiler blocks the interpreter for long; in threads of its own signals reach the main one, and one part is
    # compiled while the next is traced. These threads are waited for at exit: the interpreter may not go away under a
    # compiler that is at work.
    compiler = ThreadPoolExecutor()
    lowered, pending = {}, {}
    try:
        for name, (part, given) in parts.items():
            # Tracing takes seconds, too.
            if should_stop():
                raise StopRequestedError
            lowered[name] = part.lower(*given)
            pending[name] = compiler.submit(_compile if tag is None else _compile_and_serialize, lowered[name])
        while wait(pending.values(), 0.05).not_done:
            if should_stop():
                raise StopRequestedError
    finally:
        compiler.shutdown(wait=False, cancel_futures=True)
    compiled = {name: future.result()[0] for name, future in pending.items()}
    # The last of what it returns is of the log, [capacity, ...].
    capacity = jax.tree.leaves(lowered["chunk"].out_info)[-1].shape[0]
    held = bytes_of((configs, state, best)) // mesh.size
    # Where there is padding, the state is copied without it at the end.
    final = 0 if width == runs else bytes_of(state) // mesh.size
    at_start = bytes_of(configs) // mesh.size + _transient_bytes(compiled["start"])
    while_running = held + max(final, *(_transient_bytes(compiled[name]) for name in parts if name != "start"))
    memory = devices.on_one_memory(max(at_start, while_running), mesh)
    called = {name: debugging.raising(part) if is_checked else part for name, part in compiled.items()}
    blobs = {name: blob for name, future in pending.items() if (blob := future.result()[1]) is not None}
    is_whole = set(blobs) == set(parts)
    serialized = {name: Serialized(blob, lowered[name].out_info) for name, blob in blobs.items()} if is_whole else {}
    return Program(
        agent,
        env,
        budget,
        shape,
        mesh,
        width,
        capacity,
        called["start"],
        called["chunk"],
        called.get("evaluate"),
        (state, best),
        memory,
        time.perf_counter() - started,
        serialized,
    )


# JAX's settings go by thread.
@standard_jax()
def _compile(lowered: Any) -> tuple[Any, bytes | None]:
    """Compile a lowered function."""
    return lowered.compile(devices.COMPILER_OPTIONS), None


def _compile_and_serialize(lowered: Any) -> tuple[Any, bytes | None]:
    """Compile a lowered function, and serialize it before it runs: XLA cannot serialize every executable that has.

    What JAX reads from its own cache must not be serialized again: parts of it would be missing.
    """
    read, thread = [], threading.get_ident()

    def note(event: str, **_: Any) -> None:
        if event == "/jax/compilation_cache/cache_hits" and threading.get_ident() == thread:
            read.append(event)

    jax.monitoring.register_event_listener(note)
    try:
        compiled, _ = _compile(lowered)
    finally:
        jax.monitoring.unregister_event_listener(note)
    if not read:
        # Not every backend and version of JAX can do this.
        with suppress(jax.errors.JaxRuntimeError, AttributeError):
            executable = compiled.runtime_executable()
            _ = executable.execute_sharded
            return compiled, executable.client.serialize_executable(executable)
    return compiled, None


def _shapes_of_settings(config: Any, runs: int) -> tuple[Any, Any]:
    """Return the shapes of the stacked configs and seeds of a number of runs."""
    a_real, a_seed = (jax.ShapeDtypeStruct((runs,), dtype) for dtype in (jnp.float32, jnp.uint32))
    return jax.tree.map(lambda _: a_real, config), a_seed


def shapes_of_runs(
    agent: Agent, env: Env, config: Any, budget: Budget, keeps_best: bool, runs: int
) -> tuple[RunState, Best | None]:
    """Compute the shapes of the states of a number of runs, and of their best params.

    Args:
        agent: The algorithm.
        env: The environment.
        config: Config of any of the runs.
        budget: Budget of each run.
        keeps_best: Whether the best parameters are kept.
        runs: Number of runs.

    Returns:
        Shapes of the states, [runs, ...], and of the best params, None where these are not kept.
    """
    start = jax.vmap(partial(_start_run, agent, env, budget, keeps_best))
    shapes: tuple[RunState, Best | None] = jax.eval_shape(start, *_shapes_of_settings(config, runs))
    return shapes


def mebibytes(count: int) -> str:
    """Format a number of bytes in MiB.

    Args:
        count: Number of bytes.

    Returns:
        The text, such as "1,234.5 MiB".
    """
    return f"{count / 2**20:,.1f} MiB"


def _transient_bytes(compiled: Any) -> int:
    """Compute the memory that a compiled program needs on one device besides its arguments."""
    found = compiled.memory_analysis()
    return found.temp_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
