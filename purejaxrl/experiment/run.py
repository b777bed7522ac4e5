"""Running a Plan in a run folder: compiling, training, and stopping at a signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from purejaxrl.components.hyperparameters import without_budget
from purejaxrl.errors import CheckpointError, ClusterError, DivergedError, InputError, ResourceError, log, warn
from purejaxrl.experiment import checkpointing, schema
from purejaxrl.experiment.callbacks import Callback, Content, Event, FileWriter, Finisher, Logging, ProgressDisplay
from purejaxrl.experiment.checkpointing import Checkpointer, Restored
from purejaxrl.experiment.cluster import Work, Workers, is_part_of, missing, plan_work, runs_of, train_shards
from purejaxrl.experiment.kept_programs import find_kept, keep, memory_limit
from purejaxrl.experiment.labels import counted, name_runs
from purejaxrl.experiment.loggers import Listeners, Logger
from purejaxrl.experiment.plan import Plan, is_built_in, versions
from purejaxrl.experiment.plan_from_config import check_same, replan, up_to_date
from purejaxrl.experiment.progress import Reporter, SafeReporter, Silent
from purejaxrl.experiment.shards import Shard, Trained, as_chunk, join, shard_of, unpack
from purejaxrl.experiment.tracker import BatchPosition, RunTracker, Stage, diverged_runs, summarize
from purejaxrl.storage import run_folder
from purejaxrl.storage.checkpoint import Checkpoint
from purejaxrl.storage.files import plain, read_json
from purejaxrl.storage.run_folder import RunFolder
from purejaxrl.training import devices
from purejaxrl.training.batches import batch_of, cut, group_settings, take
from purejaxrl.training.compilation import StopRequestedError, compile_fitting, mebibytes
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.metrics import Rows, RunStats
from purejaxrl.training.runner import Chunk, fit
from purejaxrl.training.signals import StopSignals
from purejaxrl.types import RunState


class Outcome(NamedTuple):
    """Outcome of a training.

    Attributes:
        path: The run folder.
        config: Content of config.json.
        summary: Content of summary.json.
        plan: What was trained.
        state: States of the runs, None where nothing was trained, or several batches were.
        stopped_by: Number of the signal that stopped it before its end, None if none did.
        stats: Statistics of the runs.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    plan: Plan
    state: RunState | None = None
    stopped_by: int | None = None
    stats: RunStats | None = None


# Writes tables and figures of a training that has ended: (run folder, config.json, summary.json).
WriteResults: TypeAlias = Callable[[RunFolder, Content, Content], object]


