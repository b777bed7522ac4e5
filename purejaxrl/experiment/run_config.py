"""What the content of config.json says of a training, as far as tables and pictures need it; the rest is `replan`'s."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from purejaxrl.errors import InputError
from purejaxrl.experiment.labels import label_of
from purejaxrl.experiment.schema import migrate

# What config.json puts before the name of an object that only its owner has.
CUSTOM = "custom: "


class Recorded(NamedTuple):
    """A training as config.json has it. settings: the swept values of each setting, {} for the one of `train`.

    Run r belongs to setting r // seeds and has the seed `seed + r % seeds`.
    """

    algorithm: str
    env: str
    preset: str
    seeds: int
    seed: int
    solved_at: float | None
    settings: list[dict[str, Any]]
    is_sweep: bool

    @property
    def runs(self) -> int:
        """All runs of all settings."""
        return self.seeds * len(self.settings)

    @property
    def title(self) -> str:
        """What stands above its pictures."""
        return f"{self.algorithm} on {self.env}, {self.preset}"

    @property
    def labels(self) -> list[str]:
        """The settings in words."""
        return [label_of(values) or self.preset for values in self.settings]

    @property
    def swept(self) -> list[str]:
        """Names of the swept hyperparameters."""
        return list(self.settings[0])

    def setting_of(self, runs: np.ndarray) -> np.ndarray:
        """The setting of each run."""
        return runs // self.seeds

    def seed_of(self, runs: np.ndarray) -> np.ndarray:
        """The seed of each run."""
        return self.seed + runs % self.seeds


def recorded_of(content: dict[str, Any]) -> Recorded:
    """Raises InputError where something is missing or not what it should be, or a newer version wrote it."""
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
    values = [{name: as_tuple(without_mark(setting[name])) for name in swept} for setting in settings]
    algorithm, env, preset = (str(without_mark(text)) for text in texts)
    return Recorded(algorithm, env, preset, seeds, seed, solved_at, values, "settings" in content)


def without_mark(value: Any) -> Any:
    """An object of a user's own by its name alone; anything else as it is."""
    return value.removeprefix(CUSTOM) if isinstance(value, str) else value


def as_tuple(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(value) if isinstance(value, list) else value
