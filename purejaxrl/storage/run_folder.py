"""The folder of a run: which files belong to it, who may write it, and how its parameters are stored."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from purejaxrl.errors import InputError, ResourceError, reason
from purejaxrl.storage.csv_files import LOGS, Logs, csv_text
from purejaxrl.storage.files import DISK_FULL, plain, read_json, replacing, write_figure, write_json, writing
from purejaxrl.storage.locking import lock

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FILES = (
    "config.json",
    "episodes.csv",
    "metrics.csv",
    "summary.json",
    "sweep.csv",
    "improvement.csv",
    "learning_curve.png",
    "sweep.png",
    "*_histogram.png",
    "video.gif",
    "tune.csv",
    "tune.png",
    "best.json",
    "shards/*.safetensors",
    "states/*.safetensors",
    "params/last*.safetensors",
    "params/best*.safetensors",
    "export/policy.safetensors",
    "export/policy.json",
    "checkpoints/*/arrays.safetensors",
    "checkpoints/*/facts.json",
    "checkpoints/*/SHA256SUMS",
    "tensorboard/run_*/events.out.tfevents.*",
)
# In the folder of a tune, that of the run which judges its winner.
CONFIRMATION = "confirm"
FILES = (*_FILES, *(f"{CONFIRMATION}/{name}" for name in _FILES))
FOLDERS = ("checkpoints", "params", "shards", "states", "export", "tensorboard", CONFIRMATION)
# Files that operating systems put into folders which they show or share. They belong to no run and disturb none.
SYSTEM_FILES = (".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".nfs*")


class RunFolder:
    """A run folder that this process alone may write: it is locked until `close`, or until the process ends.

    Every method raises ResourceError, which names the path, if the disk is full or refuses to write.

    Attributes:
        path: The folder.
        logs: Its growing CSV files.
    """

    def __init__(self, path: Path) -> None:
        """Lock a folder.

        Args:
            path: The folder, which exists.

        Raises:
            InUseError: If another process has locked it.
        """
        self.path = path
        self.logs = Logs(path)
        self._lock: int | None = lock(path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the lock, so that other processes may write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def clear(self) -> None:
        """Remove the files of an earlier training, all but config.json."""
        with writing(self.path):
            for file in _files_below(self.path):
                name = file.relative_to(self.path).as_posix()
                if name != "config.json" and _is_part_of_run(name):
                    file.unlink()

    def write_json(self, name: str, content: Any) -> None:
        """Write the JSON file of that name whole or not at all; NaN becomes null."""
        write_json(self.path / name, content)

    def write_table(self, name: str, table: dict[str, np.ndarray]) -> None:
        """Write a table, given as column -> values, to the CSV file of that name, whole or not at all."""
        with replacing(self.path / name) as partial:
            partial.write_text(csv_text(table), encoding="utf-8")

    def write_params(self, name: str, params: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        """Write arrays by name, and metadata as JSON holds it, to params/NAME.safetensors, whole or not at all."""
        write_params(self.path / "params" / f"{name}.safetensors", params, metadata)

    def write_shard(
        self, name: str, arrays: dict[str, np.ndarray], metadata: dict[str, Any], kind: str = "shards"
    ) -> None:
        """Write arrays by name, and metadata as JSON holds it, to shards/NAME.safetensors, whole or not at all.

        Args:
            name: Name of the shard.
            arrays: Arrays by name.
            metadata: What JSON can hold.
            kind: `shards`, or `states` from which runs go on.
        """
        write_params(self.path / kind / f"{name}.safetensors", arrays, metadata)

    def remove_shards(self, names: Iterable[str], kind: str = "shards") -> None:
        """Remove shards, or states, that are not needed any more, and their folder with the last of them."""
        with writing(self.path / kind):
            for name in names:
                (self.path / kind / f"{name}.safetensors").unlink(missing_ok=True)
            if (self.path / kind).is_dir() and not any((self.path / kind).iterdir()):
                (self.path / kind).rmdir()

    def write_figure(self, name: str, figure: Figure) -> None:
        """Write a matplotlib figure to the image file of that name; equal figures become equal files."""
        write_figure(self.path / name, figure, metadata={"Software": None})


# Making, opening and copying run folders.


def create(path: Path, *, overwrite: bool, name: str = "--out") -> RunFolder:
    """Make and lock the folder of a new run.

    Args:
        path: The folder.
        overwrite: Remove the files of an earlier run, which is an error otherwise.
        name: The flag that gave the path, for error messages.

    Returns:
        The folder, locked and without files of a run.

    Raises:
        InUseError: If another process writes there.
        InputError: If the path is taken, see `check_free`, or cannot be written.
        ResourceError: If the disk is full.
    """
    check_place(path, name)
    folder = None
    try:
        path.mkdir(parents=True, exist_ok=True)
        folder = RunFolder(path)
        for file in check_free(path, overwrite=overwrite, name=name):
            file.unlink()
        for rest in FOLDERS:
            if (path / rest).exists():
                shutil.rmtree(path / rest)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except BaseException as error:
        if folder is not None:
            folder.close()
        if not isinstance(error, OSError):
            raise
        if error.errno in DISK_FULL:
            raise ResourceError(f"cannot write {path}: {reason(error)}") from error
        raise InputError(f"{name}: cannot write to {path}: {reason(error)}") from error
    return folder


def open_existing(path: Path) -> RunFolder:
    """Lock the folder of a run that exists, and remove what interrupted writes have left.

    Raises:
        InputError: If it is not a run folder, or holds a link; see `check_run`.
        InUseError: If another process writes there.
        ResourceError: If something cannot be removed.
    """
    check_run(path)
    try:
        folder = RunFolder(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error
    try:
        for leftover in path.rglob("*.partial"):
            if leftover.is_file():
                leftover.unlink()
    except OSError as error:
        folder.close()
        raise ResourceError(f"cannot clean {path}: {error.strerror or error}") from error
    return folder


def copy(source: Path, path: Path, *, overwrite: bool) -> None:
    """Copy a run's files to another folder; if that fails, the copy is removed.

    Args:
        source: The run folder.
        path: The new folder.
        overwrite: Remove the files of an earlier run there, which is an error otherwise.

    Raises:
        InputError: If the path is taken, see `create`, or a file cannot be read.
        InUseError: If another process writes there.
        ResourceError: If the disk is full.
    """
    check_run(source)
    names = [file.relative_to(source) for file in _readable_files(source)]
    with create(path, overwrite=overwrite, name="--path"):
        try:
            for name in names:
                if _is_part_of_run(name.as_posix()):
                    _copy_file(source / name, path / name)
        except (InputError, ResourceError):
            shutil.rmtree(path, ignore_errors=True)
            raise


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file's contents. Raises InputError if the source, ResourceError if the target is refused."""
    try:
        reader = source.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {source}: {reason(error)}") from error
    with reader, writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as writer:
            shutil.copyfileobj(reader, writer)