@standard_jax()
def run_experiment(
    plan: Plan,
    folder: RunFolder,
    write_results: WriteResults,
    *,
    progress: Reporter | None = None,
    loggers: Sequence[Logger] = (),
    found: Checkpoint | None = None,
    executor: Workers | None = None,
    width: int | None = None,
    signals: StopSignals | None = None,
) -> Outcome:
    """Train a Plan and write its run folder; a signal stops it, and everything learned so far is kept.

    Args:
        plan: What to train.
        folder: The run folder, locked.
        write_results: Writes tables and figures, once everything else and the last checkpoint are on the disk.
        progress: Shows the progress of training, None to show nothing.
        loggers: Additional destinations for metrics.
        found: The checkpoint to continue from, None for the beginning.
        executor: An Executor whose workers train, None to train in this process.
        width: Number of runs that a program has room for at least, None for as many as there are.
        signals: Records signals already, None to do so while training.

    Returns:
        The outcome of the training.

    Raises:
        CheckpointError: If checkpoint and Plan do not belong together.
        ResourceError: If disk or memory do not suffice.
        DivergedError: If a run diverges, with `fail_on_nan` or `debug`.
        ClusterError: If the workers of the Executor are gone, or could not train a single run.
    """
    local = devices_at_hand(plan, executor)
    used = min(len(local), plan.runs)
    tracker = RunTracker(plan, used, local[0].device_kind)
    restored = Restored() if found is None else checkpointing.restore(tracker, folder, found)
    if restored.position.is_finished:
        config, summary = (read_json(folder.path / name) for name in ("config.json", "summary.json"))
        # The process may have ended between the last checkpoint and these.
        write_results(folder, config, summary)
        return Outcome(folder.path, config, summary, plan, stats=tracker.stats)
    is_left = found is not None and bool(run_folder.find_shards(folder.path))
    has_shards = executor is not None or width is not None or is_left
    if has_shards and restored.position.runs:
        raise InputError(
            f"--cluster: {folder.path} was interrupted with {restored.position.runs} runs under way on one machine, "
            "which must end there; resume it without"
        )
    if found is None:
        # What can be refused comes before this.
        folder.clear()
    config = plain({**plan.as_dict(), "devices": used})
    log("run folder: %s", folder.path)
    log("devices: %s, %d of %d used", local[0].device_kind, used, len(local))
    reporter = SafeReporter(progress) if progress else Silent()
    stop = StopSignals() if signals is None else signals
    # Data first, then the checkpoint, then what can be made from the data again.
    callbacks = [
        FileWriter(folder, restored.tails),
        Logging(folder, Listeners(loggers)),
        Checkpointer(folder, plan.options.checkpoint_every, stop.deferring, restored.position if has_shards else None),
        ProgressDisplay(reporter),
        Finisher(folder, write_results),
    ]
    is_finished = False
    with stop if signals is None else nullcontext(), ExitStack() as closing:
        for callback in callbacks:
            closing.callback(callback.on_close)
            callback.on_start(tracker, config)
        if has_shards:
            is_finished = _train_by_shards(
                plan, local, executor, tracker, callbacks, folder, stop, restored.position, width
            )
        else:
            with suppress(StopRequestedError):
                for stage in train_groups(plan, local, stop.is_stopping, reporter.note, restored):
                    rows = tracker.record(stage)
                    has_diverged = plan.options.fail_on_nan and len(diverged_runs(stage)) > 0
                    is_stopping = stop.is_stopping() or has_diverged
                    for callback in callbacks:
                        callback.on_chunk(Event(tracker, stage, rows, is_stopping, has_diverged))
                    if stage.chunk.is_last or is_stopping:
                        rows = tracker.close(stage)
                        for callback in callbacks:
                            callback.on_batch_end(Event(tracker, stage, rows, is_stopping, has_diverged))
                    is_finished = stage.position.is_finished
                    # A batch's arrays are to go before the next one's come.
                    del stage
                    if is_stopping:
                        break
        reporter.close()
        # Still within StopSignals: what has been learned is written whole. A signal that came with the last chunk has
        # stopped nothing.
        stopped_by = None if is_finished else stop.received
        summary = plain(summarize(tracker, stopped_by))
        for callback in callbacks:
            callback.on_end(summary)
        if is_finished:
            folder.remove_shards(run_folder.find_shards(folder.path))
    if plan.options.fail_on_nan and tracker.failed:
        shown = name_runs(sorted(tracker.failed))
        raise DivergedError(f"--fail_on_nan: training stopped as runs diverged: {shown}; see {folder.path}")
    return Outcome(folder.path, config, summary, plan, tracker.state, stopped_by, tracker.stats)


def devices_at_hand(plan: Plan, executor: Workers | None) -> list[jax.Device]:
    """Return the devices of this machine that a training uses or, with an Executor, those that it is divided for.

    Args:
        plan: What is trained.
        executor: The Executor, None where training is in this process.

    Returns:
        The devices. Workers may have accelerators that this machine has not.

    Raises:
        InputError: If there are none of the kind that is asked for.
    """
    if executor is None or plan.options.device == "cpu":
        return devices.local_devices(plan.options.device, plan.options.devices)
    return devices.local_devices("cpu", 1)


