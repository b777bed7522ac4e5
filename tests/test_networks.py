"""The MLP against plain numpy, its start against PyTorch's rule, its gradient against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from purejaxrl.learning.networks import MLP, affine, apply_network, init_network


def forward(params, x, activation):
    """Rows times weights, layer by layer, in float64."""
    layers = len(params) // 2
    for i in range(layers):
        x = x @ np.asarray(params[f"kernel_{i}"], np.float64) + np.asarray(params[f"bias_{i}"], np.float64)
        if i < layers - 1:
            x = np.tanh(x) if activation == "tanh" else np.maximum(x, 0)
    return x


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("lead", [(), (5,), (7, 2)])
def test_mlp_against_numpy(activation, lead):
    network = MLP((32, 16), 3, activation)
    params = init_network(network, jax.random.key(0), (2, 2))
    observation = jax.random.normal(jax.random.key(1), (*lead, 2, 2))
    outputs = apply_network(network, params, observation, (2, 2))
    assert outputs.shape == (*lead, 3)
    expected = forward(params, np.asarray(observation, np.float64).reshape(*lead, 4), activation)
    np.testing.assert_allclose(outputs, expected, atol=1e-5)


def test_start_is_uniform_within_one_over_root_fan_in():
    params = init_network(MLP((400,), 200, "tanh"), jax.random.key(0), (100,))
    for name, fan_in in (("kernel_0", 100), ("bias_0", 100), ("kernel_1", 400), ("bias_1", 400)):
        scaled = np.asarray(params[name]) * np.sqrt(fan_in)
        assert np.all(np.abs(scaled) <= 1)
        assert np.max(np.abs(scaled)) > 0.97
        np.testing.assert_allclose(np.std(scaled), 1 / np.sqrt(3), atol=0.05)


def test_affine_and_its_gradients_are_those_of_the_plain_formula():
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = [(4, 3), (3,), (4, 5), (3, 5)]
    *arguments, weights = (jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True))

    def plain(kernel, bias, x):
        return kernel.T @ x + bias[:, None]

    np.testing.assert_allclose(affine(*arguments), plain(*arguments), atol=1e-5)
    actual, expected = (
        jax.grad(lambda *xs, f=f: jnp.sum(weights * jnp.sin(f(*xs))), argnums=(0, 1, 2))(*arguments)
        for f in (affine, plain)
    )
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, atol=1e-5)


def test_gradient_of_a_gradient():
    """Differentiating through training needs it."""
    network = MLP((8,), 1, "tanh")
    params = init_network(network, jax.random.key(0), (2,))
    x = jnp.ones((3, 2))

    def norm(params):
        params = jax.tree.map(jnp.asarray, params)
        gradient = jax.grad(lambda p: jnp.sum(apply_network(network, p, x, (2,)) ** 2))(params)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient))

    check_grads(norm, (params,), order=1, modes=["rev"], atol=0.02, rtol=0.02)
