"""Schedules over the fraction of the budget that has been used."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def linear_to_zero(fraction: Float[Array, ""]) -> Float[Array, ""]:
    """1 at the start, 0 at the end of the budget and beyond.

    >>> print(linear_to_zero(jnp.float32(0.25)))
    0.75
    """
    return jnp.clip(1.0 - fraction, 0.0, 1.0)