def _train_by_shards(
    plan: Plan,
    local: list[jax.Device],
    executor: Workers | None,
    tracker: RunTracker,
    callbacks: Sequence[Callback],
    folder: RunFolder,
    signals: StopSignals,
    position: BatchPosition,
    width: int | None,
) -> bool:
    """Train by the workers of an Executor, or by a thread of this process, and return whether nothing is left.

    What comes in is written at once. Batches are put together, in order, as soon as all of their shards are there.
    """
    works = [
        work
        for work in plan_work(plan, local, is_here=executor is None, least_width=width)
        if (work.shard.group, work.shard.first) >= (position.group, position.done)
    ]
    present: dict[Work, list[Shard]] = {work: [] for work in works}
    for work, shard, found in _shards_on_disk(folder, works, plan.options.fail_on_nan):
        present[work].append(shard)
        tracker.add_shard(found.runs, found.stats, found.device, 0.0)
    has_diverged = is_incomplete = False

    def close(work: Work, *, is_whole: bool) -> None:
        if not present[work]:
            return
        trained = join([unpack(*run_folder.read_shard(folder.path, shard.name)) for shard in present[work]])
        batch = take(work.batch, np.isin(work.batch.runs, trained.runs))
        # The checkpoint is of a training that continues, so that runs which have not come in can still be trained.
        ended = work.ended if is_whole else BatchPosition(work.shard.group, work.shard.first, len(work.batch.runs))
        stage = Stage(work.setting, batch, None, as_chunk(trained), ended, work.is_only)
        tracker.close_shards(stage, trained.diverged, trained.tallies)
        for callback in callbacks:
            callback.on_batch_end(
                Event(tracker, stage, Rows(trained.episodes, trained.metrics), signals.is_stopping(), has_diverged)
            )

    def close_complete() -> None:
        while works and not missing(works[0], present[works[0]]):
            work = works.pop(0)
            close(work, is_whole=True)
            if works:
                folder.remove_shards([shard.name for shard in present.pop(work)])

    close_complete()
    pieces = [(work, shard) for work in works for shard in missing(work, present[work])]
    with ExitStack() as closing:
        workers = executor or closing.enter_context(ThreadPoolExecutor(1))
        arrivals = train_shards(plan, pieces, workers, signals.is_stopping, is_here=executor is None)
        closing.callback(arrivals.close)
        for work, shard, trained in arrivals:
            if trained is None:
                is_incomplete = True
                continue
            tracker.add_shard(trained.runs, trained.stats, trained.device, trained.compile_seconds)
            for callback in callbacks:
                callback.on_shard(tracker, shard, trained)
            present[work].append(shard)
            has_diverged = plan.options.fail_on_nan and len(trained.diverged) > 0
            if has_diverged:
                break
            close_complete()
    if is_incomplete and not tracker.stats.has_begun.any():
        raise ClusterError("--cluster: no run could be trained; the warnings say why")
    for work in works:
        close(work, is_whole=False)
    return not works


def _shards_on_disk(
    folder: RunFolder, works: Sequence[Work], fails_on_nan: bool
) -> Iterator[tuple[Work, Shard, Trained]]:
    """Read the shards that wait in a run folder, and remove those that are of no use."""
    for name in run_folder.find_shards(folder.path):
        shard = shard_of(name)
        work = next((work for work in works if shard is not None and is_part_of(shard, work)), None)
        if shard is not None and work is not None:
            # A file that was cut off is trained again, like one that is missing.
            with suppress(InputError, KeyError, TypeError, ValueError):
                trained = unpack(*run_folder.read_shard(folder.path, name))
                is_sound = np.array_equal(trained.runs, runs_of(work, shard))
                if is_sound and not (fails_on_nan and len(trained.diverged)):
                    yield work, shard, trained
                    continue
        folder.remove_shards([name])


def plan_resumption(path: Path, *, restart: bool = False, **arguments: Any) -> tuple[Plan, Checkpoint | None]:
    """Plan what `purejaxrl.resume` would do, without changing any file.

    It warns of damaged checkpoints that are skipped, of versions that differ, and where there is nothing to go on from.

    Args:
        path: The run folder.
        restart: Whether to begin anew although there are results and no checkpoint.
        **arguments: As for `purejaxrl.experiment.plan_from_config.replan`.

    Returns:
        The Plan, and the checkpoint to start from, None if there is none.

    Raises:
        InputError: If an argument is not allowed, or results of an earlier training would be lost.
        CheckpointError: If no checkpoint is intact, or config.json differs from what it was written with.
    """
    content = read_json(path / "config.json")
    # Earlier versions could.
    if content.get("processes", 1) != 1:
        raise InputError(f"{path} was trained by {content['processes']} processes, which keep no checkpoints")
    plan = replan(content, **arguments)
    found, damaged = checkpointing.find(path)
    for wrong in damaged:
        warn(f"{wrong}; going on from the one before", stacklevel=3)
    if found is None:
        if not restart:
            check_nothing_is_lost(path)
            warn(f"{path} holds no checkpoint and no results; training begins anew", stacklevel=3)
        return plan, None
    if restart:
        raise InputError(f"--restart: {path} has a checkpoint to go on from, {found.path}; leave --restart out")
    earlier = found.metadata.get("config")
    if not isinstance(earlier, dict) or not isinstance(earlier.get("versions"), dict):
        raise CheckpointError(f"{found.path} does not say what it is a checkpoint of")
    older = {**earlier["versions"], "schema_version": earlier.get("schema_version", 0)}
    try:
        earlier = up_to_date(earlier, plan.agent)
    except InputError as error:
        raise CheckpointError(f"{found.path}: {error}") from error
    check_same(plan, earlier)
    found = found._replace(metadata={**found.metadata, "config": earlier, "schema_version": older["schema_version"]})
    current = {**versions(), "schema_version": schema.SCHEMA_VERSION}
    differing = [f"{name} {older.get(name)} -> {now}" for name, now in current.items() if older.get(name) != now]
    if differing:
        text = f"versions differ from those of the checkpoint, so the result may too: {', '.join(differing)}"
        warn(text, stacklevel=3)
    return plan, found


