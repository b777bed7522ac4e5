"""Environments: physics against gymnasium, endings, true last observations, names and errors."""

import subprocess
import sys
from functools import partial

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.wrappers.purerl import FlattenObservationWrapper
from helpers import PROGRESS
from probes import Continuous, Counter, Dictionary, Echo, Endless

from purejaxrl.agents import vpg
from purejaxrl.envs import make, names
from purejaxrl.envs.registry import convert_action_space
from purejaxrl.errors import InputError
from purejaxrl.training.loop import init_run
from purejaxrl.training.rollout import rollout
from purejaxrl.types import Discrete


@pytest.mark.parametrize(("name", "limit"), [("CartPole-v0", 200), ("CartPole-v1", 500)])
def test_one_step_physics_against_gymnasium(name, limit):
    """Set both to the same state, step once, compare; open loop they would part, as the system is chaotic."""
    env = make(name)
    reference = gymnasium.make("CartPole-v1").unwrapped
    rng = np.random.default_rng(0)
    reference.reset(seed=0)
    step = jax.jit(env.step)
    _, state = env.reset(jax.random.key(0))
    for i in range(500):
        values = rng.uniform(-1, 1, 4) * np.array([2.6, 3.0, 0.25, 3.0])
        action = int(rng.integers(2))
        reference.state = values
        reference.steps_beyond_terminated = None
        state = state.replace(
            time=i % (limit - 1), **dict(zip(("x", "x_dot", "theta", "theta_dot"), jnp.float32(values), strict=True))
        )
        if abs(values[0]) > 2.4 or abs(values[2]) > 12 * 2 * np.pi / 360:
            continue  # no step starts beyond the limits
        timestep = step(jax.random.key(i), state, action)
        expected, reward, terminated, _, _ = reference.step(action)
        np.testing.assert_allclose(timestep.next_observation, expected, atol=5e-6)
        assert timestep.reward == reward == 1
        assert timestep.terminated == terminated
        assert not timestep.truncated


def play(env, steps, seed=0):
    """Timesteps of a random policy, stacked."""

    def step(carry, key):
        state, _ = carry
        action_key, env_key = jax.random.split(key)
        timestep = env.step(env_key, state, jax.random.randint(action_key, (), 0, 2))
        return (timestep.state, timestep.observation), (carry[1], timestep._replace(state=None))

    observation, state = env.reset(jax.random.key(seed))
    keys = jax.random.split(jax.random.key(seed + 1), steps)
    return jax.jit(partial(jax.lax.scan, step))((state, observation), keys)[1]


@pytest.mark.parametrize("limit", [7, 3])
def test_time_limit_truncates_with_the_true_last_observation(limit):
    """The observation counts the steps: before a truncated step it is limit - 1, the true next one is limit, then 0."""
    before, timestep = play(make(Counter(), max_ep_len=limit), 5 * limit)
    expected = np.arange(5 * limit) % limit
    np.testing.assert_array_equal(before[:, 0], expected)
    np.testing.assert_array_equal(timestep.next_observation[:, 0], expected + 1)
    np.testing.assert_array_equal(timestep.truncated, expected == limit - 1)
    np.testing.assert_array_equal(timestep.observation[:, 0], (expected + 1) % limit)
    assert not np.any(timestep.terminated)


def test_a_step_that_ends_by_itself_at_the_limit_is_both():
    _, timestep = play(make(Counter(length=4), max_ep_len=4), 8)
    np.testing.assert_array_equal(timestep.terminated, np.arange(8) % 4 == 3)
    np.testing.assert_array_equal(timestep.truncated, np.arange(8) % 4 == 3)


def test_max_ep_len_counts_each_episode_from_zero():
    """Episodes end by themselves after 3 steps; a limit of 5 must never cut one."""
    _, timestep = play(make(Counter(length=3), max_ep_len=5), 30)
    assert not np.any(timestep.truncated)
    np.testing.assert_array_equal(timestep.terminated, np.arange(30) % 3 == 2)


def test_cartpole_endings():
    before, timestep = play(make("CartPole-v0"), 3000)
    ended = np.asarray(timestep.terminated | timestep.truncated)
    assert ended.sum() > 50
    # Within an episode the next observation is the observation; after its end they differ.
    same = np.all(np.asarray(timestep.observation) == np.asarray(timestep.next_observation), axis=1)
    np.testing.assert_array_equal(same, ~ended)
    assert np.all(np.abs(np.asarray(timestep.observation)[ended]) <= 0.05)
    last = np.asarray(timestep.next_observation)[np.asarray(timestep.terminated)]
    assert np.all((np.abs(last[:, 0]) > 2.4) | (np.abs(last[:, 2]) > 12 * 2 * np.pi / 360))
    np.testing.assert_array_equal(np.asarray(before)[1:], np.asarray(timestep.observation)[:-1])


def test_limit_of_the_environment_is_kept_where_it_is_shorter():
    assert make("CartPole-v0", max_ep_len=1000).max_episode_steps == 200
    assert make("CartPole-v0", max_ep_len=50).max_episode_steps == 50
    assert make("CartPole-v1").max_episode_steps == 500


def test_wrapped_gymnax_objects_keep_their_wrapping():
    """A wrapper's own step must be used, not the wrapped environment's."""
    inner, params = gymnax.make("Catch-bsuite")
    assert make("Catch-bsuite").observation_shape == (10, 5)
    env = make(FlattenObservationWrapper(inner), params)
    assert env.observation_shape == (50,)
    observation, state = env.reset(jax.random.key(0))
    timestep = env.step(jax.random.key(1), state, jnp.int32(0))
    assert timestep.observation.shape == timestep.next_observation.shape == observation.shape == (50,)


