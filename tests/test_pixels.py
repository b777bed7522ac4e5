"""Images as observations: against frames rendered one by one from lists of states that the tests keep."""

from functools import cache

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import PROGRESS, flat, train_one
from probes import FIRST_NUMBER, LEANING_POLE, Counter, Signal

import purejaxrl
from purejaxrl.agents import dqn, vpg
from purejaxrl.envs import Images, PixelObservation, find_renderer, make
from purejaxrl.envs.cartpole.image import render_observation
from purejaxrl.envs.images import observe_images
from purejaxrl.errors import InputError
from purejaxrl.experiment.presets import resolve
from purejaxrl.kernels.sparse_images import render
from purejaxrl.storage.run_folder import read_params
from purejaxrl.training.loop import init_run
from purejaxrl.training.rollout import rollout

SIZE = (8, 12)
STEPS = 120
# Far less than a step changes in an image, far more than float32's rounding.
CLOSE = {"rtol": 0, "atol": 1e-5}


def play(env):
    """The first observation and the timesteps of random actions; whatever is observed, the play is the same."""

    def step(state, inputs):
        timestep = env.step(inputs[0], state, inputs[1])
        return timestep.state, timestep._replace(state=None)

    @jax.jit
    def run(reset_key, step_keys, actions):
        observation, state = env.reset(reset_key)
        return observation, jax.lax.scan(step, state, (step_keys, actions))[1]

    reset_key, step_key, action_key = jax.random.split(jax.random.key(0), 3)
    actions = jax.random.randint(action_key, (STEPS,), 0, 2)
    return jax.tree.map(np.asarray, run(reset_key, jax.random.split(step_key, STEPS), actions))


@cache
def play_of_states(limit):
    """The play of CartPole with state vectors."""
    return play(make("CartPole-v0", max_ep_len=limit))


def render_all(env, first, timestep):
    """The images of the first observation, and of the later and of the next ones of all steps."""
    everything = np.concatenate([first[None], timestep.observation, timestep.next_observation])
    images = np.asarray(jax.jit(lambda x: env.image_format.image(x).render())(everything))
    return images[0], images[1 : STEPS + 1], images[STEPS + 1 :]


@cache
def frame_renderer(channels):
    """A function that renders the frame of one state (x, x_dot, theta, theta_dot)."""
    render = jax.jit(lambda state: render_observation(state[0], state[2], *SIZE, channels))
    return lambda state: np.asarray(render(state))


def episodes_of(first, timestep):
    """For every step the states of its episode up to its end, whether that is over, and what the next step begins with.

    Plain lists of state vectors, oldest first.
    """
    past, steps = [first], []
    for i in range(STEPS):
        seen = [*past, timestep.next_observation[i]]
        is_over = timestep.terminated[i] or timestep.truncated[i]
        past = [timestep.observation[i]] if is_over else seen
        steps.append((seen, is_over, past))
    return steps


