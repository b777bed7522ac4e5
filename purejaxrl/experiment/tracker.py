"""What is known of a training so far, and the files that it is written to."""

from __future__ import annotations

import copy
import signal
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxrl.experiment.labels import columns_of
from purejaxrl.experiment.plan import Plan, Training, recorded, versions
from purejaxrl.experiment.progress import extent_of
from purejaxrl.storage.checkpoint import named_leaves
from purejaxrl.storage.run_folder import RunFolder
from purejaxrl.training.batches import Batch
from purejaxrl.training.compilation import Program
from purejaxrl.training.evaluation import Best
from purejaxrl.training.loop import without_replay
from purejaxrl.training.metrics import EPISODE_COLUMNS, Recorder, Records, Table, Tally, absorb_tallies, pack_tallies
from purejaxrl.training.runner import Chunk, Onward
from purejaxrl.types import PyTree, RunState


class Place(NamedTuple):
    """Where in a Plan a batch stands: its group, and how many of the group's runs come before and after it."""

    group: int
    before: int
    after: int
    is_last_group: bool


class Stage(NamedTuple):
    """Where a training stands after a chunk of one batch of runs. is_only: whether no other batch belongs to it."""

    setting: Training
    batch: Batch
    place: Place
    is_only: bool
    program: Program
    chunk: Chunk


class Snapshot(NamedTuple):
    """What a checkpoint needs of a ledger. files: how far they were written; tails: rows that then belong to them."""

    records: Records
    recorder: Recorder | None
    best: Best | None
    files: dict[str, dict[str, Any]]
    tails: dict[str, str]


