"""What listens to a training: files, checkpoints, progress, loggers.

The runner tells its callbacks, in their order, what happens; none of them changes what is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from purejaxrl.experiment.loggers import Listeners
from purejaxrl.experiment.progress import Reporter
from purejaxrl.experiment.schema import SCHEMA_VERSION
from purejaxrl.experiment.tracker import RunTracker, Stage, without_padding
from purejaxrl.storage.checkpoint import named_leaves
from purejaxrl.storage.run_folder import RunFolder
from purejaxrl.training.metrics import EPISODE_COLUMNS, Rows
from purejaxrl.types import PyTree

Content = dict[str, Any]


class Event(NamedTuple):
    """What the runner tells.

    Attributes:
        tracker: What is known of the training by now.
        stage: The training after a chunk.
        rows: What has been added to episodes.csv and metrics.csv.
        is_stopping: Whether training stops with this chunk, as a signal came or a run diverged.
        has_diverged: Whether a run has diverged, where that stops the training.
    """

    tracker: RunTracker
    stage: Stage
    rows: Rows
    is_stopping: bool
    has_diverged: bool


class Callback:
    """Listens to a training, and does nothing. Others replace what they need."""

    def on_start(self, tracker: RunTracker, config: Content) -> None:
        """Everything has been checked, and compilation begins. config: what config.json holds."""

    def on_chunk(self, event: Event) -> None:
        """A chunk has ended. Rows are those of a training that goes on."""

    def on_batch_end(self, event: Event) -> None:
        """Training of a batch of runs has ended, or stops. Rows are those that are left."""

    def on_end(self, summary: Content) -> None:
        """Training has ended, or was stopped. summary: what summary.json holds."""

    def on_close(self) -> None:
        """Nothing more will come, be it because of an error."""


class FileWriter(Callback):
    """Writes episodes.csv, metrics.csv, the last and the best params, and summary.json."""

    def __init__(self, folder: RunFolder, tails: Mapping[str, str]) -> None:
        """Write to a folder. tails: text that follows what its CSV files hold where training goes on."""
        self.folder, self.tails = folder, tails

    def on_start(self, tracker: RunTracker, config: Content) -> None:
        """Bring the files to where training begins or goes on; rows written after that are dropped."""
        self.folder.write_json("config.json", config)
        logs = self.folder.logs
        logs.rewind()
        for name, text in self.tails.items():
            logs.append_text(name, text)
        if tracker.plan.options.episodes_log == "on" and "episodes.csv" not in logs:
            logs.append("episodes.csv", tracker.add_swept(dict.fromkeys(EPISODE_COLUMNS, np.empty(0))))

    def on_chunk(self, event: Event) -> None:
        """Append rows."""
        tracker, (episodes, metrics) = event.tracker, event.rows
        if tracker.plan.options.episodes_log == "on":
            self.folder.logs.append("episodes.csv", tracker.add_swept(episodes))
        if len(metrics["run"]):
            self.folder.logs.append("metrics.csv", tracker.add_swept(metrics))

    def on_batch_end(self, event: Event) -> None:
        """Append the last rows, and write params."""
        self.on_chunk(event)
        stage, tracker = event.stage, event.tracker
        best = stage.chunk.best if stage.chunk.final is None else stage.chunk.final.best
        suffix = "" if stage.is_only else f"-{tracker.batches}"
        facts = {"schema_version": SCHEMA_VERSION, "algorithm": tracker.plan.agent.name, "runs": stage.batch.runs}
        params = without_padding(stage.chunk.state.learner.params, stage)
        self.folder.write_params("last" + suffix, on_host(params), facts)
        if best is not None:
            best = without_padding(best, stage)
            facts["eval_return"] = np.asarray(best.eval_return)
            self.folder.write_params("best" + suffix, on_host(best.params), facts)

    def on_end(self, summary: Content) -> None:
        """Write summary.json."""
        self.folder.write_json("summary.json", summary)


class Finisher(Callback):
    """Writes further files once training has ended, from what config.json and summary.json hold."""

    def __init__(self, folder: RunFolder, write: Callable[[RunFolder, Content, Content], object]) -> None:
        self.folder, self.write = folder, write

    def on_start(self, tracker: RunTracker, config: Content) -> None:
        """Keep what is trained."""
        self.config = config

    def on_end(self, summary: Content) -> None:
        """Write the files."""
        self.write(self.folder, self.config, summary)


class ProgressDisplay(Callback):
    """Shows how far a training is."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def on_start(self, tracker: RunTracker, config: Content) -> None:
        """Show that compilation begins."""
        self.reporter.start()

    def on_chunk(self, event: Event) -> None:
        """Show where all runs are."""
        if not event.stage.chunk.is_last:
            self.reporter.advance(event.tracker.stats, event.tracker.seconds())

    def on_batch_end(self, event: Event) -> None:
        """Show where all runs are."""
        self.reporter.advance(event.tracker.stats, event.tracker.seconds())

    def on_close(self) -> None:
        """Show nothing more."""
        self.reporter.close()


class Logging(Callback):
    """Passes metrics on to loggers, see `purejaxrl.experiment.loggers`."""

    def __init__(self, folder: RunFolder, listeners: Listeners) -> None:
        self.folder, self.listeners = folder, listeners

    def on_start(self, tracker: RunTracker, config: Content) -> None:
        """Pass on what is trained."""
        self.listeners.start(config, self.folder.path)

    def on_chunk(self, event: Event) -> None:
        """Pass on rows of metrics.csv."""
        self.listeners.log(event.tracker.add_swept(event.rows.metrics))

    def on_batch_end(self, event: Event) -> None:
        """Pass on rows of metrics.csv."""
        self.on_chunk(event)

    def on_end(self, summary: Content) -> None:
        """Pass on what the training has come to."""
        self.listeners.finish(summary)

    def on_close(self) -> None:
        """Let loggers that have not been told of an end close what they have opened."""
        self.listeners.finish(None)


def on_host(tree: PyTree) -> dict[str, np.ndarray]:
    """Arrays by name, on the host."""
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}
