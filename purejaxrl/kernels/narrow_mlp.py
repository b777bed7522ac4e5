"""Fully connected networks of narrow layers.

Gain on CPU: a value step of VPG (4000 rows, two hidden layers of 32) takes three quarters of the reference's time, as
long batches are the last axis inside, where vector units run along them; a few rows are multiplied without a call of
the matrix library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float, Num

from purejaxrl.kernels import faster_than
from purejaxrl.kernels.matmul import contract, product
from purejaxrl.kernels.sparse_images import Image

Layer = tuple[Float[Array, "_ _"], Float[Array, " _"]]

# Rows of a batch from which its axis is worth being the last one. Measured: below, the usual layout is up to twice as
# fast, most of all for the many small batches of workers that hold parameters of their own; above, it is slower.
LONG_BATCH = 64
# Batches of so few rows, and at most so many inputs, are multiplied without the library: the actions of a few actors.
SHORT_BATCH = 16
NARROW_INPUT = 64
# Inputs wider than this, images, stay as they are in the first layer: transposing them would cost more.
WIDE_INPUT = 256


def reference_mlp(
    layers: Sequence[Layer], activation: Callable[[Array], Array], inputs: Num[Array, "B ..."] | Image
) -> Float[Array, "B outputs"]:
    """Apply fully connected layers with an activation between them.

    Args:
        layers: Kernel [fan_in, size] and bias [size] of each layer.
        activation: Elementwise function; the last layer has none.
        inputs: A batch; everything after its first axis is flattened.

    Returns:
        Outputs of the last layer, [B, outputs].
    """
    x: Any = inputs if isinstance(inputs, Image) else inputs.reshape(inputs.shape[0], -1)
    for index, (kernel, bias) in enumerate(layers):
        x = dense(kernel, bias, x if index == 0 else activation(x))
    return x


@faster_than(reference_mlp)
def mlp(
    layers: Sequence[Layer], activation: Callable[[Array], Array], inputs: Num[Array, "B ..."] | Image
) -> Float[Array, "B outputs"]:
    """Apply fully connected layers as `reference_mlp` does, in the memory layout that suits the batch.

    Args:
        layers: Kernel [fan_in, size] and bias [size] of each layer.
        activation: Elementwise function; the last layer has none.
        inputs: A batch; everything after its first axis is flattened.

    Returns:
        Outputs of the last layer, [B, outputs].
    """
    x: Any = inputs if isinstance(inputs, Image) else inputs.reshape(inputs.shape[0], -1)
    rows, is_feature_major = x.shape[0], False
    for index, (kernel, bias) in enumerate(layers):
        if index:
            x = activation(x)
        is_worth_it = rows >= LONG_BATCH and kernel.shape[0] <= WIDE_INPUT and not isinstance(x, Image)
        if is_worth_it and not is_feature_major:
            x, is_feature_major = x.T, True
        if is_feature_major:
            x = _feature_major_product(kernel, x) + bias[:, None]
        elif rows <= SHORT_BATCH and kernel.shape[0] <= NARROW_INPUT:
            x = _short_dense(kernel, bias, x)
        else:
            x = dense(kernel, bias, x)
    return x.T if is_feature_major else x


def dense(
    kernel: Float[Array, "fan_in size"], bias: Float[Array, " size"], x: Float[Array, "B fan_in"] | Image
) -> Float[Array, "B size"]:
    """Apply one fully connected layer, x kernel + bias.

    Args:
        kernel: Weights [fan_in, size].
        bias: Biases [size].
        x: Inputs [B, fan_in].

    Returns:
        Outputs [B, size].
    """
    return (x @ kernel if isinstance(x, Image) else product(x, kernel)) + bias[None]


@jax.jit
def _short_dense(
    kernel: Float[Array, "fan_in size"], bias: Float[Array, " size"], x: Float[Array, "B fan_in"]
) -> Float[Array, "B size"]:
    """Apply one fully connected layer to few rows, as a sum over the inputs.

    Calling a matrix library would take longer, and would cut a loop into pieces. Jitted only so that it is traced once.
    """
    return sum((x[:, i, None] * kernel[None, i] for i in range(len(kernel))), bias[None])


def _feature_major_product(kernel: Float[Array, "fan_in size"], x: Float[Array, "fan_in B"]) -> Float[Array, "size B"]:
    """Compute kernel^T x for inputs with the batch as their last axis, with gradients in that layout, too.

    JAX's own gradient has d/dx as [B, fan_in], and transposing that costs XLA on CPU more than the product itself. A
    primitive has transposes of its own choice, and can be differentiated in either mode, any number of times.
    """
    dtype = jnp.result_type(kernel, x)
    return feature_major_product_p.bind(kernel.astype(dtype), x.astype(dtype))


def _feature_major_product_impl(kernel: Array, x: Array) -> Array:
    # The barrier keeps the transposition out of the product, for which XLA has faster code without it.
    return product(jax.lax.optimization_barrier(kernel.T), x)


feature_major_product_p = Primitive("feature_major_product")
feature_major_product_p.def_impl(jax.jit(_feature_major_product_impl))
feature_major_product_p.def_abstract_eval(
    lambda kernel, x: jax.core.ShapedArray((kernel.shape[1], x.shape[1]), x.dtype)
)
mlir.register_lowering(feature_major_product_p, mlir.lower_fun(_feature_major_product_impl, multiple_results=False))
ad.defbilinear(
    feature_major_product_p,
    lambda cotangent, _, x: contract("ib,ob->io", x, cotangent),
    lambda cotangent, kernel, _: contract("io,ob->ib", kernel, cotangent),
)
batching.primitive_batchers[feature_major_product_p] = lambda arguments, axes: (
    jax.vmap(_feature_major_product_impl, in_axes=axes)(*arguments),
    0,
)
