"""Networks: the only module that knows Flax Linen."""

from __future__ import annotations

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from purejaxrl.types import PyTree, ScalarKey

# Rows of a batch from which its axis is worth being the last one. Measured: below, the usual layout is up to twice as
# fast, most of all for the many small batches of workers that hold parameters of their own; above, it is slower.
LONG_BATCH = 64

ACTIVATIONS = {"tanh": jnp.tanh, "relu": nn.relu}


def symmetric_uniform(bound: float, key: ScalarKey, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Uniform on [-bound, bound). Consumes `key`."""
    return jax.random.uniform(key, shape, dtype, -bound, bound)


@jax.custom_vjp
def affine(
    kernel: Float[Array, "fan_in size"], bias: Float[Array, " size"], x: Float[Array, "fan_in B"]
) -> Float[Array, "size B"]:
    """kernel^T x + bias over feature-major activations.

    Its gradient is written out because the generated one leaves d/dx as [B, fan_in], and turning that around costs XLA
    on CPU more than the product itself. Forward-mode differentiation of a network is not available for it.
    """
    return jnp.einsum("io,ib->ob", kernel, x) + bias[:, None]


def _affine_forward(kernel: Array, bias: Array, x: Array) -> tuple[Array, tuple[Array, Array]]:
    return affine(kernel, bias, x), (kernel, x)


def _affine_backward(saved: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, Array]:
    kernel, x = saved
    return (
        jnp.einsum("ib,ob->io", x, cotangent),
        jnp.sum(cotangent, axis=1),
        jnp.einsum("io,ob->ib", kernel, cotangent),
    )


affine.defvjp(_affine_forward, _affine_backward)


class MLP(nn.Module):
    """Fully connected network [B, ...] -> [B, outputs]; everything after the batch axis is flattened.

    Weights and biases start uniform in +-1/sqrt(fan_in), as PyTorch's Linear does. From LONG_BATCH rows on, activations
    are [features, B] inside: with layers this narrow the long axis belongs last, where vector units run along it.
    """

    hidden_sizes: tuple[int, ...]
    outputs: int
    activation: str

    @nn.compact
    def __call__(self, observation: Num[Array, "B ..."]) -> Float[Array, "B outputs"]:
        """Apply the layers."""
        x = observation.reshape(observation.shape[0], -1)
        is_long = x.shape[0] >= LONG_BATCH
        x = x.T if is_long else x
        for layer, size in enumerate(self.hidden_sizes):
            x = ACTIVATIONS[self.activation](self._linear(layer, size, x, is_long))
        x = self._linear(len(self.hidden_sizes), self.outputs, x, is_long)
        return x.T if is_long else x

    def _linear(self, layer: int, size: int, x: Float[Array, "_ _"], is_long: bool) -> Float[Array, "_ _"]:
        fan_in = x.shape[0] if is_long else x.shape[1]
        start = partial(symmetric_uniform, 1 / math.sqrt(fan_in))
        kernel = self.param(f"kernel_{layer}", start, (fan_in, size))
        bias = self.param(f"bias_{layer}", start, (size,))
        return affine(kernel, bias, x) if is_long else x @ kernel + bias[None]


class GaussianMLP(nn.Module):
    """Describes a Gaussian, [B, ...] -> [B, 2 D]: D means by an MLP, then D log standard deviations.

    The latter do not depend on the observation: they are parameters of their own, and start at 0.
    """

    hidden_sizes: tuple[int, ...]
    dimensions: int
    activation: str

    @nn.compact
    def __call__(self, observation: Num[Array, "B ..."]) -> Float[Array, "B K"]:
        """Apply the layers."""
        mean = MLP(self.hidden_sizes, self.dimensions, self.activation, name="mean")(observation)
        log_std = self.param("log_std", nn.initializers.zeros, (self.dimensions,))
        return jnp.concatenate([mean, jnp.broadcast_to(log_std, mean.shape)], axis=-1)


def init_network(network: nn.Module, key: ScalarKey, observation_shape: tuple[int, ...]) -> PyTree:
    """Parameters of `network` for observations of that shape. Consumes `key`."""
    return network.init(key, jnp.zeros((1, *observation_shape)))["params"]


def apply_network(
    network: nn.Module, params: PyTree, observation: Num[Array, "..."], observation_shape: tuple[int, ...]
) -> Float[Array, "... outputs"]:
    """Apply to observations with any leading axes; the network itself sees exactly one batch axis."""
    lead = observation.shape[: observation.ndim - len(observation_shape)]
    outputs = network.apply({"params": params}, observation.reshape(-1, *observation_shape))
    return outputs.reshape(*lead, *outputs.shape[1:])
