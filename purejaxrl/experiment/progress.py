"""How a training shows that it lives: a bar on a terminal, a line now and then elsewhere, or nothing."""

from __future__ import annotations

import builtins
import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from tqdm import tqdm

from purejaxrl.errors import InputError, in_one_line, warn
from purejaxrl.experiment.labels import counted
from purejaxrl.experiment.plan import Plan
from purejaxrl.experiment.presets import TUNED, as_dict, tuned_key
from purejaxrl.training.batches import group_settings
from purejaxrl.training.metrics import RunStats

SECONDS_BETWEEN_LINES = 10.0
LONG_SECONDS = 300.0
BAR = "{desc}: {percentage:3.0f}%|{bar:8}| {n:.0f}/{total_fmt}{unit} [{elapsed}<{remaining}]{postfix}"
SWEEP_BAR = "{desc}: {percentage:3.0f}%|{bar:8}| [{elapsed}<{remaining}]{postfix}"


class Extent(NamedTuple):
    """How long runs may last, one entry per run [runs]: in env steps at most, and in episodes (0: any number)."""

    env_steps: np.ndarray
    episodes: np.ndarray

    def fraction(self, stats: RunStats) -> np.ndarray:
        """Share of each run that is done, in [0, 1]."""
        by_episodes = stats.episodes / np.maximum(self.episodes, 1)
        share = np.where(self.episodes > 0, by_episodes, stats.env_steps / self.env_steps)
        return np.where(stats.is_over, 1.0, np.minimum(share, 1.0))


@runtime_checkable
class Reporter(Protocol):
    """What a training tells as it goes on."""

    def start(self) -> None:
        """Everything has been checked, and compilation begins."""

    def note(self, text: str) -> None:
        """Something worth a line of its own, as that the runs are cut into batches."""

    def advance(self, stats: RunStats, seconds: float) -> None:
        """A chunk has ended: where all runs stand, so many seconds of training after the first began."""

    def close(self) -> None:
        """Nothing more will come."""


class Silent:
    """Shows nothing."""

    def start(self) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""

    def advance(self, stats: RunStats, seconds: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class SafeReporter:
    """A Reporter that cannot harm a training: one that fails is warned of, and told nothing more."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def start(self) -> None:
        """Tell it."""
        self._tell("start")

    def note(self, text: str) -> None:
        """Tell it."""
        self._tell("note", text)

    def advance(self, stats: RunStats, seconds: float) -> None:
        """Tell it."""
        self._tell("advance", stats, seconds)

    def close(self) -> None:
        """Tell it."""
        self._tell("close")

    def _tell(self, method: str, *arguments: Any) -> None:
        try:
            getattr(self.reporter, method)(*arguments)
        except Exception as error:
            failed, self.reporter = self.reporter, Silent()
            if method != "close":
                with suppress(Exception):
                    failed.close()
            name = f"{type(failed).__name__}.{method}"
            warn(f"{name} failed, and training goes on without it: {in_one_line(error)}", stacklevel=4)


class Goal(NamedTuple):
    """What progress is shown against.

    amount, unit: the budget, as "1200 episodes"; unused where settings are given. can_be_solved: whether there is a
    threshold. hint: what to add of a training that will take long. settings: labels of a sweep's settings, each of so
    many runs one after another; of these the best so far is shown.
    """

    amount: int
    unit: str
    extent: Extent
    can_be_solved: bool = True
    hint: str = ""
    settings: Sequence[str] = ()


class AboveTheBar(logging.Handler):
    """Shows what the package logs on standard error, above a bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


class Terminal:
    """A progress bar, or plain lines where there is no terminal.

    title: said first, if anything. label: before the bar. stream: standard error by default. is_live: whether what is
    shown there can be drawn anew, by default whether it is a terminal.
    """

    def __init__(self, title: str, label: str, goal: Goal, *, stream: Any = None, is_live: bool | None = None) -> None:
        self.title, self.label, self.goal = title, label, goal
        self.stream = sys.stderr if stream is None else stream
        self.is_terminal = self.stream.isatty() if is_live is None else is_live
        self.last_line = -math.inf
        self.may_warn = True
        self.bar: tqdm | None = None

    def start(self) -> None:
        """Say what begins, and draw the bar."""
        if self.title:
            print(f"{self.title}: compiling ...", file=self.stream, flush=True)
        self.bar = tqdm(
            total=self.goal.amount,
            desc=self.label if self.title else f"{self.label}, compiling",
            unit=" " + self.goal.unit,
            file=self.stream,
            disable=not self.is_terminal,
            bar_format=SWEEP_BAR if self.goal.settings else BAR,
        )

    def note(self, text: str) -> None:
        """Write a line above the bar."""
        tqdm.write(f"{self.label}: {text}", file=self.stream)

    def advance(self, stats: RunStats, seconds: float) -> None:
        """Redraw the bar, or write a line if the last one is some time ago."""
        self._warn_if_long(stats, seconds)
        share = float(self.goal.extent.fraction(stats).mean())
        done = share * self.goal.amount
        facts = [self._standing(stats), *self._solved(stats)]
        facts.append(f"{stats.env_steps.sum() / max(seconds, 1e-9):,.0f} env steps/s")
        if self.is_terminal and self.bar is not None:
            self.bar.n = done
            self.bar.set_description_str(self.label, refresh=False)
            # What remains is reckoned from training alone, without the time that compiling took.
            self.bar.start_t = time.time() - seconds
            self.bar.set_postfix_str(", ".join(facts))
        elif share >= 1 or time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            shown = f"{share:.0%}" if self.goal.settings else f"{done:.0f}/{self.goal.amount} {self.goal.unit}"
            print(f"{self.label}: {shown}, {', '.join(facts)}", file=self.stream, flush=True)

    def _standing(self, stats: RunStats) -> str:
        """The mean return, or how many runs are done and the best setting so far."""
        settings = self.goal.settings
        mean = mean_of_settings(stats.return_100, max(len(settings), 1))
        if not settings:
            return "return -" if np.isnan(mean[0]) else f"return {mean[0]:.1f}"
        best = "-" if np.isnan(mean).all() else f"{settings[int(np.nanargmax(mean))]}: {np.nanmax(mean):.1f}"
        return f"{stats.is_over.sum()}/{len(stats.is_over)} runs done, best {best}"

    def _solved(self, stats: RunStats) -> list[str]:
        solved = int(np.sum(stats.solved_at_steps >= 0))
        return [f"solved {solved}/{len(stats.solved_at_steps)}"] if self.goal.can_be_solved else []

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()

    def _warn_if_long(self, stats: RunStats, seconds: float) -> None:
        """Once, when the rate is known: how long at most, if that is long."""
        if seconds < 3 or not self.may_warn:
            return
        extent = self.goal.extent
        done = np.where(stats.is_over, extent.env_steps, stats.env_steps).sum(dtype=float)
        if not done:
            return
        self.may_warn = False
        remaining = seconds * (extent.env_steps.sum(dtype=float) / done - 1)
        if remaining > LONG_SECONDS:
            bound = "up to" if extent.episodes.any() else "about"
            self.note(f"this will take {bound} {remaining / 60:.0f} minutes{self.goal.hint}")


def mean_of_settings(values: np.ndarray, settings: int) -> np.ndarray:
    """Mean of the known values of each setting [settings], NaN where none is known; values: [settings * seeds]."""
    values = values.reshape(settings, -1)
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, known.sum(axis=1), out=np.full(settings, np.nan), where=known.any(axis=1))


