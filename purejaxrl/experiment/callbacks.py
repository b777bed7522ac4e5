"""Callbacks of a training, which write files and checkpoints, show progress and call loggers.

The runner calls them in order at every event; none of them changes what is trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from purejaxrl.experiment.loggers import Listeners
from purejaxrl.experiment.progress import Reporter
from purejaxrl.experiment.schema import SCHEMA_VERSION
from purejaxrl.experiment.shards import Shard, Trained, pack
from purejaxrl.experiment.tracker import RunTracker, Stage, without_padding
from purejaxrl.storage.checkpoint import named_leaves
from purejaxrl.storage.run_folder import RunFolder
from purejaxrl.training.metrics import EPISODE_COLUMNS, Rows
from purejaxrl.types import PyTree

Content = dict[str, Any]


class Event(NamedTuple):
    """Event that the runner reports to its callbacks.

    Attributes:
        tracker: State of the training so far.
        stage: The training after a chunk.
        rows: Rows to be added to episodes.csv and metrics.csv.
        is_stopping: Whether training stops with this chunk, because of a signal or a diverged run.
        has_diverged: Whether a run has diverged, where that stops the training.
    """

    tracker: RunTracker
    stage: Stage
    rows: Rows
    is_stopping: bool
    has_diverged: bool


class Callback:
    """Base class of callbacks, whose methods do nothing."""

    def on_start(self, tracker: RunTracker, config: Content) -> None:
        """Handle the start of a training, after all checks and before compilation.

        Args:
            tracker: State of the training.
            config: Content of config.json.
        """

    def on_chunk(self, event: Event) -> None:
        """Handle the end of a chunk.

        Args:
            event: The chunk, with the rows of a training that continues.
        """

    def on_batch_end(self, event: Event) -> None:
        """Handle the end, or an early stop, of a batch of runs.

        Args:
            event: The last chunk of the batch, with the rows that were left.
        """

    def on_shard(self, tracker: RunTracker, shard: Shard, trained: Trained) -> None:
        """Handle the arrival of a shard that a worker has trained, long before the end of its batch.

        Args:
            tracker: State of the training.
            shard: Which runs they are.
            trained: What has become of them.
        """

    def on_end(self, summary: Content) -> None:
        """Handle the end, or an early stop, of the training.

        Args:
            summary: Content of summary.json.
        """

    def on_close(self) -> None:
        """Release resources after the training, also after an error."""


class FileWriter(Callback):
    """Writes episodes.csv, metrics.csv, the last and the best params, and summary.json."""

    def __init__(self, folder: RunFolder, tails: Mapping[str, str]) -> None:
        """Initialize the writer of a run folder.

        Args:
            folder: The run folder.
            tails: Text to append to its CSV files where training continues, by file.
        """
        self.folder, self.tails = folder, tails

    def on_start(self, tracker: RunTracker, config: Content) -> None:
        """Write config.json, and cut CSV files back to where training begins or continues.

        Args:
            tracker: State of the training.
            config: Content of config.json.
        """
        self.folder.write_json("config.json", config)
        logs = self.folder.logs
        logs.rewind()
        for name, text in self.tails.items():
            logs.append_text(name, text)
        if tracker.plan.options.episodes_log == "on" and "episodes.csv" not in logs:
            logs.append("episodes.csv", tracker.add_swept(dict.fromkeys(EPISODE_COLUMNS, np.empty(0))))

    def on_chunk(self, event: Event) -> None:
        """Append rows to the CSV files.

        Args:
            event: The chunk.
        """
        self.append(event.tracker, event.rows)

    def append(self, tracker: RunTracker, rows: Rows) -> None:
        """Append rows to the CSV files.

        Args:
            tracker: State of the training.
            rows: The rows.
        """
        episodes, metrics = rows
        if tracker.plan.options.episodes_log == "on":
            self.folder.logs.append("episodes.csv", tracker.add_swept(episodes))
        if len(metrics["run"]):
            self.folder.logs.append("metrics.csv", tracker.add_swept(metrics))

    def on_batch_end(self, event: Event) -> None:
        """Append the last rows of a batch, and write its params.

        Args:
            event: The last chunk of the batch.
        """
        self.on_chunk(event)
        stage, tracker = event.stage, event.tracker
        best = stage.chunk.best if stage.chunk.final is None else stage.chunk.final.best
        suffix = "" if stage.is_only else f"-{tracker.batches}"
        facts = {"schema_version": SCHEMA_VERSION, "algorithm": tracker.plan.agent.name, "runs": stage.batch.runs}
        params = without_padding(stage.chunk.state.learner.params, stage)
        self.folder.write_params("last" + suffix, _on_host(params), facts)
        if best is not None:
            best = without_padding(best, stage)
            facts["eval_return"] = np.asarray(best.eval_return)
            self.folder.write_params("best" + suffix, _on_host(best.params), facts)

    def on_shard(self, tracker: RunTracker, shard: Shard, trained: Trained) -> None:
        """Write a shard to a file of its own, where it waits for the others of its batch.

        Args:
            tracker: State of the training.
            shard: Which runs they are.
            trained: What has become of them.
        """
        self.folder.write_shard(shard.name, *pack(trained))

    def on_end(self, summary: Content) -> None:
        """Write summary.json into the run folder.

        Args:
            summary: Content of summary.json.
        """
        self.folder.write_json("summary.json", summary)


class Finisher(Callback):
    """Calls a function that writes further files once training has ended."""

    def __init__(self, folder: RunFolder, write: Callable[[RunFolder, Content, Content], object]) -> None:
        self.folder, self.write = folder, write

    def on_start(self, tracker: RunTracker, config: Content) -> None:
        """Store the content of config.json for later.

        Args:
            tracker: State of the training.
            config: Content of config.json.
        """
        self.config = config

    def on_end(self, summary: Content) -> None:
        """Write the files of a training that has ended.

        Args:
            summary: Content of summary.json.
        """
        self.write(self.folder, self.config, summary)


class ProgressDisplay(Callback):
    """Shows the progress of a training with a Reporter."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def on_start(self, tracker: RunTracker, config: Content) -> None:
        """Show that compilation begins, and what has been done where training continues.

        Args:
            tracker: State of the training.
            config: Content of config.json.
        """
        self.reporter.start()
        if tracker.stats.has_begun.any():
            self.reporter.advance(tracker.stats, tracker.seconds())

    def on_chunk(self, event: Event) -> None:
        """Show the progress of all runs, unless the end of the batch follows.

        Args:
            event: The chunk.
        """
        if not (event.stage.chunk.is_last or event.is_stopping):
            self.reporter.advance(event.tracker.stats, event.tracker.seconds())

    def on_shard(self, tracker: RunTracker, shard: Shard, trained: Trained) -> None:
        """Show the progress of all runs when a shard has come in.

        Args:
            tracker: State of the training.
            shard: Which runs they are.
            trained: What has become of them.
        """
        self.reporter.advance(tracker.stats, tracker.seconds())

    def on_batch_end(self, event: Event) -> None:
        """Show the progress of all runs at the end of a batch.

        Args:
            event: The last chunk of the batch.
        """
        self.reporter.advance(event.tracker.stats, event.tracker.seconds())

    def on_close(self) -> None:
        """Close the display."""
        self.reporter.close()


