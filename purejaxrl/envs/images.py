"""Image observations, rendered late: an observation is the few numbers that an image is rendered from.

A `stack` holds the last frames side by side on the channel axis, oldest first; after a reset the first frame fills it.
A `difference` is the newest frame minus the one before: zero at an episode's first observation, where there is none
before, and at its terminal one. An episode cut by a time limit keeps its last difference, as learning goes on from it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num, UInt8

from purejaxrl.components.hyperparameters import ImageConfig, check_fields
from purejaxrl.errors import InputError
from purejaxrl.kernels.sparse_images import ImageFormat, Outliner
from purejaxrl.types import Env, PyTree, ScalarKey, Timestep


class Renderer(NamedTuple):
    """Functions that render images of an environment; all are pure and take any leading axes.

    Attributes:
        select: observation[..., *observation] -> the numbers [..., D] that its image depends on.
        render: (numbers[..., D], height=, width=, channels=) -> frame [..., height, width, channels] in [0, 1];
            channels is 1 (gray) or 3 (RGB).
        outliner: How to render parts of a frame, None where that is not known.
        frame: numbers[D] -> a frame [height, width, 3] of a video, uint8; None uses `render` at 400 x 600.
        step_seconds: Duration of a step of the environment in seconds, for videos in real time.
    """

    select: Callable[[Num[Array, "..."]], Float[Array, "..."]]
    render: Callable[..., Float[Array, "..."]]
    outliner: Outliner | None = None
    frame: Callable[[Float[Array, " D"]], UInt8[Array, "H W 3"]] | None = None
    step_seconds: float = 0.02


class Images(NamedTuple):
    """Description of an image observation; see `purejaxrl.components.hyperparameters.ImageConfig` for the fields."""

    image: str = "stack"
    frames: int = 2
    frame_spacing: int = 1
    image_size: tuple[int, ...] = (40, 90)
    channels: int = 1

    @property
    def offsets(self) -> range:
        """Positions of the frames in the history of numbers, oldest first."""
        spacing, frames = (1, 2) if self.image == "difference" else (self.frame_spacing, self.frames)
        return range(0, spacing * (frames - 1) + 1, spacing)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an observation."""
        height, width = self.image_size
        return height, width, self.channels * (1 if self.image == "difference" else self.frames)


class SeenState(NamedTuple):
    """State of an environment with image observations.

    Attributes:
        inner: State of the environment itself.
        history: Numbers of the last L steps, from which frames are selected, oldest first, [L, D].
    """

    inner: PyTree
    history: Float[Array, "L D"]


def observe_images(env: Env, renderer: Renderer, images: Images) -> Env:
    """Replace the observations of an environment with images.

    Its observations are numbers [K, D], from which K frames are rendered and combined to [H, W, channels].

    Args:
        env: An environment whose observations are vectors.
        renderer: How its images are rendered.
        images: Which images are observed.

    Returns:
        The environment with image observations.

    Raises:
        InputError: If a field of `images` is not allowed, or observations are images already.
    """
    check_images(images)
    if len(env.input_shape) > 1:
        raise InputError(
            f"--observation_type: observations of {env.name} are {list(env.input_shape)} already, and images are "
            "rendered of vectors; use default"
        )
    numbers = jax.eval_shape(renderer.select, jax.ShapeDtypeStruct(env.observation_shape, jnp.float32))
    return env._replace(
        observation_shape=(len(images.offsets), *numbers.shape),
        reset=partial(_reset_images, env, renderer, images),
        step=partial(step_images, env, renderer, images),
        image_format=image_format(renderer, images),
    )


def image_format(renderer: Renderer, images: Images) -> ImageFormat:
    """Describe how images are made of the numbers that a renderer takes.

    Args:
        renderer: How frames are rendered.
        images: Which images are observed.

    Returns:
        The format of the images.
    """
    return ImageFormat(
        renderer.render,
        renderer.outliner,
        images.image == "difference",
        len(images.offsets),
        images.offsets.step == 1,
        images.image_size[0],
        images.image_size[1],
        images.channels,
    )


def check_images(images: Images) -> None:
    """Check the description of an image observation.

    Args:
        images: The description.

    Raises:
        InputError: If a field is not allowed, naming the first.
    """
    if images.image is None:
        raise InputError("--image: None is not allowed; it takes one of stack, difference")
    check_fields(ImageConfig(**images._asdict()))


def _reset_images(env: Env, renderer: Renderer, images: Images, key: ScalarKey) -> tuple[Array, SeenState]:
    """Reset an environment with image observations."""
    observation, inner = env.reset(key)
    history = initial_history(images, renderer.select(observation))
    return select_frames(images, history), SeenState(inner, history)


def step_images(
    env: Env, renderer: Renderer, images: Images, key: ScalarKey, state: SeenState, action: Array
) -> Timestep:
    """Take one step in an environment with image observations; a new episode starts a new history.

    Args:
        env: The environment itself.
        renderer: How its images are rendered.
        images: Which images are observed.
        key: A random key, which is consumed.
        state: The state before the step.
        action: The action.

    Returns:
        The result of the step, with numbers [K, D] as observations.
    """
    timestep = env.step(key, state.inner, action)
    final, fresh = renderer.select(timestep.next_observation), renderer.select(timestep.observation)
    history, next_observation = advance(images, state.history, final, fresh, timestep.terminated, timestep.truncated)
    return timestep._replace(
        state=SeenState(timestep.state, history),
        observation=select_frames(images, history),
        next_observation=next_observation,
    )


def initial_history(images: Images, numbers: Float[Array, " D"]) -> Float[Array, "L D"]:
    """Fill the history at an episode's start with its first numbers.

    Args:
        images: Which images are observed.
        numbers: The first numbers, [D].

    Returns:
        The history [L, D].
    """
    return jnp.repeat(numbers[None], images.offsets[-1] + 1, axis=0)


def advance(
    images: Images,
    history: Float[Array, "L D"],
    final: Float[Array, " D"],
    fresh: Float[Array, " D"],
    terminated: Bool[Array, ""],
    truncated: Bool[Array, ""],
) -> tuple[Float[Array, "L D"], Float[Array, "K D"]]:
    """Append the numbers of a step to the history, and select those that are observed of the step.

    Args:
        images: Which images are observed.
        history: The history before the step, [L, D].
        final: Numbers that the step led to, [D].
        fresh: Numbers of the observation from which the next action starts, [D]; of a new episode where one has ended.
        terminated: Whether the step led to a terminal state.
        truncated: Whether the step was the last of a truncated episode.

    Returns:
        The history from which the next action starts, [L, D], and the numbers of the step's own next observation, [K,
        D]. The difference of a terminal step is 0.
    """
    history = jnp.concatenate([history[1:], final[None]])
    is_still = terminated & (images.image == "difference")
    observed = select_frames(images, jnp.where(is_still, initial_history(images, final), history))
    return jnp.where(terminated | truncated, initial_history(images, fresh), history), observed


def select_frames(images: Images, history: Float[Array, "L D"]) -> Float[Array, "K D"]:
    """Select the numbers that the frames of an observation are rendered from.

    Args:
        images: Which images are observed.
        history: Numbers of the last L steps, [L, D].

    Returns:
        The numbers [K, D].
    """
    return history[images.offsets.start :: images.offsets.step]
