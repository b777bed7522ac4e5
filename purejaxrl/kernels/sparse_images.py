"""Images that are rendered late, and their product with a layer's weights, for which most of them never are.

Gain on CPU: a gradient step of DQN on 512 differences of images takes a third of the reference's time.

A difference of two frames of CartPole is 0 wherever neither shows the cart or its pole: in most columns. The rows of a
batch are taken in blocks, in the order of where they show something, and for each block only those tiles of columns are
rendered and multiplied that one of its rows needs. A tile is consumed while it is in the cache, and rendered once more
for the gradient, so that no batch of images is ever in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Int

from purejaxrl.kernels import faster_than
from purejaxrl.kernels.matmul import contract, product
from purejaxrl.types import PyTree

# Rows of a block and columns of a tile. Measured: half as many rows, or ten columns, are a fifth slower.
ROWS, COLUMNS = 32, 6


class Outliner(NamedTuple):
    """Functions that render parts of frames whose background never changes.

    Attributes:
        seen: (numbers[..., D], width=) -> the first and the last column that may differ from the background.
        outline: (numbers[D], height=, width=) -> what `render` needs of a frame.
        render: (outline[..., R], first column, number of columns, height, width, channels) -> those columns of R
            frames, [height, columns * channels, R]; they equal the columns of frames rendered by `Renderer.render`.
    """

    seen: Callable[..., tuple[Int[Array, "..."], Int[Array, "..."]]]
    outline: Callable[..., PyTree]
    render: Callable[..., Float[Array, "..."]]


class ImageFormat(NamedTuple):
    """Description of how observations become images; hashable.

    Attributes:
        render: (numbers[..., D], height=, width=, channels=) -> one frame, [..., height, width, channels].
        outliner: How to render parts of a frame, or None.
        is_difference: Whether an image is the newer of two frames minus the older one, not all frames side by side.
        frames: Number of frames of an observation.
        is_consecutive: Whether the next observation holds the same frames one place earlier, and a new one.
        height, width: Size of a frame in pixels.
        channels: Number of channels of a frame.
    """

    render: Callable[..., Float[Array, "..."]]
    outliner: Outliner | None
    is_difference: bool
    frames: int
    is_consecutive: bool
    height: int
    width: int
    channels: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.height, self.width, self.channels * (1 if self.is_difference else self.frames)

    def image(self, observation: Float[Array, "*lead K D"]) -> Image:
        """Describe the images of observations without rendering them.

        Args:
            observation: Numbers that K frames are rendered from, [*lead, K, D].

        Returns:
            The images [*lead].
        """
        return Image(observation, self)

    def step_images(
        self, observation: Float[Array, "*lead K D"], next_observation: Float[Array, "*lead K D"]
    ) -> tuple[Image, Image]:
        """Describe the images of both observations of a step, which share the numbers of their frames.

        Args:
            observation: Numbers that K frames before the step are rendered from, [*lead, K, D].
            next_observation: Those after the step, [*lead, K, D].

        Returns:
            The images of both observations, [*lead] each.
        """
        newer = next_observation[..., -1:, :] if self.is_consecutive else next_observation
        numbers = jnp.concatenate([observation, newer], axis=-2)
        is_blank = None
        if self.is_difference:  # a terminal step ends in the last frame minus itself
            is_blank = jnp.all(next_observation[..., 0, :] == next_observation[..., 1, :], axis=-1)
        return Image(numbers, self), Image(numbers, self, 1 if self.is_consecutive else self.frames, is_blank)


@partial(jax.tree_util.register_dataclass, data_fields=("frames", "first", "last", "order"), meta_fields=("format",))
@dataclass(frozen=True)
class Tiles:
    """Data from which column tiles of B differences of frames are rendered.

    Attributes:
        frames: Outlines of the earlier and the later frames, [blocks, ..., ROWS].
        first: The first column of a block's images that may differ from 0, [blocks].
        last: The last such column, [blocks].
        order: The order of rows, [B]; the last block is filled up with repeats of the last row.
        format: How images are made.
    """

    frames: tuple[PyTree, PyTree]
    first: PyTree
    last: PyTree
    order: PyTree
    format: ImageFormat


@partial(
    jax.tree_util.register_dataclass, data_fields=("numbers", "is_blank", "tiles"), meta_fields=("format", "first")
)
@dataclass(frozen=True)
class Image:
    """Images [*lead, H, W, channels] that have not been rendered: `render()` does so, and `image @ kernel` multiplies.

    Attributes:
        numbers: Numbers that frames are rendered from, oldest first, [*lead, F, D]. The two images of a step share
            them.
        format: How images are made from them.
        first: Index of the first frame that belongs to this image.
        is_blank: Whether an image is 0 whatever its frames show, [*lead]; None where none is.
        tiles: Data of a product by column tiles in place of rendered images, see `tile`.
    """

    numbers: PyTree
    format: ImageFormat
    first: int = 0
    is_blank: PyTree = None
    tiles: Tiles | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the images, leading axes included."""
        return (*self.numbers.shape[:-2], *self.format.shape)

    @property
    def is_sparse(self) -> bool:
        """Whether a product by tiles is worthwhile: images are mostly 0, and at least a block of them."""
        is_mostly_blank = self.format.is_difference and self.format.outliner is not None
        return is_mostly_blank and self.numbers.ndim == 3 and len(self.numbers) >= ROWS

    def render(self) -> Float[Array, "*lead H W C"]:
        """Render the images.

        Returns:
            Pixels from 0 to 1, or from -1 to 1 where images are differences.
        """
        return render(self)[0]

    def __matmul__(self, kernel: Float[Array, "pixels size"]) -> Float[Array, "B size"]:
        """Multiply the flattened images with weights; only the weights have a gradient.

        Args:
            kernel: Weights [pixels, size].

        Returns:
            The product [B, size].
        """
        return multiply(self, kernel)


