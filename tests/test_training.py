"""How runs are run: equality between widths and devices, budgets, freezing, episodes, evaluation."""

import dataclasses
import signal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits, bits, flat, train_many, train_one
from probes import Choice, Counter, Endless

import purejaxrl
from purejaxrl.agents import a3c, dqn, vpg
from purejaxrl.components.hyperparameters import Budget, find_budget
from purejaxrl.envs import make
from purejaxrl.experiment.progress import Silent
from purejaxrl.training import devices, loop
from purejaxrl.training.batches import stack_configs
from purejaxrl.training.compilation import StopRequestedError, compile_program
from purejaxrl.training.evaluation import Best, evaluate, evaluate_and_keep
from purejaxrl.training.loop import Span, fraction_used, init_run, iterate, iterations_of, train_chunk
from purejaxrl.training.runner import next_length

CARTPOLE = make("CartPole-v0")
VPG = vpg.Config(epochs=50, steps_per_epoch=100, actors=5, train_v_iters=3, hidden_sizes=(16,))
DQN = dqn.Config(episodes=None, env_steps=114, batch_size=64, memory_size=300, hidden_sizes=(16,), target_update=2)
A3C = a3c.Config(
    episodes=None, env_steps=20 * 25, actors=5, t_max=4, lr=1e-4, hidden_sizes=(16,), optimizer="rmsprop",
    order="random", sync_every=2, max_grad_norm=1.0, normalize_observations=True,
)  # fmt: skip
CASES = pytest.mark.parametrize(
    ("agent", "config"),
    [
        pytest.param(vpg.agent, VPG, marks=pytest.mark.slow),
        pytest.param(dqn.agent, DQN, marks=pytest.mark.slow),
        (a3c.agent, A3C),
    ],
    ids=["vpg", "dqn", "a3c"],
)


def test_a_program_that_is_not_wanted_any_more_is_not_traced():
    """Tracing takes seconds in which nothing else can happen; what remains is finding out the sizes of arrays."""
    calls = []

    def update(*arguments):
        calls.append(None)
        return vpg.agent.update(*arguments)

    counts = []
    for is_stopping in (True, False):
        calls.clear()
        polled = iter([is_stopping, is_stopping])
        with pytest.raises(StopRequestedError):
            compile_program(
                vpg.agent._replace(update=update), CARTPOLE, VPG, find_budget(VPG), devices.local_devices("cpu", 1), 1,
                should_stop=lambda polled=polled: next(polled, True),
            )  # fmt: skip
        counts.append(len(calls))
    assert counts[0] < counts[1]


@pytest.mark.slow
@CASES
def test_the_same_training_twice_is_bitwise_equal(agent, config):
    first, log = train_many(agent, config, CARTPOLE, 3)
    # Cut into chunks in another way.
    second, other = train_many(agent, config, CARTPOLE, 3, chunk_seconds=1e-6)
    assert_same_bits(first, second)
    assert_same_bits(log.ended, other.ended)


@pytest.mark.slow
@CASES
def test_a_run_alone_is_the_run_in_a_sweep(agent, config):
    """Fifty updates: the same actions, parameters within 1e-5, on one device or two, by scan or by the host's loop."""
    alone, log = train_one(agent, config, CARTPOLE, seed=12)
    for devices_used in (1, 2):
        many, logs = train_many(agent, config, CARTPOLE, 5, seed=10, devices_used=devices_used)
        np.testing.assert_array_equal(logs.ended.length[:, 2], log.ended.length)
        np.testing.assert_array_equal(many.observation[2], alone.observation)
        learner = without_memory(jax.tree.map(lambda leaf: leaf[2], many.learner))
        assert len(flat(learner)) > 400
        np.testing.assert_allclose(flat(learner), flat(without_memory(alone.learner)), atol=1e-5)


@CASES
def test_vmapped_make_train_is_the_batch(agent, config):
    from purejaxrl.training.loop import make_train

    states, _ = jax.jit(jax.vmap(make_train(agent, config, CARTPOLE)))(jax.vmap(jax.random.key)(jnp.arange(3)))
    many, _ = train_many(agent, config, CARTPOLE, 3)
    np.testing.assert_allclose(flat(without_memory(states.learner)), flat(without_memory(many.learner)), atol=1e-5)


@CASES
def test_all_seeds_start_from_different_networks_and_environments(agent, config):
    keys = jax.vmap(jax.random.key)(jnp.arange(16))
    states = jax.vmap(lambda key: init_run(agent, CARTPOLE, config, key))(keys)
    learners = without_memory(states.learner)
    kernels = [leaf for leaf in jax.tree.leaves(learners) if leaf.ndim >= 3 and np.any(leaf)]
    assert kernels
    for leaf in [*kernels, states.observation]:
        assert len({row.tobytes() for row in np.asarray(leaf)}) == 16
    actors = np.asarray(states.observation)
    assert len({row.tobytes() for row in actors.reshape(-1, 4)}) == 16 * actors.shape[1]


