"""Deep Q-learning with a replay memory and a target network (Mnih et al. 2015, doi:10.1038/nature14236).

One iteration:

    act once with N actors, epsilon-greedy          store N transitions
    actors / train_every times, once batch_size transitions are stored:
        (s, a, r, s') <- batch_size transitions drawn uniformly from the replay; with n_steps above 1, r is the
                         discounted sum of that many rewards, gamma becomes gamma^n, and s' is where they lead
        y <- r + gamma max_a' Q_target(s', a'), or r where s' is terminal
        Q <- one Adam step on  mean(loss(Q(s, a) - y))
    Q_target <- Q whenever the number of finished episodes passes a multiple of target_update
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Num, UInt32

from purejaxrl.components import replay as ring
from purejaxrl.components.exploration import epsilon_greedy, epsilon_schedule
from purejaxrl.components.hyperparameters import ImageConfig, Real, budget, config, leaf, static
from purejaxrl.components.networks import MLP, ConvNet, Headed, Inputs, apply_network, init_network, network_of
from purejaxrl.components.preprocessing import (
    RunningStatistics,
    init_statistics,
    network_input,
    normalize_batch,
    preprocess,
    update_statistics,
)
from purejaxrl.errors import InputError
from purejaxrl.types import (
    ActorOutput,
    Agent,
    Env,
    Learner,
    Metrics,
    Progress,
    PyTree,
    ScalarKey,
    Transition,
    num_actions,
)


@config
class Config(ImageConfig):
    """Hyperparameters of DQN; the defaults are the preset `original`."""

    episodes: int | None = budget(1200, "finished episodes of every run")
    env_steps: int | None = budget(None, "env steps of all actors")
    actors: int = static(1, "parallel environments per run", at_least=1)
    max_ep_len: int | None = static(None, "truncate episodes after this many steps", optional=True, at_least=1)
    batch_size: int = static(512, "transitions per gradient step", at_least=1)
    memory_size: int = static(100_000, "transitions that the replay holds", at_least=1)
    train_every: int = static(1, "env steps of all actors per gradient step", at_least=1)
    target_update: int = static(10, "finished episodes between copies of the target network", at_least=1)
    target_update_steps: int | None = static(
        None, "copy after this many env steps of all actors instead", optional=True, at_least=1
    )
    target_tau: Real = leaf(
        0.0, "also move the target this share towards Q at every gradient step", at_least=0, at_most=1
    )
    gamma: Real = leaf(0.99, "discount", at_least=0, at_most=1)
    lr: Real = leaf(1e-3, "Adam learning rate", above=0)
    lr_anneal: bool = static(False, "let the learning rate fall linearly to 0 over the budget", kind=bool)
    loss: str = static("mse", "loss of the TD error; huber has slope 1 beyond an error of 1", choices=("mse", "huber"))
    n_steps: int = static(1, "rewards that a target sums before it bootstraps", at_least=1, at_most=100)
    double_q: bool = static(False, "let Q choose and the target network rate the next action", kind=bool)
    eps_vals: tuple[Real, ...] = leaf(
        (1.0, 0.01, 0.001), "epsilon's start, end and decay rate per env step", length=3, at_least=0, at_most=1
    )
    reward_scale: Real = leaf(1.0, "what rewards are multiplied with for learning", above=0)
    normalize_observations: bool = static(False, "by their running mean and variance", kind=bool)
    hidden_sizes: tuple[int, ...] = static((32, 32), "hidden layers of Q", length=0, at_least=1)


class Params(NamedTuple):
    """Parameters of the Q-network, and the running statistics of observations, None where they are not normalized."""

    q: PyTree
    statistics: RunningStatistics | None


class Step(NamedTuple):
    """One environment step as the replay memory stores it."""

    observation: Num[Array, "*batch"]
    action: Int[Array, "*lead"]
    reward: Float[Array, "*lead"]
    terminated: Bool[Array, "*lead"]
    truncated: Bool[Array, "*lead"]
    next_observation: Num[Array, "*batch"]


class Experience(NamedTuple):
    """Experience from which a target y = reward + discount max_a' Q(next_observation, a') is computed, as in rlax.

    It covers one step, or n steps: then reward is the discounted sum of n rewards. The discount is 0 where
    next_observation is terminal; truncated episodes bootstrap.
    """

    observation: Num[Array, "*batch"]
    action: Int[Array, "*lead"]
    reward: Float[Array, "*lead"]
    discount: Float[Array, "*lead"]
    next_observation: Num[Array, "*batch"]


def check(config: Config, env: Env) -> None:
    """Check that the hyperparameters are consistent and that DQN can act in the environment.

    Args:
        config: The hyperparameters.
        env: The environment.

    Raises:
        InputError: If fields contradict each other, or the actions are continuous.
    """
    if config.batch_size > config.memory_size:
        raise InputError(f"--batch_size: {config.batch_size} is more than --memory_size {config.memory_size} holds")
    if config.actors > config.memory_size:
        raise InputError(f"--actors: {config.actors} is more than --memory_size {config.memory_size} holds")
    if config.actors % config.train_every and config.train_every % config.actors:
        raise InputError(
            f"--train_every: {config.train_every} must divide --actors {config.actors} or be a multiple of it"
        )
    num_actions(env)


def rollout_shape(config: Config) -> tuple[int, int]:
    """Return the number of steps and actors per iteration: one step of every actor.

    Args:
        config: The hyperparameters.

    Returns:
        (T, N), the steps and actors of one iteration.
    """
    return 1, config.actors


def batch_size(config: Config) -> int:
    """Return the number of transitions per gradient step.

    Args:
        config: The hyperparameters.

    Returns:
        The batch size.
    """
    return config.batch_size


def init(config: Config, env: Env, key: ScalarKey) -> Learner:
    """Initialize the network, its copy as target network, and an empty replay memory of raw observations.

    Args:
        config: The hyperparameters.
        env: The environment.
        key: A random key, which is consumed.

    Returns:
        The learner.
    """
    params = init_network(q_network(config, env), key, env.input_shape)
    # The copy is a buffer of its own: donating one buffer twice fails.
    target_params = jax.tree.map(jnp.copy, params)
    replay = ring.init_replay(config.memory_size, config.actors, step_layout(env))
    optimizer = optax.adam(config.lr).init(params)
    return Learner(Params(params, init_statistics(config, env)), optimizer, replay, extra=target_params)


def act(
    config: Config,
    env: Env,
    learner: Learner,
    observation: Num[Array, "N ..."],
    carry: tuple[()],
    progress: Progress,
    key: ScalarKey,
) -> ActorOutput:
    """Select epsilon-greedy actions; actor n acts after `progress.env_steps + n` env steps.

    Args:
        config: The hyperparameters.
        env: The environment.
        learner: The learner.
        observation: Observations of the N actors, [N, ...].
        carry: Not used.
        progress: How much of its budget the run has used; it decides epsilon.
        key: A random key, which is consumed.

    Returns:
        Actions [N].
    """
    start, end, rate = config.eps_vals
    epsilon = epsilon_schedule(progress.env_steps + jnp.arange(observation.shape[0]), start, end, rate)
    inputs = network_input(config, env, learner.params.statistics, observation)
    q_value = q_values(config, env, learner.params.q, inputs)
    return ActorOutput(epsilon_greedy(key, q_value, epsilon))


def policy(
    config: Config, env: Env, params: Params, observation: Num[Array, "..."], carry: tuple[()] = ()
) -> ActorOutput:
    """Select the greedy actions argmax_a Q(s, a).

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
    return ActorOutput(jnp.argmax(q_values(config, env, params.q, inputs), axis=-1))