class Ledger:
    """Everything that is known of a training so far, and its files: chunk after chunk is entered.

    Of the learners only those of a single batch are kept; those of several are written and let go.
    """

    def __init__(self, plan: Plan, folder: RunFolder, devices: int) -> None:
        self.plan, self.folder, self.devices = plan, folder, devices
        self.records = Records.empty(plan.runs)
        self.tallies: dict[str, Tally] = {}
        self.failed: list[int] = []
        self.swept = columns_of(setting.values for setting in plan.settings)
        self.batch: Batch | None = None
        # What a Recorder that went on with this training had kept, until the batch at hand begins.
        self.resumed: Table = {}
        self.tails: dict[str, str] = {}
        self.onward: Snapshot | None = None
        self.recorder: Recorder | None = None
        self.program: Program | None = None
        self.batches = self.programs = 0
        self.state: RunState | None = None
        self.best: Best | None = None
        self.started = time.perf_counter()
        self.compile_seconds = self.run_seconds = 0.0

    def begin(self) -> None:
        """Bring the files to where the training begins or goes on; rows written after that are dropped."""
        self.folder.logs.rewind()
        for name, text in self.tails.items():
            self.folder.logs.append_text(name, text)
        if self.plan.options.episodes_log == "on" and "episodes.csv" not in self.folder.logs:
            self.folder.logs.append("episodes.csv", self._with_swept(dict.fromkeys(EPISODE_COLUMNS, np.empty(0))))

    def snapshot(self, stage: Stage | None) -> Snapshot:
        """What has been entered by now, as if training goes on; without the batch at hand where there is no stage."""
        if stage is None:
            return Snapshot(self.records, None, None, self.folder.logs.positions(), {})
        if self.onward is not None:
            return self.onward
        return Snapshot(self.records, self.recorder, stage.chunk.best, self.folder.logs.positions(), {})

    def facts(self, snapshot: Snapshot, *, is_between: bool, begins_group: bool) -> dict[str, Any]:
        """What a checkpoint holds beside arrays. What the batch at hand counts again when it goes on is left out."""
        tallies = self.tallies if snapshot.recorder is None else snapshot.recorder.tallies
        return {
            "failed": self.failed,
            "batches": self.batches - (not is_between),
            "programs": self.programs - (not (is_between and begins_group)),
            "compile_seconds": self.compile_seconds,
            "run_seconds": self.run_seconds,
            "tallies": pack_tallies(tallies),
        }

    def restore(self, facts: dict[str, Any], records: Table, recorder: Table) -> None:
        """Take in what another ledger of this training had found. `recorder` waits for its batch."""
        self.records = Records(**records)
        self.resumed = recorder
        self.failed = [int(run) for run in facts["failed"]]
        self.batches, self.programs = int(facts["batches"]), int(facts["programs"])
        self.compile_seconds, self.run_seconds = float(facts["compile_seconds"]), float(facts["run_seconds"])
        absorb_tallies(self.tallies, facts["tallies"])
        self.started = time.perf_counter() - self.compile_seconds - self.run_seconds

    def enter(self, stage: Stage, is_stopping: bool) -> Table:
        """Record a chunk, and the learners where it is its batch's last. Returns what it adds to metrics.csv."""
        if self.recorder is None or stage.batch is not self.batch:
            self.batch, self.recorder = stage.batch, recorder_of(stage, self.tallies)
            if self.resumed:
                self.recorder.restore(self.resumed)
                self.resumed = {}
            self.batches += 1
        if stage.program is not self.program:
            self.program = stage.program
            self.programs += 1
            self.compile_seconds += stage.program.compile_seconds
        chunk, is_last = stage.chunk, is_stopping or bool(stage.chunk.is_over.all())
        self.onward = self._look_onward(stage) if is_last else None
        tables = self.recorder.add(chunk.start, chunk.log, chunk.eval_return, chunk.is_over, is_stopping)
        for name, text in self._texts(*tables).items():
            self.folder.logs.append_text(name, text)
        self._note_records(self.records, self.recorder)
        if is_last:
            self._keep_learners(stage)
        self.run_seconds = self.seconds()
        return self._with_swept(tables[1])

    def _look_onward(self, stage: Stage) -> Snapshot:
        """The snapshot after a chunk as if neither the training nor its budget ended with it."""
        recorder, records = copy.deepcopy((self.recorder, self.records))
        assert recorder is not None
        chunk = stage.chunk
        seen = chunk.onward or Onward(chunk.eval_return, chunk.is_over, chunk.best)
        tables = recorder.add(chunk.start, chunk.log, seen.eval_return, seen.is_over)
        self._note_records(records, recorder)
        return Snapshot(records, recorder, seen.best, self.folder.logs.positions(), self._texts(*tables))

    def _texts(self, episodes: Table, metrics: Table) -> dict[str, str]:
        """Rows as they shall stand in files, by file."""
        wanted = {"episodes.csv": self.plan.options.episodes_log == "on", "metrics.csv": len(metrics["run"]) > 0}
        tables = {"episodes.csv": episodes, "metrics.csv": metrics}
        return {name: self.folder.logs.format(name, self._with_swept(tables[name])) for name in tables if wanted[name]}

    @staticmethod
    def _note_records(records: Records, recorder: Recorder) -> None:
        for whole, part in zip(records, recorder.records(), strict=True):
            whole[recorder.runs] = part

    def seconds(self) -> float:
        """How long training has gone on by now, compiling apart."""
        return time.perf_counter() - self.started - self.compile_seconds

    def _with_swept(self, table: Table) -> Table:
        """A table of runs with the swept hyperparameters beside it; as swept_NAME where it has a NAME already."""
        settings = table["run"].astype(np.int64) // self.plan.options.seeds
        columns = {name: values[settings] for name, values in self.swept.items()}
        return table | {f"swept_{name}" if name in table else name: values for name, values in columns.items()}

    def _keep_learners(self, stage: Stage) -> None:
        """Write the last and, if there were evaluations, the best learners [runs, ...] to params/."""
        runs = stage.batch.runs
        whole = (without_replay(stage.chunk.state.learner), stage.chunk.best)
        learner, best = jax.tree.map(lambda leaf: leaf[: len(runs)], whole)
        self.failed += runs[failed_runs(learner)].tolist()
        suffix = "" if stage.is_only else f"-{self.batches}"
        facts = {"algorithm": self.plan.agent.name, "runs": runs}
        self.folder.write_params("last" + suffix, host_leaves(learner), facts)
        if best is not None:
            facts["eval_return"] = np.asarray(best.eval_return)
            self.folder.write_params("best" + suffix, host_leaves(best.learner), facts)
        if stage.is_only:
            self.state, self.best = jax.tree.map(lambda leaf: leaf[: len(runs)], stage.chunk.state), best


