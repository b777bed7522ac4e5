"""What a search for the best hyperparameters has found, read from its run folder."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from purejaxrl.errors import InputError, reason
from purejaxrl.experiment.labels import label_of
from purejaxrl.experiment.run_config import as_tuple
from purejaxrl.storage.files import read_json

if TYPE_CHECKING:
    import pandas as pd


class Judgement(NamedTuple):
    """Score of a setting with its 95% bootstrap interval, in the unit of the objective.

    Attributes:
        score: Interquartile mean over the seeds, NaN where too many runs diverged.
        low: Lower end of the interval, NaN with one seed.
        high: Upper end.
        solved: Number of runs that were solved, None where there is no threshold, or in a search.
    """

    score: float
    low: float
    high: float
    solved: int | None = None


class Confirmation(NamedTuple):
    """What fresh seeds say of the winner and of the preset.

    Attributes:
        seeds: Number of seeds.
        winner: Score of the winner.
        preset: Score of the preset, with the hyperparameters that were fixed.
    """

    seeds: int
    winner: Judgement
    preset: Judgement


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The outcome of a search.

    Attributes:
        path: The run folder.
        setting: Number of the setting that won.
        best: The hyperparameters that were searched, as the winner has them, by name.
        hyperparameters: All hyperparameters of the winner by name, as config.json records them.
        objective: What was compared.
        found: Score of the winner in the search. It is the best of many, and so expected to be too good.
        confirmation: What fresh seeds say, None where there are none.
    """

    path: Path
    setting: int
    best: dict[str, Any]
    hyperparameters: dict[str, Any]
    objective: str
    found: Judgement
    confirmation: Confirmation | None

    def __repr__(self) -> str:
        return f"<Tuning: {label_of(self.best)}, {self.objective} {self.found.score:.5g}, in {self.path}>"

    @functools.cached_property
    def table(self) -> pd.DataFrame:
        """Content of tune.csv, a row per setting and rung.

        Raises:
            InputError: If it cannot be read.
        """
        import pandas as pd

        file = self.path / "tune.csv"
        try:
            return pd.read_csv(file)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read {file}: {reason(error)}") from error

    def finalists(self) -> pd.DataFrame:
        """Select the rows of `table` of settings that have trained for the full budget: the winner, then by score."""
        last = self.table[self.table["budget"] == self.table["budget"].max()]
        last = last.sort_values("score", ascending=self.objective == "steps_to_solve", kind="stable")
        # Others may have its score: the mean return decided between them.
        return last.sort_values("setting", key=lambda it: it != self.setting, kind="stable", ignore_index=True)


def read_tuning(path: Path) -> Tuning:
    """Read the outcome of a search from its run folder.

    Args:
        path: The run folder.

    Returns:
        The outcome.

    Raises:
        InputError: If there is none, as the search has not ended or it was none, or best.json is damaged.
    """
    file = path / "best.json"
    if not file.exists():
        raise InputError(f"{path} holds no best.json: it is no folder of a tune, or the search has not ended")
    content = read_json(file)
    try:
        found_by, hyperparameters = content["found_by"], content["hyperparameters"]
        return Tuning(
            path,
            int(found_by["setting"]),
            {name: as_tuple(hyperparameters[name]) for name in found_by["values"]},
            {name: as_tuple(value) for name, value in hyperparameters.items()},
            found_by["objective"],
            _judgement(found_by),
            confirmation_of(found_by),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"cannot use {file}: it does not say what was found ({error!r})") from error


def confirmation_of(found_by: dict[str, Any]) -> Confirmation | None:
    """Read what fresh seeds say from the part `found_by` of best.json.

    Args:
        found_by: The part.

    Returns:
        What they say, None where there are none.

    Raises:
        KeyError: If something is missing.
    """
    confirmed = found_by["confirmed"]
    if confirmed is None:
        return None
    return Confirmation(confirmed["seeds"], *(_judgement(confirmed[name]) for name in ("winner", "preset")))


def _judgement(found: dict[str, Any]) -> Judgement:
    """Read a score, whose unknown numbers JSON has as null."""
    score, low, high = (math.nan if found[name] is None else float(found[name]) for name in ("score", "low", "high"))
    return Judgement(score, low, high, found.get("solved"))