@CASES
def test_a_diverged_run_leaves_the_others_bitwise_as_they_are(agent, config):
    runs = 4
    configs = stack_configs([config], runs)
    name = "pi_lr" if agent.name == "vpg" else "lr"

    sick = dataclasses.replace(
        configs, **{name: np.where(np.arange(runs) == 1, np.nan, getattr(configs, name)).astype(np.float32)}
    )
    healthy_state, _ = train_many(agent, config, CARTPOLE, runs, configs=configs)
    state, _ = train_many(agent, config, CARTPOLE, runs, configs=sick)
    pick = lambda tree, run: jax.tree.map(lambda leaf: leaf[run], tree)  # noqa: E731
    assert np.isnan(flat(without_memory(pick(state, 1).learner))).any()
    for run in (0, 2, 3):
        assert_same_bits(pick(state, run), pick(healthy_state, run))


def without_memory(learner):
    return learner._replace(memory=None)


@pytest.mark.slow
def test_runs_with_an_episode_budget_end_exactly_and_stay_frozen():
    """Runs of a batch end at different iterations; each stays bitwise as it was when it ended, but for its replay."""
    config = dqn.Config(episodes=7, batch_size=16, memory_size=50, hidden_sizes=(8,), target_update=2, actors=2)
    runs, budget = 4, Budget("episodes", 7)
    configs = stack_configs([config], runs)
    keys = jax.vmap(jax.random.key)(jnp.arange(runs))
    state = jax.vmap(lambda c, key: init_run(dqn.agent, CARTPOLE, c, key))(configs, keys)
    step = jax.jit(jax.vmap(lambda c, s, i: iterate(dqn.agent, CARTPOLE, c, s, i, budget), in_axes=(0, 0, None)))
    frozen, ended_at, finished = {}, {}, np.zeros(runs, int)
    for iteration in range(300):
        before = state
        state, log = step(configs, state, jnp.int32(iteration))
        for run in range(runs):
            now = jax.tree.map(
                lambda leaf, run=run: leaf[run], state._replace(learner=without_memory(state.learner), key=None)
            )
            if run in frozen:
                assert bits(now) == frozen[run]
                assert not log.active[run]
                continue
            assert log.active[run]
            finished[run] += int(np.sum(log.ended.length[run] > 0))
            # The last update belongs to the iteration in which the last episode ended.
            assert not np.array_equal(before.observation[run], state.observation[run])
            if finished[run] >= 7:
                assert not state.active[run]
                frozen[run], ended_at[run] = bits(now), iteration
            else:
                assert state.active[run]
        if len(frozen) == runs and iteration > max(ended_at.values()) + 10:
            break
    assert len(frozen) == runs
    assert len(set(ended_at.values())) > 1

    many, log = train_many(dqn.agent, config, CARTPOLE, runs, devices_used=1)
    assert [int(sum(log.active[:, run])) - 1 for run in range(runs)] == [ended_at[run] for run in range(runs)]
    np.testing.assert_allclose(flat(without_memory(many.learner)), flat(without_memory(state.learner)), atol=1e-5)


