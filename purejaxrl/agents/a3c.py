"""Asynchronous advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783, algorithm S3), made deterministic.

Parameters theta = (pi, V) and one optimizer are shared; every worker w has a copy theta_w. One iteration is one round:

    every worker, side by side:
        collect t_max steps with theta_w
        A   <- GAE(gamma, lam) from V of theta_w;  lam = 1 are the n-step returns of the paper
        R   <- A + V(s)
        g_w <- gradient at theta_w of  -mean(log pi(a|s) A) - entropy_coef H + value_coef mean((V(s) - R)^2)
    one worker after another, in a fixed or a random order:
        theta   <- optimizer step with g_w
        theta_w <- theta, at every sync_every-th of the worker's rounds

A rollout depends on nothing but theta_w (and running statistics of observations, which change between rounds only),
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
from purejaxrl.components.hyperparameters import ImageConfig, Real, budget, config, leaf, static
from purejaxrl.components.preprocessing import (
    RunningStatistics,
    init_statistics,
    network_input,
    normalize_batch,
    preprocess,
    update_statistics,
)
from purejaxrl.components.returns import generalized_advantages
from purejaxrl.types import ActorOutput, Agent, Env, Learner, Metrics, Progress, PyTree, ScalarKey, Transition


@config
class Config(ImageConfig):
    """Hyperparameters of A3C; the defaults are the preset `original`."""

    episodes: int | None = budget(10_000, "finished episodes of every run")
    env_steps: int | None = budget(None, "env steps of all actors, in whole rounds")
    actors: int = static(16, "parallel environments per run; in mode async each is a worker", at_least=1)
    t_max: int = static(200, "steps of every actor per update", at_least=1)
    sync_every: int = static(1, "a worker takes fresh parameters at every so many of its updates", at_least=1)
    mode: str = static("async", "gradients one after another, or (sync) averaged", choices=("async", "sync"))
    order: str = static("fixed", "who goes first; random: drawn anew each round", choices=("fixed", "random"))
    max_ep_len: int | None = static(None, "truncate episodes after this many steps", optional=True, at_least=1)
    gamma: Real = leaf(0.99, "discount", at_least=0, at_most=1)
    lam: Real = leaf(0.95, "GAE's lambda; 1: n-step returns", at_least=0, at_most=1)
    optimizer: str = static("adam", "its statistics are shared by all workers", choices=("adam", "rmsprop"))
    lr: Real = leaf(1e-3, "learning rate", above=0)
    lr_anneal: bool = static(False, "let the learning rate fall linearly to 0 over the budget", kind=bool)
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
    """Parameters of the policy and of the value function, the theta of the paper."""

    pi: PyTree
    v: PyTree


class Params(NamedTuple):
    """Parameters of the policy and the value function, and the statistics of observations, None if not normalized."""

    pi: PyTree
    v: PyTree
    statistics: RunningStatistics | None


class Workers(NamedTuple):
    """The workers' copies of theta.

    Attributes:
        theta: One copy per worker, [W, ...].
        taken_at: Number of updates that theta had received when each copy was taken, [W].
    """

    theta: Theta
    taken_at: Int[Array, " W"]


def check(config: Config, env: Env) -> None:
    """Accept every combination of hyperparameters and any action space.

    Args:
        config: The hyperparameters.
        env: The environment.
    """


def rollout_shape(config: Config) -> tuple[int, int]:
    """Return the number of steps and actors per round.

    Args:
        config: The hyperparameters.

    Returns:
        (T, N), the steps and actors of one round.
    """
    return config.t_max, config.actors


def workers(config: Config) -> int:
    """Return the number of workers: every actor is one in mode async, all actors together are one in mode sync.

    Args:
        config: The hyperparameters.

    Returns:
        W, the number of workers.
    """
    return config.actors if config.mode == "async" else 1


def init(config: Config, env: Env, key: ScalarKey) -> Learner:
    """Initialize the networks, a copy of them for every worker, and the optimizer.

    The optimizer sees theta as one vector: a step is then one pass over it, not one per layer.

    Args:
        config: The hyperparameters.
        env: The environment.
        key: A random key, which is consumed.

    Returns:
        The learner.
    """
    theta = Theta(*init_actor_critic(config, env, key))
    copies = jax.tree.map(lambda leaf: jnp.repeat(leaf[None], workers(config), axis=0), theta)
    return Learner(
        Params(theta.pi, theta.v, init_statistics(config, env)),
        make_optimizer(config).init(as_vector(theta)),
        extra=Workers(copies, jnp.zeros(workers(config), jnp.int32)),
    )


def act(
    config: Config,
    env: Env,
    learner: Learner,
    observation: Num[Array, "N ..."],
    carry: tuple[()],
    progress: Progress,
    key: ScalarKey,
) -> ActorOutput:
    """Sample one action per actor, each from its worker's own policy.

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
    per_worker = inputs.reshape(workers(config), -1, *env.input_shape)
    distribution = jax.vmap(partial(action_distribution, config, env))(learner.extra.theta.pi, per_worker)
    return ActorOutput(sample_action(env.action_space, distribution.reshape(observation.shape[0], -1), key))


