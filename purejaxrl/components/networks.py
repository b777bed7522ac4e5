"""Neural networks; the only module that uses Flax Linen."""

from __future__ import annotations

import math
import sys
from functools import lru_cache, partial
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Num

from purejaxrl.components.hyperparameters import ImageConfig
from purejaxrl.errors import InputError, in_brief, in_one_line
from purejaxrl.kernels.matmul import product
from purejaxrl.kernels.narrow_mlp import mlp
from purejaxrl.kernels.sparse_images import Image
from purejaxrl.types import PyTree, ScalarKey

# Of the batch that shows whether a network of a user's own takes every row for itself.
ROWS = 5

Inputs = Num[Array, "..."] | Image

ACTIVATIONS = {"tanh": jnp.tanh, "relu": nn.relu}


def _symmetric_uniform(bound: float, key: ScalarKey, shape: tuple[int, ...]) -> Array:
    """Sample uniformly from [-bound, bound) in JAX's default precision."""
    return jax.random.uniform(key, shape, float, -bound, bound)


class MLP(nn.Module):
    """Fully connected network [B, ...] -> [B, outputs], which flattens everything after the batch axis.

    Weights and biases are initialized uniformly in +-1/sqrt(fan_in), as in PyTorch's Linear.

    Attributes:
        hidden_sizes: Number of units of each hidden layer.
        outputs: Number of outputs.
        activation: Name of the activation function, one of ACTIVATIONS.
    """

    hidden_sizes: tuple[int, ...]
    outputs: int
    activation: str

    @nn.compact
    def __call__(self, observation: Num[Array, "B ..."] | Image) -> Float[Array, "B outputs"]:
        """Apply the network to a batch of inputs.

        Args:
            observation: Inputs [B, ...], or images that have not been rendered.

        Returns:
            Outputs [B, outputs].
        """
        layers, fan_in = [], math.prod(observation.shape[1:])
        for index, size in enumerate((*self.hidden_sizes, self.outputs)):
            start = partial(_symmetric_uniform, 1 / math.sqrt(fan_in))
            kernel = self.param(f"kernel_{index}", start, (fan_in, size))
            bias = self.param(f"bias_{index}", start, (size,))
            layers.append((jnp.asarray(kernel), jnp.asarray(bias)))  # parameters read from files are numpy's
            fan_in = size
        return mlp(layers, ACTIVATIONS[self.activation], observation)


class ConvNet(nn.Module):
    """Convolutional network for images [B, H, W, C], followed by an MLP, -> [B, outputs].

    Layer i has channels[i] outputs, square kernels of kernels[i] and a stride of strides[i], without padding. Weights
    and biases are initialized like the MLP's.

    Attributes:
        channels: Number of output channels of each convolution.
        kernels: Side of the square kernel of each convolution, in pixels.
        strides: Stride of each convolution, in pixels.
        hidden_sizes: Number of units of each hidden layer after the convolutions.
        outputs: Number of outputs.
        activation: Name of the activation function, one of ACTIVATIONS.
    """

    channels: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    hidden_sizes: tuple[int, ...]
    outputs: int
    activation: str

    @nn.compact
    def __call__(self, observation: Float[Array, "B H W C"]) -> Float[Array, "B outputs"]:
        """Apply the network to a batch of images.

        Args:
            observation: Images [B, H, W, C].

        Returns:
            Outputs [B, outputs].

        Raises:
            AssertionError: If the images do not have four axes.
        """
        chex.assert_rank(
            observation,
            4,
            custom_message="convolutions take a batch of images, [B, H, W, C]; a single one is image[None], "
            "and one without channels image[..., None]",
        )
        x = observation
        for layer, (size, side, stride) in enumerate(zip(self.channels, self.kernels, self.strides, strict=True)):
            windows = _windows_of(x, side, stride)
            start = partial(_symmetric_uniform, 1 / math.sqrt(windows.shape[-1]))
            kernel = self.param(f"conv_kernel_{layer}", start, (windows.shape[-1], size))
            bias = self.param(f"conv_bias_{layer}", start, (size,))
            x = ACTIVATIONS[self.activation](product(windows, kernel) + bias[None, None, None])
        return MLP(self.hidden_sizes, self.outputs, self.activation, name="head")(x)


