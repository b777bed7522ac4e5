"""Sweeps whose runs are trained by the workers of an Executor: cutting them into shards, handing these out, retrying.

It writes no files: whoever iterates over `train_shards` does.
"""

from __future__ import annotations

import dataclasses
import queue
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np

from purejaxrl.errors import ClusterError, InputError, PurejaxrlError, in_brief, in_one_line, warn
from purejaxrl.experiment.kept_programs import memory_limit
from purejaxrl.experiment.labels import name_runs
from purejaxrl.experiment.plan import Plan, Training
from purejaxrl.experiment.plan_from_config import objects_of
from purejaxrl.experiment.shards import Leg, Shard, ShardError, Trained, describe, slice_of, train_shard
from purejaxrl.experiment.tracker import BatchPosition
from purejaxrl.training.batches import Batch, batch_of, cut, group_settings, take
from purejaxrl.training.compilation import StopRequestedError, plan_layout
from purejaxrl.training.metrics import RunStats

# A shard should take about this long: losing one costs no more, and handing one out costs next to nothing of it.
SHARD_SECONDS = 60.0
# Shards get smaller towards the end, so that workers end together; each is this part of the work that is left.
PARTS = 64
# Nor are they smaller than this, while no run takes longer.
LEAST_SECONDS = 2.0
# Where no run has ended in this time, the smallest shards are large enough.
PATIENCE = 60.0
ATTEMPTS = 3
POLL_SECONDS = 0.1
# An accelerator trains so many runs side by side, if they fit; a batch of them is written at once.
ACCELERATOR_RUNS = 1024
ACCELERATOR_BATCH = 16 * ACCELERATOR_RUNS


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """A batch of runs as one machine would train it side by side, whose rows are written together.

    Attributes:
        setting: The first of its settings.
        batch: Its runs.
        shard: The batch as one shard.
        ended: Position of the training after it.
        is_only: Whether there is no other batch.
        width: Number of runs that a worker trains side by side.
        description: What `train_shard` needs to know besides the runs.
        leg: The part of the training, None for all of it.
        states: States with which runs go on, from which those of a shard are taken.
    """

    setting: Training
    batch: Batch
    shard: Shard
    ended: BatchPosition
    is_only: bool
    width: int
    description: dict[str, Any]
    leg: Leg | None = None
    states: Sequence[Saved] = ()


class Saved(NamedTuple):
    """States of some runs on the host.

    Attributes:
        runs: Numbers of the runs, [runs].
        arrays: Arrays by name, [runs, ...], as `states` names them.
    """

    runs: np.ndarray
    arrays: dict[str, np.ndarray]


def gather(saved: Sequence[Saved], runs: np.ndarray) -> dict[str, np.ndarray] | None:
    """Collect the states of runs.

    Args:
        saved: States of some runs.
        runs: Numbers of the runs, [runs].

    Returns:
        Arrays by name, [runs, ...]; None where there are no states.

    Raises:
        KeyError: If the states of a run are missing while those of others are there.
    """
    if not saved:
        return None
    found = {run: (part, place) for part in saved for place, run in enumerate(part.runs.tolist())}
    places = [found[run] for run in runs.tolist()]
    return {name: np.stack([part.arrays[name][place] for part, place in places]) for name in saved[0].arrays}


@runtime_checkable
class Workers(Protocol):
    """Protocol of what gives work to workers: a `concurrent.futures.Executor`, or submitit's, which is none."""

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Any:
        """Call a function on a worker.

        Args:
            function: The function.
            *arguments: Its arguments.
            **options: Its keyword arguments.

        Returns:
            A future, with the methods `result`, `done` and `cancel`.
        """


def check_executor(executor: Workers | None) -> None:
    """Check that an object can be given work.

    Args:
        executor: The object, None for none.

    Raises:
        InputError: If it is no Executor.
    """
    if executor is not None and not isinstance(executor, Workers):
        raise InputError(
            f"executor: {in_brief(executor)} is not allowed; it takes a concurrent.futures.Executor, such as "
            "client.get_executor() of a Dask Client"
        )


