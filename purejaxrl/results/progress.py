"""How a training shows that it lives: a bar on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol, TextIO, runtime_checkable

import numpy as np
from tqdm import tqdm

from purejaxrl.results.recorder import RunRecord

SECONDS_BETWEEN_LINES = 10.0
LONG_SECONDS = 300.0
BAR = "{desc}: {percentage:3.0f}%|{bar:24}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}]{postfix}"


@runtime_checkable
class Reporter(Protocol):
    """What a training tells as it goes on."""

    def start(self) -> None:
        """Everything has been checked, and compilation begins."""

    def advance(self, runs: Sequence[RunRecord], iterations: int, seconds: float) -> None:
        """A chunk has ended: all runs stand after so many iterations, so many seconds after the first began."""

    def close(self) -> None:
        """Nothing more will come."""


class Silent:
    """Shows nothing."""

    def start(self) -> None:
        """Do nothing."""

    def advance(self, runs: Sequence[RunRecord], iterations: int, seconds: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Terminal:
    """A progress bar counted in the budget's unit, or plain lines where there is no terminal.

    title: said first. label: before the bar. kind, amount: the budget. max_iterations: after which it is used up for
    certain. hint: what to add of a training that will take long. can_be_solved: whether there is a threshold.
    """

    def __init__(
        self,
        title: str,
        label: str,
        kind: str,
        amount: int,
        max_iterations: int,
        hint: str = "",
        can_be_solved: bool = True,
        stream: TextIO | None = None,
    ) -> None:
        self.title, self.label, self.hint, self.can_be_solved = title, label, hint, can_be_solved
        self.kind, self.amount, self.max_iterations = kind, amount, max_iterations
        self.stream = stream or sys.stderr
        self.is_terminal = self.stream.isatty()
        self.last_line = 0.0
        self.bar: tqdm | None = None

    def start(self) -> None:
        """Say what begins, and draw the bar."""
        print(f"{self.title}: compiling ...", file=self.stream, flush=True)
        self.bar = tqdm(
            total=self.amount,
            desc=self.label,
            unit=" " + self.kind.replace("_", " "),
            file=self.stream,
            disable=not self.is_terminal,
            bar_format=BAR,
        )

    def advance(self, runs: Sequence[RunRecord], iterations: int, seconds: float) -> None:
        """Redraw the bar, or write a line if the last one is some time ago."""
        self._warn_if_long(iterations, seconds)
        env_steps = sum(run.env_steps for run in runs)
        counts = {
            "epochs": iterations,
            "env_steps": min(iterations * runs[0].env_steps // max(iterations, 1), self.amount),
            "episodes": int(np.mean([run.episodes for run in runs])),
        }
        returns = [run.return_100 for run in runs if not np.isnan(run.return_100)]
        solved = sum(run.solved_at_steps is not None for run in runs)
        facts = [
            f"return {np.mean(returns):.1f}" if returns else "return -",
            *([f"solved {solved}/{len(runs)}"] if self.can_be_solved else []),
            f"{env_steps / max(seconds, 1e-9):,.0f} env steps/s",
        ]
        done = counts[self.kind]
        if self.is_terminal and self.bar is not None:
            self.bar.n = done
            self.bar.set_postfix_str(", ".join(facts))
        elif done >= self.amount or time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            print(f"{self.label}: {done}/{self.amount} {self.kind}, {', '.join(facts)}", file=self.stream, flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()

    def _warn_if_long(self, iterations: int, seconds: float) -> None:
        """Once, when the rate is known: how long at most, if that is long."""
        if seconds < 3 or not self.max_iterations:
            return
        remaining = seconds / iterations * (self.max_iterations - iterations)
        if remaining > LONG_SECONDS:
            bound = "up to" if self.kind == "episodes" else "about"
            tqdm.write(
                f"{self.label}: this will take {bound} {remaining / 60:.0f} minutes{self.hint}", file=self.stream
            )
        self.max_iterations = 0
