"""Environments as pure functions, from gymnax and other libraries; the only package that imports gymnax."""

from purejaxrl.envs.images import Images, Renderer, observe_images
from purejaxrl.envs.pixel_observation import PixelObservation
from purejaxrl.envs.registry import (
    ENVIRONMENTS,
    EnvEntry,
    env_name,
    find_renderer,
    limit_steps,
    make,
    names,
    with_params,
)
from purejaxrl.envs.stoa import from_stoa

__all__ = [
    "ENVIRONMENTS",
    "EnvEntry",
    "Images",
    "PixelObservation",
    "Renderer",
    "env_name",
    "find_renderer",
    "from_stoa",
    "limit_steps",
    "make",
    "names",
    "observe_images",
    "with_params",
]
