"""Proximal policy optimization (Schulman et al. 2017, arXiv:1707.06347): epochs of minibatches, clipped ratios."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from purejaxrl import ActorOutput, Agent, Learner, Real, budget, config, leaf, static
from purejaxrl.components.distributions import categorical_entropy, categorical_log_prob
from purejaxrl.components.returns import generalized_advantages


@config
class Config:
    """Hyperparameters of PPO."""

    env_steps: int = budget(100_000, "env steps of all actors")
    actors: int = static(8, "parallel environments per run", at_least=1)
    t_max: int = static(64, "steps of every actor per iteration", at_least=1)
    epochs_per_update: int = static(4, "passes over each rollout", at_least=1)
    minibatches: int = static(4, "gradient steps per pass", at_least=1)
    hidden_size: int = static(64, "units of the hidden layer", at_least=1)
    gamma: Real = leaf(0.99, "discount", at_least=0, at_most=1)
    lam: Real = leaf(0.95, "GAE's lambda", at_least=0, at_most=1)
    clip: Real = leaf(0.2, "how far the ratio of probabilities may be from 1", above=0)
    lr: Real = leaf(2.5e-3, "learning rate", above=0)
    lr_anneal: bool = static(False, "let the learning rate fall linearly to 0 over the budget", kind=bool)
    entropy_coef: Real = leaf(0.01, "weight of the entropy bonus", at_least=0)


class Minibatch(NamedTuple):
    """Steps [B, ...] that a gradient step learns from."""

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    advantage: jax.Array
    target: jax.Array


def check(config, env):
    """Every combination of fields is allowed."""


def rollout_shape(config):
    """Steps and actors of an iteration."""
    return config.t_max, config.actors


def init(config, env, key):
    """One hidden layer, and heads for the policy and the value function."""
    sizes = (env.observation_shape[0], config.hidden_size, env.action_space.num_actions + 1)
    keys = jax.random.split(key, 2)
    layers = [jax.random.normal(k, (a, b)) / a**0.5 for k, a, b in zip(keys, sizes, sizes[1:], strict=False)]
    params = {"hidden": layers[0], "heads": 0.1 * layers[1]}
    return Learner(params, optax.adam(1.0).init(params))


def network(params, observation):
    """Logits [..., A] and value [...]."""
    heads = jnp.tanh(observation @ params["hidden"]) @ params["heads"]
    return heads[..., :-1], heads[..., -1]


def act(config, env, learner, observation, carry, progress, key):
    """Sample, and keep the log-probability and the value of the moment."""
    logits, value = network(learner.params, observation)
    action = jax.random.categorical(key, logits)
    return ActorOutput(action, {"log_prob": categorical_log_prob(logits, action), "value": value})


def policy(config, env, params, observation, carry):
    """The most probable action."""
    return ActorOutput(jnp.argmax(network(params, observation)[0], axis=-1))


def loss(config, params, batch):
    """The clipped surrogate (equation 7), the value loss and an entropy bonus; and the mean ratio."""
    logits, value = network(params, batch.observation)
    ratio = jnp.exp(categorical_log_prob(logits, batch.action) - batch.log_prob)
    clipped = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
    surrogate = jnp.mean(jnp.minimum(ratio * batch.advantage, clipped * batch.advantage))
    v_loss = jnp.mean(jnp.square(value - batch.target))
    return 0.5 * v_loss - surrogate - config.entropy_coef * jnp.mean(categorical_entropy(logits)), jnp.mean(ratio)


def update(config, env, learner, batch, progress, key):
    """Passes over the rollout, in minibatches that are drawn anew each time."""
    value, last = batch.extras["value"], network(learner.params, batch.next_observation)[1]
    ending = (batch.terminated, batch.truncated)
    advantage = generalized_advantages(batch.reward, value, last, *ending, config.gamma, config.lam)
    target = advantage + value
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    steps = Minibatch(batch.observation, batch.action, batch.extras["log_prob"], advantage, target)
    steps = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), steps)
    anneal = 1.0 - progress.fraction if config.lr_anneal else 1.0

    def gradient_step(carry, indices):
        params, opt_state = carry
        minibatch = jax.tree.map(lambda leaf: leaf[indices], steps)
        (value, ratio), gradient = jax.value_and_grad(partial(loss, config), has_aux=True)(params, minibatch)
        step, opt_state = optax.adam(config.lr * anneal).update(gradient, opt_state)
        return (optax.apply_updates(params, step), opt_state), (value, ratio)

    size = config.t_max * config.actors
    orders = jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(key, config.epochs_per_update))
    indices = orders.reshape(config.epochs_per_update * config.minibatches, -1)
    (params, opt_state), (losses, ratios) = jax.lax.scan(gradient_step, (learner.params, learner.optimizer), indices)
    return Learner(params, opt_state), {"loss": jnp.mean(losses), "first_ratio": ratios[0]}


def batch_size(config):
    """Steps of one minibatch."""
    return config.t_max * config.actors // config.minibatches


agent = Agent("ppo", Config, check, rollout_shape, init, act, policy, update, batch_size=batch_size)
