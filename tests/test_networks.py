"""Networks against plain numpy and JAX's convolution, their start against PyTorch's rule, gradients against others."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from purejaxrl.agents import vpg
from purejaxrl.components.networks import (
    MLP,
    ConvNet,
    apply_network,
    check_network,
    init_network,
)
from purejaxrl.errors import InputError
from purejaxrl.kernels.narrow_mlp import LONG_BATCH, WIDE_INPUT


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


@pytest.mark.parametrize("rows", [1, LONG_BATCH - 1, LONG_BATCH, 3 * LONG_BATCH])
@pytest.mark.parametrize("width", [WIDE_INPUT, WIDE_INPUT + 1, 3 * WIDE_INPUT])
def test_wide_inputs_and_long_batches_against_numpy(width, rows):
    """Which axis is last inside the network depends on both."""
    network = MLP((16, 8), 3, "relu")
    params = init_network(network, jax.random.key(0), (width,))
    inputs = jax.random.normal(jax.random.key(1), (rows, width))
    expected = forward(params, np.asarray(inputs, np.float64), "relu")
    np.testing.assert_allclose(apply_network(network, params, inputs, (width,)), expected, atol=2e-5)


def test_gradients_of_wide_inputs_add_up_over_the_rows():
    """A long batch's gradient is the sum of those of its rows, which go another way."""
    network, shape = MLP((16, 8), 3, "tanh"), (2, WIDE_INPUT)
    params = init_network(network, jax.random.key(0), shape)
    inputs = jax.random.normal(jax.random.key(1), (LONG_BATCH, *shape))
    gradient = jax.jit(jax.grad(lambda params, x: jnp.sum(jnp.sin(apply_network(network, params, x, shape)))))
    rows = [gradient(params, row) for row in inputs]
    expected = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *rows)
    chex.assert_trees_all_close(gradient(params, inputs), expected, atol=1e-4)


def convolve(image, kernel, stride):
    """image[H, W, C] seen through kernel[columns, rows, C, size], pixel by pixel; no padding."""
    side = kernel.shape[0]
    rows, columns = ((length - side) // stride + 1 for length in image.shape[:2])
    result = np.zeros((rows, columns, kernel.shape[-1]))
    for row in range(rows):
        for column in range(columns):
            for down in range(side):
                for right in range(side):
                    pixel = image[row * stride + down, column * stride + right]
                    result[row, column] += pixel @ kernel[right, down]
    return result


CONVOLUTIONS = {"channels": (5, 4), "kernels": (3, 2), "strides": (2, 1)}
IMAGE = (8, 11, 3)


def conv_net(**others):
    return ConvNet(**{"hidden_sizes": (6,), "outputs": 2, "activation": "relu", **CONVOLUTIONS, **others})


def kernels_of(params):
    """Every convolution's kernel[columns, rows, C, size] and bias, in float64."""
    for layer, side in enumerate(CONVOLUTIONS["kernels"]):
        kernel = np.asarray(params[f"conv_kernel_{layer}"], np.float64)
        bias = np.asarray(params[f"conv_bias_{layer}"], np.float64)
        yield kernel.reshape(side, side, -1, kernel.shape[-1]), bias


def test_convolutions_against_plain_loops():
    """8 x 11 pixels, seen by squares of 3 at every other place, are 3 x 5; by squares of 2 these are 2 x 4."""
    network = conv_net(activation="tanh")
    params = init_network(network, jax.random.key(0), IMAGE)
    assert params["head"]["kernel_0"].shape == (2 * 4 * 4, 6)
    images = jax.random.normal(jax.random.key(1), (2, 3, *IMAGE))
    expected = []
    for x in np.asarray(images, np.float64).reshape(6, *IMAGE):
        for (kernel, bias), stride in zip(kernels_of(params), CONVOLUTIONS["strides"], strict=True):
            x = np.tanh(convolve(x, kernel, stride) + bias)
        expected.append(forward(params["head"], x.ravel(), "tanh"))
    outputs = apply_network(network, params, images, IMAGE)
    assert outputs.shape == (2, 3, 2)
    np.testing.assert_allclose(outputs, np.reshape(expected, (2, 3, 2)), atol=1e-5)


@pytest.mark.slow
def test_convolutions_and_their_gradients_are_those_of_jax():
    network = conv_net()
    params = init_network(network, jax.random.key(0), IMAGE)
    images = jax.random.normal(jax.random.key(1), (7, *IMAGE))

    def by_jax(params, x):
        for layer, (side, stride) in enumerate(zip(CONVOLUTIONS["kernels"], CONVOLUTIONS["strides"], strict=True)):
            kernel = params[f"conv_kernel_{layer}"]
            kernel = kernel.reshape(side, side, x.shape[-1], -1).swapaxes(0, 1)
            x = jax.lax.conv_general_dilated(
                x, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jnp.maximum(x + params[f"conv_bias_{layer}"][None, None, None], 0)
        return apply_network(MLP((6,), 2, "relu"), params["head"], x, x.shape[1:])

    def ours(params, x):
        return apply_network(network, params, x, IMAGE)

    np.testing.assert_allclose(ours(params, images), by_jax(params, images), atol=1e-5)
    gradients = [jax.grad(lambda p, f=f: jnp.sum(jnp.sin(f(p, images))))(params) for f in (ours, by_jax)]
    chex.assert_trees_all_close(*gradients, atol=1e-4)
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradients[0]))


