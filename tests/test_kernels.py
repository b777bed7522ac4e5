"""Fast paths against their references over random shapes, in values and derivatives, and the switch between them."""

import os
import subprocess
import sys
from itertools import pairwise

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_sparse_images import steps

import purejaxrl
from purejaxrl.components.networks import MLP, ConvNet, GaussianHead, Headed, apply_network, init_network
from purejaxrl.envs import Images, make
from purejaxrl.kernels import narrow_mlp, sparse_images, threefry


def normal(generator, *shape):
    return jnp.asarray(generator.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("seed", range(8))
def test_mlp_is_its_reference(seed):
    """Batches from one row to beyond LONG_BATCH, inputs from one number to beyond WIDE_INPUT, any depth; under vmap."""
    generator = np.random.default_rng(seed)
    rows = generator.choice([1, 7, narrow_mlp.SHORT_BATCH + 1, narrow_mlp.LONG_BATCH, 130])
    sizes = [generator.choice([1, 4, 70, narrow_mlp.WIDE_INPUT + 1]), *generator.integers(1, 40, seed % 4 + 1)]
    layers = [
        (normal(generator, 2, before, after) / np.sqrt(before), normal(generator, 2, after))
        for before, after in pairwise(sizes)
    ]
    inputs, cotangent = normal(generator, 2, rows, sizes[0]), normal(generator, 2, rows, sizes[-1])

    def value_and_gradients(function):
        def loss(layers, inputs, cotangent):
            outputs = function(layers, jnp.tanh, inputs)
            return jnp.sum(cotangent * outputs), outputs

        return jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1), has_aux=True)))(layers, inputs, cotangent)

    found, expected = map(value_and_gradients, (narrow_mlp.mlp, narrow_mlp.reference_mlp))
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))])
def test_products_of_images_are_their_reference(seed):
    generator = np.random.default_rng(seed)
    count, size = int(generator.integers(32, 80)), (int(generator.integers(8, 20)), int(generator.integers(8, 50)))
    channels = int(generator.choice([1, 3]))
    env = make("CartPole-v0", images=Images("difference", image_size=size, channels=channels))
    kernel = normal(generator, np.prod(env.input_shape), 3)

    @jax.jit
    def products(observation, next_observation):
        images = sparse_images.tile(*env.image_format.step_images(observation, next_observation))
        return [
            [function(image, kernel) for image in images]
            for function in (sparse_images.multiply, sparse_images.reference_multiply)
        ]

    found, expected = products(*steps(count, 2.4, 0.21, seed))
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("seed", range(4))
def test_random_numbers_are_their_references(seed):
    generator = np.random.default_rng(seed)
    shape, limit = tuple(generator.integers(1, 9, seed).tolist()), jnp.int32(generator.integers(1, 2**31 - 1))
    keys = [jax.random.key(seed, impl="threefry2x32") for _ in range(4)]
    found = threefry.integers_below(keys[0], limit, shape)
    np.testing.assert_array_equal(found, threefry.reference_integers_below(keys[1], limit, shape))
    functions = (threefry.unrolled, threefry.reference_unrolled)
    bits = [jax.random.bits(function(key), shape) for function, key in zip(functions, keys[2:], strict=True)]
    np.testing.assert_array_equal(*bits)


class Wave(nn.Module):
    """A network of a user's own."""

    @nn.compact
    def __call__(self, x):
        return jnp.sin(nn.Dense(5, param_dtype=float)(x))


# The network, the shape of one input and the rows of a batch.
NETWORKS = {
    "short batch": (MLP((6, 5), 2, "tanh"), (3,), 5),
    "middle batch": (MLP((6, 5), 2, "tanh"), (3,), 30),
    "long batch": (MLP((6, 5), 2, "tanh"), (3,), 100),
    "long batch of wide inputs": (MLP((6, 5), 2, "tanh"), (300,), 70),
    "convolutions": (ConvNet((3, 2), (3, 2), (2, 1), (4,), 2, "tanh"), (8, 9, 2), 70),
    "Gaussian head": (GaussianHead(MLP((6,), 2, "tanh"), 2), (3,), 100),
    "a user's own": (Headed(Wave(), 2), (3,), 70),
    "sparse images": (MLP((6, 5), 2, "tanh"), (8, 30, 1), 70),
}


