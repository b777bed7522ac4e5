"""What is known of a training so far: the one thing that changes while it goes on."""

from __future__ import annotations

import signal
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxrl.experiment.labels import columns_of
from purejaxrl.experiment.plan import Plan, Training, recorded, versions
from purejaxrl.experiment.progress import plan_extent
from purejaxrl.training import metrics
from purejaxrl.training.batches import Batch
from purejaxrl.training.compilation import Program
from purejaxrl.training.metrics import MetricsSpec, MetricsState, Rows, RunStats, Table, Tally
from purejaxrl.training.runner import Chunk
from purejaxrl.types import PyTree, RunState


class BatchPosition(NamedTuple):
    """Where in a Plan a training stands.

    Attributes:
        group: Its group of settings, which share a program.
        done: The runs of earlier batches of that group.
        runs: The runs of the batch that is being trained, 0 between batches.
        iteration: The next iteration of that batch.
        is_finished: Whether nothing is left.
    """

    group: int = 0
    done: int = 0
    runs: int = 0
    iteration: int = 0
    is_finished: bool = False


class Stage(NamedTuple):
    """A training after a chunk of one batch of runs.

    Attributes:
        setting: The first of the batch's settings.
        batch: Its runs.
        program: What trains them.
        chunk: What the chunk reports.
        position: Where the training stands after it.
        is_only: Whether no other batch belongs to the training.
    """

    setting: Training
    batch: Batch
    program: Program
    chunk: Chunk
    position: BatchPosition
    is_only: bool


class RunTracker:
    """Everything that is known of a training so far, chunk after chunk. Only the runner changes it."""

    def __init__(self, plan: Plan, devices: int) -> None:
        self.plan, self.devices = plan, devices
        self.stats = RunStats.empty(plan.runs)
        self.tallies: dict[str, Tally] = {}
        self.failed: list[int] = []
        self.batches = self.programs = 0
        self.compile_seconds = self.run_seconds = 0.0
        self.started = time.perf_counter()
        # Of the batch at hand; metrics are kept from a checkpoint until it begins.
        self.batch: Batch | None = None
        self.program: Program | None = None
        self.metrics: MetricsState | None = None
        self.state: RunState | None = None

    def record(self, stage: Stage) -> Rows:
        """Take in a chunk, and return the rows that it completes."""
        if stage.batch is not self.batch:
            self.batches += 1
            if self.batch is not None or self.metrics is None:
                self.metrics = metrics.init(metrics_spec(stage), self.tallies)
            self.batch = stage.batch
        if stage.program is not self.program:
            self.program = stage.program
            self.programs += 1
            self.compile_seconds += stage.program.compile_seconds
        chunk, state = stage.chunk, self.metrics
        assert state is not None
        self.metrics, rows = metrics.record(
            metrics_spec(stage), state, chunk.start, chunk.log, chunk.eval_return, chunk.has_ended
        )
        self._note(stage)
        return rows

    def close(self, stage: Stage) -> Rows:
        """End the batch at hand, which has come to its end or is stopped, and return its last rows."""
        chunk = stage.chunk
        is_over = np.ones(len(stage.batch.runs), bool) if chunk.is_last else None
        eval_return = None if chunk.final is None else chunk.final.eval_return
        assert self.metrics is not None
        self.metrics, rows = metrics.close(metrics_spec(stage), self.metrics, eval_return, is_over)
        self._note(stage)
        self.failed += diverged_runs(stage).tolist()
        if stage.is_only:
            self.state = without_padding(stage.chunk.state, stage)
        return rows

    def _note(self, stage: Stage) -> None:
        assert self.metrics is not None
        self.tallies = self.metrics.tallies
        for whole, part in zip(self.stats, metrics.stats(self.metrics), strict=True):
            whole[stage.batch.runs] = part
        self.run_seconds = self.seconds()

    def seconds(self) -> float:
        """How long training has gone on by now, compiling apart."""
        return time.perf_counter() - self.started - self.compile_seconds

    def restore(self, facts: dict[str, Any], stats: RunStats, state: MetricsState | None) -> None:
        """Take in what a checkpoint tells; `state` is that of the batch with which training goes on, if any."""
        self.stats = stats
        self.failed = [int(run) for run in facts["failed"]]
        self.batches, self.programs = int(facts["batches"]), int(facts["programs"])
        self.compile_seconds, self.run_seconds = float(facts["compile_seconds"]), float(facts["run_seconds"])
        self.tallies = metrics.unpack_tallies(facts["tallies"])
        self.metrics = None if state is None else state._replace(tallies=self.tallies)
        self.started = time.perf_counter() - self.compile_seconds - self.run_seconds

    def add_swept(self, table: Table) -> Table:
        """A table of runs with the swept hyperparameters beside it; as swept_NAME where it has a NAME already."""
        settings = table["run"].astype(np.int64) // self.plan.options.seeds
        swept = columns_of(setting.values for setting in self.plan.settings)
        return table | {f"swept_{name}" if name in table else name: values[settings] for name, values in swept.items()}


