"""CartPole as gymnasium draws it, in JAX: small images to learn from, and frames for videos."""

from __future__ import annotations

from jaxtyping import Array, Float, Int, UInt8

from purejaxrl.envs.cartpole.image import Outline, make_outline, render_columns, render_observation, seen_columns
from purejaxrl.envs.cartpole.rgb import render_rgb
from purejaxrl.envs.images import Renderer
from purejaxrl.kernels.sparse_images import Outliner


def _select_position(observation: Float[Array, "... 4"]) -> Float[Array, "... 2"]:
    """Select x and theta, on which an image depends, from an observation of CartPole."""
    return observation[..., ::2]


def _render_image(numbers: Float[Array, "... 2"], height: int, width: int, channels: int) -> Float[Array, "..."]:
    """Render images of CartPole with `image.render_observation`."""
    return render_observation(numbers[..., 0], numbers[..., 1], height, width, channels)


def _changing_columns(numbers: Float[Array, "... 2"], width: int) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """Find the first and the last column that may differ from the background with `image.seen_columns`."""
    return seen_columns(numbers[..., 0], numbers[..., 1], width)


def outline(numbers: Float[Array, "2"], height: int, width: int) -> Outline:
    """Compute the outline from which `image.render_columns` renders one image.

    Args:
        numbers: x and theta, [2].
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Returns:
        The outline.
    """
    return make_outline(numbers[0], numbers[1], height, width)


def render_frame(numbers: Float[Array, "2"]) -> UInt8[Array, "400 600 3"]:
    """Render the frame that gymnasium draws with `rgb.render_rgb`.

    Args:
        numbers: x and theta, [2].

    Returns:
        The frame [400, 600, 3].
    """
    return render_rgb(numbers[0], numbers[1])


RENDERER = Renderer(
    _select_position,
    _render_image,
    Outliner(_changing_columns, outline, render_columns),
    render_frame,
    step_seconds=0.02,
)
