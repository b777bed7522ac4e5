"""What agents learn from: images by hand, statistics against numpy over everything seen, and the reward scale."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PROGRESS, flat, train_one
from probes import LEANING_POLE, Endless

import purejaxrl
from purejaxrl.agents import a3c, dqn, vpg
from purejaxrl.components.hyperparameters import find_budget
from purejaxrl.components.preprocessing import (
    LIMIT,
    RunningStatistics,
    enhance,
    init_statistics,
    network_input,
    normalize,
    update_statistics,
)
from purejaxrl.envs import Images, make
from purejaxrl.training.loop import init_run, iterate
from purejaxrl.training.rollout import rollout

CARTPOLE = make("CartPole-v0")
CONFIGS = {
    "vpg": vpg.Config(epochs=5, steps_per_epoch=40, actors=4, hidden_sizes=(8,), normalize_observations=True),
    "a3c": a3c.Config(episodes=None, env_steps=200, actors=4, t_max=10, hidden_sizes=(8,), normalize_observations=True),
    "dqn": dqn.Config(
        episodes=None, env_steps=200, actors=4, batch_size=16, memory_size=64, hidden_sizes=(8,),
        normalize_observations=True,
    ),
}  # fmt: skip
AGENTS = {"vpg": vpg.agent, "a3c": a3c.agent, "dqn": dqn.agent}
EACH = pytest.mark.parametrize("name", list(AGENTS))


def test_statistics_are_those_of_everything_seen():
    generator = np.random.default_rng(0)
    batches = [generator.normal((5.0, -300.0), (0.01, 40.0), (*shape, 2)) for shape in [(1,), (7, 3), (1,), (50, 8)]]
    statistics = RunningStatistics(jnp.zeros(()), jnp.zeros(2), jnp.ones(2))
    for batch in batches:
        statistics = update_statistics(statistics, jnp.asarray(batch, jnp.float32))
    everything = np.concatenate([batch.reshape(-1, 2) for batch in batches])
    assert statistics.seen == len(everything)
    np.testing.assert_allclose(statistics.mean, everything.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(statistics.variance, everything.var(axis=0), rtol=1e-3)


def test_normalized_observations():
    statistics = RunningStatistics(jnp.float32(10), jnp.array([1.0, -2.0]), jnp.array([4.0, 0.25]))
    observation = jnp.array([[[3.0, -2.0], [-1.0, -1.0]], [[1.0, 100.0], [1e6, -1e6]]])
    expected = [[[1.0, 0.0], [-1.0, 2.0]], [[0.0, LIMIT], [LIMIT, -LIMIT]]]
    np.testing.assert_allclose(normalize(statistics, observation), expected, rtol=1e-6)
    assert normalize(None, observation) is observation


@EACH
def test_every_agent_counts_each_observation_once(name):
    """Against numpy over the observations acted on, collected from outside."""
    agent, config = AGENTS[name], CONFIGS[name]
    steps, actors = agent.rollout_shape(config)
    state = init_run(agent, CARTPOLE, config, jax.random.key(0))
    step = jax.jit(lambda state, i: iterate(spying(agent), CARTPOLE, config, state, i, find_budget(config)))
    seen = []
    for iteration in range(200 // (steps * actors)):
        state, log = step(state, jnp.int32(iteration))
        seen.append(np.asarray(log.metrics["observation"]).reshape(-1, 4))
    seen = np.concatenate(seen)
    assert state.learner.params.statistics.seen == len(seen) == 200
    np.testing.assert_allclose(state.learner.params.statistics.mean, seen.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(state.learner.params.statistics.variance, seen.var(axis=0), rtol=1e-4)


def spying(agent):
    """The agent, reporting the observations that its update got."""

    def update(config, env, learner, batch, progress, key):
        learner, metrics = agent.update(config, env, learner, batch, progress, key)
        return learner, {**metrics, "observation": batch.observation}

    return agent._replace(update=update)


def without_statistics(learner):
    return learner._replace(params=learner.params._replace(statistics=None))


@EACH
def test_acting_and_evaluating_see_normalized_observations(name):
    """An agent with running statistics does on raw observations what it does without them on normalized ones."""
    agent, config = AGENTS[name], CONFIGS[name]
    state, _ = train_one(agent, config, CARTPOLE)
    statistics, plain = state.learner.params.statistics, without_statistics(state.learner)
    spread = jnp.sqrt(statistics.variance + 1e-8)[None]
    normalized = 3 * jax.random.normal(jax.random.key(1), (500, 4))
    observation = statistics.mean[None] + normalized * spread
    chosen = agent.policy(config, CARTPOLE, state.learner.params, observation).action
    np.testing.assert_array_equal(chosen, agent.policy(config, CARTPOLE, plain.params, normalized).action)
    assert np.any(chosen != agent.policy(config, CARTPOLE, plain.params, observation).action), (
        "the comparison would be blind"
    )

    normalized, observation = normalized[:4], observation[:4]
    for seed in range(20):
        np.testing.assert_array_equal(
            agent.act(config, CARTPOLE, state.learner, observation, (), PROGRESS, jax.random.key(seed)).action,
            agent.act(config, CARTPOLE, plain, normalized, (), PROGRESS, jax.random.key(seed)).action,
        )


@pytest.mark.slow
def test_gradients_see_the_observations_that_were_acted_on():
    """VPG's first epoch acts before there are any statistics, so its policy step is that of raw observations."""
    raw = CONFIGS["vpg"].__class__(epochs=1, steps_per_epoch=40, actors=4, hidden_sizes=(8,))
    one = CONFIGS["vpg"].__class__(
        epochs=1, steps_per_epoch=40, actors=4, hidden_sizes=(8,), normalize_observations=True
    )
    plain, _ = train_one(vpg.agent, raw, CARTPOLE)
    counted, _ = train_one(vpg.agent, one, CARTPOLE)
    np.testing.assert_allclose(flat(plain.learner.params.pi), flat(counted.learner.params.pi), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", [pytest.param("vpg", marks=pytest.mark.slow), "a3c"])
def test_updates_normalize_by_the_statistics_that_were_acted_with(name):
    """An update with statistics equals one without them on a batch that was normalized by hand."""
    agent, config = AGENTS[name], CONFIGS[name]
    state, _ = train_one(agent, config, CARTPOLE)
    state = state._replace(key=jax.random.key(5))
    _, batch, _ = rollout(agent, CARTPOLE, config, state, PROGRESS, jax.random.key(6))
    statistics = state.learner.params.statistics
    assert np.abs(statistics.mean).max() > 0.01
    given, _ = agent.update(config, CARTPOLE, state.learner, batch, PROGRESS, jax.random.key(7))
    by_hand = batch._replace(
        observation=normalize(statistics, batch.observation),
        next_observation=normalize(statistics, batch.next_observation),
    )
    plain = without_statistics(state.learner)
    expected, _ = agent.update(config, CARTPOLE, plain, by_hand, PROGRESS, jax.random.key(7))
    assert given.params.statistics.seen == statistics.seen + batch.reward.size
    np.testing.assert_allclose(flat(without_statistics(given)), flat(expected), atol=1e-6)


def test_dqn_keeps_raw_observations():
    config = CONFIGS["dqn"]
    state, _ = train_one(dqn.agent, config, CARTPOLE)
    rows = dqn.Step(*dqn.ring.unpack(state.learner.memory.rows, dqn.step_layout(CARTPOLE)))
    # The last block stored: its next observations are where the environments stand, unless they were reset.
    newest = (200 // 4 - 1) % 16 * 4
    follows = np.asarray(rows.next_observation[newest : newest + 4])
    assert np.sum(np.all(follows == np.asarray(state.observation), axis=1)) >= 2


def test_dqn_learns_from_normalized_observations():
    """A gradient step on a raw replay with statistics equals one on a normalized replay without."""
    config = CONFIGS["dqn"]
    learner = dqn.init(config, CARTPOLE, jax.random.key(0))
    statistics = RunningStatistics(jnp.float32(10), jnp.array([1.0, -2.0, 0.0, 3.0]), jnp.array([4.0, 0.25, 1.0, 9.0]))
    observation, next_observation = jax.random.normal(jax.random.key(1), (2, 64, 4))
    others = (jnp.arange(64) % 2, jnp.ones(64), jnp.arange(64) % 5 == 0, jnp.arange(64) % 7 == 0)
    trained = (learner.params.q, learner.extra, learner.optimizer)
    results = []
    for prepared, given in ((lambda x: x, statistics), (lambda x: normalize(statistics, x), None)):
        steps = dqn.Step(prepared(observation), *others, prepared(next_observation))
        replay = dqn.ring.Replay(dqn.ring.pack(steps))
        step = (config, CARTPOLE, replay, given, PROGRESS._replace(iteration=jnp.int32(15)), dqn.q_target)
        step += ("threefry2x32", trained)
        results.append(dqn.gradient_step(*step, jax.random.key_data(jax.random.key(2)))[0][0])
    chex.assert_trees_all_close(*results, atol=1e-6)


@pytest.mark.parametrize("name", ["vpg", pytest.param("a3c", marks=pytest.mark.slow)])
def test_reward_scale_is_for_learning_alone(name):
    """V of an endless environment is scale / (1 - gamma); the returns that are logged stay as they are."""
    env = make(Endless(), max_ep_len=20)
    values = {}
    for scale in (1.0, 0.1):
        if name == "vpg":
            config = vpg.Config(
                epochs=60, steps_per_epoch=200, actors=10, v_lr=3e-2, train_v_iters=20, gamma=0.9, hidden_sizes=(16,),
                reward_scale=scale,
            )  # fmt: skip
            state, log = train_one(vpg.agent, config, env)
            values[scale] = vpg.state_value(config, env, state.learner.params.v, jnp.zeros(1))
        else:
            config = a3c.Config(
                episodes=None, env_steps=40_000, actors=4, t_max=10, lr=3e-3, gamma=0.9, hidden_sizes=(16,),
                reward_scale=scale, lr_anneal=True,
            )  # fmt: skip
            state, log = train_one(a3c.agent, config, env)
            values[scale] = a3c.state_value(config, env, state.learner.params.v, jnp.zeros(1))
        assert np.max(log.ended.returns) == 20
    assert values[1.0] == pytest.approx(10, abs=0.3)
    assert values[0.1] == pytest.approx(1, abs=0.05)


def test_reward_scale_of_dqn():
    env = make(Endless(), max_ep_len=20)
    config = dqn.Config(
        episodes=None, env_steps=4000, batch_size=64, memory_size=1000, gamma=0.5, lr=1e-2, hidden_sizes=(16,),
        reward_scale=0.1, target_update=1,
    )  # fmt: skip
    state, log = train_one(dqn.agent, config, env)
    q_value = dqn.q_values(config, env, state.learner.params.q, jnp.zeros(1))
    np.testing.assert_allclose(q_value, 0.2, atol=0.02)
    assert np.max(log.ended.returns) == 20


# Three frames, oldest first, of one row of two gray pixels: one stays dark, one turns from white over gray to black.
GRAY = [[[0.1, 0.1, 0.1], [1.0, 0.4, 0.0]]]
# Two RGB frames of one pixel; only green changes.
COLORED = [[[1.0, 0.6, 0.2, 1.0, 0.5, 0.2]]]


@pytest.mark.parametrize(
    ("config", "rendered", "expected"),
    [
        ({"image": "stack", "frames": 3, "channels": 1}, GRAY, [[[0.9, 0.9, 0.9], [0.0, 0.6, 1.0]]]),
        (
            {"image": "stack", "frames": 3, "channels": 1, "motion_scale": 5.0},
            GRAY,
            [[[0.0, 0.0, 0.9], [5.0, 2.0, 1.0]]],
        ),
        ({"image": "stack", "frames": 2, "channels": 3}, COLORED, [[[0.0, 0.4, 0.8, 0.0, 0.5, 0.8]]]),
        (
            {"image": "stack", "frames": 2, "channels": 3, "motion_scale": 2.0},
            COLORED,
            [[[0.0, 0.2, 0.0, 0.0, 0.5, 0.8]]],
        ),
        (
            {"image": "stack", "frames": 1, "channels": 3, "motion_scale": 2.0},
            [[[1.0, 0.5, 0.2]]],
            [[[0.0, 0.5, 0.8]]],
        ),
        ({"image": "difference", "channels": 3}, [[[-1.0, 0.0, 0.25]]], [[[-1.0, 0.0, 0.25]]]),
    ],
    ids=["stack", "motion", "RGB", "RGB motion", "one frame", "difference"],
)
def test_inputs_by_hand(config, rendered, expected):
    """White is 0; with a motion scale older frames are what changed since, so many times. Any leading axes."""
    for lead in ((), (5,), (2, 3)):
        given = jnp.broadcast_to(jnp.float32(rendered), (*lead, *np.shape(rendered)))
        inputs = enhance(vpg.Config(**config), given)
        np.testing.assert_allclose(inputs, np.broadcast_to(expected, given.shape), atol=1e-6)


def test_inputs_are_what_the_environment_renders():
    """The pole leans by 0.1, 0 and 0.2: brightnesses 0.6, 0.5 and 0.7."""
    numbers = LEANING_POLE.select(jnp.array([[0.0, 9.0, 0.1, 9.0], [0.0, 9.0, 0.0, 9.0], [0.0, 9.0, 0.2, 9.0]]))
    shape = {"frames": 3, "image_size": (8, 12), "channels": 1}
    env = make("CartPole-v0", images=Images(**shape), renderer=LEANING_POLE)
    inputs = network_input(vpg.Config(image="stack", motion_scale=10.0, **shape), env, None, numbers)
    np.testing.assert_allclose(inputs, np.broadcast_to([-1.0, -2.0, 0.3], (8, 12, 3)), atol=1e-5)


def test_statistics_of_images():
    """One mean and variance for every pixel of every frame, over all steps and actors."""
    env = make("CartPole-v0", images=Images(image_size=(8, 12)), renderer=LEANING_POLE)
    config = vpg.Config(image="stack", channels=1, image_size=(8, 12), normalize_observations=True)
    statistics = init_statistics(config, env)
    assert statistics.mean.shape == statistics.variance.shape == (8, 12, 2)
    numbers = jax.random.uniform(jax.random.key(0), (7, 3, 2, 1))
    statistics = update_statistics(statistics, network_input(config, env, None, numbers))
    dark = 1 - np.asarray(numbers, np.float64).reshape(21, 2)
    np.testing.assert_allclose(statistics.mean, np.broadcast_to(dark.mean(axis=0), (8, 12, 2)), rtol=1e-5)
    np.testing.assert_allclose(statistics.variance, np.broadcast_to(dark.var(axis=0), (8, 12, 2)), rtol=1e-4)
    assert statistics.seen == 21
    normalized = ((dark - dark.mean(axis=0)) / dark.std(axis=0)).reshape(7, 3, 1, 1, 2)
    expected = np.broadcast_to(normalized, (7, 3, 8, 12, 2))
    np.testing.assert_allclose(network_input(config, env, statistics, numbers), expected, atol=1e-4)


CONV = {"torso": "conv", "conv_channels": (3, 4), "conv_kernels": (4, 2), "conv_strides": (2, 1)}
STACK = {"image": "stack", "frames": 3, "frame_spacing": 2, "motion_scale": 10.0, "channels": 1}
DIFFERENCE = {"image": "difference", "channels": 3}
FEW = {"image_size": (8, 12), "actors": 4, "env_steps": 80, "hidden_sizes": (8,)}
FEW_OF = {
    "vpg": {**FEW, "epochs": None, "steps_per_epoch": 40, "train_v_iters": 2},
    "a3c": {**FEW, "episodes": None, "t_max": 10, "normalize_observations": True},
    "dqn": {**FEW, "episodes": None, "batch_size": 8, "memory_size": 64},
}


def weights_of(name, learner):
    """Parameters of the policy, or of Q."""
    return {"vpg": lambda: learner.params.pi, "a3c": lambda: learner.params.pi, "dqn": lambda: learner.params.q}[name]()


def check_that_images_moved(name, config, learner):
    """The learner of a run of seed 0 has finite weights, and those that see the image have changed since it began."""
    frames = config.frames if config.image == "stack" else 1
    shown = Images(config.image, frames, config.frame_spacing, config.image_size, config.channels)
    env = make("CartPole-v0", images=shown, renderer=LEANING_POLE)
    start = init_run(AGENTS[name], env, config, jax.random.key(0)).learner
    assert np.isfinite(flat(learner._replace(memory=None))).all()
    first, shape = ("kernel_0", (8 * 12 * 3, 8)) if config.torso == "mlp" else ("conv_kernel_0", (4 * 4 * 3, 3))
    before, after = (weights_of(name, x)[first] for x in (start, learner))
    assert after.shape == before.shape == shape
    # Some units of a ReLU network may be dead from the start.
    assert np.mean(after != before) > 0.3
    if config.normalize_observations:
        assert learner.params.statistics.mean.shape == (8, 12, 3)


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        ("vpg", {**STACK, **CONV}),
        pytest.param("a3c", {**DIFFERENCE, **CONV}, marks=pytest.mark.slow),
        ("dqn", STACK),
    ],
    ids=["vpg stack conv", "a3c difference conv", "dqn stack mlp"],
)
def test_agents_train_on_images(name, chosen):
    settings = {**FEW_OF[name], **chosen}
    result = purejaxrl.train(name, observation_type="img", renderer=LEANING_POLE, episodes_log="off", **settings)
    learner = jax.tree.map(lambda leaf: leaf[0], result.state.learner)
    check_that_images_moved(name, AGENTS[name].Config(**settings), learner)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "chosen"),
    [("vpg", DIFFERENCE), ("a3c", STACK), ("dqn", {**DIFFERENCE, **CONV})],
    ids=["vpg difference mlp", "a3c stack mlp", "dqn difference conv"],
)
def test_agents_train_on_images_by_the_pure_function(name, chosen):
    config = AGENTS[name].Config(**FEW_OF[name], **chosen)
    shown = Images(config.image, config.frames, config.frame_spacing, (8, 12), config.channels)
    env = make("CartPole-v0", images=shown, renderer=LEANING_POLE)
    state, _ = jax.jit(purejaxrl.make_train(AGENTS[name], config, env))(jax.random.key(0))
    check_that_images_moved(name, config, state.learner)
