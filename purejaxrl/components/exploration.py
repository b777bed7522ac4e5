"""Exploration of value-based agents: epsilon-greedy actions and the schedule of epsilon."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from purejaxrl.types import ScalarKey


def epsilon_schedule(
    env_steps: Num[Array, "*steps"],
    start: Float[Array, ""] | float,
    end: Float[Array, ""] | float,
    rate: Float[Array, ""] | float,
) -> Float[Array, "*steps"]:
    """Decay the exploration rate exponentially: epsilon = end + (start - end) exp(-rate env_steps).

    Args:
        env_steps: Environment steps before the action at hand.
        start: Epsilon at step 0.
        end: Epsilon that is approached in the long run.
        rate: Decay rate, per environment step.

    Returns:
        Epsilon at each of the steps.

    >>> print(epsilon_schedule(jnp.array([0, 1000, 100_000]), start=1.0, end=0.01, rate=0.001).round(3))
    [1.    0.374 0.01 ]
    """
    return end + (start - end) * jnp.exp(-rate * env_steps)


def epsilon_greedy(key: ScalarKey, q_value: Float[Array, "N A"], epsilon: Float[Array, " N"]) -> Int[Array, " N"]:
    """Choose a uniformly random action with probability epsilon, and argmax_a Q(s, a) otherwise.

    Args:
        key: Random key, consumed.
        q_value: Q(s, a) of N actors and A actions.
        epsilon: Exploration rate of each actor, in [0, 1].

    Returns:
        The actions, int32.

    >>> q_value = jnp.array([[0.0, 1.0], [3.0, 2.0]])
    >>> print(epsilon_greedy(jax.random.key(0), q_value, epsilon=jnp.zeros(2)))
    [1 0]
    """
    chex.assert_shape(
        epsilon,
        q_value.shape[:-1],
        custom_message="epsilon has one entry per actor, [N], where q_value is [N, A]; "
        "with a single one all would explore at the same time: jnp.full(N, epsilon)",
    )
    # One uniform number decides both: below epsilon it is, divided by epsilon, uniform again, and picks the action.
    num_actions = q_value.shape[-1]
    uniform = jax.random.uniform(key, epsilon.shape)
    random_action = jnp.minimum((uniform / epsilon * num_actions).astype(jnp.int32), num_actions - 1)
    return jnp.where(uniform < epsilon, random_action, jnp.argmax(q_value, axis=-1).astype(jnp.int32))
