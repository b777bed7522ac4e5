"""The files of a run: config.json, episodes.csv, metrics.csv, summary.json, params/, pictures."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from safetensors.numpy import load_file, save_file

from purejaxrl.errors import InputError, ResourceError

EPISODE_COLUMNS = ("run", "seed", "episode", "env_steps", "return", "length")
FILES = (
    "config.json",
    "episodes.csv",
    "metrics.csv",
    "summary.json",
    "learning_curve.png",
    "*_histogram.png",
    "params/last.safetensors",
    "params/best.safetensors",
)


class RunFolder:
    """A folder that is being written. Every write reports a full or broken disk as ResourceError, naming the path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file whole or not at all. NaN becomes null."""
        text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
        self._write(name, lambda path: path.write_text(text))

    def append_episodes(self, rows: Iterable[Sequence[Any]]) -> None:
        """Append to episodes.csv; the header is written at the first call."""
        self._append("episodes.csv", EPISODE_COLUMNS, rows)

    def append_metrics(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append to metrics.csv; the first row decides the columns. NaN is an empty field."""
        if rows:
            self._append("metrics.csv", tuple(rows[0]), (row.values() for row in rows))

    def write_params(self, name: str, params: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        """Write params/NAME.safetensors."""
        # One entry, because safetensors writes several in no fixed order.
        facts = {"purejaxrl": json.dumps(plain(metadata))}
        self._write(f"params/{name}.safetensors", lambda path: save_file(params, path, metadata=facts))

    def write_picture(self, name: str, figure: Figure) -> None:
        """Write a matplotlib figure as PNG."""
        self._write(name, lambda path: figure.savefig(path, format="png", metadata={"Software": None}))

    def read_params(self, name: str) -> dict[str, np.ndarray]:
        """Read params/NAME.safetensors."""
        return load_file(self.path / "params" / f"{name}.safetensors")

    def _write(self, name: str, write: Any) -> None:
        target = self.path / name
        partial = target.with_name(target.name + ".partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(partial)
            os.replace(partial, target)
        except OSError as error:
            raise ResourceError(f"cannot write {target}: {error.strerror or error}") from error

    def _append(self, name: str, columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> None:
        target = self.path / name
        try:
            is_new = not target.exists()
            with target.open("a", newline="") as file:
                if is_new:
                    file.write(",".join(columns) + "\n")
                file.writelines(",".join(map(cell, row)) + "\n" for row in rows)
        except OSError as error:
            raise ResourceError(f"cannot write {target}: {error.strerror or error}") from error


def check_free(path: Path, *, overwrite: bool) -> list[Path]:
    """The files of an earlier run that would make room for a new one. Raises InputError where the path is taken.

    `overwrite` lets an earlier run go, and refuses a folder that holds anything else.
    """
    try:
        if not path.exists():
            return []
        if not path.is_dir():
            raise InputError(f"--out: {path} is a file; give a folder")
        files = sorted(entry for entry in path.rglob("*") if not entry.is_dir() or entry.is_symlink())
        names = [entry.relative_to(path).as_posix().removesuffix(".partial") for entry in files]
    except OSError as error:
        raise InputError(f"--out: cannot read {path}: {error.strerror or error}") from error
    if files and not overwrite:
        raise InputError(f"--out: {path} exists; give --overwrite to replace it, or another --out")
    strangers = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in FILES)]
    if strangers or (files and "config.json" not in names):
        which = f"holds {strangers[0]!r}, which is not part of a run" if strangers else "has no config.json"
        raise InputError(f"--out: {path} {which}; nothing was removed")
    return files


def create(path: Path, *, overwrite: bool) -> RunFolder:
    """Make the folder of a new run, removing an earlier one's files where `overwrite` says so.

    Raises InputError where the path is taken, see `check_free`, or cannot be written.
    """
    earlier = check_free(path, overwrite=overwrite)
    try:
        for file in earlier:
            file.unlink()
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"--out: cannot write to {path}: {error.strerror or error}") from error
    return RunFolder(path)


def cell(value: Any) -> str:
    """One CSV field: whole numbers as they are, others with the digits that float32 needs, NaN empty."""
    if isinstance(value, int | np.integer):
        return str(int(value))
    return "" if math.isnan(value) else f"{value:.9g}"


def plain(value: Any) -> Any:
    """JSON's own types: NaN and infinities as null, numpy's and JAX's scalars as Python's, tuples as lists."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
