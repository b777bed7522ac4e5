"""Types shared by all parts of the package.

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
    """Space of discrete actions, numbered from 0 to num_actions - 1."""

    num_actions: int


class Continuous(NamedTuple):
    """Space of real-valued actions of a given shape, between the bounds low and high."""

    shape: tuple[int, ...]
    low: Any
    high: Any


ActionSpace = Discrete | Continuous


class Timestep(NamedTuple):
    """Result of one environment step.

    Attributes:
        state: Environment state from which the next action starts; after an episode's end it belongs to the next
            episode.
        observation: Observation from which the next action starts; after an episode's end it belongs to the next
            episode.
        reward: Reward of the action.
        terminated: Whether the action led to a terminal state.
        truncated: Whether the episode was cut short, for example by a time limit.
        next_observation: The true observation that the action led to, before any reset.
    """

    state: PyTree
    observation: Num[Array, "*observation"]
    reward: Float[Array, ""]
    terminated: Bool[Array, ""]
    truncated: Bool[Array, ""]
    next_observation: Num[Array, "*observation"]


class Env(NamedTuple):
    """One environment as pure functions, to be vmapped for several.

    Attributes:
        name: Name of the environment.
        observation_shape: Shape of one observation.
        action_space: Space of its actions.
        max_episode_steps: Upper bound on the steps of every episode.
        solved_at: Mean return that counts as solved; None where no such number is agreed.
        reset: (key) -> (observation, state).
        step: (key, state, action) -> Timestep. It resets by itself and clips continuous actions to the bounds of
            `action_space`.
        image_format: A `purejaxrl.kernels.sparse_images.ImageFormat` where networks are given images; None where they
            are given observations as they are. Images travel as the few numbers that they are rendered from, and are
            rendered where a network consumes them.
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
        """Shape of the network input made from one observation."""
        return self.observation_shape if self.image_format is None else self.image_format.shape


def num_actions(env: Env) -> int:
    """Return the number of discrete actions of an environment.

    Args:
        env: The environment.

    Returns:
        The number of its actions.

    Raises:
        InputError: If its actions are continuous.
    """
    if not isinstance(env.action_space, Discrete):
        raise InputError(f"--env: {env.name} has continuous actions, and this algorithm takes discrete ones only")
    return env.action_space.num_actions


class Transition(NamedTuple):
    """Steps of N actors, [N, ...], or [T, N, ...] once stacked over time.

    Attributes:
        observation: Observations before the step.
        action: Actions taken.
        reward: Rewards received.
        terminated: Whether the step ended the return: nothing follows.
        truncated: Whether the step only cut the return: the value of `next_observation` stands for what would have
            followed.
        next_observation: The true observation after the step, before any reset.
        extras: The extras of the agent's own `act`, such as log-probabilities or values that its `update` needs.
    """

    observation: Num[Array, "*batch"]
    action: Num[Array, "*batch"]
    reward: Float[Array, "*lead"]
    terminated: Bool[Array, "*lead"]
    truncated: Bool[Array, "*lead"]
    next_observation: Num[Array, "*batch"]
    extras: PyTree = ()


class Progress(NamedTuple):
    """How much of its budget a run has used before the current step or update.

    The clock (iteration, env_steps) is shared by all runs of a batch and never batched, so that whatever depends on it
    (the write position of a replay memory, `lax.cond`) stays cheap under `vmap`. The other fields differ between runs.

    Attributes:
        iteration: Number of finished iterations.
        env_steps: Number of environment steps, counting all actors.
        fraction: Share of the budget used, in [0, 1].
        episodes: Number of finished episodes.
    """

    iteration: Int[Array, ""]
    env_steps: Int[Array, ""]
    fraction: Float[Array, ""]
    episodes: Int[Array, ""]

    @property
    def remaining(self) -> Float[Array, ""]:
        """Share of the budget that is left: a linear schedule from 1 at the start to 0 at its end and beyond."""
        return jnp.clip(1.0 - self.fraction, 0.0, 1.0)


class Episode(NamedTuple):
    """Running return and length of each actor's episode, and the number of episodes that the run has finished."""

    returns: Float[Array, " N"]
    length: Int[Array, " N"]
    finished: Int[Array, ""]


class Learner(NamedTuple):
    """State of an agent's learning, split by what each part is used for.

    Attributes:
        params: All that acting greedily, evaluating and exporting need: parameters of networks, running statistics of
            observations.
        optimizer: The state of the optimizers.
        memory: A replay memory of any type. It is never exported, nor kept with the best parameters, and it is still
            written after a run has ended, because selecting between its old and its new contents would copy it.
        extra: Anything else, such as target networks or the workers' copies of parameters.
    """

    params: PyTree
    optimizer: PyTree = None
    memory: PyTree = None
    extra: PyTree = None


class ActorOutput(NamedTuple):
    """Output of an agent's `act` and `policy`.

    Attributes:
        action: One action per actor, [N, ...]; those of `policy` have the leading axes of its observations.
        extras: Whatever `update` needs of this step besides the action, such as log-probabilities or values, [N, ...].
            They travel in `Transition.extras`; those of `policy` are not used.
        carry: The actors' recurrent state after this step, with the same leading axes; () for feed-forward agents.
    """

    action: Num[Array, "..."]
    extras: PyTree = ()
    carry: PyTree = ()


class RunState(NamedTuple):
    """Complete state of a training run, the carry of the training loop.

    Attributes:
        learner: State of the agent's learning.
        env_state: States of the N environments.
        observation: Observations from which the next actions start, [N, ...].
        episode: Statistics of the running episodes.
        active: False once the run has used up its budget of episodes, or is solved where that ends it; from then on
            nothing but its learner's memory changes.
        key: The run's random key.
        recent: Returns of the last W episodes where they decide whether the run is solved, else None.
        carry: Recurrent state of the actors, [N, ...]; () for feed-forward agents.
    """

    learner: Learner
    env_state: PyTree
    observation: Num[Array, N * observation]
    episode: Episode
    active: Bool[Array, ""]
    key: Any
    recent: Float[Array, " W"] | None = None
    carry: PyTree = ()


def _no_carry(config: Any, env: Env) -> tuple[()]:
    """Return the empty recurrent state of a feed-forward agent."""
    return ()


def _rollout_only(config: Any) -> int:
    """Return the batch size of an agent that learns from its rollout alone."""
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
    initial_carry: Callable[..., PyTree] = _no_carry
    batch_size: Callable[..., int] = _rollout_only
    summary: str = ""
