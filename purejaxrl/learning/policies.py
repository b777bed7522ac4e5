"""How actions are drawn: categorical policies, and epsilon-greedy with its schedule."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from purejaxrl.errors import InputError
from purejaxrl.types import Discrete, Env, ScalarKey


def num_actions(env: Env) -> int:
    """The number of discrete actions. Raises InputError where actions are continuous."""
    if not isinstance(env.action_space, Discrete):
        raise InputError(f"--env: {env.name} has continuous actions; this algorithm takes discrete ones")
    return env.action_space.num_actions


def categorical_sample(key: ScalarKey, logits: Float[Array, "*batch A"]) -> Int[Array, "*batch"]:
    """Draw an action from softmax(logits). Consumes `key`."""
    return jax.random.categorical(key, logits)


def categorical_log_prob(logits: Float[Array, "*batch A"], action: Int[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Log pi(a) under softmax(logits).

    The entry is picked by a mask, not by indexing: the gradient of an index is a scatter, slow on CPU.
    """
    chosen = action[..., None] == jnp.arange(logits.shape[-1]).reshape((1,) * action.ndim + (-1,))
    return jnp.sum(jnp.where(chosen, jax.nn.log_softmax(logits), 0.0), axis=-1)


def categorical_entropy(logits: Float[Array, "*batch A"]) -> Float[Array, "*batch"]:
    """- sum_a pi(a) log pi(a), in nats, under softmax(logits)."""
    log_probs = jax.nn.log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def epsilon_at(
    env_steps: Num[Array, "*steps"],
    start: Float[Array, ""] | float,
    end: Float[Array, ""] | float,
    rate: Float[Array, ""] | float,
) -> Float[Array, "*steps"]:
    """Exploration rate: end + (start - end) exp(-rate env_steps), env_steps counted before the action."""
    return end + (start - end) * jnp.exp(-rate * env_steps)


def epsilon_greedy(key: ScalarKey, q_value: Float[Array, "N A"], epsilon: Float[Array, " N"]) -> Int[Array, " N"]:
    """With probability epsilon a uniformly random action, else argmax_a Q(s, a). Consumes `key`.

    One uniform number decides both: below epsilon it is, divided by epsilon, again uniform and picks the action.
    """
    num_actions = q_value.shape[-1]
    uniform = jax.random.uniform(key, epsilon.shape)
    random_action = jnp.minimum((uniform / epsilon * num_actions).astype(jnp.int32), num_actions - 1)
    return jnp.where(uniform < epsilon, random_action, jnp.argmax(q_value, axis=-1).astype(jnp.int32))
