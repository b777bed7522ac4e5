"""Tiny environments whose values are known, written as gymnax environments."""

import jax
import jax.numpy as jnp
from flax import struct
from gymnax.environments import environment, spaces

from purejaxrl.agents import dqn
from purejaxrl.components.hyperparameters import Real, budget, config, leaf, static
from purejaxrl.envs import Renderer


@struct.dataclass
class ProbeState:
    time: jax.Array
    observation: jax.Array


@struct.dataclass
class ProbeParams:
    max_steps_in_episode: int = 10**9


class Probe(environment.Environment):
    """Base of the probes: one observation number in [0, 1), two actions, 0 or 1."""

    @property
    def default_params(self):
        return ProbeParams()

    def reset_env(self, key, params):
        state = ProbeState(jnp.zeros((), jnp.int32), self.first(key))
        return state.observation, state

    def step_env(self, key, state, action, params):
        reward, terminated, observation = self.transition(key, state, action)
        following = ProbeState(state.time + 1, observation)
        return observation, following, jnp.float32(reward), jnp.asarray(terminated, bool), {}

    def first(self, key):
        return jnp.zeros(1)

    def action_space(self, params=None):
        return spaces.Discrete(2)

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (1,))


class Endless(Probe):
    """Reward 1 for ever: V = 1 / (1 - gamma)."""

    def transition(self, key, state, action):
        return 1.0, False, state.observation


class OneStep(Probe):
    """One step, reward 1: V = 1 whatever gamma is."""

    def transition(self, key, state, action):
        return 1.0, True, state.observation


class TwoSteps(Probe):
    """No reward, then 1: V(0) = gamma, V(1) = 1."""

    def transition(self, key, state, action):
        return state.time.astype(jnp.float32), state.time == 1, jnp.ones(1)


class Choice(Probe):
    """One step, reward 1 for action 1 and 0 for action 0."""

    def transition(self, key, state, action):
        return action.astype(jnp.float32), True, state.observation


class Signal(Probe):
    """One step; the observation is a coin, and the action that equals it earns 1."""

    def first(self, key):
        return jax.random.bernoulli(key, shape=(1,)).astype(jnp.float32)

    def transition(self, key, state, action):
        return (action == state.observation[0]).astype(jnp.float32), True, state.observation


class Counter(Probe):
    """The observation counts the steps of the episode, and it ends after `length` of them, or never."""

    def __init__(self, length=10**6):
        super().__init__()
        self.length = length

    def transition(self, key, state, action):
        return 1.0, state.time + 1 >= self.length, state.observation + 1

    def observation_space(self, params):
        return spaces.Box(0.0, jnp.inf, (1,))


class Continuous(Endless):
    """Endless, with real-valued actions."""

    def action_space(self, params=None):
        return spaces.Box(-1.0, 1.0, (1,))


class Target(Probe):
    """One step; the action is in [-5, 5]^2 and the reward minus its squared distance from `optimum`."""

    optimum = (0.3, -0.6)

    def transition(self, key, state, action):
        return -jnp.sum(jnp.square(action - jnp.array(self.optimum))), True, state.observation

    def action_space(self, params=None):
        return spaces.Box(-5.0, 5.0, (2,))


class Echo(Probe):
    """Never ends; observes the action that it received, of shape [2, 3], bounded by a box of arrays."""

    def transition(self, key, state, action):
        return 0.0, False, action

    def first(self, key):
        return jnp.zeros((2, 3))

    def action_space(self, params=None):
        return spaces.Box(jnp.full((2, 3), -0.5), jnp.arange(6.0).reshape(2, 3), (2, 3))

    def observation_space(self, params):
        return spaces.Box(-1.0, 6.0, (2, 3))


class Dictionary(Endless):
    """Endless, with observations that no agent takes."""

    def observation_space(self, params):
        return spaces.Dict({"a": spaces.Discrete(2)})


def render_brightness(numbers, height, width, channels):
    """An image as bright everywhere as its only number says; RGB is that at full, 3/4 and half strength."""
    shades = jnp.linspace(1.0, 0.5, channels)
    image = numbers[..., None, None, :] * shades.reshape((1,) * (numbers.ndim + 1) + (-1,))
    return jnp.broadcast_to(image, (*numbers.shape[:-1], height, width, channels))


# The first number observed, as it is; and how CartPole's pole leans, gray where it stands upright.
FIRST_NUMBER = Renderer(lambda observation: observation[..., :1], render_brightness)
LEANING_POLE = Renderer(lambda observation: 0.5 + observation[..., 2:3], render_brightness)


@config
class Wider(dqn.Config):
    """DQN's, and one more."""

    beta: Real = leaf(0.5, "something", above=0)


@config
class Alone:
    """A Config that extends none."""

    env_steps: int = budget(100, "env steps")
    actors: int = static(2, "environments", at_least=1)
    norm: Real = leaf(0.5, "something", above=0)
