"""Presets of hyperparameters: `original`, the defaults of each Config; `tuned`, the fastest found in benchmarks; files.

A file is the best.json that `purejaxrl tune` writes: the hyperparameters of its winner.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from purejaxrl.agents import AGENTS
from purejaxrl.components.hyperparameters import (
    ImageConfig,
    budget_names,
    check_fields,
    check_value,
    field_specs,
    with_whole_numbers,
)
from purejaxrl.errors import InputError, in_brief
from purejaxrl.experiment import schema
from purejaxrl.experiment.labels import is_preset_file
from purejaxrl.experiment.run_config import CUSTOM, as_tuple
from purejaxrl.storage.files import home_path, read_json
from purejaxrl.types import Agent

PRESETS = ("original", "tuned")

OBSERVATION_TYPES = ("default", "img")
# What the document that `original` follows observes, where it is not the state vector.
ORIGINAL_OBSERVATION = {"dqn": "img"}
ORIGINAL_IMAGE = {"image": "difference", "image_size": (40, 90), "channels": 3}
OF_STACKS = ("frames", "frame_spacing", "motion_scale")
OF_CONVOLUTIONS = ("conv_channels", "conv_kernels", "conv_strides")
# What a network of one's own takes the place of.
OF_OUR_NETWORKS = ("hidden_sizes", "torso", *OF_CONVOLUTIONS)

# Settings of which a given one replaces the preset's other.
EXCLUSIVE = (("target_update", "target_update_steps"),)

# Settings that choose between tuned entries of one algorithm.
VARIANTS = {"a3c": "mode"}

_VPG = {
    "steps_per_epoch": 1000,
    "pi_lr": 1e-2,
    "v_lr": 1e-2,
    "train_v_iters": 10,
    "lr_anneal": True,
    "reward_scale": 0.1,
    "epochs": None,
}
_DQN = {
    "actors": 8,
    "batch_size": 64,
    "train_every": 2,
    "target_update_steps": 512,
    "n_steps": 10,
    "lr": 1e-3,
    "lr_anneal": True,
    "eps_vals": (1.0, 0.0, 1e-3),
    "reward_scale": 0.1,
    "hidden_sizes": (128, 128),
    "episodes": None,
}
_A3C = {"t_max": 20, "lr_anneal": True, "reward_scale": 0.1, "episodes": None}
_A3C_ASYNC = {**_A3C, "lr": 1e-3}
_A3C_SYNC = {**_A3C, "lr": 7e-3}
_PENDULUM = {
    "lr_anneal": True,
    "reward_scale": 0.1,
    "normalize_observations": True,
    "gamma": 0.95,
    "env_steps": 1_000_000,
}
_VPG_PENDULUM = {"steps_per_epoch": 1000, "pi_lr": 5e-3, "v_lr": 1e-2, "train_v_iters": 20, "epochs": None}
_A3C_PENDULUM = {"t_max": 20, "episodes": None}
# The pole is 10 pixels wide in a frame of 600: wider columns than that lose where it is.
_IMAGES = {
    "image": "stack",
    "frames": 2,
    "image_size": (8, 60),
    "channels": 1,
    "motion_scale": 6.0,
    "normalize_observations": True,
    "hidden_sizes": (64, 64),
}
_VPG_IMAGES = {**_VPG, **_IMAGES, "steps_per_epoch": 2000, "pi_lr": 3e-3, "v_lr": 3e-3}
_A3C_IMAGES = {**_A3C, **_IMAGES}
_DQN_IMAGES = {**_DQN, **_IMAGES, "n_steps": 5, "lr": 5e-4}

# (algorithm, environment, observation_type and, for those in VARIANTS, that setting) -> what differs from `original`.
# Measured in benchmarks/RESULTS.md.
TUNED: dict[tuple[str, ...], dict[str, Any]] = {
    ("vpg", "CartPole-v0", "default"): {**_VPG, "env_steps": 300_000},
    ("vpg", "CartPole-v1", "default"): {**_VPG, "env_steps": 500_000},
    ("vpg", "Pendulum-v1", "default"): {**_PENDULUM, **_VPG_PENDULUM},
    ("a3c", "Pendulum-v1", "default", "async"): {**_PENDULUM, **_A3C_PENDULUM, "lr": 1e-3},
    ("a3c", "Pendulum-v1", "default", "sync"): {**_PENDULUM, **_A3C_PENDULUM, "lr": 3e-3},
    ("a3c", "CartPole-v0", "default", "async"): {**_A3C_ASYNC, "env_steps": 300_000},
    ("a3c", "CartPole-v0", "default", "sync"): {**_A3C_SYNC, "env_steps": 300_000},
    ("a3c", "CartPole-v1", "default", "async"): {**_A3C_ASYNC, "env_steps": 500_000},
    ("a3c", "CartPole-v1", "default", "sync"): {**_A3C_SYNC, "env_steps": 500_000},
    ("vpg", "CartPole-v0", "img"): {**_VPG_IMAGES, "env_steps": 300_000},
    ("vpg", "CartPole-v1", "img"): {**_VPG_IMAGES, "env_steps": 1_000_000},
    ("a3c", "CartPole-v0", "img", "async"): {**_A3C_IMAGES, "lr": 3e-4, "env_steps": 500_000},
    ("a3c", "CartPole-v0", "img", "sync"): {**_A3C_IMAGES, "lr": 2e-3, "env_steps": 500_000},
    ("a3c", "CartPole-v1", "img", "async"): {**_A3C_IMAGES, "lr": 3e-4, "env_steps": 1_000_000},
    ("a3c", "CartPole-v1", "img", "sync"): {**_A3C_IMAGES, "lr": 2e-3, "env_steps": 1_000_000},
    ("dqn", "CartPole-v0", "default"): {**_DQN, "env_steps": 100_000},
    ("dqn", "CartPole-v1", "default"): {**_DQN, "env_steps": 200_000},
    ("dqn", "CartPole-v0", "img"): {**_DQN_IMAGES, "env_steps": 100_000},
    ("dqn", "CartPole-v1", "img"): {**_DQN_IMAGES, "env_steps": 300_000},
}


class BestFile(NamedTuple):
    """What a best.json holds for whoever takes it as a preset.

    Attributes:
        path: Its path, as the user gave it.
        env: Name of the environment that they were found on.
        observation_type: `default` or `img`.
        values: Hyperparameters by name, the budget among them; without the objects that the user gives.
    """

    path: str
    env: str
    observation_type: str
    values: dict[str, Any]


def read_best(preset: str, agent: Agent, given: Collection[str]) -> BestFile | None:
    """Read the hyperparameters that a tune has found, where its best.json is given as a preset.

    Hyperparameters that the package has gained since have the values that train as it did before.

    Args:
        preset: Name of a preset, or path of a best.json.
        agent: The algorithm.
        given: Names of the hyperparameters that the user gives.

    Returns:
        What the file holds, checked; None for a preset that has a name.

    Raises:
        InputError: If the file cannot be read, is no best.json, belongs to another algorithm, or holds a field or value
            that the algorithm does not take.
    """
    if not is_preset_file(preset):
        return None
    where = f"--preset: {preset}"
    file = home_path(preset)
    if file.is_dir():
        raise InputError(f"{where} is a folder; give the best.json that a tune has written")
    try:
        content = read_json(file)
    except InputError as error:
        raise InputError(f"--preset: {error.with_flags}") from error
    kinds = {"schema_version": int, "algorithm": str, "env": str, "observation_type": str, "hyperparameters": dict}
    for name, kind in kinds.items():
        if not isinstance(content.get(name), kind) or isinstance(content[name], bool):
            found = in_brief(content[name]) if name in content else "missing"
            raise InputError(f"{where} is no best.json of a tune: {name} is {found}")
    algorithm, env = (content[name].removeprefix(CUSTOM) for name in ("algorithm", "env"))
    observation_type = content["observation_type"]
    if observation_type not in OBSERVATION_TYPES:
        raise InputError(f"{where} is no best.json of a tune: observation_type is {in_brief(observation_type)}")
    if not 0 <= content["schema_version"] <= schema.SCHEMA_VERSION:
        raise InputError(
            f"{where}: its schema_version is {content['schema_version']}, and this version of the package reads 0 to "
            f"{schema.SCHEMA_VERSION}"
        )
    family = family_of(agent)
    if algorithm not in (agent.name, family):
        raise InputError(f"{where} holds hyperparameters of {algorithm}, not of {agent.name}")
    recorded = {name: content[name] for name in ("schema_version", "algorithm", "env")}
    migrated = schema.migrate({**recorded, "config": content["hyperparameters"]}, family)
    values = _check_best(where, agent, migrated["config"], given)
    if (values.get("image") is not None) != (observation_type == "img"):
        raise InputError(
            f"{where}: image {in_brief(values.get('image'))} contradicts its observation_type {observation_type}"
        )
    return BestFile(preset, env, observation_type, values)


def _check_best(where: str, agent: Agent, recorded: dict[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Check the hyperparameters of a best.json and return them as a Config takes them."""
    specs = field_specs(agent.Config)
    before = {name: spec.before for name, spec in specs.items() if spec.before is not ...}
    values = with_whole_numbers({name: as_tuple(value) for name, value in {**before, **recorded}.items()}, specs)
    budgets = budget_names(agent.Config)
    if any(values.get(name) is not None for name in budgets):
        values = {**dict.fromkeys(budgets), **values}
    for name, value in values.items():
        if name not in specs:
            raise InputError(f"{where}: {agent.name} has no hyperparameter {in_brief(name)}")
        if specs[name].is_object and value is not None and name not in given:
            label = str(value).removeprefix(CUSTOM)
            raise InputError(f"{where}: {name} {in_brief(label)} is an object of your own; give {name}=")
        try:
            check_value(name, value, specs[name])
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
    return {name: value for name, value in values.items() if not (specs[name].is_object and name in given)}


