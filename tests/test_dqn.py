"""DQN against its equations: targets, the order of events, target copies, exploration, values on probes."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rlax
from helpers import assert_same_bits, bits, train_one
from probes import FIRST_NUMBER, Choice, Counter, Endless, Signal, TwoSteps

from purejaxrl.agents import dqn
from purejaxrl.components.hyperparameters import Budget
from purejaxrl.envs import Images, make
from purejaxrl.errors import InputError
from purejaxrl.experiment.presets import check_image_settings
from purejaxrl.training.loop import init_run, iterate
from purejaxrl.types import Progress

KEY_BITS = jax.random.key_data(jax.random.key(3))


def small_config(**changes):
    return dqn.Config(
        **{"episodes": None, "env_steps": 400, "batch_size": 32, "memory_size": 200, "hidden_sizes": (16,), **changes}
    )


def progress_at(iteration, actors=1, episodes=0, fraction=0.0):
    return Progress(jnp.int32(iteration), jnp.int32(iteration * actors), jnp.float32(fraction), jnp.int32(episodes))


def random_experience(env, size=50):
    keys = jax.random.split(jax.random.key(0), 5)
    return dqn.Experience(
        jax.random.normal(keys[0], (size, *env.observation_shape)),
        jax.random.randint(keys[1], (size,), 0, 2),
        jax.random.normal(keys[2], (size,)),
        jnp.where(jax.random.bernoulli(keys[3], 0.3, (size,)), 0.0, 0.9),
        jax.random.normal(keys[4], (size, *env.observation_shape)),
    )


@pytest.mark.parametrize("double_q", [False, True])
def test_targets_and_loss_against_rlax_and_a_loop(double_q):
    env, config = make("CartPole-v0"), small_config(double_q=double_q, gamma=0.9)
    params = dqn.init(config, env, jax.random.key(1)).params.q
    target_params = dqn.init(config, env, jax.random.key(2)).params.q
    batch = random_experience(env)
    target = dqn.q_target(config, env, params, target_params, batch)

    q = dqn.q_values(config, env, params, batch.observation)
    next_q = dqn.q_values(config, env, target_params, batch.next_observation)
    chooser = dqn.q_values(config, env, params, batch.next_observation) if double_q else next_q
    for i in range(50):
        bootstrap = batch.discount[i] * float(next_q[i, int(np.argmax(chooser[i]))])
        np.testing.assert_allclose(target[i], batch.reward[i] + bootstrap, atol=1e-5)

    if double_q:
        errors = jax.vmap(rlax.double_q_learning)(q, batch.action, batch.reward, batch.discount, next_q, chooser)
    else:
        errors = jax.vmap(rlax.q_learning)(q, batch.action, batch.reward, batch.discount, next_q)
    loss, q_mean = dqn.td_loss(config, env, params, batch, target)
    np.testing.assert_allclose(loss, np.mean(np.square(errors)), rtol=1e-5)
    np.testing.assert_allclose(q_mean, np.mean([q[i, batch.action[i]] for i in range(50)]), rtol=1e-5)
    huber, _ = dqn.td_loss(small_config(loss="huber"), env, params, batch, target)
    size = np.abs(errors)
    np.testing.assert_allclose(huber, np.mean(np.where(size <= 1, size**2 / 2, size - 0.5)), rtol=1e-5)


def test_a_gradient_step_is_adam_on_the_loss():
    env, config = make("CartPole-v0"), small_config(batch_size=50, memory_size=50, gamma=0.9)
    learner = dqn.init(config, env, jax.random.key(1))
    batch = random_experience(env)
    # Fifty equal rows, so that the draw does not matter.
    one = jax.tree.map(lambda x: jnp.broadcast_to(x[:1], x.shape), batch)
    flags = (one.discount == 0, jnp.zeros(50, bool))
    steps = dqn.Step(one.observation, one.action, one.reward, *flags, one.next_observation)
    replay = dqn.ring.Replay(dqn.ring.pack(steps))
    trained = (learner.params.q, learner.extra, learner.optimizer)
    (params, target_params, _), _ = dqn.gradient_step(
        config, env, replay, None, progress_at(49), dqn.q_target, "threefry2x32", trained, KEY_BITS
    )

    optimizer = optax.adam(1e-3)
    # The target is a constant: the gradient flows through Q(s, a) alone.
    target = dqn.q_target(config, env, learner.params.q, learner.extra, one)[0]
    gradient = jax.grad(lambda p: (dqn.q_values(config, env, p, batch.observation[0])[batch.action[0]] - target) ** 2)(
        learner.params.q
    )
    step, _ = optimizer.update(gradient, optimizer.init(learner.params.q))
    expected = optax.apply_updates(learner.params.q, step)
    chex.assert_trees_all_close(params, expected, atol=1e-6)
    assert_same_bits(target_params, learner.extra)


def test_multi_step_targets_against_a_loop():
    """Every way in which up to four steps can end, and be stored, and rows that mean nothing beyond."""
    size, length, gamma = 200, 4, 0.9
    random = np.random.default_rng(0)
    terminated = random.random((size, length)) < 0.2
    steps = dqn.Step(
        observation=random.normal(size=(size, length, 2)),
        action=random.integers(0, 2, (size, length)),
        reward=random.normal(size=(size, length)),
        terminated=terminated,
        truncated=~terminated & (random.random((size, length)) < 0.2),
        next_observation=random.normal(size=(size, length, 2)),
    )
    is_stored = np.arange(length) < random.integers(1, length + 1, (size, 1))
    given = dqn.multi_step(
        small_config(n_steps=length, gamma=gamma), jax.tree.map(jnp.asarray, steps), jnp.asarray(is_stored)
    )

    for i in range(size):
        reward, discount = 0.0, 1.0
        for k in range(length):
            reward += discount * steps.reward[i, k]
            discount *= gamma * (not terminated[i, k])
            if terminated[i, k] or steps.truncated[i, k] or k + 1 == length or not is_stored[i, k + 1]:
                break
        np.testing.assert_allclose(given.reward[i], reward, atol=1e-6)
        np.testing.assert_allclose(given.discount[i], discount, atol=1e-6)
        np.testing.assert_allclose(given.next_observation[i], steps.next_observation[i, k], atol=1e-6)
        np.testing.assert_allclose(given.observation[i], steps.observation[i, 0], atol=1e-6)
        assert given.action[i] == steps.action[i, 0]


def test_gradient_steps_learn_from_several_steps_of_one_actor():
    """Counter is cut after 5 steps, and the replay ends with an episode: three steps lead three further, or to 5."""
    config = small_config(actors=3, memory_size=60, batch_size=40, n_steps=3, gamma=0.9, reward_scale=2.0)
    env = make(Counter(), max_ep_len=5)
    experience = learned_from(config, env, history(config, env, 20)[0][-1], progress_at(19, 3))
    steps = np.minimum(3, 5 - experience.observation)
    np.testing.assert_array_equal(experience.next_observation, experience.observation + steps)
    np.testing.assert_allclose(experience.discount, 0.9 ** steps[:, 0], rtol=1e-6)
    np.testing.assert_allclose(experience.reward, 2 * (1 - 0.9 ** steps[:, 0]) / (1 - 0.9), rtol=1e-6)
    assert set(steps[:, 0]) == {1, 2, 3}


def test_images_of_several_steps():
    """Counter shows the count before and the count, as darkness; after n steps both are n higher."""
    config = small_config(n_steps=3, image="stack", frames=2, motion_scale=None)
    env = make(Counter(), max_ep_len=5, images=Images("stack", 2, 1, (8, 8), 1), renderer=FIRST_NUMBER)
    experience = learned_from(config, env, history(config, env, 50)[0][-1], progress_at(49))
    count = 1 - experience.observation[:, 0, 0, 1]
    np.testing.assert_allclose(experience.observation[:, 0, 0, 0], 1 - np.maximum(count - 1, 0))
    steps = np.minimum(3, 5 - count)
    np.testing.assert_allclose(
        experience.next_observation[:, 0, 0], 1 - np.stack([count + steps - 1, count + steps], 1)
    )
    assert set(steps) == {1, 2, 3}


def learned_from(config, env, state, progress):
    """The batch that a gradient step of this state learns from."""
    seen = []

    def target_of(config, env, params, target_params, experience):
        seen.append(experience)
        return dqn.q_target(config, env, params, target_params, experience)

    learner = state.learner
    trained = (learner.params.q, learner.extra, learner.optimizer)
    dqn.gradient_step(config, env, learner.memory, None, progress, target_of, "threefry2x32", trained, KEY_BITS)
    return jax.tree.map(np.asarray, seen[0])


def history(config, env, iterations, seed=0):
    """RunStates after 0, 1, 2, ... iterations."""
    step = jax.jit(lambda state, i: iterate(dqn.agent, env, config, state, i, Budget("env_steps", 10**6)))
    states = [init_run(dqn.agent, env, config, jax.random.key(seed))]
    logs = []
    for i in range(iterations):
        state, log = step(states[-1], jnp.int32(i))
        states.append(state)
        logs.append(log)
    return states, logs


@pytest.mark.parametrize("actors", [1, 3, 16])
def test_target_copies_at_exactly_the_right_episodes(actors):
    """The copy happens in the iteration in which the count of finished episodes reaches or passes a multiple of 4."""
    config = small_config(actors=actors, batch_size=8, memory_size=64, target_update=4)
    env = make("CartPole-v0")
    states, logs = history(config, env, {1: 240, 3: 90, 16: 40}[actors])
    finished, copies = 0, 0
    for before, after, log in zip(states, states[1:], logs, strict=False):
        ended = int(np.sum(log.ended.length > 0))
        is_due = (finished + ended) // 4 > finished // 4
        finished += ended
        assert finished == after.episode.finished
        has_learned = bits(after.learner.params.q) != bits(before.learner.params.q)
        if is_due:
            copies += 1
            assert_same_bits(after.learner.extra, after.learner.params.q)
        else:
            assert_same_bits(after.learner.extra, before.learner.extra)
            if has_learned:
                assert bits(after.learner.extra) != bits(after.learner.params.q)
    assert copies >= 2


@pytest.mark.slow
def test_stepwise_and_soft_target_copies():
    env = make("CartPole-v0")
    states, _ = history(small_config(actors=2, batch_size=8, target_update_steps=6), env, 24)
    for i, (before, after) in enumerate(itertools.pairwise(states), start=1):
        assert (bits(after.learner.extra) == bits(after.learner.params.q)) == (i % 3 == 0 or i < 4)
        assert (bits(after.learner.extra) == bits(before.learner.extra)) == (i % 3 != 0 or i < 4)
    config = small_config(batch_size=1, target_update=10**6, target_tau=0.25)
    states, _ = history(config, env, 3)
    for before, after in itertools.pairwise(states):
        expected = jax.tree.map(
            lambda q, target: 0.25 * q + 0.75 * target, after.learner.params.q, before.learner.extra
        )
        chex.assert_trees_all_close(after.learner.extra, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("actors", "train_every", "batch_size", "expected"),
    [
        (1, 1, 5, [0, 0, 0, 0, 1, 1, 1, 1]),
        (1, 4, 5, [0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
        (4, 2, 10, [0, 0, 2, 2, 2]),
        (4, 4, 8, [0, 1, 1, 1]),
        (4, 8, 4, [0, 1, 0, 1]),
    ],
)
def test_gradient_steps_begin_with_the_batch_and_keep_their_rate(actors, train_every, batch_size, expected):
    config = small_config(actors=actors, train_every=train_every, batch_size=batch_size)
    dqn.check(config, make("CartPole-v0"))
    states, _ = history(config, make("CartPole-v0"), len(expected))
    counts = [int(state.learner.optimizer[0].count) for state in states]
    np.testing.assert_array_equal(np.diff(counts), expected)


def test_replay_holds_the_true_next_observation_and_termination_alone():
    """Counter never terminates and is cut after 5 steps: next is always one more, and no row is terminal."""
    config = small_config(actors=3, memory_size=60, batch_size=30)
    env = make(Counter(), max_ep_len=5)
    states, _ = history(config, env, 20)
    rows = dqn.Step(*dqn.ring.unpack(states[-1].learner.memory.rows, dqn.step_layout(env)))
    np.testing.assert_array_equal(rows.next_observation, rows.observation + 1)
    np.testing.assert_array_equal(np.unique(rows.observation), np.arange(5))
    assert not np.any(rows.terminated)
    states, _ = history(config, make(Counter(length=5)), 20)
    rows = dqn.Step(*dqn.ring.unpack(states[-1].learner.memory.rows, dqn.step_layout(env)))
    np.testing.assert_array_equal(rows.terminated, rows.observation[:, 0] == 4)


def test_epsilon_counts_env_steps_of_all_actors_before_the_action():
    """With a rate of 30 per step epsilon is 1 for the first actor's first action alone; others are greedy at once."""
    config = small_config(actors=4, eps_vals=(1.0, 0.0, 30.0), hidden_sizes=(4,))
    env = make("CartPole-v0")
    learner = dqn.init(config, env, jax.random.key(0))
    observation = jnp.ones((4, 4)) * 0.1
    greedy = dqn.policy(config, env, learner.params, observation).action
    keys = jax.random.split(jax.random.key(1), 64)
    first = jax.vmap(lambda key: dqn.act(config, env, learner, observation, (), progress_at(0, 4), key).action)(keys)
    assert 0 < np.mean(first[:, 0] != greedy[0]) < 1
    np.testing.assert_array_equal(first[:, 1:], jnp.tile(greedy[1:], (64, 1)))
    keys = jax.random.split(jax.random.key(2), 64)
    later = jax.vmap(lambda key: dqn.act(config, env, learner, observation, (), progress_at(1, 4), key).action)(keys)
    np.testing.assert_array_equal(later, jnp.tile(greedy, (64, 1)))


