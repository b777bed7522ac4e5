"""Errors that a user can act on, each with the exit code of the command line; and what is said where none is raised."""

from __future__ import annotations

import errno
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

# Characters of a value that messages show, and of what another error says.
LONGEST = 80
LONGEST_REASON = 400

LOG = logging.getLogger("purejaxrl")


# The dashes before an option's name; not those within a quoted value or a path.
DASHES = re.compile(r"(?<![^\s(])--(?=[a-z_]+(?![\w-]))")


class PurejaxrlError(Exception):
    """Base of the errors that are reported in one line, without a traceback.

    Messages are written once, and name options as flags: `--lr: 0 is not allowed; ...`. The command line shows them so,
    by `with_flags`; `str`, and so every traceback, names the arguments of Python: `lr: 0 is not allowed; ...`.
    """

    exit_code = 1

    def __str__(self) -> str:
        return DASHES.sub("", self.with_flags)

    @property
    def with_flags(self) -> str:
        """The message as it was written."""
        return " ".join(map(str, self.args))


class InputError(PurejaxrlError, ValueError):
    """A flag, argument or file holds a value that is not allowed."""

    exit_code = 2


class InUseError(PurejaxrlError):
    """Another process is writing the run folder."""

    exit_code = 3


class CheckpointError(PurejaxrlError):
    """A checkpoint is damaged, or belongs to another training than the one that is to go on."""

    exit_code = 4


class DivergedError(PurejaxrlError):
    """A run diverged where that shall stop the training."""

    exit_code = 5


class ResourceError(PurejaxrlError, OSError):
    """The disk or the memory does not suffice."""

    exit_code = 6


class UnsupportedError(PurejaxrlError, RuntimeError):
    """The package cannot work on this system, or in a process that was started in this way."""


def in_brief(value: Any) -> str:
    """A value as an error's one line can hold it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def warn(text: str, *, stacklevel: int = 2) -> None:
    """Warn, and go on even where standard error is closed, full, or read by nobody.

    stacklevel: as for `warnings.warn`, which still raises what a filter has turned into an error.
    """
    with suppress(OSError, ValueError):
        warnings.warn(text, stacklevel=stacklevel + 1)


def log(text: str, *values: object) -> None:
    """Add a line to the package's log, and go on where that fails. text, values: as for `logging.info`."""
    with suppress(OSError, ValueError):
        LOG.info(text, *values, stacklevel=2)


def in_one_line(error: Exception) -> str:
    """The kind of an error and the beginning of its message."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST_REASON]}"


def home_path(path: str | Path) -> Path:
    """A path with the home folder for `~`, else as it is. Raises InputError where no home folder is known."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path} is not allowed: no home folder is known for it; give a path without ~") from error


def absolute_path(path: str | Path) -> Path:
    """A path as it is kept: no later `os.chdir` makes another of it. `~` is the home folder.

    Raises InputError where no home folder is known, or the current folder is gone.
    """
    try:
        return home_path(path).absolute()
    except FileNotFoundError as error:
        raise InputError(f"{path} is not allowed: the current folder is gone; give an absolute path") from error


# What the system says where a disk, or a user's share of it, is full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses in here is a ResourceError that names the path."""
    try:
        yield
    except ResourceError:
        # It is an OSError too, and names its own path.
        raise
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error


def reason(error: Exception) -> str:
    """What an error says, in one line; of the system's errors without the number and the path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:200]
