"""Export of parameters for other programs: one safetensors file, and JSON that says how to use it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from purejaxrl.analysis.learned_params import LearnedParams, load_params
from purejaxrl.components.preprocessing import LIMIT
from purejaxrl.envs import Renderer
from purejaxrl.errors import InputError
from purejaxrl.experiment import presets
from purejaxrl.experiment.plan import Plan, images_of, recorded, refuse_unknown_objects, versions
from purejaxrl.storage import run_folder
from purejaxrl.storage.checkpoint import describe, named_leaves
from purejaxrl.storage.files import absolute_path, write_json
from purejaxrl.types import Agent, Discrete

FOLDER = "export"
HOW_TO = (
    "Every array has an axis of runs first. A layer is x @ kernel_k + bias_k, with an activation between layers: tanh, "
    "or ReLU for dqn; a network of your own is named body, and the linear layer after it head. Inputs are "
    "observations as named. Where there are moments: minus their mean, over the root of variance + 1e-8, within "
    f"+-{LIMIT:g}."
)


def export(
    path: str | Path,
    *,
    params: str = "last",
    out: str | Path | None = None,
    agent: Agent | None = None,
    network: Any = None,
    env: Any = None,
    env_params: Any = None,
    renderer: Renderer | None = None,
    **objects: Any,
) -> tuple[Path, Path]:
    """Write the parameters of a run folder as policy.safetensors, and policy.json, which says how to use them.

    policy.safetensors holds the networks' parameters of all runs, [runs, ...] each, without optimizers and replay.
    Where runs differ in shapes, and so in compiled programs, those of each program have the prefix 1/, 2/, ...

    Args:
        path: The run folder.
        params: `last`, or `best` by the evaluations during training.
        out: Folder to write to, by default export/ in the run folder. With another one the run folder is only read, so
            that it may be write-protected, or in use.
        agent: Your own Agent, where the run used one: config.json only names it.
        network: The Flax module, where the training had one; a list of them where they were swept.
        env: The environment object, where the training had one.
        env_params: Its parameters, where config.json does not hold them by value.
        renderer: How to render its images, where that was given.
        **objects: Other fields of your own agent's Config that hold objects.

    Returns:
        The paths of policy.safetensors and policy.json.

    Raises:
        InputError: If there is no run, its parameters are missing or damaged, or an argument is unknown, missing or not
            allowed.
        ResourceError: If they cannot be written.
        InUseError: If a training writes to the run folder, and no other was given.
    """
    refuse_unknown_objects(export, objects, agent)
    path = absolute_path(path)
    target = path / FOLDER if out is None else absolute_path(out)
    run_folder.check_place(target)
    plan, batches = load_params(
        path,
        params,
        agent=agent,
        network=network,
        env=env,
        env_params=env_params,
        renderer=renderer,
        **objects,
    )
    parts = [(f"{number}/" if len(batches) > 1 else "", batch) for number, batch in enumerate(batches, 1)]
    arrays = {prefix + name: leaf for prefix, batch in parts for name, leaf in _parameters(batch).items()}
    description = {
        "algorithm": plan.agent.name,
        "env": plan.env,
        "params": params,
        "parts": {prefix: _describe_program(plan, batch) for prefix, batch in parts},
        "how_to": HOW_TO,
        "arrays": {name: describe(leaf) for name, leaf in arrays.items()},
        "versions": versions(),
    }
    written = target / "policy.safetensors", target / "policy.json"
    with run_folder.open_existing(path) if out is None else nullcontext():
        run_folder.write_params(written[0], arrays, {"algorithm": plan.agent.name, "params": params})
        write_json(written[1], description)
    return written


def _parameters(batch: LearnedParams) -> dict[str, np.ndarray]:
    """The learners' parameters by name."""
    kept = named_leaves(batch.params)
    if not kept:
        raise InputError("export: this learner has no parameters")
    return kept


def _describe_program(plan: Plan, batch: LearnedParams) -> dict[str, Any]:
    """Runs, inputs and actions of the learners of one program; the config is what all of them have in common."""
    env, config = batch.setting.env, batch.setting.config
    space, images = env.action_space, images_of(config)
    settings = [plan.settings[run // plan.options.seeds] for run in batch.runs]
    configs = [recorded(plan.agent, presets.as_dict(setting.config)) for setting in settings]
    shared = {name: value for name, value in configs[0].items() if all(one[name] == value for one in configs)}
    return {
        "runs": batch.runs,
        "seeds": plan.options.seed + batch.runs % plan.options.seeds,
        "settings": [recorded(plan.agent, setting.values) for setting in settings],
        "input_shape": env.input_shape,
        "observation": "the environment's vector" if images is None else f"images in [0, 1] or differences: {images}",
        "actions": f"discrete, {space.num_actions}" if isinstance(space, Discrete) else f"continuous, {space.shape}",
        "config": shared,
    }