def contents(path: Path) -> dict[str, bytes]:
    """Read all files of a run, by name.

    Raises:
        InputError: If it is not a run folder, or a file cannot be read.
    """
    check_run(path)
    files = {file.relative_to(path).as_posix(): file for file in _readable_files(path)}
    try:
        return {name: file.read_bytes() for name, file in files.items() if _is_part_of_run(name)}
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {reason(error)}") from error


def write_contents(path: Path, files: dict[str, bytes]) -> None:
    """Write a run's files, as `contents` returns them.

    Raises:
        ResourceError: If one cannot be written.
    """
    for name, content in files.items():
        with writing(path / name):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)


# What a folder holds, and whether a run may be written or read there.


def check_free(path: Path, *, overwrite: bool, name: str = "--out") -> list[Path]:
    """Check that a new run may be written to a folder.

    Args:
        path: The folder, which need not exist.
        overwrite: Whether an earlier run may be there; a folder that holds anything else is refused all the same.
        name: The flag that gave the path, for error messages.

    Returns:
        The files of the earlier run, which would be removed.

    Raises:
        InputError: If the path is taken, or cannot be read.
    """
    check_place(path, name)
    try:
        files = [file for file in _files_below(path) if not is_system_file(file.name)]
    except OSError as error:
        raise InputError(f"{name}: cannot read {error.filename or path}: {reason(error)}") from error
    found = [file.relative_to(path).as_posix().replace(".partial", "") for file in files]
    if files and not overwrite:
        raise InputError(f"{name}: {path} exists; use --overwrite to replace it, or give another folder")
    strangers = [entry for entry in found if not _is_part_of_run(entry)]
    if strangers or (files and "config.json" not in found):
        which = f"holds {strangers[0]!r}, which is not part of a run" if strangers else "has no config.json"
        raise InputError(f"{name}: {path} {which}; nothing was removed")
    return files


def check_place(path: Path, name: str = "--out") -> None:
    """Check that a path is a folder, or could become one.

    Raises:
        InputError: If it is a file, or cannot be read; `name` is the flag that gave the path.
    """
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"{name}: {path} is a file; give a folder")
    except OSError as error:
        raise InputError(f"{name}: cannot read {path}: {error.strerror or error}") from error


def check_run(path: Path) -> None:
    """Check that a path is the folder of a run, and that nothing in it is a link, which could lead anywhere.

    Raises:
        InputError: If not, or if it cannot be read.
    """
    try:
        if not path.exists():
            raise InputError(f"{path} is not a run folder: it does not exist")
        if not stat.S_ISREG((path / "config.json").stat().st_mode):
            raise InputError(f"{path} is not a run folder: its config.json is no file")
        links = [entry for entry in path.rglob("*") if entry.is_symlink()]
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} is not a run folder: it has no config.json") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error
    if links:
        raise InputError(f"{links[0]} is a link; a run's files must be in its folder")


