"""The only loop on the host: it runs a compiled program chunk after chunk, and hands each chunk's numbers out.

It knows nothing of files or screens; whoever iterates over `fit` writes and shows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array

from purejaxrl.components.hyperparameters import MAX_ENV_STEPS
from purejaxrl.kernels.threefry import is_key, wrap_keys
from purejaxrl.training import devices
from purejaxrl.training.compilation import Program
from purejaxrl.training.evaluation import Best
from purejaxrl.training.loop import Log, Span, iterations_of, without_replay
from purejaxrl.types import RunState

CHUNK_SECONDS = 1.0


class Standing(NamedTuple):
    """Where runs stood when training stopped: state and best [runs, ...] on the host, keys as their bits."""

    state: RunState
    best: Best | None
    iteration: int


class Onward(NamedTuple):
    """What a chunk would say if the budget did not end with it: what a larger budget goes on from."""

    eval_return: np.ndarray | None
    is_over: np.ndarray
    best: Best | None


class Chunk(NamedTuple):
    """What one chunk reports, on the host: iterations start .. start + length - 1 of all runs.

    log: arrays [length, runs, ...]. eval_return: [runs] after the chunk's last iteration, if an evaluation was due.
    is_over: [runs], whether the run has ended.
    state and best stay on the devices, padded; the next chunk consumes them.
    onward: with the last chunk of a budget that is counted in iterations.
    """

    start: int
    length: int
    log: Log
    eval_return: np.ndarray | None
    is_over: np.ndarray
    state: RunState
    best: Best | None
    onward: Onward | None = None


def place_runs(tree: Any, width: int, mesh: Mesh) -> Any:
    """Arrays [runs, ...] as [width, ...] on the devices of the mesh."""
    return devices.place(devices.pad_runs(tree, width), mesh)


def fit(
    program: Program,
    configs: Any,
    seeds: np.ndarray,
    *,
    eval_every: int | None = None,
    standing: Standing | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
) -> Iterator[Chunk]:
    """Train runs, given as stacked configs and seeds [runs], at most `program.width`, until all have ended.

    The cut into chunks of about `chunk_seconds` never changes a result; stop iterating to stop earlier.
    eval_every: env steps between evaluations; every run has one more at its end. standing: where to go on.
    """
    runs, steps = len(seeds), program.shape[0] * program.shape[1]
    configs, seeds = place_runs((configs, seeds.astype(np.uint32)), program.width, program.mesh)
    if standing is None:
        state, best = program.start(configs, seeds)
    else:
        state, best = place_standing(program, standing)
    amount = program.budget.amount
    limit = min(iterations_of(program.budget, program.shape, program.env.max_episode_steps), MAX_ENV_STEPS // steps)
    iteration, length = 0 if standing is None else standing.iteration, 1
    # Evaluations stand at the multiples of eval_every.
    next_eval = (iteration * steps // eval_every + 1) * eval_every if eval_every else 0
    # The caller may hold it on; the devices' copy is what training consumes.
    del standing
    while iteration < limit:
        until_eval = -(-next_eval // steps) - iteration if eval_every else limit
        length = max(1, min(length, program.capacity, until_eval, limit - iteration))

        started = time.perf_counter()
        state, log = program.chunk(configs, state, span_of(iteration, length, amount))
        log = trim(log, length, runs)
        seconds = time.perf_counter() - started
        iteration += length
        has_ended = ~np.asarray(state.active)[:runs]
        is_over = has_ended | (iteration >= limit)

        eval_return, onward = None, None
        was_active = log.active.sum(axis=0)
        is_due = (was_active > 0) & (is_over | (iteration * steps >= next_eval))
        is_due_onward = (was_active > 0) & (has_ended | (iteration * steps >= next_eval))
        if program.evaluate and is_due.any():
            earlier = None if is_due_onward.all() or iteration < limit else jax.tree.map(np.asarray, best)
            # A run that ended within the chunk is evaluated as of its own end, so that the cut cannot matter.
            ends = (iteration - length + was_active).astype(np.int32)
            who = place_runs((ends, is_due), program.width, program.mesh)
            eval_return, best = program.evaluate(configs, without_replay(state.learner), best, state.key, *who)
            eval_return = np.asarray(eval_return)[:runs]
            if earlier is not None:
                onward = undo_evaluations(np.asarray(eval_return), has_ended, best, earlier, np.asarray(is_due_onward))
        if iteration >= limit and onward is None:
            onward = Onward(eval_return, has_ended, best)
        if eval_every and iteration * steps >= next_eval:
            next_eval = (iteration * steps // eval_every + 1) * eval_every
        yield Chunk(iteration - length, length, log, eval_return, is_over, state, best, onward)
        if is_over.all():
            return
        length = next_length(length, seconds, chunk_seconds)


def place_standing(program: Program, standing: Standing) -> tuple[RunState, Best | None]:
    """States and best learners from the host on the program's devices, padded, and keys as such again."""

    def place(shape: jax.ShapeDtypeStruct, leaf: np.ndarray) -> Array:
        placed = place_runs(leaf, program.width, program.mesh)
        return wrap_keys(placed, shape) if is_key(shape) else placed

    return jax.tree.map(place, program.carry, (standing.state, standing.best))


def undo_evaluations(
    eval_return: np.ndarray, has_ended: np.ndarray, best: Any, earlier: Any, is_due: np.ndarray
) -> Onward:
    """Evaluations of the runs for which they were due, the others left as they were `earlier`. is_due: [runs]."""

    def choose(new: Array, old: np.ndarray) -> np.ndarray:
        chosen = np.array(old)
        chosen[: len(is_due)][is_due] = np.asarray(new)[: len(is_due)][is_due]
        return chosen

    return Onward(np.where(is_due, eval_return, np.nan), has_ended, jax.tree.map(choose, best, earlier))


def span_of(start: int, length: int, amount: int) -> Any:
    """A Span as compiled programs take it."""
    return Span(*np.array([start, length, amount], np.int32))


def trim(log: Log, length: int, runs: int) -> Log:
    """A chunk's log on the host, without the entries that mean nothing. Waits for the device."""
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:length, :runs], log)


def next_length(length: int, seconds: float, target: float) -> int:
    """Iterations that should take about `target` seconds; growing at most eightfold, as first chunks are slow."""
    return max(1, min(length * 8, int(length * target / max(seconds, 1e-6))))
