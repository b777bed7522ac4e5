"""Cores, GPUs and TPUs: the run axis is sharded over the local devices of one kind.

On CPU every core is a virtual device of its own: networks this small gain nothing from several threads per operation,
while independent runs side by side use every core fully.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax._src import xla_bridge
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from purejaxrl.components.hyperparameters import MAX_INT
from purejaxrl.errors import InputError, InUseError, UnsupportedError, warn
from purejaxrl.storage.locking import lock, shared_folder
from purejaxrl.types import PyTree

RUNS = PartitionSpec("runs")
RUNS_SECOND = PartitionSpec(None, "runs")
SHARED = PartitionSpec()

KINDS = ("auto", "cpu", "cuda", "tpu")
# On CPU a group's arrays should stay in a core's caches: batches of so many bytes at a time, at most so many runs.
CPU_GROUP_BYTES = 2**16
CPU_GROUP_RUNS = 4
# As groups follow one another on CPU, wider batches gain nothing; so many env steps per iteration keep chunks short.
CPU_BATCH_STEPS = 2**20
# XLA keeps to vectors of 256 bits where a processor has wider ones; one that has none is not troubled by this.
COMPILER_OPTIONS = {"xla_cpu_prefer_vector_width": 512}
# A loop whose step touches at most so many bytes becomes one piece of code; XLA's own limit is a thousandth. Otherwise
# each of its operations is started anew at every step, which takes as long as what it does: rollouts on CPU are such.
SMALL_LOOPS = f"--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold={2**20}"
# Share of the memory that training may take; the rest is for the compiler, the host's tables and everyone else.
MEMORY_SHARE = 0.6


# Whether this process was forked from one in which JAX had started, whose threads did not come along.
lacks_threads = False


def _note_fork() -> None:
    """Record in a forked child process whether JAX had already started."""
    global lacks_threads
    lacks_threads = lacks_threads or bool(xla_bridge._backends)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def check_process() -> None:
    """Check that this process was not forked after JAX had started, where everything would hang.

    Raises:
        UnsupportedError: If it was.
    """
    if lacks_threads:
        raise UnsupportedError(
            "this process was forked from one in which JAX had started, and would hang; start processes that use JAX "
            "with multiprocessing.get_context('spawn')"
        )


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_cpu_only() -> None:
    """Let JAX start no other devices than the CPU, unless it has started: GPUs may belong to other processes."""
    if not xla_bridge._backends:
        jax.config.update("jax_platforms", "cpu")


def claim_gpu() -> None:
    """Let JAX see one GPU alone: one that no other process of the package has claimed on this machine.

    It does nothing if JAX has started. Where there are more processes than GPUs, the rest see all of them.
    """
    if xla_bridge._backends:
        return
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]
    names = names if given is None else [name.strip() for name in given.split(",") if name.strip()]
    for name in names if len(names) > 1 else ():
        with suppress(InUseError, OSError):
            # Nobody closes it: the claim ends with the process.
            lock(shared_folder(f"gpu-{name}"))
            os.environ["CUDA_VISIBLE_DEVICES"] = name
            return


def ask_for_cpu_devices(count: int | None = None, *, at_least: int = 1) -> bool:
    """Make JAX's CPU backend offer several virtual devices, and compile SMALL_LOOPS.

    Args:
        count: Number of devices, by default one per core.
        at_least: Smallest number of them by default.

    Returns:
        Whether it was possible: only before JAX starts its backends.

    Raises:
        UnsupportedError: If this process was forked after JAX had started.
    """
    check_process()
    count, flags = count or max(usable_cores(), at_least), os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:
            return False
    # XLA reads them once.
    if "xla_backend_extra_options" not in flags and not xla_bridge._backends:
        os.environ["XLA_FLAGS"] = f"{flags} {SMALL_LOOPS}".strip()
    return True


def device_kind(name: str) -> str:
    """Validate the kind of device that a user names; `gpu` stands for `cuda`.

    Args:
        name: The name.

    Returns:
        One of KINDS.

    Raises:
        InputError: If the kind is unknown.
    """
    kind = {"gpu": "cuda"}.get(name, name)
    if kind not in KINDS:
        raise InputError(f"--device: {name!r} is not a device; use one of {', '.join(KINDS)}")
    return kind


def local_devices(kind: str, limit: int | None = None) -> list[jax.Device]:
    """Return the devices that runs are sharded over.

    Args:
        kind: Kind of the devices, one of KINDS.
        limit: Number of devices, None for all.

    Returns:
        The devices.

    Raises:
        InputError: If there are none of that kind, or fewer than `limit`.
    """
    try:
        devices = jax.local_devices() if kind == "auto" else jax.local_devices(backend=kind)
    except RuntimeError as error:
        raise InputError(f"--device: no {kind} device here ({_first_line(error)}); use cpu or auto") from error
    if limit is not None and not 1 <= limit <= len(devices):
        raise InputError(
            f"--devices: {limit} is not allowed; there are 1 to {len(devices)} {devices[0].platform} devices"
        )
    return devices[:limit]


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def warn_about_idle_cores(devices: list[jax.Device], limit: int | None, runs: int) -> None:
    """Warn that cores stay idle if JAX had started with one CPU device before the package could ask for more.

    Args:
        devices: The devices in use.
        limit: Number of devices that the user asked for, None for all.
        runs: Number of runs.
    """
    cores = usable_cores()
    if devices[0].platform == "cpu" and len(devices) == 1 and limit is None and min(cores, runs) > 1:
        warn(
            f"JAX had already started with one CPU device, so training uses one of {cores} cores; "
            f'call jax.config.update("jax_num_cpu_devices", {cores}) before using JAX',
            stacklevel=4,
        )


def mesh_for(devices: list[jax.Device], runs: int) -> Mesh:
    """Build a mesh of one axis, `runs`, over no more devices than there are runs.

    Args:
        devices: The devices.
        runs: Number of runs.

    Returns:
        The mesh.
    """
    return Mesh(np.array(devices[:runs]), ("runs",))


def group_size(mesh: Mesh, runs: int, batch_bytes: int) -> int:
    """Compute how many of its runs a device computes side by side; its other runs follow one group after another.

    An accelerator computes all runs at once. On CPU groups keep the cost per run constant, where a wide batch would not
    fit in the cache.

    Args:
        mesh: The devices.
        runs: Number of runs on all devices.
        batch_bytes: Size of the inputs that one run learns from at a time.

    Returns:
        The number of runs per group.
    """
    per_device = -(-runs // mesh.size)
    if mesh.devices.flat[0].platform != "cpu":
        return per_device
    most = min(max(CPU_GROUP_BYTES // batch_bytes, 1), CPU_GROUP_RUNS)
    return -(-per_device // -(-per_device // most))


def widest_batch(devices: list[jax.Device], shape: tuple[int, int]) -> int:
    """Compute the largest number of runs that are worth computing side by side, whatever memory there is.

    Args:
        devices: The devices.
        shape: (T, N), the steps and actors of a rollout.

    Returns:
        The number of runs.
    """
    if devices[0].platform != "cpu":
        return MAX_INT
    return max(CPU_BATCH_STEPS // (shape[0] * shape[1]), len(devices))


def memory_of(devices: list[jax.Device]) -> int:
    """Compute the memory that training may use: a share of a device's memory or, on CPU, of the machine's.

    It depends on the size of the memory, not on what is free at the moment, so that the same command is always split
    into the same batches.

    Args:
        devices: The devices.

    Returns:
        The number of bytes: MEMORY_SHARE of the memory.
    """
    if devices[0].platform == "cpu":
        return int(MEMORY_SHARE * _host_memory())
    sizes = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    # Where a device does not say, only the compiler can refuse.
    return int(MEMORY_SHARE * min(size for size in sizes if size)) if any(sizes) else sys.maxsize


def _host_memory() -> int:
    """Return the bytes of main memory that this process may use: the machine's, or its control group's if less."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        path = Path("/sys/fs/cgroup") / name
        if path.is_file() and (text := path.read_text().strip()).isdigit():
            sizes.append(int(text))
    return min(sizes)