def recorder_of(stage: Stage, tallies: dict[str, Tally]) -> Recorder:
    """A Recorder for the runs of a batch."""
    budget = stage.setting.budget
    return Recorder(
        stage.batch.runs,
        stage.batch.seeds,
        stage.setting.steps,
        stage.setting.log_every,
        budget.amount if budget.kind == "episodes" else None,
        stage.setting.env.solved_at,
        tallies,
    )


def areas_of(plan: Plan, records: Records) -> np.ndarray:
    """Area under each run's learning curve, divided by its length: mean training return per env step [runs].

    A run that was stopped because it was solved goes on at the threshold to the end of its budget, where that is
    counted in env steps: learning sooner must not look worse.
    """
    if not plan.options.stop_when_solved:
        return records.area
    extent = extent_of(plan)
    is_cut = records.is_over & (records.solved_at_steps >= 0) & (extent.episodes == 0)
    left = np.where(is_cut, extent.env_steps - records.env_steps, 0)
    later = 0.0 if plan.solved_at is None else plan.solved_at
    return (records.area * records.env_steps + later * left) / np.maximum(records.env_steps + left, 1)


def summarize(ledger: Ledger, device: str, stopped_by: int | None) -> dict[str, Any]:
    """What summary.json holds. Returns are means of the last 100 episodes, null where a run had fewer."""
    plan, records, seconds = ledger.plan, ledger.records, ledger.run_seconds
    begun, env_steps = int(records.has_begun.sum()), int(records.env_steps.sum())
    solved = records.solved_at_steps >= 0
    return {
        "algorithm": plan.agent.name,
        "env": plan.env,
        "observation_type": plan.options.observation_type,
        "preset": plan.options.preset,
        "device": device,
        "devices": ledger.devices,
        "seeds": plan.options.seeds,
        "runs": plan.runs,
        "runs_begun": begun,
        "runs_ok": begun - len(ledger.failed),
        "failed_runs": sorted(ledger.failed),
        "stopped_by": signal.Signals(stopped_by).name if stopped_by else None,
        "env_steps": env_steps,
        "episodes": int(records.episodes.sum()),
        "programs": ledger.programs,
        "batches": ledger.batches,
        "compile_seconds": ledger.compile_seconds,
        "run_seconds": seconds,
        "env_steps_per_second": env_steps / seconds if seconds else 0.0,
        "final_return_mean": float(np.mean(records.return_100)),
        "final_return_per_run": records.return_100,
        "area_under_curve_per_run": areas_of(plan, records),
        "solved_at": plan.solved_at,
        "stop_when_solved": plan.options.stop_when_solved,
        "env_steps_per_run": records.env_steps,
        "solved_runs": int(solved.sum()),
        "env_steps_to_solve_per_run": [
            int(at) if is_solved else None for at, is_solved in zip(records.solved_at_steps, solved, strict=True)
        ],
        "settings": [recorded(plan.agent, setting.values) for setting in plan.settings],
        **{f"{name}_histogram": tally.as_dict() for name, tally in ledger.tallies.items()},
        "versions": versions(),
    }


def failed_runs(learner: PyTree) -> np.ndarray:
    """Places of the runs whose learner (without replay) holds a NaN or an infinity."""
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(learner)]
    if not leaves:
        return np.empty(0, np.int64)
    return np.nonzero(~np.all([np.isfinite(leaf.reshape(len(leaf), -1)).all(axis=1) for leaf in leaves], axis=0))[0]


def host_leaves(tree: PyTree) -> dict[str, np.ndarray]:
    """Path -> array on the host."""
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}
