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

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Num

from purejaxrl.config import Real, config, leaf, static
from purejaxrl.errors import InputError
from purejaxrl.learning.networks import MLP, apply_network, init_network
from purejaxrl.learning.policies import categorical_entropy, categorical_log_prob, categorical_sample, num_actions
from purejaxrl.learning.returns import discounted_returns, generalized_advantages
from purejaxrl.learning.schedules import linear_to_zero
from purejaxrl.types import Agent, Env, Metrics, Progress, PyTree, ScalarKey, Transition


@config
class Config:
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
    hidden_sizes: tuple[int, ...] = static((32, 32), "hidden layers of pi and of V", length=0, at_least=1)


class Learner(NamedTuple):
    """Parameters and Adam's state of the policy and of the value function."""

    pi_params: PyTree
    v_params: PyTree
    pi_opt_state: PyTree
    v_opt_state: PyTree


def check(config: Config, env: Env) -> None:
    """Raise InputError where fields contradict each other, or VPG cannot act in the environment."""
    if config.steps_per_epoch % config.actors:
        raise InputError(
            f"--steps_per_epoch: {config.steps_per_epoch} is not divisible by --actors {config.actors}; "
            "every actor takes the same number of steps"
        )
    num_actions(env)


def rollout_shape(config: Config) -> tuple[int, int]:
    """Steps and actors of one epoch."""
    return config.steps_per_epoch // config.actors, config.actors


def init(config: Config, env: Env, key: ScalarKey) -> Learner:
    """Fresh networks and optimisers. Consumes `key`."""
    pi_key, v_key = jax.random.split(key)
    pi_params = init_network(policy_network(config, env), pi_key, env.observation_shape)
    v_params = init_network(value_network(config), v_key, env.observation_shape)
    return Learner(
        pi_params,
        v_params,
        optax.adam(config.pi_lr).init(pi_params),
        optax.adam(config.v_lr).init(v_params),
    )


def act(
    config: Config, env: Env, learner: Learner, observation: Num[Array, "N ..."], progress: Progress, key: ScalarKey
) -> Int[Array, " N"]:
    """Sample one action per actor from pi. Consumes `key`."""
    return categorical_sample(key, policy_logits(config, env, learner.pi_params, observation))


def policy(config: Config, env: Env, learner: Learner, observation: Num[Array, "..."]) -> Int[Array, "..."]:
    """The most probable action."""
    return jnp.argmax(policy_logits(config, env, learner.pi_params, observation), axis=-1)


def update(
    config: Config, env: Env, learner: Learner, batch: Transition, progress: Progress, key: ScalarKey
) -> tuple[Learner, Metrics]:
    """One epoch of learning from batch[T, N]: one policy step, `train_v_iters` value steps. `key` is not used."""
    value = state_value(config, env, learner.v_params, batch.observation)
    next_value = state_value(config, env, learner.v_params, batch.next_observation)
    ending = (batch.terminated, batch.truncated)
    advantage = generalized_advantages(batch.reward, value, next_value, *ending, config.gamma, config.lam)
    advantage = normalize(advantage)
    returns = discounted_returns(batch.reward, next_value, *ending, config.gamma)
    anneal = linear_to_zero(progress.fraction) if config.lr_anneal else 1.0

    (pi_loss, entropy), gradient = jax.value_and_grad(policy_loss, argnums=2, has_aux=True)(
        config, env, learner.pi_params, batch, advantage
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
    return Learner(pi_params, v_params, pi_opt_state, v_opt_state), metrics


def policy_loss(
    config: Config, env: Env, pi_params: PyTree, batch: Transition, advantage: Float[Array, "T N"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """-mean(log pi(a|s) A) - entropy_coef H, whose gradient is the policy gradient; and the mean entropy H."""
    logits = policy_logits(config, env, pi_params, batch.observation)
    entropy = jnp.mean(categorical_entropy(logits))
    score = jnp.mean(categorical_log_prob(logits, batch.action) * advantage)
    return -score - config.entropy_coef * entropy, entropy


def value_loss(
    config: Config, env: Env, v_params: PyTree, batch: Transition, returns: Float[Array, "T N"]
) -> Float[Array, ""]:
    """mean((V(s) - R)^2)."""
    return jnp.mean(jnp.square(state_value(config, env, v_params, batch.observation) - returns))


def normalize(advantage: Float[Array, "T N"]) -> Float[Array, "T N"]:
    """Mean 0 and standard deviation 1 over the batch."""
    return (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)


def policy_network(config: Config, env: Env) -> MLP:
    """Logits of the actions."""
    return MLP(config.hidden_sizes, num_actions(env), "tanh")


def value_network(config: Config) -> MLP:
    """The baseline V."""
    return MLP(config.hidden_sizes, 1, "tanh")


def policy_logits(config: Config, env: Env, pi_params: PyTree, observation: Num[Array, "..."]) -> Float[Array, "... A"]:
    """Unnormalised log-probabilities of the actions."""
    return apply_network(policy_network(config, env), pi_params, observation, env.observation_shape)


def state_value(config: Config, env: Env, v_params: PyTree, observation: Num[Array, "..."]) -> Float[Array, "..."]:
    """V(s)."""
    return apply_network(value_network(config), v_params, observation, env.observation_shape)[..., 0]


agent = Agent("vpg", Config, check, rollout_shape, init, act, policy, update)
