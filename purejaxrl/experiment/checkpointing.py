"""Checkpoints of a training: when one is written, what it holds, and how a training goes on from it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxrl.components.hyperparameters import BUDGETS, Budget
from purejaxrl.errors import CheckpointError, InputError, log
from purejaxrl.experiment.plan import Plan
from purejaxrl.experiment.tracker import Ledger, Snapshot, Stage
from purejaxrl.storage import checkpoint as disk
from purejaxrl.storage.checkpoint import Checkpoint, Rows, named_leaves
from purejaxrl.storage.files import plain
from purejaxrl.training.batches import group_settings
from purejaxrl.training.compilation import shapes_of_runs
from purejaxrl.training.metrics import KEPT, OPEN, Recorder, Records
from purejaxrl.training.runner import Standing

FOLDER = "checkpoints"


class Position(NamedTuple):
    """Where in a Plan a training stands: its group of settings, and the runs of earlier batches of that group.

    runs: of the batch that is being trained, 0 between batches; iteration: of that batch. is_finished: nothing is left.
    """

    group: int = 0
    done: int = 0
    runs: int = 0
    iteration: int = 0
    is_finished: bool = False


class Start(NamedTuple):
    """Where a training goes on, and what its batch was at, if it was at one."""

    position: Position
    standing: Standing | None


BEGINNING = Start(Position(), None)


class Keeper:
    """Writes the checkpoints of a training, every so many minutes and when it ends; none if that is 0."""

    def __init__(self, ledger: Ledger, minutes: float) -> None:
        self.ledger = ledger
        self.minutes = minutes
        self.path = ledger.folder.path / FOLDER
        self.written = time.monotonic()
        self.last: Stage | None = None
        self.position = Position()

    def begin(self) -> None:
        """Bring the folder to where training begins or goes on. Raises ResourceError where that fails."""
        disk.remove_leftovers(self.path)
        self.ledger.begin()

    def look(self, stage: Stage, is_stopping: bool) -> None:
        """Note where the training stands after a chunk that the ledger has entered, and save that if it is time."""
        self.position = position_after(stage)
        # A training of one batch can be extended, so its end is kept until everything else has been written.
        self.last = stage if stage.is_only and self.position.is_finished else None
        is_due = is_stopping or time.monotonic() - self.written >= 60 * self.minutes
        if is_due and not self.position.is_finished:
            self.save(stage if self.position.runs else None)

    def stop(self) -> None:
        """Save a training that was stopped between two batches, while the next one's program was compiled."""
        # Else nothing has been entered since the checkpoint that the training went on from.
        if self.position != Position():
            self.save(None)

    def finish(self) -> None:
        """Save the end of a training that has come to it."""
        if self.position.is_finished:
            self.save(self.last)

    def save(self, stage: Stage | None) -> None:
        """Write a checkpoint; with the states of a stage's batch, if it is not between batches.

        Raises ResourceError where it cannot be written.
        """
        if not self.minutes:
            return
        ledger, position = self.ledger, self.position
        snapshot = ledger.snapshot(stage)
        arrays: dict[str, Any] = {f"records/{name}": values for name, values in snapshot.records._asdict().items()}
        if stage is not None:
            arrays |= arrays_of(stage, snapshot)
        facts = {
            "config": plain(ledger.plan.as_dict()),
            "position": position._asdict(),
            "files": snapshot.files,
            "tails": snapshot.tails,
            "ledger": ledger.facts(snapshot, is_between=not position.runs, begins_group=position.done == 0),
        }
        started = time.monotonic()
        disk.write(self.path, arrays, facts)
        self.written = time.monotonic()
        log("checkpoint in %s, written in %.2f s", self.path, self.written - started)


def position_after(stage: Stage) -> Position:
    """Where a training stands after a stage."""
    place, runs, iteration = stage.place, len(stage.batch.runs), stage.chunk.start + stage.chunk.length
    if not stage.chunk.is_over.all():
        return Position(place.group, place.before, runs, iteration)
    if stage.is_only:
        return Position(place.group, place.before, runs, iteration, is_finished=True)
    if place.after:
        return Position(place.group, place.before + runs)
    return Position(place.group + 1, is_finished=place.is_last_group)


def arrays_of(stage: Stage, snapshot: Snapshot) -> dict[str, Any]:
    """State, best learners and recorder of a batch, by name."""
    count = len(stage.batch.runs)
    carry = named_leaves(stage.chunk.state, "state/") | named_leaves(snapshot.best, "best/")
    recorded = {} if snapshot.recorder is None else snapshot.recorder.arrays()
    return {name: Rows(leaf, count) for name, leaf in carry.items()} | {f"recorder/{k}": v for k, v in recorded.items()}