def probe_config(**changes):
    return small_config(
        **{"env_steps": 3000, "lr": 1e-2, "gamma": 0.8, "target_update": 3, "eps_vals": (1.0, 1.0, 0.0), **changes}
    )


def q_at(config, env, state, observation):
    return np.asarray(dqn.q_values(config, env, state.learner.params.q, jnp.array([observation])))


def test_value_of_an_endless_environment():
    """Q = 1 / (1 - gamma) = 5, although every episode is truncated after 4 steps; as a termination it would be 2.4."""
    config = probe_config()
    env = make(Endless(), max_ep_len=4)
    state, _ = train_one(dqn.agent, config, env)
    np.testing.assert_allclose(q_at(config, env, state, 0.0), 5, atol=0.2)


def test_values_of_probes():
    config = probe_config()
    env = make(TwoSteps())
    state, _ = train_one(dqn.agent, config, env)
    np.testing.assert_allclose(q_at(config, env, state, 0.0), 0.8, atol=0.1)
    np.testing.assert_allclose(q_at(config, env, state, 1.0), 1, atol=0.1)
    env = make(Choice())
    state, _ = train_one(dqn.agent, config, env)
    np.testing.assert_allclose(q_at(config, env, state, 0.0), [0, 1], atol=0.1)
    env = make(Signal())
    state, _ = train_one(dqn.agent, config, env)
    np.testing.assert_array_equal(
        dqn.policy(config, env, state.learner.params, jnp.array([[0.0], [1.0]])).action, [0, 1]
    )


def test_a_replay_holds_a_step_of_every_actor():
    config = small_config(actors=300, memory_size=200, train_every=300)
    with pytest.raises(InputError, match=r"actors: 300 is more than memory_size 200 holds"):
        dqn.agent.check(config, make("CartPole-v0"))


def test_images_need_a_config_that_knows_them():
    with pytest.raises(InputError, match=r"img needs a Config that extends ImageConfig"):
        check_image_settings(object(), "img", {})
