"""Whole programs on disk, so that a later process trains without tracing or compiling what an earlier one did.

JAX's own cache of compiled programs is asked by what was traced and lowered, which takes seconds. Here a program is
found by everything that it was made from: the code of this package and of those it builds on, versions, flags, devices,
and what `programs.program_key` says of agent, environment and Config. That is possible only for this package's agents
and networks and for environments by name, where nobody has put anything of their own in the place of a part of them.

A file holds one `Program`: a line of text that names the format and the SHA-256 of the rest, a header in JSON, and the
executables as XLA serializes them. XLA runs whatever they hold, so the folder must be the user's own.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
import zlib
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from purejaxrl.components.hyperparameters import Budget
from purejaxrl.errors import warn
from purejaxrl.kernels.threefry import is_key, unrolled
from purejaxrl.storage.cache import hash_of_source, remove_oldest, replace_file
from purejaxrl.training.compilation import Program
from purejaxrl.training.compilation_cache import private_folder
from purejaxrl.training.devices import RUNS, RUNS_SECOND, SHARED, usable_cores
from purejaxrl.training.identity import (
    UnknownIdentityError,
    are_alike,
    contents_of_modules,
    is_installed_alone,
    stable_text,
)
from purejaxrl.types import Agent, Env, PyTree

FORMAT = b"purejaxrl program 1 "
SUFFIX = ".program"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "chex", "numpy", "ml_dtypes")
# Packages whose files are looked at one by one, as they may be edited in place.
EDITABLE = ("gymnax", "flax", "optax", "chex")
VARIABLES = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE", "PUREJAXRL_REFERENCE_KERNELS", "TF_XLA_FLAGS")
# Settings of JAX that say where and how programs are kept or reported, not what they compute.
IRRELEVANT = ("cache", "jax_log", "logging", "log_modules", "traceback", "explain", "dump")
# Trees on disk name their classes; those of other packages are not looked up.
CLASSES_FROM = ("purejaxrl.", "optax.", "gymnax.", "flax.", "chex.")
# How arguments and results of each part are sharded.
SHARDED: dict[str, tuple[tuple[PartitionSpec, ...], tuple[PartitionSpec, ...]]] = {
    "start": ((RUNS, RUNS), (RUNS, RUNS)),
    "chunk": ((RUNS, RUNS, SHARED), (RUNS, RUNS_SECOND)),
    "evaluate": ((RUNS,) * 6, (RUNS, RUNS)),
}


class _Leaf(NamedTuple):
    """Shape and type of an array on disk; of random keys, those of their bits."""

    shape: tuple[int, ...]
    dtype: str
    is_key: bool


class ProgramFile(NamedTuple):
    """A file for one program, which may be there or not.

    Attributes:
        path: The file.
        made_from: All that the program is made from, texts by name.
        modules: What `contents_of_modules` returned when it was looked for.
    """

    path: Path
    made_from: dict[str, Any]
    modules: dict[str, str]

    @property
    def tag(self) -> str:
        """Text that tells the program from others in the names of its functions."""
        return self.path.stem[:16]


def find_file(key: Hashable | None, local: list[jax.Device]) -> ProgramFile | None:
    """Return where a program is kept on disk.

    Args:
        key: What `programs.program_key` returned.
        local: The devices.

    Returns:
        The file. None where nothing is kept, or where the program is not made from installed packages alone.
    """
    folder = private_folder()
    if key is None or folder is None:
        return None
    modules = contents_of_modules()
    if not is_installed_alone(modules):
        return None
    try:
        made_from = _made_from(key, local)
    except (UnknownIdentityError, OSError, importlib.metadata.PackageNotFoundError):
        return None
    text = json.dumps(made_from, sort_keys=True)
    return ProgramFile(folder / f"{hashlib.sha256(text.encode()).hexdigest()}{SUFFIX}", made_from, modules)


def _made_from(key: Hashable, local: list[jax.Device]) -> dict[str, Any]:
    """Collect everything that a program is made from; raise UnknownIdentityError where that cannot be told in words."""
    client = local[0].client
    settings = sorted(jax.config.values.items())
    return {
        "program": stable_text(key),
        "source": hash_of_source(),
        "files": {name: _files_of(name) for name in EDITABLE},
        "versions": _versions(),
        "python": f"{platform.python_implementation()} {sys.version_info.major}.{sys.version_info.minor}",
        "system": f"{sys.platform} {platform.machine()}",
        "processor": _processor(),
        # XLA divides work by them.
        "cores": usable_cores(),
        "devices": [f"{device.id} {device.device_kind}" for device in local],
        "backend": f"{client.platform} {client.platform_version}",
        "variables": {name: os.environ.get(name) for name in VARIABLES},
        "settings": {name: repr(value) for name, value in settings if not any(word in name for word in IRRELEVANT)},
    }


def save_program(file: ProgramFile | None, program: Program, runs: int) -> Program:
    """Write a program that has just been compiled, whole or not at all.

    It works all the same where it is not written: where XLA could not serialize it, its results are of classes that are
    not known here, or the disk is full.

    Args:
        file: Where it is kept, None for nowhere.
        program: The program. One that trains a part of the runs at a time, as memory was short, is not kept.
        runs: Number of runs that it was compiled for.

    Returns:
        The program without what was written.
    """
    if file is not None and not program.serialized:
        # It was read from JAX's own cache, where a process that was stopped has left it: next time it shall be kept.
        _remove_from_jax(file)
    if file is not None and program.serialized and program.width >= runs:
        with suppress(UnknownIdentityError, OSError, TypeError, ValueError, AttributeError):
            _write(file, program)
            # JAX has just kept the same in its own cache, where it would be found in place of being compiled.
            _remove_from_jax(file)
            remove_oldest(file.path.parent)
    return program._replace(serialized={})


def _remove_from_jax(file: ProgramFile) -> None:
    """Remove what JAX has kept of a program in its own cache."""
    with suppress(OSError):
        for path in file.path.parent.glob(f"*_{file.tag}-*"):
            path.unlink(missing_ok=True)


def _write(file: ProgramFile, program: Program) -> None:
    """Write a program to its file; raise UnknownIdentityError where it is not made from installed packages alone."""
    # Once more, as more modules are loaded now.
    modules = contents_of_modules()
    if not is_installed_alone(modules):
        raise UnknownIdentityError(file.path.name)
    results = {name: _describe(part.result) for name, part in program.serialized.items()}
    blobs = {name: zlib.compress(part.executable, 1) for name, part in program.serialized.items()}
    header = {
        "made_from": file.made_from,
        "modules": modules,
        "width": program.width,
        "capacity": program.capacity,
        "memory": program.memory,
        "mesh": program.mesh.size,
        "carry": _describe(program.carry),
        "parts": [{"name": name, "bytes": len(blob), "result": results[name]} for name, blob in blobs.items()],
    }
    text = json.dumps(header).encode()
    body = b"".join([str(len(text)).encode(), b"\n", text, *blobs.values()])
    replace_file(file.path, FORMAT + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def load_program(
    file: ProgramFile | None,
    agent: Agent,
    env: Env,
    config: Any,
    budget: Budget,
    local: list[jax.Device],
    memory_limit: int,
) -> Program | None:
    """Read the program of an earlier process.

    Args:
        file: Where it is kept, None for nowhere.
        agent: The algorithm.
        env: The environment.
        config: Config of any of the runs.
        budget: Budget of each run.
        local: The devices.
        memory_limit: Bytes that may be used per memory, see `devices`.

    Returns:
        The program. None if there is none, if it needs more memory, if what is loaded in this process is not the code
        that it was made from, or, with a warning, if the file is damaged.
    """
    started = time.perf_counter()
    if file is None:
        return None
    try:
        header, blobs = _parse(file.path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, zlib.error) as error:
        _drop(file, error)
        return None
    if (
        header["made_from"] != file.made_from
        or header["memory"] > memory_limit
        or not are_alike(header["modules"], file.modules)
    ):
        return None
    mesh = Mesh(np.array(local[: header["mesh"]]), ("runs",))
    try:
        with ThreadPoolExecutor() as loader:
            # XLA links them without holding up the interpreter.
            loading = [loader.submit(_load, blobs[part["name"]], mesh) for part in header["parts"]]
            loaded = [future.result() for future in loading]
        carry = jax.tree.map(partial(_as_shape, mesh), _rebuild(header["carry"]), is_leaf=_is_leaf)
        parts = {
            part["name"]: _callable(part["name"], executable, _rebuild(part["result"]), mesh)
            for part, executable in zip(header["parts"], loaded, strict=True)
        }
    except (jax.errors.JaxRuntimeError, UnknownIdentityError, ValueError, TypeError, AttributeError) as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            _drop(file, error)
        return None
    with suppress(OSError):
        # What was used longest ago goes first.
        os.utime(file.path)
    return Program(
        agent,
        env,
        budget,
        agent.rollout_shape(config),
        mesh,
        header["width"],
        header["capacity"],
        parts["start"],
        parts["chunk"],
        parts.get("evaluate"),
        carry,
        header["memory"],
        time.perf_counter() - started,
    )


def _parse(content: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Split a file's content into header and serialized executables; raise ValueError where it is damaged."""
    first, _, body = content.partition(b"\n")
    if first != FORMAT + hashlib.sha256(body).hexdigest().encode():
        raise ValueError("its checksum is another one")
    length, _, rest = body.partition(b"\n")
    header, rest = json.loads(rest[: int(length)]), rest[int(length) :]
    blobs = {}
    for part in header["parts"]:
        blobs[part["name"]] = zlib.decompress(rest[: part["bytes"]])
        rest = rest[part["bytes"] :]
    return header, blobs


