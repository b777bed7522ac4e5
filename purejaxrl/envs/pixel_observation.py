"""Image observations of a gymnax environment, for users with agents outside of this package."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from purejaxrl.envs.images import (
    Images,
    Renderer,
    SeenState,
    advance,
    check_images,
    image_format,
    initial_history,
    select_frames,
)
from purejaxrl.envs.registry import find_renderer
from purejaxrl.types import PyTree, ScalarKey


class PixelObservation:
    """Wrapper of a gymnax environment whose `reset` and `step` return rendered images [H, W, channels].

    `info["final_observation"]` holds the true last image, too. The images are those that agents of this package see
    with `observation_type="img"`, which renders only where a network needs an image.

    Args:
        env: A gymnax environment whose observations are vectors.
        params: Its parameters, by default its own defaults.
        images: Which images are observed, by default those of `Images()`.
        renderer: How to render them, by default the environment's own renderer, which CartPole has.

    Raises:
        InputError: If there is no renderer.
    """

    def __init__(
        self, env: Any, params: PyTree | None = None, images: Images | None = None, renderer: Renderer | None = None
    ) -> None:
        self.env = env
        self.params = env.default_params if params is None else params
        self.images = Images() if images is None else images
        check_images(self.images)
        self.renderer = find_renderer(str(env.name), renderer)

    def __getattr__(self, name: str) -> Any:
        if name == "env":
            raise AttributeError(name)
        return getattr(self.env, name)

    @property
    def default_params(self) -> PyTree:
        """Parameters of the environment that the wrapper was given."""
        return self.params

    @partial(jax.jit, static_argnames=("self",))
    def reset(self, key: ScalarKey, params: PyTree | None = None) -> tuple[Array, SeenState]:
        """Reset the environment.

        Args:
            key: A random key, which is consumed.
            params: Parameters of the environment, by default those that the wrapper was given.

        Returns:
            The image [H, W, channels] and the state.
        """
        observation, inner = self.env.reset(key, self.params if params is None else params)
        history = initial_history(self.images, self.renderer.select(observation))
        return self._render(select_frames(self.images, history)), SeenState(inner, history)

    @partial(jax.jit, static_argnames=("self",))
    def step(
        self, key: ScalarKey, state: SeenState, action: Array, params: PyTree | None = None
    ) -> tuple[Array, SeenState, Array, Array, Array, dict[str, Any]]:
        """Take one step in the environment, which resets by itself.

        Args:
            key: A random key, which is consumed.
            state: The state before the step.
            action: The action.
            params: Parameters of the environment, by default those that the wrapper was given.

        Returns:
            The image, state, reward, terminated, truncated and info, as in gymnax.
        """
        observation, inner, reward, terminated, truncated, info = self.env.step(
            key, state.inner, action, self.params if params is None else params
        )
        final, fresh = self.renderer.select(info["final_observation"]), self.renderer.select(observation)
        history, observed = advance(self.images, state.history, final, fresh, terminated, truncated)
        info = {**info, "final_observation": self._render(observed)}
        image = self._render(select_frames(self.images, history))
        return image, SeenState(inner, history), reward, terminated, truncated, info

    def observation_space(self, params: PyTree | None = None) -> Any:  # noqa: ARG002 (gymnax's signature)
        """Return the space of images in [0, 1], or in [-1, 1] where they are differences.

        Args:
            params: Not used.

        Returns:
            A Box of gymnax.
        """
        from gymnax.environments import spaces

        low = -1.0 if self.images.image == "difference" else 0.0
        return spaces.Box(low, 1.0, self.images.shape, jnp.float32)

    def _render(self, numbers: Array) -> Array:
        return image_format(self.renderer, self.images).image(numbers).render()