def check_nothing_is_lost(path: Path) -> None:
    """Check that a training that begins anew would not replace results of an earlier one.

    Args:
        path: The run folder.

    Raises:
        InputError: If it would.
    """
    results = run_folder.find_results(path)
    if run_folder.has_ended(path):
        found = "has ended and holds no checkpoint to go on from"
    elif results:
        found = f"holds {results[0]}, and no checkpoint to go on from"
    else:
        return
    raise InputError(f"{path} {found}; --restart trains anew and replaces what is there")


def train_groups(
    plan: Plan,
    local: list[jax.Device],
    should_stop: Callable[[], bool],
    note: Callable[[str], None],
    restored: Restored,
) -> Iterator[Stage]:
    """Train a Plan group after group, compiling each, and batch after batch, as they fit in memory.

    Args:
        plan: What to train.
        local: The devices.
        should_stop: Whether to stop.
        note: Shows a line to the user.
        restored: Where training continues.

    Yields:
        A Stage after every chunk.

    Raises:
        StopRequestedError: If asked to stop before or while a program is compiled.
        ResourceError: If not even one run fits, or not those that were trained side by side before an interruption.
    """
    position, resume_point = restored.position, restored.resume_point
    limit = memory_limit(plan, local)
    groups = group_settings([setting.config for setting in plan.settings])
    for turn, group in list(enumerate(groups))[position.group :]:
        setting = plan.settings[group.settings[0]]
        if is_built_in(plan.agent):
            # They look at `progress` alone, so programs of other budgets are the same.
            group = group._replace(configs=tuple(map(without_budget, group.configs)))
        whole = batch_of(group, plan.options.seeds, plan.options.seed)
        runs, config = len(whole.runs), group.configs[0]
        kept = find_kept(plan, setting, config, runs, local, limit)
        program = kept.program
        if program is None:
            about = (
                "some seconds" if kept.seconds is None else f"about {counted(max(round(kept.seconds), 1), 'second')}"
            )
            note(f"compiling (first time for this setting, {about}) ...")
            program = compile_fitting(
                plan.agent,
                setting.env,
                config,
                runs,
                setting.budget,
                local,
                memory_limit=limit,
                eval_episodes=plan.eval_episodes,
                should_stop=should_stop,
                is_checked=plan.options.debug,
                tag=kept.tag,
            )
        program = keep(kept, program, runs)
        log(
            "program %d of %d: %s side by side in %s, chunks of up to %s, compiled in %.1f s",
            turn + 1,
            len(groups),
            counted(program.width, "run"),
            mebibytes(program.memory),
            counted(program.capacity, "iteration"),
            program.compile_seconds,
        )
        begun = position if turn == position.group else BatchPosition()
        if begun.runs > program.width:
            raise ResourceError(
                f"--max_memory: the {begun.runs} runs that were trained side by side must go on so, and only "
                f"{program.width} fit in {mebibytes(limit)}"
            )
        first, second = begun.done, begun.done + begun.runs
        batches = [take(whole, slice(first, second))] if begun.runs else []
        batches += cut(take(whole, slice(second, None)), program.width)
        if len(batches) > 1:
            note(f"{len(whole.runs)} runs in {len(batches)} batches of up to {len(batches[0].runs)}")
        is_only = len(groups) == len(batches) == 1 and not first
        next_group = BatchPosition(turn + 1, is_finished=turn == len(groups) - 1)
        for batch in batches:
            chunks = fit(
                program, batch.configs, batch.seeds, eval_every=plan.options.eval_every, resume_point=resume_point
            )
            resume_point = None
            begun = BatchPosition(turn, first, len(batch.runs))
            first += len(batch.runs)
            ended = BatchPosition(turn, first) if first < len(whole.runs) else next_group
            # Without a variable of its own here: the last chunk would live on beside the next batch.
            yield from (
                Stage(
                    setting, batch, program, chunk, _position_after(begun, None if is_only else ended, chunk), is_only
                )
                for chunk in chunks
            )


def _position_after(begun: BatchPosition, ended: BatchPosition | None, chunk: Chunk) -> BatchPosition:
    """Return the position of a training after a chunk."""
    if chunk.is_last and ended is not None:
        return ended
    return begun._replace(iteration=chunk.start + chunk.length, is_finished=chunk.is_last)