def _windows_of(image: Float[Array, "B H W C"], side: int, stride: int) -> Float[Array, "B rows columns window"]:
    """Extract the square windows of a convolution without padding, each as one vector.

    With them a convolution is a matrix product, which stays fast under `vmap` over runs with kernels of their own:
    convolutions with several kernels at once are slow on CPU.
    """
    rows, columns = ((size - side) // stride + 1 for size in image.shape[1:3])
    bands = jnp.stack([image[:, i : i + stride * (rows - 1) + 1 : stride] for i in range(side)], axis=3)
    windows = jnp.stack([bands[:, :, i : i + stride * (columns - 1) + 1 : stride] for i in range(side)], axis=3)
    return windows.reshape(*windows.shape[:3], -1)


class Headed(nn.Module):
    """Network of the user's own, inputs [B, ...] -> features [B, F], followed by a linear layer -> [B, outputs].

    Attributes:
        body: The user's network.
        outputs: Number of outputs.
    """

    body: nn.Module
    outputs: int

    @nn.compact
    def __call__(self, observation: Num[Array, "B ..."]) -> Float[Array, "B outputs"]:
        """Apply the network to a batch of inputs.

        Args:
            observation: Inputs [B, ...].

        Returns:
            Outputs [B, outputs].
        """
        return MLP((), self.outputs, "relu", name="head")(self.body(observation))


def check_body(body: Any, input_shape: tuple[int, ...]) -> None:
    """Check that a user's network is a Flax module that maps inputs [B, ...] to features [B, F].

    Parameters and features are checked by shapes and types; then a small batch shows whether rows are independent. An
    exception raised by the module itself is the InputError's cause.

    Args:
        body: The network.
        input_shape: Shape of one input.

    Raises:
        InputError: If it is not such a module.
    """
    if not isinstance(body, nn.Module):
        is_class = isinstance(body, type) and issubclass(body, nn.Module)
        found = f"the class {body.__name__}; give an instance of it" if is_class else in_brief(body)
        if _is_nnx(body):
            name = body.__name__ if isinstance(body, type) else type(body).__name__
            found = f"{name} of flax.nnx; flax.nnx.bridge.to_linen({name}, ...) makes one of it"
        raise InputError(f"--network: it takes a flax.linen.Module, not {found}")
    name, dtype = type(body).__name__, jnp.zeros(()).dtype
    for rows in (2, 1):
        inputs = jax.ShapeDtypeStruct((rows, *input_shape), dtype)
        try:
            variables = _shapes_of_variables(body, input_shape, dtype)
            if extra := sorted(set(variables) - {"params"}):
                raise InputError(
                    f"--network: {name} has {', '.join(extra)} beside its parameters, which no agent keeps"
                )
            features = jax.eval_shape(body.apply, variables, inputs)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"--network: {name} fails for inputs {list(inputs.shape)}: {in_one_line(error)}"
            ) from error
        is_array = isinstance(features, jax.ShapeDtypeStruct)
        if not is_array or features.shape[:-1] != (rows,) or not jnp.issubdtype(features.dtype, jnp.floating):
            found = f"{features.dtype} {list(features.shape)}" if is_array else f"a {type(features).__name__}"
            raise InputError(
                f"--network: {name} makes {found} of inputs {list(inputs.shape)}; it must make features [{rows}, F] of "
                "them"
            )
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables.get("params", {})):
        if leaf.dtype not in (jnp.float32, dtype):
            own_name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(
                f"--network: {name} has a parameter {own_name} of {leaf.dtype}; agents learn parameters of float32 "
                "(a layer computes in another type by dtype=, not by param_dtype=)"
            )
    if fault := _row_fault(body, input_shape, dtype):
        raise InputError(
            f"--network: {name} {fault}; axis 0 is the batch, and every row must depend on its own input alone"
        )


