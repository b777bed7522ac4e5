"""Paths, and files that are written whole or not at all, with errors that name the path."""

from __future__ import annotations

import errno
import io
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purejaxrl.errors import InputError, ResourceError, reason

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Error numbers of a disk, a user's quota or a file's size limit that is exhausted.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def home_path(path: str | Path) -> Path:
    """Expand `~` in a path to the home folder.

    Raises:
        InputError: If no home folder is known.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path} is not allowed: no home folder is known for it; give a path without ~") from error


def absolute_path(path: str | Path) -> Path:
    """Make a path absolute, `~` expanded, so that a later `os.chdir` does not change what it means.

    Raises:
        InputError: If no home folder is known, or the current folder no longer exists.
    """
    try:
        return home_path(path).absolute()
    except FileNotFoundError as error:
        raise InputError(f"{path} is not allowed: the current folder is gone; give an absolute path") from error


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError raised in this context into a ResourceError that names the path being written."""
    try:
        yield
    except ResourceError:
        # It is an OSError too, and names its own path.
        raise
    except OSError as error:
        raise ResourceError(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Replace a file as a whole or not at all.

    Args:
        target: The file; its folder is created if necessary.

    Yields:
        A path beside the target to write to. What it holds when the context ends replaces the target; if the context
        raises, it is removed and the target stays as it was.

    Raises:
        ResourceError: If the system refuses to write; it names the target.
    """
    partial = target.with_name(target.name + ".partial")
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            os.replace(partial, target)
        except BaseException:
            # Half a file is of no use, and fills a disk that may be full.
            partial.unlink(missing_ok=True)
            raise


def write_json(target: Path, content: Any) -> None:
    """Write a JSON file whole or not at all; NaN becomes null.

    Raises:
        ResourceError: If it cannot be written.
    """
    text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
    with replacing(target) as partial:
        partial.write_text(text)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        InputError: If it cannot be read, or holds anything else.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"cannot read {path}: it holds no JSON object")
    return content


def plain(value: Any) -> Any:
    """Convert a value to what JSON knows, at every depth.

    NaN and infinities become None, arrays and scalars of numpy and JAX Python's lists and numbers, tuples lists, and
    keys of dicts strings.
    """
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_figure(target: Path, figure: Figure, *, metadata: dict[str, Any] | None = None) -> None:
    """Write a matplotlib figure whole or not at all, in the format that the file's suffix names.

    Args:
        target: The file.
        figure: The figure.
        metadata: As for `Figure.savefig`.

    Raises:
        ResourceError: If it cannot be written.
    """
    with replacing(target) as partial:
        # Pillow does not notice where a file ends early as the disk is full.
        content = io.BytesIO()
        figure.savefig(content, format=target.suffix[1:].lower(), metadata=metadata)
        partial.write_bytes(content.getvalue())