def test_episode_statistics():
    """Episodes of 3 and, by truncation, of 4 steps, whose rewards are 1 each."""
    config = vpg.Config(epochs=2, steps_per_epoch=20, actors=2, hidden_sizes=(4,))
    for env, length in ((make(Counter(length=3)), 3), (make(Counter(), max_ep_len=4), 4)):
        state, log = train_one(vpg.agent, config, env)
        lengths = np.asarray(log.ended.length).reshape(20, 2)
        expected = np.where(np.arange(1, 21) % length == 0, length, 0)
        np.testing.assert_array_equal(lengths, np.stack([expected, expected], axis=1))
        np.testing.assert_array_equal(log.ended.returns, log.ended.length)
        assert state.episode.finished == 2 * (20 // length)
        np.testing.assert_array_equal(state.episode.length, 20 % length)


def test_actors_are_not_reset_between_epochs():
    config = vpg.Config(epochs=5, steps_per_epoch=6, actors=2, hidden_sizes=(4,))
    state, log = train_one(vpg.agent, config, make(Counter()))
    assert not np.any(log.ended.length)
    np.testing.assert_array_equal(state.observation, 15)


@pytest.mark.parametrize(
    ("budget", "shape", "expected"),
    [
        (Budget("epochs", 7), (200, 20), 7),
        (Budget("env_steps", 8000), (200, 20), 2),
        (Budget("env_steps", 8001), (200, 20), 3),
        (Budget("episodes", 10), (1, 1), 2000),
        (Budget("episodes", 10), (1, 4), 600),
        (Budget("episodes", 10), (200, 4), 3),
    ],
)
def test_iterations_of_a_budget(budget, shape, expected):
    assert iterations_of(budget, shape, 200) == expected


def test_fraction_used():
    numbers = jnp.int32(5), jnp.int32(40), jnp.int32(30)
    for kind, amount, expected in [
        ("epochs", 10, 0.5),
        ("env_steps", 160, 0.25),
        ("episodes", 40, 0.75),
        ("episodes", 3, 1),
    ]:
        assert fraction_used(Budget(kind, amount), *numbers) == expected


def test_chunk_lengths_follow_the_clock():
    assert next_length(1, 0.001, 1.0) == 8
    assert next_length(100, 0.5, 1.0) == 200
    assert next_length(100, 50.0, 1.0) == 2
    assert next_length(1, 50.0, 1.0) == 1


def test_groups_of_runs_change_nothing(monkeypatch):
    monkeypatch.setattr(loop, "MAX_CHUNK", 4)
    configs = stack_configs([VPG], 6)
    keys = jax.vmap(jax.random.key)(jnp.arange(6))
    state = jax.vmap(lambda c, key: init_run(vpg.agent, CARTPOLE, c, key))(configs, keys)
    results = [
        jax.jit(partial(train_chunk, vpg.agent, CARTPOLE, Budget("epochs", None), 2**20, group))(
            configs, state, Span(*map(jnp.int32, (0, 3, 50)))
        )
        for group in (6, 2, 1)
    ]
    for state, log in results[1:]:
        np.testing.assert_allclose(flat(state.learner), flat(results[0][0].learner), atol=1e-5)
        np.testing.assert_array_equal(log.ended.length, results[0][1].ended.length)
        assert not np.any(log.active[3])


@pytest.mark.parametrize(
    ("runs", "batch_bytes", "expected"),
    [(1, 16, 1), (8, 64_000, 1), (64, 16, 4), (10, 16, 3), (16, 24_000, 2), (64, 2**25, 1)],
)
def test_group_size(runs, batch_bytes, expected):
    mesh = devices.mesh_for(devices.local_devices("cpu"), runs)
    assert devices.group_size(mesh, runs, batch_bytes) == expected


def test_padding_repeats_the_last_run():
    assert devices.padded(5, 4) == 8
    np.testing.assert_array_equal(devices.pad_runs(jnp.arange(3), 5), [0, 1, 2, 2, 2])


def test_evaluation_plays_whole_greedy_episodes():
    """The untrained network always prefers one action in Choice; Counter's return is its length."""
    config = dqn.Config(hidden_sizes=(4,))
    env = make(Counter(length=6))
    state = init_run(dqn.agent, env, config, jax.random.key(0))
    params = state.learner.params
    returns = evaluate(dqn.agent, env, 3, config, params, jax.random.key(1))
    np.testing.assert_array_equal(returns, [6, 6, 6])
    returns = evaluate(dqn.agent, make(Endless(), max_ep_len=9), 3, config, params, jax.random.key(1))
    np.testing.assert_array_equal(returns, [9, 9, 9])
    returns = evaluate(dqn.agent, make(Choice()), 3, config, params, jax.random.key(1))
    np.testing.assert_array_equal(returns, dqn.policy(config, env, params, jnp.zeros((3, 1))).action)


def test_best_params_are_replaced_only_by_better_ones():
    config = dqn.Config(hidden_sizes=(4,))
    env = make(Counter(length=6))
    params = [init_run(dqn.agent, env, config, jax.random.key(seed)).learner.params for seed in range(3)]
    worse, equal = Best(params[1], jnp.float32(5)), Best(params[2], jnp.float32(6))
    for best, expected in ((worse, params[0]), (equal, params[2])):
        eval_return, kept = evaluate_and_keep(
            dqn.agent, env, 2, config, params[0], best, jax.random.key(0), jnp.int32(0), jnp.bool_(True)
        )
        assert eval_return == kept.eval_return == 6
        assert_same_bits(kept.params, expected)


def test_a_reporter_hears_of_every_event_once():
    """Also where a signal stops the training, which closes a batch that has not ended."""
    events = []

    class Hearing(Silent):
        def start(self):
            events.append("start")

        def advance(self, stats, seconds):
            events.append(int(stats.env_steps[0]))
            if is_stopping and len(events) == 3:
                signal.raise_signal(signal.SIGTERM)

        def close(self):
            events.append("close")

    settings = {"steps_per_epoch": 40, "actors": 2, "train_v_iters": 1, "hidden_sizes": (4,), "progress": Hearing()}
    for is_stopping in (False, True):
        events.clear()
        purejaxrl.train("vpg", epochs=1_000_000 if is_stopping else 3, **settings)
        assert events[0] == "start"
        assert events[-1] == "close"
        told = events[1:-1]
        assert "close" not in told
        assert told == sorted(set(told))
