"""Standard output and standard error, which may be closed, full, or read by nobody."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any


class _SafeStream:
    """A text stream that raises nothing: its first failure is kept in `failure`.

    Characters that the encoding lacks are written as Python escapes them. Without an inner stream all is dropped.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.failure: Exception | None = None

    def write(self, text: str) -> int:
        with self._remembering():
            if self.inner is not None:
                self._write(text)
        return len(text)

    def flush(self) -> None:
        with self._remembering():
            if self.inner is not None:
                self.inner.flush()

    def isatty(self) -> bool:
        with self._remembering():
            return self.inner is not None and bool(self.inner.isatty())
        return False

    def divert(self) -> None:
        """Drop what could not be written, as the interpreter would try it once more at its end, and fail."""
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


def shorten_path(path: Path) -> Path:
    """Shorten a path for printing.

    Args:
        path: An absolute path.

    Returns:
        The path relative to the current folder, where it lies in there.
    """
    # The current folder may be gone.
    with suppress(OSError, ValueError):
        return path.relative_to(Path.cwd())
    return path


@contextmanager
def safe_streams() -> Iterator[_SafeStream]:
    """Replace standard output and error so that printing cannot fail in this context.

    Yields:
        Standard output, whose `failure` tells what went wrong.
    """
    output, errors = _SafeStream(sys.stdout), _SafeStream(sys.stderr)
    with redirect_stdout(output), redirect_stderr(errors):
        try:
            yield output
        finally:
            for stream in (output, errors):
                stream.flush()
                if stream.failure is not None:
                    stream.divert()


def open_closed() -> None:
    """Open standard input, output and error on the null device where they are closed.

    Otherwise the files opened next would get their numbers, and receive what libraries write to standard error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It gets this number: the lowest that is free.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
