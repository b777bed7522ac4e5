"""An advantage actor-critic with a gated recurrent unit (Cho et al. 2014, arXiv:1406.1078)."""

import jax
import jax.numpy as jnp
import optax

from purejaxrl import ActorOutput, Agent, Learner, Real, budget, config, leaf, static
from purejaxrl.components.distributions import categorical_entropy, categorical_log_prob
from purejaxrl.components.returns import generalized_advantages


@config
class Config:
    """Hyperparameters of the recurrent actor-critic."""

    env_steps: int = budget(100_000, "env steps of all actors")
    actors: int = static(16, "parallel environments per run", at_least=1)
    t_max: int = static(16, "steps of every actor per update", at_least=1)
    units: int = static(16, "units of the recurrent layer", at_least=1)
    is_recurrent: bool = static(True, "whether the state is kept from step to step", kind=bool)
    gamma: Real = leaf(0.99, "discount", at_least=0, at_most=1)
    lr: Real = leaf(1e-2, "learning rate", above=0)
    entropy_coef: Real = leaf(0.01, "weight of the entropy bonus", at_least=0)


def check(config, env):
    """Every combination of fields is allowed."""


def rollout_shape(config):
    """Steps and actors of an iteration."""
    return config.t_max, config.actors


def initial_carry(config, env):
    """What one actor remembers where an episode begins: nothing."""
    return jnp.zeros(config.units)


def init(config, env, key):
    """Three gates, and heads for the policy and the value function."""
    inputs = env.observation_shape[0] + config.units
    *gate_keys, head_key = jax.random.split(key, 4)
    gates = {name: jax.random.normal(k, (inputs, config.units)) for name, k in zip("rzn", gate_keys, strict=True)}
    params = {name: gate / inputs**0.5 for name, gate in gates.items()}
    outputs = env.action_space.num_actions + 1
    params["heads"] = 0.1 * jax.random.normal(head_key, (config.units, outputs))
    return Learner(params, optax.adam(1.0).init(params))


def network(config, params, observation, carry):
    """Logits [..., A], value [...] and the state after the observation [..., units]."""
    carry = carry if config.is_recurrent else jnp.zeros_like(carry)
    both = jnp.concatenate([observation, carry], axis=-1)
    reset, keep = jax.nn.sigmoid(both @ params["r"]), jax.nn.sigmoid(both @ params["z"])
    new = jnp.tanh(jnp.concatenate([observation, reset * carry], axis=-1) @ params["n"])
    carry = keep * carry + (1 - keep) * new
    heads = carry @ params["heads"]
    return heads[..., :-1], heads[..., -1], carry


def act(config, env, learner, observation, carry, progress, key):
    """Sample, and keep the state that the action started from."""
    logits, _, after = network(config, learner.params, observation, carry)
    return ActorOutput(jax.random.categorical(key, logits), carry, after)


def policy(config, env, params, observation, carry):
    """The most probable action."""
    logits, _, after = network(config, params, observation, carry)
    return ActorOutput(jnp.argmax(logits, axis=-1), (), after)


def unroll(config, params, batch):
    """Logits and values [T, N, ...] by the present parameters, from the states that the rollout started with."""

    def step(carry, inputs):
        observation, done, next_observation = inputs
        logits, value, carry = network(config, params, observation, carry)
        next_value = network(config, params, next_observation, carry)[1]
        return jnp.where(done[:, None], 0.0, carry), (logits, value, next_value)

    done = batch.terminated | batch.truncated
    return jax.lax.scan(step, batch.extras[0], (batch.observation, done, batch.next_observation))[1]


def update(config, env, learner, batch, progress, key):
    """One gradient step through the whole rollout."""

    def loss(params):
        logits, value, next_value = unroll(config, params, batch)
        fixed = jax.lax.stop_gradient((value, next_value))
        ending = (batch.terminated, batch.truncated)
        advantage = generalized_advantages(batch.reward, *fixed, *ending, config.gamma, 0.95)
        score = jnp.mean(categorical_log_prob(logits, batch.action) * advantage)
        v_loss = jnp.mean(jnp.square(value - advantage - fixed[0]))
        return 0.5 * v_loss - score - config.entropy_coef * jnp.mean(categorical_entropy(logits))

    value, gradient = jax.value_and_grad(loss)(learner.params)
    step, opt_state = optax.adam(config.lr).update(gradient, learner.optimizer)
    return Learner(optax.apply_updates(learner.params, step), opt_state), {"loss": value}


agent = Agent("recurrent", Config, check, rollout_shape, init, act, policy, update, initial_carry=initial_carry)
