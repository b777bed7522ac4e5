"""Environments of a user's own: gymnax objects old and new, Envs of pure functions, and those of other libraries."""

from typing import NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import run_page
from PIL import Image
from probes import FIRST_NUMBER, Counter, Probe, ProbeParams

import purejaxrl
from purejaxrl import Continuous, Discrete, Env, InputError, Timestep
from purejaxrl.cli.listing import _format_environments
from purejaxrl.envs import ENVIRONMENTS, EnvEntry, names
from purejaxrl.experiment.plan import plan_train
from purejaxrl.experiment.validation import check_env


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the page defines, once all that it shows has run."""
    return run_page("bring-your-own.md", tmp_path_factory.mktemp("page"))


class FiveValues(Counter):
    """As gymnax 0.0 had it."""

    def step(self, key, state, action, params=None):
        observation, state, reward, terminated, _, info = super().step(key, state, action, params)
        return observation, state, reward, terminated, info


class Forgetful(Counter):
    """Six values, and nothing of the last observation."""

    def step(self, key, state, action, params=None):
        return (*super().step(key, state, action, params)[:5], {})


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (FiveValues(), "step of FiveValues returns 5 values; as gymnax since 1.0 it must return six"),
        (Forgetful(), r"step of Forgetful must tell the last observation in info\['final_observation'\]"),
        (3, "3 is no name, Env or gymnax environment; it has no reset"),
    ],
)
def test_what_is_no_gymnax_environment_of_today(env, words):
    with pytest.raises(InputError, match=words):
        plan_train("vpg", env=env, max_ep_len=10)


def walk_of(**parts):
    """Goes up by one; ends at 3."""

    def step(key, state, action):
        up = state + 1.0
        is_end = up >= 3
        following = jnp.where(is_end, 0.0, up)
        return Timestep(following, following[None], up, is_end, jnp.zeros((), bool), up[None])

    whole = Env("walk", (1,), Discrete(2), 10, None, lambda key: (jnp.zeros(1), jnp.zeros(())), step)
    return whole._replace(**parts)


def stepping(**changes):
    return lambda key, state, action: walk_of().step(key, state, action)._replace(**changes)


def test_an_env_is_taken_as_it_is():
    plan = plan_train("vpg", env=walk_of(), max_ep_len=2, solved_at=5, epochs=1)
    made = plan.settings[0].env
    assert (made.name, made.max_episode_steps, made.solved_at) == ("walk", 2, 5)
    assert plan.as_dict()["env"] == "custom: walk"
    assert plan_train("vpg", env=walk_of(solved_at=7.0)).solved_at == 7
    with pytest.raises(InputError, match="env_params: they go with an environment of gymnax; walk is an Env"):
        plan_train("vpg", env=walk_of(), env_params={})
    with pytest.raises(InputError, match="max_ep_len: walk has no time limit"):
        plan_train("vpg", env=walk_of(max_episode_steps=2**31 - 1), max_ep_len=None)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"max_episode_steps": 0}, "max_episode_steps is 0; it must be an int from 1"),
        ({"reset": lambda key: jnp.zeros(1)}, r"reset returned a \w+; it must return \(observation, state\)"),
        (
            {"reset": lambda key: (jnp.zeros(2), jnp.zeros(()))},
            r"reset: observation is float32\[2\]; it must be float32\[1\]",
        ),
        ({"reset": lambda key: (jnp.zeros(1, int), jnp.zeros(()))}, r"observation is int32\[1\]; it must be float32"),
        ({"reset": lambda: 0}, r"reset\(key\) raised TypeError"),
        ({"step": lambda key, state, action: (1, 2, 3)}, "step returned 3 values; it must return a purejaxrl.Timestep"),
        ({"step": lambda key, state, action: 1 / 0}, "step.* raised ZeroDivisionError"),
        ({"step": stepping(reward=1)}, r"step: reward is int32\[\]; it must be float32\[\]"),
        ({"step": stepping(terminated=jnp.zeros(()))}, r"step: terminated is float32\[\]; it must be bool\[\]"),
        (
            {"step": stepping(next_observation=jnp.zeros(()))},
            r"next_observation is float32\[\]; it must be float32\[1\]",
        ),
        ({"step": stepping(state=(0.0, 1.0))}, r"step returned .* reset made it"),
    ],
)
def test_an_env_that_does_not_fit_is_refused(parts, words):
    with pytest.raises(InputError, match=words) as caught:
        plan_train("vpg", env=walk_of(**parts), epochs=1)
    assert str(caught.value).startswith("env: walk: ")
    assert "\n" not in str(caught.value)


class State(NamedTuple):
    """As brax has it."""

    obs: jax.Array
    reward: jax.Array
    done: jax.Array


class LikeBrax:
    """The observation counts steps, and the third is the last; the reward is the action received."""

    action_size, observation_size = 1, 1

    def reset(self, key):
        return State(jnp.zeros(1), jnp.zeros(()), jnp.zeros(()))

    def step(self, state, action):
        count = state.obs + 1
        return State(count, action[0], (count[0] >= 3).astype(float))


class StoaTimestep(NamedTuple):
    """As stoa has it; 2 and 3 are last steps."""

    step_type: jax.Array
    reward: jax.Array
    discount: jax.Array
    observation: jax.Array

    def last(self):
        return self.step_type >= 2


class StoaBox(NamedTuple):
    shape: tuple
    minimum: float
    maximum: float


class StoaDiscrete(NamedTuple):
    num_values: object


class LikeStoa:
    """The same; the third step ends with this discount, and is called terminated whatever that is, as jumanji's is."""

    def __init__(self, discount, space):
        self.discount, self.space = discount, space

    def action_space(self):
        return self.space

    def reset(self, key):
        return jnp.zeros(()), StoaTimestep(jnp.int8(0), jnp.zeros(()), jnp.ones(()), jnp.zeros(1))

    def step(self, state, action):
        count = state + 1
        is_last = count >= 3
        kind, discount = jnp.where(is_last, 2, 1).astype(jnp.int8), jnp.where(is_last, self.discount, 1.0)
        return count, StoaTimestep(kind, jnp.sum(action).astype(float), discount, count[None])


