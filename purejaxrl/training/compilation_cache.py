"""Compiled programs kept between processes, so that the second run of a setting starts at once.

JAX deserialises executables from this folder, so it must be the user's own: whoever can write there can run code here.
"""

from __future__ import annotations

import os
import stat
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import jax
import platformdirs

from purejaxrl.storage.files import absolute_path

VARIABLE = "PUREJAXRL_CACHE_DIR"
SWITCH = "PUREJAXRL_CACHE"
# What `configure` was told for this process.
_WANTED = {"cache": True}
ZSTANDARD = b"\x28\xb5\x2f\xfd"
# Its time is that of the last check for damaged entries.
CHECKED = ".checked"
# What the folder may take; what was used longest ago is removed.
MAX_BYTES = 2**30


class Entry(NamedTuple):
    """A file of the cache: its path, size in bytes, and when it was last used, in seconds since 1970."""

    path: Path
    bytes: int
    used: float


def configure(*, cache: bool) -> None:
    """Configure the package for this process.

    Args:
        cache: Whether compiled programs are kept in a cache folder, from which later processes read them. It is on
            unless the environment variable PUREJAXRL_CACHE is 0.
    """
    _WANTED["cache"] = cache


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


def use_compilation_cache() -> Path | None:
    """Let JAX keep compiled programs in `cache_folder` for the whole process.

    A folder that JAX itself was given (JAX_COMPILATION_CACHE_DIR) is used as it is, unless PUREJAXRL_CACHE_DIR names
    another.

    Returns:
        The folder. None where nothing is kept: because it is not wanted, see `is_enabled`, because there is no folder
        to write to, or because others can access it (its mode is not 0700); `why_unused` tells these apart.
    """
    if not is_enabled():
        return None
    given = jax.config.values["jax_compilation_cache_dir"]
    if given and not os.environ.get(VARIABLE):
        return Path(given)
    folder = cache_folder()
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return None
    if not is_private(folder) or not os.access(folder, os.W_OK):
        return None
    if jax.config.values["jax_compilation_cache_dir"] != str(folder):
        remove_damaged(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder


def private_folder() -> Path | None:
    """Return the folder that `use_compilation_cache` has chosen.

    Returns:
        The folder. None where nothing is kept, or where others can access it, as a folder may be that JAX was given.
    """
    given = jax.config.values["jax_compilation_cache_dir"]
    if not is_enabled() or not given or not os.path.isdir(given) or not is_private(Path(given)):
        return None
    return Path(given)


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
    for pattern in ("*.program", "*.partial", *(("*-cache", "*-atime") if folder == cache_folder() else ())):
        for path in folder.glob(pattern):
            # Another process may remove it at the same time.
            with suppress(OSError):
                status = path.stat()
                # Where the file system does not note when a file is read, that it was written.
                used = max(status.st_atime, status.st_mtime)
                if path.suffix != ".partial" or used < time.time() - 3600:
                    found.append(Entry(path, status.st_size, used))
    return sorted(found, key=lambda entry: entry.used)


def remove_damaged(folder: Path) -> list[str]:
    """Remove truncated entries left by a killed process, which JAX would warn of in every later process.

    Only entries that are newer than the last check are read. Those that zstandard has compressed are left alone.

    Args:
        folder: The folder of the cache.

    Returns:
        The names of the entries that were removed.
    """
    stamp, removed, last = folder / CHECKED, [], 0.0
    with suppress(OSError):
        last = stamp.stat().st_mtime
    with suppress(OSError):
        stamp.touch()
    for entry in folder.glob("*-cache"):
        # Another process may remove it at the same time.
        with suppress(OSError):
            if entry.stat().st_mtime >= last and _is_truncated(entry.read_bytes()):
                entry.unlink()
                removed.append(entry.name)
    return removed


def _is_truncated(content: bytes) -> bool:
    """Check whether an entry that zlib has compressed ends early."""
    if content.startswith(ZSTANDARD):
        return False
    stream = zlib.decompressobj()
    try:
        stream.decompress(content)
    except zlib.error:
        return True
    return not stream.eof


def is_enabled() -> bool:
    """Check whether compiled programs are to be kept: JAX_ENABLE_COMPILATION_CACHE and PUREJAXRL_CACHE can be 0."""
    is_wanted = _WANTED["cache"] and os.environ.get(SWITCH) != "0"
    return is_wanted and bool(jax.config.values["jax_enable_compilation_cache"])


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
