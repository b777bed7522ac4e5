"""What agents learn from: observations by their running mean and variance, rewards by a factor.

`config` is any Config with `normalize_observations` and `reward_scale`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from purejaxrl.types import Env

Batch = TypeVar("Batch", bound=Any)

# Farther than this from the mean, in standard deviations, an observation is clipped.
LIMIT = 10.0


class Moments(NamedTuple):
    """Mean and variance [*observation] of all observations so far; `seen` counts them."""

    seen: Float[Array, ""]
    mean: Float[Array, "*observation"]
    variance: Float[Array, "*observation"]


def init_moments(config: Any, env: Env) -> Moments | None:
    """Before any observation; None where observations are not to be normalised."""
    if not config.normalize_observations:
        return None
    return Moments(jnp.zeros(()), jnp.zeros(env.observation_shape), jnp.ones(env.observation_shape))


def update_moments(moments: Moments | None, observation: Num[Array, "..."]) -> Moments | None:
    """Count a batch of observations [..., *observation] in (Chan, Golub and LeVeque 1983, equation 2.1).

        w    = n / (seen + n)
        mean <- mean + w delta,                         delta = mean of the batch - mean
        var  <- var + w (var of the batch - var) + w (1 - w) delta^2

    Beyond 2^24 observations float32 no longer counts single ones; the moments hardly move by then.
    """
    if moments is None:
        return None
    batch = observation.reshape(-1, *moments.mean.shape)
    total = moments.seen + batch.shape[0]
    weight = batch.shape[0] / total
    delta = jnp.mean(batch, axis=0) - moments.mean
    spread = jnp.var(batch, axis=0) - moments.variance
    return Moments(
        total,
        moments.mean + weight * delta,
        moments.variance + weight * spread + weight * (1 - weight) * jnp.square(delta),
    )


def normalize(moments: Moments | None, observation: Num[Array, "..."]) -> Num[Array, "..."]:
    """(observation - mean) / standard deviation, within +-LIMIT; without moments the observation itself."""
    if moments is None:
        return observation
    lead = tuple(range(observation.ndim - moments.mean.ndim))
    mean, variance = (jnp.expand_dims(moment, lead) for moment in (moments.mean, moments.variance))
    return jnp.clip((observation - mean) / jnp.sqrt(variance + 1e-8), -LIMIT, LIMIT)


def prepare(config: Any, moments: Moments | None, batch: Batch) -> Batch:
    """A batch (a NamedTuple with observation, next_observation and reward) as it is learned from."""
    return batch._replace(
        observation=normalize(moments, batch.observation),
        next_observation=normalize(moments, batch.next_observation),
        reward=config.reward_scale * batch.reward,
    )
