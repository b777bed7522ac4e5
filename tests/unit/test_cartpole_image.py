"""CartPole's small images against area averages of the frames that the installed gymnasium renders with pygame."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl.envs.cartpole.image import render_observation

pytestmark = [pytest.mark.filterwarnings("ignore:.*pkg_resources")]

SIZES = [(40, 90), (24, 80), (16, 60), (20, 50)]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
FRAME_ROWS, FRAME_COLUMNS = slice(160, 320), 600
TRACK_ROW = 299 - FRAME_ROWS.start
CORNERS_ACROSS, CORNERS_ALONG = np.array([-5, -5, 5, 5]), np.array([-5, 120, 120, -5])

MEAN_ERROR, LARGEST_ERROR = 2 / 255, 16 / 255
# Where an edge of the image cuts a pole, gfxdraw bends its fringe, off a nearly level one so far that a gap opens.
LARGEST_ERROR_OF_CUT_POLES, LARGEST_ERROR_AT_GAPS, LARGEST_PART_OVER = 18 / 255, 33 / 255, 0.003
LARGEST_ERROR_WITHIN_LIMITS = 13 / 255

render = jax.jit(render_observation, static_argnums=(2, 3, 4))


def pole_columns(x, theta):
    """Columns of the pole's corners, before they are cut to pixels."""
    return 300 + 125 * x[:, None] + CORNERS_ACROSS * np.cos(theta)[:, None] + CORNERS_ALONG * np.sin(theta)[:, None]


def random_states(seed, count, largest_x, largest_theta):
    """x and theta, each drawn uniformly up to a largest value on either side."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-largest, largest, count).astype(np.float32) for largest in (largest_x, largest_theta)]


# Within the limits, out of view too, and at all angles.
STATES = tuple(
    np.concatenate(parts)
    for parts in zip(
        random_states(1, 400, 2.4, 0.21),
        random_states(2, 200, 3.0, 0.4),
        random_states(3, 400, 3.0, np.pi),
        strict=True,
    )
)


def average(pixels, cells, axis):
    """Pixels averaged over cells along an axis, by the part of each pixel that a cell has."""
    running = np.cumsum(pixels, axis, dtype=np.float32)
    running = np.concatenate([np.zeros_like(running.take([0], axis)), running], axis)
    borders = np.arange(cells + 1) * pixels.shape[axis] / cells
    whole = np.minimum(borders.astype(int), pixels.shape[axis] - 1)
    part = (borders - whole).astype(np.float32).reshape([-1 if each == axis else 1 for each in range(pixels.ndim)])
    sums = (1 - part) * running.take(whole, axis) + part * running.take(whole + 1, axis)
    return np.diff(sums, axis=axis) * (cells / pixels.shape[axis])


@pytest.fixture(scope="module")
def averages(render_by_gymnasium):
    """The area averages of all states' frames at every size, in [0, 1]."""
    averaged = {size: [] for size in SIZES}
    for x, theta in zip(*STATES, strict=True):
        frame = render_by_gymnasium(x, theta)[FRAME_ROWS]
        for height, width in SIZES:
            averaged[height, width].append(average(average(frame, height, 0), width, 1) / 255)
    return {size: np.stack(images) for size, images in averaged.items()}


def test_averaging_is_exact_where_pixels_are_shared_and_where_not():
    pixels = np.array([[9, 0, 3, 6], [1, 1, 1, 1]], np.uint8)
    np.testing.assert_allclose(average(pixels, 2, 1), [[4.5, 4.5], [1, 1]], rtol=1e-6)
    np.testing.assert_allclose(average(pixels, 3, 1), [[6.75, 1.5, 5.25], [1, 1, 1]], rtol=1e-6)
    np.testing.assert_allclose(average(pixels, 1, 0), [[5, 0.5, 2, 3.5]], rtol=1e-6)


