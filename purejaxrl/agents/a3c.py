"""Asynchronous advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783, algorithm S3), made deterministic.

Parameters theta = (pi, V) and one optimiser are shared; every worker w has a copy theta_w. One iteration is one round:

    every worker, side by side:
        collect t_max steps with theta_w
        A   <- GAE(gamma, lam) from V of theta_w;  lam = 1 are the n-step returns of the paper
        R   <- A + V(s)
        g_w <- gradient at theta_w of  -mean(log pi(a|s) A) - entropy_coef H + value_coef mean((V(s) - R)^2)
    one worker after another, in a fixed or a random order:
        theta   <- optimiser step with g_w
        theta_w <- theta, at every sync_every-th of the worker's rounds

A rollout depends on nothing but theta_w (and moments of observations, if asked for, which change between rounds only),
so this is exactly what workers taking turns would do. The delay of a gradient is the number of updates made to theta
since theta_w was taken. In mode `async` every actor is a worker, in mode `sync` all actors together are one, so that
the gradient is their average: advantage actor-critic, A2C.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int, Num, Shaped

from purejaxrl.components.actor_critic import (
    action_distribution,
    init_actor_critic,
    next_state_value,
    policy_gradient_loss,
    state_value,
)
from purejaxrl.components.distributions import greedy_action, sample_action
from purejaxrl.components.hyperparameters import ImageConfig, Real, config, leaf, static
from purejaxrl.components.preprocessing import Moments, draw, init_moments, perceive, prepare, update_moments
from purejaxrl.components.returns import generalized_advantages
from purejaxrl.components.schedules import linear_to_zero
from purejaxrl.types import Agent, Env, Metrics, Progress, PyTree, ScalarKey, Transition


@config
class Config(ImageConfig):
    """Hyperparameters of A3C; the defaults are the preset `original`."""

    episodes: int | None = static(10_000, "budget: finished episodes of every run", optional=True, at_least=1)
    env_steps: int | None = static(None, "budget: env steps of all actors, in whole rounds", optional=True, at_least=1)
    actors: int = static(16, "parallel environments per run; in mode async each is a worker", at_least=1)
    t_max: int = static(200, "steps of every actor per update", at_least=1)
    sync_every: int = static(1, "a worker takes fresh parameters at every so many of its updates", at_least=1)
    mode: str = static("async", "gradients one after another, or (sync) averaged", choices=("async", "sync"))
    order: str = static("fixed", "who goes first; random: drawn anew each round", choices=("fixed", "random"))
    max_ep_len: int | None = static(None, "truncate episodes after this many steps", optional=True, at_least=1)
    gamma: Real = leaf(0.99, "discount", at_least=0, at_most=1)
    lam: Real = leaf(0.95, "GAE's lambda; 1: n-step returns", at_least=0, at_most=1)
    optimizer: str = static("adam", "its statistics are shared by all workers", choices=("adam", "rmsprop"))
    lr: Real = leaf(1e-3, "step size", above=0)
    lr_anneal: bool = static(False, "let the step size fall linearly to 0 over the budget", kind=bool)
    rmsprop_decay: Real = leaf(0.99, "share of the mean square that RMSProp keeps", at_least=0, at_most=1)
    rmsprop_eps: Real = leaf(1e-8, "added to the mean square, under the root (PyTorch adds it outside)", above=0)
    entropy_coef: Real = leaf(0.0, "weight of the entropy bonus", at_least=0)
    value_coef: Real = leaf(0.5, "weight of the value loss", at_least=0)
    max_grad_norm: Real | None = leaf(
        None, "scale every applied gradient down to this norm; in async each worker's own", optional=True, above=0
    )
    reward_scale: Real = leaf(1.0, "what rewards are multiplied with for learning", above=0)
    normalize_observations: bool = static(False, "by their running mean and variance", kind=bool)
    hidden_sizes: tuple[int, ...] = static((32, 32), "hidden layers of pi and of V", length=0, at_least=1)


class Theta(NamedTuple):
    """Parameters of the policy and of the value function."""

    pi: PyTree
    v: PyTree


class Learner(NamedTuple):
    """theta and its optimiser; the workers' copies [W, ...], and the number of updates to theta when each was taken.

    The optimiser sees theta as one vector: a step is then one pass over it, not one per layer.
    """

    theta: Theta
    opt_state: PyTree
    worker_theta: Theta
    taken_at: Int[Array, " W"]
    moments: Moments | None


def check(config: Config, env: Env) -> None:
    """Every combination of fields is allowed, and any action space."""


def rollout_shape(config: Config) -> tuple[int, int]:
    """Steps and actors of one round."""
    return config.t_max, config.actors


def workers(config: Config) -> int:
    """W: every actor is a worker, or all together are one."""
    return config.actors if config.mode == "async" else 1


def init(config: Config, env: Env, key: ScalarKey) -> Learner:
    """Fresh networks, a copy for every worker, and a fresh optimiser. Consumes `key`."""
    theta = Theta(*init_actor_critic(config, env, key))
    return Learner(
        theta,
        make_optimizer(config).init(as_vector(theta)),
        jax.tree.map(lambda leaf: jnp.repeat(leaf[None], workers(config), axis=0), theta),
        jnp.zeros(workers(config), jnp.int32),
        init_moments(config, env),
    )


def act(
    config: Config, env: Env, learner: Learner, observation: Num[Array, "N ..."], progress: Progress, key: ScalarKey
) -> Num[Array, "N ..."]:
    """Sample one action per actor, each from its worker's own policy. Consumes `key`."""
    inputs = perceive(config, env, learner.moments, observation)
    per_worker = inputs.reshape(workers(config), -1, *env.input_shape)
    distribution = jax.vmap(partial(action_distribution, config, env))(learner.worker_theta.pi, per_worker)
    return sample_action(env.action_space, distribution.reshape(observation.shape[0], -1), key)