def _is_nnx(body: Any) -> bool:
    """Check whether an object is a module of flax.nnx, or a class of such modules."""
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and issubclass(body if isinstance(body, type) else type(body), nnx.Module)


def _shapes_of_variables(body: nn.Module, input_shape: tuple[int, ...], dtype: Any) -> Any:
    """Compute the shapes of a network's initial variables without allocating them."""
    return jax.eval_shape(body.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *input_shape), dtype))


@lru_cache(256)
def _row_fault(body: nn.Module, input_shape: tuple[int, ...], dtype: Any) -> str | None:
    """Describe how the rows of a batch depend on each other in a network.

    The features of a row must not change when all other rows do, and must move with the row to another place in the
    batch. The test uses random numbers as parameters, because a layer initialized to 0 would hide the layers before it.
    """
    draw = np.random.default_rng(0).standard_normal
    shapes = _shapes_of_variables(body, input_shape, dtype)
    variables = jax.tree.map(
        lambda leaf: (draw(leaf.shape) / math.sqrt(max(math.prod(leaf.shape[:-1]), 1))).astype(leaf.dtype), shapes
    )
    is_kept = np.eye(ROWS, dtype=bool).reshape(ROWS, ROWS, *[1] * len(input_shape))
    batches = []
    for inputs, others in (draw((2, ROWS, *input_shape)), 4 * np.abs(draw((2, ROWS, *input_shape)))):
        batches += [inputs, *np.where(is_kept, inputs, others), np.roll(inputs, 1, axis=0)]

    def apply_to_all(variables: Any, batches: Array) -> Array:
        # One after another by the same code, so that equal rows give equal bits.
        return jax.lax.map(partial(body.apply, variables), batches)

    # Within a transformation of the caller's, too; a network may well make NaNs of such inputs.
    with jax.ensure_compile_time_eval(), jax.debug_nans(False), jax.debug_infs(False), jax.transfer_guard("allow"):
        found = jax.device_get(jax.jit(apply_to_all)(variables, np.stack(batches).astype(dtype)))
    for features, *with_others, moved in np.split(np.asarray(found, np.float64), 2):
        kept = np.stack([batch[row] for row, batch in enumerate(with_others)])
        if not is_close(kept, features, 1e-5).all():
            return "mixes the rows of a batch: what it makes of an input changes with the inputs beside it"
        # Rounding differs between places, and may tip a step function over, in one row of many.
        if is_close(np.roll(moved, -1, axis=0), features, 1e-2).mean() < 0.5:
            return "tells the rows of a batch apart: what it makes of an input changes with its place among the others"
    return None


def is_close(found: np.ndarray, expected: np.ndarray, tolerance: float) -> np.ndarray:
    """Check row by row whether two batches agree, relative to the largest expected number.

    Args:
        found: Rows [B, F].
        expected: Rows [B, F] to compare with.
        tolerance: Largest difference allowed, as a share of the largest expected number.

    Returns:
        Whether each row agrees as a whole, [B].
    """
    largest = np.max(np.abs(expected), where=np.isfinite(expected), initial=0.0)
    return np.isclose(found, expected, rtol=0.0, atol=tolerance * largest, equal_nan=True).all(axis=-1)


def check_network(config: Any, input_shape: tuple[int, ...]) -> None:
    """Check that the network described by a Config is consistent and fits its inputs.

    Args:
        config: The agent's hyperparameters; unless they extend ImageConfig, there is nothing to check.
        input_shape: Shape of one input.

    Raises:
        InputError: If it contradicts itself or does not fit.
    """
    if not isinstance(config, ImageConfig):
        if getattr(config, "network", None) is not None:
            raise InputError("--network: it goes with a Config that extends purejaxrl.ImageConfig")
        return
    if config.network is not None:
        check_body(config.network, input_shape)
        return
    if config.torso == "mlp":
        return
    if len(input_shape) != 3:
        raise InputError(f"--torso: conv takes images [H, W, C]; observations here are {list(input_shape)}")
    counts = [len(sizes) for sizes in (config.conv_channels, config.conv_kernels, config.conv_strides)]
    if len(set(counts)) > 1:
        raise InputError(
            f"--conv_channels, --conv_kernels and --conv_strides: {counts[0]}, {counts[1]} and {counts[2]} layers; "
            "give as many of each"
        )
    side = min(input_shape[:2])
    for layer, (kernel, stride) in enumerate(zip(config.conv_kernels, config.conv_strides, strict=True)):
        if kernel > side:
            raise InputError(
                f"--conv_kernels: {kernel} is more than the {side} pixels that layer {layer + 1} has to look at"
            )
        side = (side - kernel) // stride + 1