def render(*images: Image) -> list[Float[Array, "*lead H W C"]]:
    """Render images that share their numbers, each frame once.

    Args:
        *images: One image, or both of `ImageFormat.step_images`.

    Returns:
        The pixels of each, from 0 to 1, or from -1 to 1 where they are differences.
    """
    numbers, format = images[0].numbers, images[0].format
    render_frame = partial(format.render, height=format.height, width=format.width, channels=format.channels)
    # A call per frame: XLA for CPU stores them faster than with an axis of frames, and far faster than in a loop.
    frames = [render_frame(numbers[..., k, :]) for k in range(numbers.shape[-2])]
    return [combine(image, frames[image.first : image.first + format.frames]) for image in images]


def combine(image: Image, frames: list[Float[Array, "*lead H W C"]]) -> Float[Array, "..."]:
    """Combine rendered frames into an image.

    Args:
        image: The image.
        frames: Its frames, oldest first, [*lead, H, W, C] each.

    Returns:
        The pixels of the image, [*lead, H, W, channels].
    """
    if not image.format.is_difference:
        return jnp.concatenate(frames, axis=-1)
    difference = frames[1] - frames[0]
    return difference if image.is_blank is None else jnp.where(image.is_blank[..., None, None, None], 0.0, difference)


def tile(image: Image, next_image: Image) -> tuple[Image, Image]:
    """Prepare the sparse images of B steps for products with weights.

    Args:
        image: The first of `ImageFormat.step_images`.
        next_image: The second of them.

    Returns:
        The same images with tiles, whose outlines are computed once for both.
    """
    format, numbers = image.format, image.numbers
    outliner = format.outliner
    assert outliner is not None
    # A blank image is that of one frame and itself, and which one need not be rendered.
    newest = jnp.where(next_image.is_blank[:, None], numbers[:, 1], numbers[:, 2])
    numbers = jnp.concatenate([numbers[:, :2], newest[:, None]], axis=1)

    first, last = outliner.seen(numbers, width=format.width)
    order = jnp.argsort(first[:, 1])
    outline = jax.vmap(jax.vmap(partial(outliner.outline, height=format.height, width=format.width), out_axes=-1))
    frames = [outline(_row_blocks(numbers[:, k], order)) for k in range(3)]
    first, last = _row_blocks(first, order).min(1), _row_blocks(last, order).max(1)

    def pair(k: int) -> Tiles:
        ends = slice(k, k + 2)
        return Tiles((frames[k], frames[k + 1]), first[:, ends].min(1), last[:, ends].max(1), order, format)

    return replace(image, tiles=pair(0)), replace(next_image, tiles=pair(1))


