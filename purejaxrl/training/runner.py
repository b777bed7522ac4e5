"""The only loop on the host: it runs a compiled program chunk after chunk, and yields the numbers of each chunk.

It knows nothing of files or displays; whoever iterates over `fit` writes and shows.
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
from purejaxrl.training.loop import Log, Span, iterations_of
from purejaxrl.types import RunState

CHUNK_SECONDS = 1.0


class ResumePoint(NamedTuple):
    """State from which the training of a batch of runs continues.

    Attributes:
        state: States of the runs [runs, ...] on the host, keys as their bits.
        best: Their best params so far, None where there are no evaluations.
        iteration: The next iteration.
    """

    state: RunState
    best: Best | None
    iteration: int


class FinalEvaluation(NamedTuple):
    """Evaluations that are due because the budget ends.

    Attributes:
        eval_return: Mean returns [runs], NaN for runs that were not evaluated.
        best: The best params after the evaluations.
    """

    eval_return: np.ndarray
    best: Best


class Chunk(NamedTuple):
    """Report of one chunk of iterations.

    Attributes:
        start: Its first iteration.
        length: Its number of iterations.
        log: Logs of the iterations, on the host: arrays [length, runs, ...]; None where another process has recorded
            them.
        eval_return: Mean returns of greedy evaluations after the runs' last iterations [runs], NaN for runs that were
            not due; None where no run was.
        has_ended: Whether each run has ended by itself, [runs]: by a budget of episodes, or because it is solved.
        is_last: Whether nothing can follow, because the budget or all runs have ended.
        state: The states after it on the devices, padded; the next chunk consumes them.
        best: The best params after it, likewise.
        final: With the last chunk, evaluations of runs that the budget ends.
    """

    start: int
    length: int
    log: Log | None
    eval_return: np.ndarray | None
    has_ended: np.ndarray
    is_last: bool
    state: RunState
    best: Best | None
    final: FinalEvaluation | None = None


def fit(
    program: Program,
    configs: Any,
    seeds: np.ndarray,
    *,
    eval_every: int | None = None,
    resume_point: ResumePoint | None = None,
    chunk_seconds: float = CHUNK_SECONDS,
    first_length: int = 1,
    end: int | None = None,
    is_active: np.ndarray | None = None,
) -> Iterator[Chunk]:
    """Train runs, chunk after chunk, until all have ended or come to a given iteration.

    The division into chunks of about `chunk_seconds` never changes a result; stop iterating to stop earlier.

    Args:
        program: The compiled program.
        configs: Stacked configs [runs], at most `program.width`.
        seeds: Seeds [runs].
        eval_every: Env steps between evaluations, None for none; every run has one more at its end.
        resume_point: Where to continue, None for the beginning.
        chunk_seconds: How long a chunk should take.
        first_length: Number of iterations of the first chunk, where it is known how many fit that time.
        end: Iteration before which to stop, None for that of the budget, which schedules depend on all the same.
        is_active: Whether each run trains, [runs]; the others only fill their places, and are over at once. None for
            all.

    Yields:
        Chunks, in order.
    """
    runs, steps = len(seeds), program.shape[0] * program.shape[1]
    configs, seeds = place_runs((configs, seeds.astype(np.uint32)), program.width, program.mesh)
    if resume_point is None:
        state, best = program.start(configs, seeds)
    else:
        state, best = _place_resume_point(program, resume_point)
    if runs < program.width or is_active is not None:
        # A group of runs none of which is active takes no time.
        counts = np.arange(program.width) < runs
        counts[:runs] &= True if is_active is None else is_active
        state = state._replace(active=devices.place(np.asarray(state.active) & counts, program.mesh))
    amount = program.budget.amount
    limit = min(iterations_of(program.budget, program.shape, program.env.max_episode_steps), MAX_ENV_STEPS // steps)
    end = limit if end is None else min(end, limit)
    iteration, length = 0 if resume_point is None else resume_point.iteration, first_length
    # Evaluations stand at the multiples of eval_every.
    next_eval = (iteration * steps // eval_every + 1) * eval_every if eval_every else 0
    # The caller may hold it on; the devices' copy is what training consumes.
    del resume_point

    def evaluate(state: RunState, best: Best | None, ends: np.ndarray, is_due: np.ndarray) -> tuple[np.ndarray, Best]:
        # A run that ended within the chunk is evaluated as of its own end, so that the cut cannot matter.
        assert program.evaluate is not None
        who = place_runs((ends.astype(np.int32), is_due), program.width, program.mesh)
        eval_return, best = program.evaluate(configs, state.learner.params, best, state.key, *who)
        return np.asarray(eval_return)[:runs], best

    while iteration < end:
        until_eval = -(-next_eval // steps) - iteration if eval_every else limit
        length = max(1, min(length, program.capacity, until_eval, end - iteration))

        started = time.perf_counter()
        state, log = program.chunk(configs, state, span_of(iteration, length, amount))
        log = trim(log, length, runs)
        seconds = time.perf_counter() - started
        iteration += length
        has_ended = ~np.asarray(state.active)[:runs]
        is_last = iteration >= limit or bool(has_ended.all())

        eval_return, final = None, None
        was_active = np.asarray(log.active).sum(axis=0)
        ends = iteration - length + was_active
        if program.evaluate:
            is_due = (was_active > 0) & (has_ended | (iteration * steps >= next_eval))
            if is_due.any():
                eval_return, best = evaluate(state, best, ends, is_due)
            is_left = (was_active > 0) & ~is_due
            if is_last and is_left.any():
                # The evaluation consumes it, and a larger budget would go on from it.
                earlier = jax.tree.map(np.asarray, best)
                final = FinalEvaluation(*evaluate(state, best, ends, is_left))
                best = earlier
        if eval_every and iteration * steps >= next_eval:
            next_eval = (iteration * steps // eval_every + 1) * eval_every
        yield Chunk(iteration - length, length, log, eval_return, has_ended, is_last, state, best, final)
        if is_last:
            return
        length = next_length(length, seconds, chunk_seconds)


def _place_resume_point(program: Program, point: ResumePoint) -> tuple[RunState, Best | None]:
    """Put the states and best params of a resume point on the program's devices."""

    def place(shape: jax.ShapeDtypeStruct, leaf: np.ndarray) -> Array:
        placed = place_runs(leaf, program.width, program.mesh)
        return wrap_keys(placed, shape) if is_key(shape) else placed

    return jax.tree.map(place, program.carry, (point.state, point.best))