def plan_extent(plan: Plan) -> Extent:
    """How long the runs of a plan may last."""
    budgets = [setting.budget for setting in plan.settings]
    env_steps = [setting.max_env_steps for setting in plan.settings]
    episodes = [budget.amount if budget.kind == "episodes" else 0 for budget in budgets]
    return Extent(np.repeat(env_steps, plan.options.seeds), np.repeat(episodes, plan.options.seeds))


def reporter_of(progress: Any, plan: Plan) -> Reporter:
    """What `progress` asks for.

    None: a bar where somebody looks on, else nothing. True or False: a bar or not. A Reporter, or a function
    (Plan) -> Reporter, is taken as it is. Raises InputError for all else.
    """
    if progress is None:
        progress = is_watched()
    if isinstance(progress, bool):
        return bar_of(plan) if progress else Silent()
    if isinstance(progress, Reporter):
        return progress
    if not callable(progress):
        raise InputError(f"progress: {progress!r} is not allowed; it takes True, False or a Reporter")
    make: Callable[[Plan], Reporter] = progress
    return make(plan)


def is_watched() -> bool:
    """Whether somebody sits before this Python: in a notebook, in IPython or at the interpreter's own prompt."""
    return hasattr(builtins, "__IPYTHON__") or hasattr(sys, "ps1")


def bar_of(plan: Plan) -> Reporter:
    """One line that is drawn again and again; in a notebook on standard output, as its errors have a red ground.

    Where a program has no such stream, as pythonw has none, nothing is shown.
    """
    stream = sys.stdout if "ipykernel" in sys.modules else sys.stderr
    if stream is None:
        return Silent()
    return Terminal("", plan.agent.name, goal_of(plan), stream=stream, is_live=True)


def terminal_of(plan: Plan) -> Terminal:
    """What the command line shows."""
    seeds, kind = counted(plan.options.seeds, "seed"), plan.options.preset
    title = f"{plan.agent.name} on {plan.env}, preset {kind}, {seeds}"
    if plan.is_sweep:
        programs = len(group_settings([setting.config for setting in plan.settings]))
        count = counted(len(plan.settings), "setting")
        title += f" x {count} = {plan.runs} runs, {counted(programs, 'program')} to compile"
    return Terminal(title, plan.agent.name, goal_of(plan))


def goal_of(plan: Plan) -> Goal:
    """What progress is shown against, and which preset would be quicker."""
    first = plan.settings[0]
    is_tuned = tuned_key(plan.agent, plan.env, str(plan.options.observation_type), as_dict(first.config)) in TUNED
    return Goal(
        first.budget.amount,
        first.budget.kind.replace("_", " "),
        plan_extent(plan),
        plan.solved_at is not None,
        "; the preset tuned is quicker" if plan.options.preset == "original" and is_tuned else "",
        plan.labels if plan.is_sweep else (),
    )
