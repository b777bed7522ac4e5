"""Images as observations, drawn late: what travels is the few numbers that a picture is drawn from.

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
from jaxtyping import Array, Bool, Float, Int, Num, UInt8

from purejaxrl.components.hyperparameters import ImageConfig, check_fields
from purejaxrl.errors import InputError
from purejaxrl.kernels.sparse_images import Painter, Strips, bundled
from purejaxrl.types import Env, PyTree, ScalarKey, Timestep


class Outliner(NamedTuple):
    """How strips of pictures are drawn that show things on a background which never changes.

    seen: (numbers[..., D], width=) -> the first and the last column that may differ from the background.
    outline: (numbers[D], height=, width=) -> what `paint` needs of a picture.
    paint: see `purejaxrl.kernels.sparse_images.Painter`; it makes the columns of what `Renderer.draw` makes whole.
    """

    seen: Callable[..., tuple[Int[Array, "..."], Int[Array, "..."]]]
    outline: Callable[..., PyTree]
    paint: Callable[..., Float[Array, "..."]]


class Renderer(NamedTuple):
    """How an environment is drawn.

    select: observation[..., *observation] -> the numbers [..., D] that its picture depends on.
    draw: (numbers[..., D], height=, width=, channels=) -> picture [..., height, width, channels] in [0, 1]; channels is
    1 (grey) or 3 (RGB). Both pure, for any leading axes.
    outliner: how to draw parts of a picture, None where that is not known.
    frame: numbers[D] -> a frame [height, width, 3] of a video, uint8; None: what `draw` makes of 400 x 600 pixels.
    step_seconds: how long a step of the environment takes, in seconds, for videos in real time.
    """

    select: Callable[[Num[Array, "..."]], Float[Array, "..."]]
    draw: Callable[..., Float[Array, "..."]]
    outliner: Outliner | None = None
    frame: Callable[[Float[Array, " D"]], UInt8[Array, "H W 3"]] | None = None
    step_seconds: float = 0.02


class Images(NamedTuple):
    """What an image observation is made of; see `purejaxrl.components.hyperparameters.ImageConfig`."""

    image: str = "stack"
    frames: int = 2
    frame_spacing: int = 1
    image_size: tuple[int, ...] = (40, 90)
    channels: int = 1

    @property
    def offsets(self) -> range:
        """Places of the frames in the history of numbers, oldest first."""
        spacing, frames = (1, 2) if self.image == "difference" else (self.frame_spacing, self.frames)
        return range(0, spacing * (frames - 1) + 1, spacing)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an observation."""
        height, width = self.image_size
        return height, width, self.channels * (1 if self.image == "difference" else self.frames)


class SeenState(NamedTuple):
    """An environment's state, and the numbers of the steps that frames are taken from, oldest first."""

    inner: PyTree
    history: Float[Array, "L D"]


def observe_images(env: Env, renderer: Renderer, images: Images) -> Env:
    """The environment with images as observations.

    Its observations are numbers [K, D], from which `render` draws K frames and makes of them [H, W, channels].
    Raises InputError where `images` says something that cannot be, or its observations are pictures already.
    """
    check_images(images)
    if len(env.input_shape) > 1:
        raise InputError(
            f"--observation_type: observations of {env.name} are {list(env.input_shape)} already, and images are drawn "
            "of vectors; use default"
        )
    numbers = jax.eval_shape(renderer.select, jax.ShapeDtypeStruct(env.observation_shape, jnp.float32))
    return env._replace(
        observation_shape=(len(images.offsets), *numbers.shape),
        reset=partial(reset_images, env, renderer, images),
        step=partial(step_images, env, renderer, images),
        render=partial(render_images, renderer, images),
        render_step=partial(render_step_images, renderer, images),
        render_strips=partial(render_strips, renderer.outliner, images)
        if images.image == "difference" and renderer.outliner is not None
        else None,
        rendered_shape=images.shape,
    )


def check_images(images: Images) -> None:
    """Raise InputError naming the first field that is not allowed."""
    if images.image is None:
        raise InputError("--image: None is not allowed; it takes one of stack, difference")
    check_fields(ImageConfig(**images._asdict()))


def reset_images(env: Env, renderer: Renderer, images: Images, key: ScalarKey) -> tuple[Array, SeenState]:
    """Start an episode. Consumes `key`."""
    observation, inner = env.reset(key)
    history = filled(images, renderer.select(observation))
    return frames_of(images, history), SeenState(inner, history)