def test_convolutions_of_several_runs_at_once():
    """Under vmap every run has kernels of its own; the outputs are those of each run alone."""
    network = conv_net()
    shapes = jax.eval_shape(lambda key: init_network(network, key, IMAGE), jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.float32(rng.uniform(-0.3, 0.3, (3, *leaf.shape))), shapes)
    images = jax.random.normal(jax.random.key(1), (3, 4, *IMAGE))
    apply = jax.jit(lambda params, x: apply_network(network, params, x, IMAGE))
    together = jax.vmap(apply)(params, images)
    own = [jax.tree.map(lambda leaf, run=run: leaf[run], params) for run in range(3)]
    for run in range(3):
        np.testing.assert_allclose(together[run], apply(own[run], images[run]), atol=1e-5)
    assert not np.allclose(together[0], apply(own[1], images[0]), atol=1e-3)


def test_convolutions_start_uniform_within_one_over_root_fan_in():
    """Of a square of 5 x 5 pixels with 4 channels, 100 numbers go into every output."""
    network = conv_net(channels=(300,), kernels=(5,), strides=(2,))
    params = init_network(network, jax.random.key(0), (9, 9, 4))
    for name in ("conv_kernel_0", "conv_bias_0"):
        scaled = np.asarray(params[name]) * 10
        assert 0.97 < np.max(np.abs(scaled)) <= 1
        np.testing.assert_allclose(np.std(scaled), 1 / np.sqrt(3), atol=0.05)


def conv_config(channels, kernels, strides, torso="conv"):
    return vpg.Config(torso=torso, conv_channels=channels, conv_kernels=kernels, conv_strides=strides)


@pytest.mark.parametrize(
    ("config", "shape", "said"),
    [
        (conv_config((4,), (3,), (1,)), (4,), r"torso: conv takes images .*\[4\]"),
        (conv_config((4,), (3,), (1,)), (8, 12), r"torso: conv takes images .*\[8, 12\]"),
        (conv_config((4, 4), (3,), (1,)), IMAGE, "conv_channels, .*: 2, 1 and 1 layers"),
        (conv_config((4,), (3, 3), (1,)), IMAGE, "conv_kernels .*: 1, 2 and 1 layers"),
        (conv_config((4,), (3,), (1, 1, 1)), IMAGE, "conv_strides: 1, 1 and 3 layers"),
        (conv_config((4,), (9,), (1,)), (8, 12, 3), "conv_kernels: 9 is more than the 8 pixels that layer 1 "),
        (conv_config((4,), (9,), (1,)), (12, 8, 3), "conv_kernels: 9 is more than the 8 pixels that layer 1 "),
        # 8 pixels, seen by squares of 4 at every third place, are 2.
        (conv_config((4, 4), (4, 3), (3, 1)), (8, 12, 3), "conv_kernels: 3 is more than the 2 pixels that layer 2 "),
    ],
)
def test_convolutions_that_do_not_fit_are_refused(config, shape, said):
    with pytest.raises(InputError, match=said):
        check_network(config, shape)


def test_convolutions_that_just_fit():
    for config, shape in (
        (conv_config((4,), (8,), (3,)), (8, 12, 3)),
        (conv_config((4, 4), (4, 2), (3, 1)), (8, 12, 3)),
        (conv_config((4, 4), (9,), (1, 1, 1), torso="mlp"), (4,)),
    ):
        check_network(config, shape)
    network = ConvNet((4, 4), (4, 2), (3, 1), (6,), 2, "relu")
    params = jax.eval_shape(lambda key: init_network(network, key, (8, 12, 3)), jax.random.key(0))
    assert params["head"]["kernel_0"].shape == (1 * 2 * 4, 6)


def test_start_is_uniform_within_one_over_root_fan_in():
    params = init_network(MLP((400,), 200, "tanh"), jax.random.key(0), (100,))
    for name, fan_in in (("kernel_0", 100), ("bias_0", 100), ("kernel_1", 400), ("bias_1", 400)):
        scaled = np.asarray(params[name]) * np.sqrt(fan_in)
        assert np.all(np.abs(scaled) <= 1)
        assert np.max(np.abs(scaled)) > 0.97
        np.testing.assert_allclose(np.std(scaled), 1 / np.sqrt(3), atol=0.05)


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


@pytest.mark.parametrize(("width", "rows"), [(4, 20), (4, 200), (400, 20), (400, 200)])
def test_products_and_those_of_gradients_are_of_full_precision(width, rows):
    network = MLP((8, 8), 2, "tanh")
    params = init_network(network, jax.random.key(0), (width,))

    def loss(params, x):
        return apply_network(network, params, x, (width,)).sum()

    text = jax.jit(jax.grad(loss, (0, 1))).lower(params, jnp.ones((rows, width))).as_text()
    assert text.count("precision = [HIGHEST, HIGHEST]") == text.count("dot_general ") >= 8