def find(path: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint of a run folder, and what is wrong with newer ones. Raises CheckpointError."""
    return disk.newest(path / FOLDER)


def restore(ledger: Ledger, found: Checkpoint) -> Start:
    """Bring the ledger to where a checkpoint was written, and return where training goes on. No file is changed yet.

    The ledger's Plan is the checkpoint's, but for what may change: a larger budget is an extension.
    Raises CheckpointError where checkpoint and Plan do not belong together, InputError where that cannot be extended.
    """
    plan = ledger.plan
    with _describing(found):
        facts = found.metadata
        position = Position(**facts["position"])
        is_sound = all(isinstance(value, int) and value >= 0 for value in position)
        if not is_sound or position.done + position.runs > plan.runs:
            raise ValueError("its position")
        budget_before = budget_in(facts["config"])
        is_extended = budget_before != budget_in(plain(plan.as_dict()))
    if is_extended and position.runs != plan.runs:
        raise InputError("--extend: this training was cut into batches, whose states are not kept; train anew")
    template = records_template(plan.runs)
    shapes = shapes_at(plan, position) if position.runs else (None, None)
    if position.runs:
        template |= batch_template(shapes, position.runs, found.metadata["arrays"])
    arrays = disk.read(found, template)
    with _describing(found):
        ledger.restore(facts["ledger"], with_prefix(arrays, "records/"), with_prefix(arrays, "recorder/"))
        ledger.folder.logs.verify(facts["files"])
        ledger.tails = {name: str(text) for name, text in facts["tails"].items()}
    if not position.runs:
        return Start(position, None)
    standing = standing_of(shapes, position, arrays)
    if is_extended:
        standing = extend(ledger, standing, plan.settings[0].budget)
    return Start(position._replace(is_finished=position.is_finished and not is_extended), standing)


def budget_in(config: Mapping[str, Any]) -> Any:
    """The budgets among what config.json holds."""
    return [[fields.get(name) for name in BUDGETS] for fields in (config["config"], *config.get("settings", []))]


def records_template(runs: int) -> dict[str, Any]:
    """Names and shapes of Records."""
    return {f"records/{name}": values for name, values in Records.empty(runs)._asdict().items()}


def batch_template(shapes: Any, runs: int, found: Mapping[str, str]) -> dict[str, Any]:
    """Names and shapes of what a checkpoint holds of a batch whose state and best have these shapes.

    What the open logging interval sums depends on what the agent reports, so its names are those `found`.
    """
    state, best = shapes
    blank = Recorder(np.arange(runs), np.arange(runs), 1, 1, None, None).arrays()
    template = named_leaves(state, "state/") | named_leaves(best, "best/")
    template |= {f"recorder/{name}": blank[name] for name in KEPT}
    sums = [name for name in found if name.startswith(f"recorder/{OPEN}")]
    return template | dict.fromkeys(sums, np.zeros(runs))


def shapes_at(plan: Plan, position: Position) -> Any:
    """Shapes of state and best of the batch at a position."""
    groups = group_settings([setting.config for setting in plan.settings])
    if position.group >= len(groups):
        raise CheckpointError(f"checkpoint: its group {position.group} is not one of {len(groups)}")
    setting = plan.settings[groups[position.group].settings[0]]
    keeps_best = plan.options.eval_every is not None
    return shapes_of_runs(plan.agent, setting.env, setting.config, setting.budget, keeps_best, position.runs)


def standing_of(shapes: Any, position: Position, arrays: Mapping[str, np.ndarray]) -> Standing:
    """The batch's states and best learners from arrays by name."""
    trees = []
    for tree, prefix in zip(shapes, ("state/", "best/"), strict=True):
        names = named_leaves(tree, prefix)
        trees.append(jax.tree.unflatten(jax.tree.structure(tree), [arrays[name] for name in names]))
    return Standing(trees[0], trees[1], position.iteration)


def extend(ledger: Ledger, standing: Standing, budget: Budget) -> Standing:
    """Let runs that had used up a budget of episodes go on with a larger one, from the learner as it was then.

    The clock has gone on with the other runs of the batch, so their next episode begins later than their last ended.
    Budgets of epochs and env steps end with the clock alone; there nothing needs to be changed.
    """
    if budget.kind != "episodes":
        return standing
    recorder, finished = ledger.resumed, np.asarray(standing.state.episode.finished)
    goes_on = finished < budget.amount
    if budget.stop_at is not None:
        goes_on &= recorder["solved_at_steps"] < 0
    recorder["is_over"] = recorder["is_over"] & ~goes_on
    # Episodes beyond the old budget, which ended in the same iteration, have no rows.
    recorder["episodes"] = np.where(goes_on, finished, recorder["episodes"])
    return standing._replace(state=standing.state._replace(active=np.asarray(standing.state.active) | goes_on))


def with_prefix(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays of one part, under their names there."""
    return {name.removeprefix(prefix): values for name, values in arrays.items() if name.startswith(prefix)}


@contextmanager
def _describing(found: Checkpoint) -> Iterator[None]:
    """Facts that do not describe a training are those of no checkpoint of ours."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise CheckpointError(f"{found.path} does not describe this training: {error!r}") from error
