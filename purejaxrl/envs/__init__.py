"""Environments: the only package that knows gymnax."""

from purejaxrl.envs.make import limit_steps, make, name_of, names

__all__ = ["limit_steps", "make", "name_of", "names"]
