"""What components assert of ranks, shapes and types: what is refused, in which words, and that it costs nothing."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PROGRESS
from probes import Target

from purejaxrl.agents import dqn, vpg
from purejaxrl.components import actor_critic, distributions, exploration, networks, preprocessing, returns
from purejaxrl.components import replay as ring
from purejaxrl.envs import make
from purejaxrl.types import Continuous, Discrete, Transition

STEPS, LONGER, NEVER = jnp.ones((5, 2)), jnp.ones((6, 2)), jnp.zeros((5, 2), bool)
CARTPOLE = make("CartPole-v0")
STATISTICS = preprocessing.RunningStatistics(jnp.float32(1), jnp.zeros(4), jnp.ones(4))
ROWS = ring.Replay(jnp.zeros((6, 3)))
FIRST = jnp.int32(0)
KEY = np.array([0, 1], np.uint32)
PAIR = Continuous((2,), -1.0, 1.0)


def key():
    """A new one for every test, as none is used twice."""
    return jax.random.wrap_key_data(jnp.asarray(KEY))


def next_value_of(value, next_inputs, truncated):
    return actor_critic.next_state_value(lambda x: x[..., 0], value, next_inputs, truncated)


def loss_of(advantage):
    env = CARTPOLE._replace(action_space=Discrete(3))
    return actor_critic.policy_gradient_loss(env, jnp.zeros((5, 3)), jnp.zeros(5, int), advantage, 0.0)


def enhanced(image):
    return preprocessing.enhance(dqn.Config(image="stack", frames=3, channels=1, motion_scale=2.0), image)


def preprocessed(observation, next_observation):
    empty = jnp.zeros(5)
    batch = Transition(observation, empty, empty, empty, empty, next_observation)
    return preprocessing.preprocess(vpg.Config(), CARTPOLE, batch)


def convolved(images):
    network = networks.ConvNet((2,), (2,), (1,), (4,), 2, "relu")
    return network.init(key(), images)


def applied(observation):
    network = networks.MLP((3,), 2, "tanh")
    return networks.apply_network(network, networks.init_network(network, key(), (4,)), observation, (4,))


def td_loss_of(target):
    config = dqn.Config(hidden_sizes=(3,))
    params = networks.init_network(dqn.q_network(config, CARTPOLE), key(), (4,))
    nothing = jnp.zeros(5)
    experience = dqn.Experience(jnp.zeros((5, 4)), jnp.zeros(5, int), nothing, nothing, jnp.zeros((5, 4)))
    return dqn.td_loss(config, CARTPOLE, params, experience, target)


def advantages(*steps):
    return returns.generalized_advantages(*steps, 0.9, 0.8)


def discounted(*steps):
    return returns.discounted_returns(*steps, 0.9)


# Whose arguments are wrong, these, and what the error says of them.
WRONG = [
    (advantages, (1.0, STEPS, STEPS, NEVER, NEVER), "reward is time-major"),
    (advantages, (STEPS, LONGER, STEPS, NEVER, NEVER), "value has none for the observation after the last step"),
    (advantages, (STEPS, STEPS, STEPS[:, :1], NEVER, NEVER), r"rewards and values are time-major, \[T, N\]"),
    (advantages, (STEPS, STEPS, STEPS, NEVER, NEVER[0]), "truncated are time-major like reward"),
    (advantages, (STEPS, STEPS, STEPS, NEVER, False), "truncated are time-major like reward"),
    (advantages, (STEPS, STEPS, STEPS, STEPS, NEVER), "booleans that say where an episode ended; a discount"),
    (discounted, (1.0, STEPS, NEVER, NEVER), "reward is time-major"),
    (discounted, (STEPS, LONGER, NEVER, NEVER), r"rewards and values are time-major, \[T, N\]"),
    (discounted, (STEPS, STEPS, NEVER[:4], NEVER), "one entry per step"),
    (discounted, (STEPS, STEPS, NEVER.astype(int), NEVER), "booleans that say where an episode ended"),
    (next_value_of, (STEPS[:, 0], jnp.ones((5, 2, 4)), NEVER[:, 0]), r"of one actor they are \[T, 1\]"),
    (next_value_of, (LONGER, jnp.ones((5, 2, 4)), NEVER), "value is V of the T observations acted on"),
    (next_value_of, (STEPS, jnp.ones((6, 2, 4)), NEVER), "next_inputs holds the next observation of every step"),
    (next_value_of, (STEPS, jnp.ones((5, 2, 4)), NEVER.astype(int)), "truncated is a boolean per step"),
    (loss_of, (jnp.ones((5, 1)),), "with a trailing axis of 1 every advantage"),
    (distributions.sample_action, (Discrete(3), jnp.zeros((5, 2)), KEY), "a logit for each discrete one"),
    (
        distributions.greedy_action,
        (Discrete(3), jnp.zeros((5, 4))),
        "the last axis of distribution describes one action",
    ),
    (distributions.log_prob, (PAIR, jnp.zeros((5, 2)), jnp.zeros((5, 2))), "as many log standard deviations"),
    (
        distributions.log_prob,
        (PAIR, jnp.zeros((5, 4)), jnp.zeros((2, 5))),
        "action has the leading axes of distribution",
    ),
    (distributions.entropy, (Discrete(3), jnp.zeros(())), "the last axis of distribution describes one action"),
    (distributions.categorical_log_prob, (jnp.zeros((5, 3)), jnp.zeros((5, 1), int)), "without an axis of its own"),
    (distributions.categorical_log_prob, (jnp.zeros((5, 3)), jnp.zeros(5)), "for real ones see gaussian_log_prob"),
    (distributions.gaussian_sample, (KEY, jnp.zeros(2), jnp.zeros((5, 2))), "several actions would share their noise"),
    (
        distributions.gaussian_log_prob,
        (jnp.zeros((5, 1)), jnp.zeros((5, 1)), jnp.zeros(5)),
        r"of one dimension .*\[\*batch, 1\]",
    ),
    (exploration.epsilon_greedy, (KEY, jnp.zeros((5, 2)), jnp.float32(0.1)), "all would explore at the same time"),
    (exploration.epsilon_greedy, (KEY, jnp.zeros((5, 2)), 0.1), r"jnp\.full\(N, epsilon\)"),
    (ring.pack, ({"a": jnp.ones((5, 2)), "b": jnp.ones(4)},), "every leaf starts with the same batch axes"),
    (ring.unpack, (jnp.ones((5, 3)), ring.make_layout(jnp.ones(2))), "as wide as all numbers of one item in layout"),
    (ring.add, (ROWS, jnp.ones((2, 2)), FIRST), "narrower ones would leave old numbers"),
    (ring.add, (ROWS, jnp.ones(3), FIRST), r"rows are \[block, width\]"),
    (ring.add, (ROWS, jnp.ones((2, 3), int), FIRST), "rows are float32, as pack makes them"),
    (ring.add, (ROWS, jnp.ones((4, 3)), FIRST), "the slots of a ring hold whole blocks"),
    (ring.add, (ROWS, jnp.ones((2, 3)), jnp.zeros(2, int)), "the clock that all runs share"),
    (ring.add, (ROWS, jnp.ones((2, 3)), jnp.float32(0)), "one whole number, as Progress.iteration is"),
    (ring.sample, (KEY, ROWS, 1, 6, 4, FIRST), "the block that init_replay was given"),
    (ring.sample, (KEY, ROWS, 1, 6, 2, jnp.zeros(2, int)), "the clock that all runs share"),
    (ring.sample, (KEY, ring.Replay(jnp.zeros(6)), 1, 6, 2, FIRST), r"rows of a Replay are \[slots, width\]"),
    (preprocessing.update_statistics, (STATISTICS, jnp.ones((4, 5))), "inputs end in the axes of one input"),
    (preprocessing.normalize, (STATISTICS, jnp.ones((5, 1))), "observations of images are rendered first"),
    (enhanced, (jnp.ones((5, 4, 4, 2)),), "a stack has its frames side by side in the last axis"),
    (preprocessed, (jnp.ones((5, 4)), jnp.ones((6, 4))), "observation and next_observation have one entry per step"),
    (convolved, (jnp.ones((4, 4, 3)),), r"a single one is image\[None\]"),
    (applied, (jnp.ones((5, 3)),), "inputs end in the axes of one input, env.input_shape"),
    (td_loss_of, (jnp.ones((5, 1)),), "would hold every target against every Q"),
]


@pytest.mark.parametrize(("function", "arguments", "words"), WRONG)
def test_what_does_not_fit_is_refused_with_a_sentence_about_it(untyped, function, arguments, words):
    arguments = [key() if argument is KEY else argument for argument in arguments]
    with pytest.raises(AssertionError, match=words) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)


# Documented for the usual axes, and right for others as well.
RIGHT = [
    (advantages, (STEPS[:, 0], STEPS[:, 0], STEPS[:, 0], NEVER[:, 0], NEVER[:, 0]), (5,)),
    (discounted, (jnp.ones((5, 2, 3)), jnp.ones((5, 2, 3)), *jnp.zeros((2, 5, 2, 3), bool)), (5, 2, 3)),
    (discounted, tuple(map(np.asarray, (STEPS, STEPS, NEVER, NEVER))), (5, 2)),
    (discounted, (STEPS.astype(int), STEPS, NEVER, NEVER), (5, 2)),
    (distributions.categorical_log_prob, (jnp.zeros(3), jnp.zeros((5, 2), int)), (5, 2)),
    (distributions.gaussian_log_prob, (jnp.zeros((5, 2)), jnp.zeros(2), jnp.zeros((5, 2))), (5,)),
    (distributions.log_prob, (Continuous((1,), -1.0, 1.0), jnp.zeros((5, 2)), jnp.zeros(5)), (5,)),
    (exploration.epsilon_greedy, (KEY, jnp.zeros(2), jnp.float32(0.1)), ()),
    (preprocessing.normalize, (STATISTICS, jnp.ones(4)), (4,)),
    (applied, (jnp.ones(4),), (2,)),
]


@pytest.mark.parametrize(("function", "arguments", "shape"), RIGHT)
def test_other_axes_and_kinds_that_are_right_are_taken(untyped, function, arguments, shape):
    arguments = [key() if argument is KEY else argument for argument in arguments]
    with jax.numpy_rank_promotion("allow"):
        assert function(*arguments).shape == shape


def test_one_actor_after_another_under_vmap_has_no_axis_of_actors(untyped):
    steps = (STEPS, STEPS, STEPS, NEVER, NEVER)
    by_actor = jax.vmap(advantages, in_axes=1, out_axes=1)(*steps)
    np.testing.assert_allclose(by_actor, advantages(*steps), rtol=1e-6)


def update_of_vpg(observation):
    config = vpg.Config(steps_per_epoch=10, actors=2, train_v_iters=1, hidden_sizes=(3,), normalize_observations=True)
    batch = Transition(observation, jnp.zeros((5, 2, 2)), STEPS, NEVER, NEVER, observation)
    env = make(Target())
    return vpg.update(config, env, vpg.init(config, env, key()), batch, PROGRESS, key())


def replayed(rows):
    replay = ring.add(ROWS, rows, FIRST)
    return ring.unpack(ring.sample(key(), replay, 4, 6, 2, FIRST)[0], ring.make_layout(jnp.ones(3)))


TRACED = [
    (advantages, (STEPS, STEPS, STEPS, NEVER, NEVER)),
    (discounted, (STEPS, STEPS, NEVER, NEVER)),
    (next_value_of, (STEPS, jnp.ones((5, 2, 4)), NEVER)),
    (replayed, (jnp.ones((2, 3)),)),
    (convolved, (jnp.ones((1, 4, 4, 3)),)),
    (td_loss_of, (jnp.ones(5),)),
    (update_of_vpg, (jnp.ones((5, 2, 1)),)),
]


@pytest.mark.parametrize(("function", "arguments"), TRACED)
def test_a_program_is_the_same_without_assertions(untyped, function, arguments):
    """They look at ranks, shapes and types, which are known when a program is traced, and leave nothing in it."""

    def text():
        # A function of its own each time: what has been traced once is not traced again.
        return jax.jit(lambda *arguments: function(*arguments)).lower(*arguments).as_text()

    asserted = text()
    chex.disable_asserts()
    try:
        returns.discounted_returns(STEPS, STEPS, NEVER.astype(int), NEVER, 0.9)
        assert text() == asserted
    finally:
        chex.enable_asserts()


class JittedAndNot(chex.TestCase):
    """chex.variants works in its own kind of TestCase only, which pytest runs too."""

    @chex.variants(with_jit=True, without_jit=True)
    def test_advantages_by_hand(self):
        no, at_last = jnp.zeros((2, 1), bool), jnp.array([[False], [True]])
        found = self.variant(returns.generalized_advantages)(
            jnp.ones((2, 1)), jnp.array([[4.0], [3.0]]), jnp.array([[3.0], [2.0]]), no, at_last, 1.0, 0.5
        )
        np.testing.assert_allclose(found, [[0.0], [0.0]])

    @chex.variants(with_jit=True, without_jit=True)
    def test_next_state_value_by_hand(self):
        """The steps of one actor are cut at its second and, as the batch ends, its last step."""
        value, next_inputs = jnp.array([[1.0], [2.0], [3.0]]), jnp.array([[[7.0]], [[8.0]], [[9.0]]])
        found = self.variant(next_value_of)(value, next_inputs, jnp.array([[False], [True], [False]]))
        np.testing.assert_allclose(found, [[2.0], [8.0], [9.0]])

    @chex.variants(with_jit=True, without_jit=True)
    def test_replay_by_hand(self):
        """The fourth block takes the place of the first; of one block only its row can be sampled."""
        add = self.variant(ring.add)
        replay = ring.Replay(jnp.zeros((3, 1)))
        for iteration in range(4):
            replay = add(replay, jnp.full((1, 1), iteration + 1.0), jnp.int32(iteration))
        np.testing.assert_array_equal(replay.rows, [[4.0], [2.0], [3.0]])
        sample = self.variant(ring.sample, static_argnums=(2, 3, 4))
        rows, is_stored = sample(key(), replay, 2, 1, 1, jnp.int32(3))
        chex.assert_trees_all_equal((rows, is_stored), (np.full((2, 1, 1), 4.0), np.ones((2, 1), bool)))

    @chex.variants(with_jit=True, without_jit=True)
    def test_greedy_actions_by_hand(self):
        q_value = jnp.array([[0.0, 1.0], [3.0, 2.0]])
        np.testing.assert_array_equal(self.variant(exploration.epsilon_greedy)(key(), q_value, jnp.zeros(2)), [1, 0])

    @chex.variants(with_jit=True, without_jit=True)
    def test_statistics_by_hand(self):
        """Of 1 and 3 the mean is 2 and the variance 1."""
        start = preprocessing.RunningStatistics(jnp.zeros(()), jnp.zeros(1), jnp.ones(1))
        found = self.variant(preprocessing.update_statistics)(start, jnp.array([[1.0], [3.0]]))
        chex.assert_trees_all_close(found, preprocessing.RunningStatistics(2.0, np.array([2.0]), np.array([1.0])))