def policy(
    config: Config, env: Env, params: Params, observation: Num[Array, "..."], carry: tuple[()] = ()
) -> ActorOutput:
    """Select the most likely actions under theta.

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


def loss(config: Config, env: Env, theta: Theta, batch: Transition) -> tuple[Float[Array, ""], Metrics]:
    """Compute -mean(log pi(a|s) A) - entropy_coef H + value_coef mean((V(s) - R)^2) over a worker's batch.

    Args:
        config: The hyperparameters.
        env: The environment.
        theta: Parameters of the policy and of the value function.
        batch: Transitions [T, n, ...] of the worker's n actors, with network inputs in place of observations.

    Returns:
        The loss, and metrics by name.
    """
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
    """Learn from one round: compute W gradients and apply them one after another.

    Args:
        config: The hyperparameters.
        env: The environment.
        learner: The learner.
        batch: Transitions [T, N, ...].
        progress: How much of its budget the run has used.
        key: A random key, which is consumed.
        loss: Loss of a worker's batch; a variant of the algorithm may replace it.

    Returns:
        The learner, and metrics by name.
    """
    count, copies, statistics = workers(config), learner.extra, learner.params.statistics
    inputs = preprocess(config, env, batch)
    shares = jax.tree.map(partial(split_actors, count), normalize_batch(statistics, inputs))
    gradient, metrics = jax.vmap(jax.grad(partial(loss, config, env), has_aux=True))(copies.theta, shares)

    order = jax.random.permutation(key, count) if config.order == "random" else jnp.arange(count)
    optimizer = make_optimizer(config, progress.remaining if config.lr_anneal else 1.0)
    gradient = jax.vmap(as_vector)(gradient)
    theta, as_theta = ravel_pytree(Theta(learner.params.pi, learner.params.v))
    opt_state, after_turn = take_turns(optimizer, theta, learner.optimizer, gradient[order])

    turn_of = jnp.argsort(order)
    updates = (progress.iteration * count + turn_of).astype(jnp.int32)
    fresh = Workers(jax.vmap(as_theta)(after_turn[turn_of]), updates + 1)
    is_taking = (progress.iteration + 1) % config.sync_every == 0
    metrics = jax.tree.map(jnp.mean, metrics) | {"delay": updates - copies.taken_at}
    copies = jax.tree.map(partial(jnp.where, is_taking), fresh, copies)

    theta = as_theta(after_turn[-1])
    params = Params(theta.pi, theta.v, update_statistics(statistics, inputs.observation))
    return Learner(params, opt_state, extra=copies), metrics


def take_turns(
    optimizer: optax.GradientTransformation,
    theta: Float[Array, " P"],
    opt_state: PyTree,
    gradients: Float[Array, "W P"],
) -> tuple[PyTree, Float[Array, "W P"]]:
    """Apply gradients one after another.

    Args:
        optimizer: The optimizer.
        theta: All parameters as one vector, [P].
        opt_state: State of the optimizer.
        gradients: One gradient per turn, [W, P].

    Returns:
        The optimizer's state after the last turn, and theta after each turn, [W, P].
    """

    def turn(carry: tuple[Array, PyTree], gradient: Array) -> tuple[tuple[Array, PyTree], Array]:
        theta, opt_state = carry
        step, opt_state = optimizer.update(gradient, opt_state)
        theta = optax.apply_updates(theta, step)
        return (theta, opt_state), theta

    (_, opt_state), after_turn = jax.lax.scan(turn, (theta, opt_state), gradients)
    return opt_state, after_turn


def as_vector(theta: PyTree) -> Float[Array, " P"]:
    """Flatten a tree of parameters into one vector.

    Args:
        theta: The parameters.

    Returns:
        All of them, [P].
    """
    return ravel_pytree(theta)[0]


def split_actors(workers: int, leaf: Shaped[Array, "T N ..."]) -> Shaped[Array, "W T n ..."]:
    """Split the actors of a batch evenly among the workers.

    Args:
        workers: W, the number of workers.
        leaf: An array of the batch, [T, N, ...].

    Returns:
        Each worker's share, [W, T, N / W, ...].
    """
    return jnp.moveaxis(leaf.reshape(leaf.shape[0], workers, -1, *leaf.shape[2:]), 1, 0)


def make_optimizer(config: Config, anneal: Float[Array, ""] | float = 1.0) -> optax.GradientTransformation:
    """Build the optimizer: Adam, or RMSProp as in the paper, each after any gradient clipping.

    RMSProp takes steps lr g / sqrt(mean square + eps).

    Args:
        config: The hyperparameters.
        anneal: Factor on the learning rate.

    Returns:
        The optimizer.
    """
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
