"""Policies as users call them: from gymnasium, with numpy, and inside JAX's transformations."""

import pickle

import cloudpickle
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl
from purejaxrl.agents import dqn, vpg
from purejaxrl.analysis.policy import Policy
from purejaxrl.envs import Images
from purejaxrl.errors import InputError, UnsupportedError
from purejaxrl.training import devices

CARTPOLE = [0.01, -0.02, 0.03, 0.04]


def untrained(agent, env, **fields):
    config = agent.Config(**fields)
    return Policy(agent, config, env, agent.init(config, env, jax.random.key(0)).params)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    small = {"epochs": 2, "steps_per_epoch": 40, "actors": 2, "train_v_iters": 2, "hidden_sizes": (4,)}
    return purejaxrl.train("vpg", **small, out=tmp_path_factory.mktemp("policy") / "run")


@pytest.fixture(scope="module")
def swing():
    return untrained(vpg.agent, purejaxrl.make("Pendulum-v1"))


@pytest.fixture(scope="module")
def seeing():
    env = purejaxrl.make("CartPole-v0", images=Images(image_size=(8, 16)))
    return untrained(dqn.agent, env, image="stack", image_size=(8, 16))


def test_gymnasium_takes_what_it_returns(result):
    policy, env = result.policy(), gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        action = policy(observation)
        assert type(action) is int
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)
    many = gymnasium.make_vec("CartPole-v1", 3, vectorization_mode="sync")
    observations, _ = many.reset(seed=0)
    actions = policy(observations)
    assert type(actions) is np.ndarray
    assert many.action_space.contains(actions)
    many.step(actions)
    assert actions.tolist() == [policy(row) for row in observations]
    assert repr(policy) == "<Policy: vpg on CartPole-v0>"


def test_gymnasium_takes_continuous_actions(swing):
    env = gymnasium.make("Pendulum-v1")
    observation, _ = env.reset(seed=0)
    action = swing(observation)
    assert (type(action), action.shape, action.dtype) == (np.ndarray, (1,), np.float32)
    env.step(action)
    action += 1  # it is a copy that the caller may write to
    many = gymnasium.make_vec("Pendulum-v1", 3, vectorization_mode="sync")
    observations, _ = many.reset(seed=0)
    assert swing(observations).shape == (3, 1)
    many.step(swing(observations))


def test_continuous_actions_are_within_their_bounds(swing):
    """As the environment of the training clips them, which others do not."""
    params = swing.params._replace(pi=jax.tree.map(lambda leaf: 1e3 * jnp.ones_like(leaf), swing.params.pi))
    pushed = Policy(swing.agent, swing.config, swing.env, params)
    space = gymnasium.make("Pendulum-v1").action_space
    for sign in (1, -1):
        observation = sign * np.ones(3, np.float32)
        assert space.contains(pushed(observation))
    assert pushed(np.ones((2, 3))).tolist() == [[2.0], [2.0]]
    assert pushed(jnp.ones(3)).tolist() == [2.0]


def test_jax_gets_what_jax_gave(result):
    policy = result.policy()
    rows = jax.random.normal(jax.random.key(1), (6, 4))
    expected = policy(rows)
    assert isinstance(expected, jax.Array)
    assert isinstance(policy(rows[0]), jax.Array)
    np.testing.assert_array_equal(jax.jit(policy)(rows), expected)
    np.testing.assert_array_equal(jax.vmap(policy)(rows), expected)
    np.testing.assert_array_equal(jax.lax.scan(lambda _, row: (None, policy(row)), None, rows)[1], expected)
    np.testing.assert_array_equal(jax.jit(lambda: policy(np.asarray(rows)))(), expected)
    np.testing.assert_array_equal(policy(np.asarray(rows)), expected)
    np.testing.assert_array_equal(policy(list(rows)), expected)
    assert isinstance(policy(list(rows[0])), jax.Array)


def test_lists_are_observations(result):
    policy = result.policy()
    assert type(policy(CARTPOLE)) is type(policy(tuple(CARTPOLE))) is type(policy([0, 0, 0, 0])) is int
    assert policy([CARTPOLE, CARTPOLE]).tolist() == [policy(np.array(CARTPOLE))] * 2


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        (np.zeros(3), r"policy: the observation has shape \[3\]; CartPole-v0 takes one observation, \[4\], or a batch"),
        (jnp.zeros((4, 3)), r"has shape \[4, 3\]; .* or a batch, \[\.\.\., 4\]$"),
        (0.5, r"has shape \[\]; "),
        ((np.zeros(4), {}), r"a tuple that holds a dict, as \(observation, info\) of gymnasium's reset; CartPole"),
        ((np.zeros(4), 1.0, False, False, {}), "a tuple that holds a dict"),
        (np.zeros((0, 4)), r"the batch is empty, of shape \[0, 4\]; CartPole-v0 takes"),
        (jnp.zeros((2, 0, 4)), r"the batch is empty, of shape \[2, 0, 4\]"),
        ([], r"has shape \[0\]"),
        ({"observation": CARTPOLE}, "a dict is not an array of numbers; CartPole-v0 takes"),
        (None, "a NoneType is not an array of numbers"),
        ("left", "a str is not an array of numbers"),
        ([CARTPOLE, CARTPOLE[:3]], "a list is not an array of numbers"),
        ([10**400, 0.0, 0.0, 0.0], "a list is not an array of numbers"),
        ((jnp.zeros(4), (jnp.zeros(()), jnp.zeros(2))), "a tuple is not an array of numbers"),
        (np.zeros(4, complex), "an? ndarray is not an array of numbers"),
        (jax.random.key(0), "is not an array of numbers"),
    ],
)  # fmt: skip
def test_what_is_no_observation_is_refused_in_one_line(result, observation, words):
    with pytest.raises(InputError, match=words) as caught:
        result.policy()(observation)
    assert "\n" not in str(caught.value)


def test_images_are_refused_where_their_numbers_are_taken(seeing):
    observation, _ = seeing.env.reset(jax.random.key(0))
    assert type(seeing(np.asarray(observation))) is int
    words = (
        r"\[8, 16, 2\]; .* takes one observation, \[2, 2\], or a batch, \[\.\.\., 2, 2\]: not images, but the numbers"
    )
    with pytest.raises(InputError, match=words):
        seeing(np.zeros((8, 16, 2)))


@pytest.mark.slow
def test_a_policy_is_pickled_before_and_after_its_first_call(result, swing, seeing):
    for policy, shape in ((result.policy(), (5, 4)), (swing, (5, 3)), (seeing, (5, 2, 2))):
        observations = np.random.default_rng(0).normal(scale=0.1, size=shape)
        again = pickle.loads(pickle.dumps(policy))
        expected = policy(observations)
        np.testing.assert_array_equal(again(observations), expected)
        for module in (pickle, cloudpickle):
            np.testing.assert_array_equal(module.loads(module.dumps(policy))(observations), expected)


def test_a_session_in_float64_is_served_as_any_other(result):
    policy = result.policy()
    with jax.enable_x64(True):
        observation = jnp.asarray(CARTPOLE)
        assert observation.dtype == jnp.float64
        action = policy(observation)
    assert action.dtype == jnp.int32
    assert int(action) == policy(CARTPOLE)


def test_a_process_forked_after_jax_has_started_gets_an_error(result, monkeypatch):
    policy = result.policy()
    monkeypatch.setattr(devices, "lacks_threads", True)
    with pytest.raises(UnsupportedError, match="forked"):
        policy(CARTPOLE)
