"""Separate networks for the policy and the value function, and the policy-gradient loss of actor-critic algorithms.

In all functions `config` is a Config that has the field `hidden_sizes` and extends `ImageConfig`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from purejaxrl.components import distributions
from purejaxrl.components.networks import MLP, ConvNet, GaussianHead, Headed, apply_network, init_network, network_of
from purejaxrl.types import Discrete, Env, PyTree, ScalarKey


def init_actor_critic(config: Any, env: Env, key: ScalarKey) -> tuple[PyTree, PyTree]:
    """Initialise the parameters of the policy and of the value function.

    Args:
        config: The hyperparameters of the networks.
        env: The environment, for its observations and actions.
        key: Random key, consumed.

    Returns:
        Parameters of the policy, and of V.
    """
    pi_key, v_key = jax.random.split(key)
    return (
        init_network(_policy_network(config, env), pi_key, env.input_shape),
        init_network(_value_network(config), v_key, env.input_shape),
    )


def _policy_network(config: Any, env: Env) -> MLP | ConvNet | Headed | GaussianHead:
    """Build the network of the policy.

    It computes logits for discrete actions, and for continuous ones the mean and a log standard deviation, which does
    not depend on the state.
    """
    size = distributions.distribution_size(env.action_space)
    if isinstance(env.action_space, Discrete):
        return network_of(config, size, "tanh")
    return GaussianHead(network_of(config, size // 2, "tanh"), size // 2)


def _value_network(config: Any) -> MLP | ConvNet | Headed:
    """Build the network of the value function, whose only output is V."""
    return network_of(config, 1, "tanh")


def action_distribution(config: Any, env: Env, pi_params: PyTree, inputs: Num[Array, "..."]) -> Float[Array, "... K"]:
    """Compute the parameters of pi(. | s).

    Args:
        config: The hyperparameters of the networks.
        env: The environment.
        pi_params: Parameters of the policy.
        inputs: Network inputs [..., *input].

    Returns:
        Parameters of the distributions, see `purejaxrl.components.distributions`.
    """
    return apply_network(_policy_network(config, env), pi_params, inputs, env.input_shape)


def state_value(config: Any, env: Env, v_params: PyTree, inputs: Num[Array, "..."]) -> Float[Array, "..."]:
    """Compute V(s).

    Args:
        config: The hyperparameters of the networks.
        env: The environment.
        v_params: Parameters of the value function.
        inputs: Network inputs [..., *input].
    """
    return apply_network(_value_network(config), v_params, inputs, env.input_shape)[..., 0]


def next_state_value(
    value_function: Callable[[Num[Array, "N ..."]], Float[Array, " N"]],
    value: Float[Array, "T N"],
    next_inputs: Num[Array, "T N ..."],
    truncated: Bool[Array, "T N"],
) -> Float[Array, "T N"]:
    """Compute V of the true next observations, evaluating the network only where `value` does not hold it already.

    The next observation is the one acted on next, so V(s'_t) = V(s_{t+1}), except where the episode is truncated or the
    batch ends. The network is evaluated for these few only: for the first left of every actor, until none is left.

    Args:
        value_function: Network inputs [N, *input] -> V [N].
        value: V(s_t), of the observations acted on.
        next_inputs: Network inputs [T, N, *input] of the true next observations s'_t.
        truncated: Whether the episode was cut at step t.

    Returns:
        V(s'_t); where step t terminates, any number.
    """
    chex.assert_rank(
        [value, truncated], 2, custom_message="value and truncated are time-major, [T, N]; of one actor they are [T, 1]"
    )
    chex.assert_equal_shape(
        [value, truncated],
        custom_message="value is V of the T observations acted on, with one entry for each of truncated, [T, N]; "
        "V of the observation after the last step is what this function computes",
    )
    chex.assert_shape(
        next_inputs,
        (*value.shape, ...),
        custom_message="next_inputs holds the next observation of every step, [T, N, *input], as the network takes it",
    )
    chex.assert_type(truncated, bool, custom_message="truncated is a boolean per step, not a discount")

    def evaluate_one(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        next_value, is_left = carry
        first = jnp.argmax(is_left, axis=0)
        is_first = is_left & (jnp.arange(len(value))[:, None] == first[None])
        inputs = jax.vmap(lambda of_actor, t: of_actor[t], in_axes=(1, 0))(next_inputs, first)
        return jnp.where(is_first, value_function(inputs), next_value), is_left & ~is_first

    start = (jnp.roll(value, -1, axis=0), truncated.at[-1].set(True))
    return jax.lax.while_loop(lambda carry: is_any(carry[1]), evaluate_one, start)[0]


@jax.custom_batching.custom_vmap
def is_any(condition: Bool[Array, "..."]) -> Bool[Array, ""]:
    """Check whether a condition holds anywhere, in any of the runs and workers under `jax.vmap` as well.

    A loop that goes on while it does is one loop for all of them: nothing has to be selected where one has ended
    earlier, and the checks of `--debug`, which know no other loops under `vmap`, can look into it.

    Args:
        condition: The condition, of any shape.

    Returns:
        Whether it holds, one answer for all.
    """
    return jnp.any(condition)


@is_any.def_vmap
def _is_any_of_all(axis_size: int, in_batched: list[bool], condition: Array) -> tuple[Array, bool]:
    return is_any(condition), False


def policy_gradient_loss(
    env: Env,
    distribution: Float[Array, "*batch K"],
    action: Num[Array, "..."],
    advantage: Float[Array, "*batch"],
    entropy_coef: Float[Array, ""] | float,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute a loss whose gradient is the policy gradient with an entropy bonus.

        loss = - mean(log pi(a|s) A) - entropy_coef H,   H = mean entropy of pi(.|s)

    See Sutton et al. 2000, theorem 1, with the advantage in place of Q, and Mnih et al. 2016, arXiv:1602.01783,
    section 4, for the entropy bonus.

    Args:
        env: The environment, for its actions.
        distribution: Parameters of pi(.|s).
        action: Actions [*batch, *action] that were taken.
        advantage: A, through which no gradient may flow.
        entropy_coef: Weight of the entropy bonus.

    Returns:
        The loss, and the mean entropy H in nats.
    """
    entropy = jnp.mean(distributions.entropy(env.action_space, distribution))
    log_prob = distributions.log_prob(env.action_space, distribution, action)
    chex.assert_shape(
        advantage,
        log_prob.shape,
        custom_message="advantage has one entry per action, as their log-probabilities have; "
        "with a trailing axis of 1 every advantage would be multiplied with every action's",
    )
    score = jnp.mean(log_prob * advantage)
    return -score - entropy_coef * entropy, entropy
