"""Schedules over the fraction of the training budget that has been used."""

from __future__ import annotations

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float


def linear_to_zero(fraction: Float[Array, ""]) -> Float[Array, ""]:
    """Decrease linearly from 1 at the start of training to 0 at the end of the budget.

    Args:
        fraction: Share of the budget that has been used, in [0, 1], as `Progress.fraction`.

    Returns:
        1 - fraction, and 0 beyond the end of the budget.

    >>> print(linear_to_zero(jnp.float32(0.25)))
    0.75
    """
    chex.assert_type(
        fraction,
        float,
        custom_message="fraction is the share of the budget that is used, from 0 to 1, as Progress.fraction is; "
        "a count of steps or iterations is not",
    )
    return jnp.clip(1.0 - fraction, 0.0, 1.0)
