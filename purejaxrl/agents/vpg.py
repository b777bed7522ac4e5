"""Vanilla policy gradient with a learned baseline and generalized advantage estimation.

One iteration is one epoch:

    collect steps_per_epoch steps with pi
    A  <- GAE(gamma, lam) from V, normalized over the epoch
    pi <- one Adam step on  -mean(log pi(a|s) A) - entropy_coef H(pi)
    R  <- discounted returns, bootstrapped where an episode was truncated or cut
    V  <- train_v_iters Adam steps on  mean((V(s) - R)^2)

Sutton et al. 2000 (policy gradient theorem); Schulman et al. 2016, arXiv:1506.02438 (GAE).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num

from purejaxrl.components.actor_critic import action_distribution, init_actor_critic, policy_gradient_loss, state_value
from purejaxrl.components.distributions import greedy_action, sample_action
from purejaxrl.components.hyperparameters import ImageConfig, Real, budget, config, leaf, static
from purejaxrl.components.preprocessing import (
    RunningStatistics,
    init_statistics,
    network_input,
    normalize_batch,
    preprocess,
    update_statistics,
)
from purejaxrl.components.returns import discounted_returns, generalized_advantages
from purejaxrl.errors import InputError
from purejaxrl.types import ActorOutput, Agent, Env, Learner, Metrics, Progress, PyTree, ScalarKey, Transition


@config
class Config(ImageConfig):
    """Hyperparameters of VPG; the defaults are the preset `original`."""

    epochs: int | None = budget(1200, "iterations of collecting and learning")
    env_steps: int | None = budget(None, "env steps of all actors, in whole epochs")
    steps_per_epoch: int = static(4000, "env steps of all actors per epoch", at_least=1)
    actors: int = static(20, "parallel environments per run", at_least=1)
    max_ep_len: int | None = static(1000, "truncate episodes after this many steps", optional=True, at_least=1)
    gamma: Real = leaf(0.99, "discount", at_least=0, at_most=1)
    lam: Real = leaf(0.97, "GAE's lambda", at_least=0, at_most=1)
    pi_lr: Real = leaf(3e-4, "Adam learning rate of the policy", above=0)
    v_lr: Real = leaf(1e-3, "Adam learning rate of the value function", above=0)
    train_v_iters: int = static(80, "value steps per epoch", at_least=1)
    lr_anneal: bool = static(False, "let both learning rates fall linearly to 0 over the budget", kind=bool)
    entropy_coef: Real = leaf(0.0, "weight of the entropy bonus", at_least=0)
    reward_scale: Real = leaf(1.0, "what rewards are multiplied with for learning", above=0)
    normalize_observations: bool = static(False, "by their running mean and variance", kind=bool)
    hidden_sizes: tuple[int, ...] = static((32, 32), "hidden layers of pi and of V", length=0, at_least=1)


class Params(NamedTuple):
    """Parameters of the policy and the value function, and the statistics of observations, None if not normalized."""

    pi: PyTree
    v: PyTree
    statistics: RunningStatistics | None


class Optimizers(NamedTuple):
    """States of the Adam optimizers of the policy and of the value function."""

    pi: PyTree
    v: PyTree


def check(config: Config, env: Env) -> None:
    """Check that the hyperparameters are consistent; any action space is allowed.

    Args:
        config: The hyperparameters.
        env: The environment.

    Raises:
        InputError: If fields contradict each other.
    """
    if config.steps_per_epoch % config.actors:
        raise InputError(
            f"--steps_per_epoch: {config.steps_per_epoch} is not divisible by --actors {config.actors}; "
            "every actor takes the same number of steps"
        )


def rollout_shape(config: Config) -> tuple[int, int]:
    """Return the number of steps and actors per epoch.

    Args:
        config: The hyperparameters.

    Returns:
        (T, N), the steps and actors of one epoch.
    """
    return config.steps_per_epoch // config.actors, config.actors


def init(config: Config, env: Env, key: ScalarKey) -> Learner:
    """Initialize the networks and their optimizers.

    Args:
        config: The hyperparameters.
        env: The environment.
        key: A random key, which is consumed.

    Returns:
        The learner.
    """
    pi_params, v_params = init_actor_critic(config, env, key)
    optimizers = Optimizers(optax.adam(config.pi_lr).init(pi_params), optax.adam(config.v_lr).init(v_params))
    return Learner(Params(pi_params, v_params, init_statistics(config, env)), optimizers)


def act(
    config: Config,
    env: Env,
    learner: Learner,
    observation: Num[Array, "N ..."],
    carry: tuple[()],
    progress: Progress,
    key: ScalarKey,
) -> ActorOutput:
    """Sample one action per actor from the policy.

    Args:
        config: The hyperparameters.
        env: The environment.
        learner: The learner.
        observation: Observations of the N actors, [N, ...].
        carry: Not used.
        progress: Not used.
        key: A random key, which is consumed.

    Returns:
        Actions [N, ...].
    """
    inputs = network_input(config, env, learner.params.statistics, observation)
    distribution = action_distribution(config, env, learner.params.pi, inputs)
    return ActorOutput(sample_action(env.action_space, distribution, key))


def policy(
    config: Config, env: Env, params: Params, observation: Num[Array, "..."], carry: tuple[()] = ()
) -> ActorOutput:
    """Select the most likely actions.

    Args:
        config: The hyperparameters.
        env: The environment.
        params: The learner's params.
        observation: Observations with any leading axes.
        carry: Not used.

    Returns:
        Actions with the same leading axes.
    """
    inputs = network_input(config, env, params.statistics, observation)
    return ActorOutput(greedy_action(env.action_space, action_distribution(config, env, params.pi, inputs)))


def normalized_advantage(
    config: Config, batch: Transition, value: Float[Array, "T N"], next_value: Float[Array, "T N"]
) -> Float[Array, "T N"]:
    """Compute GAE(gamma, lam) (Schulman et al. 2016, equation 16), normalized to mean 0 and standard deviation 1.

    Args:
        config: The hyperparameters.
        batch: Transitions [T, N, ...].
        value: V(s) [T, N].
        next_value: V(s') [T, N].

    Returns:
        Advantages [T, N].
    """
    ending = (batch.terminated, batch.truncated)
    return standardize(generalized_advantages(batch.reward, value, next_value, *ending, config.gamma, config.lam))


def policy_loss(
    config: Config, env: Env, pi_params: PyTree, batch: Transition, advantage: Float[Array, "T N"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute the policy-gradient loss with an entropy bonus.

    Args:
        config: The hyperparameters.
        env: The environment.
        pi_params: Parameters of the policy.
        batch: Transitions [T, N, ...], with network inputs in place of observations.
        advantage: Advantages [T, N].

    Returns:
        The loss, and the mean entropy of the policy.
    """
    distribution = action_distribution(config, env, pi_params, batch.observation)
    return policy_gradient_loss(env, distribution, batch.action, advantage, config.entropy_coef)


def update(
    config: Config,
    env: Env,
    learner: Learner,
    batch: Transition,
    progress: Progress,
    key: ScalarKey,
    advantage: Callable[..., Array] = normalized_advantage,
    policy_loss: Callable[..., tuple[Array, Array]] = policy_loss,
) -> tuple[Learner, Metrics]:
    """Learn from one epoch: take one policy step and `train_v_iters` value steps.

    Args:
        config: The hyperparameters.
        env: The environment.
        learner: The learner.
        batch: Transitions [T, N, ...].
        progress: How much of its budget the run has used.
        key: Not used.
        advantage: Function that computes the advantages; a variant of the algorithm may replace it.
        policy_loss: Loss of the policy; a variant of the algorithm may replace it.

    Returns:
        The learner, and metrics by name.
    """
    params, optimizers = learner.params, learner.optimizer
    inputs = preprocess(config, env, batch)
    statistics = update_statistics(params.statistics, inputs.observation)
    batch = normalize_batch(params.statistics, inputs)
    value = state_value(config, env, params.v, batch.observation)
    next_value = state_value(config, env, params.v, batch.next_observation)
    returns = discounted_returns(batch.reward, next_value, batch.terminated, batch.truncated, config.gamma)
    anneal = progress.remaining if config.lr_anneal else 1.0

    (pi_loss, entropy), gradient = jax.value_and_grad(policy_loss, argnums=2, has_aux=True)(
        config, env, params.pi, batch, advantage(config, batch, value, next_value)
    )
    step, pi_opt_state = optax.adam(config.pi_lr * anneal).update(gradient, optimizers.pi)
    pi_params = optax.apply_updates(params.pi, step)

    def value_step(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], Array]:
        v_params, v_opt_state = carry
        loss, gradient = jax.value_and_grad(value_loss, argnums=2)(config, env, v_params, batch, returns)
        step, v_opt_state = optax.adam(config.v_lr * anneal).update(gradient, v_opt_state)
        return (optax.apply_updates(v_params, step), v_opt_state), loss

    (v_params, v_opt_state), v_losses = jax.lax.scan(value_step, (params.v, optimizers.v), length=config.train_v_iters)
    metrics = {"pi_loss": pi_loss, "v_loss": v_losses[0], "entropy": entropy, "value_mean": jnp.mean(value)}
    return Learner(Params(pi_params, v_params, statistics), Optimizers(pi_opt_state, v_opt_state)), metrics


def value_loss(
    config: Config, env: Env, v_params: PyTree, batch: Transition, returns: Float[Array, "T N"]
) -> Float[Array, ""]:
    """Compute the mean squared error mean((V(s) - R)^2) of the value function.

    Args:
        config: The hyperparameters.
        env: The environment.
        v_params: Parameters of the value function.
        batch: Transitions [T, N, ...], with network inputs in place of observations.
        returns: Returns R [T, N].

    Returns:
        The loss.
    """
    return jnp.mean(jnp.square(state_value(config, env, v_params, batch.observation) - returns))


def standardize(advantage: Float[Array, "T N"]) -> Float[Array, "T N"]:
    """Shift and scale advantages to mean 0 and standard deviation 1 over the batch.

    Args:
        advantage: Advantages [T, N].

    Returns:
        The standardized advantages [T, N].
    """
    return (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)


agent = Agent(
    "vpg",
    Config,
    check,
    rollout_shape,
    init,
    act,
    policy,
    update,
    summary="Vanilla policy gradient with a learned baseline and generalized advantage estimation",
)
