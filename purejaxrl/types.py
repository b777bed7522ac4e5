"""The words that every part of the package shares.

Axes: R runs, T time, N parallel actors, B batch, A actions. Arrays are time-major.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, Num

from purejaxrl.errors import InputError

PyTree = Any
Metrics = dict[str, Any]
ScalarKey = Key[Array, ""]


class Discrete(NamedTuple):
    """Actions 0 .. num_actions - 1."""

    num_actions: int


class Continuous(NamedTuple):
    """Real-valued actions of a shape, between low and high."""

    shape: tuple[int, ...]
    low: Any
    high: Any


ActionSpace = Discrete | Continuous


class Timestep(NamedTuple):
    """Result of one environment step.

    `state` and `observation` are what the next action starts from: after an episode's end they belong to the
    next episode. `next_observation` is the true observation that the action led to, before any reset.
    """

    state: PyTree
    observation: Num[Array, "*observation"]
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    next_observation: Num[Array, "*observation"]


class Env(NamedTuple):
    """One environment as pure functions; `vmap` them for several.

    reset: (key) -> (observation, state). step: (key, state, action) -> Timestep, resetting by itself; it clips
    continuous actions to the bounds of `action_space`.
    `max_episode_steps` bounds every episode; `solved_at` is the mean return that counts as solved, None where
    no such number is agreed.
    image_format: how images are made of observations, a `purejaxrl.kernels.sparse_images.ImageFormat`, where networks
    are given images; None where they are given observations as they are. Images travel as the few numbers that they are
    rendered from, and are rendered where a network consumes them.
    """

    name: str
    observation_shape: tuple[int, ...]
    action_space: ActionSpace
    max_episode_steps: int
    solved_at: float | None
    reset: Callable[[ScalarKey], tuple[Array, PyTree]]
    step: Callable[[ScalarKey, PyTree, Array], Timestep]
    image_format: Any = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of what networks are given of one observation."""
        return self.observation_shape if self.image_format is None else self.image_format.shape


def num_actions(env: Env) -> int:
    """The number of an environment's discrete actions.

    Raises:
        InputError: Its actions are continuous.
    """
    if not isinstance(env.action_space, Discrete):
        raise InputError(
            f"--env: {env.name} has continuous actions; this algorithm takes discrete ones (vpg, a3c do both)"
        )
    return env.action_space.num_actions


class Transition(NamedTuple):
    """Steps of N actors, [N, ...], and [T, N, ...] once stacked over time.

    `next_observation` is the true one, before any reset. `terminated` ends the return (nothing follows);
    `truncated` only cuts it (the value of `next_observation` stands for what would have followed).
    `extras` are those of the agent's own `act`: log-probabilities, values, whatever its `update` needs.
    """

    observation: Num[Array, "*batch"]
    action: Num[Array, "*batch"]
    reward: Float[Array, "*lead"]
    terminated: Bool[Array, "*lead"]
    truncated: Bool[Array, "*lead"]
    next_observation: Num[Array, "*batch"]
    extras: PyTree = ()


class Progress(NamedTuple):
    """How far a run is, before the step or update at hand.

    iteration, env_steps: the clock, shared by all runs of a batch and never batched, so that whatever depends on
    it (a replay's write position, `lax.cond`) stays cheap under `vmap`. `env_steps` counts all actors.
    fraction: share of the budget used, in [0, 1]. episodes: finished episodes. Both differ between runs.
    """

    iteration: Int[Array, ""]
    env_steps: Int[Array, ""]
    fraction: Float[Array, ""]
    episodes: Int[Array, ""]

    @property
    def remaining(self) -> Float[Array, ""]:
        """Share of the budget left: a linear schedule, 1 at the start, 0 at the end of the budget and beyond."""
        return jnp.clip(1.0 - self.fraction, 0.0, 1.0)


