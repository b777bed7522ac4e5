"""Positions of the objects in gymnasium's image of CartPole, in whole pixels, and their colors.

gymnasium computes coordinates in float64 and pygame truncates them. Here they are sums of whole 1/4096 pixels and a
small float32 remainder, so that only the rounding of sin(theta) and 1 - cos(theta) counts, at most some 1e-5 pixels: a
corner lands on the neighboring pixel in about one image of 2,000,000 within the limits of the task, and in one of
70,000 over all angles.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# From gymnasium/envs/classic_control/cartpole.py: 600 columns show the 4.8 m between the limits.
COLUMNS = 600
PIXELS_PER_METRE = 125
CENTRE = 300
CART_HALF_WIDTH = 25
AXLE = 107.5
POLE_CORNERS = np.array([(-5, -5), (-5, 120), (5, 120), (5, -5)], np.int32)

POLE_COLOUR = np.array((202, 152, 101), np.uint8)
AXLE_COLOUR = np.array((129, 132, 203), np.uint8)

# Coordinates before truncation are whole units of 1/4096 pixel, products of whole numbers that int32 holds exactly.
UNITS_PER_PIXEL_BITS = 12
UNITS_PER_PIXEL = 1 << UNITS_PER_PIXEL_BITS

# pygame's Vector2 turns by a whole number of quarter turns where the angle is this close to one.
QUARTER_TURN_TOLERANCE = 1e-6
# Metres from the centre at which nothing can be seen; further out, whole numbers would overflow.
OUT_OF_SIGHT = 8.0


class Pixel(NamedTuple):
    """Position of a pixel, which may be off the image: its column from the left and its scanline from the bottom."""

    column: Int[Array, "..."]
    line: Int[Array, "..."]


def cart_columns(x: Float[Array, ""]) -> Int[Array, "3"]:
    """Compute the columns of the cart's left side, its middle and its right side.

    Args:
        x: Position of the cart in meters from the center.

    Returns:
        The columns [3]; ends included, the cart is 51 pixels wide.
    """
    return _pixel_columns(_within_sight(x), jnp.array([-CART_HALF_WIDTH, 0, CART_HALF_WIDTH]))


def _within_sight(x: Float[Array, ""]) -> Float[Array, ""]:
    """Clip a position so that whole numbers do not overflow, without moving a cart that is off the image onto it."""
    return jnp.clip(x, -OUT_OF_SIGHT, OUT_OF_SIGHT)


def _in_units(value: Float[Array, ""]) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Split a value exactly into whole units of 1/4096 and a remainder of at most half of one."""
    scaled = value * UNITS_PER_PIXEL
    whole = jnp.round(scaled)
    return whole.astype(jnp.int32), scaled - whole


def truncated(whole: Int[Array, "K"], rest: Float[Array, "K"]) -> Int[Array, "K"]:
    """Truncate coordinates to whole pixels, towards zero as in C.

    Args:
        whole: Whole units of 1/4096 pixel, [K].
        rest: Remainders in units of 1/4096 pixel, [K].

    Returns:
        The whole pixels of `whole + rest`, [K].
    """
    floor = (whole + jnp.floor(rest).astype(jnp.int32)) >> UNITS_PER_PIXEL_BITS
    ceiling = -((-whole + jnp.floor(-rest).astype(jnp.int32)) >> UNITS_PER_PIXEL_BITS)
    return jnp.where(floor < 0, ceiling, floor)


def _pixel_columns(x: Float[Array, ""], offset: Int[Array, "K"]) -> Int[Array, "K"]:
    """Compute the columns of points at given distances from the cart's middle."""
    whole, rest = _in_units(x)
    middle = PIXELS_PER_METRE * whole + CENTRE * UNITS_PER_PIXEL
    return truncated(middle + offset * UNITS_PER_PIXEL, jnp.broadcast_to(PIXELS_PER_METRE * rest, offset.shape))


def pole_corners(x: Float[Array, ""], theta: Float[Array, ""]) -> Pixel:
    """Compute the pole's corners: rotated by theta about the axle, then truncated to whole pixels.

    1 - cos(theta) is used in place of cos(theta), as float32 resolves it better for poles near upright.

    Args:
        x: Position of the cart in meters from the center.
        theta: Angle of the pole in radians, positive leaning right.

    Returns:
        The corners [4] in the order in which gymnasium draws them.
    """
    x = _within_sight(x)
    sine, versine = jnp.sin(theta), 2.0 * jnp.sin(theta / 2.0) ** 2
    is_quarter_turn = jnp.minimum(jnp.abs(sine), jnp.abs(1.0 - versine)) < QUARTER_TURN_TOLERANCE
    sine, versine = (jnp.where(is_quarter_turn, jnp.round(value), value) for value in (sine, versine))

    right, up = POLE_CORNERS.T
    (x_whole, x_rest), (sine_whole, sine_rest), (versine_whole, versine_rest) = map(_in_units, (x, sine, versine))
    column = truncated(
        PIXELS_PER_METRE * x_whole + (CENTRE + right) * UNITS_PER_PIXEL - right * versine_whole + up * sine_whole,
        PIXELS_PER_METRE * x_rest - right * versine_rest + up * sine_rest,
    )
    line = truncated(
        int(AXLE * UNITS_PER_PIXEL) + up * UNITS_PER_PIXEL - right * sine_whole - up * versine_whole,
        -right * sine_rest - up * versine_rest,
    )
    return Pixel(column, line)
