"""One process at a time in a folder: the system's lock on the folder itself, which does not outlive its process."""

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
    """Lock a folder for this process; the system unlocks it when the returned descriptor is closed, or at its end.

    Raises InUseError where another process has locked it.
    """
    number = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise InUseError(f"{path} is in use by another process") from None
    except OSError:
        # A file system without locks; better to go on than to refuse it.
        pass
    return number
