"""The files of a run: config.json, episodes.csv, metrics.csv, summary.json, params/, pictures."""

from __future__ import annotations

import json
import math
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from purejaxrl.errors import InputError, ResourceError

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
    "params/last*.safetensors",
    "params/best*.safetensors",
)


class RunFolder:
    """A folder that is being written. Every write reports a full or broken disk as ResourceError, naming the path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.columns: dict[str, tuple[str, ...]] = {}

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file whole or not at all. NaN becomes null."""
        text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
        self._write(name, lambda path: path.write_text(text))

    def append(self, name: str, table: dict[str, np.ndarray]) -> None:
        """Append the rows of a table, column by column, to a CSV file; NaN is an empty field.

        The first call writes the header; later ones may leave columns out, but not add any.
        """
        target = self.path / name
        try:
            is_new = not target.exists()
            with target.open("a", newline="") as file:
                if is_new:
                    self.columns[name] = tuple(table)
                    file.write(",".join(table) + "\n")
                columns = self.columns[name]
                if set(table) - set(columns):
                    raise InputError(f"{target}: {(set(table) - set(columns)).pop()} is reported by some runs only")
                rows = len(next(iter(table.values())))
                cells = [cells_of(table[column]) if column in table else [""] * rows for column in columns]
                file.writelines(",".join(row) + "\n" for row in zip(*cells, strict=True))
        except OSError as error:
            raise ResourceError(f"cannot write {target}: {error.strerror or error}") from error

    def append_file(self, name: str, content: bytes | bytearray) -> None:
        """Append another CSV file of the same kind, header included, to one of this folder."""
        header, _, rows = bytes(content).partition(b"\n")
        target = self.path / name
        try:
            if not target.exists():
                target.write_bytes(content)
                return
            with target.open("rb+") as file:
                if file.readline().rstrip(b"\n") != header:
                    raise InputError(f"{target}: some runs report other columns: {header.decode()}")
                file.seek(0, os.SEEK_END)
                file.write(rows)
        except OSError as error:
            raise ResourceError(f"cannot write {target}: {error.strerror or error}") from error

    def write_bytes(self, name: str, content: bytes | bytearray) -> None:
        """Write a file whole or not at all."""
        self._write(name, lambda path: path.write_bytes(content))

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

    def read_facts(self, name: str) -> dict[str, Any]:
        """What params/NAME.safetensors says of itself: `algorithm`, and `runs`, whose learners it stacks."""
        with safe_open(self.path / "params" / f"{name}.safetensors", "np") as file:
            facts: dict[str, Any] = json.loads(file.metadata()["purejaxrl"])
        return facts

    def _write(self, name: str, write: Any) -> None:
        target = self.path / name
        partial = target.with_name(target.name + ".partial")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(partial)
            os.replace(partial, target)
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


def cells_of(values: np.ndarray) -> list[str]:
    """CSV fields: whole numbers and text as they are, others with the digits that float32 needs, NaN empty."""
    if not np.issubdtype(values.dtype, np.floating):
        return list(map(str, values.tolist()))
    return ["" if value != value else f"{value:.9g}" for value in values.tolist()]


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
