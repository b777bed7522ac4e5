"""Preprocessing for learning: rendering images, normalizing observations and scaling rewards.

`config` is any Config with `normalize_observations` and `reward_scale`, and with the fields of `ImageConfig` where
observations are images.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import chex
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from purejaxrl.kernels.sparse_images import render, tile
from purejaxrl.types import Env

Batch = TypeVar("Batch", bound=Any)

# Farther than this from the mean, in standard deviations, an observation is clipped.
LIMIT = 10.0


class RunningStatistics(NamedTuple):
    """Running mean and variance of network inputs.

    Attributes:
        seen: Number of inputs so far.
        mean: Mean of each entry of an input, [*input].
        variance: Variance of each entry of an input, [*input].
    """

    seen: Float[Array, ""]
    mean: Float[Array, "*input"]
    variance: Float[Array, "*input"]


def init_statistics(config: Any, env: Env) -> RunningStatistics | None:
    """Create the running statistics before any observation.

    Args:
        config: The agent's hyperparameters.
        env: The environment.

    Returns:
        The statistics, None where observations are not normalized.
    """
    if not config.normalize_observations:
        return None
    return RunningStatistics(jnp.zeros(()), jnp.zeros(env.input_shape), jnp.ones(env.input_shape))


def update_statistics(statistics: RunningStatistics | None, inputs: Num[Array, "..."]) -> RunningStatistics | None:
    """Update running statistics with a batch of inputs (Chan, Golub and LeVeque 1983, equation 2.1).

        w    = n / (seen + n)
        mean <- mean + w delta,                         delta = mean of the batch - mean
        var  <- var + w (var of the batch - var) + w (1 - w) delta^2

    Beyond 2^24 inputs float32 no longer counts single ones; the statistics hardly move by then.

    Args:
        statistics: Statistics of all earlier inputs; None where observations are not normalized.
        inputs: Inputs before normalization, with any leading axes, [..., *input].

    Returns:
        The statistics of all inputs, or None.

    Raises:
        AssertionError: If the inputs have another shape than the statistics.
    """
    if statistics is None:
        return None
    _assert_input(statistics, inputs)
    batch = inputs.reshape(-1, *statistics.mean.shape)
    total = statistics.seen + batch.shape[0]
    weight = batch.shape[0] / total
    delta = jnp.mean(batch, axis=0) - statistics.mean
    spread = jnp.var(batch, axis=0) - statistics.variance
    return RunningStatistics(
        total,
        statistics.mean + weight * delta,
        statistics.variance + weight * spread + weight * (1 - weight) * jnp.square(delta),
    )


def _assert_input(statistics: RunningStatistics, inputs: Num[Array, "..."]) -> None:
    """Raise AssertionError unless inputs [..., *input] have the shape that the statistics are of."""
    chex.assert_shape(
        inputs,
        (..., *statistics.mean.shape),
        custom_message="inputs end in the axes of one input, env.input_shape, as the statistics do; "
        "observations of images are rendered first",
    )


def normalize(statistics: RunningStatistics | None, inputs: Num[Array, "..."]) -> Num[Array, "..."]:
    """Normalize inputs to (inputs - mean) / standard deviation, clipped to +-LIMIT.

    Args:
        statistics: Statistics to normalize by; None returns the inputs unchanged.
        inputs: With any leading axes, [..., *input].

    Returns:
        The normalized inputs, of the same shape.

    Raises:
        AssertionError: If the inputs have another shape than the statistics.
    """
    if statistics is None:
        return inputs
    _assert_input(statistics, inputs)
    lead = tuple(range(inputs.ndim - statistics.mean.ndim))
    mean, variance = (jnp.expand_dims(moment, lead) for moment in (statistics.mean, statistics.variance))
    return jnp.clip((inputs - mean) / jnp.sqrt(variance + 1e-8), -LIMIT, LIMIT)


def network_input(
    config: Any, env: Env, statistics: RunningStatistics | None, observation: Num[Array, "..."]
) -> Num[Array, "..."]:
    """Convert observations to network inputs: render images and normalize.

    Args:
        config: The agent's hyperparameters.
        env: The environment.
        statistics: Statistics to normalize by; None leaves the inputs as they are.
        observation: With any leading axes, [..., *observation].

    Returns:
        Network inputs, [..., *input].
    """
    if env.image_format is not None:
        observation = enhance(config, env.image_format.image(observation).render())
    return normalize(statistics, observation)


def enhance(config: Any, image: Float[Array, "*lead H W C"]) -> Float[Array, "*lead H W C"]:
    """Make a stack of frames easier to learn from by mapping a white background to 0 and amplifying motion.

    Of frames f_1 .. f_K, oldest first, the newest becomes its darkness 1 - f_K, and every older one
    motion_scale (f_k - f_K), what changed since. Without motion_scale all become their darkness.

    Args:
        config: The agent's hyperparameters, with `image`, `frames`, `channels` and `motion_scale`.
        image: Images [*lead, H, W, C] in [0, 1].

    Returns:
        The enhanced images, of the same shape; images that are not stacks are returned unchanged.

    Raises:
        AssertionError: If the last axis does not hold the frames that the config describes.
    """
    if config.image != "stack":
        return image
    if config.motion_scale is None:
        return 1.0 - image
    chex.assert_shape(
        image,
        (..., config.frames * config.channels),
        custom_message="a stack has its frames side by side in the last axis, each with its channels: the config must "
        "be the one that the environment was made with",
    )
    older, newest = jnp.split(image, [image.shape[-1] - config.channels], axis=-1)
    change = older - jnp.tile(newest, config.frames - 1)
    return jnp.concatenate([config.motion_scale * change, 1.0 - newest], axis=-1)


def preprocess(config: Any, env: Env, batch: Batch, *, is_step: bool = True, used_once: bool = False) -> Batch:
    """Scale the rewards of a batch and render its images; `normalize_batch` comes next.

    Args:
        config: The agent's hyperparameters.
        env: The environment.
        batch: A NamedTuple with observation and next_observation [..., *observation], and a reward.
        is_step: Whether next_observation comes one step after observation, so that they share frames, which are
            rendered once.
        used_once: Whether the batch is for one gradient step. Images may then be left to be rendered where the first
            layer multiplies them, where that is faster.

    Returns:
        The batch with network inputs [..., *input] in place of observations.

    Raises:
        AssertionError: If the two observations have different shapes.
    """
    observation, next_observation = batch.observation, batch.next_observation
    chex.assert_equal_shape(
        [observation, next_observation],
        custom_message="observation and next_observation have one entry per step",
    )
    batch = batch._replace(reward=config.reward_scale * batch.reward)
    if env.image_format is None:
        return batch
    if not is_step:
        inputs: Any = [enhance(config, env.image_format.image(x).render()) for x in (observation, next_observation)]
    else:
        inputs = env.image_format.step_images(observation, next_observation)
        is_multiplied = config.torso == "mlp" and config.network is None and not config.normalize_observations
        if used_once and is_multiplied and inputs[0].is_sparse:
            inputs = tile(*inputs)
        else:
            inputs = [enhance(config, image) for image in render(*inputs)]
    return batch._replace(observation=inputs[0], next_observation=inputs[1])


def normalize_batch(statistics: RunningStatistics | None, batch: Batch) -> Batch:
    """Normalize both observations of a batch that `preprocess` has returned.

    Args:
        statistics: Statistics to normalize by; None returns the batch unchanged.
        batch: A NamedTuple with observation and next_observation [..., *input].

    Returns:
        The batch with normalized observations.
    """
    if statistics is None:
        return batch
    return batch._replace(
        observation=normalize(statistics, batch.observation),
        next_observation=normalize(statistics, batch.next_observation),
    )