def steps_of(env, action, count):
    """Observation, reward, terminated, truncated and next observation of some steps, one row each."""
    check_env(env)
    _, state = env.reset(jax.random.key(0))
    rows = []
    for number in range(count):
        timestep = env.step(jax.random.key(number), state, action)
        state = timestep.state
        seen, following = float(timestep.observation[0]), float(timestep.next_observation[0])
        rows.append((seen, float(timestep.reward), bool(timestep.terminated), bool(timestep.truncated), following))
    return rows


@pytest.mark.slow
def test_an_environment_like_brax_by_the_page(page):
    env = page["from_brax"](LikeBrax(), "counter")
    assert env.action_space == Continuous((1,), -1.0, 1.0)
    no, yes = False, True
    # The action, out of bounds, is clipped; the episode that has ended begins anew, and its last observation is kept.
    expected = [(1, 1, no, no, 1), (2, 1, no, no, 2), (0, 1, yes, no, 3), (1, 1, no, no, 1)]
    assert steps_of(env, jnp.array([5.0]), 4) == expected
    assert steps_of(purejaxrl.make(env, max_ep_len=2), jnp.array([5.0]), 2)[1] == (0, 1, no, yes, 2)


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_an_environment_like_stoas(discount):
    """A last step with a discount is cut, one without is an end."""
    env = purejaxrl.from_stoa(LikeStoa(discount, StoaBox((2,), -1.0, 1.0)), name="counter", max_episode_steps=9)
    is_end = discount == 0
    expected = [(1, 2, False, False, 1), (2, 2, False, False, 2), (0, 2, is_end, not is_end, 3)]
    assert steps_of(env, jnp.array([5.0, 1.0]), 3) == expected
    assert env.max_episode_steps == 9
    short = purejaxrl.from_stoa(LikeStoa(0.0, StoaDiscrete(3)), name="counter", max_episode_steps=2)
    assert short.action_space == Discrete(3)
    assert steps_of(short, jnp.array(2), 2)[1] == (0, 2, False, True, 2)


