"""Settings x seeds as stacked batches of runs: what one program can train side by side.

Run r belongs to setting r // seeds and starts from jax.random.key(seed + r % seeds).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Group(NamedTuple):
    """Settings [settings] that one program trains, as their configs differ in leaves only; the configs beside them."""

    settings: tuple[int, ...]
    configs: tuple[Any, ...]


class Batch(NamedTuple):
    """Runs that are trained side by side: their numbers, stacked configs and seeds, each [runs]."""

    runs: np.ndarray
    configs: Any
    seeds: np.ndarray


def group_settings(configs: Sequence[Any]) -> list[Group]:
    """Put settings with equal static fields together, in order of their first appearance."""
    groups: dict[Any, list[int]] = {}
    for setting, config in enumerate(configs):
        groups.setdefault(jax.tree.structure(config), []).append(setting)
    return [Group(tuple(members), tuple(configs[setting] for setting in members)) for members in groups.values()]


def batch_of(group: Group, seeds: int, seed: int) -> Batch:
    """All runs of a group, one setting after another."""
    runs = (np.asarray(group.settings)[:, None] * seeds + np.arange(seeds)).ravel()
    return Batch(runs, stack_configs(group.configs, seeds), (seed + runs % seeds).astype(np.uint32))


def stack_configs(configs: Sequence[Any], repeats: int = 1) -> Any:
    """One config whose leaves are [len(configs) * repeats] float32, every config repeated."""
    return jax.tree.map(lambda *leaves: np.repeat(np.asarray(leaves, np.float32), repeats), *configs)


def take(batch: Batch, which: slice | np.ndarray) -> Batch:
    """Some of a batch's runs."""
    return jax.tree.map(lambda leaf: leaf[which], batch)


def cut(batch: Batch, width: int) -> list[Batch]:
    """A batch as several of at most `width` runs."""
    return [take(batch, slice(first, first + width)) for first in range(0, len(batch.runs), width)]
