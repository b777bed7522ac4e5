"""Pictures that are mostly 0, and their product with a layer's weights, for which none is drawn whole.

A difference of two pictures of CartPole is 0 wherever neither shows the cart or its pole: in most columns. On CPU the
rows of a batch are taken a few at a time, in the order of where they show something, and of these only the strips of
columns are drawn and multiplied that one of them needs. Each strip is consumed while it is in the cache, and is drawn
once more for the gradient, so that no batch of pictures is ever in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from purejaxrl.kernels.matmul import contract
from purejaxrl.types import PyTree

# Rows that are drawn together, and columns to a strip. Measured: half as many rows, or ten columns, are a fifth slower.
ROWS, COLUMNS = 32, 6


class Painter(NamedTuple):
    """How strips are drawn.

    paint: (outline[..., R], first column, number of columns, height, width, channels) -> those columns of R pictures,
    [height, columns * channels, R]
    """

    paint: Callable[..., Array]
    height: int
    width: int
    channels: int


@partial(jax.tree_util.register_dataclass, data_fields=("frames", "first", "last", "order"), meta_fields=("painter",))
@dataclass(frozen=True)
class Strips:
    """B differences of two pictures, not drawn yet: later frame minus earlier one, flattened to [B, H * W * C].

    frames: outlines of the earlier and the later frame, [bundles, ..., ROWS], rows in the order `order`, which fills up
    the last bundle with repeats [B]. first and last: the columns of pictures between which a bundle's differ from 0,
    [bundles].
    """

    frames: tuple[PyTree, PyTree]
    first: PyTree
    last: PyTree
    order: PyTree
    painter: Painter

    @property
    def shape(self) -> tuple[int, int]:
        """Of the pictures, flattened."""
        return len(self.order), self.painter.height * self.painter.width * self.painter.channels

    def __matmul__(self, kernel: Float[Array, "pixels size"]) -> Float[Array, "B size"]:
        """The product with weights; only they have a gradient."""
        return multiply(self, kernel)


def bundled(values: Array, order: Int[Array, " B"]) -> Array:
    """Rows [B, ...] in that order as [bundles, ROWS, ...], the last one repeated until all are full."""
    filled = jnp.pad(order, (0, -len(order) % ROWS), mode="edge")
    return values[filled].reshape(-1, ROWS, *values.shape[1:])


def as_rows(bundles: Float[Array, "bundles size R"], order: Int[Array, " B"]) -> Float[Array, "B size"]:
    """The inverse, of bundles that have their rows last."""
    rows = bundles.swapaxes(1, 2).reshape(-1, bundles.shape[1])
    return rows[jnp.argsort(order)]


@jax.custom_vjp
def multiply(strips: Strips, kernel: Float[Array, "pixels size"]) -> Float[Array, "B size"]:
    """strips @ kernel."""
    return as_rows(by_platform(multiply_strips, multiply_whole, strips, kernel), strips.order)


def multiply_forward(strips: Strips, kernel: Array) -> tuple[Array, Strips]:
    """The product, and what its gradient needs."""
    return multiply(strips, kernel), strips


def multiply_backward(strips: Strips, cotangent: Float[Array, "B size"]) -> tuple[None, Float[Array, "pixels size"]]:
    """strips^T @ cotangent."""
    return None, by_platform(gradient_strips, gradient_whole, strips, bundled_cotangent(strips, cotangent))


def bundled_cotangent(strips: Strips, cotangent: Float[Array, "B size"]) -> Float[Array, "bundles R size"]:
    """In bundles, 0 for the repeats that fill the last one."""
    bundles = bundled(cotangent, strips.order)
    is_row = jnp.arange(bundles.shape[0] * ROWS).reshape(-1, ROWS, 1) < len(strips.order)
    return jnp.where(is_row, bundles, 0.0)


multiply.defvjp(multiply_forward, multiply_backward)


def by_platform(by_strips: Callable[..., Array], whole: Callable[..., Array], *arguments: Any) -> Array:
    """Strip by strip on CPU, where one run follows another. Accelerators would wait for so many small steps."""
    one_at_a_time = jax.custom_batching.sequential_vmap(by_strips)
    return jax.lax.platform_dependent(*arguments, cpu=one_at_a_time, default=whole)


def multiply_strips(strips: Strips, kernel: Float[Array, "pixels size"]) -> Float[Array, "bundles size R"]:
    """The product, bundle by bundle and strip by strip."""
    size, blocks = kernel.shape[1], blocks_of(strips.painter, kernel)

    def multiply_bundle(_: None, bundle: tuple) -> tuple[None, Array]:
        frames, first, last = bundle

        def add_strip(carry: tuple) -> tuple:
            strip, total = carry
            return strip + 1, total + blocks[strip] @ difference(strips.painter, frames, strip * COLUMNS, COLUMNS)

        start = first, jnp.zeros((size, ROWS))
        return None, jax.lax.while_loop(lambda carry: carry[0] < last, add_strip, start)[1]

    return jax.lax.scan(multiply_bundle, None, (strips.frames, *numbers_of_strips(strips)))[1]


def gradient_strips(strips: Strips, cotangent: Float[Array, "bundles R size"]) -> Float[Array, "pixels size"]:
    """The kernel's gradient, bundle by bundle and strip by strip."""
    painter, size = strips.painter, cotangent.shape[2]

    def add_bundle(blocks: Array, bundle: tuple) -> tuple[Array, None]:
        frames, first, last, cotangent = bundle

        def add_strip(carry: tuple) -> tuple:
            strip, blocks = carry
            return strip + 1, blocks.at[strip].add(difference(painter, frames, strip * COLUMNS, COLUMNS) @ cotangent)

        return jax.lax.while_loop(lambda carry: carry[0] < last, add_strip, (first, blocks))[1], None

    height, columns = painter.height, COLUMNS * painter.channels
    number = -(-painter.width // COLUMNS)
    start = jnp.zeros((number, height * columns, size))
    blocks = jax.lax.scan(add_bundle, start, (strips.frames, *numbers_of_strips(strips), cotangent))[0]
    kernel = blocks.reshape(number, height, columns, size).swapaxes(0, 1).reshape(height, -1, size)
    return kernel[:, : painter.width * painter.channels].reshape(-1, size)


def multiply_whole(strips: Strips, kernel: Float[Array, "pixels size"]) -> Float[Array, "bundles size R"]:
    """The product with whole pictures."""
    return contract("nir,io->nor", whole_pictures(strips), kernel)


def gradient_whole(strips: Strips, cotangent: Float[Array, "bundles R size"]) -> Float[Array, "pixels size"]:
    """The kernel's gradient of whole pictures."""
    return contract("nir,nro->io", whole_pictures(strips), cotangent)


def whole_pictures(strips: Strips) -> Float[Array, "bundles pixels R"]:
    """The differences, drawn."""
    draw = partial(difference, strips.painter, first=0, count=strips.painter.width)
    return jax.vmap(draw)(strips.frames)


def difference(
    painter: Painter, frames: tuple[PyTree, PyTree], first: int | Int[Array, ""], count: int
) -> Float[Array, "pixels R"]:
    """So many columns of a bundle's differences from the first one on."""
    earlier, later = (painter.paint(frame, first, count, *painter[1:]) for frame in frames)
    return (later - earlier).reshape(-1, ROWS)


def blocks_of(painter: Painter, kernel: Float[Array, "pixels size"]) -> Float[Array, "strips size pixels_of_strip"]:
    """The weights of each strip; those of columns beyond the picture are 0."""
    size, columns = kernel.shape[1], COLUMNS * painter.channels
    rows = kernel.reshape(painter.height, -1, size)
    rows = jnp.pad(rows, ((0, 0), (0, -rows.shape[1] % columns), (0, 0)))
    strips = rows.reshape(painter.height, -1, columns, size).transpose(1, 3, 0, 2)
    return jax.lax.optimization_barrier(strips.reshape(strips.shape[0], size, -1))


def numbers_of_strips(strips: Strips) -> tuple[Int[Array, " bundles"], Int[Array, " bundles"]]:
    """Of each bundle the first strip that is needed, and the one after the last."""
    number = -(-strips.painter.width // COLUMNS)
    return jnp.clip(strips.first // COLUMNS, 0, number), jnp.clip(strips.last // COLUMNS + 1, 0, number)