class Logging(Callback):
    """Passes metrics to loggers, see `purejaxrl.experiment.loggers`."""

    def __init__(self, folder: RunFolder, listeners: Listeners) -> None:
        self.folder, self.listeners = folder, listeners
        self.summary: Content | None = None

    def on_start(self, tracker: RunTracker, config: Content) -> None:
        """Start the loggers of a training.

        Args:
            tracker: State of the training.
            config: Content of config.json.
        """
        self.listeners.start(config, self.folder.path)

    def on_chunk(self, event: Event) -> None:
        """Pass rows of metrics.csv to the loggers.

        Args:
            event: The chunk.
        """
        self.listeners.log(event.tracker.add_swept(event.rows.metrics))

    def on_batch_end(self, event: Event) -> None:
        """Pass the last rows of a batch to the loggers.

        Args:
            event: The last chunk of the batch.
        """
        self.on_chunk(event)

    def on_end(self, summary: Content) -> None:
        """Keep the summary, as loggers may take long to finish and everything else should be on the disk by then.

        Args:
            summary: Content of summary.json.
        """
        self.summary = summary

    def on_close(self) -> None:
        """Finish the loggers, without a summary where training did not end normally."""
        self.listeners.finish(self.summary)


def _on_host(tree: PyTree) -> dict[str, np.ndarray]:
    """Copy the arrays of a tree to the host."""
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}
