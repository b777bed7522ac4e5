"""Environments: the only package that knows gymnax."""

from purejaxrl.envs.bridges import from_stoa
from purejaxrl.envs.make import limit_steps, make, name_of, names, with_params
from purejaxrl.envs.pixels import Images, Renderer, observe_images, renderer_of
from purejaxrl.envs.wrapper import PixelObservation

__all__ = [
    "Images",
    "PixelObservation",
    "Renderer",
    "from_stoa",
    "limit_steps",
    "make",
    "name_of",
    "names",
    "observe_images",
    "renderer_of",
    "with_params",
]