def reference_multiply(image: Image, kernel: Float[Array, "pixels size"]) -> Float[Array, "B size"]:
    """Multiply flattened images with weights after rendering them.

    Args:
        image: Images [B].
        kernel: Weights [pixels, size].

    Returns:
        The product [B, size].
    """
    return product(image.render().reshape(image.shape[0], -1), kernel)


@faster_than(reference_multiply)
def multiply(image: Image, kernel: Float[Array, "pixels size"]) -> Float[Array, "B size"]:
    """Multiply flattened images with weights, tile by tile where `tile` has prepared the images for it.

    Args:
        image: Images [B].
        kernel: Weights [pixels, size].

    Returns:
        The product [B, size].
    """
    if image.tiles is None:
        return reference_multiply(image, kernel)
    leaves, treedef = jax.tree.flatten(image.tiles)
    return linear_p.bind(*leaves, kernel, treedef=treedef, function=_tiles_product, transpose=_tiles_gradient)


def _tiles_product(tiles: Tiles, kernel: Float[Array, "pixels size"]) -> Float[Array, "B size"]:
    """Compute images @ kernel from the tiles of the images."""
    return as_rows(_by_platform(_multiply_tiles, multiply_whole, tiles, kernel), tiles.order)


def _tiles_gradient(tiles: Tiles, cotangent: Float[Array, "B size"]) -> Float[Array, "pixels size"]:
    """Compute images^T @ cotangent, the transpose of `_tiles_product`."""
    return _by_platform(_gradient_tiles, gradient_whole, tiles, cotangent_blocks(tiles, cotangent))


# What is linear in its last argument and has a transpose of its own. JAX cannot transpose the loops over tiles, whose
# length is known at run time only, and `custom_vjp` has no forward mode, which Hessians need.
linear_p = Primitive("linear_with_transpose")


def _apply(*arguments: Any, treedef: Any, function: Callable[..., Array], transpose: Callable[..., Array]) -> Array:
    *leaves, x = arguments
    return function(treedef.unflatten(leaves), x)


def _shape(*arguments: Any, **parameters: Any) -> Any:
    found = jax.eval_shape(partial(_apply, **parameters), *arguments)
    return jax.core.ShapedArray(found.shape, found.dtype)


def _jvp(primals: Any, tangents: Any, **parameters: Any) -> tuple[Array, Array]:
    tangent = ad.instantiate_zeros(tangents[-1])
    return linear_p.bind(*primals, **parameters), linear_p.bind(*primals[:-1], tangent, **parameters)


def _transpose(cotangent: Any, *arguments: Any, treedef: Any, function: Any, transpose: Any) -> list[Any]:
    leaves, cotangent = arguments[:-1], ad.instantiate_zeros(cotangent)
    found = linear_p.bind(*leaves, cotangent, treedef=treedef, function=transpose, transpose=function)
    return [None] * len(leaves) + [found]