class Episode(NamedTuple):
    """Running return and length of each actor's episode, and how many episodes the run has finished."""

    returns: Float[Array, " N"]
    length: Int[Array, " N"]
    finished: Int[Array, ""]


class Learner(NamedTuple):
    """What an agent has learned and needs in order to go on learning, by who needs it.

    Attributes:
        params: All that acting greedily, evaluating and exporting need: parameters of networks, running statistics of
            observations.
        optimizer: The state of the optimizers.
        memory: A replay of any type. It is never exported, nor kept with the best parameters, and it goes on being
            written after a run has ended, as choosing between its old and its new contents would copy it.
        extra: Anything else, as target networks or the workers' copies of parameters.
    """

    params: PyTree
    optimizer: PyTree = None
    memory: PyTree = None
    extra: PyTree = None


class ActorOutput(NamedTuple):
    """What `act` and `policy` of an agent return.

    Attributes:
        action: One action per actor, [N, ...]; of `policy` with the leading axes of its observations.
        extras: Whatever `update` needs of this step beside the action, as log-probabilities or values [N, ...]. They
            travel in `Transition.extras`; those of `policy` are not used.
        carry: The actors' recurrent state after this step, with the same leading axes; () for feed-forward agents.
    """

    action: Num[Array, "..."]
    extras: PyTree = ()
    carry: PyTree = ()


class RunState(NamedTuple):
    """Everything a run is: the carry of the training loop.

    `active` is False once the run has used up its budget of episodes, or is solved where that ends it; from then on
    nothing but its learner's memory changes. `recent` holds the returns of its last episodes where they decide that.
    `carry` is the recurrent state of the actors [N, ...], () for feed-forward agents.
    """

    learner: Learner
    env_state: PyTree
    observation: Num[Array, N * observation]
    episode: Episode
    active: Bool[Array, ""]
    key: Any
    recent: Float[Array, " W"] | None = None
    carry: PyTree = ()


def no_carry(config: Any, env: Env) -> tuple[()]:
    """The recurrent state of a feed-forward agent: none."""
    return ()


def rollout_only(config: Any) -> int:
    """The batch size of an agent that learns from nothing but its rollout."""
    return 0


class Agent(NamedTuple):
    """An algorithm as a record of pure functions, each of one run; the package maps them over all runs.

    A variant replaces functions: `dqn.agent._replace(name="mine", update=my_update)`.

    Attributes:
        name: What files and plots call it.
        Config: Dataclass of hyperparameters, made with `purejaxrl.config`; one or more of its fields are budgets.
        check: (config, env) -> None; raises InputError where fields contradict each other or the environment.
        rollout_shape: (config) -> (T, N), the steps and actors of one iteration.
        init: (config, env, key) -> Learner.
        act: (config, env, learner, observation[N, ...], carry[N, ...], progress, key) -> ActorOutput, exploring.
        policy: (config, env, params, observation[..., *observation], carry[..., *carry]) -> ActorOutput, greedy. params
            are those of the Learner.
        update: (config, env, learner, batch[T, N], progress, key) -> (Learner, metrics). Metrics are numbers by name; a
            vector of whole numbers is reported by its mean and counted into a histogram.
        initial_carry: (config, env) -> the recurrent state of one actor where an episode begins. The loop resets each
            actor's to it when its episode ends.
        batch_size: (config) -> the number of observations that one gradient step learns from, where these do not come
            from the rollout. It decides how many runs are computed side by side on a CPU.
        summary: What the algorithm is, in one line, for lists and help texts.
    """

    name: str
    Config: type
    check: Callable[..., None]
    rollout_shape: Callable[..., tuple[int, int]]
    init: Callable[..., Learner]
    act: Callable[..., ActorOutput]
    policy: Callable[..., ActorOutput]
    update: Callable[..., tuple[Learner, Metrics]]
    initial_carry: Callable[..., PyTree] = no_carry
    batch_size: Callable[..., int] = rollout_only
    summary: str = ""
