"""Checkpoints: named arrays and facts on disk, whole or not at all, and nothing but data.

`checkpoints/000007/` holds `arrays.safetensors`, `facts.json` and `SHA256SUMS`, which `sha256sum --check` reads too. It
is written as `000007.partial`, brought to the disk, and renamed. Reading verifies every byte before anything is used,
runs no code, and compares names, types and shapes with what is expected before memory is taken.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import jax
import numpy as np
from safetensors import SafetensorError, safe_open

from purejaxrl.errors import CheckpointError, ResourceError, reason
from purejaxrl.kernels.threefry import is_key
from purejaxrl.types import PyTree

FORMAT = 1
ARRAYS, FACTS, SUMS = "arrays.safetensors", "facts.json", "SHA256SUMS"
PARTIAL = ".partial"
# The newest and the one before it, for the case that the newest gets damaged.
KEPT = 2
READ_BYTES = 1 << 20

# numpy's name -> safetensors'. Other types, as bfloat16, are stored as whole numbers of their size.
STORED = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip
BY_SIZE = {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64"}


class Rows(NamedTuple):
    """The first `rows` of an array that has more, which nobody copies before it is written."""

    whole: Any
    rows: int

    @property
    def dtype(self) -> Any:
        """Of the array."""
        return self.whole.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Of those rows."""
        return (self.rows, *self.whole.shape[1:])


class Checkpoint(NamedTuple):
    """A checkpoint whose bytes have been verified, and what its facts.json holds."""

    path: Path
    facts: dict[str, Any]


def named_leaves(tree: PyTree, prefix: str = "") -> dict[str, Any]:
    """Path -> leaf, as in `pi_params/kernel_0`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    named = {prefix + jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        raise CheckpointError("two parts of a learner have the same name")
    return named


def write(parent: Path, arrays: Mapping[str, Any], facts: dict[str, Any]) -> Path:
    """Write the next checkpoint under `parent` and let all but the newest KEPT go. Returns once it is on the disk.

    arrays: numpy's or JAX's, keys included, or Rows; they come to the host one at a time. facts: what JSON can hold.
    Raises ResourceError naming the path where that fails; earlier checkpoints then stay as they are.
    """
    remove_leftovers(parent)
    number = max(numbers(parent), default=0) + 1
    target = parent / f"{number:06d}"
    partial = target.with_name(target.name + PARTIAL)
    described = {**facts, "format": FORMAT, "arrays": {name: describe(leaf) for name, leaf in arrays.items()}}
    try:
        partial.mkdir(parents=True)
        sums = [
            _write_hashed(partial / ARRAYS, _blocks_of(arrays)),
            _write_hashed(partial / FACTS, [json.dumps(described, allow_nan=False).encode()]),
        ]
        _write_hashed(partial / SUMS, [_sums_text(sums).encode()])
        sync_folder(partial)
        partial.rename(target)
        sync_folder(parent)
        for old in sorted(numbers(parent))[:-KEPT]:
            _remove(parent / f"{old:06d}")
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise ResourceError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def numbers(parent: Path) -> list[int]:
    """Of the checkpoints under `parent`, newest first. Raises CheckpointError where that cannot be read."""
    try:
        names = os.listdir(parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"cannot read {parent}: {reason(error)}") from error
    return sorted((int(name) for name in names if len(name) == 6 and name.isascii() and name.isdigit()), reverse=True)


def remove_leftovers(parent: Path) -> None:
    """Remove what interrupted saves have left. Raises ResourceError where that fails."""
    if not parent.is_dir():
        return
    try:
        for entry in parent.glob("*" + PARTIAL):
            shutil.rmtree(entry)
    except OSError as error:
        raise ResourceError(f"cannot clean {parent}: {error.strerror or error}") from error


def newest(parent: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, None where there never was one; and what is wrong with newer ones.

    Raises CheckpointError where there are some and all are damaged.
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
    """Compare every byte of a checkpoint with its hashes. Raises CheckpointError where one differs."""
    with _reading(path):
        found = [(name, _hash_of(path / name)) for name in (ARRAYS, FACTS)]
        # Compared as a whole, so that no byte of this file may differ either.
        if (path / SUMS).read_bytes() != _sums_text(found).encode():
            raise CheckpointError(f"{path} is damaged: its contents and {SUMS} differ")
        facts = json.loads((path / FACTS).read_text())
        if not isinstance(facts, dict) or facts.get("format") != FORMAT or not isinstance(facts.get("arrays"), dict):
            raise CheckpointError(f"{path} is of another format than {FORMAT}, which this version reads")
        return Checkpoint(path, facts)


def read(checkpoint: Checkpoint, template: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by name, exactly those of the template: arrays or shapes by name. Keys come as their bits.

    Raises CheckpointError where a name, type or shape differs, before anything is read.
    """
    path = checkpoint.path / ARRAYS
    expected, found = {name: describe(leaf) for name, leaf in template.items()}, checkpoint.facts["arrays"]
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            raise CheckpointError(f"{path}: {name} is {found.get(name)}, and {expected.get(name)} is expected")
    with _reading(checkpoint.path), safe_open(path, "np") as file:
        arrays = {}
        for name, leaf in template.items():
            shape, dtype = stored_form(leaf)
            part = file.get_slice(name)
            if tuple(part.get_shape()) != shape or part.get_dtype() != STORED[storage_of(dtype)]:
                raise CheckpointError(f"{path}: {name} is not what {FACTS} says")
            arrays[name] = file.get_tensor(name).view(dtype)
    return arrays


def describe(leaf: Any) -> str:
    """Type and shape of an array in words, as float32[8,32] or key<fry>[8]."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def stored_form(leaf: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and numpy's type of an array, or shape of one, as it is stored: keys are their bits."""
    if is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(leaf.shape, leaf.dtype))
    return tuple(leaf.shape), np.dtype(leaf.dtype)


def storage_of(dtype: np.dtype) -> str:
    """The name of the type that stands for this one in the file."""
    return dtype.name if dtype.name in STORED else BY_SIZE[dtype.itemsize]


def _blocks_of(arrays: Mapping[str, Any]) -> Iterator[bytes | memoryview]:
    """A safetensors file, array by array: its own writer wants all of them in memory, twice."""
    header, end = {}, 0
    for name, leaf in arrays.items():
        shape, dtype = stored_form(leaf)
        start, end = end, end + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        header[name] = {"dtype": STORED[storage_of(dtype)], "shape": shape, "data_offsets": [start, end]}
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
    """Write a file, bring it to the disk, and return its name and its hash."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)
            digest.update(block)
        sync(file)
    return path.name, digest.hexdigest()


def _hash_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _sums_text(sums: list[tuple[str, str]]) -> str:
    return "".join(f"{digest}  {name}\n" for name, digest in sums)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever cannot be made sense of is a damaged checkpoint, but for what the system keeps from us."""
    try:
        yield
    except PermissionError as error:
        raise CheckpointError(f"cannot read {error.filename or path}: {reason(error)}") from error
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {' '.join(str(error).split())[:200]}") from error


def sync(file: IO[Any]) -> None:
    """Bring what was written to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Bring a folder's names to the disk."""
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
