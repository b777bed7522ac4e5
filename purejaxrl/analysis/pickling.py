"""Parts of a Result that pickle in a way of their own, so that it works in another process or on another machine."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from purejaxrl.errors import ResourceError
from purejaxrl.storage import run_folder

if TYPE_CHECKING:
    from purejaxrl.experiment.plan import Plan


class LazyPlan:
    """The Plan of a config.json, made when it is first needed and pickled without starting JAX.

    Args:
        config: Content of config.json.
        objects: Objects of the user's own by argument name, as for `purejaxrl.load`; None takes those of `plan`.
        plan: The Plan, where it has been made already.
    """

    def __init__(self, config: dict[str, Any], objects: dict[str, Any] | None = None, plan: Plan | None = None) -> None:
        self.config = config
        self.objects = objects
        self.plan = plan

    def get(self) -> Plan:
        """Return the Plan.

        Raises:
            InputError: If one of the user's own objects is missing, or is not the one that config.json names.
        """
        if self.plan is None:
            from purejaxrl.experiment.plan_from_config import replan

            self.plan = replan(self.config, **(self.objects or {}))
        return self.plan

    def __reduce__(self) -> Any:
        if self.objects is None and self.plan is not None:
            from purejaxrl.experiment.plan_from_config import objects_of

            return LazyPlan, (self.config, objects_of(self.plan))
        return LazyPlan, (self.config, self.objects)


class HostState(NamedTuple):
    """The RunState of some runs as numpy arrays, which is how it is pickled.

    Attributes:
        runs: Run numbers, [runs].
        leaves: Leaves of the state in order, each [runs, ...]; random keys as their bits.
    """

    runs: np.ndarray
    leaves: list[np.ndarray]

    def take(self, runs: np.ndarray) -> HostState:
        """Select runs by their numbers.

        Args:
            runs: Run numbers, [selected], all of them in `self.runs`.

        Returns:
            Their states, in the order given.
        """
        places = [self.runs.tolist().index(run) for run in runs.tolist()]
        return HostState(runs, [leaf[places] for leaf in self.leaves])


class TemporaryFolder:
    """A new folder that is deleted with the last reference to this object, or when the program ends.

    It is pickled with its files. Unpickling writes them to a new temporary folder, as the original may be gone by then.

    Raises:
        ResourceError: If the folder cannot be made.
    """

    def __init__(self) -> None:
        try:
            self.path = Path(tempfile.mkdtemp(prefix="purejaxrl-"))
        except OSError as error:
            raise ResourceError(f"cannot make a temporary folder: {error.strerror or error}") from error
        weakref.finalize(self, _remove, self.path, os.getpid())

    def __reduce__(self) -> Any:
        return _restore_folder, (run_folder.contents(self.path),)


def _remove(path: Path, owner: int) -> None:
    """Delete a folder, unless this process is a fork of its owner."""
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)


def _restore_folder(files: dict[str, bytes]) -> TemporaryFolder:
    """Write files to a new temporary folder."""
    folder = TemporaryFolder()
    run_folder.write_contents(folder.path, files)
    return folder
