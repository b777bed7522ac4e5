"""Running a Plan in a run folder: compiling, training, and stopping at a signal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax

from purejaxrl.components.hyperparameters import field_specs, without_budget
from purejaxrl.errors import CheckpointError, DivergedError, InputError, ResourceError, log, warn
from purejaxrl.experiment import checkpointing, schema
from purejaxrl.experiment.callbacks import Content, Event, FileWriter, Finisher, Logging, ProgressDisplay
from purejaxrl.experiment.checkpointing import Checkpointer, Restored
from purejaxrl.experiment.labels import counted, name_runs
from purejaxrl.experiment.loggers import Listeners, Logger
from purejaxrl.experiment.plan import Plan, is_built_in, versions
from purejaxrl.experiment.plan_from_config import check_same, replan, up_to_date
from purejaxrl.experiment.progress import Reporter, SafeReporter, Silent
from purejaxrl.experiment.tracker import BatchPosition, RunTracker, Stage, diverged_runs, summarize
from purejaxrl.storage import run_folder
from purejaxrl.storage.cache import find_text, keep_text
from purejaxrl.storage.checkpoint import Checkpoint
from purejaxrl.storage.files import plain, read_json
from purejaxrl.storage.run_folder import RunFolder
from purejaxrl.training import devices
from purejaxrl.training.batches import batch_of, cut, group_settings, take
from purejaxrl.training.compilation import StopRequestedError, compile_fitting, mebibytes
from purejaxrl.training.compilation_cache import is_enabled
from purejaxrl.training.executables import find_file, load_program, save_program
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.programs import find_program, keep_program, program_key
from purejaxrl.training.runner import Chunk, fit
from purejaxrl.training.signals import StopSignals
from purejaxrl.types import Agent, Env, RunState


class Outcome(NamedTuple):
    """Outcome of a training.

    Attributes:
        path: The run folder.
        config: Content of config.json.
        summary: Content of summary.json.
        plan: What was trained.
        state: States of the runs, None where nothing was trained, or several batches were.
        stopped_by: Number of the signal that stopped it before its end, None if none did.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    plan: Plan
    state: RunState | None = None
    stopped_by: int | None = None


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
) -> Outcome:
    """Train a Plan and write its run folder; a signal stops it, and everything learned so far is kept.

    Args:
        plan: What to train.
        folder: The run folder, locked.
        write_results: Writes tables and figures, once everything else and the last checkpoint are on the disk.
        progress: Shows the progress of training, None to show nothing.
        loggers: Additional destinations for metrics.
        found: The checkpoint to continue from, None for the beginning.

    Returns:
        The outcome of the training.

    Raises:
        CheckpointError: If checkpoint and Plan do not belong together.
        ResourceError: If disk or memory do not suffice.
        DivergedError: If a run diverges, with `fail_on_nan` or `debug`.
    """
    local = devices.local_devices(plan.options.device, plan.options.devices)
    used = min(len(local), plan.runs)
    tracker = RunTracker(plan, used)
    restored = Restored() if found is None else checkpointing.restore(tracker, folder, found)
    if restored.position.is_finished:
        config, summary = (read_json(folder.path / name) for name in ("config.json", "summary.json"))
        # The process may have ended between the last checkpoint and these.
        write_results(folder, config, summary)
        return Outcome(folder.path, config, summary, plan)
    if found is None:
        # What can be refused comes before this.
        folder.clear()
    config = plain({**plan.as_dict(), "devices": used})
    log("run folder: %s", folder.path)
    log("devices: %s, %d of %d used", local[0].device_kind, used, len(local))
    reporter = SafeReporter(progress) if progress else Silent()
    signals = StopSignals()
    # Data first, then the checkpoint, then what can be made from the data again.
    callbacks = [
        FileWriter(folder, restored.tails),
        Logging(folder, Listeners(loggers)),
        Checkpointer(folder, plan.options.checkpoint_every, signals.deferring),
        ProgressDisplay(reporter),
        Finisher(folder, write_results),
    ]
    is_finished = False
    with signals, ExitStack() as closing:
        for callback in callbacks:
            closing.callback(callback.on_close)
            callback.on_start(tracker, config)
        with suppress(StopRequestedError):
            for stage in train_groups(plan, local, signals.is_stopping, reporter.note, restored):
                rows = tracker.record(stage)
                has_diverged = plan.options.fail_on_nan and len(diverged_runs(stage)) > 0
                is_stopping = signals.is_stopping() or has_diverged
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
        stopped_by = None if is_finished else signals.received
        summary = plain(summarize(tracker, local[0].device_kind, stopped_by))
        for callback in callbacks:
            callback.on_end(summary)
    if plan.options.fail_on_nan and tracker.failed:
        shown = name_runs(sorted(tracker.failed))
        raise DivergedError(f"--fail_on_nan: training stopped as runs diverged: {shown}; see {folder.path}")
    return Outcome(folder.path, config, summary, plan, tracker.state, stopped_by)


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
            _check_nothing_is_lost(path)
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