class Vmapped(NamedTuple):
    """Function of (constants, x), mapped over axis 0 of x and over given axes of the constants.

    Attributes:
        function: The function of one entry.
        treedef: Tree structure of the constants.
        axes: Axis that each leaf of the constants is mapped over, None for none.
    """

    function: Callable[..., Array]
    treedef: Any
    axes: tuple[int | None, ...]

    def __call__(self, constants: PyTree, x: Array) -> Array:
        """Apply the function to every entry.

        Args:
            constants: Constants, with their mapped axes.
            x: The mapped argument, [B, ...].

        Returns:
            The results [B, ...].
        """
        return jax.vmap(self.function, in_axes=(self.treedef.unflatten(self.axes), 0))(constants, x)


def _batch(arguments: Any, axes: Any, *, treedef: Any, function: Any, transpose: Any) -> tuple[Array, int]:
    sizes = {argument.shape[axis] for argument, axis in zip(arguments, axes, strict=True) if axis is not None}
    x = batching.bdim_at_front(arguments[-1], axes[-1], sizes.pop())
    function, transpose = (Vmapped(each, treedef, tuple(axes[:-1])) for each in (function, transpose))
    return linear_p.bind(*arguments[:-1], x, treedef=treedef, function=function, transpose=transpose), 0


linear_p.def_impl(_apply)
linear_p.def_abstract_eval(_shape)
mlir.register_lowering(linear_p, mlir.lower_fun(_apply, multiple_results=False))
ad.primitive_jvps[linear_p] = _jvp
ad.primitive_transposes[linear_p] = _transpose
batching.primitive_batchers[linear_p] = _batch


def _row_blocks(values: Array, order: Int[Array, " B"]) -> Array:
    """Reorder rows and group them into blocks of ROWS, repeating the last row to fill the last block."""
    filled = jnp.pad(order, (0, -len(order) % ROWS), mode="edge")
    return values[filled].reshape(-1, ROWS, *values.shape[1:])


def as_rows(blocks: Float[Array, "blocks size R"], order: Int[Array, " B"]) -> Float[Array, "B size"]:
    """Restore the original rows from blocks that have their rows last, the inverse of `_row_blocks`.

    Args:
        blocks: Blocks [blocks, size, R].
        order: Order of the rows in the blocks, [B].

    Returns:
        Rows [B, size].
    """
    rows = blocks.swapaxes(1, 2).reshape(-1, blocks.shape[1])
    return rows[jnp.argsort(order)]


def cotangent_blocks(tiles: Tiles, cotangent: Float[Array, "B size"]) -> Float[Array, "blocks R size"]:
    """Group the rows of a cotangent into blocks, with zeros for the repeats that fill the last one.

    Args:
        tiles: Tiles of B images.
        cotangent: Cotangent of the product, [B, size].

    Returns:
        Blocks [blocks, R, size].
    """
    blocks = _row_blocks(cotangent, tiles.order)
    is_row = jnp.arange(blocks.shape[0] * ROWS).reshape(-1, ROWS, 1) < len(tiles.order)
    return jnp.where(is_row, blocks, 0.0)


def _by_platform(by_tiles: Callable[..., Array], whole: Callable[..., Array], *arguments: Any) -> Array:
    """Call one function on CPU, for one run after another, and another function on accelerators.

    Accelerators would wait for the many small steps of the tiles.
    """
    one_at_a_time = jax.custom_batching.sequential_vmap(by_tiles)
    return jax.lax.platform_dependent(*arguments, cpu=one_at_a_time, default=whole)


def _multiply_tiles(tiles: Tiles, kernel: Float[Array, "pixels size"]) -> Float[Array, "blocks size R"]:
    """Multiply images with weights, block by block and tile by tile."""
    size, weights = kernel.shape[1], _tile_weights(tiles.format, kernel)

    def multiply_block(_: None, block: tuple) -> tuple[None, Array]:
        frames, first, last = block

        def add_tile(carry: tuple) -> tuple:
            index, total = carry
            return index + 1, total + weights[index] @ _render_tile(tiles.format, frames, index * COLUMNS, COLUMNS)

        start = first, jnp.zeros((size, ROWS))
        return None, jax.lax.while_loop(lambda carry: carry[0] < last, add_tile, start)[1]

    return jax.lax.scan(multiply_block, None, (tiles.frames, *tile_range(tiles)))[1]