def _drop(file: ProgramFile, error: Exception) -> None:
    """Remove a damaged file, and say so."""
    warn(f"{file.path} is damaged ({type(error).__name__}); the program is compiled again")
    with suppress(OSError):
        file.path.unlink()


def _load(serialized: bytes, mesh: Mesh) -> Any:
    """Load an executable of XLA."""
    devices = list(mesh.devices.flat)
    return devices[0].client.deserialize_executable(serialized, devices)


def _callable(name: str, loaded: Any, result: PyTree, mesh: Mesh) -> Any:
    """Return an executable as a function of its arguments."""
    arguments, results = SHARDED[name]
    leaves, structure = [], []
    for tree, spec in zip(result, results, strict=True):
        found, treedef = jax.tree.flatten(tree, is_leaf=_is_leaf)
        leaves += [(leaf, NamedSharding(mesh, spec)) for leaf in found]
        structure.append(treedef)
    return partial(_call, loaded, [NamedSharding(mesh, spec) for spec in arguments], leaves, structure)


def _call(
    loaded: Any,
    shardings: Sequence[NamedSharding],
    results: Sequence[tuple[_Leaf, NamedSharding]],
    structure: Sequence[Any],
    *arguments: PyTree,
) -> tuple[PyTree, ...]:
    """Call an executable, as jax.stages.Compiled is called."""
    given = [
        _on_devices(leaf, sharding)
        for tree, sharding in zip(arguments, shardings, strict=True)
        for leaf in jax.tree.leaves(tree)
    ]
    found = iter(loaded.execute_sharded(given).disassemble_into_single_device_arrays())
    arrays = iter(
        [_from_devices(leaf, sharding, pieces) for (leaf, sharding), pieces in zip(results, found, strict=True)]
    )
    return tuple(treedef.unflatten([next(arrays) for _ in range(treedef.num_leaves)]) for treedef in structure)


