"""State of a training on the host: the only thing that changes while it runs."""

from __future__ import annotations

import signal
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxrl.experiment.labels import column_name, columns_of
from purejaxrl.experiment.plan import Plan, Training, recorded, versions
from purejaxrl.experiment.progress import plan_extent
from purejaxrl.training import metrics
from purejaxrl.training.batches import Batch
from purejaxrl.training.compilation import Program
from purejaxrl.training.metrics import MetricsSpec, MetricsState, Rows, RunStats, Table, Tally
from purejaxrl.training.runner import Chunk
from purejaxrl.types import Learner, PyTree, RunState


class BatchPosition(NamedTuple):
    """Position of a training in its Plan.

    Attributes:
        group: Index of the group of settings, which share a program.
        done: Number of runs in earlier batches of that group.
        runs: Number of runs in the batch that is being trained, 0 between batches.
        iteration: The next iteration of that batch.
        is_finished: Whether nothing is left.
    """

    group: int = 0
    done: int = 0
    runs: int = 0
    iteration: int = 0
    is_finished: bool = False


class Stage(NamedTuple):
    """Training after a chunk of one batch of runs.

    Attributes:
        setting: The first of the batch's settings.
        batch: Its runs.
        program: The program that trains them, None where workers have trained them.
        chunk: Report of the chunk.
        position: Position of the training after the chunk.
        is_only: Whether no other batch belongs to the training.
    """

    setting: Training
    batch: Batch
    program: Program | None
    chunk: Chunk
    position: BatchPosition
    is_only: bool


class RunTracker:
    """State of a training so far, recorded chunk after chunk; only the runner changes it."""

    def __init__(self, plan: Plan, devices: int, device: str) -> None:
        self.plan, self.devices, self.device = plan, devices, device
        self.stats = RunStats.empty(plan.runs)
        self.swept = columns_of(setting.values for setting in plan.settings)
        self.tallies: dict[str, Tally] = {}
        self.failed: list[int] = []
        self.batches = self.programs = 0
        self.compile_seconds = self.run_seconds = 0.0
        self.started = time.perf_counter()
        # Of the batch at hand; metrics are kept from a checkpoint until it begins.
        self.batch: Batch | None = None
        self.program: Program | None = None
        self.setting: Training | None = None
        self.metrics: MetricsState | None = None
        self.state: RunState | None = None

    def record(self, stage: Stage) -> Rows:
        """Record a chunk.

        Args:
            stage: The training after the chunk.

        Returns:
            The rows that the chunk completes.
        """
        if stage.batch is not self.batch:
            self.batches += 1
            if self.batch is not None or self.metrics is None:
                self.metrics = metrics.init(metrics_spec(stage.setting, stage.batch), self.tallies)
            self.batch = stage.batch
        if stage.program is not self.program:
            assert stage.program is not None
            self.program = stage.program
            self.programs += 1
            self.compile_seconds += stage.program.compile_seconds
        chunk, state = stage.chunk, self.metrics
        assert state is not None
        self.metrics, rows = metrics.record(
            metrics_spec(stage.setting, stage.batch), state, chunk.start, chunk.log, chunk.eval_return, chunk.has_ended
        )
        self._note(stage)
        return rows

    def close(self, stage: Stage) -> Rows:
        """Close the current batch, which has come to its end or is stopped.

        Args:
            stage: The training after the last chunk of the batch.

        Returns:
            Its last rows.
        """
        chunk = stage.chunk
        is_over = np.ones(len(stage.batch.runs), bool) if chunk.is_last else None
        eval_return = None if chunk.final is None else chunk.final.eval_return
        assert self.metrics is not None
        self.metrics, rows = metrics.close(metrics_spec(stage.setting, stage.batch), self.metrics, eval_return, is_over)
        self._note(stage)
        self.failed += diverged_runs(stage).tolist()
        if stage.is_only:
            self.state = without_padding(stage.chunk.state, stage)
        return rows

    def add_shard(self, runs: np.ndarray, stats: RunStats, device: str, compile_seconds: float) -> None:
        """Record runs that a worker has trained to their end.

        Args:
            runs: Numbers of the runs, [runs].
            stats: Their statistics.
            device: Kind of the worker's device.
            compile_seconds: How long it compiled before. Workers compile side by side, so the longest counts.
        """
        for whole, part in zip(self.stats, stats, strict=True):
            whole[runs] = part
        self.device = device
        self.compile_seconds = max(self.compile_seconds, compile_seconds)
        self.run_seconds = self.seconds()

    def close_shards(self, stage: Stage, diverged: np.ndarray, tallies: dict[str, Tally]) -> None:
        """Record a batch, or what there is of it, all of whose shards have come in or will not come.

        Args:
            stage: The training after the batch.
            diverged: Numbers of its runs that have diverged.
            tallies: Histograms of its runs.
        """
        self.batches += 1
        if stage.setting is not self.setting:
            self.setting = stage.setting
            self.programs += 1
        self.failed += diverged.tolist()
        for name, tally in tallies.items():
            self.tallies[name] = metrics.merge_tallies(self.tallies.get(name, metrics.EMPTY_TALLY), tally)

    def _note(self, stage: Stage) -> None:
        assert self.metrics is not None
        self.tallies = self.metrics.tallies
        for whole, part in zip(self.stats, metrics.stats(self.metrics), strict=True):
            whole[stage.batch.runs] = part
        self.run_seconds = self.seconds()

    def seconds(self) -> float:
        """Return how many seconds training has taken so far, without compilation."""
        return time.perf_counter() - self.started - self.compile_seconds

    def restore(self, facts: dict[str, Any], stats: RunStats, state: MetricsState | None) -> None:
        """Restore the state from a checkpoint.

        Args:
            facts: Counts and times that `Checkpointer.snapshot` recorded.
            stats: Statistics of all runs.
            state: Metrics of the batch with which training continues, None between batches.
        """
        self.stats = stats
        self.failed = [int(run) for run in facts["failed"]]
        self.batches, self.programs = int(facts["batches"]), int(facts["programs"])
        self.compile_seconds, self.run_seconds = float(facts["compile_seconds"]), float(facts["run_seconds"])
        self.tallies = metrics.unpack_tallies(facts["tallies"])
        self.metrics = None if state is None else state._replace(tallies=self.tallies)
        self.started = time.perf_counter() - self.compile_seconds - self.run_seconds

    def add_swept(self, table: Table) -> Table:
        """Add columns of the swept hyperparameters to a table of runs.

        Args:
            table: The table, with a column `run`.

        Returns:
            The table; a hyperparameter whose NAME is a column already becomes swept_NAME.
        """
        settings = table["run"].astype(np.int64) // self.plan.options.seeds
        return table | {column_name(name, table): values[settings] for name, values in self.swept.items()}


