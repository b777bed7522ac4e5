"""Settings x seeds as stacked batches of runs: what one program can train side by side.

Run r belongs to setting r // seeds and starts from jax.random.key(seed + r % seeds).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np


class Group(NamedTuple):
    """Settings that one program trains, because their configs differ in leaves only.

    Attributes:
        settings: Indices of the settings.
        configs: Their configs, in the same order.
    """

    settings: tuple[int, ...]
    configs: tuple[Any, ...]


class Batch(NamedTuple):
    """Runs that are trained side by side.

    Attributes:
        runs: Numbers of the runs, [runs].
        configs: Their stacked configs, [runs].
        seeds: Their seeds, [runs].
    """

    runs: np.ndarray
    configs: Any
    seeds: np.ndarray


def group_settings(configs: Sequence[Any]) -> list[Group]:
    """Group settings with equal static fields, in order of their first appearance.

    Args:
        configs: One config per setting.

    Returns:
        The groups.
    """
    groups: dict[Any, list[int]] = {}
    for setting, config in enumerate(configs):
        groups.setdefault(jax.tree.structure(config), []).append(setting)
    return [Group(tuple(members), tuple(configs[setting] for setting in members)) for members in groups.values()]


def batch_of(group: Group, seeds: int, seed: int) -> Batch:
    """Collect all runs of a group, one setting after another.

    Args:
        group: The group.
        seeds: Number of seeds per setting.
        seed: The first seed.

    Returns:
        The runs as one batch.
    """
    runs = (np.asarray(group.settings)[:, None] * seeds + np.arange(seeds)).ravel()
    return Batch(runs, stack_configs(group.configs, seeds), (seed + runs % seeds).astype(np.uint32))


def stack_configs(configs: Sequence[Any], repeats: int = 1) -> Any:
    """Stack configs that differ in leaves only, repeating each of them.

    Args:
        configs: The configs.
        repeats: How often each is repeated.

    Returns:
        One config whose leaves are [len(configs) * repeats] float32.
    """
    return jax.tree.map(lambda *leaves: np.repeat(np.asarray(leaves, np.float32), repeats), *configs)


def take(batch: Batch, which: slice | np.ndarray) -> Batch:
    """Select some of a batch's runs.

    Args:
        batch: The batch.
        which: Indices of the runs.

    Returns:
        A batch of these runs.
    """
    return jax.tree.map(lambda leaf: leaf[which], batch)


def cut(batch: Batch, width: int) -> list[Batch]:
    """Split a batch into several of limited width.

    Args:
        batch: The batch.
        width: Largest number of runs per batch.

    Returns:
        The batches, in order.
    """
    return [take(batch, slice(first, first + width)) for first in range(0, len(batch.runs), width)]