def plan_work(
    plan: Plan, local: list[jax.Device], *, is_here: bool = False, least_width: int | None = None
) -> list[Work]:
    """Divide a plan into batches, as this machine would train it, so that the files are the same.

    Args:
        plan: What is trained.
        local: The devices of this machine.
        is_here: Whether it is trained on them after all.
        least_width: Number of runs that a program on CPU has room for at least.

    Returns:
        The batches, in the order of the files.
    """
    token = uuid.uuid4().hex
    found: list[Work] = []
    groups = group_settings([setting.config for setting in plan.settings])
    for turn, group in enumerate(groups):
        setting = plan.settings[group.settings[0]]
        whole = batch_of(group, plan.options.seeds, plan.options.seed)
        runs = len(whole.runs)
        if plan.options.device == "cpu":
            layout = plan_layout(
                plan.agent,
                setting.env,
                setting.config,
                max(runs, least_width or 0),
                setting.budget,
                local,
                memory_limit=memory_limit(plan, local),
                keeps_best=plan.eval_episodes is not None,
            )
            # A program for several devices rounds as one for any other number of them, but not as one for a single one.
            devices = layout.devices if is_here else min(layout.devices, 2)
            size, width = layout.batch, layout.group * devices
            if is_here and least_width is not None:
                width = max(runs, least_width)
        else:
            devices, size, width = 1, ACCELERATOR_BATCH, min(runs, ACCELERATOR_RUNS)
        description = describe(plan, setting, f"{token}-{turn}", width, devices)
        for batch in cut(whole, size):
            first = found[-1].shard.stop if found and found[-1].shard.group == turn else 0
            stop = first + len(batch.runs)
            is_last = turn == len(groups) - 1
            ended = BatchPosition(turn, stop) if stop < runs else BatchPosition(turn + 1, is_finished=is_last)
            is_only = len(groups) == 1 and len(batch.runs) == runs
            shard = Shard(turn, first, stop)
            found.append(Work(setting, batch, shard, ended, is_only, width, description))
    return found


def is_part_of(shard: Shard, work: Work) -> bool:
    """Check that a shard lies within a batch.

    Args:
        shard: The shard.
        work: The batch.

    Returns:
        Whether it does.
    """
    return shard.group == work.shard.group and work.shard.first <= shard.first < shard.stop <= work.shard.stop


def missing(work: Work, present: list[Shard]) -> list[Shard]:
    """Find the runs of a batch that have not come in.

    Args:
        work: The batch.
        present: The shards of it that have.

    Returns:
        The shards that have not, as few as possible.
    """
    group, first, stop = work.shard
    gaps = []
    for shard in sorted(present):
        if shard.first > first:
            gaps.append(Shard(group, first, shard.first))
        first = max(first, shard.stop)
    return [*gaps, Shard(group, first, stop)] if first < stop else gaps


class _Piece(NamedTuple):
    """A part of the work that has not been handed out."""

    work: Work
    shard: Shard


