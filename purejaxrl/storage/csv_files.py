"""CSV files that grow as training goes on: appended to, hashed meanwhile, and cut back to where a checkpoint was."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from purejaxrl.errors import CheckpointError, InputError
from purejaxrl.storage.files import writing

LOGS = ("episodes.csv", "metrics.csv")
READ_BYTES = 1 << 20

Table = dict[str, np.ndarray]


class Log:
    """What has been written to one CSV file.

    Attributes:
        columns: Names of its columns.
        size: Its length in bytes.
        digest: Running SHA-256 hash of these bytes.
    """

    def __init__(self, columns: tuple[str, ...]) -> None:
        """Begin an empty file with these columns."""
        self.columns = columns
        self.size = 0
        self.digest = hashlib.sha256()

    def add(self, content: bytes) -> None:
        """Count and hash bytes that were appended to the file."""
        self.size += len(content)
        self.digest.update(content)


class Logs:
    """The growing CSV files of a folder, by name.

    Every method that writes raises ResourceError, which names the path, if the disk is full or refuses to write.

    Attributes:
        path: The folder.
        begun: What has been written to each file that has been begun, by its name.
    """

    def __init__(self, path: Path) -> None:
        """Write to a folder, in which none of the files has been begun."""
        self.path = path
        self.begun: dict[str, Log] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.begun

    def append(self, name: str, table: Table) -> None:
        """Append the rows of a table to a file.

        Args:
            name: The file. The first table also becomes its header.
            table: Values by column, all of one length; NaN is an empty field. Columns that later tables lack are empty.

        Raises:
            InputError: If a later table has a column that the first had not.
        """
        self.append_text(name, self.format(name, table))

    def format(self, name: str, table: Table) -> str:
        """Return the text that `append` would write; arguments and errors as there."""
        if name not in self:
            return csv_text(table)
        columns = self.begun[name].columns
        if set(table) - set(columns):
            raise InputError(f"{self.path / name}: {(set(table) - set(columns)).pop()} is reported by some runs only")
        return _rows_text(table, columns)

    def append_text(self, name: str, text: str) -> None:
        """Append text that `format` has returned to a file; its first line becomes the header of a new one."""
        if not text:
            return
        path, content = self.path / name, text.encode()
        with writing(path), path.open("ab" if name in self else "xb") as file:
            file.write(content)
        self.begun.setdefault(name, Log(tuple(text.partition("\n")[0].split(",")))).add(content)

    def positions(self) -> dict[str, dict[str, Any]]:
        """Bring the files to the disk, and return how far each has been written: its `bytes` and their `sha256`."""
        for name in self.begun:
            with writing(self.path / name), (self.path / name).open("rb") as file:
                os.fsync(file.fileno())
        return {name: {"bytes": log.size, "sha256": log.digest.hexdigest()} for name, log in self.begun.items()}

    def verify(self, positions: dict[str, dict[str, Any]]) -> None:
        """Check that the files begin as they did, and continue from there once `rewind` has cut them; changes no file.

        Args:
            positions: What `positions` returned at an earlier time.

        Raises:
            CheckpointError: If a file does not begin with what had been written at that time.
        """
        for name in LOGS:
            if name not in positions:
                continue
            path, size = self.path / name, positions[name]["bytes"]
            try:
                with path.open("rb") as file:
                    log = Log(tuple(file.readline().decode().rstrip("\n").split(",")))
                    file.seek(0)
                    while block := file.read(min(READ_BYTES, size - log.size)):
                        log.add(block)
            except (OSError, UnicodeDecodeError) as error:
                raise CheckpointError(f"cannot go on with {path}: {error}") from error
            if log.size < size or log.digest.hexdigest() != positions[name]["sha256"]:
                raise CheckpointError(f"{path} has been changed since the checkpoint was written")
            self.begun[name] = log

    def rewind(self) -> None:
        """Cut every file to what `verify` has checked, and remove those that had not been begun then."""
        for name in LOGS:
            path = self.path / name
            with writing(path):
                if name in self:
                    os.truncate(path, self.begun[name].size)
                else:
                    path.unlink(missing_ok=True)


def read_numbers(path: Path, columns: Sequence[str]) -> Table:
    """Read columns of numbers from a CSV file.

    pandas takes longer to import than a training may take.

    Args:
        path: The file.
        columns: Names of the columns; an empty field in one is NaN.

    Returns:
        Values by column, [rows] each.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it lacks a column, or holds anything but numbers.
    """
    header, _, rows = path.read_bytes().partition(b"\n")
    found = header.decode().rstrip("\r").split(",")
    if missing := [name for name in columns if name not in found]:
        raise ValueError(f"it has no column {missing[0]}")
    if not rows.strip():
        return {name: np.empty(0) for name in columns}
    whole = io.BytesIO(re.sub(rb",(?=[,\r\n]|$)", b",nan", rows))
    places = [found.index(name) for name in columns]
    values = np.loadtxt(whole, delimiter=",", comments=None, usecols=places, unpack=True, ndmin=2)
    return dict(zip(columns, values, strict=True))


def csv_text(table: Table) -> str:
    """Format a table, given as column -> values, as a CSV file with a header."""
    return ",".join(table) + "\n" + _rows_text(table, tuple(table))


def _rows_text(table: Table, columns: tuple[str, ...]) -> str:
    """Format the rows of a CSV file with these columns; those that the table lacks are empty."""
    rows = len(next(iter(table.values())))
    cells = [_cells(table[column]) if column in table else [""] * rows for column in columns]
    return "".join(",".join(row) + "\n" for row in zip(*cells, strict=True))


def _cells(values: np.ndarray) -> list[str]:
    """Format CSV fields: whole numbers and text as they are, others with the digits that float32 needs, NaN empty."""
    if not np.issubdtype(values.dtype, np.floating):
        return list(map(str, values.tolist()))
    return ["" if value != value else f"{value:.9g}" for value in values.tolist()]
