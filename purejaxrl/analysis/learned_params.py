"""What a run folder's params/ hold, as learners again: to evaluate them, or to hand them to other programs."""

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


class Learners(NamedTuple):
    """Learned params of runs [runs] that share a program, and their stacked configs."""

    runs: np.ndarray
    setting: Training
    configs: Any
    params: PyTree


def load_learners(path: Path, kind: str = "last", **objects: Any) -> tuple[Plan, list[Learners]]:
    """The Plan of a run folder and all learners that it holds, batch by batch.

    kind: `last`, or `best` by greedy evaluation. objects: as for `purejaxrl.resume`.
    Raises InputError where there are none, or they are damaged or not those of the Plan.
    """
    check_kind(kind)
    check_process()
    run_folder.check_run(path)
    plan = replan(read_json(path / "config.json"), **objects)
    return plan, learners_of(path, plan, kind)


def check_kind(kind: str) -> None:
    """Raise InputError unless there may be parameters of this kind."""
    if kind not in KINDS:
        raise InputError(f"--params: {kind!r} is not allowed; use last or best")


def learners_of(path: Path, plan: Plan, kind: str = "last", runs: np.ndarray | None = None) -> list[Learners]:
    """The learners in the run folder of a Plan, batch by batch: all, or those of some run numbers.

    Raises InputError as `load_learners` does, and where a run's are missing.
    """
    check_kind(kind)
    names = sorted(run_folder.find_params(path, kind), key=number_of)
    if not names:
        if kind == "best" and plan.options.eval_every is None:
            raise InputError(f"{path} holds no best parameters; best ones are kept where --eval_every is given")
        raise InputError(f"{path} holds no {kind} parameters{hint_of(path)}")
    if runs is None:
        return [load_batch(path, name, plan) for name in names]
    batches = [load_batch(path, name, plan) for name in names if np.isin(runs_of(path, name, plan), runs).any()]
    missing = np.setdiff1d(runs, [run for batch in batches for run in batch.runs])
    if len(missing):
        raise InputError(f"{path} holds no {kind} parameters of run {missing[0]}, which has not begun{hint_of(path)}")
    return [take_learners(batch, np.isin(batch.runs, runs)) for batch in batches]


def hint_of(path: Path) -> str:
    """What to do about parameters that are missing."""
    return (
        "" if run_folder.has_ended(path) else f": the training has not ended; purejaxrl resume {path} goes on with it"
    )


def take_learners(batch: Learners, which: np.ndarray) -> Learners:
    """Some of a batch's runs."""
    configs, params = jax.tree.map(lambda leaf: leaf[which], (batch.configs, batch.params))
    return Learners(batch.runs[which], batch.setting, configs, params)


def number_of(name: str) -> int:
    """Of the batch that a file's name tells: last-2."""
    _, _, number = name.partition("-")
    return int(number) if number.isdigit() else 0


def runs_of(path: Path, name: str, plan: Plan) -> list[int]:
    """The runs whose learners a file holds. Raises InputError where they are not runs of the Plan."""
    runs = run_folder.read_metadata(path, name)["runs"]
    is_sound = isinstance(runs, list) and runs and all(type(run) is int and 0 <= run < plan.runs for run in runs)
    if not is_sound:
        raise InputError(f"cannot read {path / 'params' / name}.safetensors: its runs are not runs of config.json")
    return list(runs)


@standard_jax()
def load_batch(path: Path, name: str, plan: Plan) -> Learners:
    """The learners of one file. Raises InputError where they are not those of runs of the Plan."""
    file, runs = path / "params" / f"{name}.safetensors", runs_of(path, name, plan)
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
    return Learners(np.array(runs), first, stack_configs([setting.config for setting in settings]), params)


def host_leaves(state: RunState) -> list[np.ndarray]:
    """The leaves of stacked states, on the host, in order; keys as their bits. `state_of` is the way back."""
    return [np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf) for leaf in jax.tree.leaves(state)]


def state_of(plan: Plan, leaves: list[np.ndarray]) -> RunState:
    """Stacked states of runs that share a program. Raises InputError where the leaves are not those of the Plan."""
    first = plan.settings[0]
    shapes, _ = shapes_of_runs(plan.agent, first.env, first.config, first.budget, False, 1)
    expected = jax.tree.leaves(shapes)
    if len(expected) != len(leaves):
        raise InputError(f"the state has {len(leaves)} parts, and that of {plan.agent.name} has {len(expected)}")
    arrays = map(jnp.asarray, leaves)
    found = [wrap_keys(one, shape) if is_key(shape) else one for one, shape in zip(arrays, expected, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(shapes), found)