def loss_of(name):
    """A loss of a network's parameters in float64, and parameters."""
    network, shape, rows = NETWORKS[name]
    if name == "sparse images":
        env = make("CartPole-v0", images=Images("difference", image_size=shape[:2], channels=1))
        inputs, _ = sparse_images.tile(*env.image_format.step_images(*steps(rows, 2.4, 0.21)))
    else:
        inputs = jax.random.normal(jax.random.key(0), (rows, *shape))
    params = jax.tree.map(lambda leaf: 2 * leaf, init_network(network, jax.random.key(1), shape))
    return lambda params: jnp.sum(jnp.sin(apply_network(network, params, inputs, shape))), params


@pytest.mark.parametrize(
    "name", [name if name == "short batch" else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS]
)
def test_hessian_vector_products_are_differences_of_gradients(name):
    """Forward mode over reverse mode, against central differences in float64."""
    with jax.enable_x64(True):
        loss, params = loss_of(name)
        direction = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), params)
        gradient = jax.jit(jax.grad(loss))
        found = jax.jit(lambda params, direction: jax.jvp(jax.grad(loss), (params,), (direction,))[1])

        def gradient_at(step):
            return gradient(jax.tree.map(lambda leaf, v: leaf + step * v, params, direction))

        expected = jax.tree.map(lambda a, b: (a - b) / 2e-6, gradient_at(1e-6), gradient_at(-1e-6))
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected)) > 0.1, "the comparison would be blind"
        chex.assert_trees_all_close(found(params, direction), expected, rtol=1e-5, atol=1e-6)
        slope = jax.jvp(loss, (params,), (direction,))[1]
        np.testing.assert_allclose(slope, optax.tree.vdot(gradient(params), direction), rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["short batch", "long batch", pytest.param("sparse images", marks=pytest.mark.slow)])
def test_hessians_in_both_orders(name):
    with jax.enable_x64(True):
        loss, params = loss_of(name)
        last = params["bias_2"]

        def loss_of_last(bias):
            return loss({**params, "bias_2": bias, "kernel_0": params["kernel_0"] * jnp.sum(bias)})

        chex.assert_trees_all_close(
            jax.hessian(loss_of_last)(last), jax.jacrev(jax.jacrev(loss_of_last))(last), rtol=1e-9
        )


SMALL = {
    "vpg": {"epochs": 2, "steps_per_epoch": 160, "actors": 2, "train_v_iters": 3},
    "a3c": {"env_steps": 80, "actors": 4, "t_max": 10},
    "dqn": {"env_steps": 60, "batch_size": 16, "memory_size": 100, "observation_type": "default"},
}


def train_all():
    """Parameters by name, after a few updates of each algorithm."""
    learners = {name: purejaxrl.train(name, hidden_sizes=(8,), **SMALL[name]).state.learner for name in SMALL}
    leaves = jax.tree_util.tree_leaves_with_path(learners)
    named = {jax.tree_util.keystr(path): np.asarray(leaf, np.float64) for path, leaf in leaves}
    return {name: leaf for name, leaf in named.items() if "params" in name or "theta" in name}


def train_on_images():
    """Losses of DQN on differences of images. What Adam makes of pixels that hold nothing but rounding is noise."""
    result = purejaxrl.train(
        "dqn", env_steps=50, batch_size=40, memory_size=100, hidden_sizes=(8,), image_size=(8, 40), log_every=1
    )
    return {name: result.frame()[name].to_numpy(float) for name in ("env_steps", "loss", "q_mean")}


@pytest.mark.slow
@pytest.mark.parametrize("train", [train_all, train_on_images])
def test_trainings_by_reference_end_alike(train, tmp_path):
    """In a process of its own, as the switch is read at import."""
    program = f"""
import sys, numpy
from test_kernels import narrow_mlp, {train.__name__}
assert narrow_mlp.mlp is narrow_mlp.reference_mlp
numpy.savez(sys.argv[1], **{train.__name__}())
"""
    paths = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    environment = {**os.environ, "PYTHONPATH": paths, "PUREJAXRL_REFERENCE_KERNELS": "1"}
    file = tmp_path / "found.npz"
    subprocess.run([sys.executable, "-c", program, file], env=environment, check=True)
    expected = train()
    assert expected
    chex.assert_trees_all_close(dict(np.load(file)), expected, rtol=1e-3, atol=1e-4)