def q_target(
    config: Config, env: Env, params: PyTree, target_params: PyTree, experience: Experience
) -> Float[Array, " B"]:
    """Compute y = r + gamma max_a' Q_target(s', a'), and y = r where s' is terminal (Mnih et al. 2015, algorithm 1).

    With `n_steps` r is r_1 + gamma r_2 + ..., and gamma is gamma^n (Hessel et al. 2018, arXiv:1710.02298, section 2).
    With `double_q` the action is argmax_a' Q(s', a') (van Hasselt et al. 2016, arXiv:1509.06461, equation 4).

    Args:
        config: The hyperparameters.
        env: The environment.
        params: Parameters of the Q-network.
        target_params: Parameters of the target network.
        experience: A batch of B network inputs, rewards and discounts.

    Returns:
        Targets [B].
    """
    next_q = q_values(config, env, target_params, experience.next_observation)
    chooser = q_values(config, env, params, experience.next_observation) if config.double_q else next_q
    next_value = select_action(next_q, jnp.argmax(chooser, axis=-1))
    return experience.reward + experience.discount * next_value


def update(
    config: Config,
    env: Env,
    learner: Learner,
    batch: Transition,
    progress: Progress,
    key: ScalarKey,
    td_target: Callable[..., Array] = q_target,
) -> tuple[Learner, Metrics]:
    """Store a step, take the gradient steps that are due, and copy the target network when it is due.

    Args:
        config: The hyperparameters.
        env: The environment.
        learner: The learner.
        batch: Transitions of one step, [1, N, ...].
        progress: How much of its budget the run has used.
        key: A random key, which is consumed.
        td_target: Function that computes the targets; a variant of the algorithm may replace it.

    Returns:
        The learner, and metrics by name, NaN where no gradient step was due.
    """
    now = jax.tree.map(lambda x: x[0], batch)
    step = Step(now.observation, now.action, now.reward, now.terminated, now.truncated, now.next_observation)
    replay = ring.add(learner.memory, ring.pack(step), progress.iteration)
    statistics = update_statistics(learner.params.statistics, network_input(config, env, None, now.observation))

    trained = (learner.params.q, learner.extra, learner.optimizer)
    # Scanned as bits: JAX's check for reused keys takes the keys of a scan under `vmap` for used ones.
    bits = jax.random.key_data(jax.random.split(key, max(config.actors // config.train_every, 1)))
    learn: Any = partial(gradient_step, config, env, replay, statistics, progress, td_target, jax.random.key_impl(key))
    is_due = is_learning(config, progress)
    trained, metrics = jax.lax.cond(
        is_due,
        partial(jax.lax.scan, learn, xs=bits, unroll=len(bits) == 1),
        lambda trained: (trained, dict.fromkeys(METRICS, jnp.zeros(len(bits)))),
        trained,
    )
    # Only now: `--debug` would take the mean of what is not known for a mistake.
    metrics = {name: jnp.where(is_due, jnp.mean(values), jnp.nan) for name, values in metrics.items()}
    params, target_params, opt_state = trained

    is_copied = is_copy_due(config, progress, jnp.sum(now.terminated | now.truncated))
    target_params = jax.tree.map(partial(jnp.where, is_copied), params, target_params)
    return Learner(Params(params, statistics), opt_state, replay, extra=target_params), metrics


def gradient_step(
    config: Config,
    env: Env,
    replay: ring.Replay,
    statistics: RunningStatistics | None,
    progress: Progress,
    td_target: Callable[..., Array],
    key_impl: Any,
    trained: tuple[PyTree, PyTree, PyTree],
    key_bits: UInt32[Array, " words"],
) -> tuple[tuple[PyTree, PyTree, PyTree], Metrics]:
    """Take one Adam step on a batch sampled from the replay memory.

    Args:
        config: The hyperparameters.
        env: The environment.
        replay: The replay memory.
        statistics: Running statistics of observations, None where they are not normalized.
        progress: How much of its budget the run has used.
        td_target: Function that computes the targets.
        key_impl: Generator that the key belongs to.
        trained: (params, target_params, opt_state).
        key_bits: Bits of a random key, which is consumed.

    Returns:
        (params, target_params, opt_state) after the step, and metrics by name.
    """
    params, target_params, opt_state = trained
    key = jax.random.wrap_key_data(key_bits, impl=key_impl)
    rows, is_stored = ring.sample(
        key, replay, config.batch_size, config.memory_size, config.actors, progress.iteration, config.n_steps
    )
    experience = multi_step(config, Step(*ring.unpack(rows, step_layout(env))), is_stored)
    experience = preprocess(config, env, experience, is_step=config.n_steps == 1, used_once=True)
    experience = normalize_batch(statistics, experience)
    target = td_target(config, env, params, target_params, experience)
    (loss, q_mean), gradient = jax.value_and_grad(td_loss, argnums=2, has_aux=True)(
        config, env, params, experience, target
    )
    learning_rate = config.lr * (progress.remaining if config.lr_anneal else 1.0)
    step, opt_state = optax.adam(learning_rate).update(gradient, opt_state)
    params = optax.apply_updates(params, step)
    target_params = optax.incremental_update(params, target_params, config.target_tau)
    return (params, target_params, opt_state), {"loss": loss, "q_mean": q_mean}


def multi_step(config: Config, steps: Step, is_stored: Bool[Array, "B n"]) -> Experience:
    """Combine n consecutive steps into experience that spans up to n of them.

        reward = sum_{k < m} gamma^k r_k,   discount = gamma^m, or 0 where step m - 1 terminates

    m <= n is the number of steps until one ends an episode, that one included, or the next is not stored.

    Args:
        config: The hyperparameters.
        steps: Steps [B, n] that follow each other in one environment.
        is_stored: Whether each step has been stored yet, [B, n].

    Returns:
        Experience [B].
    """
    at = [jax.tree.map(lambda x, k=k: x[:, k], steps) for k in range(config.n_steps)]
    reward, next_observation = at[0].reward, at[0].next_observation
    discount = jnp.where(at[0].terminated, 0.0, config.gamma)
    goes_on = ~(at[0].terminated | at[0].truncated)
    for k, step in enumerate(at[1:], start=1):
        goes_on &= is_stored[:, k]
        reward += jnp.where(goes_on, discount * step.reward, 0.0)
        discount *= jnp.where(goes_on, jnp.where(step.terminated, 0.0, config.gamma), 1.0)
        mask = goes_on.reshape(-1, *[1] * (next_observation.ndim - 1))
        next_observation = jnp.where(mask, step.next_observation, next_observation)
        goes_on &= ~(step.terminated | step.truncated)
    return Experience(at[0].observation, at[0].action, reward, discount, next_observation)


def td_loss(
    config: Config, env: Env, params: PyTree, experience: Experience, target: Float[Array, " B"]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Compute the loss mean(loss(Q(s, a) - y)) of the TD errors.

    `mse` is the square of the error; `huber` is half of that up to an error of 1, and linear beyond.

    Args:
        config: The hyperparameters.
        env: The environment.
        params: Parameters of the Q-network.
        experience: A batch of B network inputs and actions.
        target: Targets y [B].

    Returns:
        The loss, and the mean of Q(s, a).

    Raises:
        AssertionError: If the target has another shape than Q(s, a).
    """
    q_value = select_action(q_values(config, env, params, experience.observation), experience.action)
    chex.assert_equal_shape(
        [q_value, target],
        custom_message="target has one entry per row of the batch, [B], as Q(s, a) has; "
        "[B, 1] would hold every target against every Q(s, a)",
    )
    losses = jnp.square(q_value - target) if config.loss == "mse" else optax.huber_loss(q_value, target)
    return jnp.mean(losses), jnp.mean(q_value)


def is_learning(config: Config, progress: Progress) -> Bool[Array, ""]:
    """Check whether an iteration learns: `batch_size` rows are stored, and a gradient step is due.

    It depends on the clock alone, which is shared by the runs of a batch, so `lax.cond` stays a branch under `vmap`.

    Args:
        config: The hyperparameters.
        progress: How much of its budget the run has used.

    Returns:
        Whether it learns, [].
    """
    iterations_per_step = max(config.train_every // config.actors, 1)
    is_filled = progress.iteration >= -(-config.batch_size // config.actors) - 1
    return is_filled & ((progress.iteration + 1) % iterations_per_step == 0)


def is_copy_due(config: Config, progress: Progress, ended: Int[Array, ""]) -> Bool[Array, ""]:
    """Check whether an iteration copies the target network.

    It does where the count of finished episodes, or of env steps, reaches or passes a multiple of its period.

    Args:
        config: The hyperparameters.
        progress: How much of its budget the run had used before the iteration.
        ended: Number of episodes that ended in the iteration, [].

    Returns:
        Whether it does, [].
    """
    if config.target_update_steps is None:
        before, after, period = progress.episodes, progress.episodes + ended, config.target_update
    else:
        before, after, period = progress.env_steps, progress.env_steps + config.actors, config.target_update_steps
    return after // period > before // period


def select_action(q_value: Float[Array, "B A"], action: Int[Array, " B"]) -> Float[Array, " B"]:
    """Select the values Q(s, a) of one action per row.

    It uses a mask, because the gradient of an index is a scatter, which is slow on CPU.

    Args:
        q_value: Values of all actions, [B, A].
        action: One action per row, [B].

    Returns:
        The values of these actions, [B].
    """
    return jnp.sum(jnp.where(jax.nn.one_hot(action, q_value.shape[-1], dtype=bool), q_value, 0.0), axis=-1)


def step_layout(env: Env) -> ring.Layout:
    """Return the layout in which the replay memory packs a Step.

    Args:
        env: The environment.

    Returns:
        The layout of a row.
    """
    observation = jax.ShapeDtypeStruct(env.observation_shape, jnp.float32)
    action, reward, ended = (jax.ShapeDtypeStruct((), dtype) for dtype in (jnp.int32, jnp.float32, jnp.bool_))
    return ring.make_layout((observation, action, reward, ended, ended, observation))


def q_network(config: Config, env: Env) -> MLP | ConvNet | Headed:
    """Build the Q-network, with one output per action.

    Args:
        config: The hyperparameters.
        env: The environment.

    Returns:
        The network.
    """
    return network_of(config, num_actions(env), "relu")


def q_values(config: Config, env: Env, params: PyTree, inputs: Inputs) -> Float[Array, "... A"]:
    """Compute Q(s, a) of every action.

    Args:
        config: The hyperparameters.
        env: The environment.
        params: Parameters of the Q-network.
        inputs: Network inputs, [..., *input].

    Returns:
        Values [..., A].
    """
    return apply_network(q_network(config, env), params, inputs, env.input_shape)


METRICS = ("loss", "q_mean")

agent = Agent(
    "dqn",
    Config,
    check,
    rollout_shape,
    init,
    act,
    policy,
    update,
    batch_size=batch_size,
    summary="Deep Q-learning with a replay memory and a target network (Mnih et al. 2015, doi:10.1038/nature14236)",
)
