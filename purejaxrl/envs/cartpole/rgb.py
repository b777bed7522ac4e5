"""The image of CartPole as gymnasium draws it with `render_mode="rgb_array"`, as a pure function of the state.

gymnasium draws with pygame.gfxdraw, which is SDL_gfx: end points truncated to whole pixels, Wu's antialiased lines
(Wu 1991, "An efficient antialiasing technique") in 16-bit fixed point, a scanline fill, and colors mixed in whole
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
    """Render the image of CartPole that gymnasium draws.

    It equals gymnasium's CartPole `render()` pixel for pixel, also for carts off the image and poles at any angle,
    except where float32 takes a corner for its neighbor, see `scene`.

    Args:
        x: Position of the cart in meters from the center, [*lead].
        theta: Angle of the pole in radians, positive leaning right, [*lead].

    Returns:
        RGB images [*lead, 400, 600, 3], row 0 at the top.
    """
    return jnp.vectorize(_render_one, signature="(),()->(r,c,k)")(x, theta)


def _render_one(x: Float[Array, ""], theta: Float[Array, ""]) -> UInt8[Array, "400 600 3"]:
    """Render one image, starting with the fills, as shapes of one color may be drawn in any order."""
    cart = cart_columns(x)
    pole = pole_corners(x, theta)

    scene = jnp.where(_inside_cart(cart[0], cart[2]), BLACK, WHITE)
    scene = jnp.where(_inside_pole(pole), np.tile(POLE_COLOUR, COLUMNS)[None], scene)
    image = scene.reshape(ROWS, COLUMNS, 3)

    sides, opacities = jax.vmap(_antialiased_line)(pole, _next_corner(pole))
    for side in range(len(pole.column)):
        image = lay(image, Pixel(sides.column[side], sides.line[side]), opacities[side], POLE_COLOUR)

    axle = Pixel(cart[1] + AXLE_COLUMN, int(AXLE) + jnp.asarray(AXLE_LINE))
    image = lay(image, axle, jnp.asarray(AXLE_OPACITY), AXLE_COLOUR)
    return image.at[ROWS - 1 - TRACK].set(BLACK)


def _next_corner(corner: Pixel) -> Pixel:
    """Return for every corner of a polygon the one after it."""
    return Pixel(jnp.roll(corner.column, -1), jnp.roll(corner.line, -1))


def _scanlines() -> Int[Array, "400"]:
    """Return the scanline of each row of the image."""
    return ROWS - 1 - jnp.arange(ROWS)


def _inside_cart(left: Int[Array, ""], right: Int[Array, ""]) -> Bool[Array, "400 1800"]:
    """Compute which bytes of the image the cart covers.

    Its outline consists of straight lines and adds nothing to its fill.
    """
    is_line = jnp.abs(_scanlines() - TRACK) <= CART_HALF_HEIGHT
    return is_line[:, None] & ((left <= BYTE_COLUMN) & (right >= BYTE_COLUMN))[None]


def _inside_pole(corner: Pixel) -> Bool[Array, "400 1800"]:
    """Compute which bytes SDL_gfx's filledPolygon fills: on each scanline, all between the two sides that cross it.

    Crossings are in 16-bit fixed point. A side counts from its lower end up to, without, its upper end, except on the
    highest scanline.
    """
    other = _next_corner(corner)
    is_rising = corner.line < other.line
    low, high = choose(is_rising, corner, other), choose(is_rising, other, corner)
    low, high = jax.tree.map(lambda value: value[None], (low, high))
    line = _scanlines()[:, None]
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


def _antialiased_line(start: Pixel, end: Pixel) -> tuple[Pixel, Int[Array, "K"]]:
    """Compute the pixels and opacities of SDL_gfx's aaline without its end point; no pixel appears twice.

    Step by step along the longer axis, two neighboring pixels share 255 by the fraction of the position across; upright
    and level lines are opaque, ends included. The start is opaque. (For a level line that runs left SDL_gfx draws only
    the start; the fill covers the rest, and cutting at the border, truncated outwards, makes no new ones.)
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
    """Compute the opacity of an opaque color at a given weight, one less than the weight, as SDL_gfx divides by 256.

    Args:
        weight: Weights out of 255, [K].

    Returns:
        Opacities [K].
    """
    return (OPAQUE * weight) >> 8


def clipped(start: Pixel, end: Pixel) -> tuple[Pixel, Pixel, Bool[Array, ""]]:
    """Clip a line to the image's borders as SDL_gfx does, in float32 and truncated.

    Two cuts suffice: the pole is shorter than the image is wide, and never reaches its top.

    Args:
        start: First pixel of the line.
        end: Last pixel of the line.

    Returns:
        The new ends, of which the one that was cut comes first, and whether anything is left.
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
    """Check whether a pixel lies left of the image, right of it, or below it.

    Args:
        pixel: The pixel.

    Returns:
        The three answers, [3].
    """
    return jnp.stack((pixel.column < 0, pixel.column >= COLUMNS, pixel.line < 0))


def choose(is_first: Bool[Array, "..."], first: Pixel, second: Pixel) -> Pixel:
    """Select the first pixel where a condition is true, else the second.

    Args:
        is_first: The condition.
        first: Pixels selected where it is true.
        second: Pixels selected where it is false.

    Returns:
        The selected pixels.
    """
    return jax.tree.map(lambda a, b: jnp.where(is_first, a, b), first, second)


def lay(
    image: UInt8[Array, "400 600 3"], pixel: Pixel, opacity: Int[Array, "K"], colour: UInt8[np.ndarray, "3"]
) -> UInt8[Array, "400 600 3"]:
    """Blend a color into pixels of an image by opacity / 256, where 255 is opaque.

    Args:
        image: The image [400, 600, 3].
        pixel: The pixels [K]; those off the image are skipped.
        opacity: Opacities from 0 to 255, [K].
        colour: The RGB color [3].

    Returns:
        The image with the color.
    """
    is_laid = (opacity > 0) & (pixel.column >= 0) & (pixel.column < COLUMNS) & (pixel.line >= 0)
    row = jnp.where(is_laid, ROWS - 1 - pixel.line, ROWS)
    column = jnp.where(is_laid, pixel.column, 0)
    below = image.at[row, column].get(mode="fill", fill_value=0).astype(jnp.int32)
    above = colour.astype(np.int32)[None]
    mixed = jnp.where(opacity[:, None] == OPAQUE, above, below + ((above - below) * opacity[:, None] >> 8))
    return image.at[row, column].set(mixed.astype(jnp.uint8), mode="drop")
