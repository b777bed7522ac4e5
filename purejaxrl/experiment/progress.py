"""Display of progress: a bar on a terminal, occasional lines elsewhere, or nothing."""

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
from purejaxrl.experiment.labels import counted, terminal_columns
from purejaxrl.experiment.plan import Plan
from purejaxrl.experiment.presets import TUNED, as_dict, tuned_key
from purejaxrl.training.batches import group_settings
from purejaxrl.training.metrics import WINDOW, RunStats

SECONDS_BETWEEN_LINES = 10.0
LONG_SECONDS = 300.0
USUAL_ROWS = 24
BAR = "{desc}: {percentage:3.0f}%|{bar:8}| {n:.0f}/{total_fmt}{unit} [{elapsed}<{remaining}]{postfix}"
SWEEP_BAR = "{desc}: {percentage:3.0f}%|{bar:8}| [{elapsed}<{remaining}]{postfix}"
# What is left out of a bar where the terminal is too narrow.
GRAPHIC = "|{bar:8}|"


class Extent(NamedTuple):
    """Largest extent of runs, one entry per run [runs].

    Attributes:
        env_steps: Largest number of env steps.
        episodes: Largest number of episodes, 0 for any number.
    """

    env_steps: np.ndarray
    episodes: np.ndarray

    def fraction(self, stats: RunStats) -> np.ndarray:
        """Compute the share of each run that is done.

        Args:
            stats: Statistics of the runs so far.

        Returns:
            The shares [runs], in [0, 1].
        """
        by_episodes = stats.episodes / np.maximum(self.episodes, 1)
        share = np.where(self.episodes > 0, by_episodes, stats.env_steps / self.env_steps)
        return np.where(stats.is_over, 1.0, np.minimum(share, 1.0))


@runtime_checkable
class Reporter(Protocol):
    """Protocol of objects that display the progress of a training."""

    def start(self) -> None:
        """Handle the start of compilation, after all checks."""

    def note(self, text: str) -> None:
        """Show a message on a line of its own, such as that the runs are split into batches.

        Args:
            text: The message.
        """

    def advance(self, stats: RunStats, seconds: float) -> None:
        """Handle the end of a chunk, or the start of a training that continues from a checkpoint.

        Args:
            stats: Statistics of all runs so far.
            seconds: Seconds of training since the first run began.
        """

    def close(self) -> None:
        """Handle the end of the training."""


class Silent:
    """Reporter that shows nothing."""

    def start(self) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Show nothing when there is a message.

        Args:
            text: Not used.
        """

    def advance(self, stats: RunStats, seconds: float) -> None:
        """Show nothing at the end of a chunk.

        Args:
            stats: Not used.
            seconds: Not used.
        """

    def close(self) -> None:
        """Do nothing."""


class SafeReporter:
    """Wrapper of a Reporter that cannot harm a training: if it fails, it causes a warning and is not called again."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def start(self) -> None:
        """Call `start` of the wrapped reporter."""
        self._tell("start")

    def note(self, text: str) -> None:
        """Call `note` of the wrapped reporter.

        Args:
            text: The message.
        """
        self._tell("note", text)

    def advance(self, stats: RunStats, seconds: float) -> None:
        """Call `advance` of the wrapped reporter.

        Args:
            stats: Statistics of all runs so far.
            seconds: Seconds of training since the first run began.
        """
        self._tell("advance", stats, seconds)

    def close(self) -> None:
        """Call `close` of the wrapped reporter, once."""
        self._tell("close")
        self.reporter = Silent()

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
    """Goal that progress is measured against.

    Attributes:
        amount: Amount of the budget, as 1200; unused where settings are given.
        unit: Unit of the budget, as "episodes".
        extent: Largest extent of the runs.
        can_be_solved: Whether a threshold counts as solved.
        hint: Text to add if training will take long.
        settings: Labels of a sweep's settings, each with equally many consecutive runs; the best of them is shown.
    """

    amount: int
    unit: str
    extent: Extent
    can_be_solved: bool = True
    hint: str = ""
    settings: Sequence[str] = ()


class AboveTheBar(logging.Handler):
    """Logging handler that writes to standard error, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line for a log record.

        Args:
            record: The log record.
        """
        try:
            print_above_the_bar(self.format(record))
        except Exception:
            self.handleError(record)


def print_above_the_bar(text: str) -> None:
    """Print a line to standard error, above a progress bar if there is one.

    Args:
        text: The line.
    """
    tqdm.write(text, file=sys.stderr)