def place_runs(tree: Any, width: int, mesh: Mesh) -> Any:
    """Pad arrays of runs and put them on the devices of a mesh.

    Args:
        tree: Arrays [runs, ...].
        width: Number of runs after padding.
        mesh: The devices.

    Returns:
        Arrays [width, ...] on the devices.
    """
    return devices.place(devices.pad_runs(tree, width), mesh)


def span_of(start: int, length: int, amount: int) -> Any:
    """Build a Span of the types that compiled programs expect.

    Args:
        start: The first iteration.
        length: Number of iterations.
        amount: The budget's amount.

    Returns:
        The Span.
    """
    return Span(*np.array([start, length, amount], np.int32))


def trim(log: Log, length: int, runs: int) -> Log:
    """Copy a chunk's log to the host without its meaningless entries, waiting for the device.

    Args:
        log: The log [capacity, width, ...].
        length: Number of iterations.
        runs: Number of runs.

    Returns:
        The log [length, runs, ...].
    """
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:length, :runs], log)


def next_length(length: int, seconds: float, target: float) -> int:
    """Compute the length of the next chunk, which grows at most eightfold, as first chunks are slow.

    Args:
        length: Length of the last chunk, in iterations.
        seconds: How long it took.
        target: How long the next one should take, in seconds.

    Returns:
        The number of iterations.
    """
    return max(1, min(length * 8, int(length * target / max(seconds, 1e-6))))