def metrics_spec(setting: Training, batch: Batch) -> MetricsSpec:
    """Return the constants on which the rows of a batch depend.

    Args:
        setting: The first of the batch's settings.
        batch: Its runs.

    Returns:
        The constants.
    """
    budget = setting.budget
    return MetricsSpec(
        batch.runs,
        batch.seeds,
        setting.steps,
        setting.log_every,
        budget.amount if budget.kind == "episodes" else None,
        setting.env.solved_at,
    )


def without_padding(tree: PyTree, stage: Stage) -> PyTree:
    """Remove the padding from arrays of runs.

    Args:
        tree: Arrays [width, ...].
        stage: The training after a chunk of the batch.

    Returns:
        Arrays [runs, ...] of the batch's runs.
    """
    return jax.tree.map(lambda leaf: leaf[: len(stage.batch.runs)], tree)


def diverged_runs(stage: Stage) -> np.ndarray:
    """Find the runs of a batch whose learners, without their memory, hold a NaN or an infinity.

    Args:
        stage: The training after a chunk of the batch.

    Returns:
        Numbers of the runs.
    """
    learner = without_padding(stage.chunk.state.learner._replace(memory=None), stage)
    return stage.batch.runs[find_diverged(learner, len(stage.batch.runs))]


def find_diverged(learner: Learner, runs: int) -> np.ndarray:
    """Find the runs whose learners hold a NaN or an infinity.

    Args:
        learner: The learners without their memory, [runs, ...]; they may hold nothing.
        runs: Number of runs.

    Returns:
        Whether each has diverged, [runs].
    """
    has_diverged = np.zeros(runs, bool)
    for leaf in map(np.asarray, jax.tree.leaves(learner)):
        has_diverged |= ~np.isfinite(leaf.reshape(runs, -1)).all(axis=1)
    return has_diverged


def _area_per_run(plan: Plan, stats: RunStats) -> np.ndarray:
    """Compute the area under each run's learning curve, divided by its length."""
    if not plan.options.stop_when_solved or plan.solved_at is None:
        return stats.area
    extent = plan_extent(plan)
    # How long a budget of episodes would have lasted is not known.
    return metrics.area_until(stats, np.where(extent.episodes == 0, extent.env_steps, 0), plan.solved_at)


def summarize(tracker: RunTracker, stopped_by: int | None) -> dict[str, Any]:
    """Return the content of summary.json.

    Args:
        tracker: State of the training.
        stopped_by: Number of the signal that stopped it, or None.

    Returns:
        The content. Returns are means of the last 100 episodes, NaN where a run had fewer.
    """
    plan, stats, seconds = tracker.plan, tracker.stats, tracker.run_seconds
    begun, env_steps = int(stats.has_begun.sum()), int(stats.env_steps.sum())
    solved = stats.solved_at_steps >= 0
    return {
        "algorithm": plan.agent.name,
        "env": plan.env,
        "observation_type": plan.options.observation_type,
        "preset": plan.options.preset,
        "device": tracker.device,
        "devices": tracker.devices,
        "seeds": plan.options.seeds,
        "runs": plan.runs,
        "runs_begun": begun,
        "runs_ok": begun - len(tracker.failed),
        "failed_runs": sorted(tracker.failed),
        "stopped_by": signal.Signals(stopped_by).name if stopped_by else None,
        "fraction_done": float(plan_extent(plan).fraction(stats).mean()),
        "env_steps": env_steps,
        "episodes": int(stats.episodes.sum()),
        "programs": tracker.programs,
        "batches": tracker.batches,
        "compile_seconds": tracker.compile_seconds,
        "run_seconds": seconds,
        "env_steps_per_second": env_steps / seconds if seconds else 0.0,
        "final_return_mean": float(np.mean(stats.return_100)),
        "final_return_per_run": stats.return_100,
        "area_under_curve_per_run": _area_per_run(plan, stats),
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
