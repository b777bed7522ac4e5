"""Replay memory: a ring of rows in one float32 array.

A transition is packed into one row, because under `vmap` XLA keeps a single array in place where it copies a pytree
of several. The write position derives from the unbatched iteration counter for the same reason.

>>> items = {"observation": jnp.array([[1.0, 2.0], [3.0, 4.0]]), "terminated": jnp.array([False, True])}
>>> layout = make_layout(jax.tree.map(lambda leaf: leaf[0], items))
>>> replay = init_replay(capacity=4, block=2, layout=layout)
>>> print(replay.rows.shape, pack(items)[1])
(4, 3) [3. 4. 1.]
>>> replay = add(replay, pack(items), iteration=jnp.int32(0))
>>> rows, is_stored = sample(jax.random.key(0), replay, 5, capacity=4, block=2, iteration=jnp.int32(0))
>>> unpack(rows, layout)["observation"].shape
(5, 1, 2)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from purejaxrl.kernels.threefry import integers_below
from purejaxrl.types import PyTree, ScalarKey


class Replay(NamedTuple):
    """Contents of a replay memory, one packed transition per row, [slots, width].

    Never select over it with `jnp.where`: that would copy it at every step.
    """

    rows: Float[Array, "slots width"]


class Layout(NamedTuple):
    """Static description of how an item is packed into a row: its tree, and the shape and dtype of every leaf."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]


def make_layout(example: PyTree) -> Layout:
    """Compute the row layout of items like an example.

    Leaves are stored as float32, which is exact for booleans and for whole numbers up to 2**24.

    Args:
        example: One item without batch axes, as arrays or ShapeDtypeStructs.

    Returns:
        The layout.
    """
    leaves, treedef = jax.tree.flatten(example)
    return Layout(treedef, tuple(leaf.shape for leaf in leaves), tuple(leaf.dtype for leaf in leaves))


def pack(items: PyTree, lead: int = 1) -> Float[Array, "*lead width"]:
    """Concatenate the leaves of items into rows.

    Args:
        items: A tree of arrays [*lead, ...].
        lead: Number of leading batch axes.

    Returns:
        The rows [*lead, width], float32.

    Raises:
        AssertionError: If the leaves have different batch axes.
    """
    leaves = jax.tree.leaves(items)
    chex.assert_equal_shape_prefix(
        leaves,
        lead,
        custom_message="every leaf starts with the same batch axes, as many as lead says; one number per item is [B]",
    )
    leaves = [leaf.reshape(*leaf.shape[:lead], -1).astype(jnp.float32) for leaf in leaves]
    return jnp.concatenate(leaves, axis=-1)


def unpack(rows: Float[Array, "*lead width"], layout: Layout) -> PyTree:
    """Split rows into items again, the inverse of `pack`.

    Args:
        rows: Rows [*lead, width].
        layout: Layout of one item.

    Returns:
        The items, a tree of arrays [*lead, ...].

    Raises:
        AssertionError: If the rows do not have the width of the layout.
    """
    chex.assert_shape(
        rows,
        (..., sum(map(math.prod, layout.shapes))),
        custom_message="rows end in the axis that pack made, as wide as all numbers of one item in layout",
    )
    leaves, start = [], 0
    for shape, dtype in zip(layout.shapes, layout.dtypes, strict=True):
        size = math.prod(shape)
        leaves.append(rows[..., start : start + size].reshape(*rows.shape[:-1], *shape).astype(dtype))
        start += size
    return jax.tree.unflatten(layout.treedef, leaves)