def _check_nothing_is_lost(path: Path) -> None:
    """Check that a training that begins anew would not replace results of an earlier one."""
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
    limit = int(plan.options.max_memory * 2**30) if plan.options.max_memory else devices.memory_of(local)
    groups = group_settings([setting.config for setting in plan.settings])
    for turn, group in list(enumerate(groups))[position.group :]:
        setting = plan.settings[group.settings[0]]
        if is_built_in(plan.agent):
            # They look at `progress` alone, so programs of other budgets are the same.
            group = group._replace(configs=tuple(map(without_budget, group.configs)))
        whole = batch_of(group, plan.options.seeds, plan.options.seed)
        runs, config = len(whole.runs), group.configs[0]
        eval_episodes = plan.options.eval_episodes if plan.options.eval_every else None
        key = None
        if not plan.options.debug:
            key = program_key(plan.agent, setting.env, config, runs, setting.budget, local[:runs], eval_episodes)
        program, file = find_program(key, setting.budget, limit), None
        is_new = program is None
        if program is None and _is_of_the_package(plan, config):
            file = find_file(key, local[:runs])
            program = load_program(file, plan.agent, setting.env, config, setting.budget, local, limit)
        if program is None:
            kept, seconds = _last_compilation(plan.agent, setting.env, local[0])
            about = "some seconds" if seconds is None else f"about {counted(max(round(seconds), 1), 'second')}"
            note(f"compiling (first time for this setting, {about}) ...")
            program = compile_fitting(
                plan.agent,
                setting.env,
                config,
                runs,
                setting.budget,
                local,
                memory_limit=limit,
                eval_episodes=eval_episodes,
                should_stop=should_stop,
                is_checked=plan.options.debug,
                tag=None if file is None else file.tag,
            )
            program = save_program(file, program, runs)
            if kept is not None:
                keep_text(kept, f"{program.compile_seconds:.1f}")
        if is_new:
            keep_program(key, program, runs)
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


def _last_compilation(agent: Agent, env: Env, device: jax.Device) -> tuple[Path | None, float | None]:
    """Return the file that tells how many seconds such a program took to compile the last time, and what it tells."""
    if not is_enabled():
        return None, None
    kept, text = find_text(compiled=agent.name, dimensions=len(env.input_shape), device=device.device_kind)
    return kept, None if text is None else float(text)


def _is_of_the_package(plan: Plan, config: Any) -> bool:
    """Check that agent, environment and networks are the package's own, so that their names tell what they are."""
    has_objects = any(
        spec.is_object and getattr(config, name) is not None for name, spec in field_specs(config).items()
    )
    is_named = isinstance(plan.options.env, str) and plan.options.renderer is None
    return is_built_in(plan.agent) and is_named and not has_objects


def _position_after(begun: BatchPosition, ended: BatchPosition | None, chunk: Chunk) -> BatchPosition:
    """Return the position of a training after a chunk."""
    if chunk.is_last and ended is not None:
        return ended
    return begun._replace(iteration=chunk.start + chunk.length, is_finished=chunk.is_last)
