"""States of runs as arrays by name, which is how they wait in files or travel to another process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from purejaxrl.kernels.threefry import is_key
from purejaxrl.storage.checkpoint import named_leaves
from purejaxrl.training.evaluation import Best
from purejaxrl.training.metrics import MetricsState
from purejaxrl.training.runner import ResumePoint
from purejaxrl.types import RunState

# The parts of a MetricsState that are arrays; those of the open interval are named after OPEN.
KEPT = tuple(name for name in MetricsState._fields if name not in ("interval", "tallies"))
OPEN = "interval/"


def carry_arrays(state: RunState, best: Best | None) -> dict[str, Any]:
    """Name the arrays of what training carries from chunk to chunk.

    Args:
        state: States of the runs.
        best: Their best params, None where there are no evaluations.

    Returns:
        Arrays by name, random keys as they are.
    """
    return named_leaves(state, "state/") | named_leaves(best, "best/")


def on_host(arrays: Mapping[str, Any], places: np.ndarray) -> dict[str, np.ndarray]:
    """Copy the arrays of some runs to the host.

    Args:
        arrays: Arrays by name, [width, ...].
        places: Which rows of them, [runs].

    Returns:
        Arrays by name, [runs, ...]; random keys as their bits.
    """
    bits = {name: jax.random.key_data(leaf) if is_key(leaf) else leaf for name, leaf in arrays.items()}
    return {name: np.asarray(leaf)[places] for name, leaf in bits.items()}


def metrics_arrays(state: MetricsState) -> dict[str, np.ndarray]:
    """Name the arrays of a MetricsState, without its tallies.

    Args:
        state: The state.

    Returns:
        Arrays by name.
    """
    kept = {f"recorder/{name}": getattr(state, name) for name in KEPT}
    return kept | {f"recorder/{OPEN}{name}": values for name, values in state.interval.items()}


def metrics_state(arrays: Mapping[str, np.ndarray]) -> MetricsState:
    """Restore a MetricsState from its arrays, with no tallies.

    Args:
        arrays: Arrays by name, as `metrics_arrays` names them, among others.

    Returns:
        The state.
    """
    kept = with_prefix(arrays, "recorder/")
    if "is_open" not in kept:
        kept["is_open"] = ~kept["is_over"] & (kept["env_steps"] > kept["closed_at"])
    interval = with_prefix(kept, OPEN)
    return MetricsState(**{name: kept[name] for name in KEPT}, interval=interval, tallies={})


def resume_point(shapes: Any, iteration: int, arrays: Mapping[str, np.ndarray]) -> ResumePoint:
    """Restore the states and best params of runs from their arrays.

    Args:
        shapes: Shapes of the states, and of the best params or None, as `compilation.shapes_of_runs` returns them.
        iteration: The next iteration.
        arrays: Arrays by name, as `carry_arrays` names them, among others; random keys as their bits.

    Returns:
        The ResumePoint.
    """
    trees = []
    for tree, prefix in zip(shapes, ("state/", "best/"), strict=True):
        names = named_leaves(tree, prefix)
        trees.append(jax.tree.unflatten(jax.tree.structure(tree), [arrays[name] for name in names]))
    return ResumePoint(trees[0], trees[1], iteration)


def with_prefix(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Select the arrays whose names have a prefix, and remove it.

    Args:
        arrays: Arrays by name.
        prefix: The prefix.

    Returns:
        The selected arrays by the rest of their names.
    """
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}