class Terminal:
    """Reporter that shows a progress bar, or plain lines where there is no terminal.

    Args:
        title: Text of the first line, empty for none.
        label: Text before the bar.
        goal: What progress is measured against.
        stream: Where to write, by default standard error.
        is_live: Whether output there can be redrawn, by default whether it is a terminal.
    """

    def __init__(self, title: str, label: str, goal: Goal, *, stream: Any = None, is_live: bool | None = None) -> None:
        self.title, self.label, self.goal = title, label, goal
        self.stream = sys.stderr if stream is None else stream
        self.is_terminal = self.stream.isatty() if is_live is None else is_live
        self.last_line = -math.inf
        self.named: int | None = None
        self.may_warn = True
        self.bar: tqdm | None = None

    def start(self) -> None:
        """Print the title, and draw the bar."""
        if self.title:
            print(self.title, file=self.stream, flush=True)
        self.bar = tqdm(
            total=self.goal.amount,
            desc=self.label if self.title else f"{self.label}, starting",
            unit=" " + self.goal.unit,
            file=self.stream,
            disable=not self.is_terminal,
            bar_format=SWEEP_BAR if self.goal.settings else BAR,
            ncols=terminal_columns(self.stream),
            nrows=USUAL_ROWS,
        )

    def note(self, text: str) -> None:
        """Print a message above the bar.

        Args:
            text: The message.
        """
        tqdm.write(f"{self.label}: {text}", file=self.stream)

    def advance(self, stats: RunStats, seconds: float) -> None:
        """Redraw the bar, or print a line if the last one was some time ago.

        Args:
            stats: Statistics of all runs so far.
            seconds: Seconds of training since the first run began.
        """
        self._warn_if_long(stats, seconds)
        share = float(self.goal.extent.fraction(stats).mean())
        done = share * self.goal.amount
        further = [*self._solved(stats), f"{stats.env_steps.sum() / max(seconds, 1e-9):,.0f} env steps/s"]
        if self.is_terminal and self.bar is not None:
            self.bar.n, self.bar.ncols = done, terminal_columns(self.stream)
            self.bar.set_description_str(self.label, refresh=False)
            # What remains is reckoned from training alone, without the time that compiling took. A bar that was last
            # drawn before it started counts as never drawn, and would be left without the end of its line.
            self.bar.start_t = self.bar.last_print_t = time.time() - seconds
            self._redraw(self.bar, stats, further)
        elif share >= 1 or time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            shown = f"{share:.0%}" if self.goal.settings else f"{done:.0f}/{self.goal.amount} {self.goal.unit}"
            facts = [shown, self._standings(stats)[0], *further]
            print(f"{self.label}: {', '.join(facts)}", file=self.stream, flush=True)

    def _redraw(self, bar: tqdm, stats: RunStats, further: Sequence[str]) -> None:
        """Redraw the bar with as many facts as the terminal has room for."""
        whole = SWEEP_BAR if self.goal.settings else BAR
        standings = self._standings(stats)
        facts = [[standing, *further[:count]] for standing in standings for count in range(len(further), -1, -1)]
        candidates = [(whole, shown) for shown in facts] + [(whole.replace(GRAPHIC, ""), standings[-1:])]
        for bar_format, shown in candidates:
            bar.bar_format = bar_format
            bar.set_postfix_str(", ".join(shown), refresh=False)
            if bar.ncols is None or len(tqdm.format_meter(**{**bar.format_dict, "ncols": None})) <= bar.ncols:
                break
        bar.refresh()
        if shown[0] != standings[0]:
            self._name_setting(self._best(stats)[0])

    def _name_setting(self, setting: int) -> None:
        """Print the hyperparameters of a setting above a bar that has no room for them, but not too often."""
        if setting != self.named and time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.named, self.last_line = setting, time.monotonic()
            self.note(f"setting {setting} is {self.goal.settings[setting]}")

    def _standings(self, stats: RunStats) -> list[str]:
        """Format the mean return, or the number of finished runs and the best setting so far: whole, then shorter."""
        best, found = self._best(stats)
        if not self.goal.settings:
            return [f"return {found}"]
        names = [f"{self.goal.settings[best]}: ", f"setting {best}: "] if found != "-" else [""]
        return [f"{stats.is_over.sum()}/{len(stats.is_over)} runs done, best {name}{found}" for name in names]

    def _best(self, stats: RunStats) -> tuple[int, str]:
        """Find the setting with the best mean return so far, 0 where there is one only, and format that return."""
        mean = mean_of_settings(stats.recent_return, max(len(self.goal.settings), 1))
        best = 0 if np.isnan(mean).all() else int(np.nanargmax(mean))
        return best, format_return(mean[best], stats.episodes.reshape(len(mean), -1)[best])

    def _solved(self, stats: RunStats) -> list[str]:
        solved = int(np.sum(stats.solved_at_steps >= 0))
        return [f"solved {solved}/{len(stats.solved_at_steps)}"] if self.goal.can_be_solved else []

    def close(self) -> None:
        """Close the bar and leave it on the screen."""
        if self.bar is not None:
            self.bar.close()

    def _warn_if_long(self, stats: RunStats, seconds: float) -> None:
        """Print once how long training will take at most, when the rate is known and if that is long."""
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


