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
    """rows: [slots, width]. Never select over it (`jnp.where`): that would copy it at every step."""

    rows: Float[Array, "slots width"]


class Layout(NamedTuple):
    """How an item is spread over a row: its tree, and shape and dtype of every leaf. Static."""

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]


def make_layout(example: PyTree) -> Layout:
    """Layout of items like `example` (arrays or ShapeDtypeStructs without batch axes).

    Leaves are held as float32, which is exact for booleans and for whole numbers up to 2**24.
    """
    leaves, treedef = jax.tree.flatten(example)
    return Layout(treedef, tuple(leaf.shape for leaf in leaves), tuple(leaf.dtype for leaf in leaves))


def pack(items: PyTree, lead: int = 1) -> Float[Array, "*lead width"]:
    """Concatenate the leaves of items with `lead` leading batch axes into rows."""
    leaves = jax.tree.leaves(items)
    chex.assert_equal_shape_prefix(
        leaves,
        lead,
        custom_message="every leaf starts with the same batch axes, as many as lead says; one number per item is [B]",
    )
    leaves = [leaf.reshape(*leaf.shape[:lead], -1).astype(jnp.float32) for leaf in leaves]
    return jnp.concatenate(leaves, axis=-1)


def unpack(rows: Float[Array, "*lead width"], layout: Layout) -> PyTree:
    """Undo `pack`."""
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


def count_slots(capacity: int, block: int) -> int:
    """Slots of a ring that holds `capacity` rows and is written `block` rows at a time.

    Whole blocks, so that no write straddles the end (`dynamic_update_slice` would clamp it, silently).
    """
    return -(-capacity // block) * block


def init_replay(capacity: int, block: int, layout: Layout) -> Replay:
    """An empty ring."""
    width = sum(math.prod(shape) for shape in layout.shapes)
    return Replay(jnp.zeros((count_slots(capacity, block), width), jnp.float32))


def add(replay: Replay, rows: Float[Array, "block width"], iteration: Int[Array, ""]) -> Replay:
    """Write the block of the given iteration over the oldest one. Every iteration writes one block of the same size."""
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
    """Raise AssertionError unless the ring is of whole blocks."""
    chex.assert_is_divisible(
        slots,
        block,
        custom_message="the slots of a ring hold whole blocks, each the rows of one iteration: every call takes the "
        "block that init_replay was given",
    )


def _assert_clock(iteration: Int[Array, ""]) -> None:
    """Raise AssertionError unless this is one whole number."""
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
    """Rows drawn uniformly, with replacement, from the newest `capacity` ones, each with those that followed it.

    Returns rows and whether they are stored: of row j of an iteration's block, row j of the next `length - 1` blocks
    follow; where these have not been written yet, there is a row without meaning. Consumes `key`.

    To be called after `add` of the same iteration, so that (iteration + 1) * block rows have been written.
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
