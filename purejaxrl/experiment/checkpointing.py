"""Checkpoints of a training: when they are written, what they hold, and how a training continues from one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from purejaxrl.components.hyperparameters import BUDGETS, Budget
from purejaxrl.errors import CheckpointError, InputError, log
from purejaxrl.experiment import schema
from purejaxrl.experiment.callbacks import Callback, Content, Event
from purejaxrl.experiment.plan import Plan
from purejaxrl.experiment.presets import family_of
from purejaxrl.experiment.states import (
    KEPT,
    OPEN,
    carry_arrays,
    metrics_arrays,
    metrics_state,
    resume_point,
    with_prefix,
)
from purejaxrl.experiment.tracker import BatchPosition, RunTracker, Stage
from purejaxrl.storage import checkpoint as disk
from purejaxrl.storage.checkpoint import Checkpoint, Rows, named_leaves
from purejaxrl.storage.files import plain
from purejaxrl.storage.run_folder import RunFolder
from purejaxrl.training import metrics
from purejaxrl.training.batches import group_settings
from purejaxrl.training.compilation import shapes_of_runs
from purejaxrl.training.metrics import MetricsSpec, MetricsState, RunStats
from purejaxrl.training.runner import ResumePoint

FOLDER = "checkpoints"


class Snapshot(NamedTuple):
    """Content of a checkpoint in memory.

    Attributes:
        arrays: Arrays by name.
        facts: Other content, as JSON can hold it.
    """

    arrays: dict[str, Any]
    facts: dict[str, Any]


class Checkpointer(Callback):
    """Writes checkpoints every few minutes, after every batch, where training stops, and at its end.

    It writes none if the interval is 0.
    """

    def __init__(
        self,
        folder: RunFolder,
        minutes: float,
        deferring: Callable[[], AbstractContextManager[None]],
        begins_at: BatchPosition | None = None,
    ) -> None:
        """Initialize the writer of a run folder's checkpoints.

        Args:
            folder: The run folder.
            minutes: The interval.
            deferring: Makes a context manager that defers signals while a checkpoint is written.
            begins_at: Position of which a checkpoint is written at the start, so that what workers have trained can be
                used however soon the process ends; None for none.
        """
        self.folder, self.minutes, self.deferring, self.begins_at = folder, minutes, deferring, begins_at
        self.path = folder.path / FOLDER
        self.written = time.monotonic()
        # What is to be written at the end of the training, once summary.json is.
        self.pending: Snapshot | None = None

    def on_start(self, tracker: RunTracker, config: Content) -> None:
        """Remove the remains of an interrupted checkpoint, and write one of the beginning where that is asked for.

        Args:
            tracker: State of the training.
            config: Content of config.json.

        Raises:
            ResourceError: If they cannot be removed, or it cannot be written.
        """
        disk.remove_leftovers(self.path)
        if self.begins_at is not None:
            self.write(self.snapshot(tracker, self.begins_at))

    def on_chunk(self, event: Event) -> None:
        """Write a checkpoint within a batch if one is due, or keep the end of a training that can be extended.

        Args:
            event: The chunk.
        """
        self.pending = None
        if event.has_diverged:
            # The state before is what can still be of use.
            self.minutes = 0.0
        elif event.stage.position.is_finished:
            self.pending = (
                self.snapshot(event.tracker, event.stage.position, event.stage) if event.stage.is_only else None
            )
        elif event.stage.position.runs and self.is_due(event):
            self.write(self.snapshot(event.tracker, event.stage.position, event.stage))

    def on_batch_end(self, event: Event) -> None:
        """Write a checkpoint between batches, or keep its content after the last one.

        However the process ends, batches that have ended are not trained again. The checkpoint is small, as it holds no
        states.

        Args:
            event: The last chunk of the batch.
        """
        position = event.stage.position
        if position.runs:
            return
        between = self.snapshot(event.tracker, position)
        if position.is_finished:
            self.pending = between
        else:
            self.write(between)

    def on_end(self, summary: Content) -> None:
        """Write the checkpoint that was kept for the end of the training.

        Args:
            summary: Content of summary.json.
        """
        self.write(self.pending)

    def is_due(self, event: Event) -> bool:
        """Check whether a checkpoint is due.

        Args:
            event: The chunk.

        Returns:
            Whether training stops, or the interval has passed since the last checkpoint.
        """
        return event.is_stopping or time.monotonic() - self.written >= 60 * self.minutes

    def snapshot(self, tracker: RunTracker, position: BatchPosition, stage: Stage | None = None) -> Snapshot | None:
        """Collect the content of a checkpoint, with the states of the current batch unless it has ended.

        Args:
            tracker: State of the training.
            position: Its position.
            stage: The training after a chunk, None between batches.

        Returns:
            The content, None where no checkpoints are written.
        """
        if not self.minutes:
            return None
        arrays: dict[str, Any] = {f"records/{name}": array.copy() for name, array in tracker.stats._asdict().items()}
        if stage is not None:
            arrays |= _batch_arrays(tracker, stage)
        is_between = not position.runs
        facts = {
            "config": plain(tracker.plan.as_dict()),
            "position": position._asdict(),
            "files": self.folder.logs.positions(),
            "tails": {},
            # What the batch at hand counts again when it goes on is left out.
            "ledger": {
                "failed": [*tracker.failed],
                "batches": tracker.batches - (not is_between),
                "programs": tracker.programs - (not (is_between and position.done == 0)),
                "compile_seconds": tracker.compile_seconds,
                "run_seconds": tracker.run_seconds,
                "tallies": metrics.pack_tallies(tracker.tallies),
            },
        }
        return Snapshot(arrays, facts)

    def write(self, snapshot: Snapshot | None) -> None:
        """Write a checkpoint to the run folder.

        Args:
            snapshot: Its content, None to write nothing.

        Raises:
            ResourceError: If it cannot be written.
        """
        if snapshot is None:
            return
        started = time.monotonic()
        with self.deferring():
            disk.write(self.path, snapshot.arrays, snapshot.facts)
        self.written = time.monotonic()
        log("checkpoint in %s, written in %.2f s", self.path, self.written - started)


def _batch_arrays(tracker: RunTracker, stage: Stage) -> dict[str, Any]:
    """Collect the states, best params and metrics of a batch."""
    count = len(stage.batch.runs)
    assert tracker.metrics is not None
    carry = carry_arrays(stage.chunk.state, stage.chunk.best)
    return {name: Rows(leaf, count) for name, leaf in carry.items()} | metrics_arrays(tracker.metrics)


def find(path: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest intact checkpoint of a run folder.

    Args:
        path: The run folder.

    Returns:
        The checkpoint, None if there is none, and what is wrong with newer ones.

    Raises:
        CheckpointError: If no checkpoint is intact.
    """
    return disk.newest(path / FOLDER)