@pytest.mark.parametrize(
    "name", ["Acrobot-v1", "FourRooms-misc", "FrozenLake-misc", "Breakout-MinAtar", "DeepSea-bsuite"]
)
def test_other_environments_by_name(name):
    env = make(name)
    observation, state = env.reset(jax.random.key(0))
    assert observation.shape == env.observation_shape
    assert observation.dtype == jnp.float32
    assert isinstance(env.action_space, Discrete)
    timestep = env.step(jax.random.key(1), state, jnp.int32(1))
    assert timestep.next_observation.shape == env.observation_shape


def test_solved_at():
    assert make("CartPole-v0").solved_at == 195
    assert make("CartPole-v1").solved_at == 475
    assert make("Acrobot-v1").solved_at is None
    assert make("Acrobot-v1", solved_at=-100.0).solved_at == -100


def test_errors_name_the_value_and_what_is_allowed():
    with pytest.raises(InputError, match=r"'CartPole-v2'.*CartPole-v0, CartPole-v1, .*Acrobot-v1"):
        make("CartPole-v2")
    with pytest.raises(InputError, match="Dictionary has observations of a Dict space"):
        make(Dictionary())
    with pytest.raises(InputError, match=r"env_params: EnvParams.* is not allowed; CartPole-v1 takes gymnax.*cartpole"):
        make("CartPole-v1", gymnax.make("Pendulum-v1")[1])
    with pytest.raises(InputError, match="odd has actions of a Dict space; agents take Discrete or Box"):
        convert_action_space("odd", gymnax.environments.spaces.Dict({}))
    assert "CartPole-v0" in names()
    assert make(Continuous()).action_space.shape == (1,)
    assert make(Endless(), max_ep_len=9).max_episode_steps == 9


def test_the_environment_receives_actions_clipped_to_its_bounds():
    """Of any shape, with bounds of their own for every entry; the transition keeps what was sampled."""
    env = make(Echo(), max_ep_len=100)
    assert env.action_space.shape == (2, 3)
    _, state = env.reset(jax.random.key(0))
    action = jnp.array([[-9.0, -0.25, 9.0], [9.0, 3.5, -9.0]])
    timestep = env.step(jax.random.key(1), state, action)
    np.testing.assert_allclose(timestep.next_observation, [[-0.5, -0.25, 2.0], [3.0, 3.5, -0.5]])

    config = vpg.Config(epochs=1, steps_per_epoch=40, actors=2, hidden_sizes=(4,))
    run = init_run(vpg.agent, env, config, jax.random.key(2))
    _, batch, _ = rollout(vpg.agent, env, config, run, PROGRESS, jax.random.key(3))
    sampled = np.asarray(batch.action)
    assert sampled.shape == (20, 2, 2, 3)
    assert np.min(sampled) < -1
    np.testing.assert_allclose(batch.next_observation, np.clip(sampled, -0.5, np.arange(6.0).reshape(2, 3)))


def test_what_gymnax_draws_with_is_imported_once_it_draws():
    code = """
import sys
from purejaxrl.envs import make
make("CartPole-v1")
assert not {"matplotlib", "matplotlib.pyplot", "matplotlib.colors", "seaborn"} & set(sys.modules)
from gymnax.environments.misc import pong
assert not {"matplotlib", "seaborn"} & set(sys.modules)
import matplotlib.colors
import matplotlib.pyplot
import seaborn
assert pong.plt.subplots is matplotlib.pyplot.subplots
assert pong.colors.ListedColormap is matplotlib.colors.ListedColormap
assert pong.sns.color_palette("viridis", 3) == seaborn.color_palette("viridis", 3)
assert not hasattr(pong.plt, "no_such_function")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_other_threads_never_see_what_stands_in_for_it():
    code = """
import builtins, sys, threading
from purejaxrl.envs import make
plain, found = builtins.__import__, []
def standard(name, globals=None, *more):
    if name == "jax" and not found and globals["__name__"].startswith("gymnax"):
        # While gymnax is being imported.
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    return plain(name, globals, *more)
def look():
    import matplotlib.pyplot
    import seaborn
    found.extend([matplotlib.pyplot, seaborn.__file__])
builtins.__import__ = standard
make("CartPole-v1")
assert builtins.__import__ is standard
from gymnax.environments.bsuite import catch
assert found[0] is sys.modules["matplotlib.pyplot"] is not catch.plt
assert catch.plt.subplots is found[0].subplots
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_threads_that_make_environments_at_once():
    code = """
import builtins, sys, threading
from purejaxrl.envs import make
standard, made = builtins.__import__, []
threads = [threading.Thread(target=lambda: made.append(make("CartPole-v1").name)) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert made == ["CartPole-v1"] * 4
assert builtins.__import__ is standard
assert "matplotlib" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_gymnax_is_whole_where_it_imports_more_than_is_known():
    code = """
import sys
from purejaxrl.envs import registry
registry.FOR_ANIMATIONS = ("seaborn",)
registry.make("CartPole-v1")
assert "matplotlib.pyplot" in sys.modules and "seaborn" not in sys.modules
import gymnax
assert "Pong-misc" in gymnax.registered_envs
"""
    subprocess.run([sys.executable, "-c", code], check=True)