def step_images(
    env: Env, renderer: Renderer, images: Images, key: ScalarKey, state: SeenState, action: Array
) -> Timestep:
    """One step; the history starts anew with the next episode. Consumes `key`."""
    timestep = env.step(key, state.inner, action)
    final, fresh = renderer.select(timestep.next_observation), renderer.select(timestep.observation)
    history, next_observation = advance(images, state.history, final, fresh, timestep.terminated, timestep.truncated)
    return timestep._replace(
        state=SeenState(timestep.state, history),
        observation=frames_of(images, history),
        next_observation=next_observation,
    )


def filled(images: Images, numbers: Float[Array, " D"]) -> Float[Array, "L D"]:
    """The history at an episode's start: as if it had always been so."""
    return jnp.repeat(numbers[None], images.offsets[-1] + 1, axis=0)


def advance(
    images: Images,
    history: Float[Array, "L D"],
    final: Float[Array, " D"],
    fresh: Float[Array, " D"],
    terminated: Bool[Array, ""],
    truncated: Bool[Array, ""],
) -> tuple[Float[Array, "L D"], Float[Array, "K D"]]:
    """The history that the next action starts from, and what is observed of the step itself.

    final: the numbers that the step led to; fresh: those of the next action's observation, an episode's first ones
    where one has ended. A difference is 0 at a terminal step.
    """
    history = jnp.concatenate([history[1:], final[None]])
    is_still = terminated & (images.image == "difference")
    observed = frames_of(images, jnp.where(is_still, filled(images, final), history))
    return jnp.where(terminated | truncated, filled(images, fresh), history), observed


def frames_of(images: Images, history: Float[Array, "L D"]) -> Float[Array, "K D"]:
    """The numbers that the frames of an observation are drawn from."""
    return history[images.offsets.start :: images.offsets.step]


def render_images(renderer: Renderer, images: Images, observation: Float[Array, "*lead K D"]) -> Float[Array, "..."]:
    """Draw observations [..., K, D]: [..., H, W, channels], in [0, 1], or [-1, 1] for a difference."""
    return image_of(images, draw_frames(renderer, images, observation))


def render_step_images(
    renderer: Renderer, images: Images, observation: Float[Array, "*lead K D"], next_observation: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Draw the two observations of a step, as `render_images` does, and the frames that both hold only once."""
    if images.offsets.step > 1:  # then no frame is in both
        return render_images(renderer, images, observation), render_images(renderer, images, next_observation)
    frames = draw_frames(renderer, images, jnp.concatenate([observation, next_observation[..., -1:, :]], axis=-2))
    picture, next_picture = image_of(images, frames[:-1]), image_of(images, frames[1:])
    if images.image == "difference":  # at a terminal step that of the last frame and itself
        is_still = jnp.all(next_observation[..., 0, :] == next_observation[..., 1, :], axis=-1)
        next_picture = jnp.where(is_still[..., None, None, None], 0.0, next_picture)
    return picture, next_picture


def render_strips(
    outliner: Outliner, images: Images, observation: Float[Array, "B 2 D"], next_observation: Float[Array, "B 2 D"]
) -> tuple[Strips, Strips]:
    """The differences of a step's two observations as strips, which are drawn where they are multiplied."""
    height, width = images.image_size
    # At a terminal step the last frame and itself: that it is another frame than those before need not be drawn.
    is_still = jnp.all(next_observation[:, 0] == next_observation[:, 1], axis=-1)
    newest = jnp.where(is_still[:, None], observation[:, 1], next_observation[:, 1])
    numbers = jnp.concatenate([observation, newest[:, None]], axis=1)

    first, last = outliner.seen(numbers, width=width)
    order = jnp.argsort(first[:, 1])
    outline = jax.vmap(jax.vmap(partial(outliner.outline, height=height, width=width), out_axes=-1))
    frames = [outline(bundled(numbers[:, k], order)) for k in range(3)]
    first, last = bundled(first, order).min(1), bundled(last, order).max(1)
    painter = Painter(outliner.paint, height, width, images.channels)

    def difference(k: int) -> Strips:
        pair = slice(k, k + 2)
        return Strips((frames[k], frames[k + 1]), first[:, pair].min(1), last[:, pair].max(1), order, painter)

    return difference(0), difference(1)


def draw_frames(renderer: Renderer, images: Images, numbers: Float[Array, "*lead F D"]) -> list[Float[Array, "..."]]:
    """The pictures [..., H, W, channels] of F frames."""
    height, width = images.image_size
    draw = partial(renderer.draw, height=height, width=width, channels=images.channels)
    # A call per frame: XLA for CPU stores them faster than with an axis of frames, and far faster than in a loop.
    return [draw(numbers[..., k, :]) for k in range(numbers.shape[-2])]


def image_of(images: Images, frames: list[Float[Array, "*lead H W C"]]) -> Float[Array, "..."]:
    """One observation of its frames, oldest first."""
    return frames[1] - frames[0] if images.image == "difference" else jnp.concatenate(frames, axis=-1)
