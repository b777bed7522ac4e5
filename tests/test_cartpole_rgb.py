"""CartPole's frames against those that the installed gymnasium renders with pygame."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl.envs.cartpole.rgb import render_rgb

pytestmark = [pytest.mark.filterwarnings("ignore:.*pkg_resources")]

BATCH = 100
LEAST_IDENTICAL = 0.999
# float32 against gymnasium's float64 moves a corner by a pixel in one frame of 70,000 over all angles. The special
# states hold two more: a cart in the very middle with its pole at 135 degrees has a corner between two pixels.
MOST_INEXACT = 2

# Upright, level and diagonal poles take other code than the rest; within 1e-6 of a quarter turn pygame rounds.
SPECIAL_THETA = [0.0, 1e-7, -5e-7, 2e-6, 1e-4, -0.04, 0.785398, 1.5707963, -1.5707963, 2.3561945, 3.1415925, -3.1415927]
# The middle, the limits, and carts or poles that the left or the right border cuts or hides.
SPECIAL_X = [0.0, 0.004, 2.2, 2.4, 2.6, 2.605, 3.3, 3.5, 50.0]


def random_states(seed, count, low_x, high_x, high_theta):
    """Carts on either side at those distances from the centre, and poles up to that angle."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(low_x, high_x, count) * rng.choice((-1, 1), count)
    return np.stack((x, rng.uniform(-high_theta, high_theta, count)), axis=1)


def special_states(count):
    """States where the renderer takes another path, on both sides, and random ones to fill up the count."""
    states = np.array([(side * x, theta) for x, theta, side in product(SPECIAL_X, SPECIAL_THETA, (-1, 1))])
    return np.concatenate((states, random_states(0, count - len(states), 0.0, 3.7, np.pi)))


STATES = {
    "within the limits": random_states(1, 200, 0.0, 2.4, 0.21),
    "all angles, out of view too": random_states(2, 200, 0.0, 3.7, np.pi),
    "cut by the borders": random_states(3, 200, 1.4, 3.4, np.pi),
    "special": special_states(300),
}


@pytest.mark.parametrize(
    "states",
    [STATES["within the limits"], *(pytest.param(it, marks=pytest.mark.slow) for it in list(STATES.values())[1:])],
    ids=STATES.keys(),
)
def test_frames_equal_those_of_gymnasium(states, render_by_gymnasium):
    render = jax.jit(render_rgb)
    identical = []
    for batch in states.astype(np.float32).reshape(-1, BATCH, 2):
        frames = np.asarray(render(batch[:, 0], batch[:, 1]))
        expected = (render_by_gymnasium(x, theta) for x, theta in batch)
        identical += [np.mean((a == b).all(axis=-1)) for a, b in zip(frames, expected, strict=True)]
    worst = np.argmin(identical)
    assert identical[worst] >= LEAST_IDENTICAL, f"x, theta = {states[worst]}"
    assert np.sum(np.array(identical) < 1.0) <= MOST_INEXACT


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_any_leading_shape(lead, render_by_gymnasium):
    states = random_states(4, int(np.prod(lead)), 0.0, 2.4, 0.5).astype(np.float32)
    x, theta = states[:, 0].reshape(lead), states[:, 1].reshape(lead)
    frames = jax.jit(render_rgb)(jnp.asarray(x), jnp.asarray(theta))
    assert frames.shape == (*lead, 400, 600, 3)
    assert frames.dtype == jnp.uint8
    expected = np.stack([render_by_gymnasium(*state) for state in states])
    assert np.array_equal(frames.reshape(expected.shape), expected)


def test_vmap_renders_the_same_frames(render_by_gymnasium):
    states = random_states(5, 4, 0.0, 2.6, 1.0).astype(np.float32)
    frames = jax.jit(jax.vmap(render_rgb))(states[:, 0], states[:, 1])
    assert np.array_equal(frames, [render_by_gymnasium(*state) for state in states])