def _on_devices(leaf: Any, sharding: NamedSharding) -> Any:
    """Return an argument as XLA takes it: on the devices, random keys as their bits."""
    if not isinstance(leaf, jax.Array):
        return jax.device_put(leaf, sharding)
    return jax.random.key_data(leaf) if is_key(leaf) else leaf


def _from_devices(leaf: _Leaf, sharding: NamedSharding, pieces: list[Any]) -> Array:
    """Return a result as JAX has it."""
    array = jax.make_array_from_single_device_arrays(leaf.shape, sharding, pieces)
    return jax.random.wrap_key_data(array, impl=jax.random.key_impl(_a_key())) if leaf.is_key else array


def _a_key() -> Array:
    """Return a random key of the generator that runs have."""
    return unrolled(jax.random.wrap_key_data(jax.device_put(np.zeros(2, np.uint32)), impl="threefry2x32"))


def _as_shape(mesh: Mesh, leaf: _Leaf) -> jax.ShapeDtypeStruct:
    """Return the shape of an array that is sharded over runs; random keys without the dimension of their bits."""
    sharding = NamedSharding(mesh, RUNS)
    if not leaf.is_key:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return jax.ShapeDtypeStruct(leaf.shape[:-1], _a_key().dtype, sharding=sharding)


def _is_leaf(node: Any) -> bool:
    return isinstance(node, _Leaf)


