"""Typed view of config.json for tables and plots; `plan_from_config.replan` restores the whole Plan."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from purejaxrl.errors import InputError
from purejaxrl.experiment.labels import label_of, preset_name
from purejaxrl.experiment.schema import migrate

# What config.json puts before the name of an object that only its owner has.
CUSTOM = "custom: "
BUDGETS = ("epochs", "episodes", "env_steps")


class RecordedBudget(NamedTuple):
    """Budget of each run as described by config.json.

    Attributes:
        kind: `env_steps` or `episodes`; `epochs` only where their length is not known.
        amount: How many.
    """

    kind: str
    amount: int

    def __str__(self) -> str:
        return f"{self.amount:,} {self.kind.replace('_', ' ')}"


class Recorded(NamedTuple):
    """Training as described by config.json.

    Run r belongs to setting r // seeds and has the seed `seed + r % seeds`.

    Attributes:
        algorithm: Name of the algorithm.
        env: Name of the environment.
        preset: Name of the preset, or the path of its file.
        seeds: Number of seeds per setting.
        seed: The first seed.
        solved_at: Mean return that counts as solved, None for none.
        settings: Swept hyperparameters of each setting by name, one empty dict without a sweep.
        is_sweep: Whether it is a sweep.
        budgets: The budget of each setting, None where it is not known.
        observation_type: `default` or `img`, None where it is not known.
        env_params: Parameters of the environment by name, or their label where they are not plain; None where they are
            its defaults or not known.
    """

    algorithm: str
    env: str
    preset: str
    seeds: int
    seed: int
    solved_at: float | None
    settings: list[dict[str, Any]]
    is_sweep: bool
    budgets: list[RecordedBudget | None]
    observation_type: str | None
    env_params: dict[str, Any] | str | None

    @property
    def runs(self) -> int:
        """Number of runs of all settings."""
        return self.seeds * len(self.settings)

    @property
    def title(self) -> str:
        """Title of its plots."""
        return f"{self.algorithm} on {self.env}, {preset_name(self.preset)}"

    @property
    def labels(self) -> list[str]:
        """Labels of the settings."""
        return [label_of(values) or preset_name(self.preset) for values in self.settings]

    @property
    def swept(self) -> list[str]:
        """Names of the swept hyperparameters."""
        return list(self.settings[0])

    def setting_of(self, runs: np.ndarray) -> np.ndarray:
        """Return the setting that each run belongs to.

        Args:
            runs: Numbers of runs.

        Returns:
            Indices of their settings.
        """
        return runs // self.seeds

    def seed_of(self, runs: np.ndarray) -> np.ndarray:
        """Return the seed that each run has.

        Args:
            runs: Numbers of runs.

        Returns:
            Their seeds.
        """
        return self.seed + runs % self.seeds


def recorded_of(content: dict[str, Any]) -> Recorded:
    """Read the description of a training from the content of config.json.

    Args:
        content: Content of config.json.

    Returns:
        The description.

    Raises:
        InputError: If something is missing or invalid, or a newer version wrote it.
    """
    content = migrate(content)
    texts = [content.get(name) for name in ("algorithm", "env", "preset")]
    seeds: Any = content.get("seeds")
    seed: Any = content.get("seed")
    solved_at, settings, swept = content.get("solved_at"), content.get("settings", [{}]), content.get("swept", [])
    is_sound = (
        all(isinstance(text, str) for text in texts)
        and type(seeds) is int
        and seeds >= 1
        and type(seed) is int
        and (solved_at is None or (isinstance(solved_at, int | float) and not isinstance(solved_at, bool)))
        and isinstance(settings, list)
        and bool(settings)
        and all(isinstance(setting, dict) for setting in settings)
        and isinstance(swept, list)
        and all(isinstance(name, str) and name in setting for setting in settings for name in swept)
    )
    if not is_sound:
        raise InputError("config.json: it does not say what was trained")
    values = [{name: as_tuple(_without_mark(setting[name])) for name in swept} for setting in settings]
    algorithm, env, preset = (str(_without_mark(text)) for text in texts)
    shared, observation_type, env_params = (content.get(name) for name in ("config", "observation_type", "env_params"))
    config = shared if isinstance(shared, dict) else {}
    return Recorded(
        algorithm,
        env,
        preset,
        seeds,
        seed,
        solved_at,
        values,
        "settings" in content,
        [_budget({**config, **setting}) for setting in settings],
        observation_type if isinstance(observation_type, str) else None,
        _without_mark(env_params) if isinstance(env_params, dict | str) else None,
    )


def _budget(values: dict[str, Any]) -> RecordedBudget | None:
    """The budget among the hyperparameters of a setting; epochs of known length as env steps."""
    given = [(kind, values[kind]) for kind in BUDGETS if type(values.get(kind)) is int]
    if len(given) != 1:
        return None
    ((kind, amount),) = given
    length = values.get("steps_per_epoch")
    return (
        RecordedBudget("env_steps", amount * length)
        if kind == "epochs" and type(length) is int
        else RecordedBudget(kind, amount)
    )


def _without_mark(value: Any) -> Any:
    """Remove the mark of a user's own objects from a name."""
    return value.removeprefix(CUSTOM) if isinstance(value, str) else value


def as_tuple(value: Any) -> Any:
    """Convert a list, as JSON has it, to a tuple.

    Args:
        value: Any value of config.json.

    Returns:
        The tuple; values that are not lists are unchanged.
    """
    return tuple(value) if isinstance(value, list) else value
