"""Compiled programs kept between processes, so that the second run of a setting starts at once.

JAX deserialises executables from this folder, so it must be the user's own: whoever can write there can run code here.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import jax
import platformdirs

VARIABLE = "PUREJAXRL_CACHE_DIR"


def cache_folder() -> Path:
    """Where the environment variable PUREJAXRL_CACHE_DIR says, else the user's cache folder of this system."""
    return Path(os.environ.get(VARIABLE) or platformdirs.user_cache_path("purejaxrl"))


def use_compilation_cache() -> Path | None:
    """Let JAX keep compiled programs in `cache_folder`, for the whole process; only a program should decide that.

    Returns the folder, or None where it cannot be the user's own alone (mode 0700): then nothing is kept.
    """
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return None
    if not is_private(folder):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder


def is_private(folder: Path) -> bool:
    """Whether this is a folder, no link to one, which belongs to the user and which nobody else has any right to."""
    found = os.lstat(folder)
    is_own = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return stat.S_ISDIR(found.st_mode) and is_own and not stat.S_IMODE(found.st_mode) & 0o077