def resolve(
    agent: Agent,
    env_name: str,
    observation_type: str,
    preset: str,
    overrides: dict[str, Any],
    best: BestFile | None = None,
) -> Any:
    """Build the Config of a preset with overrides.

    Args:
        agent: The algorithm.
        env_name: Name of the environment.
        observation_type: `default` or `img`.
        preset: One of PRESETS, or the path that `best` was read from.
        overrides: Hyperparameters that replace those of the preset; a budget replaces the preset's budget.
        best: What the preset's file holds, None for one of PRESETS.

    Returns:
        The Config.

    Raises:
        InputError: If a preset or field is unknown, a value is not allowed, `tuned` has no entry, or there are two
            budgets.
    """
    if best is None and preset not in PRESETS:
        raise InputError(f"--preset: {preset!r} is unknown; use one of {', '.join(PRESETS)}, or a file best.json")
    fields = field_specs(agent.Config)
    unknown = [name for name in overrides if name not in fields]
    if unknown:
        raise InputError(f"--{unknown[0]}: {agent.name} has no such setting; it has {', '.join(fields)}")
    budgets = [name for name in budget_names(agent.Config) if overrides.get(name) is not None]
    if len(budgets) > 1:
        raise InputError(f"--{budgets[0]} and --{budgets[1]} are two budgets; give one")

    for pair in EXCLUSIVE:
        if all(overrides.get(name) is not None for name in pair):
            raise InputError(f"--{pair[0]} and --{pair[1]} are two rules for one thing; give one")

    check_fields(agent.Config(**overrides))
    if best is not None:
        values = dict(best.values)
    elif preset == "tuned":
        values = dict(_tuned_entry(agent, env_name, observation_type, overrides))
    else:
        values = dict(ORIGINAL_IMAGE) if observation_type == "img" else {}
    if budgets:
        values.update(dict.fromkeys(budget_names(agent.Config)))
    for pair in EXCLUSIVE:
        if any(name in overrides for name in pair):
            values = {name: value for name, value in values.items() if name not in pair}
    config = agent.Config(**{**values, **overrides})
    check_image_settings(config, observation_type, overrides)
    return config


