"""What agents learn from: observations drawn and normalised, rewards times a factor.

`config` is any Config with `normalize_observations` and `reward_scale`, and with the fields of `ImageConfig` where
observations are images.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from purejaxrl.kernels.sparse_images import ROWS
from purejaxrl.types import Env

Batch = TypeVar("Batch", bound=Any)

# Farther than this from the mean, in standard deviations, an observation is clipped.
LIMIT = 10.0


class Moments(NamedTuple):
    """Mean and variance [*input] of all inputs so far; `seen` counts them."""

    seen: Float[Array, ""]
    mean: Float[Array, "*input"]
    variance: Float[Array, "*input"]


def inputs_of(config: Any, env: Env, observation: Num[Array, "..."]) -> Num[Array, "..."]:
    """What a network is given of observations [..., *observation], before normalisation: [..., *input]."""
    return contrast(config, env.render(observation))


def contrast(config: Any, drawn: Num[Array, "..."]) -> Num[Array, "..."]:
    """Of a stack of frames f_1 .. f_K, each [..., H, W, C], the darkness 1 - f_K of the newest, so that a white
    background is 0, and every older frame as motion_scale (f_k - f_K): what changed since, enlarged. Without
    motion_scale the darkness of all. Other observations stay as they are.
    """
    if getattr(config, "image", None) != "stack":
        return drawn
    if config.motion_scale is None:
        return 1.0 - drawn
    chex.assert_shape(
        drawn,
        (..., config.frames * config.channels),
        custom_message="a stack has its frames side by side in the last axis, each with its channels, as env.render "
        "makes it: the config must be the one that the environment was made with",
    )
    older, newest = jnp.split(drawn, [drawn.shape[-1] - config.channels], axis=-1)
    change = older - jnp.tile(newest, config.frames - 1)
    return jnp.concatenate([config.motion_scale * change, 1.0 - newest], axis=-1)


def init_moments(config: Any, env: Env) -> Moments | None:
    """Before any observation; None where observations are not to be normalised."""
    if not config.normalize_observations:
        return None
    return Moments(jnp.zeros(()), jnp.zeros(env.input_shape), jnp.ones(env.input_shape))


def update_moments(moments: Moments | None, inputs: Num[Array, "..."]) -> Moments | None:
    """Count a batch of inputs [..., *input] in (Chan, Golub and LeVeque 1983, equation 2.1).

        w    = n / (seen + n)
        mean <- mean + w delta,                         delta = mean of the batch - mean
        var  <- var + w (var of the batch - var) + w (1 - w) delta^2

    Beyond 2^24 inputs float32 no longer counts single ones; the moments hardly move by then.
    """
    if moments is None:
        return None
    _assert_input(moments, inputs)
    batch = inputs.reshape(-1, *moments.mean.shape)
    total = moments.seen + batch.shape[0]
    weight = batch.shape[0] / total
    delta = jnp.mean(batch, axis=0) - moments.mean
    spread = jnp.var(batch, axis=0) - moments.variance
    return Moments(
        total,
        moments.mean + weight * delta,
        moments.variance + weight * spread + weight * (1 - weight) * jnp.square(delta),
    )


def _assert_input(moments: Moments, inputs: Num[Array, "..."]) -> None:
    """Raise AssertionError unless these are inputs [..., *input] of the kind that the moments are of."""
    chex.assert_shape(
        inputs,
        (..., *moments.mean.shape),
        custom_message="inputs end in the axes of one input, env.input_shape, as the moments do; "
        "observations of images are drawn first",
    )


def normalize(moments: Moments | None, inputs: Num[Array, "..."]) -> Num[Array, "..."]:
    """(inputs - mean) / standard deviation, within +-LIMIT; without moments the inputs themselves."""
    if moments is None:
        return inputs
    _assert_input(moments, inputs)
    lead = tuple(range(inputs.ndim - moments.mean.ndim))
    mean, variance = (jnp.expand_dims(moment, lead) for moment in (moments.mean, moments.variance))
    return jnp.clip((inputs - mean) / jnp.sqrt(variance + 1e-8), -LIMIT, LIMIT)


def perceive(config: Any, env: Env, moments: Moments | None, observation: Num[Array, "..."]) -> Num[Array, "..."]:
    """What a network is given of observations [..., *observation]: drawn and normalised, [..., *input]."""
    return normalize(moments, inputs_of(config, env, observation))


def draw(config: Any, env: Env, batch: Batch) -> Batch:
    """A batch of steps (a NamedTuple with observation and next_observation) with inputs in place of observations."""
    chex.assert_equal_shape(
        [batch.observation, batch.next_observation],
        custom_message="observation and next_observation have one entry per step",
    )
    observation, next_observation = env.render_step(batch.observation, batch.next_observation)
    return batch._replace(
        observation=contrast(config, observation), next_observation=contrast(config, next_observation)
    )


def draw_apart(config: Any, env: Env, batch: Batch) -> Batch:
    """The same where next_observation may lie several steps after observation."""
    return batch._replace(
        observation=inputs_of(config, env, batch.observation),
        next_observation=inputs_of(config, env, batch.next_observation),
    )


def draw_strips(env: Env, batch: Batch) -> Batch:
    """A batch of steps [B] with strips, which are not drawn yet, in place of observations; see `takes_strips`."""
    assert env.render_strips is not None
    observation, next_observation = env.render_strips(batch.observation, batch.next_observation)
    return batch._replace(observation=observation, next_observation=next_observation)


def takes_strips(config: Any, env: Env) -> bool:
    """Whether all that is done with pictures is to multiply them with the first layer's weights, a bundle or more."""
    is_mlp = config.torso == "mlp" and config.network is None
    is_worth_it = is_mlp and not config.normalize_observations and config.batch_size >= ROWS
    return env.render_strips is not None and is_worth_it


def prepare(config: Any, moments: Moments | None, batch: Batch) -> Batch:
    """A drawn batch, which has a reward too, as it is learned from."""
    batch = batch._replace(reward=config.reward_scale * batch.reward)
    if moments is None:
        return batch
    return batch._replace(
        observation=normalize(moments, batch.observation),
        next_observation=normalize(moments, batch.next_observation),
    )
