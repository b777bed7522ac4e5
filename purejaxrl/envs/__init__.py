"""Environments: the only package that knows gymnax."""

from purejaxrl.envs.images import Images, Renderer, find_renderer, observe_images
from purejaxrl.envs.pixel_observation import PixelObservation
from purejaxrl.envs.registry import env_name, limit_steps, make, names, with_params
from purejaxrl.envs.stoa import from_stoa

__all__ = [
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