@pytest.mark.parametrize(("size", "channels"), [*((size, 3) for size in SIZES), ((40, 90), 1), ((20, 50), 1)])
def test_images_are_averages_of_gymnasiums_frames(averages, size, channels):
    x, theta = STATES
    expected = averages[size] if channels == 3 else (averages[size] @ LUMA)[..., None]
    images = np.asarray(render(x, theta, *size, channels))
    assert images.dtype == np.float32
    assert images.shape == (len(x), *size, channels)
    assert images.min() >= 0
    assert images.max() <= 1

    columns = pole_columns(x, theta)
    is_cut = (columns.min(1) < 0) | (columns.max(1) >= FRAME_COLUMNS - 1)
    allowed = np.where(is_cut & (abs(theta) > 0.4), LARGEST_ERROR_OF_CUT_POLES, LARGEST_ERROR)
    allowed[is_cut & (abs(abs(theta) - np.pi / 2) < 0.25)] = LARGEST_ERROR_AT_GAPS
    allowed[(abs(x) < 2.4) & (abs(theta) < 0.21)] = LARGEST_ERROR_WITHIN_LIMITS
    error = abs(images - expected)
    largest = error.max((1, 2, 3))
    assert (error.mean((1, 2, 3)) <= MEAN_ERROR).all()
    assert (largest <= allowed).all()
    assert np.mean(largest > LARGEST_ERROR) <= LARGEST_PART_OVER


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_leading_axes_are_kept(lead):
    x, theta = (states[-int(np.prod(lead)) :].reshape(lead) for states in STATES)
    images = render(jnp.asarray(x), jnp.asarray(theta), *SIZES[0], 3)
    assert images.shape == (*lead, *SIZES[0], 3)
    in_one_batch = render(*STATES, *SIZES[0], 3)[-int(np.prod(lead)) :]
    np.testing.assert_allclose(images.reshape(in_one_batch.shape), in_one_batch, atol=1e-5)


def test_vmap_renders_the_same():
    by_vmap = jax.vmap(lambda x, theta: render(x, theta, *SIZES[0], 3))(*STATES)
    np.testing.assert_allclose(by_vmap, render(*STATES, *SIZES[0], 3), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(9, 13), (40, 90)])
def test_a_cart_out_of_view_leaves_background_and_track(height, width):
    frame = np.ones((FRAME_ROWS.stop - FRAME_ROWS.start, FRAME_COLUMNS), np.float32)
    frame[TRACK_ROW] = 0
    expected = average(average(frame, height, 0), width, 1)
    for image in render(jnp.array([-30.0, -5.0, 5.0, 30.0]), jnp.full(4, 0.1), height, width, 1):
        np.testing.assert_allclose(image[..., 0], expected, atol=1e-4)


def test_one_pixel_of_the_frame_is_seen():
    x = jnp.array([0.004, 0.012, 0.004, 0.004])  # 300.5 and 301.5 in the frame
    theta = jnp.array([0.05, 0.05, 0.0, 0.02])
    still, moved, upright, leaning = np.asarray(render(x, theta, 40, 90, 1))
    # The cart's side moves by one of the 6.67 columns of an image pixel.
    assert abs(moved - still).max() == pytest.approx(0.15, abs=1e-3)
    assert abs(leaning - upright).max() > 0.05


def test_a_positive_angle_leans_right():
    images = render(jnp.zeros(4), jnp.array([0.2, -0.2, 1.0, -1.0]), 40, 90, 1)
    darkness = 1 - np.asarray(images)[:, :20, :, 0]
    for right, left in (darkness[:2], darkness[2:]):
        assert right[:, 45:].sum() > 0.99 * right.sum() > 0
        assert left[:, :45].sum() > 0.99 * left.sum() > 0


def test_gradients_are_finite():
    def darkness(x, theta):
        return render(x, theta, 16, 60, 1).sum()

    states = jnp.array([0.0, 0.1, 1.0, 2.5]), jnp.array([0.0, 0.05, np.pi / 2, np.pi])
    gradients = jax.grad(darkness, (0, 1))(*states)
    assert all(jnp.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(("height", "width"), [(10, 16), (20, 30), (40, 90)])
def test_no_part_of_an_image_is_empty(height, width):
    """XLA of JAX 0.11 crashes at an empty constant in a program for several devices."""
    lowered = jax.jit(lambda x, theta: render(x, theta, height, width, 3)).lower(0.0, 0.0).as_text()
    assert f"tensor<{height}x" in lowered
    assert not re.search(r"tensor<(\d+x)*0x", lowered)