def _gradient_tiles(tiles: Tiles, cotangent: Float[Array, "blocks R size"]) -> Float[Array, "pixels size"]:
    """Compute the gradient of the weights, block by block and tile by tile."""
    format, size = tiles.format, cotangent.shape[2]

    def add_block(weights: Array, block: tuple) -> tuple[Array, None]:
        frames, first, last, cotangent = block

        def add_tile(carry: tuple) -> tuple:
            index, weights = carry
            tile = _render_tile(format, frames, index * COLUMNS, COLUMNS)
            return index + 1, weights.at[index].add(tile @ cotangent)

        return jax.lax.while_loop(lambda carry: carry[0] < last, add_tile, (first, weights))[1], None

    height, columns = format.height, COLUMNS * format.channels
    number = -(-format.width // COLUMNS)
    start = jnp.zeros((number, height * columns, size))
    weights = jax.lax.scan(add_block, start, (tiles.frames, *tile_range(tiles), cotangent))[0]
    kernel = weights.reshape(number, height, columns, size).swapaxes(0, 1).reshape(height, -1, size)
    return kernel[:, : format.width * format.channels].reshape(-1, size)


def multiply_whole(tiles: Tiles, kernel: Float[Array, "pixels size"]) -> Float[Array, "blocks size R"]:
    """Multiply whole images with weights.

    Args:
        tiles: Tiles of B images.
        kernel: Weights [pixels, size].

    Returns:
        The product, [blocks, size, R].
    """
    return contract("nir,io->nor", _render_whole(tiles), kernel)


def gradient_whole(tiles: Tiles, cotangent: Float[Array, "blocks R size"]) -> Float[Array, "pixels size"]:
    """Compute the gradient of the weights from whole images.

    Args:
        tiles: Tiles of B images.
        cotangent: Cotangent of the product, [blocks, R, size].

    Returns:
        Gradient of the weights, [pixels, size].
    """
    return contract("nir,nro->io", _render_whole(tiles), cotangent)


def _render_whole(tiles: Tiles) -> Float[Array, "blocks pixels R"]:
    """Render all columns of the images."""
    return jax.vmap(partial(_render_tile, tiles.format, first=0, count=tiles.format.width))(tiles.frames)


def _render_tile(
    format: ImageFormat, frames: tuple[PyTree, PyTree], first: int | Int[Array, ""], count: int
) -> Float[Array, "pixels R"]:
    """Render consecutive columns of a block's images."""
    assert format.outliner is not None
    size = format.height, format.width, format.channels
    earlier, later = (format.outliner.render(frame, first, count, *size) for frame in frames)
    return (later - earlier).reshape(-1, ROWS)


def _tile_weights(format: ImageFormat, kernel: Float[Array, "pixels size"]) -> Float[Array, "tiles size tile_pixels"]:
    """Split weights into those of each tile, with zeros for columns beyond the image."""
    size, columns = kernel.shape[1], COLUMNS * format.channels
    rows = kernel.reshape(format.height, -1, size)
    rows = jnp.pad(rows, ((0, 0), (0, -rows.shape[1] % columns), (0, 0)))
    weights = rows.reshape(format.height, -1, columns, size).transpose(1, 3, 0, 2)
    return jax.lax.optimization_barrier(weights.reshape(weights.shape[0], size, -1))


def tile_range(tiles: Tiles) -> tuple[Int[Array, " blocks"], Int[Array, " blocks"]]:
    """Find the range of tiles that each block needs.

    Args:
        tiles: Tiles of B images.

    Returns:
        The first tile that is needed, and the one after the last, [blocks] each.
    """
    number = -(-tiles.format.width // COLUMNS)
    return jnp.clip(tiles.first // COLUMNS, 0, number), jnp.clip(tiles.last // COLUMNS + 1, 0, number)
