"""Products with pictures that are mostly 0, strip by strip, against those with the same pictures drawn whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl.envs import make
from purejaxrl.envs.images import Images
from purejaxrl.kernels.sparse_images import (
    ROWS,
    as_rows,
    bundled_cotangent,
    gradient_whole,
    multiply_whole,
    numbers_of_strips,
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


@pytest.mark.parametrize(
    ("count", "size", "channels", "largest"),
    [
        (3 * ROWS + 7, (40, 90), 3, (2.4, 0.21)),
        (200, (16, 61), 1, (12.0, np.pi)),
    ],
    ids=["as in training", "off the picture and at any angle"],
)
def test_products_are_those_with_whole_pictures(count, size, channels, largest):
    """Strip by strip, as CPUs multiply, and bundle by bundle, as accelerators do; the last bundle is not full."""
    env = make("CartPole-v0", images=Images("difference", image_size=size, channels=channels))
    kernel, cotangent = normal(1, np.prod(env.input_shape), SIZE), normal(2, count, SIZE)

    @jax.jit
    def products(strips):
        product, gradient = jax.vjp(lambda kernel: strips @ kernel, kernel)
        whole = as_rows(multiply_whole(strips, kernel), strips.order)
        return product, gradient(cotangent)[0], whole, gradient_whole(strips, bundled_cotangent(strips, cotangent))

    batch = steps(count, *largest)
    found = zip(jax.jit(env.render_strips)(*batch), jax.jit(env.render_step)(*batch), strict=True)
    for strips, pictures in found:
        pictures = np.asarray(pictures, np.float64).reshape(count, -1)
        assert strips.shape == pictures.shape
        product, gradient, product_of_whole, gradient_of_whole = products(strips)
        for each in (product, product_of_whole):
            np.testing.assert_allclose(each, pictures @ kernel, **CLOSE)
        for each in (gradient, gradient_of_whole):
            np.testing.assert_allclose(each, pictures.T @ cotangent, **CLOSE)


def test_runs_side_by_side_have_their_own_products():
    env = make("CartPole-v0", images=Images("difference", image_size=(16, 60)))
    batches = [steps(40, 2.4, 0.21, seed) for seed in range(2)]
    kernels = normal(2, 2, 16 * 60, SIZE)

    def loss(kernel, batch):
        strips, following = env.render_strips(*batch)
        return jnp.sum(jnp.square(strips @ kernel)) + jnp.sum(following @ kernel)

    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *batches)
    values, gradients = jax.jit(jax.vmap(jax.value_and_grad(loss)))(kernels, stacked)
    for k in range(2):
        value, gradient = jax.jit(jax.value_and_grad(loss))(kernels[k], batches[k])
        np.testing.assert_allclose(values[k], value, rtol=1e-5)
        np.testing.assert_allclose(gradients[k], gradient, **CLOSE)


def test_what_shows_nothing_is_not_drawn():
    env = make("CartPole-v0", images=Images("difference", image_size=(40, 90)))
    render = jax.jit(env.render_strips)
    first, end = numbers_of_strips(render(*steps(2 * ROWS, 2.4, 0.21))[0])
    assert np.all(end > first)
    assert np.sum(end - first) < 2 * 15 * 0.75
    first, end = numbers_of_strips(render(*(part + jnp.array([[[7.0, 0.0]]]) for part in steps(2 * ROWS, 0.1, 0.1)))[0])
    assert np.all(end <= first)