def train_shards(
    plan: Plan,
    pieces: list[tuple[Work, Shard]],
    executor: Workers,
    should_stop: Callable[[], bool],
    *,
    is_here: bool = False,
    report: Callable[[np.ndarray, RunStats], None] | None = None,
) -> Generator[tuple[Work, Shard, Trained | None]]:
    """Train shards by the workers of an Executor.

    Args:
        plan: What is trained.
        pieces: What is to be trained, in order: each a batch, and a shard of it, which may be cut further.
        executor: The Executor.
        should_stop: Whether to stop.
        is_here: Whether its workers are threads of this process, which can be asked to stop.
        report: Where they are, what such a thread calls with numbers and statistics of runs while they train.

    Yields:
        Shards as they come in, each with its batch and what was trained, None for those that have failed three times.

    Raises:
        ClusterError: If the Executor has stopped working.
        PurejaxrlError: What a worker has refused, such as other versions.
    """
    left = deque(_Piece(*piece) for piece in pieces)
    objects = objects_of(plan)
    seconds: dict[int, float] = {}
    handed: dict[int, int] = {}
    pending: dict[Any, tuple[_Piece, int]] = {}
    done: queue.SimpleQueue[Any] = queue.SimpleQueue()
    # submitit's jobs call nobody back.
    asked: list[Any] = []
    started = time.monotonic()
    options: dict[str, Any] = {"should_stop": should_stop, "report": report} if is_here else {}

    def hand_out(piece: _Piece, attempt: int) -> None:
        _, first, stop = piece.shard
        runs = slice(first - piece.work.shard.first, stop - piece.work.shard.first)
        batch = take(piece.work.batch, runs)
        task = piece.work.description | slice_of(batch)
        if piece.work.leg is not None:
            task["leg"] = piece.work.leg._replace(arrays=gather(piece.work.states, batch.runs))._asdict()
        try:
            future = executor.submit(train_shard, task, objects, **options)
        except Exception as error:
            raise ClusterError(f"--cluster: it takes no more work ({in_one_line(error)})") from error
        pending[future] = (piece, attempt)
        if isinstance(future, Future):
            future.add_done_callback(done.put)
        else:
            asked.append(future)

    def hand_out_more() -> None:
        # What cannot be sized yet waits; the first few of each program are as small as possible, to be timed: as many
        # as there may be workers.
        for _ in range(len(left)):
            rest: _Piece | None = left.popleft()
            while rest is not None and is_sized(rest):
                part, rest = _split(rest, size_of(rest))
                hand_out(part, 1)
                handed[part.shard.group] = handed.get(part.shard.group, 0) + 1
            if rest is not None:
                left.append(rest)

    def is_sized(piece: _Piece) -> bool:
        group, is_slow = piece.shard.group, not seconds and time.monotonic() - started > PATIENCE
        return group in seconds or is_slow or handed.get(group, 0) < (1 if is_here else PARTS)

    def size_of(piece: _Piece) -> int:
        group, width = piece.shard.group, piece.work.width
        if group not in seconds:
            return width
        others = sum(other.shard.stop - other.shard.first for other in left if other.shard.group == group)
        return shard_runs(others + piece.shard.stop - piece.shard.first, seconds[group], width)

    try:
        hand_out_more()
        while pending or left:
            if should_stop():
                return
            for job in [job for job in asked if job.done()]:
                asked.remove(job)
                done.put(job)
            try:
                future = done.get(timeout=POLL_SECONDS)
            except queue.Empty:
                hand_out_more()
                continue
            piece, attempt = pending.pop(future)
            try:
                trained = future.result()
            except StopRequestedError:
                return
            except PurejaxrlError:
                raise
            except (BrokenExecutor, CancelledError) as error:
                if should_stop():
                    return
                raise _gone(error) from error
            except Exception as error:
                if attempt < ATTEMPTS:
                    hand_out(piece, attempt + 1)
                    continue
                _warn_of_failure(plan, piece, error)
                yield piece.work, piece.shard, None
                continue
            seconds.setdefault(piece.shard.group, trained.seconds / len(trained.runs))
            yield piece.work, piece.shard, trained
            # It may be large.
            del trained, future
            hand_out_more()
    finally:
        for future in pending:
            future.cancel()


def shard_runs(rest: int, seconds: float, width: int) -> int:
    """Compute how many runs the next shard should have.

    Args:
        rest: Number of runs that are left.
        seconds: Seconds that a run takes.
        width: Number of runs that a worker trains side by side.

    Returns:
        The number, a multiple of the width.
    """
    wanted = min(max(rest * seconds / PARTS, LEAST_SECONDS), SHARD_SECONDS)
    return max(int(wanted / max(seconds, 1e-6)) // width, 1) * width


def _gone(error: BaseException) -> ClusterError:
    """Return what is to be said when an Executor has given up work that nobody has asked it to."""
    detail = in_one_line(error) if isinstance(error, BrokenExecutor) else "the work was cancelled"
    return ClusterError(
        f"--cluster: its workers or its scheduler are gone ({detail}); what came in is kept, and `resume` goes on"
    )


def _split(piece: _Piece, runs: int) -> tuple[_Piece, _Piece | None]:
    """Split off the first runs of a piece."""
    group, first, stop = piece.shard
    if first + runs >= stop:
        return piece, None
    rest = piece._replace(shard=Shard(group, first + runs, stop))
    return piece._replace(shard=Shard(group, first, first + runs)), rest


def runs_of(work: Work, shard: Shard) -> np.ndarray:
    """Return the numbers of a shard's runs.

    Args:
        work: The batch that it is a part of.
        shard: The shard.

    Returns:
        The numbers [runs].
    """
    return work.batch.runs[shard.first - work.shard.first : shard.stop - work.shard.first]


def _warn_of_failure(plan: Plan, piece: _Piece, error: Exception) -> None:
    """Warn that runs could not be trained, with the worker's traceback where that is asked for."""
    names = name_runs(runs_of(piece.work, piece.shard).tolist())
    if isinstance(error, ShardError):
        text, whole = str(error.args[0]), error.traceback
    else:
        text, whole = in_one_line(error), "".join(traceback.format_exception(error))
    if plan.options.debug:
        text += f"\n{whole}"
    warn(f"runs {names} failed {ATTEMPTS} times and are left out: {text}", stacklevel=4)