@pytest.mark.parametrize(
    ("frames", "spacing", "channels", "limit"),
    [
        (1, 1, 1, None),
        pytest.param(2, 1, 3, 15, marks=pytest.mark.slow),
        pytest.param(2, 3, 1, None, marks=pytest.mark.slow),
        pytest.param(4, 1, 1, None, marks=pytest.mark.slow),
        (4, 3, 3, 15),
    ],
)
def test_a_stack_is_the_last_frames_of_its_own_episode(frames, spacing, channels, limit):
    """Frames lie `spacing` steps apart, oldest first; those from before the first step are the first one."""
    render = frame_renderer(channels)

    def stacked(states):
        places = [max(len(states) - 1 - spacing * age, 0) for age in reversed(range(frames))]
        return np.concatenate([render(states[place]) for place in places], axis=-1)

    images = Images("stack", frames, spacing, SIZE, channels)
    env = make("CartPole-v0", max_ep_len=limit, images=images)
    assert env.input_shape == (*SIZE, frames * channels)
    first, timestep = play(env)
    first_state, states = play_of_states(limit)
    for name in ("reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(timestep, name), getattr(states, name))
    assert np.sum(states.terminated & ~states.truncated) >= 2
    assert np.sum(states.truncated & ~states.terminated) >= (0 if limit is None else 2)

    first_image, images, next_images = render_all(env, first, timestep)
    assert first_image.shape == env.input_shape
    np.testing.assert_allclose(first_image, stacked([first_state]), **CLOSE)
    for i, (seen, is_over, past) in enumerate(episodes_of(first_state, states)):
        np.testing.assert_allclose(next_images[i], stacked(seen), **CLOSE)
        np.testing.assert_allclose(images[i], stacked(past), **CLOSE)
        if is_over:
            np.testing.assert_array_equal(images[i], np.tile(images[i][..., :channels], frames))
    moved = np.abs(next_images[..., -channels:] - next_images[..., :channels]).max(axis=(1, 2, 3))
    assert frames == 1 or np.mean(moved > 0.005) > 0.5, "the comparison would be blind"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_difference_is_zero_at_first_and_terminal_observations_only(channels):
    """An episode that the limit of 15 steps cuts keeps its last difference."""
    render, still = frame_renderer(channels), np.zeros((*SIZE, channels))
    # What is for stacks does not matter.
    images = Images("difference", frames=4, frame_spacing=3, image_size=SIZE, channels=channels)
    env = make("CartPole-v0", max_ep_len=15, images=images)
    assert env.input_shape == (*SIZE, channels)
    first_image, images, next_images = render_all(env, *play(env))
    first_state, states = play_of_states(15)

    np.testing.assert_array_equal(first_image, still)
    moved = set()
    for i, (seen, is_over, _) in enumerate(episodes_of(first_state, states)):
        difference = render(seen[-1]) - render(seen[-2])
        np.testing.assert_allclose(next_images[i], still if states.terminated[i] else difference, **CLOSE)
        np.testing.assert_allclose(images[i], still if is_over else difference, **CLOSE)
        if np.abs(difference).max() > 0.005:
            moved.add((bool(states.terminated[i]), bool(states.truncated[i])))
    assert moved >= {(False, False), (True, False), (False, True)}, "the comparison would be blind"
    assert not np.any(next_images[states.terminated])
    assert -1 <= next_images.min() < -0.02
    assert 0.02 < next_images.max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "images",
    [
        pytest.param(Images("stack", 1, 1, SIZE, 3), marks=pytest.mark.slow),
        pytest.param(Images("stack", 3, 1, SIZE, 1), marks=pytest.mark.slow),
        pytest.param(Images("stack", 3, 2, SIZE, 1), marks=pytest.mark.slow),
        Images("difference", image_size=SIZE, channels=3),
    ],
)
def test_a_step_rendered_at_once_is_its_two_observations(images):
    """Through terminations and cuts, and for leading axes."""
    env = make("CartPole-v0", max_ep_len=15, images=images)
    first, timestep = play(env)
    acted_on = np.concatenate([first[None], timestep.observation[:-1]])
    _, later, following = render_all(env, first, timestep)
    render_step = jax.jit(lambda *step: render(*env.image_format.step_images(*step)))
    rendered, rendered_next = render_step(acted_on, timestep.next_observation)
    np.testing.assert_allclose(rendered[1:], later[:-1], **CLOSE)
    np.testing.assert_allclose(rendered_next, following, **CLOSE)
    as_grid = (part.reshape(4, -1, *part.shape[1:]) for part in (acted_on, timestep.next_observation))
    for grid, row in zip(render_step(*as_grid), (rendered, rendered_next), strict=True):
        np.testing.assert_allclose(grid.reshape(row.shape), row, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "images",
    [
        Images("stack", 3, 2, SIZE, 1),
        pytest.param(Images("difference", image_size=SIZE, channels=3), marks=pytest.mark.slow),
    ],
    ids=["stack", "diff"],
)
def test_pixel_observation_shows_what_agents_see(images):
    """Its reset, step and info give, with the same keys, the images that are rendered late, episode by episode."""
    inner, params = gymnax.make("CartPole-v1")
    params = params.replace(max_steps_in_episode=15)
    late = make(inner, params, images=images)
    first, timestep = play(late)
    assert np.sum(timestep.terminated) >= 2
    assert np.sum(timestep.truncated & ~timestep.terminated) >= 2
    expected = render_all(late, first, timestep)

    wrapper = PixelObservation(inner, params, images)
    assert wrapper.default_params is params
    # `make` hands on what `step` returns, and info["final_observation"].
    env = make(wrapper)
    assert env.observation_shape == env.input_shape == (*SIZE, 3)
    rendered_first, rendered = play(env)
    for name in ("reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(rendered, name), getattr(timestep, name))
    space = wrapper.observation_space(params)
    is_difference = images.image == "difference"
    assert (space.low, space.high, space.shape) == (-1 if is_difference else 0, 1, (*SIZE, 3))
    for given, wanted in zip((rendered_first, rendered.observation, rendered.next_observation), expected, strict=True):
        np.testing.assert_allclose(given, wanted, **CLOSE)
        assert given.dtype == space.dtype
        assert space.low <= given.min() <= given.max() <= space.high
    assert rendered.next_observation.min() < -0.02 if is_difference else rendered.next_observation.max() > 0.9


def test_pixel_observation_by_hand():
    """Called as gymnax's environments are: parameters may be left out, or be others than its own."""
    inner, params = gymnax.make("CartPole-v1")
    wrapper = PixelObservation(inner, images=Images(image_size=SIZE), renderer=LEANING_POLE)
    assert wrapper.default_params == params
    assert wrapper.action_space(params).n == 2
    observation, state = wrapper.reset(jax.random.key(0))
    assert observation.shape == (*SIZE, 2)
    np.testing.assert_allclose(observation, 0.5 + state.inner.theta * np.ones((*SIZE, 2)), rtol=1e-6)
    # By default an episode has more than one step; with these parameters that one is the last.
    short = params.replace(max_steps_in_episode=1)
    for given, is_last in (((), False), ((short,), True)):
        after, _, reward, terminated, truncated, info = wrapper.step(jax.random.key(7), state, jnp.int32(1), *given)
        assert (float(reward), bool(terminated), bool(truncated)) == (1, False, is_last)
        final = np.asarray(info["final_observation"])
        np.testing.assert_array_equal(final[..., 0], observation[..., 1])
        assert np.all(final[..., 1] != final[..., 0])
        assert np.array_equal(after, final) is not is_last
        assert np.array_equal(after[..., 0], after[..., 1]) is is_last
    with pytest.raises(InputError, match="Counter has none; CartPole-v0, CartPole-v1"):
        PixelObservation(Counter())


@pytest.mark.parametrize(("torso", "first_layer"), [("mlp", "kernel_0"), ("conv", "conv_kernel_0")])
def test_agents_train_on_a_pixel_observation(torso, first_layer):
    env = make(PixelObservation(*gymnax.make("CartPole-v1"), Images(image_size=SIZE), LEANING_POLE))
    layers = {"conv_channels": (2,), "conv_kernels": (4,), "conv_strides": (4,)} if torso == "conv" else {}
    config = vpg.Config(epochs=2, steps_per_epoch=40, actors=4, hidden_sizes=(8,), torso=torso, **layers)
    start = init_run(vpg.agent, env, config, jax.random.key(0)).learner.params.v
    end = train_one(vpg.agent, config, env)[0].learner.params.v
    assert end[first_layer].shape == ((4 * 4 * 2, 2) if torso == "conv" else (8 * 12 * 2, 8))
    assert np.isfinite(flat(end)).all()
    assert np.all(end[first_layer] != start[first_layer])


def test_stacks_of_a_custom_renderer():
    """Counter observes the steps of an episode of 3: two steps apart these are 0 0, 0 1, 0 2 and, at its end, 1 3."""
    env = make(Counter(length=3), max_ep_len=9, images=Images("stack", 2, 2, SIZE, 3), renderer=FIRST_NUMBER)
    first_image, images, next_images = render_all(env, *play(env))
    colors = np.array([1, 0.75, 0.5])
    for given, expected in (
        (first_image[None], [(0, 0)]),
        (images, [(0, 1), (0, 2), (0, 0)] * (STEPS // 3)),
        (next_images, [(0, 1), (0, 2), (1, 3)] * (STEPS // 3)),
    ):
        flat_colors = np.reshape([(older * colors, newer * colors) for older, newer in expected], (-1, 1, 1, 6))
        np.testing.assert_array_equal(given, np.broadcast_to(flat_colors, given.shape))


def test_custom_images_can_be_learned_from():
    """The coin that Signal shows is the action that it rewards: nothing but the image tells which."""
    result = purejaxrl.train(
        "vpg", env=Signal(), max_ep_len=5, observation_type="img", renderer=FIRST_NUMBER, image="stack", frames=1,
        image_size=SIZE, channels=1, epochs=40, steps_per_epoch=80, actors=8, pi_lr=1e-2, train_v_iters=2,
        hidden_sizes=(8,),
    )  # fmt: skip
    assert result.frame()["return_mean"].iloc[0] < 0.8
    assert result.frame()["return_mean"].iloc[-1] > 0.95


def test_an_environment_without_images_says_which_have_them():
    for arguments in ({"observation_type": "img"}, {}):
        with pytest.raises(InputError, match="Counter has none; CartPole-v0, CartPole-v1 have one") as caught:
            purejaxrl.train("dqn", env=Counter(length=3), max_ep_len=9, **arguments)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="renderer: it draws images"):
        purejaxrl.train("vpg", env=Counter(length=3), max_ep_len=9, renderer=FIRST_NUMBER)


@pytest.mark.parametrize("chosen", [{}, {"image": "stack", "frames": 4, "frame_spacing": 3}], ids=["original", "stack"])
def test_a_replay_of_images_is_small(chosen):
    """100 000 transitions with their images of 40 x 90 x 3 would take 8.6 GB, and 35 GB with stacks of four."""
    config = resolve(dqn.agent, "CartPole-v0", "img", "original", chosen)
    images = Images(config.image, config.frames, config.frame_spacing, config.image_size, config.channels)
    env = make("CartPole-v0", images=images)
    learner = jax.eval_shape(lambda key: dqn.init(config, env, key), jax.random.key(0))
    assert config.memory_size == learner.memory.rows.shape[0] == 100_000
    assert env.input_shape == ((40, 90, 12) if chosen else (40, 90, 3))
    assert sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(learner.memory)) < 10e6


def test_make_train_makes_images_of_what_a_config_says():
    """Within its max_ep_len; nothing is trained."""
    images = {"image": "stack", "frames": 3, "frame_spacing": 2, "image_size": SIZE, "channels": 1}
    config = vpg.Config(epochs=1, steps_per_epoch=40, actors=4, hidden_sizes=(8,), max_ep_len=15, **images)
    state, _ = jax.eval_shape(purejaxrl.make_train(vpg.agent, config, make("CartPole-v0")), jax.random.key(0))
    assert state.observation.shape == (4, 3, 2)
    assert state.env_state.history.shape == (4, 5, 2)
    assert state.env_state.inner.steps.shape == (4,)
    assert state.learner.params.pi["kernel_0"].shape == (8 * 12 * 3, 8)


@pytest.mark.slow
def test_numbers_travel_and_images_do_not(tmp_path):
    config = vpg.Config(epochs=1, steps_per_epoch=40, actors=4, hidden_sizes=(8,))
    env = make("CartPole-v0", images=Images("stack", 4, 3, SIZE, 3))

    def collect(key, rollout_key):
        return rollout(vpg.agent, env, config, init_run(vpg.agent, env, config, key), PROGRESS, rollout_key)

    state, batch, _ = jax.eval_shape(collect, jax.random.key(0), jax.random.key(1))
    # x and theta of four frames, ten steps of four actors.
    assert batch.observation.shape == batch.next_observation.shape == (10, 4, 4, 2)
    assert state.observation.shape == (4, 4, 2)
    assert max(leaf.size for leaf in jax.tree.leaves((state.env_state, batch))) == 10 * 4 * 4 * 2

    tiny = {"env_steps": 40, "actors": 4, "batch_size": 8, "memory_size": 32, "hidden_sizes": (8,)}
    result = purejaxrl.train("dqn", image_size=SIZE, out=tmp_path / "run", **tiny)
    assert result.state.observation.shape == (1, 4, 2, 2)
    # What is saved is the network, and no replay.
    weights = (8 * 12 * 3 + 1) * 8 + (8 + 1) * 2
    assert sum(array.size for array in read_params(result.path, "last").values()) == weights


def test_images_are_not_rendered_from_images():
    rendered = make("CartPole-v0", images=Images())
    with pytest.raises(InputError, match=r"observations of CartPole-v0 are \[40, 90, 2\] already"):
        observe_images(rendered, find_renderer("CartPole-v0"), Images())
