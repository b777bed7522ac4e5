"""Loggers, which receive the metrics of a training: TensorBoard, Weights & Biases, or one of the user's own.

Loggers are called on the host between two chunks, about once a second, and never from inside a compiled program.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from purejaxrl.errors import InputError, ResourceError, in_one_line, warn
from purejaxrl.storage.files import absolute_path, writing

Row = dict[str, Any]
# Columns of a row that say whose it is and when, beside those of swept hyperparameters, which are texts.
PLACE = ("run", "seed", "iteration", "env_steps")
MAX_RUNS = 32


@runtime_checkable
class Logger(Protocol):
    """Protocol of loggers: any object with these three methods."""

    def start(self, config: dict[str, Any], folder: Path) -> None:
        """Handle the start, or the continuation, of a training.

        Where training continues, metrics.csv in the run folder holds the rows that stay, see `kept_steps`; `log`
        receives the rows that follow, some of them for the second time.

        Args:
            config: Content of config.json.
            folder: The run folder.
        """

    def log(self, rows: list[Row]) -> None:
        """Handle the rows of metrics.csv that a chunk has completed.

        Args:
            rows: Rows in order of env steps, each a dict by column; unknown values are NaN.
        """

    def finish(self, summary: dict[str, Any] | None) -> None:
        """Handle the end of a training.

        Args:
            summary: Content of summary.json, None where training ended with an error.
        """


class TensorBoard:
    """Logger that writes the columns of metrics.csv as scalars for TensorBoard, one subfolder per run.

    `tensorboard --logdir FOLDER` shows all runs together, by env steps. A training that continues makes TensorBoard
    drop what was logged beyond the row where it does; one that begins makes it drop everything that an earlier one has
    left in the same folder.

    Args:
        folder: Where to write, by default tensorboard/ in the run folder.
        max_runs: Number of runs to log; runs beyond it are left out.

    Raises:
        InputError: If tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path | None = None, *, max_runs: int = MAX_RUNS) -> None:
        try:
            from tensorboardX.proto.event_pb2 import Event, SessionLog
            from tensorboardX.record_writer import RecordWriter
            from tensorboardX.summary import scalar
        except ImportError:
            raise InputError("TensorBoard: tensorboardX is missing; pip install 'purejaxrl[tensorboard]'") from None
        self.folder = None if folder is None else absolute_path(folder)
        self.max_runs = max_runs
        # Not its SummaryWriter, which leaves writing to a thread: a full disk ends that one, a kill loses its rows.
        self._open, self._event, self._scalar = RecordWriter, Event, scalar
        self._session = SessionLog(status=SessionLog.START)
        self._writers: dict[int, Any] = {}

    def start(self, config: dict[str, Any], folder: Path) -> None:
        """Choose the folder, and find the rows that stay where training continues.

        Args:
            config: Content of config.json.
            folder: The run folder.
        """
        _warn_of_many(self, config, self.max_runs)
        self._target = self.folder or folder / "tensorboard"
        self._kept = kept_steps(folder)

    def log(self, rows: list[Row]) -> None:
        """Write every number of each row as a scalar.

        Args:
            rows: Rows of metrics.csv.

        Raises:
            ResourceError: If they cannot be written.
        """
        try:
            with writing(self._target):
                for row in rows:
                    if row["run"] < self.max_runs:
                        self._add(row)
                for writer in self._writers.values():
                    writer.flush()
        except ResourceError:
            for writer in self._writers.values():
                # A file is closed even if what was left to write to it does not fit.
                with suppress(OSError):
                    writer.close()
            self._writers.clear()
            raise

    def _add(self, row: Row) -> None:
        run = row["run"]
        if run not in self._writers:
            self._writers[run] = self._begin(row)
        for name, value in _numbers_of(row).items():
            self._writers[run].write(self._encode(step=row["env_steps"], summary=self._scalar(name, value)))

    def _begin(self, row: Row) -> Any:
        """Open an event file for the run of a row, which replaces older files beyond where training continues."""
        run, label = row["run"], "".join(f",{name}={value}" for name, value in row.items() if isinstance(value, str))
        folder = self._target / f"run_{run}{label}"
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads files in the order of their names.
        seconds, rest = divmod(time.time_ns(), 10**9)
        writer = self._open(str(folder / f"events.out.tfevents.{seconds:010d}.{socket.gethostname()}.{rest:09d}"))
        writer.write(self._encode(file_version="brain.Event:2"))
        writer.write(self._encode(step=self._kept.get(run, -1) + 1, session_log=self._session))
        return writer

    def _encode(self, **content: Any) -> bytes:
        encoded: bytes = self._event(wall_time=time.time(), **content).SerializeToString()
        return encoded

    def finish(self, summary: dict[str, Any] | None) -> None:  # noqa: ARG002 (a Logger's signature)
        """Close the event files of all runs.

        Args:
            summary: Not used.
        """
        with writing(self._target):
            for writer in self._writers.values():
                writer.close()
        self._writers.clear()


