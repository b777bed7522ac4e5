"""From a Plan to a run folder: compiling, training, writing, checkpoints, and what a signal does to all that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from purejaxrl.errors import CheckpointError, DivergedError, InputError, ResourceError, log, warn
from purejaxrl.experiment import checkpointing, schema
from purejaxrl.experiment.checkpointing import Keeper, Position, Start
from purejaxrl.experiment.labels import counted, name_runs
from purejaxrl.experiment.loggers import Logger, check_loggers, listening
from purejaxrl.experiment.plan import Plan, versions
from purejaxrl.experiment.plan_from_config import check_same, replan, up_to_date
from purejaxrl.experiment.progress import Reporter, SafeReporter, Silent
from purejaxrl.experiment.tracker import Ledger, Place, Stage, failed_runs, summarize
from purejaxrl.storage import run_folder
from purejaxrl.storage.checkpoint import Checkpoint
from purejaxrl.storage.files import absolute_path, plain, read_json
from purejaxrl.storage.run_folder import RunFolder
from purejaxrl.training import devices
from purejaxrl.training.batches import batch_of, cut, group_settings, take
from purejaxrl.training.compilation import StopRequestedError, compile_fitting, mebibytes
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.loop import without_replay
from purejaxrl.training.runner import fit
from purejaxrl.training.signals import StopSignals
from purejaxrl.types import RunState


class Outcome(NamedTuple):
    """What a training leaves: its folder, what config.json and summary.json hold, and the state of its runs.

    state: None where nothing was trained, or several batches were. stopped_by: the signal that came, if one did.
    """

    path: Path
    config: dict[str, Any]
    summary: dict[str, Any]
    plan: Plan
    state: RunState | None = None
    stopped_by: int | None = None


# Writes files of what a run folder holds: (folder, config, summary), as config.json and summary.json have them.
Finisher: TypeAlias = Callable[[RunFolder, dict[str, Any], dict[str, Any]], object]


class Finishers(NamedTuple):
    """What is written once training has ended: tables before the last checkpoint, plots after everything else."""

    tables: Finisher
    plots: Finisher


def run_experiment(
    plan: Plan,
    path: Path,
    finishers: Finishers,
    *,
    overwrite: bool = False,
    progress: Any = None,
    loggers: Sequence[Logger] = (),
) -> Outcome:
    """Run a Plan in a folder of its own; see `train` and `sweep`."""
    check_loggers(loggers)
    local = devices.local_devices(plan.options.device, plan.options.devices)
    devices.warn_about_idle_cores(local, plan.options.devices, plan.runs)
    shown = SafeReporter(progress) if progress else Silent()
    with run_folder.create(path, overwrite=overwrite) as folder:
        return _run_experiment(plan, local, folder, finishers, shown, loggers)


def resume_experiment(
    path: str | Path,
    finishers: Finishers,
    *,
    progress: Any = None,
    loggers: Sequence[Logger] = (),
    **arguments: Any,
) -> Outcome:
    """Go on with the training of a run folder; see `purejaxrl.resume`. progress: (Plan) -> Reporter, if any."""
    check_loggers(loggers)
    path = absolute_path(path)
    with run_folder.open_existing(path) as folder:
        plan, found = plan_resumption(path, **arguments)
        local = devices.local_devices(plan.options.device, plan.options.devices)
        shown = SafeReporter(progress(plan)) if progress else Silent()
        # What can be refused comes before this.
        if found is None:
            folder.clear()
        return _run_experiment(plan, local, folder, finishers, shown, loggers, found)


def plan_resumption(path: Path, *, restart: bool = False, **arguments: Any) -> tuple[Plan, Checkpoint | None]:
    """What `purejaxrl.resume` would do: the Plan, and the checkpoint that it starts from, if there is one.

    restart: begin anew, although there are results and no checkpoint. Warns of damaged checkpoints that were passed
    over, and of versions that differ.
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
    found = found._replace(metadata={**found.metadata, "config": earlier})
    current = {**versions(), "schema_version": schema.SCHEMA_VERSION}
    differing = [f"{name} {older.get(name)} -> {now}" for name, now in current.items() if older.get(name) != now]
    if differing:
        text = f"versions differ from those of the checkpoint, so the result may too: {', '.join(differing)}"
        warn(text, stacklevel=3)
    return plan, found


def check_nothing_is_lost(path: Path) -> None:
    """Raise InputError where a training that begins anew would replace results of an earlier one."""
    results = run_folder.find_results(path)
    if run_folder.has_ended(path):
        found = "has ended and holds no checkpoint to go on from"
    elif results:
        found = f"holds {results[0]}, and no checkpoint to go on from"
    else:
        return
    raise InputError(f"{path} {found}; --restart trains anew and replaces what is there")


