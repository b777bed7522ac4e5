"""Environments: the only package that knows gymnax."""

from purejaxrl.envs.make import make, names

__all__ = ["make", "names"]