def metrics_spec(stage: Stage) -> MetricsSpec:
    """What the rows of a batch depend on."""
    setting, budget = stage.setting, stage.setting.budget
    return MetricsSpec(
        stage.batch.runs,
        stage.batch.seeds,
        setting.steps,
        setting.log_every,
        budget.amount if budget.kind == "episodes" else None,
        setting.env.solved_at,
    )


def without_padding(tree: PyTree, stage: Stage) -> PyTree:
    """The first entries of arrays [width, ...], which are those of the batch's runs."""
    return jax.tree.map(lambda leaf: leaf[: len(stage.batch.runs)], tree)


def diverged_runs(stage: Stage) -> np.ndarray:
    """The runs of a batch whose learners, but for their memory, hold a NaN or an infinity."""
    leaves = jax.tree.leaves(without_padding(stage.chunk.state.learner._replace(memory=None), stage))
    is_fine = np.ones(len(stage.batch.runs), bool)
    for leaf in map(np.asarray, leaves):
        is_fine &= np.isfinite(leaf.reshape(len(leaf), -1)).all(axis=1)
    return stage.batch.runs[~is_fine]


def area_per_run(plan: Plan, stats: RunStats) -> np.ndarray:
    """Area under each run's learning curve, divided by its length: mean training return per env step [runs].

    A run that was stopped because it was solved goes on at the threshold to the end of its budget, where that is
    counted in env steps: learning sooner must not look worse.
    """
    if not plan.options.stop_when_solved:
        return stats.area
    extent = plan_extent(plan)
    is_cut = stats.is_over & (stats.solved_at_steps >= 0) & (extent.episodes == 0)
    left = np.where(is_cut, extent.env_steps - stats.env_steps, 0)
    later = 0.0 if plan.solved_at is None else plan.solved_at
    return (stats.area * stats.env_steps + later * left) / np.maximum(stats.env_steps + left, 1)


def summarize(tracker: RunTracker, device: str, stopped_by: int | None) -> dict[str, Any]:
    """What summary.json holds. Returns are means of the last 100 episodes, null where a run had fewer."""
    plan, stats, seconds = tracker.plan, tracker.stats, tracker.run_seconds
    begun, env_steps = int(stats.has_begun.sum()), int(stats.env_steps.sum())
    solved = stats.solved_at_steps >= 0
    return {
        "algorithm": plan.agent.name,
        "env": plan.env,
        "observation_type": plan.options.observation_type,
        "preset": plan.options.preset,
        "device": device,
        "devices": tracker.devices,
        "seeds": plan.options.seeds,
        "runs": plan.runs,
        "runs_begun": begun,
        "runs_ok": begun - len(tracker.failed),
        "failed_runs": sorted(tracker.failed),
        "stopped_by": signal.Signals(stopped_by).name if stopped_by else None,
        "env_steps": env_steps,
        "episodes": int(stats.episodes.sum()),
        "programs": tracker.programs,
        "batches": tracker.batches,
        "compile_seconds": tracker.compile_seconds,
        "run_seconds": seconds,
        "env_steps_per_second": env_steps / seconds if seconds else 0.0,
        "final_return_mean": float(np.mean(stats.return_100)),
        "final_return_per_run": stats.return_100,
        "area_under_curve_per_run": area_per_run(plan, stats),
        "solved_at": plan.solved_at,
        "stop_when_solved": plan.options.stop_when_solved,
        "env_steps_per_run": stats.env_steps,
        "solved_runs": int(solved.sum()),
        "env_steps_to_solve_per_run": [
            int(at) if is_solved else None for at, is_solved in zip(stats.solved_at_steps, solved, strict=True)
        ],
        "settings": [recorded(plan.agent, setting.values) for setting in plan.settings],
        **{f"{name}_histogram": tally.as_dict() for name, tally in tracker.tallies.items()},
        "versions": versions(),
    }
