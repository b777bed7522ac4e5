"""CartPole as gymnasium draws it, in JAX: small images to learn from, and frames for videos."""

from __future__ import annotations

from jaxtyping import Array, Float, Int, UInt8

from purejaxrl.envs.cartpole.image import Outline, make_outline, render_columns, render_observation, seen_columns
from purejaxrl.envs.cartpole.rgb import render_rgb
from purejaxrl.envs.images import Renderer
from purejaxrl.kernels.sparse_images import Outliner


def select_position(observation: Float[Array, "... 4"]) -> Float[Array, "... 2"]:
    """Select x and theta, all that an image shows, from x, x_dot, theta, theta_dot."""
    return observation[..., ::2]


def render_image(numbers: Float[Array, "... 2"], height: int, width: int, channels: int) -> Float[Array, "..."]:
    """Render x and theta as images [..., height, width, channels]; see `image.render_observation`."""
    return render_observation(numbers[..., 0], numbers[..., 1], height, width, channels)


def changing_columns(numbers: Float[Array, "... 2"], width: int) -> tuple[Int[Array, "..."], Int[Array, "..."]]:
    """Find the first and the last column that may differ from the background; see `image.seen_columns`."""
    return seen_columns(numbers[..., 0], numbers[..., 1], width)


def outline(numbers: Float[Array, "2"], height: int, width: int) -> Outline:
    """Compute what `image.render_columns` needs of one image."""
    return make_outline(numbers[0], numbers[1], height, width)


def render_frame(numbers: Float[Array, "2"]) -> UInt8[Array, "400 600 3"]:
    """Render x and theta as the frame that gymnasium draws; see `rgb.render_rgb`."""
    return render_rgb(numbers[0], numbers[1])


RENDERER = Renderer(
    select_position, render_image, Outliner(changing_columns, outline, render_columns), render_frame, step_seconds=0.02
)
