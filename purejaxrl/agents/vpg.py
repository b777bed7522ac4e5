"""Vanilla policy gradient with a learned baseline and generalised advantage estimation.

One iteration is one epoch:

    collect steps_per_epoch steps with pi
    A  <- GAE(gamma, lam) from V, normalised over the epoch
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
from purejaxrl.components.hyperparameters import ImageConfig, Real, config, leaf, static
from purejaxrl.components.preprocessing import Moments, draw, init_moments, perceive, prepare, update_moments
from purejaxrl.components.returns import discounted_returns, generalized_advantages
from purejaxrl.components.schedules import linear_to_zero
from purejaxrl.errors import InputError
from purejaxrl.types import Agent, Env, Metrics, Progress, PyTree, ScalarKey, Transition


@config
class Config(ImageConfig):
    """Hyperparameters of VPG; the defaults are the preset `original`."""

    epochs: int | None = static(1200, "budget: iterations of collecting and learning", optional=True, at_least=1)
    env_steps: int | None = static(None, "budget: env steps of all actors, in whole epochs", optional=True, at_least=1)
    steps_per_epoch: int = static(4000, "env steps of all actors per epoch", at_least=1)
    actors: int = static(20, "parallel environments per run", at_least=1)
    max_ep_len: int | None = static(1000, "truncate episodes after this many steps", optional=True, at_least=1)
    gamma: Real = leaf(0.99, "discount", at_least=0, at_most=1)
    lam: Real = leaf(0.97, "GAE's lambda", at_least=0, at_most=1)
    pi_lr: Real = leaf(3e-4, "Adam step size of the policy", above=0)
    v_lr: Real = leaf(1e-3, "Adam step size of the value function", above=0)
    train_v_iters: int = static(80, "value steps per epoch", at_least=1)
    lr_anneal: bool = static(False, "let both step sizes fall linearly to 0 over the budget", kind=bool)
    entropy_coef: Real = leaf(0.0, "weight of the entropy bonus", at_least=0)
    reward_scale: Real = leaf(1.0, "what rewards are multiplied with for learning", above=0)
    normalize_observations: bool = static(False, "by their running mean and variance", kind=bool)
    hidden_sizes: tuple[int, ...] = static((32, 32), "hidden layers of pi and of V", length=0, at_least=1)


class Learner(NamedTuple):
    """Parameters and Adam's state of the policy and of the value function, and the moments of observations, if any."""

    pi_params: PyTree
    v_params: PyTree
    pi_opt_state: PyTree
    v_opt_state: PyTree
    moments: Moments | None


def check(config: Config, env: Env) -> None:
    """Raise InputError where fields contradict each other; any action space will do."""
    if config.steps_per_epoch % config.actors:
        raise InputError(
            f"--steps_per_epoch: {config.steps_per_epoch} is not divisible by --actors {config.actors}; "
            "every actor takes the same number of steps"
        )


def rollout_shape(config: Config) -> tuple[int, int]:
    """Steps and actors of one epoch."""
    return config.steps_per_epoch // config.actors, config.actors


def init(config: Config, env: Env, key: ScalarKey) -> Learner:
    """Fresh networks and optimisers. Consumes `key`."""
    pi_params, v_params = init_actor_critic(config, env, key)
    return Learner(
        pi_params,
        v_params,
        optax.adam(config.pi_lr).init(pi_params),
        optax.adam(config.v_lr).init(v_params),
        init_moments(config, env),
    )


def act(
    config: Config, env: Env, learner: Learner, observation: Num[Array, "N ..."], progress: Progress, key: ScalarKey
) -> Num[Array, "N ..."]:
    """Sample one action per actor from pi. Consumes `key`."""
    inputs = perceive(config, env, learner.moments, observation)
    return sample_action(env.action_space, action_distribution(config, env, learner.pi_params, inputs), key)


def policy(config: Config, env: Env, learner: Learner, observation: Num[Array, "..."]) -> Num[Array, "..."]:
    """The greedy action."""
    inputs = perceive(config, env, learner.moments, observation)
    return greedy_action(env.action_space, action_distribution(config, env, learner.pi_params, inputs))


def normalized_advantage(
    config: Config, batch: Transition, value: Float[Array, "T N"], next_value: Float[Array, "T N"]
) -> Float[Array, "T N"]:
    """GAE(gamma, lam) (Schulman et al. 2016, equation 16) from V(s) and V(s'), with mean 0 and deviation 1."""
    ending = (batch.terminated, batch.truncated)
    return standardize(generalized_advantages(batch.reward, value, next_value, *ending, config.gamma, config.lam))


def policy_loss(
    config: Config, env: Env, pi_params: PyTree, batch: Transition, advantage: Float[Array, "T N"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The policy-gradient loss with an entropy bonus, and the mean entropy."""
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
    """One epoch of learning from batch[T, N]: one policy step, `train_v_iters` value steps. `key` is not used.

    advantage, policy_loss: what a variant may put in place of the functions of this module that are so called.
    """
    drawn = draw(config, env, batch)
    moments = update_moments(learner.moments, drawn.observation)
    batch = prepare(config, learner.moments, drawn)
    value = state_value(config, env, learner.v_params, batch.observation)
    next_value = state_value(config, env, learner.v_params, batch.next_observation)
    returns = discounted_returns(batch.reward, next_value, batch.terminated, batch.truncated, config.gamma)
    anneal = linear_to_zero(progress.fraction) if config.lr_anneal else 1.0

    (pi_loss, entropy), gradient = jax.value_and_grad(policy_loss, argnums=2, has_aux=True)(
        config, env, learner.pi_params, batch, advantage(config, batch, value, next_value)
    )
    step, pi_opt_state = optax.adam(config.pi_lr * anneal).update(gradient, learner.pi_opt_state)
    pi_params = optax.apply_updates(learner.pi_params, step)

    def value_step(carry: tuple[PyTree, PyTree], _: None) -> tuple[tuple[PyTree, PyTree], Array]:
        v_params, v_opt_state = carry
        loss, gradient = jax.value_and_grad(value_loss, argnums=2)(config, env, v_params, batch, returns)
        step, v_opt_state = optax.adam(config.v_lr * anneal).update(gradient, v_opt_state)
        return (optax.apply_updates(v_params, step), v_opt_state), loss

    (v_params, v_opt_state), v_losses = jax.lax.scan(
        value_step, (learner.v_params, learner.v_opt_state), length=config.train_v_iters
    )
    metrics = {"pi_loss": pi_loss, "v_loss": v_losses[0], "entropy": entropy, "value_mean": jnp.mean(value)}
    return Learner(pi_params, v_params, pi_opt_state, v_opt_state, moments), metrics


def value_loss(
    config: Config, env: Env, v_params: PyTree, batch: Transition, returns: Float[Array, "T N"]
) -> Float[Array, ""]:
    """mean((V(s) - R)^2)."""
    return jnp.mean(jnp.square(state_value(config, env, v_params, batch.observation) - returns))


def standardize(advantage: Float[Array, "T N"]) -> Float[Array, "T N"]:
    """Mean 0 and standard deviation 1 over the batch."""
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
    summary="Vanilla policy gradient with a learned baseline and generalised advantage estimation",
)
