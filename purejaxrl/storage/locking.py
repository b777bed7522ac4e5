"""Locks that let one process at a time write to a folder; the system releases them when the process ends."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from purejaxrl.errors import InUseError, UnsupportedError

try:
    import fcntl
except ModuleNotFoundError:
    message = "purejaxrl runs on Linux and macOS; on Windows it runs in WSL, the Windows Subsystem for Linux"
    raise UnsupportedError(message) from None


def lock(path: Path) -> int:
    """Lock a folder for this process.

    Args:
        path: The folder.

    Returns:
        A file descriptor; the lock is released when it is closed, or when the process ends.

    Raises:
        InUseError: If another process has locked the folder.
        OSError: If the folder cannot be opened.
    """
    number = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise InUseError(f"{path} is in use by another process") from None
    except OSError:
        # A file system without locks; training without one is better than refusing it.
        pass
    return number


def shared_folder(name: str) -> Path:
    """Make a folder for locks that the user's processes on this machine share.

    Args:
        name: Its name.

    Returns:
        The folder.

    Raises:
        OSError: If it cannot be made.
    """
    folder = Path(tempfile.gettempdir(), f"purejaxrl-{os.getuid()}", name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


@contextmanager
def one_at_a_time(name: str) -> Iterator[None]:
    """Let one of the user's processes on this machine at a time run a block; where locks fail, they all run it at once.

    Args:
        name: Name of the block.

    Yields:
        None, once it is this process's turn.
    """
    number = None
    with suppress(OSError):
        number = os.open(shared_folder(name), os.O_RDONLY)
        fcntl.flock(number, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if number is not None:
            os.close(number)
