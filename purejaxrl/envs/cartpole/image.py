"""gymnasium's image of CartPole, rendered straight at a small size.

The image is a white sheet with a few shapes, and in each of its rows a shape covers one span of columns. So an image
needs no large frame. Over the rows of one image row, an edge of a shape runs evenly through some columns: what lies
left of it falls, from column to column of the image, along a ramp as wide as this run and an image pixel together. A
shape is the ramps of its right edges less those of its left edges.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial, reduce
from operator import add
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from purejaxrl.envs.cartpole.scene import AXLE_COLOUR, COLUMNS, POLE_COLOUR, Pixel, cart_columns, pole_corners

# gymnasium's frame, in pixels. Heights count upwards from its bottom, as gymnasium draws before it flips the frame.
TOP, NUM_ROWS = 240, 160  # rows 160 to 319 of the flipped frame: the heights from 240 down to 80
CART_BOTTOM, CART_TOP = 85, 116
TRACK_BOTTOM, TRACK_TOP = 100, 101
AXLE_BOTTOM = 102
AXLE_HALF_WIDTHS = np.array([2.0, 3.5, 4.5, 5.5, 5.5, 5.5, 5.5, 5.5, 4.5, 3.5, 2.0])  # as drawn, row by row
HALF = 0.5  # a corner is drawn in the middle of its pixel

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R 601

FAR = 1e4  # beyond every column: the bound that a level edge sets
UNIFORM = 12.0  # an even spread over a width of 1 has variance 1 / 12
TINY = 1e-6

Cell = tuple[float, float]  # rows and columns of the frame to one image pixel
Columns = Float[Array | np.ndarray, "frame_rows"]
Band = tuple[np.ndarray, np.ndarray]  # the top and the bottom of a band in each image row, as heights


class Line(NamedTuple):
    """Line through two corners of the pole, column = start + slope * height.

    Attributes:
        start: Column at height 0.
        slope: Columns per row of height.
        margin: Distance by which the line is drawn outside, in pixels.
        rise: Difference of the heights of the corners.
    """

    start: Float[Array, "*edges"]
    slope: Float[Array, "*edges"]
    margin: Float[Array, "*edges"]
    rise: Float[Array, "*edges"]


class Edge(NamedTuple):
    """Drawn edge of the pole, column = start + slope * height, for heights from low to high."""

    start: Float[Array, "*edges"]
    slope: Float[Array, "*edges"]
    low: Float[Array, "*edges"]
    high: Float[Array, "*edges"]


class Ramp(NamedTuple):
    """Part of each image pixel left of an edge: offset - slope * column, clipped to between 0 and the share of the row.

    The fields are arrays [*edges, rows, *batch].
    """

    share: Float[Array, "..."]
    offset: Float[Array, "..."]
    slope: Float[Array, "..."]


class Outline(NamedTuple):
    """Data from which an image is rendered, [..., *batch] for several images.

    Attributes:
        sides: Columns of the cart's left and right side.
        pole: Ramps of the pole's edges.
        inner: Ramps of the part of the pole between the sides of the cart.
        outside: Shares of the cart's rows that the pole covers left and right of the sides.
        disc: Ramps of the axle's disc, see `_axle_ramps`.
        hidden_pole: Ramps of the part of the pole that the disc hides, see `_axle_ramps`.
    """

    sides: tuple[Float[Array, "*batch"], Float[Array, "*batch"]]
    pole: Ramp
    inner: Ramp
    outside: tuple[Float[Array, "rows *batch"], Float[Array, "rows *batch"]]
    disc: Ramp
    hidden_pole: Ramp


def render_observation(
    x: Float[Array, "*lead"], theta: Float[Array, "*lead"], height: int, width: int, channels: int = 1
) -> Float[Array, "*lead height width channels"]:
    """Render rows 160 to 319 of gymnasium's CartPole image, area-averaged to a small size.

    The shapes have gymnasium's corners, cut to whole pixels, and gfxdraw's fringes. A pixel is within 13/255 of the
    average of gymnasium's frame within the limits of an episode, within 17/255 beyond them, and the mean of an image
    within 0.2/255. Where a side of the image cuts a pole, gfxdraw bends the fringe: 19/255. Off a nearly level pole,
    far beyond the limits, it may bend the fringe so far that a gap opens, which is not drawn here: 33/255.

    Args:
        x: Position of the cart in meters, 0 in the middle, [*lead].
        theta: Angle of the pole in radians, positive leaning right, [*lead].
        height: Height of an image in pixels, 8 or more.
        width: Width of an image in pixels, 8 or more.
        channels: 3 for RGB, 1 for gray, the luma of ITU-R 601: 0.299 R + 0.587 G + 0.114 B.

    Returns:
        Images [*lead, height, width, channels] in [0, 1], float32; row 0 is at the top.
    """
    render = partial(render_frame, height=height, width=width, channels=channels)
    return jnp.vectorize(render, signature="(),()->(h,w,c)")(x, theta)


def render_frame(x: Float[Array, ""], theta: Float[Array, ""], height: int, width: int, channels: int) -> Array:
    """Render one image of CartPole at a small size.

    Args:
        x: Position of the cart in meters, 0 in the middle.
        theta: Angle of the pole in radians, positive leaning right.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        channels: 3 for RGB, 1 for gray.

    Returns:
        The image [height, width, channels].
    """
    return render_columns(make_outline(x, theta, height, width), 0, width, height, width, channels).reshape(
        height, width, channels
    )


def seen_columns(
    x: Float[Array, "*lead"], theta: Float[Array, "*lead"], width: int
) -> tuple[Int[Array, "*lead"], Int[Array, "*lead"]]:
    """Find the first and the last column of an image that may show the cart or its pole.

    Args:
        x: Position of the cart in meters, 0 in the middle, [*lead].
        theta: Angle of the pole in radians, positive leaning right, [*lead].
        width: Width of the image in pixels.

    Returns:
        The two columns, [*lead] each; either may be off the image.
    """
    first, last = jnp.vectorize(_shown_columns, signature="(),()->(),()")(x, theta)
    # A ramp reaches half an image pixel beyond its edge.
    return first * width // COLUMNS - 1, last * width // COLUMNS + 1


def _shown_columns(x: Float[Array, ""], theta: Float[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Find the first and the last column of gymnasium's frame that show anything.

    A fringe reaches two columns beyond a corner.
    """
    columns = jnp.concatenate([cart_columns(x), pole_corners(x, theta).column])
    return columns.min() - 2, columns.max() + 3