def family_of(agent: Agent) -> str:
    """Return the algorithm whose presets apply to an agent: the built-in one whose Config it uses or extends.

    A preset is a choice of values for the fields of a Config, so it belongs to the Config, whatever the agent is
    called.

    Args:
        agent: The agent.

    Returns:
        Name of the algorithm, else the agent's own name.
    """
    return next((name for name, own in AGENTS.items() if issubclass(agent.Config, own.Config)), agent.name)


def observation_type_of(agent: Agent, preset: str, given: str | None, best: BestFile | None = None) -> str:
    """Return the type of observations: the one that the user gives, else that of the preset.

    Args:
        agent: The algorithm.
        preset: One of PRESETS, or the path that `best` was read from.
        given: The user's choice, None for that of the preset.
        best: What the preset's file holds, None for one of PRESETS.

    Returns:
        `default` or `img`.

    Raises:
        InputError: If the type is unknown, or not that of the preset's file.
    """
    if best is not None:
        if given not in (None, best.observation_type):
            raise InputError(
                f"--observation_type: {given!r} is not allowed; --preset {best.path} was found with "
                f"{best.observation_type}"
            )
        return best.observation_type
    if given is None:
        return ORIGINAL_OBSERVATION.get(family_of(agent), "default") if preset == "original" else "default"
    if given not in OBSERVATION_TYPES:
        raise InputError(f"--observation_type: {given!r} is not allowed; use one of {', '.join(OBSERVATION_TYPES)}")
    return given


