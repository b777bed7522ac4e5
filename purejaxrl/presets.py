"""Presets: `original` are the defaults of each Config; `tuned` is what learned fastest in our measurements."""

from __future__ import annotations

import dataclasses
from typing import Any

from purejaxrl.config import BUDGETS, field_specs
from purejaxrl.errors import InputError
from purejaxrl.types import Agent

PRESETS = ("original", "tuned")

# Settings of which a given one replaces the preset's other.
EXCLUSIVE = (("target_update", "target_update_steps"),)

# (algorithm, environment, observation_type) -> what differs from `original`. Measured in benchmarks/RESULTS.md.
_VPG = {"steps_per_epoch": 1000, "pi_lr": 1e-2, "v_lr": 1e-2, "train_v_iters": 10, "lr_anneal": True, "epochs": None}
_DQN = {
    "actors": 16,
    "batch_size": 64,
    "train_every": 2,
    "target_update_steps": 512,
    "lr": 1e-3,
    "lr_anneal": True,
    "eps_vals": (1.0, 0.02, 4e-4),
    "hidden_sizes": (128, 128),
    "episodes": None,
}
TUNED: dict[tuple[str, str, str], dict[str, Any]] = {
    ("vpg", "CartPole-v0", "default"): {**_VPG, "env_steps": 300_000},
    ("vpg", "CartPole-v1", "default"): {**_VPG, "env_steps": 500_000},
    ("dqn", "CartPole-v0", "default"): {**_DQN, "env_steps": 200_000},
    ("dqn", "CartPole-v1", "default"): {**_DQN, "env_steps": 200_000},
}


def resolve(agent: Agent, env_name: str, observation_type: str, preset: str, overrides: dict[str, Any]) -> Any:
    """The Config of a preset with overrides; a budget among them replaces the preset's.

    Raises InputError for an unknown preset or field, a missing `tuned` entry, and two budgets.
    """
    if preset not in PRESETS:
        raise InputError(f"--preset: {preset!r} is unknown; use one of {', '.join(PRESETS)}")
    fields = field_specs(agent.Config)
    unknown = [name for name in overrides if name not in fields]
    if unknown:
        raise InputError(f"--{unknown[0]}: {agent.name} has no such setting; it has {', '.join(fields)}")
    budgets = [name for name in BUDGETS if overrides.get(name) is not None]
    if len(budgets) > 1:
        raise InputError(f"--{budgets[0]} and --{budgets[1]} are two budgets; give one")

    for pair in EXCLUSIVE:
        if all(overrides.get(name) is not None for name in pair):
            raise InputError(f"--{pair[0]} and --{pair[1]} are two rules for one thing; give one")

    values = {} if preset == "original" else dict(tuned_entry(agent.name, env_name, observation_type))
    if budgets:
        values.update({name: None for name in BUDGETS if name in fields})
    for pair in EXCLUSIVE:
        if any(name in overrides for name in pair):
            values = {name: value for name, value in values.items() if name not in pair}
    return agent.Config(**{**values, **overrides})


def tuned_entry(algorithm: str, env_name: str, observation_type: str) -> dict[str, Any]:
    """The entry of TUNED. Raises InputError listing those there are."""
    try:
        return TUNED[algorithm, env_name, observation_type]
    except KeyError:
        known = "; ".join(" ".join(key) for key in TUNED)
        raise InputError(
            f"--preset: tuned has no entry for {algorithm} {env_name} {observation_type}; it has: {known}"
        ) from None


def as_dict(config: Any) -> dict[str, Any]:
    """A Config's fields and values, for config.json and for people."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