def format_return(mean: float, episodes: np.ndarray) -> str:
    """Format a mean return, with the number of episodes that it is over until these are 100 in every run.

    Args:
        mean: The mean over the runs, NaN where no episode has ended.
        episodes: Number of finished episodes of each run, [runs].

    Returns:
        The text, such as `21.4 (19-23 episodes)`, where the runs have between 19 and 23 episodes.

    >>> format_return(21.4, np.array([23, 0, 19]))
    '21.4 (19-23 episodes)'
    """
    if np.isnan(mean):
        return "-"
    over = np.minimum(episodes[episodes > 0], WINDOW)
    fewest, most = int(over.min()), int(over.max())
    if fewest == WINDOW:
        return f"{mean:.1f}"
    return f"{mean:.1f} ({counted(most, 'episode') if fewest == most else f'{fewest}-{most} episodes'})"


def mean_of_settings(values: np.ndarray, settings: int) -> np.ndarray:
    """Compute the mean of the known values of each setting.

    Args:
        values: Values of the runs, [settings * seeds], NaN where unknown.
        settings: Number of settings.

    Returns:
        The means [settings], NaN where no value is known.
    """
    values = values.reshape(settings, -1)
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, known.sum(axis=1), out=np.full(settings, np.nan), where=known.any(axis=1))


def plan_extent(plan: Plan) -> Extent:
    """Compute the largest extent of the runs of a plan.

    Args:
        plan: What is trained.

    Returns:
        The extent [runs].
    """
    budgets = [setting.budget for setting in plan.settings]
    env_steps = [setting.max_env_steps for setting in plan.settings]
    episodes = [budget.amount if budget.kind == "episodes" else 0 for budget in budgets]
    return Extent(np.repeat(env_steps, plan.options.seeds), np.repeat(episodes, plan.options.seeds))


def reporter_of(progress: Any, plan: Plan) -> Reporter:
    """Create the Reporter that a `progress` argument asks for.

    Args:
        progress: None for a bar in interactive sessions and nothing elsewhere, True or False for a bar or nothing, a
            Reporter, or a function (Plan) -> Reporter.
        plan: What is trained.

    Returns:
        The Reporter.

    Raises:
        InputError: If `progress` is anything else.
    """
    if progress is None:
        progress = is_watched()
    if isinstance(progress, bool):
        return _bar_of(plan) if progress else Silent()
    if isinstance(progress, Reporter):
        return progress
    if not callable(progress):
        raise InputError(f"progress: {progress!r} is not allowed; it takes True, False or a Reporter")
    make: Callable[[Plan], Reporter] = progress
    return make(plan)


def is_watched() -> bool:
    """Check whether this Python is interactive: a notebook, IPython or the interpreter's own prompt."""
    return hasattr(builtins, "__IPYTHON__") or hasattr(sys, "ps1")


def _bar_of(plan: Plan) -> Reporter:
    """Create a bar that is redrawn on one line.

    In a notebook it is on standard output, as standard error has a red background there. If a program has no such
    stream, as with pythonw, nothing is shown.
    """
    stream = sys.stdout if "ipykernel" in sys.modules else sys.stderr
    if stream is None:
        return Silent()
    return Terminal("", plan.agent.name, _goal_of(plan), stream=stream, is_live=True)


def terminal_of(plan: Plan) -> Terminal:
    """Create the Reporter of the command line.

    Args:
        plan: What is trained.

    Returns:
        The Reporter.
    """
    seeds, kind = counted(plan.options.seeds, "seed"), plan.options.preset
    title = f"{plan.agent.name} on {plan.env}, preset {kind}, {seeds}"
    if plan.is_sweep:
        programs = len(group_settings([setting.config for setting in plan.settings]))
        count = counted(len(plan.settings), "setting")
        title += f" x {count} = {plan.runs} runs, {counted(programs, 'program')} to compile"
    return Terminal(title, plan.agent.name, _goal_of(plan))


def _goal_of(plan: Plan) -> Goal:
    """Return the goal that progress of a plan is measured against."""
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
