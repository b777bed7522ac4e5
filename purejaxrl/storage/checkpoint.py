"""Checkpoints: arrays by name and metadata, written whole or not at all, and read without running any code.

`checkpoints/000007/` holds `arrays.safetensors`, metadata in `facts.json`, and `SHA256SUMS`, which `sha256sum --check`
reads too. It is written as `000007.partial`, brought to the disk, and renamed. Reading verifies every byte before
anything is used, and compares names, types and shapes with what is expected before memory is allocated.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from purejaxrl.errors import CheckpointError, ResourceError, reason
from purejaxrl.kernels.threefry import is_key
from purejaxrl.types import PyTree

FORMAT = 1
ARRAYS, METADATA, SUMS = "arrays.safetensors", "facts.json", "SHA256SUMS"
PARTIAL = ".partial"
# The newest and the one before it, for the case that the newest gets damaged.
KEPT = 2
READ_BYTES = 1 << 20

# numpy's name -> safetensors'. Other types, such as bfloat16, are stored as integers of their size.
STORED = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip
BY_SIZE = {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64"}


class Rows(NamedTuple):
    """The first rows of an array, which are not copied before they are written.

    Attributes:
        whole: The array.
        rows: How many of its rows.
    """

    whole: Any
    rows: int

    @property
    def dtype(self) -> Any:
        """Data type of the array."""
        return self.whole.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of its first rows."""
        return (self.rows, *self.whole.shape[1:])


class Checkpoint(NamedTuple):
    """A checkpoint on disk whose bytes have been verified.

    Attributes:
        path: Its folder.
        metadata: What its facts.json holds: the metadata it was written with, `format`, and under `arrays` the type and
            shape of each array, see `describe`.
        renamed: Names of arrays that the file has under earlier ones, present -> earlier.
    """

    path: Path
    metadata: dict[str, Any]
    renamed: Mapping[str, str] = MappingProxyType({})


def named_leaves(tree: PyTree, prefix: str = "") -> dict[str, Any]:
    """Name the leaves of a pytree by their paths, as in `pi_params/kernel_0`.

    Args:
        tree: The pytree.
        prefix: What every name begins with.

    Returns:
        Leaves by name.

    Raises:
        CheckpointError: If two leaves have the same name.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {prefix + jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise CheckpointError("two parts of a learner have the same name")
    return named


def write(parent: Path, arrays: Mapping[str, Any], metadata: dict[str, Any]) -> Path:
    """Write the next checkpoint, wait until it is on the disk, and remove all but the newest two.

    Args:
        parent: The folder of checkpoints.
        arrays: Arrays of numpy or JAX, random keys included, or `Rows`, by name; they are copied to the host one at a
            time.
        metadata: What JSON can hold.

    Returns:
        The folder of the checkpoint.

    Raises:
        ResourceError: If it cannot be written; earlier checkpoints then stay as they are.
    """
    remove_leftovers(parent)
    number = max(numbers(parent), default=0) + 1
    target = parent / f"{number:06d}"
    partial = target.with_name(target.name + PARTIAL)
    described = {**metadata, "format": FORMAT, "arrays": {name: describe(leaf) for name, leaf in arrays.items()}}
    try:
        partial.mkdir(parents=True)
        sums = [
            _write_hashed(partial / ARRAYS, _file_blocks(arrays)),
            _write_hashed(partial / METADATA, [json.dumps(described, allow_nan=False).encode()]),
        ]
        _write_hashed(partial / SUMS, [_sums_text(sums).encode()])
        _sync_folder(partial)
        partial.rename(target)
        _sync_folder(parent)
        for old in sorted(numbers(parent))[:-KEPT]:
            _remove(parent / f"{old:06d}")
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ResourceError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def numbers(parent: Path) -> list[int]:
    """List the numbers of the checkpoints in a folder, newest first; none if there is no such folder.

    Raises:
        CheckpointError: If the folder cannot be read.
    """
    try:
        names = os.listdir(parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"cannot read {parent}: {reason(error)}") from error
    return sorted((int(name) for name in names if len(name) == 6 and name.isascii() and name.isdigit()), reverse=True)


def remove_leftovers(parent: Path) -> None:
    """Remove what interrupted writes have left in a folder of checkpoints.

    Raises:
        ResourceError: If something cannot be removed.
    """
    if not parent.is_dir():
        return
    try:
        for entry in parent.glob("*" + PARTIAL):
            shutil.rmtree(entry)
    except OSError as error:
        raise ResourceError(f"cannot clean {parent}: {error.strerror or error}") from error


def newest(parent: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest checkpoint that is not damaged.

    Args:
        parent: The folder of checkpoints.

    Returns:
        The checkpoint, or None if none was ever written; and what is wrong with each newer one.

    Raises:
        CheckpointError: If there are checkpoints, and all are damaged.
    """
    wrong: list[str] = []
    for number in numbers(parent):
        try:
            return verify(parent / f"{number:06d}"), wrong
        except CheckpointError as error:
            wrong.append(str(error))
    if wrong:
        raise CheckpointError("; ".join(wrong) + "; there is no other checkpoint")
    return None, wrong