def on_one_memory(bytes_per_device: int, mesh: Mesh) -> int:
    """Compute the memory needed by all devices that share one: on CPU they all do, elsewhere each has its own.

    Args:
        bytes_per_device: Bytes that each device needs.
        mesh: The devices.

    Returns:
        The number of bytes.
    """
    return bytes_per_device * (mesh.size if mesh.devices.flat[0].platform == "cpu" else 1)


def bytes_of(tree: PyTree) -> int:
    """Compute the size of arrays in memory.

    Args:
        tree: Arrays, or shapes of arrays.

    Returns:
        The number of bytes.
    """
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def padded(runs: int, multiple: int) -> int:
    """Round a number of runs up to a multiple.

    Args:
        runs: Number of runs.
        multiple: What the result is divisible by.

    Returns:
        The rounded number.
    """
    return -(-runs // multiple) * multiple


def pad_runs(tree: PyTree, width: int) -> PyTree:
    """Pad host arrays by repeating their last run; what is computed for the repeats is discarded.

    Args:
        tree: Arrays [runs, ...].
        width: Number of runs after padding.

    Returns:
        Arrays [width, ...].
    """

    def pad(leaf: np.ndarray) -> np.ndarray:
        return np.concatenate([leaf, np.repeat(leaf[-1:], width - len(leaf), axis=0)])

    return jax.tree.map(pad, jax.tree.map(np.asarray, tree))


def place(tree: PyTree, mesh: Mesh, spec: PartitionSpec = RUNS) -> PyTree:
    """Put arrays on the devices of a mesh.

    Args:
        tree: Arrays.
        mesh: The devices.
        spec: How the arrays are sharded, by default over runs.

    Returns:
        The arrays on the devices.
    """
    return jax.device_put(tree, NamedSharding(mesh, spec))


def as_shapes(tree: PyTree, mesh: Mesh) -> PyTree:
    """Return the shapes of arrays that are sharded over runs on the devices of a mesh.

    Args:
        tree: Arrays, or shapes of arrays.
        mesh: The devices.

    Returns:
        Shapes, types and shardings.
    """
    sharding = NamedSharding(mesh, RUNS)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def shard_over_runs(
    function: Callable[..., Any],
    mesh: Mesh,
    in_specs: Any,
    out_specs: Any,
    donate: tuple[int, ...] = (),
    tag: str | None = None,
) -> Any:
    """Jit a function so that each device computes its own runs, without communication between them.

    Args:
        function: The function of a device's runs.
        mesh: The devices.
        in_specs: How the arguments are sharded.
        out_specs: How the results are sharded.
        donate: Indices of the arguments whose memory is reused.
        tag: Text that is added to the name of the program, which JAX's own cache of compiled programs goes by.

    Returns:
        The jitted function.
    """
    sharded = jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
    if tag is not None:
        sharded.__name__ = f"{sharded.__name__}_{tag}"
    # An executable read from disk is called by all arguments, whether it uses them or not.
    return jax.jit(sharded, donate_argnums=donate, keep_unused=True)
