"""Standard output and standard error of the program, which may be closed, full, or read by nobody."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any


class Stream:
    """A text stream whose failures raise nothing; the first one is remembered.

    inner: the stream behind it, None where there is none: then what is written goes nowhere. Characters that its
    encoding lacks are written as Python escapes them.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.failure: Exception | None = None

    def write(self, text: str) -> int:
        """Write what can be written."""
        with self._remembering():
            if self.inner is not None:
                self._write(text)
        return len(text)

    def flush(self) -> None:
        """Hand over what has been written."""
        with self._remembering():
            if self.inner is not None:
                self.inner.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        with self._remembering():
            return self.inner is not None and bool(self.inner.isatty())
        return False

    def divert(self) -> None:
        """Let what could not be written go: the interpreter would try it once more at its end, and fail."""
        with suppress(OSError, ValueError, AttributeError):
            number = os.open(os.devnull, os.O_WRONLY)
            os.dup2(number, self.inner.fileno())
            os.close(number)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _write(self, text: str) -> None:
        try:
            self.inner.write(text)
        except UnicodeEncodeError:
            encoding = self.inner.encoding
            self.inner.write(text.encode(encoding, "backslashreplace").decode(encoding))

    @contextmanager
    def _remembering(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            self.failure = self.failure or error


def shown(path: Path) -> Path:
    """A path as it is printed: from the current folder on, where it lies in there."""
    # Which may be gone.
    with suppress(OSError, ValueError):
        return path.relative_to(Path.cwd())
    return path


@contextmanager
def safe_streams() -> Iterator[Stream]:
    """While entered, nothing that is printed or shown can fail. Yields standard output."""
    output, errors = Stream(sys.stdout), Stream(sys.stderr)
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            yield output
        finally:
            for stream in (output, errors):
                stream.flush()
                if stream.failure is not None:
                    stream.divert()


def open_closed() -> None:
    """Open those of standard input, output and error that are closed, on the null device.

    Otherwise the files that are opened next get their numbers, and what a library writes to standard error ends up in
    these.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It gets this number: the lowest that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
