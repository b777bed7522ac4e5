"""Products with images that are mostly 0, tile by tile, against those with the same images rendered whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl.envs import make
from purejaxrl.envs.images import Images
from purejaxrl.kernels.sparse_images import (
    ROWS,
    as_rows,
    cotangent_blocks,
    gradient_whole,
    multiply_whole,
    reference_multiply,
    render,
    tile,
    tile_range,
)

CLOSE = {"atol": 2e-4, "rtol": 1e-4}
SIZE = 5


def steps(count, largest_x, largest_theta, seed=0):
    """Places and angles of steps [count, 2, 2] and of what follows; a fifth is terminal, where both frames are one."""
    rng = np.random.default_rng(seed)
    scale = np.array([largest_x, largest_theta], np.float32)
    frames = rng.uniform(-1, 1, (count, 1, 2)) * scale + rng.normal(0, 0.03, (count, 3, 2))
    frames = frames.astype(np.float32)
    observation, following = frames[:, :2], frames[:, 1:].copy()
    is_last = np.arange(count) % 5 == 0
    following[is_last, 0] = following[is_last, 1]
    return jnp.asarray(observation), jnp.asarray(following)


def normal(seed, *shape):
    """Normal numbers."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def tiled(env):
    """What makes lazy images of steps, ready to be multiplied."""
    return lambda *batch: tile(*env.image_format.step_images(*batch))


@pytest.mark.parametrize(
    ("count", "size", "channels", "largest"),
    [
        pytest.param(3 * ROWS + 7, (40, 90), 3, (2.4, 0.21), marks=pytest.mark.slow),
        pytest.param(200, (16, 61), 1, (12.0, np.pi), marks=pytest.mark.slow),
    ],
    ids=["as in training", "off the image and at any angle"],
)
def test_products_are_those_with_whole_images(count, size, channels, largest):
    """Tile by tile, as CPUs multiply, and block by block, as accelerators do; the last block is not full."""
    env = make("CartPole-v0", images=Images("difference", image_size=size, channels=channels))
    kernel, cotangent = normal(1, np.prod(env.input_shape), SIZE), normal(2, count, SIZE)

    @jax.jit
    def products(image):
        product, gradient = jax.vjp(lambda kernel: image @ kernel, kernel)
        tiles = image.tiles
        whole = as_rows(multiply_whole(tiles, kernel), tiles.order)
        return product, gradient(cotangent)[0], whole, gradient_whole(tiles, cotangent_blocks(tiles, cotangent))

    batch = steps(count, *largest)
    rendered = jax.jit(lambda *batch: render(*env.image_format.step_images(*batch)))(*batch)
    for image, pixels in zip(jax.jit(tiled(env))(*batch), rendered, strict=True):
        assert image.is_sparse
        assert image.shape == pixels.shape
        flat = np.asarray(pixels, np.float64).reshape(count, -1)
        product, gradient, product_of_whole, gradient_of_whole = products(image)
        for each in (product, product_of_whole, reference_multiply(image, kernel)):
            np.testing.assert_allclose(each, flat @ kernel, **CLOSE)
        for each in (gradient, gradient_of_whole):
            np.testing.assert_allclose(each, flat.T @ cotangent, **CLOSE)


@pytest.mark.slow
def test_images_that_are_not_sparse_are_rendered_for_a_product():
    stack = make("CartPole-v0", images=Images("stack", image_size=(16, 60)))
    images = stack.image_format.step_images(*steps(2 * ROWS, 2.4, 0.21))
    assert not images[0].is_sparse
    kernel = normal(1, 16 * 60 * 2, SIZE)
    for image in images:
        expected = np.asarray(image.render()).reshape(2 * ROWS, -1) @ kernel
        np.testing.assert_allclose(image @ kernel, expected, **CLOSE)


@pytest.mark.slow
def test_runs_side_by_side_have_their_own_products():
    env = make("CartPole-v0", images=Images("difference", image_size=(16, 60)))
    batches = [steps(40, 2.4, 0.21, seed) for seed in range(2)]
    kernels = normal(2, 2, 16 * 60, SIZE)

    def loss(kernel, batch):
        image, next_image = tiled(env)(*batch)
        return jnp.sum(jnp.square(image @ kernel)) + jnp.sum(next_image @ kernel)

    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *batches)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss)))(kernels, stacked)
    for k in range(2):
        value, gradient = jax.jit(jax.value_and_grad(loss))(kernels[k], batches[k])
        np.testing.assert_allclose(values[k], value, rtol=1e-5)
        np.testing.assert_allclose(gradients[k], gradient, **CLOSE)


def test_what_shows_nothing_is_not_rendered():
    env = make("CartPole-v0", images=Images("difference", image_size=(40, 90)))
    prepare = jax.jit(tiled(env))
    first, end = tile_range(prepare(*steps(2 * ROWS, 2.4, 0.21))[0].tiles)
    assert np.all(end > first)
    assert np.sum(end - first) < 2 * 15 * 0.75
    off_the_image = (part + jnp.array([[[7.0, 0.0]]]) for part in steps(2 * ROWS, 0.1, 0.1))
    first, end = tile_range(prepare(*off_the_image)[0].tiles)
    assert np.all(end <= first)