class Restored(NamedTuple):
    """State from which a training continues.

    Attributes:
        position: Its position in the Plan.
        resume_point: State of the current batch, None between batches.
        tails: Text that follows what its CSV files held, by file.
    """

    position: BatchPosition = BatchPosition()
    resume_point: ResumePoint | None = None
    tails: Mapping[str, str] = MappingProxyType({})


def restore(tracker: RunTracker, folder: RunFolder, found: Checkpoint) -> Restored:
    """Restore a tracker from a checkpoint without changing any file.

    Args:
        tracker: A new tracker. Its Plan is the checkpoint's, except for what may change: a larger budget is an
            extension.
        folder: The run folder.
        found: The checkpoint, its config migrated to the current schema version.

    Returns:
        Where training continues.

    Raises:
        CheckpointError: If checkpoint and Plan do not belong together.
        InputError: If the training cannot be extended.
    """
    plan = tracker.plan
    with _describing(found):
        facts = found.metadata
        position = BatchPosition(**facts["position"])
        is_sound = all(isinstance(value, int) and value >= 0 for value in position)
        if not is_sound or position.done + position.runs > plan.runs:
            raise ValueError("its position")
        budget_before = _budgets_in(facts["config"])
        is_extended = budget_before != _budgets_in(plain(plan.as_dict()))
    if is_extended and position.runs != plan.runs:
        raise InputError("--extend: this training was cut into batches, whose states are not kept; train anew")
    template = {f"records/{name}": values for name, values in RunStats.empty(plan.runs)._asdict().items()}
    if "records/recent_return" not in facts["arrays"]:
        # Earlier versions did not record it.
        del template["records/recent_return"]
    shapes = batch_shapes(plan, position) if position.runs else (None, None)
    if position.runs:
        template |= _batch_template(shapes, position.runs, facts["arrays"])
    if facts["schema_version"] < 2:
        found = _with_present_names(found, template, family_of(plan.agent))
    arrays = disk.read(found, template)
    with _describing(found):
        state = metrics_state(arrays) if position.runs else None
        records = with_prefix(arrays, "records/")
        stats = RunStats(**{"recent_return": records["return_100"].copy(), **records})
        folder.logs.verify(facts["files"])
        tails = {name: str(text) for name, text in facts["tails"].items()}
        point = None
        if position.runs:
            point = resume_point(shapes, position.iteration, arrays)
            if is_extended:
                assert state is not None
                point, state = extend(point, state, plan.settings[0].budget)
                stats = stats._replace(is_over=state.is_over.copy())
        tracker.restore(facts["ledger"], stats, state)
    return Restored(position._replace(is_finished=position.is_finished and not is_extended), point, tails)


