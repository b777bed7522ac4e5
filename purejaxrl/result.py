"""What a training leaves in the hands of whoever called for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd

from purejaxrl.plan import Plan
from purejaxrl.training.evaluate import Best
from purejaxrl.types import RunState


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A training that has ended.

    state, best: the stacked RunState and best learners [runs, ...] where all runs were trained side by side in one
    batch, else None; params/ holds them all.
    """

    path: Path
    summary: dict[str, Any]
    plan: Plan
    state: RunState | None
    best: Best | None
    stopped_by: int | None

    def frame(self) -> pd.DataFrame:
        """metrics.csv: one row per run and logging interval."""
        return pd.read_csv(self.path / "metrics.csv")

    def episodes(self) -> pd.DataFrame:
        """episodes.csv: one row per episode."""
        return pd.read_csv(self.path / "episodes.csv")

    def statistics(self) -> pd.DataFrame:
        """sweep.csv: one row per setting of a sweep."""
        return pd.read_csv(self.path / "sweep.csv")

    @property
    def curve(self) -> Path:
        """The picture of the learning curves."""
        return self.path / ("sweep.png" if self.plan.is_sweep else "learning_curve.png")
