"""Locks that let one process at a time write to a folder; the system releases them when the process ends."""

from __future__ import annotations

import os
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
