"""Action distributions of stochastic policies: categorical for discrete actions, Gaussian for continuous ones.

A distribution is an array of its parameters, [..., K]: logits for discrete actions, mean and log standard deviation for
continuous ones. One array, so that `vmap` and any leading axes just work.
"""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from purejaxrl.types import ActionSpace, Discrete, ScalarKey

LOG_2_PI = math.log(2 * math.pi)


def distribution_size(space: ActionSpace) -> int:
    """Return K, the number of parameters of the distribution of one action of `space`."""
    return space.num_actions if isinstance(space, Discrete) else 2 * math.prod(space.shape)


def _assert_distribution(space: ActionSpace, distribution: Float[Array, "*batch K"]) -> None:
    """Raise AssertionError unless the last axis holds the parameters of a distribution over actions of `space`."""
    chex.assert_shape(
        distribution,
        (..., distribution_size(space)),
        custom_message="the last axis of distribution describes one action: a logit for each discrete one, or "
        "the means of a continuous one and then as many log standard deviations",
    )


def sample_action(space: ActionSpace, distribution: Float[Array, "*batch K"], key: ScalarKey) -> Num[Array, "..."]:
    """Sample one action from each distribution.

    Args:
        space: The environment's actions.
        distribution: Parameters of the distributions.
        key: Random key, consumed.

    Returns:
        Actions [*batch, *action]. Continuous ones may lie outside the bounds of `space`: environments clip them.
    """
    _assert_distribution(space, distribution)
    if isinstance(space, Discrete):
        return categorical_sample(key, distribution)
    action = gaussian_sample(key, *_mean_and_log_std(distribution))
    return action.reshape(*action.shape[:-1], *space.shape)


def greedy_action(space: ActionSpace, distribution: Float[Array, "*batch K"]) -> Num[Array, "..."]:
    """Return the mode of each distribution: the most probable action, or the mean of a Gaussian.

    Args:
        space: The environment's actions.
        distribution: Parameters of the distributions.

    Returns:
        Actions [*batch, *action].
    """
    _assert_distribution(space, distribution)
    if isinstance(space, Discrete):
        return jnp.argmax(distribution, axis=-1)
    mean, _ = _mean_and_log_std(distribution)
    return mean.reshape(*mean.shape[:-1], *space.shape)


def log_prob(
    space: ActionSpace, distribution: Float[Array, "*batch K"], action: Num[Array, "..."]
) -> Float[Array, "*batch"]:
    """Compute the log-probability of each action, or its log-density if actions are continuous.

    Args:
        space: The environment's actions.
        distribution: Parameters of the distributions.
        action: Actions [*batch, *action] as they were sampled, before the environment clips them.
    """
    _assert_distribution(space, distribution)
    if isinstance(space, Discrete):
        return categorical_log_prob(distribution, action)
    mean, log_std = _mean_and_log_std(distribution)
    chex.assert_shape(
        action,
        (*mean.shape[:-1], ...),
        custom_message="action has the leading axes of distribution, [*batch, K], and then those of one action",
    )
    return gaussian_log_prob(mean, log_std, action.reshape(mean.shape))


def entropy(space: ActionSpace, distribution: Float[Array, "*batch K"]) -> Float[Array, "*batch"]:
    """Compute the entropy of each distribution, in nats.

    Args:
        space: The environment's actions.
        distribution: Parameters of the distributions.

    Returns:
        The entropy; of continuous actions the differential entropy, which may be negative.
    """
    _assert_distribution(space, distribution)
    if isinstance(space, Discrete):
        return categorical_entropy(distribution)
    return gaussian_entropy(_mean_and_log_std(distribution)[1])


def categorical_sample(key: ScalarKey, logits: Float[Array, "*batch A"]) -> Int[Array, "*batch"]:
    """Sample an action from each categorical distribution softmax(logits). Consumes `key`."""
    return jax.random.categorical(key, logits)


def categorical_log_prob(logits: Float[Array, "*batch A"], action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Compute log pi(a) of each action under softmax(logits).

    Args:
        logits: Unnormalized log-probabilities of A actions.
        action: Numbers of actions, from 0.

    >>> logits = jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
    >>> print(jnp.exp(categorical_log_prob(logits, jnp.array([1, 0]))))
    [0.75 0.5 ]
    """
    chex.assert_type(
        action, int, custom_message="action is the number of an action, from 0; for real ones see gaussian_log_prob"
    )
    chex.assert_is_broadcastable(
        logits.shape[:-1],
        action.shape,
        custom_message="action is [*batch] where logits are [*batch, A]: one number per row of logits, without an axis "
        "of its own",
    )
    # Picked by a mask, not by indexing: the gradient of an index is a scatter, slow on CPU.
    chosen = action[..., None] == jnp.arange(logits.shape[-1]).reshape((1,) * action.ndim + (-1,))
    return jnp.sum(jnp.where(chosen, jax.nn.log_softmax(logits), 0.0), axis=-1)


def categorical_entropy(logits: Float[Array, "*batch A"]) -> Float[Array, "*batch"]:
    """Compute the entropy of softmax(logits) in nats: - sum_a pi(a) log pi(a).

    >>> print(categorical_entropy(jnp.zeros((1, 2))))  # log 2
    [0.6931472]
    """
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def _mean_and_log_std(
    distribution: Float[Array, "*batch K"],
) -> tuple[Float[Array, "*batch D"], Float[Array, "*batch D"]]:
    """Split the parameters of a Gaussian into the mean and the log standard deviation of its D dimensions."""
    mean, log_std = jnp.split(distribution, 2, axis=-1)
    return mean, log_std


def gaussian_sample(
    key: ScalarKey, mean: Float[Array, "*batch D"], log_std: Float[Array, "*batch D"]
) -> Float[Array, "*batch D"]:
    """Sample from Gaussians whose dimensions are independent: mean + std * noise. Consumes `key`."""
    chex.assert_is_broadcastable(
        log_std.shape,
        mean.shape,
        custom_message="mean has all axes of the sample, [*batch, D]; log_std may have fewer. "
        "With fewer axes of mean, several actions would share their noise",
    )
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)


def gaussian_log_prob(
    mean: Float[Array, "*batch D"], log_std: Float[Array, "*batch D"], action: Float[Array, "*batch D"]
) -> Float[Array, "*batch"]:
    """Compute the log-density of each action: - sum_d (((a_d - mean_d) / std_d)^2 / 2 + log std_d + log(2 pi) / 2).

    Args:
        mean: Mean of each of D dimensions.
        log_std: Log of the standard deviation of each dimension.
        action: Actions as they were sampled.
    """
    for parameter in (mean, log_std):
        chex.assert_is_broadcastable(
            parameter.shape,
            action.shape,
            custom_message="action is [*batch, D] as mean and log_std are; of one dimension it is [*batch, 1]",
        )
    deviation = (action - mean) * jnp.exp(-log_std)
    return -jnp.sum(0.5 * jnp.square(deviation) + log_std + 0.5 * LOG_2_PI, axis=-1)


def gaussian_entropy(log_std: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
    """Compute the differential entropy of a Gaussian in nats: sum_d (log std_d + (1 + log(2 pi)) / 2)."""
    return jnp.sum(log_std + 0.5 * (1.0 + LOG_2_PI), axis=-1)
