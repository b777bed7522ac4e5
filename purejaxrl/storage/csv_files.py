"""CSV files that grow as training goes on: appended to, hashed meanwhile, and cut back to where a checkpoint stood."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from purejaxrl.errors import CheckpointError, InputError, writing

LOGS = ("episodes.csv", "metrics.csv")
READ_BYTES = 1 << 20

Table = dict[str, np.ndarray]


class Log:
    """One of the files: its columns, how many bytes it has, and their running hash."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.size = 0
        self.digest = hashlib.sha256()

    def add(self, content: bytes | bytearray | memoryview) -> None:
        """Count bytes in that stand in the file."""
        self.size += len(content)
        self.digest.update(content)


class Logs:
    """The growing CSV files of a folder, by name. A disk that does not suffice is a ResourceError naming the path."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun: dict[str, Log] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.begun

    def append(self, name: str, table: Table) -> None:
        """Append the rows of a table, column by column; NaN is an empty field.

        The first call writes the header; later ones may leave columns out, but not add any.
        """
        self.append_text(name, self.text_of(name, table))

    def text_of(self, name: str, table: Table) -> str:
        """What `append` would write."""
        if name not in self:
            return csv_text(table)
        columns = self.begun[name].columns
        if set(table) - set(columns):
            raise InputError(f"{self.path / name}: {(set(table) - set(columns)).pop()} is reported by some runs only")
        return rows_text(table, columns)

    def append_text(self, name: str, text: str) -> None:
        """Append what `text_of` has returned."""
        if text:
            self._append(name, text.encode(), tuple(text.partition("\n")[0].split(",")))

    def append_file(self, name: str, content: bytes | bytearray) -> None:
        """Append another file of the same kind, header included."""
        header, _, rows = bytes(content).partition(b"\n")
        columns = tuple(header.decode().split(","))
        if name in self and self.begun[name].columns != columns:
            raise InputError(f"{self.path / name}: some runs report other columns: {header.decode()}")
        self._append(name, rows if name in self else bytes(content), columns)

    def _append(self, name: str, content: bytes, columns: tuple[str, ...]) -> None:
        path = self.path / name
        with writing(path), path.open("ab" if name in self else "xb") as file:
            file.write(content)
        self.begun.setdefault(name, Log(columns)).add(content)

    def standing(self) -> dict[str, dict[str, Any]]:
        """How far every file has been written, once that is on the disk: its bytes and their hash."""
        for name in self.begun:
            with writing(self.path / name), (self.path / name).open("rb") as file:
                os.fsync(file.fileno())
        return {name: {"bytes": log.size, "sha256": log.digest.hexdigest()} for name, log in self.begun.items()}

    def verify(self, standing: dict[str, dict[str, Any]]) -> None:
        """Take in how far the files had been written at an earlier `standing`. Nothing is changed.

        Raises CheckpointError where a file does not begin with what had been written then.
        """
        for name in LOGS:
            if name not in standing:
                continue
            path = self.path / name
            try:
                log = read_log(path, standing[name]["bytes"])
            except (OSError, UnicodeDecodeError) as error:
                raise CheckpointError(f"cannot go on with {path}: {error}") from error
            if log.size < standing[name]["bytes"] or log.digest.hexdigest() != standing[name]["sha256"]:
                raise CheckpointError(f"{path} has been changed since the checkpoint was written")
            self.begun[name] = log

    def rewind(self) -> None:
        """Cut every file where `verify` has found it; those that had not been begun then are removed."""
        for name in LOGS:
            path = self.path / name
            with writing(path):
                if name in self:
                    os.truncate(path, self.begun[name].size)
                else:
                    path.unlink(missing_ok=True)


def read_log(path: Path, size: int) -> Log:
    """The first `size` bytes of a CSV file, or all where it has fewer."""
    with path.open("rb") as file:
        log = Log(tuple(file.readline().decode().rstrip("\n").split(",")))
        file.seek(0)
        while block := file.read(min(READ_BYTES, size - log.size)):
            log.add(block)
    return log


def csv_text(table: Table) -> str:
    """A table, column by column, as a CSV file."""
    return ",".join(table) + "\n" + rows_text(table, tuple(table))


def rows_text(table: Table, columns: tuple[str, ...]) -> str:
    """The rows of a CSV file with these columns; those that the table lacks are empty."""
    rows = len(next(iter(table.values())))
    cells = [cells_of(table[column]) if column in table else [""] * rows for column in columns]
    return "".join(",".join(row) + "\n" for row in zip(*cells, strict=True))


def cells_of(values: np.ndarray) -> list[str]:
    """CSV fields: whole numbers and text as they are, others with the digits that float32 needs, NaN empty."""
    if not np.issubdtype(values.dtype, np.floating):
        return list(map(str, values.tolist()))
    return ["" if value != value else f"{value:.9g}" for value in values.tolist()]