def test_what_stoa_has_and_agents_do_not_take():
    with pytest.raises(InputError, match="c has actions of a StoaDiscrete; agents take discrete ones or a box"):
        purejaxrl.from_stoa(LikeStoa(0.0, StoaDiscrete(np.array([2, 3]))), name="c", max_episode_steps=9)

    class Two(LikeStoa):
        def reset(self, key):
            state, timestep = super().reset(key)
            return state, timestep._replace(observation={"a": jnp.zeros(1), "b": jnp.ones(2)})

        def step(self, state, action):
            state, timestep = super().step(state, action)
            return state, timestep._replace(observation={"a": timestep.observation, "b": jnp.ones(2)})

    inner = Two(0.0, StoaDiscrete(2))
    with pytest.raises(InputError, match="c observes a dict and agents one array; give observe="):
        purejaxrl.from_stoa(inner, name="c", max_episode_steps=9)
    env = purejaxrl.from_stoa(inner, name="c", max_episode_steps=9, observe=lambda seen: seen["a"])
    assert steps_of(env, jnp.array(0), 2)[1][4] == 2


@pytest.mark.slow
def test_the_walk_of_the_page(page):
    """The right end after three steps to the right, and then the start."""
    assert [row[0] for row in steps_of(page["walk"], jnp.array(1), 4)] == [1, 2, 0, 1]
    assert [row[2] for row in steps_of(page["walk"], jnp.array(1), 3)] == [False, False, True]
    assert steps_of(page["walk"], jnp.array(0), 4)[3][0] == -3
    assert page["result"].summary_json["runs_ok"] == 1


class Dusk(Probe):
    """It gets dark in six steps; action 1 earns 1 at any of them."""

    def transition(self, key, state, action):
        return action.astype(jnp.float32), state.time >= 5, state.observation - 0.125

    def first(self, key):
        return jnp.ones(1)


class DuskInGymnasium(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self.light, self.time = 1.0, 0
        return np.full(1, self.light, np.float32), {}

    def step(self, action):
        self.light, self.time = self.light - 0.125, self.time + 1
        return np.full(1, self.light, np.float32), float(action), self.time >= 6, False, {}


@pytest.fixture
def dusk(monkeypatch):
    """Adds an environment to the package, by one entry, and to gymnasium."""
    gymnasium.register("Dusk-v0", DuskInGymnasium)
    entry = EnvEntry(
        make=lambda: (Dusk(), ProbeParams(max_steps_in_episode=8)),
        solved_at=6.0,
        renderer=FIRST_NUMBER._replace(step_seconds=0.05),
        gymnasium="Dusk-v0",
    )
    monkeypatch.setitem(ENVIRONMENTS, "Dusk", entry)
    yield "Dusk"
    gymnasium.registry.pop("Dusk-v0")


def test_an_environment_is_added_by_one_entry(dusk, tmp_path):
    assert dusk in names()
    assert "  Dusk          solved at 6, images\n" in _format_environments(names())
    result = purejaxrl.train(
        "dqn", env=dusk, observation_type="img", image="stack", frames=2, image_size=(8, 8), channels=1, seeds=2,
        hidden_sizes=(4,), batch_size=8, memory_size=64, env_steps=120, out=tmp_path / "run",
    )  # fmt: skip
    assert result.plan.settings[0].env.max_episode_steps == 8

    run = purejaxrl.load(tmp_path / "run")
    returns = [run.evaluate(4, backend=backend).returns["return"].tolist() for backend in ("gymnax", "gymnasium")]
    assert returns[0] == returns[1]

    with Image.open(run.video(tmp_path / "dusk.gif")) as video:
        frames = [(video.seek(k), video.convert("RGB").getpixel((0, 0))[0], video.info["duration"]) for k in range(4)]
    # Every second step of six, in real time; the GIF rests at the last.
    assert [shade for _, shade, _ in frames] == [255, 191, 128, 64]
    assert [duration for _, _, duration in frames] == [100, 100, 100, 1000]


@pytest.mark.slow
def test_gymnasium_sees_what_a_custom_renderer_selects(dusk, tmp_path):
    """The environment's own renderer selects another number."""
    dark = FIRST_NUMBER._replace(select=lambda observation: 1.0 - observation[..., :1])
    result = purejaxrl.train(
        "dqn", env=dusk, observation_type="img", renderer=dark, image="stack", frames=1, image_size=(8, 8), channels=1,
        seeds=4, hidden_sizes=(4,), batch_size=8, memory_size=64, env_steps=60, out=tmp_path / "run",
    )  # fmt: skip
    returns = [result.evaluate(4, backend=backend).returns["return"].tolist() for backend in ("gymnax", "gymnasium")]
    assert returns[0] == returns[1]
