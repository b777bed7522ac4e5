"""The user's cache folder: programs that were compiled, and texts that take long to make. It knows nothing of JAX.

Executables are run as they are read, so the folder must be the user's own: whoever can write there can run code here.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import platformdirs

from purejaxrl.storage.files import absolute_path

VARIABLE = "PUREJAXRL_CACHE_DIR"
SWITCH = "PUREJAXRL_CACHE"
JAX_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
# What the folder may take; what was used longest ago is removed.
MAX_BYTES = 2**30
TEXT = b"purejaxrl text 1 "


class Entry(NamedTuple):
    """A file of the cache: its path, size in bytes, and when it was last used, in seconds since 1970."""

    path: Path
    bytes: int
    used: float


def cache_folder() -> Path | None:
    """Return the folder of the compilation cache: PUREJAXRL_CACHE_DIR, else the user's cache folder of this system.

    Returns:
        The folder, None for a user without a home: a container may run under an id that it has no name for.
    """
    if os.environ.get(VARIABLE):
        return absolute_path(os.environ[VARIABLE])
    try:
        folder = Path(platformdirs.user_cache_path("purejaxrl"))
    except RuntimeError:
        return None
    # Older versions of platformdirs return the path with its tilde.
    return None if folder.parts[:1] == ("~",) else folder


def program_folder() -> Path | None:
    """Return the folder that commands keep compiled programs in: one that JAX is given goes before the user's own.

    Returns:
        The folder, None where there is none.
    """
    given = os.environ.get(JAX_VARIABLE)
    return absolute_path(given) if given and not os.environ.get(VARIABLE) else cache_folder()


def is_wanted() -> bool:
    """Check that the environment variable PUREJAXRL_CACHE does not turn the cache off."""
    return os.environ.get(SWITCH) != "0"


def is_usable(folder: Path) -> bool:
    """Check that a folder, which is created if necessary, is the user's own and can be written to.

    Args:
        folder: The folder.

    Returns:
        Whether it is; `why_unused` says why not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return False
    return is_private(folder) and os.access(folder, os.W_OK)


def is_private(folder: Path) -> bool:
    """Check whether a path is a folder that belongs to the user and that nobody else can access.

    Args:
        folder: The path.

    Returns:
        Whether it is; a link to a folder is not.
    """
    found = os.lstat(folder)
    is_own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return stat.S_ISDIR(found.st_mode) and is_own and not stat.S_IMODE(found.st_mode) & 0o077


def why_unused(folder: Path | None) -> str:
    """Explain why `use_compilation_cache` keeps nothing in its folder.

    Args:
        folder: The folder, None if there is none.

    Returns:
        The reason, for users.
    """
    if folder is None:
        return f"this user has no home folder; {VARIABLE} can name another"
    if not os.path.lexists(folder):
        return f"{folder} cannot be created; {VARIABLE} can name another"
    if not is_private(folder):
        return f"{folder} is not a private folder (mode 0700)"
    return f"{folder} cannot be written to"


def remove_oldest(folder: Path, limit: int = MAX_BYTES) -> list[str]:
    """Remove the entries used longest ago until they take no more than a limit.

    Args:
        folder: The folder of the cache.
        limit: Bytes that they may take.

    Returns:
        The names of the files that were removed.
    """
    removed, found = [], entries(folder)
    size = sum(entry.bytes for entry in found)
    for entry in found:
        if size <= limit:
            break
        size -= entry.bytes
        # Another process may have removed it.
        entry.path.unlink(missing_ok=True)
        removed.append(entry.path.name)
    return removed


def entries(folder: Path) -> list[Entry]:
    """List the entries of a cache, those used longest ago first.

    Args:
        folder: The folder of the cache. In one that JAX was given, JAX's own entries are not the package's business.

    Returns:
        The entries. A program that a killed process wrote in part counts once it is an hour old.
    """
    found = []
    for pattern in ("*.program", "*.text", "*.partial", *(("*-cache", "*-atime") if folder == cache_folder() else ())):
        for path in folder.glob(pattern):
            # Another process may remove it at the same time.
            with suppress(OSError):
                status = path.stat()
                # Where the file system does not note when a file is read, that it was written.
                used = max(status.st_atime, status.st_mtime)
                if path.suffix != ".partial" or used < time.time() - 3600:
                    found.append(Entry(path, status.st_size, used))
    return sorted(found, key=lambda entry: entry.used)


@functools.cache
def hash_of_source(root: Path = Path(__file__).parents[1]) -> str:
    """Hash the source of this package.

    Args:
        root: Where it is.

    Returns:
        The hash of all names and contents.
    """
    digest = hashlib.sha256()
    # An editor's lock may be a link to nothing.
    for path in sorted(path for path in root.rglob("*.py") if path.is_file()):
        digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def replace_file(path: Path, content: bytes) -> None:
    """Write a file of the cache whole or not at all, while other processes may write the same one; its mode is 0600.

    Args:
        path: The file.
        content: Its content.

    Raises:
        OSError: If it cannot be written.
    """
    number, written = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
        os.replace(written, path)
    except BaseException:
        os.unlink(written)
        raise


def find_text(**made_from: Any) -> tuple[Path | None, str | None]:
    """Look up a text that was made earlier.

    Args:
        **made_from: Everything that decides what it says, besides the source of this package.

    Returns:
        The file to keep it in, None if nothing is kept; the text, None if it has to be made.
    """
    folder = cache_folder()
    if folder is None or not is_wanted() or not is_usable(folder):
        return None, None
    key = json.dumps({**made_from, "source": hash_of_source()}, sort_keys=True)
    path = folder / f"{hashlib.sha256(key.encode()).hexdigest()}.text"
    with suppress(OSError, UnicodeDecodeError):
        first, _, text = path.read_bytes().partition(b"\n")
        if first == TEXT + hashlib.sha256(text).hexdigest().encode():
            os.utime(path)
            return path, text.decode()
    return path, None


def keep_text(path: Path, text: str) -> None:
    """Keep a text for the next time; where it cannot be written, it is made again.

    Args:
        path: What `find_text` returned.
        text: The text.
    """
    content = text.encode()
    with suppress(OSError):
        replace_file(path, TEXT + hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
        remove_oldest(path.parent)
