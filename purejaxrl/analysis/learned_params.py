"""LearnedParams restored from the parameters in a run folder, for evaluation and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purejaxrl.errors import InputError
from purejaxrl.experiment import schema
from purejaxrl.experiment.plan import Plan, Training
from purejaxrl.experiment.plan_from_config import replan
from purejaxrl.experiment.presets import family_of
from purejaxrl.kernels.threefry import is_key, wrap_keys
from purejaxrl.storage import run_folder
from purejaxrl.storage.checkpoint import describe, named_leaves
from purejaxrl.storage.files import read_json
from purejaxrl.training.batches import stack_configs
from purejaxrl.training.compilation import shapes_of_runs
from purejaxrl.training.devices import check_process
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.types import PyTree, RunState

KINDS = ("last", "best")


class LearnedParams(NamedTuple):
    """Learned params of runs that share a compiled program.

    Attributes:
        runs: Run numbers, [runs].
        setting: The Training of the first run, whose environment and shapes all of them have.
        configs: Configs of the runs, stacked: real hyperparameters are [runs].
        params: Params of the runs' learners, stacked: leaves are [runs, ...].
    """

    runs: np.ndarray
    setting: Training
    configs: Any
    params: PyTree

    def select(self, which: np.ndarray) -> LearnedParams:
        """Select some of the runs.

        Args:
            which: A mask or positions [runs], as numpy indexes an array.

        Returns:
            Their params.
        """
        configs, params = jax.tree.map(lambda leaf: leaf[which], (self.configs, self.params))
        return LearnedParams(self.runs[which], self.setting, configs, params)


def load_params(path: Path, kind: str = "last", **objects: Any) -> tuple[Plan, list[LearnedParams]]:
    """Load all learners of a run folder.

    Args:
        path: The run folder.
        kind: `last`, or `best` by the evaluations during training.
        **objects: Objects of the user's own, as for `purejaxrl.resume`.

    Returns:
        The Plan of the folder, and the learners of each batch of runs.

    Raises:
        InputError: If there are none, or they are damaged or not those of the Plan.
    """
    check_process()
    run_folder.check_run(path)
    plan = replan(read_json(path / "config.json"), **objects)
    return plan, select_params(path, plan, kind)


def select_params(path: Path, plan: Plan, kind: str = "last", runs: np.ndarray | None = None) -> list[LearnedParams]:
    """Load learners from the run folder of a Plan.

    Args:
        path: The run folder.
        plan: Its Plan.
        kind: `last`, or `best` by the evaluations during training.
        runs: Run numbers, [runs]; by default all.

    Returns:
        The learners of each batch of runs.

    Raises:
        InputError: As `load_params` does, or if the parameters of a run are missing.
    """
    if kind not in KINDS:
        raise InputError(f"--params: {kind!r} is not allowed; use last or best")
    names = sorted(run_folder.find_params(path, kind), key=_batch_number)
    if not names:
        if kind == "best" and plan.options.eval_every is None:
            raise InputError(f"{path} holds no best parameters; best ones are kept where --eval_every is given")
        raise InputError(f"{path} holds no {kind} parameters{_hint(path)}")
    if runs is None:
        return [_load_file(path, name, plan) for name in names]
    batches = [_load_file(path, name, plan) for name in names if np.isin(_read_runs(path, name, plan), runs).any()]
    missing = np.setdiff1d(runs, [run for batch in batches for run in batch.runs])
    if len(missing):
        raise InputError(f"{path} holds no {kind} parameters of run {missing[0]}, which has not begun{_hint(path)}")
    return [batch.select(np.isin(batch.runs, runs)) for batch in batches]


def _hint(path: Path) -> str:
    """What to do about missing parameters, as the end of a message."""
    return (
        "" if run_folder.has_ended(path) else f": the training has not ended; purejaxrl resume {path} goes on with it"
    )


def _batch_number(name: str) -> int:
    """The number of a batch in its file's name, as last-2; 0 where there is none."""
    _, _, number = name.partition("-")
    return int(number) if number.isdigit() else 0


def _read_runs(path: Path, name: str, plan: Plan) -> list[int]:
    """The runs whose params a file holds. Raises InputError where they are not runs of the Plan."""
    runs = run_folder.read_metadata(path, name)["runs"]
    is_sound = isinstance(runs, list) and runs and all(type(run) is int and 0 <= run < plan.runs for run in runs)
    if not is_sound:
        raise InputError(f"cannot read {path / 'params' / name}.safetensors: its runs are not runs of config.json")
    return list(runs)


@standard_jax()
def _load_file(path: Path, name: str, plan: Plan) -> LearnedParams:
    """The params of one file. Raises InputError where they are not those of runs of the Plan."""
    file, runs = path / "params" / f"{name}.safetensors", _read_runs(path, name, plan)
    settings = [plan.settings[run // plan.options.seeds] for run in runs]
    if len({jax.tree.structure(setting.config) for setting in settings}) > 1:
        raise InputError(f"cannot read {file}: its runs do not share a program")
    first = settings[0]
    shapes = shapes_of_runs(plan.agent, first.env, first.config, first.budget, False, len(runs))
    template = shapes[0].learner.params
    expected, arrays = named_leaves(template), run_folder.read_params(path, name)
    version = run_folder.read_metadata(path, name).get("schema_version", 0)
    arrays = schema.rename_params(arrays, family_of(plan.agent), version)
    for key in sorted(expected.keys() | arrays.keys()):
        found = describe(arrays[key]) if key in arrays else "missing"
        wanted = describe(expected[key]) if key in expected else "not expected"
        if found != wanted:
            raise InputError(f"cannot use {file}: {key} is {found}, and should be {wanted}")
    params = jax.tree.unflatten(jax.tree.structure(template), [arrays[key] for key in expected])
    return LearnedParams(np.array(runs), first, stack_configs([setting.config for setting in settings]), params)


def leaves_on_host(state: RunState) -> list[np.ndarray]:
    """Copy the leaves of a state to the host; `restore_state` is the inverse.

    Args:
        state: Stacked states, [runs, ...].

    Returns:
        The leaves in order, random keys as their bits.
    """
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(state)]


def restore_state(plan: Plan, leaves: list[np.ndarray]) -> RunState:
    """Rebuild the state of runs that share a compiled program.

    Args:
        plan: What was trained.
        leaves: The leaves as `leaves_on_host` returns them.

    Returns:
        Stacked states, [runs, ...].

    Raises:
        InputError: If the leaves are not those of the Plan.
    """
    first = plan.settings[0]
    shapes, _ = shapes_of_runs(plan.agent, first.env, first.config, first.budget, False, 1)
    expected = jax.tree.leaves(shapes)
    if len(expected) != len(leaves):
        raise InputError(f"the state has {len(leaves)} parts, and that of {plan.agent.name} has {len(expected)}")
    arrays = map(jnp.asarray, leaves)
    found = [wrap_keys(one, shape) if is_key(shape) else one for one, shape in zip(arrays, expected, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(shapes), found)