def _with_present_names(found: Checkpoint, template: Mapping[str, Any], family: str) -> Checkpoint:
    """Map the array names of a checkpoint of schema version 0 or 1 to their current names, see `schema.RENAMED`.

    Such a checkpoint held whole learners among the best, of which only the params are read.
    """
    names = {}
    for name in template:
        if name.startswith("state/learner/"):
            names[name] = f"state/learner/{schema.earlier_name(name.removeprefix('state/learner/'), family)}"
        elif name.startswith("best/params/"):
            names[name] = f"best/learner/{schema.earlier_name(name.removeprefix('best/'), family)}"
    wanted = set(names.values())
    arrays = {
        name: form
        for name, form in found.metadata["arrays"].items()
        if name in wanted or not name.startswith("best/learner/")
    }
    return found._replace(metadata={**found.metadata, "arrays": arrays}, renamed=names)


def _budgets_in(config: Mapping[str, Any]) -> Any:
    """Collect the budgets in the content of config.json."""
    return [[fields.get(name) for name in BUDGETS] for fields in (config["config"], *config.get("settings", []))]


def _batch_template(shapes: Any, runs: int, found: Mapping[str, str]) -> dict[str, Any]:
    """Return the names and shapes of the arrays that a checkpoint holds of a batch.

    The sums of the open logging interval depend on the metrics that the agent reports, so their names are taken from
    the checkpoint.
    """
    state, best = shapes
    blank = metrics.init(MetricsSpec(np.arange(runs), np.arange(runs), 1, 1, None, None))
    template = named_leaves(state, "state/") | named_leaves(best, "best/")
    template |= {f"recorder/{name}": getattr(blank, name) for name in KEPT}
    if "recorder/is_open" not in found:
        # Schema version 1 handed out rows as soon as their interval was complete.
        del template["recorder/is_open"]
    sums = [name for name in found if name.startswith(f"recorder/{OPEN}")]
    return template | dict.fromkeys(sums, np.zeros(runs))


def batch_shapes(plan: Plan, position: BatchPosition) -> Any:
    """Compute the shapes of the state and the best params of the batch at a position.

    Args:
        plan: What is trained.
        position: The position in the plan.

    Returns:
        Shapes of the state, and of the best params, None where these are not kept.

    Raises:
        CheckpointError: If the plan has no such position.
    """
    groups = group_settings([setting.config for setting in plan.settings])
    if position.group >= len(groups):
        raise CheckpointError(f"checkpoint: its group {position.group} is not one of {len(groups)}")
    setting = plan.settings[groups[position.group].settings[0]]
    keeps_best = plan.options.eval_every is not None
    return shapes_of_runs(plan.agent, setting.env, setting.config, setting.budget, keeps_best, position.runs)


def extend(point: ResumePoint, metrics: MetricsState, budget: Budget) -> tuple[ResumePoint, MetricsState]:
    """Let runs that had used up a budget of episodes continue with a larger one.

    Each continues from its learner as it was then. The clock has advanced with the other runs of the batch, so its next
    episode begins later than its last one ended. Budgets of epochs and env steps end with the clock alone; there
    nothing needs to be changed.

    Args:
        point: State of the batch.
        metrics: Its metrics.
        budget: The larger budget.

    Returns:
        The state and the metrics with which training continues.
    """
    if budget.kind != "episodes":
        return point, metrics
    finished = np.asarray(point.state.episode.finished)
    goes_on = finished < budget.amount
    if budget.stop_at is not None:
        goes_on &= metrics.solved_at_steps < 0
    metrics = metrics._replace(
        is_over=metrics.is_over & ~goes_on,
        # Episodes beyond the old budget, which ended in the same iteration, have no rows.
        episodes=np.where(goes_on, finished, metrics.episodes),
    )
    state = point.state._replace(active=np.asarray(point.state.active) | goes_on)
    return point._replace(state=state), metrics


@contextmanager
def _describing(found: Checkpoint) -> Iterator[None]:
    """Report content that does not describe a training as a CheckpointError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise CheckpointError(f"{found.path} does not describe this training: {error!r}") from error