def _is_part_of_run(name: str) -> bool:
    """Tell whether a run folder has files of this name, such as params/last.safetensors."""
    return any(fnmatchcase(name, pattern) for pattern in FILES)


def is_system_file(name: str) -> bool:
    """Tell whether the operating system makes files of this name, such as .DS_Store."""
    return any(fnmatchcase(name, pattern) for pattern in SYSTEM_FILES)


def has_ended(path: Path) -> bool:
    """Tell whether the training in a run folder came to its end, by summary.json.

    Raises:
        InputError: If summary.json is damaged.
    """
    file = path / "summary.json"
    return file.exists() and read_json(file).get("stopped_by", "") is None


def find_results(path: Path) -> list[str]:
    """Name the files of a run folder that hold rows or parameters.

    Raises:
        InputError: If one cannot be read.
    """
    found = []
    for name in LOGS:
        try:
            with (path / name).open("rb") as lines:
                # A header alone is no result.
                found += [name] * (len(list(itertools.islice(lines, 2))) == 2)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise InputError(f"cannot read {path / name}: {reason(error)}") from error
    return found + [f"params/{name}.safetensors" for kind in ("last", "best") for name in find_params(path, kind)]


def _files_below(path: Path) -> list[Path]:
    """List all files in a folder and its subfolders, links among them, sorted; none if there is no such folder."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    # Path.rglob passes over what it cannot read.
    found = [
        Path(folder, name)
        for folder, folders, names in os.walk(path, onerror=refuse)
        for name in (*folders, *names)
        if name in names or Path(folder, name).is_symlink()
    ]
    return sorted(found)


def _readable_files(path: Path) -> list[Path]:
    """List `_files_below` a run folder. Raises InputError if it cannot be read."""
    try:
        return _files_below(path)
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {reason(error)}") from error


# Parameters, in safetensors files, whose metadata says whose they are.


def write_params(target: Path, params: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    """Write a safetensors file whole or not at all.

    Args:
        target: The file.
        params: Arrays by name.
        metadata: What JSON can hold; see `read_metadata`.

    Raises:
        ResourceError: If it cannot be written.
    """
    # One entry, because safetensors writes several in no fixed order; and not by its own writer, which lets nobody but
    # the user read the file, and whose errors are not the system's.
    content = save(params, {"purejaxrl": json.dumps(plain(metadata))})
    with replacing(target) as partial:
        partial.write_bytes(content)


def find_params(path: Path, kind: str) -> list[str]:
    """List the parameter files of a run folder, by the names that `read_params` takes.

    Args:
        path: The run folder.
        kind: `last` or `best`.

    Raises:
        InputError: If params/ cannot be read.
    """
    try:
        names = os.listdir(path / "params")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read {path / 'params'}: {reason(error)}") from error
    return [name.removesuffix(".safetensors") for name in names if fnmatchcase(name, f"{kind}*.safetensors")]


def read_params(path: Path, name: str) -> dict[str, np.ndarray]:
    """Read the arrays in params/NAME.safetensors of a run folder.

    Raises:
        InputError: If the file is missing or damaged.
    """
    with _reading(path / "params" / f"{name}.safetensors") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def find_shards(path: Path, kind: str = "shards") -> list[str]:
    """List the names of the shards, or states, in a run folder, in order.

    Raises:
        InputError: If they cannot be listed.
    """
    try:
        return sorted(file.stem for file in (path / kind).glob("*.safetensors"))
    except OSError as error:
        raise InputError(f"cannot read {path / kind}: {reason(error)}") from error


def read_shard(path: Path, name: str, kind: str = "shards") -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays and the metadata of shards/NAME.safetensors, or states/, of a run folder.

    Raises:
        InputError: If the file is missing or damaged.
    """
    with _reading(path / kind / f"{name}.safetensors") as file:
        arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return arrays, json.loads((file.metadata() or {}).get("purejaxrl", "{}"))


def read_metadata(path: Path, name: str) -> dict[str, Any]:
    """Read the metadata of params/NAME.safetensors: `algorithm`, `runs`, whose learners are stacked in it, and others.

    Raises:
        InputError: If the file is missing or damaged.
    """
    with _reading(path / "params" / f"{name}.safetensors") as file:
        metadata: dict[str, Any] = json.loads((file.metadata() or {}).get("purejaxrl", "null"))
    if not isinstance(metadata, dict) or not {"algorithm", "runs"} <= metadata.keys():
        raise InputError(f"cannot read {path / 'params' / name}.safetensors: it does not say whose parameters it holds")
    return metadata


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Open a safetensors file; whatever goes wrong with it is an InputError."""
    try:
        # safetensors says of every file that it cannot open that there is none.
        path.open("rb").close()
        with safe_open(path, "np") as file:
            yield file
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error