class Wandb:
    """Logger that creates a Weights & Biases run for every run of a training, all in one group.

    A training that continues creates new W&B runs in that group, whose config has `goes_on_after`: rows of the earlier
    runs beyond so many env steps are logged again. W&B can take rows back only online.

    Args:
        project: Name of the W&B project.
        max_runs: Number of runs to log; runs beyond it are left out.
        **init: Other arguments of `wandb.init`, such as mode="offline" or dir=...; group is by default the run folder's
            name.

    Raises:
        InputError: If wandb is not installed.
    """

    def __init__(self, project: str = "purejaxrl", *, max_runs: int = MAX_RUNS, **init: Any) -> None:
        try:
            import wandb
        except ImportError:
            raise InputError("Wandb: wandb is missing; pip install 'purejaxrl[wandb]'") from None
        self.max_runs = max_runs
        self._wandb = wandb
        if "dir" in init:
            init["dir"] = absolute_path(init["dir"])
        self._init = {"project": project, **init}
        self._config: dict[str, Any] = {}
        self._runs: dict[int, Any] = {}

    def start(self, config: dict[str, Any], folder: Path) -> None:
        """Store the config, which all runs share.

        Args:
            config: Content of config.json.
            folder: The run folder.
        """
        _warn_of_many(self, config, self.max_runs)
        self._config, self._kept = config, kept_steps(folder)
        self._init.setdefault("group", folder.name)

    def log(self, rows: list[Row]) -> None:
        """Log every row to the W&B run that it belongs to.

        Args:
            rows: Rows of metrics.csv.
        """
        for row in rows:
            run = row["run"]
            if run >= self.max_runs:
                continue
            if run not in self._runs:
                self._runs[run] = self._begin(run, row["seed"])
            self._runs[run].log({"env_steps": row["env_steps"], **_numbers_of(row)})

    def _begin(self, run: int, seed: int) -> Any:
        shared = {name: value for name, value in self._config.items() if not isinstance(value, dict | list)}
        settings = self._config.get("settings", [{}])
        own = self._config["config"] | settings[run // self._config["seeds"]] | {"run": run, "seed": seed}
        if run in self._kept:
            own["goes_on_after"] = self._kept[run]
        name = f"{self._config['algorithm']}-{run}"
        begun = self._wandb.init(**{"name": name, **self._init}, config=shared | own, reinit="create_new")
        begun.define_metric("env_steps")
        begun.define_metric("*", step_metric="env_steps")
        return begun

    def finish(self, summary: dict[str, Any] | None) -> None:
        """Add the results of each run to its W&B summary, and end it.

        Args:
            summary: Content of summary.json, None where training ended with an error.
        """
        for run, begun in self._runs.items():
            for name in ("final_return", "area_under_curve", "env_steps_to_solve"):
                if summary is not None:
                    begun.summary[name] = summary[f"{name}_per_run"][run]
            begun.finish(exit_code=int(summary is None))
        self._runs.clear()


NAMED = {"tensorboard": TensorBoard, "wandb": Wandb}


def named(name: str) -> Logger:
    """Create the logger of a name on the command line.

    Args:
        name: A key of NAMED.

    Returns:
        The logger.

    Raises:
        InputError: If the name is unknown.
    """
    if name not in NAMED:
        raise InputError(f"--log_to: {name!r} is not allowed; use one of {', '.join(NAMED)}")
    return NAMED[name]()


def kept_steps(folder: Path) -> dict[int, int]:
    """Return the env steps up to which runs of a training that continues have been logged.

    Call it in a logger's `start`, when metrics.csv holds only the rows that stay. A training that begins has none.

    Args:
        folder: The run folder.

    Returns:
        Env steps of each run's last row, by run number; runs without rows are left out.
    """
    file = folder / "metrics.csv"
    if not file.exists():
        return {}
    # It takes long to import, and is not needed where a training begins.
    import pandas as pd

    last = pd.read_csv(file, usecols=["run", "env_steps"]).groupby("run")["env_steps"].max()
    return {int(run): int(env_steps) for run, env_steps in last.items()}


def _numbers_of(row: Row) -> dict[str, float]:
    """Select the known measurements of a row."""
    return {
        name: value
        for name, value in row.items()
        if name not in PLACE and not isinstance(value, str) and not math.isnan(value)
    }


def _warn_of_many(logger: Logger, config: dict[str, Any], max_runs: int) -> None:
    """Warn if a logger does not log all runs."""
    runs = config["seeds"] * len(config.get("settings", [{}]))
    if runs > max_runs:
        warn(f"{type(logger).__name__} takes the first {max_runs} of {runs} runs; give it max_runs for more")


def check_loggers(loggers: Any) -> None:
    """Check that a user has given loggers in a list or tuple.

    Args:
        loggers: What was given.

    Raises:
        InputError: If it is anything else.
    """
    if not isinstance(loggers, list | tuple):
        raise InputError(f"loggers: it takes a list of loggers, not a {type(loggers).__name__}")
    for logger in loggers:
        for name in ("start", "log", "finish"):
            if isinstance(logger, type) or not callable(getattr(logger, name, None)):
                raise InputError(f"loggers: {logger!r} is no logger; it takes objects with start, log and finish")


class Listeners:
    """Group of loggers that cannot harm a training: one that fails causes a warning and is not called again."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = list(loggers)

    def start(self, config: dict[str, Any], folder: Path) -> None:
        """Call `start` of all loggers.

        Args:
            config: Content of config.json.
            folder: The run folder.
        """
        self._tell("start", config, folder)

    def log(self, table: dict[str, np.ndarray]) -> None:
        """Call `log` of all loggers with rows.

        Args:
            table: The rows, column by column.
        """
        if self.loggers and len(table["run"]):
            values = zip(*(column.tolist() for column in table.values()), strict=True)
            self._tell("log", [dict(zip(table, row, strict=True)) for row in values])

    def finish(self, summary: dict[str, Any] | None) -> None:
        """Call `finish` of all loggers, only once.

        Args:
            summary: Content of summary.json, None where training ended with an error.
        """
        self._tell("finish", summary)
        self.loggers = []

    def _tell(self, method: str, *arguments: Any) -> None:
        for logger in [*self.loggers]:
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:
                self.loggers.remove(logger)
                name = f"{type(logger).__name__}.{method}"
                warn(f"{name} failed, and training goes on without it: {in_one_line(error)}", stacklevel=4)
