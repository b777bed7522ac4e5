"""Parameters alone, for other programs: one safetensors file, and JSON that says how to use it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from purejaxrl import presets
from purejaxrl.errors import InputError, absolute_path
from purejaxrl.learners import Learners, load_learners
from purejaxrl.learning.inputs import LIMIT
from purejaxrl.plan import Plan, images_of, recorded, versions
from purejaxrl.results import run_folder
from purejaxrl.training.checkpoint import describe, named_leaves
from purejaxrl.types import Discrete

FOLDER = "export"
# Parts of a learner that are no parameters, or copies of some.
LEFT_OUT = ("opt_state", "target_params", "worker_theta", "taken_at")
HOW_TO = (
    "Every array has an axis of runs first. A layer is x @ kernel_k + bias_k, with an activation between layers: tanh, "
    "or ReLU for dqn; a network of one's own is named body, and the linear layer after it head. Inputs are "
    "observations as named. Where there are moments: minus their mean, over the root of variance + 1e-8, within "
    f"+-{LIMIT:g}."
)


def export(
    path: str | Path, *, params: str = "last", out: str | Path | None = None, **objects: Any
) -> tuple[Path, Path]:
    """Write policy.safetensors and policy.json of a run folder, and return where they are.

    The first holds the networks' parameters of all runs [runs, ...] and nothing of optimisers or replay; several
    programs' (of other shapes) stand under 1/, 2/, ... out: the folder to write them to, export/ in the run folder by
    default; with another one the run folder is only read, so that it may be write-protected, or in use.
    Raises InputError as `evaluate` does, ResourceError where they cannot be written, and InUseError while a training
    writes to the run folder and no other was given.
    """
    path = absolute_path(path)
    target = path / FOLDER if out is None else absolute_path(out)
    run_folder.check_place(target)
    plan, batches = load_learners(path, params, **objects)
    parts = [(f"{number}/" if len(batches) > 1 else "", batch) for number, batch in enumerate(batches, 1)]
    arrays = {prefix + name: leaf for prefix, batch in parts for name, leaf in parameters_of(batch).items()}
    description = {
        "algorithm": plan.agent.name,
        "env": plan.env,
        "params": params,
        "parts": {prefix: describe_part(plan, batch) for prefix, batch in parts},
        "how_to": HOW_TO,
        "arrays": {name: describe(leaf) for name, leaf in arrays.items()},
        "versions": versions(),
    }
    written = target / "policy.safetensors", target / "policy.json"
    with run_folder.open_existing(path) if out is None else nullcontext():
        run_folder.write_params(written[0], arrays, {"algorithm": plan.agent.name, "params": params})
        run_folder.write_json(written[1], description)
    return written


def parameters_of(batch: Learners) -> dict[str, np.ndarray]:
    """The learners' parameters by name."""
    named = named_leaves(batch.learner).items()
    kept = {name: leaf for name, leaf in named if not any(part in name.split("/")[0] for part in LEFT_OUT)}
    if not kept:
        raise InputError("export: this learner has no parameters")
    return kept


def describe_part(plan: Plan, batch: Learners) -> dict[str, Any]:
    """What the learners of one program see and do."""
    env, config = batch.setting.env, batch.setting.config
    space, images = env.action_space, images_of(config)
    return {
        "runs": batch.runs,
        "seeds": plan.options.seed + batch.runs % plan.options.seeds,
        "settings": [recorded(plan.agent, plan.settings[run // plan.options.seeds].values) for run in batch.runs],
        "input_shape": env.input_shape,
        "observation": "the environment's vector" if images is None else f"images in [0, 1] or differences: {images}",
        "actions": f"discrete, {space.num_actions}" if isinstance(space, Discrete) else f"continuous, {space.shape}",
        "config": recorded(plan.agent, presets.as_dict(config)),
    }