def make_outline(x: Float[Array, ""], theta: Float[Array, ""], height: int, width: int) -> Outline:
    """Compute the outline from which the columns of an image are rendered.

    Args:
        x: Position of the cart in meters, 0 in the middle.
        theta: Angle of the pole in radians, positive leaning right.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        The outline.
    """
    cell = NUM_ROWS / height, COLUMNS / width
    left_side, axle, right_side = cart_columns(x).astype(jnp.float32)
    sides = left_side, right_side + 1
    edges = _pole_edges(pole_corners(x, theta))
    rows = _cart_rows(height)
    on_cart = [(top[rows], bottom[rows]) for top, bottom in bands(height, CART_BOTTOM, CART_TOP)]
    # What a loop returns is stored; otherwise XLA would work out each ramp anew at each pixel.
    pole = jax.lax.map(partial(_edge_ramp, bands=bands(height, -FAR, FAR), cell=cell), edges)
    inner, beyond = jax.lax.map(partial(_ramp_between, sides=sides, bands=on_cart, cell=cell), edges)
    outside = _right_less_left(beyond[0]), _right_less_left(beyond[1])
    return Outline(sides, pole, inner, outside, *_axle_ramps(axle, edges, height, rows, cell))


def render_columns(
    outline: Outline, first: int | Int[Array, ""], count: int, height: int, width: int, channels: int
) -> Float[Array, "height columns *batch"]:
    """Render consecutive columns of images: the pole on paper, and on the rows of the cart what stands in front of it.

    The channels of a pixel are columns of their own, so that the innermost axis is long.

    Args:
        outline: Outlines; those of several images have these on their last axes, *batch.
        first: Index of the first column.
        count: Number of columns.
        height: Height of an image in pixels.
        width: Width of an image in pixels.
        channels: 3 for RGB, 1 for gray.

    Returns:
        The columns [height, count * channels, *batch], from 0 to 1.
    """
    cell = NUM_ROWS / height, COLUMNS / width
    ones = (1,) * (outline.pole.share.ndim - 2)
    places = np.repeat((np.arange(count) + 0.5) * cell[1], channels).astype(np.float32)
    columns = places.reshape(-1, *ones) + first * np.float32(cell[1])
    colours = (_column_colours(rgb / 255, count, channels) for rgb in (POLE_COLOUR, AXLE_COLOUR))
    pole_colour, axle_colour = (colour.reshape(1, -1, *ones) for colour in colours)
    rows = _cart_rows(height)
    paper, cart_share = (
        _row_shares(band, cell).reshape(-1, 1, *ones)
        for band in (bands(height, -FAR, FAR), bands(height, CART_BOTTOM, CART_TOP))
    )

    def backdrop(rows: slice) -> Array:
        return paper[rows] - (1 - pole_colour) * shape(
            jax.tree.map(lambda field: field[:, rows], outline.pole), columns
        )

    left, right = (clip(0.5 + (side[None] - columns) / np.float32(cell[1]), 1.0)[None] for side in outline.sides)
    cart = cart_share[rows] * (right - left)
    outside = [share[:, None] for share in outline.outside]
    pole = shape(outline.inner, columns) + outside[0] * left + outside[1] * right
    disc, hidden_pole = (shape(ramps, columns) for ramps in (outline.disc, outline.hidden_pole))
    front = pole - cart + axle_colour * disc - pole_colour * hidden_pole

    # None that is empty: a program for several devices that holds an empty constant crashes the compiler of JAX 0.11.
    above = [backdrop(slice(rows.start))] if rows.start else []
    below = [backdrop(slice(rows.stop, height))] if rows.stop < height else []
    return jnp.concatenate([clip(part, 1.0) for part in (*above, backdrop(rows) + front, *below)])