@standard_jax()
def _run_experiment(
    plan: Plan,
    local: list[jax.Device],
    folder: RunFolder,
    finishers: Finishers,
    progress: Reporter,
    loggers: Sequence[Logger],
    found: Checkpoint | None = None,
) -> Outcome:
    used = min(len(local), plan.runs)
    ledger = Ledger(plan, folder, used)
    start = checkpointing.BEGINNING if found is None else checkpointing.restore(ledger, found)
    if start.position.is_finished:
        recorded, facts = (read_json(folder.path / name) for name in ("config.json", "summary.json"))
        return Outcome(folder.path, recorded, facts, plan)
    config = plain({**plan.as_dict(), "devices": used})
    folder.write_json("config.json", config)
    log("run folder: %s", folder.path)
    log("devices: %s, %d of %d used", local[0].device_kind, used, len(local))
    keeping = Keeper(ledger, plan.options.checkpoint_every)
    keeping.begin()
    with StopSignals() as signals, listening(loggers, config, folder.path) as listeners:
        try:
            progress.start()
            try:
                for stage in train_groups(plan, local, signals.is_stopping, progress.note, start):
                    has_diverged = plan.options.fail_on_nan and len(diverged_runs(stage)) > 0
                    is_stopping = signals.is_stopping() or has_diverged
                    listeners.log(ledger.enter(stage, is_stopping))
                    # The state before it diverged is what can still be of use.
                    if not has_diverged:
                        keeping.look(stage, is_stopping)
                    progress.advance(ledger.records, ledger.seconds())
                    # A batch's arrays are to go before the next one's come.
                    del stage
                    if is_stopping:
                        break
            except StopRequestedError:
                keeping.stop()
        finally:
            progress.close()
        # Still within StopSignals: what has been learned is written whole.
        stopped_by = signals.received
        # A signal that came with the last chunk has stopped nothing.
        summary = summarize(ledger, local[0].device_kind, None if keeping.position.is_finished else stopped_by)
        folder.write_json("summary.json", summary)
        finishers.tables(folder, config, plain(summary))
        keeping.finish()
        finishers.plots(folder, config, plain(summary))
        listeners.finish(plain(summary))
    if plan.options.fail_on_nan and ledger.failed:
        shown = name_runs(sorted(ledger.failed))
        raise DivergedError(f"--fail_on_nan: training stopped as runs diverged: {shown}; see {folder.path}")
    return Outcome(folder.path, config, plain(summary), plan, ledger.state, stopped_by)


def train_groups(
    plan: Plan,
    local: list[jax.Device],
    should_stop: Callable[[], bool],
    note: Callable[[str], None],
    start: Start = checkpointing.BEGINNING,
) -> Iterator[Stage]:
    """Train a Plan: group after group, compiling each; batch after batch, as they fit in memory.

    Yields a Stage after every chunk. Raises StopRequestedError if asked to stop while compiling, and ResourceError
    where not even one run fits, or not those that were trained side by side before an interruption.
    """
    position, standing = start
    limit = int(plan.options.max_memory * 2**30) if plan.options.max_memory else devices.memory_of(local)
    groups = group_settings([setting.config for setting in plan.settings])
    for turn, group in list(enumerate(groups))[position.group :]:
        setting = plan.settings[group.settings[0]]
        whole = batch_of(group, plan.options.seeds, plan.options.seed)
        program = compile_fitting(
            plan.agent,
            setting.env,
            setting.config,
            len(whole.runs),
            setting.budget,
            local,
            memory_limit=limit,
            eval_episodes=plan.options.eval_episodes if plan.options.eval_every else None,
            should_stop=should_stop,
            is_checked=plan.options.debug,
        )
        log(
            "program %d of %d: %s side by side in %s, chunks of up to %s, compiled in %.1f s",
            turn + 1,
            len(groups),
            counted(program.width, "run"),
            mebibytes(program.memory),
            counted(program.capacity, "iteration"),
            program.compile_seconds,
        )
        begun = position if turn == position.group else Position()
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
        is_only = len(groups) == len(batches) == 1 and not begun.done
        for batch in batches:
            place = Place(turn, first, len(whole.runs) - first - len(batch.runs), turn == len(groups) - 1)
            chunks = fit(program, batch.configs, batch.seeds, eval_every=plan.options.eval_every, standing=standing)
            first, standing = first + len(batch.runs), None
            # Without a variable of its own here: the last chunk would live on beside the next batch.
            yield from (Stage(setting, batch, place, is_only, program, chunk) for chunk in chunks)


def diverged_runs(stage: Stage) -> np.ndarray:
    """The runs of a batch whose learners hold a NaN or an infinity."""
    learner = jax.tree.map(lambda leaf: leaf[: len(stage.batch.runs)], without_replay(stage.chunk.state.learner))
    return stage.batch.runs[failed_runs(learner)]
