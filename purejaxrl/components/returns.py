"""Returns and advantages of time-major batches [T, N] in which episodes end by termination or by truncation.

Where an episode terminated nothing follows, and the value after it is 0. Where it was truncated, or the batch ends, it
would have gone on, so V of the true next observation stands for the rest. Nothing flows from one episode into another.
"""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def _assert_steps(
    reward: Float[Array, "T *N"],
    values: tuple[Float[Array, "T *N"], ...],
    terminated: Bool[Array, "T *N"],
    truncated: Bool[Array, "T *N"],
) -> None:
    """Raise AssertionError unless all arrays have the same shape, [T, *N], and the last two are booleans."""
    chex.assert_shape(reward, (None, ...), custom_message="reward is time-major, [T, N]: the first axis is time")
    chex.assert_equal_shape(
        [reward, *values],
        custom_message="rewards and values are time-major, [T, N], with one entry per step; "
        "value has none for the observation after the last step, whose value is next_value[-1]",
    )
    chex.assert_shape(
        [terminated, truncated],
        reward.shape,
        custom_message="terminated and truncated are time-major like reward, with one entry per step",
    )
    chex.assert_type(
        [terminated, truncated],
        bool,
        custom_message="terminated and truncated are booleans that say where an episode ended; "
        "a discount, such as gamma * (1 - terminated), is neither",
    )


def generalized_advantages(
    reward: Float[Array, "T N"],
    value: Float[Array, "T N"],
    next_value: Float[Array, "T N"],
    terminated: Bool[Array, "T N"],
    truncated: Bool[Array, "T N"],
    gamma: Float[Array, ""] | float,
    lam: Float[Array, ""] | float,
) -> Float[Array, "T N"]:
    """Compute generalized advantage estimates (GAE).

        delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
        A_t     = delta_t + gamma lam (1 - done_t) A_{t+1},   done = terminated or truncated,   A_T = 0

    See Schulman et al. 2016, arXiv:1506.02438, equations 11 and 16.

    Args:
        reward: r_t.
        value: V(s_t), of the observations acted on.
        next_value: V(s'_t), of the true next observations, before any reset.
        terminated: Whether the episode ended at step t and nothing follows.
        truncated: Whether the episode was cut at step t and would have gone on.
        gamma: Discount factor.
        lam: Weight of longer returns: 0 is the one-step TD error, 1 the Monte Carlo advantage.

    Returns:
        The advantages A_t.

    >>> reward, value, next_value = jnp.ones((2, 1)), jnp.array([[4.0], [3.0]]), jnp.array([[3.0], [2.0]])
    >>> no, at_last = jnp.zeros((2, 1), bool), jnp.array([[False], [True]])
    >>> print(generalized_advantages(reward, value, next_value, at_last, no, 1.0, 0.5).ravel())
    [-1. -2.]
    >>> print(generalized_advantages(reward, value, next_value, no, at_last, 1.0, 0.5).ravel())
    [0. 0.]
    """
    _assert_steps(reward, (value, next_value), terminated, truncated)
    delta = reward + gamma * jnp.where(terminated, 0.0, next_value) - value
    decay = gamma * lam * (1.0 - (terminated | truncated))

    def backward(advantage: Array, step: tuple[Array, Array]) -> tuple[Array, Array]:
        delta_t, decay_t = step
        advantage = delta_t + decay_t * advantage
        return advantage, advantage

    _, advantages = jax.lax.scan(backward, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)
    return advantages


def discounted_returns(
    reward: Float[Array, "T N"],
    next_value: Float[Array, "T N"],
    terminated: Bool[Array, "T N"],
    truncated: Bool[Array, "T N"],
    gamma: Float[Array, ""] | float,
) -> Float[Array, "T N"]:
    """Compute discounted returns-to-go, bootstrapped where an episode was truncated or the batch ends.

        R_t = r_t                    if terminated_t
        R_t = r_t + gamma V(s'_t)    if truncated_t or t = T - 1
        R_t = r_t + gamma R_{t+1}    otherwise

    This is the lambda-return (Sutton and Barto 2018, equation 12.18) with lambda = 1.

    Args:
        reward: r_t.
        next_value: V(s'_t), of the true next observations, before any reset; 0 everywhere for no bootstrapping.
        terminated: Whether the episode ended at step t and nothing follows.
        truncated: Whether the episode was cut at step t and would have gone on.
        gamma: Discount factor.

    Returns:
        The returns R_t.

    >>> reward, next_value = jnp.ones((3, 1)), jnp.array([[7.0], [8.0], [4.0]])
    >>> no, at_second = jnp.zeros((3, 1), bool), jnp.array([[False], [True], [False]])
    >>> print(discounted_returns(reward, next_value, at_second, no, gamma=0.5).ravel())
    [1.5 1.  3. ]
    >>> print(discounted_returns(reward, next_value, no, at_second, gamma=0.5).ravel())
    [3.5 5.  3. ]
    """
    _assert_steps(reward, (next_value,), terminated, truncated)
    bootstrap = reward + gamma * jnp.where(terminated, 0.0, next_value)
    done = terminated | truncated

    def backward(following: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        reward_t, bootstrap_t, done_t = step
        returns = jnp.where(done_t, bootstrap_t, reward_t + gamma * following)
        return returns, returns

    _, returns = jax.lax.scan(backward, next_value[-1], (reward, bootstrap, done), reverse=True)
    return returns