def _cart_rows(height: int) -> slice:
    """Return the rows of an image that show the cart."""
    cell = NUM_ROWS / height
    return slice(int((TOP - CART_TOP) / cell), -int((CART_BOTTOM - TOP) // cell))


def _column_colours(rgb: np.ndarray, width: int, channels: int) -> np.ndarray:
    """Repeat a color for every column of an image."""
    return np.tile(rgb if channels == 3 else rgb @ LUMA, width).astype(np.float32)


def bands(height: int, low: float, high: float) -> list[Band]:
    """Compute the part of each image row between two heights, without the track, which hides everything.

    One band suffices unless the track runs through the middle of an image row.

    Args:
        height: Height of the image in pixels.
        low: Lower height in pixels of the frame.
        high: Upper height in pixels of the frame.

    Returns:
        One or two bands, each the heights of its top and its bottom in each image row.
    """
    borders = TOP - np.arange(height + 1) * (NUM_ROWS / height)
    limits = np.array([[high, TRACK_BOTTOM], [TRACK_TOP, low]])[:, :, None]
    bottom = np.maximum(borders[1:], np.maximum(limits[1], low))
    top = np.maximum(np.minimum(borders[:-1], limits[0]), bottom)
    is_empty = top <= bottom
    if is_empty.any(0).all():
        top, bottom = (np.where(is_empty[0], both[1], both[0])[None] for both in (top, bottom))
    return list(zip(top.astype(np.float32), bottom.astype(np.float32), strict=True))


def _row_shares(bands: list[Band], cell: Cell) -> np.ndarray:
    """Compute the share of each image row that lies in bands."""
    return np.sum([top - bottom for top, bottom in bands], axis=0) / np.float32(cell[0])


def _pole_edges(corners: Pixel) -> Edge:
    """Compute the drawn edges of the pole: left long, left short, right long, right short."""
    columns, heights = corners.column + HALF, corners.line + HALF
    low, high = heights.min() - HALF, heights.max() + HALF
    lines = jax.lax.map(_line_through, (columns, heights, jnp.roll(columns, -1), jnp.roll(heights, -1)))
    pair, opposite = (jax.tree.map(lambda field, i=i: field[i : i + 2], lines) for i in (0, 2))

    def side_edges(side: int) -> Edge:
        is_here = side * (opposite.rise - pair.rise) > 0
        line = jax.tree.map(partial(jnp.where, is_here), pair, opposite)
        start = line.start + side * line.margin
        turn = line.slope[0] - line.slope[1]
        meet = jnp.clip((start[1] - start[0]) / jnp.where(turn == 0, TINY, turn), low, high)
        is_above = jnp.stack([turn < 0, turn >= 0]) == (side > 0)
        return Edge(start, line.slope, jnp.where(is_above, meet, low), jnp.where(is_above, high, meet))

    return jax.tree.map(lambda *both: jnp.concatenate(both), side_edges(-1), side_edges(1))


def _line_through(ends: tuple[Array, Array, Array, Array]) -> Line:
    """Compute the line through two corners of the pole.

    gfxdraw fills the pole row by row and draws its edges once more as smoothed lines, which adds a fringe: 0.5 pixels
    up or down where an edge is nearly level, 0.625 pixels sideways where it is steep.
    """
    run, rise = ends[2] - ends[0], ends[3] - ends[1]
    is_level = rise == 0
    column_a, height_a, column_b, height_b = cut(*ends)
    slope = jnp.where(is_level, 0, (column_b - column_a) / jnp.where(is_level, 1, height_b - height_a))
    steepness = jnp.maximum(abs(slope), 1)
    fringe = jnp.where(run == 0, 0.5, 0.5 * steepness + 0.125 / steepness)
    return Line(column_a - slope * height_a, slope, jnp.where(is_level, FAR, fringe), rise)


def cut(column_a: Array, height_a: Array, column_b: Array, height_b: Array) -> tuple[Array, Array, Array, Array]:
    """Cut a line at the frame's sides as gfxdraw does: at whole pixels, which bends the fringe.

    The fill stays as it was. Where it reaches further than the bent line it hides it, and where it falls short it
    leaves a gap: heights are those that show as much, averaged over how fill and line may lie relative to the pixels.

    Args:
        column_a: Column of the first end.
        height_a: Height of the first end.
        column_b: Column of the second end.
        height_b: Height of the second end.

    Returns:
        Column and height of the first end, column and height of the second.
    """
    run, rise = column_b - column_a, height_b - height_a
    pitch = rise / jnp.where(run == 0, 1, run)
    outwards = jnp.sign(run) * jnp.maximum(abs(pitch), 1)  # the height of one pixel outwards, as corners run clockwise
    beyond = jnp.minimum(abs(pitch), 1) / 2  # how far the fill, rounded to whole pixels, exceeds its edge

    def cut_end(column: Array, height: Array) -> tuple[Array, Array]:
        inwards = jnp.clip(column, HALF, COLUMNS - HALF) - column
        climb = inwards * pitch
        bend = (jnp.trunc(climb) - climb) / jnp.where(run == 0, 1, outwards)
        shown = (jnp.maximum(1 - beyond + bend, 0) ** 2 - (1 - beyond) ** 2) / 2 - jnp.maximum(bend - beyond, 0) ** 2
        return column + inwards, height + climb + shown * outwards

    ends = column_a, height_a, column_b, height_b
    new_ends = *cut_end(column_a, height_a), *cut_end(column_b, height_b)
    is_seen = ((new_ends[2] - new_ends[0]) * run > 0) & ((new_ends[3] - new_ends[1]) * rise > 0)
    return jax.tree.map(partial(jnp.where, is_seen), new_ends, ends)


def _edge_ramp(edge: Edge, bands: list[Band], cell: Cell) -> Ramp:
    """Compute the ramp of an edge in each image row."""
    parts = [(jnp.clip(top, edge.low, edge.high), jnp.clip(bottom, edge.low, edge.high)) for top, bottom in bands]
    spans = [(top - bottom, (top + bottom) / 2) for top, bottom in parts]
    length = total(length for length, _ in spans)
    norm = 1 / jnp.maximum(length, TINY)
    mean = norm * total(length * middle for length, middle in spans)
    variance = norm * total(length * (length**2 / UNIFORM + (middle - mean) ** 2) for length, middle in spans)
    return _ramp(length / cell[0], edge.start + edge.slope * mean, edge.slope**2 * variance, cell)


def _ramp(share: Array, column: Array, variance: Array, cell: Cell) -> Ramp:
    """Compute the ramp of an edge from the mean and the variance of its columns in each image row."""
    slope = share / jnp.sqrt(cell[1] ** 2 + UNIFORM * variance)
    return Ramp(share, 0.5 * share + slope * column, slope)


def _ramp_between(
    edge: Edge, sides: tuple[Array, Array], bands: list[Band], cell: Cell
) -> tuple[Ramp, tuple[Array, Array]]:
    """Compute the ramp of the part of an edge between two columns."""
    slope = jnp.where(abs(edge.slope) < TINY, TINY, edge.slope)
    crossings = [jnp.clip((side - edge.start) / slope, edge.low, edge.high) for side in sides]
    low, high = jnp.minimum(*crossings), jnp.maximum(*crossings)

    def share(low: Array, high: Array) -> Array:
        return total(jnp.clip(top, low, high) - jnp.clip(bottom, low, high) for top, bottom in bands) / cell[0]

    below, above = share(edge.low, low), share(high, edge.high)
    beyond = jnp.where(slope > 0, below, above), jnp.where(slope > 0, above, below)
    return _edge_ramp(edge._replace(low=low, high=high), bands, cell), beyond


def _axle_ramps(axle: Float[Array, ""], edges: Edge, height: int, rows: slice, cell: Cell) -> tuple[Ramp, Ramp]:
    """Compute the ramps of the axle's disc and of the part of the pole that it hides, row by row of the frame."""
    bottom = AXLE_BOTTOM + np.arange(len(AXLE_HALF_WIDTHS))
    top = TOP - np.arange(height)[rows] * cell[0]
    overlap = np.minimum(bottom[:, None] + 1, top) - np.maximum(bottom[:, None], top - cell[0])
    parts = (np.clip(overlap, 0, None) / cell[0]).astype(np.float32)
    disc = AXLE_HALF_WIDTHS.astype(np.float32)
    middle = (bottom + HALF).astype(np.float32)

    bounds = edges.start[:, None] - (axle + HALF) + edges.slope[:, None] * middle[None]
    left = jnp.maximum(jnp.maximum(bounds[0], bounds[1]), -disc)
    right = jnp.minimum(jnp.minimum(bounds[2], bounds[3]), disc)
    is_hidden = (left < right) & (middle > edges.low.min()) & (middle < edges.high.max())

    whole = _span_ramps(-disc, disc, np.ones_like(disc), parts, axle, cell)
    return whole, _span_ramps(left, right, is_hidden.astype(jnp.float32), parts, axle, cell)


def _span_ramps(
    left: Columns, right: Columns, is_there: Columns, parts: np.ndarray, axle: Float[Array, ""], cell: Cell
) -> Ramp:
    """Compute the ramps of spans of columns in some rows of the frame."""
    powers = 1, left, left**2, right, right**2
    moments = jnp.stack([is_there * power for power in powers])
    share, *sums = jnp.dot(moments, parts, precision=jax.lax.Precision.HIGHEST)
    means = [each / jnp.maximum(share, TINY) for each in sums]
    ends = (means[0], means[1] - means[0] ** 2), (means[2], means[3] - means[2] ** 2)
    ramps = [_ramp(share, axle + HALF + mean, variance, cell) for mean, variance in ends]
    return jax.tree.map(lambda *both: jnp.stack(both), *ramps)


def shape(ramps: Ramp, columns: Float[Array | np.ndarray, "columns ..."]) -> Float[Array, "rows columns ..."]:
    """Compute the part of each image pixel between left edges and right edges.

    Args:
        ramps: Ramps of the left edges, followed by those of as many right edges.
        columns: Columns of the pixels, in the frame.

    Returns:
        The covered part of each pixel, [rows, columns, ...].
    """
    return _right_less_left(
        [
            clip(offset[:, None] - slope[:, None] * columns[None], share[:, None])
            for share, offset, slope in zip(*ramps, strict=True)
        ]
    )


def _right_less_left(parts: list[Array] | Array) -> Array:
    """Subtract the sum of the first half of arrays from the sum of the second half."""
    half = len(parts) // 2
    return total(parts[half + i] - parts[i] for i in range(half))


def total(parts: Iterable[Array]) -> Array:
    """Sum arrays one by one.

    Args:
        parts: The arrays.

    Returns:
        Their sum.
    """
    return reduce(add, parts)


def clip(value: Array, top: Array | float) -> Array:
    """Clip values to [0, top], without the handling of NaN that makes `jnp.clip` three times as many instructions.

    Args:
        value: The values.
        top: The upper bound.

    Returns:
        The clipped values.
    """
    value = jnp.where(value < top, value, top)
    return jnp.where(value > 0, value, 0)
