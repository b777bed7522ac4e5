"""Compiled programs kept between processes, so that the second run of a setting starts at once.

JAX deserialises executables from this folder, so it must be the user's own: whoever can write there can run code here.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress
from pathlib import Path

import jax

from purejaxrl.storage.cache import VARIABLE, cache_folder, is_private, is_usable, is_wanted

# What `configure` was told for this process.
_WANTED = {"cache": True}
ZSTANDARD = b"\x28\xb5\x2f\xfd"
# Its time is that of the last check for damaged entries.
CHECKED = ".checked"


def configure(*, cache: bool) -> None:
    """Configure the package for this process.

    Args:
        cache: Whether compiled programs are kept in a cache folder, from which later processes read them. It is on
            unless the environment variable PUREJAXRL_CACHE is 0.
    """
    _WANTED["cache"] = cache


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
    if folder is None or not is_usable(folder):
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
    return _WANTED["cache"] and is_wanted() and bool(jax.config.values["jax_enable_compilation_cache"])