def verify(path: Path) -> Checkpoint:
    """Compare every byte of a checkpoint with its hashes.

    Args:
        path: Its folder.

    Returns:
        The checkpoint, whose arrays are not read yet.

    Raises:
        CheckpointError: If a byte differs, or the checkpoint is of another format.
    """
    with _reading(path):
        found = [(name, _file_hash(path / name)) for name in (ARRAYS, METADATA)]
        # Compared as a whole, so that no byte of this file may differ either.
        if (path / SUMS).read_bytes() != _sums_text(found).encode():
            raise CheckpointError(f"{path} is damaged: its contents and {SUMS} differ")
        metadata = json.loads((path / METADATA).read_text())
        is_object = isinstance(metadata, dict) and isinstance(metadata.get("arrays"), dict)
        if not is_object or metadata.get("format") != FORMAT:
            raise CheckpointError(f"{path} is of another format than {FORMAT}, which this version reads")
        return Checkpoint(path, metadata)


def read(checkpoint: Checkpoint, template: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Read the arrays of a checkpoint.

    Args:
        checkpoint: The checkpoint.
        template: Arrays, or objects with a `shape` and a `dtype`, by name: exactly those that are expected.

    Returns:
        Arrays by name; random keys as their bits, see `jax.random.key_data`.

    Raises:
        CheckpointError: If a name, type or shape differs, before anything is read.
    """
    path = checkpoint.path / ARRAYS
    stored = {name: checkpoint.renamed.get(name, name) for name in template}
    expected, found = {stored[name]: describe(leaf) for name, leaf in template.items()}, checkpoint.metadata["arrays"]
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(f"{path}: {name} is {found.get(name)}, and {expected.get(name)} is expected")
    with _reading(checkpoint.path), safe_open(path, "np") as file:
        arrays = {}
        for name, leaf in template.items():
            shape, dtype = _stored_form(leaf)
            part = file.get_slice(stored[name])
            if tuple(part.get_shape()) != shape or part.get_dtype() != STORED[_stored_type(dtype)]:
                raise CheckpointError(f"{path}: {name} is not what {METADATA} says")
            arrays[name] = file.get_tensor(stored[name]).view(dtype)
    return arrays


def describe(leaf: Any) -> str:
    """Describe the type and shape of an array, as in `float32[8,32]` or `key<fry>[8]`."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _stored_form(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Return the shape and data type that an array, or an object with its shape and type, has when it is stored.

    Random keys are stored as their bits, everything else as it is.
    """
    if is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return tuple(leaf.shape), np.dtype(leaf.dtype)


def _stored_type(dtype: np.dtype) -> str:
    """Name the numpy type as which arrays of a type are stored."""
    return dtype.name if dtype.name in STORED else BY_SIZE[dtype.itemsize]


def _file_blocks(arrays: Mapping[str, Any]) -> Iterator[bytes | memoryview]:
    """Yield the content of a safetensors file, array by array: its own writer needs all of them in memory, twice."""
    header, end = {}, 0
    for name, leaf in arrays.items():
        shape, dtype = _stored_form(leaf)
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": STORED[_stored_type(dtype)], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for leaf in arrays.values():
        yield memoryview(np.ascontiguousarray(_to_host(leaf)).reshape(-1).view(np.uint8))


def _to_host(leaf: Any) -> np.ndarray:
    if isinstance(leaf, Rows):
        return _to_host(leaf.whole)[: leaf.rows]
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def _write_hashed(path: Path, blocks: Any) -> tuple[str, str]:
    """Write blocks of bytes to a file, bring it to the disk, and return its name and its hash."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)
            digest.update(block)
        file.flush()
        os.fsync(file.fileno())
    return path.name, digest.hexdigest()


def _file_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _sums_text(sums: list[tuple[str, str]]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sums)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn errors of reading a checkpoint into a CheckpointError, which says that it is damaged, or not readable."""
    try:
        yield
    except PermissionError as error:
        raise CheckpointError(f"cannot read {error.filename or path}: {reason(error)}") from error
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error


def _sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _remove(path: Path) -> None:
    """Remove a checkpoint; under another name, so that what remains of an interrupted removal looks like no other."""
    partial = path.with_name(path.name + PARTIAL)
    path.rename(partial)
    shutil.rmtree(partial)
