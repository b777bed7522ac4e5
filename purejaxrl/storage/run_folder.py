"""The files of a run: config.json, episodes.csv, metrics.csv, summary.json, params/, pictures."""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from purejaxrl.errors import FULL, InputError, ResourceError, reason, writing
from purejaxrl.storage.csv_files import LOGS, Logs, csv_text
from purejaxrl.storage.locking import lock

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = (
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
    "params/last*.safetensors",
    "params/best*.safetensors",
    "export/policy.safetensors",
    "export/policy.json",
    "checkpoints/*/arrays.safetensors",
    "checkpoints/*/facts.json",
    "checkpoints/*/SHA256SUMS",
    "tensorboard/run_*/events.out.tfevents.*",
)
# What systems put into folders that they show or share; of no run, and in no run's way.
LITTER = (".DS_Store", "._*", "Thumbs.db", "desktop.ini", ".nfs*")


class RunFolder:
    """A folder that is being written, by this process alone: it is locked until `close`, or the process's end.

    Every write reports a full or broken disk as ResourceError, naming the path.
    """

    def __init__(self, path: Path) -> None:
        """Lock the folder, which exists. Raises InUseError where another process has."""
        self.path = path
        self.logs = Logs(path)
        self._lock: int | None = lock(path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def clear(self) -> None:
        """Remove what an earlier training has written, all but config.json. Raises ResourceError."""
        with writing(self.path):
            for file in files_below(self.path):
                name = file.relative_to(self.path).as_posix()
                if name != "config.json" and is_part_of_run(name):
                    file.unlink()

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file whole or not at all. NaN becomes null."""
        write_json(self.path / name, content)

    def write_table(self, name: str, table: dict[str, np.ndarray]) -> None:
        """Write a CSV file whole or not at all."""
        with replacing(self.path / name) as partial:
            partial.write_text(csv_text(table), encoding="utf-8")

    def write_bytes(self, name: str, content: bytes | bytearray) -> None:
        """Write a file whole or not at all."""
        with replacing(self.path / name) as partial:
            partial.write_bytes(content)

    def write_params(self, name: str, params: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
        """Write params/NAME.safetensors."""
        write_params(self.path / "params" / f"{name}.safetensors", params, metadata)

    def write_figure(self, name: str, figure: Figure) -> None:
        """Write a matplotlib figure as PNG."""
        write_figure(self.path / name, figure, metadata={"Software": None})


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside the target to write to; what is there in the end takes the target's place, whole or not at all.

    Raises ResourceError naming the target where the system refuses to write.
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
    """Write a JSON file whole or not at all. NaN becomes null. Raises ResourceError."""
    text = json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
    with replacing(target) as partial:
        partial.write_text(text)


def write_figure(target: Path, figure: Figure, *, metadata: dict[str, Any] | None = None) -> None:
    """Write a matplotlib figure, in the format that the name ends in, whole or not at all. Raises ResourceError."""
    with replacing(target) as partial:
        # Pillow does not notice where a file ends early as the disk is full.
        content = io.BytesIO()
        figure.savefig(content, format=target.suffix[1:].lower(), metadata=metadata)
        partial.write_bytes(content.getvalue())


def write_params(target: Path, params: dict[str, np.ndarray], metadata: dict[str, Any]) -> None:
    """Write a safetensors file whole or not at all. Raises ResourceError."""
    # One entry, because safetensors writes several in no fixed order.
    facts = {"purejaxrl": json.dumps(plain(metadata))}
    # Not by its own writer: that lets nobody but the user read the file, and its errors are not the system's.
    content = save(params, facts)
    with replacing(target) as partial:
        partial.write_bytes(content)


def is_part_of_run(name: str) -> bool:
    """Whether a run's folder holds files of this name, as params/last.safetensors."""
    return any(fnmatchcase(name, pattern) for pattern in FILES)


def find_results(path: Path) -> list[str]:
    """The files of a run folder that hold rows or parameters. Raises InputError where one cannot be read."""
    rows = [name for name in LOGS if _has_rows(path / name)]
    return rows + [f"params/{name}.safetensors" for kind in ("last", "best") for name in find_params(path, kind)]


def _has_rows(file: Path) -> bool:
    """Whether there is more than a header in a CSV file, if there is one."""
    try:
        with file.open("rb") as lines:
            return len(list(itertools.islice(lines, 2))) == 2
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InputError(f"cannot read {file}: {reason(error)}") from error


def find_params(path: Path, kind: str) -> list[str]:
    """The names for `read_params` of the parameters of a kind, `last` or `best`, that a run folder holds.

    Raises InputError where params/ cannot be read.
    """
    try:
        names = os.listdir(path / "params")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read {path / 'params'}: {reason(error)}") from error
    return [name.removesuffix(".safetensors") for name in names if fnmatchcase(name, f"{kind}*.safetensors")]


def read_params(path: Path, name: str) -> dict[str, np.ndarray]:
    """params/NAME.safetensors of a run folder. Raises InputError where that is damaged."""
    with _reading(path / "params" / f"{name}.safetensors") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def read_metadata(path: Path, name: str) -> dict[str, Any]:
    """What params/NAME.safetensors says of itself: `algorithm`, and `runs`, whose learners it stacks."""
    with _reading(path / "params" / f"{name}.safetensors") as file:
        facts: dict[str, Any] = json.loads((file.metadata() or {}).get("purejaxrl", "null"))
    if not isinstance(facts, dict) or not {"algorithm", "runs"} <= facts.keys():
        raise InputError(f"cannot read {path / 'params' / name}.safetensors: it does not say whose parameters it holds")
    return facts


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """An open safetensors file; whatever goes wrong with it is an InputError."""
    try:
        # safetensors says of every file that it cannot open that there is none.
        path.open("rb").close()
        with safe_open(path, "np") as file:
            yield file
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error


def check_free(path: Path, *, overwrite: bool, name: str = "--out") -> list[Path]:
    """The files of an earlier run that would make room for a new one. Raises InputError where the path is taken.

    `overwrite` lets an earlier run go, and refuses a folder that holds anything else. name: what the path was given as.
    """
    check_place(path, name)
    try:
        files = [file for file in files_below(path) if not is_system_file(file.name)]
        found = [entry.relative_to(path).as_posix().replace(".partial", "") for entry in files]
    except OSError as error:
        raise InputError(f"{name}: cannot read {error.filename or path}: {reason(error)}") from error
    if files and not overwrite:
        raise InputError(f"{name}: {path} exists; use --overwrite to replace it, or give another folder")
    strangers = [entry for entry in found if not is_part_of_run(entry)]
    if strangers or (files and "config.json" not in found):
        which = f"holds {strangers[0]!r}, which is not part of a run" if strangers else "has no config.json"
        raise InputError(f"{name}: {path} {which}; nothing was removed")
    return files


def files_below(path: Path) -> list[Path]:
    """All that a folder, if there is one, holds but folders; links to some are none.

    Raises OSError where one of them cannot be read.
    """

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


def is_system_file(name: str) -> bool:
    """Whether a file of that name is the system's own."""
    return any(fnmatchcase(name, pattern) for pattern in LITTER)


def check_place(path: Path, name: str = "--out") -> None:
    """Raise InputError where a folder cannot be."""
    try:
        if path.exists() and not path.is_dir():
            raise InputError(f"{name}: {path} is a file; give a folder")
    except OSError as error:
        raise InputError(f"{name}: cannot read {path}: {error.strerror or error}") from error


def create(path: Path, *, overwrite: bool, name: str = "--out") -> RunFolder:
    """Make and lock the folder of a new run, removing an earlier one's files where `overwrite` says so.

    Raises InUseError where another process writes there, and InputError where the path is taken, see `check_free`, or
    cannot be written.
    """
    check_place(path, name)
    try:
        path.mkdir(parents=True, exist_ok=True)
        folder = RunFolder(path)
    except OSError as error:
        raise _unwritable(path, error, name) from error
    try:
        _clear(path, check_free(path, overwrite=overwrite, name=name), name)
    except BaseException:
        folder.close()
        raise
    return folder


def _clear(path: Path, files: list[Path], name: str) -> None:
    """Remove an earlier run's files, and make sure that new ones can be written."""
    try:
        for file in files:
            file.unlink()
        for rest in ("checkpoints", "params", "export", "tensorboard"):
            if (path / rest).exists():
                shutil.rmtree(path / rest)
        probe = path / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _unwritable(path, error, name) from error


def _unwritable(path: Path, error: OSError, name: str) -> InputError | ResourceError:
    """What to say of a folder that a run cannot have: another one will do, unless the disk is full."""
    if error.errno in FULL:
        return ResourceError(f"cannot write {path}: {reason(error)}")
    return InputError(f"{name}: cannot write to {path}: {reason(error)}")


def copy(source: Path, path: Path, *, overwrite: bool) -> None:
    """Copy a run's files to a folder of their own; what was begun is removed if that fails.

    Raises InputError as `create` does and where a file cannot be read, and ResourceError where the disk is full.
    """
    check_run(source)
    try:
        files = [file.relative_to(source) for file in files_below(source)]
    except OSError as error:
        raise InputError(f"cannot read {error.filename or source}: {reason(error)}") from error
    files = [file for file in files if is_part_of_run(file.as_posix())]
    with create(path, overwrite=overwrite, name="--path"):
        try:
            for file in files:
                _copy_file(source / file, path / file)
        except (InputError, ResourceError):
            shutil.rmtree(path, ignore_errors=True)
            raise


def _copy_file(source: Path, target: Path) -> None:
    """Copy what a file holds. Raises InputError where the source, ResourceError where the target is refused."""
    try:
        reader = source.open("rb")
    except OSError as error:
        raise InputError(f"cannot read {source}: {reason(error)}") from error
    with reader, writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as writer:
            shutil.copyfileobj(reader, writer)


def contents(path: Path) -> dict[str, bytes]:
    """A run's files by name. Raises InputError where they cannot be read."""
    check_run(path)
    try:
        files = {file.relative_to(path).as_posix(): file for file in files_below(path)}
        return {name: file.read_bytes() for name, file in files.items() if is_part_of_run(name)}
    except OSError as error:
        raise InputError(f"cannot read {error.filename or path}: {reason(error)}") from error


def write_contents(path: Path, files: dict[str, bytes]) -> None:
    """Write a run's files, as `contents` returns them. Raises ResourceError where that fails."""
    for name, content in files.items():
        with writing(path / name):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)


def open_existing(path: Path) -> RunFolder:
    """Lock the folder of a run that is there.

    Raises InputError where there is none or a link leads out of it, and InUseError where another process writes there.
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


def check_run(path: Path) -> None:
    """Raise InputError unless this is the folder of a run, and nothing in it is a link."""
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


def has_ended(path: Path) -> bool:
    """Whether a run folder's summary tells of a training that came to its end."""
    file = path / "summary.json"
    return file.exists() and read_json(file).get("stopped_by", "") is None


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object. Raises InputError where it does not."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read {path}: {reason(error)}") from error
    if not isinstance(content, dict):
        raise InputError(f"cannot read {path}: it holds no JSON object")
    return content


def plain(value: Any) -> Any:
    """JSON's own types: NaN and infinities as null, numpy's and JAX's scalars as Python's, tuples as lists."""
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