def check_image_settings(config: Any, observation_type: str, overrides: dict[str, Any]) -> None:
    """Check that image hyperparameters are complete, consistent and used.

    Args:
        config: The resolved Config.
        observation_type: `default` or `img`.
        overrides: Hyperparameters that the user gave.

    Raises:
        InputError: If one is missing, contradicts another, or would have no effect.
    """
    if not isinstance(config, ImageConfig):
        if observation_type == "img":
            raise InputError(f"--observation_type: img needs a Config that extends {ImageConfig.__name__}")
        return

    def refuse(names: Sequence[str], needed: str) -> None:
        for name in names:
            if overrides.get(name) is not None:
                raise InputError(f"--{name}: it goes with {needed}")

    if observation_type == "default":
        refuse(("image", "image_size", "channels", *OF_STACKS), "--observation_type img")
    elif config.image is None:
        raise InputError("--image: off is not allowed with --observation_type img; use stack or difference")
    if config.image == "difference":
        refuse(OF_STACKS, "--image stack")
    if config.network is not None:
        refuse(OF_OUR_NETWORKS, "the package's own networks, and --network takes their place")
    elif config.torso == "mlp":
        refuse(OF_CONVOLUTIONS, "--torso conv")


def tuned_key(agent: Agent, env_name: str, observation_type: str, overrides: dict[str, Any]) -> tuple[str, ...]:
    """Return the key of TUNED for a training, whether or not it has an entry.

    Args:
        agent: The algorithm.
        env_name: Name of the environment.
        observation_type: `default` or `img`.
        overrides: Hyperparameters that the user gave.

    Returns:
        The key.
    """
    key = (family_of(agent), env_name, observation_type)
    variant = VARIANTS.get(key[0])
    return key if variant is None else (*key, str(overrides.get(variant, getattr(agent.Config(), variant))))


def _tuned_entry(agent: Agent, env_name: str, observation_type: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of TUNED for a training."""
    key = tuned_key(agent, env_name, observation_type, overrides)
    if key not in TUNED:
        known = "; ".join(" ".join(key) for key in TUNED)
        raise InputError(f"--preset: tuned has no entry for {' '.join(key)}; it has: {known}")
    variant = VARIANTS.get(key[0])
    return TUNED[key] if variant is None else {**TUNED[key], variant: key[-1]}


def as_dict(config: Any) -> dict[str, Any]:
    """Convert a Config to a dict, as for config.json.

    Args:
        config: The Config.

    Returns:
        Values by field.
    """
    return {name: getattr(config, name) for name in field_specs(config)}