def _describe(tree: PyTree) -> Any:
    """Describe a tree of shapes in JSON.

    Raises:
        UnknownIdentityError: If it cannot be built again from the description.
    """
    described = _described(tree)
    again: Any = jax.tree.structure(_rebuild(json.loads(json.dumps(described))), is_leaf=_is_leaf)
    if again != jax.tree.structure(tree):
        raise UnknownIdentityError(str(again))
    return described


def _described(node: Any) -> Any:
    if node is None:
        return None
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        return {"class": _name_of(type(node)), "fields": {it: _described(value) for it, value in vars(node).items()}}
    if isinstance(node, tuple) and hasattr(node, "_fields"):
        fields = zip(node._fields, node, strict=True)
        return {"class": _name_of(type(node)), "fields": {name: _described(value) for name, value in fields}}
    if isinstance(node, tuple | list):
        return {type(node).__name__: [_described(entry) for entry in node]}
    if isinstance(node, dict):
        return {"dict": {name: _described(entry) for name, entry in node.items()}}
    if not hasattr(node, "dtype"):
        raise UnknownIdentityError(type(node).__name__)
    if is_key(node):
        return {"shape": [*node.shape, 2], "dtype": "uint32", "is_key": True}
    return {"shape": list(node.shape), "dtype": str(node.dtype), "is_key": False}


def _rebuild(found: Any) -> PyTree:
    """Build a tree from its description."""
    if found is None:
        return None
    if "shape" in found:
        return _Leaf(tuple(found["shape"]), found["dtype"], found["is_key"])
    if "class" in found:
        return _class_of(found["class"])(**{name: _rebuild(entry) for name, entry in found["fields"].items()})
    if "dict" in found:
        return {name: _rebuild(entry) for name, entry in found["dict"].items()}
    if "tuple" in found:
        return tuple(map(_rebuild, found["tuple"]))
    return list(map(_rebuild, found["list"]))


def _name_of(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _class_of(name: str) -> type:
    """Return the class of a name; raise UnknownIdentityError for one that is no part of a training's state."""
    module, _, qualified = name.partition(":")
    # Agent and environment have been imported by now, so nothing needs to be.
    if not module.startswith(CLASSES_FROM) or module not in sys.modules:
        raise UnknownIdentityError(name)
    found = functools.reduce(getattr, qualified.split("."), sys.modules[module])
    if not isinstance(found, type) or not (dataclasses.is_dataclass(found) or issubclass(found, tuple)):
        raise UnknownIdentityError(name)
    return found


@functools.lru_cache(len(EDITABLE))
def _files_of(package: str) -> str:
    """Hash names, sizes and times of a package's files, which tell whether it was edited where it is installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UnknownIdentityError(package)
    return _files_in(Path(spec.origin).parent)


def _files_in(root: Path) -> str:
    """Hash names, sizes and times of the source files in a folder."""
    digest = hashlib.sha256()
    for folder, _, names in sorted(os.walk(root)):
        for name in sorted(names):
            if name.endswith(".py"):
                found = os.stat(os.path.join(folder, name))
                digest.update(f"{folder}/{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@functools.lru_cache(1)
def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


@functools.lru_cache(1)
def _processor() -> str:
    """Describe the processor: XLA compiles for what it can do."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        found = {line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}
        if found:
            return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()
    return platform.processor()
