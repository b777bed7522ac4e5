"""The errors that a user can act on, each with its exit code, and helpers for messages."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from contextlib import suppress
from typing import Any

# Characters that messages show of a value, of another error with its kind, and of another error's message alone.
MAX_VALUE, MAX_ERROR, MAX_REASON = 80, 400, 200

LOG = logging.getLogger("purejaxrl")

# The dashes before an option's name; not those within a quoted value or a path.
DASHES = re.compile(r"(?<![^\s(])--(?=[a-z_]+(?![\w-]))")


class PurejaxrlError(Exception):
    """Base of the errors that are reported in one line, without a traceback.

    Messages are written once, and name options as flags: `--lr: 0 is not allowed; ...`. The command line shows them so,
    by `with_flags`; `str`, and so every traceback, names the arguments of Python: `lr: 0 is not allowed; ...`.

    Attributes:
        exit_code: The exit code of the command line.
    """

    exit_code = 1

    def __str__(self) -> str:
        return DASHES.sub("", self.with_flags)

    @property
    def with_flags(self) -> str:
        """The message with options named as flags."""
        return " ".join(map(str, self.args))


class InputError(PurejaxrlError, ValueError):
    """A flag, an argument or a file holds a value that is not allowed."""

    exit_code = 2


class InUseError(PurejaxrlError):
    """Another process is writing the run folder."""

    exit_code = 3


class CheckpointError(PurejaxrlError):
    """A checkpoint is damaged, or does not belong to the training that is to be resumed."""

    exit_code = 4


class DivergedError(PurejaxrlError):
    """A run diverged, and the training was asked to stop in that case."""

    exit_code = 5


class ResourceError(PurejaxrlError, OSError):
    """The disk is full or cannot be written, or there is not enough memory."""

    exit_code = 6


class ClusterError(PurejaxrlError, RuntimeError):
    """The workers of a sweep, or what gives them work, are gone, or none of them could train a run."""


class UnsupportedError(PurejaxrlError, RuntimeError):
    """The package cannot work on this system, or in a process that was started in this way."""


def in_brief(value: Any) -> str:
    """Show a value in one line, cut after 80 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}..."


def in_one_line(error: Exception) -> str:
    """Show the kind of an error and its message in one line, cut after 400 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:MAX_ERROR]}"


def reason(error: Exception) -> str:
    """Show an error's message in one line, cut after 200 characters; of an OSError without its number and path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:MAX_REASON]


def warn(text: str, *, stacklevel: int = 2) -> None:
    """Issue a warning on a line of its own, and go on even if standard error is closed, full, or read by nobody.

    Args:
        text: The message.
        stacklevel: As for `warnings.warn`, which still raises what a filter has turned into an error.
    """
    # Imported here, as most commands warn of nothing.
    from tqdm import tqdm

    # A progress bar is taken away for that time: it ends in the middle of a line.
    with suppress(OSError, ValueError), tqdm.external_write_mode(file=sys.stderr):
        warnings.warn(text, stacklevel=stacklevel + 1)


def log(text: str, *values: object) -> None:
    """Add a line to the package's log, and go on if that fails.

    Args:
        text: The line, with placeholders as for `logging.info`.
        *values: What takes their places.
    """
    with suppress(OSError, ValueError):
        LOG.info(text, *values, stacklevel=2)