def _count_slots(capacity: int, block: int) -> int:
    """Compute the number of slots of a replay memory that is written in blocks of rows.

    It is a whole number of blocks, so that no write straddles the end (`dynamic_update_slice` would silently clamp it).
    """
    return -(-capacity // block) * block


def init_replay(capacity: int, block: int, layout: Layout) -> Replay:
    """Create an empty replay memory.

    Args:
        capacity: Number of rows that are sampled from.
        block: Number of rows per write.
        layout: Layout of one item.

    Returns:
        The replay memory, filled with zeros.
    """
    width = sum(math.prod(shape) for shape in layout.shapes)
    return Replay(jnp.zeros((_count_slots(capacity, block), width), jnp.float32))


def add(replay: Replay, rows: Float[Array, "block width"], iteration: Int[Array, ""]) -> Replay:
    """Write the rows of one iteration over the oldest ones.

    Every iteration must write one block of the same size.

    Args:
        replay: The replay memory.
        rows: Packed rows [block, width].
        iteration: Number of the iteration, from 0; it decides the position.

    Returns:
        The replay memory with the rows.

    Raises:
        AssertionError: If the rows do not fit the replay memory, or the iteration is not one whole number.
    """
    chex.assert_shape(
        rows,
        (None, replay.rows.shape[1]),
        custom_message="rows are [block, width], packed by the layout that init_replay was given; narrower ones would "
        "leave old numbers beside them",
    )
    chex.assert_type(rows, replay.rows.dtype, custom_message="rows are float32, as pack makes them")
    slots, block = replay.rows.shape[0], rows.shape[0]
    _assert_blocks(slots, block)
    _assert_clock(iteration)
    position = iteration % (slots // block) * block
    return Replay(jax.lax.dynamic_update_slice_in_dim(replay.rows, rows, position, axis=0))


def _assert_blocks(slots: int, block: int) -> None:
    """Raise AssertionError unless the slots are a whole number of blocks."""
    chex.assert_is_divisible(
        slots,
        block,
        custom_message="the slots of a ring hold whole blocks, each the rows of one iteration: every call takes the "
        "block that init_replay was given",
    )


def _assert_clock(iteration: Int[Array, ""]) -> None:
    """Raise AssertionError unless the iteration is one whole number."""
    message = "iteration is the clock that all runs share, one whole number, as Progress.iteration is"
    chex.assert_rank(iteration, 0, custom_message=message)
    chex.assert_type(iteration, int, custom_message=message)


def sample(
    key: ScalarKey,
    replay: Replay,
    batch_size: int,
    capacity: int,
    block: int,
    iteration: Int[Array, ""],
    length: int = 1,
) -> tuple[Float[Array, "B length width"], Bool[Array, "B length"]]:
    """Sample rows uniformly, with replacement, from the newest ones, each with the rows that followed it.

    Row j of an iteration's block is followed by row j of the next `length - 1` blocks. Call it after `add` of the same
    iteration, so that (iteration + 1) * block rows have been written.

    Args:
        key: A random key, which is consumed.
        replay: The replay memory.
        batch_size: B, the number of rows to sample.
        capacity: Number of newest rows to sample from.
        block: Number of rows per write.
        iteration: Number of the iteration, from 0.
        length: Number of consecutive steps per sample.

    Returns:
        Rows [B, length, width], and whether each has been written yet, [B, length]; rows that have not are meaningless.

    Raises:
        AssertionError: If the replay memory does not consist of whole blocks, or the iteration is not one whole number.
    """
    chex.assert_rank(replay.rows, 2, custom_message="the rows of a Replay are [slots, width]")
    _assert_blocks(replay.rows.shape[0], block)
    _assert_clock(iteration)
    blocks = replay.rows.shape[0] // block
    newest = iteration % blocks * block + block - 1
    stored = jnp.minimum(jnp.minimum(iteration + 1, blocks) * block, capacity)
    age = integers_below(key, stored, (batch_size,))[:, None] - block * jnp.arange(length)[None]
    # Without the barrier XLA works the slots out anew for every number of a row.
    slots = jax.lax.optimization_barrier((newest - age) % replay.rows.shape[0])
    rows = replay.rows.at[slots].get(mode="promise_in_bounds")
    return rows, age >= 0
