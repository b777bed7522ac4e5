"""Where else a training's numbers go: TensorBoard, Weights & Biases, or a logger of one's own.

Loggers are told on the host between two chunks, about once a second, and never from inside a compiled program.
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
    """What a logger is: any object with these three methods."""

    def start(self, config: dict[str, Any], folder: Path) -> None:
        """Training begins or goes on. config: what config.json holds; folder: the run folder.

        Where training goes on, metrics.csv there holds the rows that stay, see `kept_steps`; `log` is told those that
        follow, some of them for the second time.
        """

    def log(self, rows: list[Row]) -> None:
        """Rows of metrics.csv that a chunk has completed, by column, in order of env steps; NaN for what is unknown."""

    def finish(self, summary: dict[str, Any] | None) -> None:
        """Nothing more will come. summary: what summary.json holds, None where training ended with an error."""


class TensorBoard:
    """Scalars of metrics.csv by env steps, a subfolder per run: `tensorboard --logdir FOLDER` draws them together.

    folder: tensorboard/ in the run folder by default. max_runs: runs from this number on are left out.
    A training that goes on has TensorBoard drop what it was told beyond the row where it does; one that begins has it
    drop all that an earlier one has left in the same folder.
    Raises InputError where tensorboardX is not installed.
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
        """Decide where to write."""
        warn_of_many(self, config, self.max_runs)
        self._target = self.folder or folder / "tensorboard"
        self._kept = kept_steps(folder)

    def log(self, rows: list[Row]) -> None:
        """Add every number of each row. Raises ResourceError where that cannot be written."""
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
        for name, value in numbers_of(row).items():
            self._writers[run].write(self._encode(step=row["env_steps"], summary=self._scalar(name, value)))

    def _begin(self, row: Row) -> Any:
        """An event file for the run of this row, from which on older files count up to where training goes on."""
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
        """Close the files."""
        with writing(self._target):
            for writer in self._writers.values():
                writer.close()
        self._writers.clear()


class Wandb:
    """A Weights & Biases run for every run of a training, in one group, with metrics by env steps.

    project, init: for `wandb.init`, as mode="offline", dir=..., or group=..., the run folder's name by default.
    max_runs: runs from this number on are left out.
    A training that goes on begins W&B runs of their own in that group, whose config says `goes_on_after`: rows of the
    earlier ones beyond so many env steps are told again. W&B can take rows back online only.
    Raises InputError where wandb is not installed.
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
        """Note what all runs share."""
        warn_of_many(self, config, self.max_runs)
        self._config, self._kept = config, kept_steps(folder)
        self._init.setdefault("group", folder.name)

    def log(self, rows: list[Row]) -> None:
        """Log every row to its run."""
        for row in rows:
            run = row["run"]
            if run >= self.max_runs:
                continue
            if run not in self._runs:
                self._runs[run] = self._begin(run, row["seed"])
            self._runs[run].log({"env_steps": row["env_steps"], **numbers_of(row)})

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
        """Add what the summary says of each run, and end it."""
        for run, begun in self._runs.items():
            for name in ("final_return", "area_under_curve", "env_steps_to_solve"):
                if summary is not None:
                    begun.summary[name] = summary[f"{name}_per_run"][run]
            begun.finish(exit_code=int(summary is None))
        self._runs.clear()


NAMED = {"tensorboard": TensorBoard, "wandb": Wandb}


def named(name: str) -> Logger:
    """The logger of a name on the command line. Raises InputError."""
    if name not in NAMED:
        raise InputError(f"--log_to: {name!r} is not allowed; use one of {', '.join(NAMED)}")
    return NAMED[name]()


def kept_steps(folder: Path) -> dict[int, int]:
    """How far the runs of a training that goes on were logged: env steps of each run's last row that stays.

    For a logger's `start`, as metrics.csv then holds these rows alone. A training that begins has none.

    Args:
        folder: the run folder.

    Returns:
        Run number -> env steps; runs without such a row are left out.
    """
    file = folder / "metrics.csv"
    if not file.exists():
        return {}
    # It takes long to import, and is not needed where a training begins.
    import pandas as pd

    last = pd.read_csv(file, usecols=["run", "env_steps"]).groupby("run")["env_steps"].max()
    return {int(run): int(env_steps) for run, env_steps in last.items()}


def numbers_of(row: Row) -> dict[str, float]:
    """What a row measures and knows."""
    return {
        name: value
        for name, value in row.items()
        if name not in PLACE and not isinstance(value, str) and not math.isnan(value)
    }


def warn_of_many(logger: Logger, config: dict[str, Any], max_runs: int) -> None:
    """Say that not all runs are logged, if so."""
    runs = config["seeds"] * len(config.get("settings", [{}]))
    if runs > max_runs:
        warn(f"{type(logger).__name__} takes the first {max_runs} of {runs} runs; give it max_runs for more")


def check_loggers(loggers: Any) -> None:
    """Raise InputError unless these are loggers in a list or tuple."""
    if not isinstance(loggers, list | tuple):
        raise InputError(f"loggers: it takes a list of loggers, not a {type(loggers).__name__}")
    for logger in loggers:
        for name in ("start", "log", "finish"):
            if isinstance(logger, type) or not callable(getattr(logger, name, None)):
                raise InputError(f"loggers: {logger!r} is no logger; it takes objects with start, log and finish")


class Listeners:
    """Loggers that cannot harm a training: one that fails is warned of, and told nothing more."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self.loggers = list(loggers)

    def start(self, config: dict[str, Any], folder: Path) -> None:
        """Tell all that training begins."""
        self._tell("start", config, folder)

    def log(self, table: dict[str, np.ndarray]) -> None:
        """Tell all of rows, given column by column."""
        if self.loggers and len(table["run"]):
            values = zip(*(column.tolist() for column in table.values()), strict=True)
            self._tell("log", [dict(zip(table, row, strict=True)) for row in values])

    def finish(self, summary: dict[str, Any] | None) -> None:
        """Tell all, once, that training has ended."""
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
