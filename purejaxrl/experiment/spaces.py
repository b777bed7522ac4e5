"""Default spaces of hyperparameters, from which a search draws settings where the user gives none.

Ranges of real-valued hyperparameters cost nothing, as all their values share one compiled program. A list of one value
replaces the preset's in every setting: what decides how often a run learns is slow in the preset `original`, and would
be compiled anew for each alternative.
"""

from __future__ import annotations

from typing import Any

from purejaxrl.components.hyperparameters import field_specs
from purejaxrl.errors import InputError
from purejaxrl.experiment.presets import family_of
from purejaxrl.experiment.settings import Range, takes_range
from purejaxrl.types import Agent

__all__ = ["SPACES", "default_space"]

Space = dict[str, list[Any] | Range]

_ACTOR_CRITIC: Space = {
    "gamma": Range(0.95, 0.999),
    "lam": Range(0.8, 1.0),
    "entropy_coef": Range(0.0, 0.02),
    "reward_scale": Range(0.01, 1.0, log=True),
    "lr_anneal": [True],
    "normalize_observations": [True],
}

# By algorithm.
SPACES: dict[str, Space] = {
    "vpg": {
        "pi_lr": Range(3e-4, 3e-2, log=True),
        "v_lr": Range(3e-4, 3e-2, log=True),
        **_ACTOR_CRITIC,
        "steps_per_epoch": [1000],
        "train_v_iters": [10],
    },
    "a3c": {"lr": Range(2e-4, 2e-2, log=True), **_ACTOR_CRITIC, "t_max": [20]},
    "dqn": {
        "lr": Range(3e-4, 1e-2, log=True),
        "gamma": Range(0.95, 0.999),
        "eps_vals": [(1.0, 0.01, 1e-3), (1.0, 0.0, 1e-3), (1.0, 0.01, 3e-4), (1.0, 0.0, 3e-4)],
        "reward_scale": Range(0.01, 1.0, log=True),
        "lr_anneal": [True],
        "normalize_observations": [True],
        "actors": [8],
        "batch_size": [64],
        "train_every": [2],
        "target_update_steps": [512],
        "n_steps": [5],
    },
}


def default_space(agent: Agent) -> Space:
    """Return the space of hyperparameters that a search draws from where the user gives none.

    Args:
        agent: The algorithm; one of the user's own has the space of the built-in algorithm whose Config it extends.

    Returns:
        Lists of alternatives and ranges by name. All settings share one compiled program.

    Raises:
        InputError: If the algorithm has none.
    """
    family = family_of(agent)
    if family not in SPACES:
        numbers = [name for name, spec in field_specs(agent.Config).items() if spec.is_leaf and takes_range(spec)]
        flag = f"--{numbers[0]}: " if numbers else ""
        raise InputError(f"{flag}{agent.name} has no default space of hyperparameters; give lists or ranges")
    return dict(SPACES[family])