def network_of(config: Any, outputs: int, activation: str) -> MLP | ConvNet | Headed:
    """Build the network described by a Config: its own `network`, a convolutional network, or an MLP.

    Args:
        config: The agent's hyperparameters, with `hidden_sizes`; without convolutions unless they extend ImageConfig.
        outputs: Number of outputs.
        activation: Name of the activation function, one of ACTIVATIONS.

    Returns:
        The network.
    """
    is_plain = not isinstance(config, ImageConfig)
    if is_plain or (config.network is None and config.torso == "mlp"):
        return MLP(config.hidden_sizes, outputs, activation)
    if config.network is not None:
        return Headed(config.network, outputs)
    layers = (config.conv_channels, config.conv_kernels, config.conv_strides)
    return ConvNet(*layers, config.hidden_sizes, outputs, activation)


class GaussianHead(nn.Module):
    """Network that outputs the parameters of a Gaussian, [B, ...] -> [B, 2 D]: D means, then D log standard deviations.

    The log standard deviations do not depend on the observation: they are parameters of their own, initialized to 0.

    Attributes:
        mean: Network that outputs the means, [B, ...] -> [B, D].
        dimensions: D, the number of dimensions.
    """

    mean: nn.Module
    dimensions: int

    @nn.compact
    def __call__(self, observation: Num[Array, "B ..."]) -> Float[Array, "B K"]:
        """Apply the network to a batch of inputs.

        Args:
            observation: Inputs [B, ...].

        Returns:
            Means and log standard deviations, [B, 2 D].
        """
        mean = self.mean(observation)
        log_std = self.param("log_std", nn.initializers.zeros, (self.dimensions,))
        return jnp.concatenate([mean, jnp.broadcast_to(log_std, mean.shape)], axis=-1)


def init_network(network: nn.Module, key: ScalarKey, input_shape: tuple[int, ...]) -> PyTree:
    """Initialize the parameters of a network.

    Args:
        network: The network.
        key: A random key, which is consumed.
        input_shape: Shape of one input.

    Returns:
        The parameters.
    """
    return network.init(key, jnp.zeros((1, *input_shape)))["params"]


def apply_network(
    network: nn.Module, params: PyTree, inputs: Inputs, input_shape: tuple[int, ...]
) -> Float[Array, "... outputs"]:
    """Apply a network, which expects exactly one batch axis, to inputs with any leading axes.

    Args:
        network: Takes inputs [B, *input_shape].
        params: Its parameters.
        inputs: With any leading axes, [..., *input_shape]; images that have not been rendered have one.
        input_shape: Shape of one input.

    Returns:
        The outputs, [..., outputs].

    Raises:
        AssertionError: If the inputs do not end in the axes of one input.
    """
    if isinstance(inputs, Image):
        return network.apply({"params": params}, inputs)
    chex.assert_shape(
        inputs,
        (..., *input_shape),
        custom_message="inputs end in the axes of one input, env.input_shape, with any axes before them; "
        "observations of images are rendered first, by purejaxrl.components.preprocessing.network_input",
    )
    lead = inputs.shape[: inputs.ndim - len(input_shape)]
    outputs = network.apply({"params": params}, inputs.reshape(-1, *input_shape))
    return outputs.reshape(*lead, *outputs.shape[1:])
