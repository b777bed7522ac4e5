"""The files of a run: config.json, episodes.csv, metrics.csv, summary.json, params/, pictures."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from purejaxrl.errors import InputError, ResourceError, writing
from purejaxrl.results.locking import lock
from purejaxrl.results.logs import Logs, csv_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = (
    "config.json",
    "episodes.csv",
    "metrics.csv",
    "summary.json",
    "sweep.csv",
    "improvement.csv",
    "learning_curve.png",
    "sweep.png",
    "*_histogram.png",
    "video.gif",
    "params/last*.safetensors",
    "params/best*.safetensors",
    "export/policy.safetensors",
    "export/policy.json",
    "checkpoints/*/arrays.safetensors",
    "checkpoints/*/facts.json",
    "checkpoints/*/SHA256SUMS",
    "tensorboard/run_*/events.out.tfevents.*",
)


class RunFolder:
    """A folder that is being written, by this process alone: it is locked until `close`, or the process's end.

    Every write reports a full or broken disk as ResourceError, naming the path.
    """

    def __init__(self, path: Path) -> None:
        """Lock the folder, which exists. Raises InUseError where another process has."""
        self.path = path
        self.logs = Logs(path)
        self._lock: int | None = lock(path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file whole or not at all. NaN becomes null."""
        text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
        self._write(name, lambda path: path.write_text(text))

    def write_table(self, name: str, table: dict[str, np.ndarray]) -> None:
        """Write a CSV file whole or not at all."""
        self._write(name, lambda path: path.write_text(csv_text(table)))

    def write_bytes(self, name: str, content: bytes | bytearray) -> None:
        """Write a file whole or not at all."""
        self._write(name, lambda path: path.write_bytes(content))

    def write_params(
        self, name: str, params: dict[str, np.ndarray], metadata: dict[str, Any], *, parent: str = "params"
    ) -> None:
        """Write PARENT/NAME.safetensors."""
        # One entry, because safetensors writes several in no fixed order.
        facts = {"purejaxrl": json.dumps(plain(metadata))}
        self._write(f"{parent}/{name}.safetensors", lambda path: save_file(params, path, metadata=facts))

    def write_picture(self, name: str, figure: Figure) -> None:
        """Write a matplotlib figure as PNG."""
        self._write(name, lambda path: figure.savefig(path, format="png", metadata={"Software": None}))

    def _write(self, name: str, write: Any) -> None:
        target = self.path / name
        partial = target.with_name(target.name + ".partial")
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            write(partial)
            os.replace(partial, target)


def read_params(path: Path, name: str) -> dict[str, np.ndarray]:
    """params/NAME.safetensors of a run folder. Raises InputError where that is damaged."""
    with _reading(path / "params" / f"{name}.safetensors") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def read_facts(path: Path, name: str) -> dict[str, Any]:
    """What params/NAME.safetensors says of itself: `algorithm`, and `runs`, whose learners it stacks."""
    with _reading(path / "params" / f"{name}.safetensors") as file:
        facts: dict[str, Any] = json.loads((file.metadata() or {}).get("purejaxrl", "null"))
    if not isinstance(facts, dict) or not {"algorithm", "runs"} <= facts.keys():
        raise InputError(f"cannot read {path / 'params' / name}.safetensors: it does not say whose parameters it holds")
    return facts


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """An open safetensors file; whatever goes wrong with it is an InputError."""
    try:
        with safe_open(path, "np") as file:
            yield file
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error


def check_free(path: Path, *, overwrite: bool) -> list[Path]:
    """The files of an earlier run that would make room for a new one. Raises InputError where the path is taken.

    `overwrite` lets an earlier run go, and refuses a folder that holds anything else.
    """
    check_place(path)
    try:
        files = sorted(entry for entry in path.rglob("*") if not entry.is_dir() or entry.is_symlink())
        names = [entry.relative_to(path).as_posix().replace(".partial", "") for entry in files]
    except OSError as error:
        raise InputError(f"--out: cannot read {path}: {error.strerror or error}") from error
    if files and not overwrite:
        raise InputError(f"--out: {path} exists; give --overwrite to replace it, or another --out")
    strangers = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in FILES)]
    if strangers or (files and "config.json" not in names):
        which = f"holds {strangers[0]!r}, which is not part of a run" if strangers else "has no config.json"
        raise InputError(f"--out: {path} {which}; nothing was removed")
    return files


def check_place(path: Path) -> None:
    """Raise InputError where a folder cannot be."""
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"--out: {path} is a file; give a folder")
    except OSError as error:
        raise InputError(f"--out: cannot read {path}: {error.strerror or error}") from error


def create(path: Path, *, overwrite: bool) -> RunFolder:
    """Make and lock the folder of a new run, removing an earlier one's files where `overwrite` says so.

    Raises InUseError where another process writes there, and InputError where the path is taken, see `check_free`, or
    cannot be written.
    """
    check_place(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        folder = RunFolder(path)
    except OSError as error:
        raise InputError(f"--out: cannot write to {path}: {error.strerror or error}") from error
    try:
        _clear(path, check_free(path, overwrite=overwrite))
    except BaseException:
        folder.close()
        raise
    return folder


def _clear(path: Path, files: list[Path]) -> None:
    """Remove an earlier run's files, and make sure that new ones can be written."""
    try:
        for file in files:
            file.unlink()
        for rest in ("checkpoints", "params", "export", "tensorboard"):
            shutil.rmtree(path / rest, ignore_errors=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"--out: cannot write to {path}: {error.strerror or error}") from error


def copy(source: Path, path: Path, *, overwrite: bool) -> None:
    """Copy a run's files to a folder of their own; what was begun is removed if that fails.

    Raises InputError as `create` does, and ResourceError where the disk is full.
    """
    check_run(source)
    with create(path, overwrite=overwrite):
        try:
            for file in sorted(source.rglob("*")):
                name = file.relative_to(source).as_posix()
                if file.is_file() and any(fnmatchcase(name, pattern) for pattern in FILES):
                    (path / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, path / name)
        except OSError as error:
            shutil.rmtree(path, ignore_errors=True)
            raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error


def open_existing(path: Path) -> RunFolder:
    """Lock the folder of a run that is there.

    Raises InputError where there is none or a link leads out of it, and InUseError where another process writes there.
    """
    check_run(path)
    folder = RunFolder(path)
    try:
        for leftover in path.rglob("*.partial"):
            if leftover.is_file():
                leftover.unlink()
    except OSError as error:
        folder.close()
        raise ResourceError(f"cannot clean {path}: {error.strerror or error}") from error
    return folder


def check_run(path: Path) -> None:
    """Raise InputError unless this is the folder of a run, and nothing in it is a link."""
    try:
        if not (path / "config.json").is_file():
            raise InputError(f"{path} is not a run folder: it has no config.json")
        links = [entry for entry in path.rglob("*") if entry.is_symlink()]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    if links:
        raise InputError(f"{links[0]} is a link; a run's files must be in its folder")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises InputError where it does not."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(content, dict):
        raise InputError(f"cannot read {path}: it holds no JSON object")
    return content


def plain(value: Any) -> Any:
    """JSON's own types: NaN and infinities as null, numpy's and JAX's scalars as Python's, tuples as lists."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
