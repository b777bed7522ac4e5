"""The image of CartPole as gymnasium draws it with `render_mode="rgb_array"`, as a pure function of the state.

gymnasium draws with pygame.gfxdraw, which is SDL_gfx: end points truncated to whole pixels, Wu's antialiased lines
(Wu 1991, "An efficient antialiasing technique") in 16-bit fixed point, a scanline fill, and colours mixed in whole
numbers. The same arithmetic here gives the same pixels. SDL counts scanlines from the top, and gymnasium turns its
image over when done; here scanline 0 is the bottom one from the start.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from purejaxrl.envs.cartpole.scene import AXLE, AXLE_COLOUR, COLUMNS, POLE_COLOUR, Pixel, cart_columns, pole_corners

ROWS = 400
TRACK = 100
CART_HALF_HEIGHT = 15
BLACK, WHITE = np.uint8(0), np.uint8(255)
# Fills compare the bytes of a row, not its pixels: XLA's CPU code is twice as fast without an innermost axis of 3.
BYTE_COLUMN = np.repeat(np.arange(COLUMNS, dtype=np.int32), 3)

OPAQUE = 255
# Opacity of the axle by distance from its centre, down in scanlines and across in columns: aacircle of radius 5 under
# filled_circle, which leaves only the outermost scanlines antialiased.
AXLE_QUARTER = np.array(
    [
        (255, 255, 255, 255, 255, 255),
        (255, 255, 255, 255, 255, 255),
        (255, 255, 255, 255, 255, 255),
        (255, 255, 255, 255, 255, 0),
        (255, 255, 255, 255, 0, 0),
        (255, 229, 152, 0, 0, 0),
    ],
    np.int32,
)
AXLE_LINE, AXLE_COLUMN = np.mgrid[-5:6, -5:6].reshape(2, -1).astype(np.int32)
AXLE_OPACITY = AXLE_QUARTER[abs(AXLE_LINE), abs(AXLE_COLUMN)]

# The longer sides of the pole have 125 pixels, and either end moves by less than one when truncated.
LONGEST_SIDE = 127

FIXED_POINT_BITS = 16
FIXED_POINT_HALF = 1 << (FIXED_POINT_BITS - 1)
BEYOND = 2**31 - 1


def render_rgb(x: Float[Array, "*lead"], theta: Float[Array, "*lead"]) -> UInt8[Array, "*lead 400 600 3"]:
    """Render the cart at `x` metres from the centre with its pole at `theta` radians, positive leaning right.

    Returns RGB images, row 0 at the top: gymnasium's CartPole `render()` pixel for pixel, also for carts off the
    image and poles at any angle, but where float32 takes a corner for its neighbour, see `cartpole_scene`.
    """
    return jnp.vectorize(render_one, signature="(),()->(r,c,k)")(x, theta)


def render_one(x: Float[Array, ""], theta: Float[Array, ""]) -> UInt8[Array, "400 600 3"]:
    """One image. Shapes of one colour commute, so that the fills, which cover most, are laid down first."""
    cart = cart_columns(x)
    pole = pole_corners(x, theta)

    scene = jnp.where(inside_cart(cart[0], cart[2]), BLACK, WHITE)
    scene = jnp.where(inside_pole(pole), np.tile(POLE_COLOUR, COLUMNS)[None], scene)
    image = scene.reshape(ROWS, COLUMNS, 3)

    sides, opacities = jax.vmap(antialiased_line)(pole, next_corner(pole))
    for side in range(len(pole.column)):
        image = lay(image, Pixel(sides.column[side], sides.line[side]), opacities[side], POLE_COLOUR)

    axle = Pixel(cart[1] + AXLE_COLUMN, int(AXLE) + jnp.asarray(AXLE_LINE))
    image = lay(image, axle, jnp.asarray(AXLE_OPACITY), AXLE_COLOUR)
    return image.at[ROWS - 1 - TRACK].set(BLACK)


def next_corner(corner: Pixel) -> Pixel:
    """For every corner of a polygon the one after it."""
    return Pixel(jnp.roll(corner.column, -1), jnp.roll(corner.line, -1))


def scanlines() -> Int[Array, "400"]:
    """The scanline of each row."""
    return ROWS - 1 - jnp.arange(ROWS)


def inside_cart(left: Int[Array, ""], right: Int[Array, ""]) -> Bool[Array, "400 1800"]:
    """The bytes of the cart, ends included. Its outline, all straight lines, adds nothing to its fill."""
    is_line = jnp.abs(scanlines() - TRACK) <= CART_HALF_HEIGHT
    return is_line[:, None] & ((left <= BYTE_COLUMN) & (right >= BYTE_COLUMN))[None]


def inside_pole(corner: Pixel) -> Bool[Array, "400 1800"]:
    """The bytes that SDL_gfx's filledPolygon fills: on each scanline, all between the two sides that cross it.

    Crossings are in 16-bit fixed point. A side counts from its lower end up to, without, its upper end, except on the
    highest scanline.
    """
    other = next_corner(corner)
    is_rising = corner.line < other.line
    low, high = choose(is_rising, corner, other), choose(is_rising, other, corner)
    low, high = jax.tree.map(lambda value: value[None], (low, high))
    line = scanlines()[:, None]
    share = ((line - low.line) << FIXED_POINT_BITS) // jnp.maximum(high.line - low.line, 1)
    crossing = share * (high.column - low.column) + (low.column << FIXED_POINT_BITS)
    is_top = (line == jnp.max(high.line)) & (line > low.line)
    is_crossed = (line >= low.line) & ((line < high.line) | (is_top & (line == high.line)))

    first = jnp.min(jnp.where(is_crossed, crossing, BEYOND), axis=1) + (FIXED_POINT_HALF + 1)
    last = jnp.max(jnp.where(is_crossed, crossing, -BEYOND), axis=1) + (FIXED_POINT_HALF - 1)
    ends = jnp.stack((first, last)) >> FIXED_POINT_BITS
    left, right = jnp.min(ends, axis=0)[:, None], jnp.max(ends, axis=0)[:, None]
    is_between = (left <= BYTE_COLUMN[None]) & (right >= BYTE_COLUMN[None])
    return is_between & jnp.any(is_crossed, axis=1)[:, None]


def antialiased_line(start: Pixel, end: Pixel) -> tuple[Pixel, Int[Array, "K"]]:
    """SDL_gfx's aaline without its end point: the pixels of a line, none of them twice, and their opacities.

    Step by step along the longer axis, two neighbouring pixels share 255 by the fraction of the position across;
    upright and level lines are opaque, ends included. The start is opaque. (Of a level line that runs left SDL_gfx
    draws only the start; the fill covers the rest, and cutting at the border, truncated outwards, makes no new ones.)
    """
    start, end, is_seen = clipped(start, end)
    is_falling = start.line > end.line
    low, high = choose(is_falling, end, start), choose(is_falling, start, end)
    run, rise = high.column - low.column, high.line - low.line
    is_steep, direction = rise > jnp.abs(run), jnp.sign(run)
    length, drift = jnp.maximum(jnp.abs(run), rise), jnp.minimum(jnp.abs(run), rise)

    step = jnp.arange(LONGEST_SIDE + 1)
    position = step * ((drift << FIXED_POINT_BITS) // jnp.maximum(length, 1))
    across, weight = position >> FIXED_POINT_BITS, (position >> 8) & OPAQUE
    is_drawn = jnp.where(drift > 0, (step > 0) & (step < length), step <= length)
    near = jnp.where(is_drawn, jnp.where(drift > 0, weighted(OPAQUE - weight), OPAQUE), 0)
    far = jnp.where(is_drawn, weighted(weight), 0)

    column = low.column + direction * jnp.where(is_steep, across, step)
    line = low.line + jnp.where(is_steep, step, across)
    pixels = Pixel(
        jnp.concatenate((start.column[None], column, column + jnp.where(is_steep, direction, 0))),
        jnp.concatenate((start.line[None], line, line + jnp.where(is_steep, 0, 1))),
    )
    return pixels, jnp.where(is_seen, jnp.concatenate((jnp.full(1, OPAQUE), near, far)), 0)


def weighted(weight: Int[Array, "K"]) -> Int[Array, "K"]:
    """The opacity of an opaque colour at that weight, out of 255: one less, as SDL_gfx divides by 256."""
    return (OPAQUE * weight) >> 8


def clipped(start: Pixel, end: Pixel) -> tuple[Pixel, Pixel, Bool[Array, ""]]:
    """Cut a line at the image's borders as SDL_gfx does, in float32 and truncated; and whether anything is left.

    Two cuts suffice: the pole is shorter than the image is wide, and never reaches its top. The end that is cut
    becomes the start.
    """
    for _ in range(2):
        is_swapped = ~jnp.any(outside(start))
        first, second = choose(is_swapped, end, start), choose(is_swapped, start, end)
        run = (second.column - first.column).astype(jnp.float32)
        rise = (second.line - first.line).astype(jnp.float32)
        slope = jnp.where(run == 0.0, 1.0, rise / jnp.where(run == 0.0, 1.0, run))

        border = jnp.clip(first.column, 0, COLUMNS - 1)
        at_side = Pixel(border, first.line + ((border - first.column) * slope).astype(jnp.int32))
        shift = jnp.where(run == 0.0, 0.0, -first.line / jnp.where(slope == 0.0, 1.0, slope))
        at_bottom = Pixel(first.column + shift.astype(jnp.int32), jnp.zeros_like(first.line))

        cut = choose(border != first.column, at_side, at_bottom)
        is_whole = ~jnp.any(outside(start) | outside(end))
        is_away = jnp.any(outside(start) & outside(end))
        start, end = choose(is_whole | is_away, start, cut), choose(is_whole | is_away, end, second)
    return start, end, ~jnp.any(outside(start) | outside(end))


def outside(pixel: Pixel) -> Bool[Array, "3"]:
    """Whether a pixel lies left of the image, right of it, below it."""
    return jnp.stack((pixel.column < 0, pixel.column >= COLUMNS, pixel.line < 0))


def choose(is_first: Bool[Array, "..."], first: Pixel, second: Pixel) -> Pixel:
    """The first pixel where true, else the second."""
    return jax.tree.map(lambda a, b: jnp.where(is_first, a, b), first, second)


def lay(
    image: UInt8[Array, "400 600 3"], pixel: Pixel, opacity: Int[Array, "K"], colour: UInt8[np.ndarray, "3"]
) -> UInt8[Array, "400 600 3"]:
    """Mix a colour into the pixels by opacity / 256, 255 covering; what is off the image or has opacity 0 stays."""
    is_laid = (opacity > 0) & (pixel.column >= 0) & (pixel.column < COLUMNS) & (pixel.line >= 0)
    row = jnp.where(is_laid, ROWS - 1 - pixel.line, ROWS)
    column = jnp.where(is_laid, pixel.column, 0)
    below = image.at[row, column].get(mode="fill", fill_value=0).astype(jnp.int32)
    above = colour.astype(np.int32)[None]
    mixed = jnp.where(opacity[:, None] == OPAQUE, above, below + ((above - below) * opacity[:, None] >> 8))
    return image.at[row, column].set(mixed.astype(jnp.uint8), mode="drop")