def policy(config: Config, env: Env, learner: Learner, observation: Num[Array, "..."]) -> Num[Array, "..."]:
    """The greedy action under theta."""
    inputs = perceive(config, env, learner.moments, observation)
    return greedy_action(env.action_space, action_distribution(config, env, learner.theta.pi, inputs))


def loss(config: Config, env: Env, theta: Theta, batch: Transition) -> tuple[Float[Array, ""], Metrics]:
    """-mean(log pi(a|s) A) - entropy_coef H + value_coef mean((V(s) - R)^2) over a worker's batch[T, n]."""
    value = state_value(config, env, theta.v, batch.observation)
    baseline = jax.lax.stop_gradient(value)
    value_of = partial(state_value, config, env, jax.lax.stop_gradient(theta.v))
    next_value = next_state_value(value_of, baseline, batch.next_observation, batch.truncated)
    ending = (batch.terminated, batch.truncated)
    advantage = generalized_advantages(batch.reward, baseline, next_value, *ending, config.gamma, config.lam)
    returns = advantage + baseline

    distribution = action_distribution(config, env, theta.pi, batch.observation)
    pi_loss, entropy = policy_gradient_loss(env, distribution, batch.action, advantage, config.entropy_coef)
    v_loss = jnp.mean(jnp.square(value - returns))
    metrics = {"pi_loss": pi_loss, "v_loss": v_loss, "entropy": entropy, "value_mean": jnp.mean(value)}
    return pi_loss + config.value_coef * v_loss, metrics


def update(
    config: Config,
    env: Env,
    learner: Learner,
    batch: Transition,
    progress: Progress,
    key: ScalarKey,
    loss: Callable[..., tuple[Array, Metrics]] = loss,
) -> tuple[Learner, Metrics]:
    """One round of learning from batch[T, N]: W gradients, applied one after another. Consumes `key`."""
    count = workers(config)
    drawn = draw(config, env, batch)
    shares = jax.tree.map(partial(split_actors, count), prepare(config, learner.moments, drawn))
    gradient, metrics = jax.vmap(jax.grad(partial(loss, config, env), has_aux=True))(learner.worker_theta, shares)

    order = jax.random.permutation(key, count) if config.order == "random" else jnp.arange(count)
    optimizer = make_optimizer(config, linear_to_zero(progress.fraction) if config.lr_anneal else 1.0)
    gradient = jax.vmap(as_vector)(gradient)
    theta, as_theta = ravel_pytree(learner.theta)
    opt_state, after_turn = take_turns(optimizer, theta, learner.opt_state, gradient[order])

    turn_of = jnp.argsort(order)
    updates = (progress.iteration * count + turn_of).astype(jnp.int32)
    fresh = (jax.vmap(as_theta)(after_turn[turn_of]), updates + 1)
    kept = (learner.worker_theta, learner.taken_at)
    is_taking = (progress.iteration + 1) % config.sync_every == 0
    worker_theta, taken_at = jax.tree.map(partial(jnp.where, is_taking), fresh, kept)

    moments = update_moments(learner.moments, drawn.observation)
    metrics = jax.tree.map(jnp.mean, metrics) | {"delay": updates - learner.taken_at}
    return Learner(as_theta(after_turn[-1]), opt_state, worker_theta, taken_at, moments), metrics


def take_turns(
    optimizer: optax.GradientTransformation,
    theta: Float[Array, " P"],
    opt_state: PyTree,
    gradients: Float[Array, "W P"],
) -> tuple[PyTree, Float[Array, "W P"]]:
    """Apply gradients one after another; the optimiser's state after the last, and theta after each."""

    def turn(carry: tuple[Array, PyTree], gradient: Array) -> tuple[tuple[Array, PyTree], Array]:
        theta, opt_state = carry
        step, opt_state = optimizer.update(gradient, opt_state)
        theta = optax.apply_updates(theta, step)
        return (theta, opt_state), theta

    (_, opt_state), after_turn = jax.lax.scan(turn, (theta, opt_state), gradients)
    return opt_state, after_turn


def as_vector(theta: PyTree) -> Float[Array, " P"]:
    """All parameters as one vector."""
    return ravel_pytree(theta)[0]


def split_actors(workers: int, leaf: Shaped[Array, "T N ..."]) -> Shaped[Array, "W T n ..."]:
    """Each worker's share of a batch, the workers in front."""
    return jnp.moveaxis(leaf.reshape(leaf.shape[0], workers, -1, *leaf.shape[2:]), 1, 0)


def make_optimizer(config: Config, anneal: Float[Array, ""] | float = 1.0) -> optax.GradientTransformation:
    """RMSProp as the paper has it, lr g / sqrt(mean square + eps), or Adam; after clipping, where that is asked for."""
    if config.optimizer == "rmsprop":
        step = optax.rmsprop(config.lr * anneal, decay=config.rmsprop_decay, eps=config.rmsprop_eps, eps_in_sqrt=True)
    else:
        step = optax.adam(config.lr * anneal)
    if config.max_grad_norm is None:
        return step
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), step)


agent = Agent(
    "a3c",
    Config,
    check,
    rollout_shape,
    init,
    act,
    policy,
    update,
    summary="Asynchronous advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783), made deterministic",
)
