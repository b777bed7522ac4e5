"""Display of a search while it runs: on a terminal a line that is redrawn, elsewhere occasional lines."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tqdm import tqdm

from purejaxrl.errors import in_one_line, warn
from purejaxrl.experiment.labels import counted, preset_name, terminal_columns
from purejaxrl.experiment.progress import (
    GRAPHIC,
    SECONDS_BETWEEN_LINES,
    SWEEP_BAR,
    USUAL_ROWS,
    Reporter,
    is_watched,
    reporter_of,
    terminal_of,
)
from purejaxrl.experiment.search import Rung, Score, SearchSpec, count_env_steps, plan_rungs
from purejaxrl.experiment.tune_plan import TunePlan
from purejaxrl.training.metrics import RunStats


class Standing(NamedTuple):
    """What a search has found so far, and what trains next.

    Attributes:
        rung: Number of the rung that trains, from 1.
        rungs: Number of all rungs.
        settings: Settings that train in it.
        seeds: Seeds of each.
        budget: Env steps up to which each run trains.
        best: Label of the best setting so far, empty before there is one.
        score: Its score, None before there is one.
    """

    rung: int
    rungs: int
    settings: int
    seeds: int
    budget: int
    best: str
    score: Score | None


@runtime_checkable
class SearchReporter(Protocol):
    """Protocol of objects that display the progress of a search."""

    def start(self) -> None:
        """Handle the start, after all checks."""

    def begin_rung(self, standing: Standing) -> None:
        """Handle the beginning of a rung.

        Args:
            standing: What has been found so far, and what trains next.
        """

    def advance(self, stats: RunStats, seconds: float) -> None:
        """Handle what runs have done since the last call.

        Args:
            stats: Statistics of all runs so far.
            seconds: Seconds since the search began.
        """

    def close(self) -> None:
        """Handle the end of the search."""


class SafeSearchReporter:
    """Wrapper of a SearchReporter that cannot harm a search: if it fails, it causes a warning and is called no more."""

    def __init__(self, reporter: SearchReporter) -> None:
        self.reporter = reporter
        self.has_failed = False

    def start(self) -> None:
        """Call `start` of the wrapped reporter."""
        self._tell("start")

    def begin_rung(self, standing: Standing) -> None:
        """Call `begin_rung` of the wrapped reporter.

        Args:
            standing: What has been found so far, and what trains next.
        """
        self._tell("begin_rung", standing)

    def advance(self, stats: RunStats, seconds: float) -> None:
        """Call `advance` of the wrapped reporter.

        Args:
            stats: Statistics of all runs so far.
            seconds: Seconds since the search began.
        """
        self._tell("advance", stats, seconds)

    def close(self) -> None:
        """Call `close` of the wrapped reporter, once."""
        self._tell("close")
        self.has_failed = True

    def _tell(self, method: str, *arguments: Any) -> None:
        if self.has_failed:
            return
        try:
            getattr(self.reporter, method)(*arguments)
        except Exception as error:
            self.has_failed = True
            name = f"{type(self.reporter).__name__}.{method}"
            warn(f"{name} failed, and the search goes on without it: {in_one_line(error)}", stacklevel=4)


class Relay:
    """SearchReporter that shows a search with a Reporter of a training: each rung is a message."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def start(self) -> None:
        """Call `start` of the reporter."""
        self.reporter.start()

    def begin_rung(self, standing: Standing) -> None:
        """Show the standing as a message.

        Args:
            standing: What has been found so far, and what trains next.
        """
        self.reporter.note(describe(standing))

    def advance(self, stats: RunStats, seconds: float) -> None:
        """Call `advance` of the reporter.

        Args:
            stats: Statistics of all runs so far.
            seconds: Seconds since the search began.
        """
        self.reporter.advance(stats, seconds)

    def close(self) -> None:
        """Call `close` of the reporter."""
        self.reporter.close()


class SearchTerminal:
    """SearchReporter that redraws one line on a terminal, or prints lines where there is none.

    Args:
        title: Text of the first line, empty for none.
        label: Text before the bar.
        planned: Env steps of the search, or more.
        full: Env steps of all settings and seeds.
        stream: Where to write, by default standard error.
        is_live: Whether output there can be redrawn, by default whether it is a terminal.
    """

    def __init__(
        self, title: str, label: str, planned: int, full: int, *, stream: Any = None, is_live: bool | None = None
    ) -> None:
        self.title, self.label, self.planned, self.full = title, label, planned, full
        self.stream = sys.stderr if stream is None else stream
        self.is_live = self.stream.isatty() if is_live is None else is_live
        self.standing: Standing | None = None
        self.done = 0
        self.last_line = -math.inf
        self.bar: tqdm | None = None

    def start(self) -> None:
        """Print the title, and draw the line."""
        if self.title:
            print(self.title, file=self.stream, flush=True)
        self.bar = tqdm(
            total=self.planned,
            desc=f"{self.label}, starting",
            file=self.stream,
            disable=not self.is_live,
            bar_format=SWEEP_BAR,
            ncols=terminal_columns(self.stream),
            nrows=USUAL_ROWS,
        )

    def begin_rung(self, standing: Standing) -> None:
        """Show the standing, on a line of its own where nothing is redrawn.

        Args:
            standing: What has been found so far, and what trains next.
        """
        self.standing = standing
        if self.is_live:
            self._redraw(0)
        else:
            self.last_line = time.monotonic()
            print(f"{self.label}: {describe(standing)}", file=self.stream, flush=True)

    def advance(self, stats: RunStats, seconds: float) -> None:
        """Redraw the line, or print one if the last one was some time ago.

        Args:
            stats: Statistics of all runs so far.
            seconds: Seconds since the search began.
        """
        done = int(stats.env_steps.sum())
        if self.is_live and self.bar is not None:
            self.bar.set_description_str(self.label, refresh=False)
            self.bar.start_t = self.bar.last_print_t = time.time() - seconds
            self._redraw(done)
        elif time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES and self.standing is not None:
            self.last_line = time.monotonic()
            print(f"{self.label}: {describe(self.standing)}, {self._spent(done)}", file=self.stream, flush=True)

    def _redraw(self, done: int) -> None:
        """Redraw the line with as many facts as the terminal has room for."""
        if self.bar is None or self.standing is None:
            return
        self.done = max(done, self.done)
        self.bar.n, self.bar.ncols = max(self.bar.n, min(done, self.planned)), terminal_columns(self.stream)
        place, best = f"rung {self.standing.rung}/{self.standing.rungs}", format_best(self.standing)
        left, spent = counted(self.standing.settings, "setting"), self._spent(self.done)
        score = self.standing.score
        short = "" if score is None else f"best {format_score(score)}"
        candidates = [
            (SWEEP_BAR, [place, left, best, spent]),
            (SWEEP_BAR, [place, left, short, spent]),
            (SWEEP_BAR.replace(GRAPHIC, ""), [place, left, short, spent]),
            (SWEEP_BAR.replace(GRAPHIC, ""), [place, left, spent]),
            (SWEEP_BAR.replace(GRAPHIC, ""), [place]),
        ]
        for bar_format, shown in candidates:
            self.bar.bar_format = bar_format
            self.bar.set_postfix_str(", ".join(filter(None, shown)), refresh=False)
            if self.bar.ncols is None or len(tqdm.format_meter(**{**self.bar.format_dict, "ncols": None})) <= (
                self.bar.ncols
            ):
                break
        self.bar.refresh()

    def _spent(self, done: int) -> str:
        return f"{millions(done)} of {millions(self.full)} env steps"

    def close(self) -> None:
        """Close the line and leave it on the screen."""
        if self.bar is not None:
            self.bar.close()


def describe(standing: Standing) -> str:
    """Describe a rung and what was found before it in one line.

    Args:
        standing: The rung.

    Returns:
        The text.
    """
    what = f"{counted(standing.settings, 'setting')} x {counted(standing.seeds, 'seed')}"
    text = f"rung {standing.rung} of {standing.rungs}, {what} up to {standing.budget:,} env steps"
    return ", ".join(filter(None, [text, format_best(standing)]))


def format_best(standing: Standing) -> str:
    """Format the best setting so far, as `best lr=0.01: 312.4 [290.1, 330.8]`.

    Args:
        standing: What has been found.

    Returns:
        The text, empty where nothing has.
    """
    return "" if standing.score is None else f"best {standing.best}: {format_score(standing.score)}"


def format_score(score: Score) -> str:
    """Format a score with its interval, as `312.4 [290.1, 330.8]`; env steps without decimals.

    Args:
        score: The score.

    Returns:
        The text; `-` where the score is not known.
    """
    if math.isnan(score.value):
        return "-"
    digits = 0 if abs(score.value) >= 10_000 else 1
    value, low, high = (f"{number:,.{digits}f}" for number in score)
    return value if math.isnan(score.low) else f"{value} [{low}, {high}]"


def millions(count: int) -> str:
    """Format a number of env steps, as 12.4 M.

    Args:
        count: The number.

    Returns:
        The text.

    >>> millions(12_400_000)
    '12.4 M'
    """
    return f"{count / 1e6:,.{0 if count >= 1e9 else 1 if count >= 1e6 else 2}f} M"


def search_terminal_of(tune: TunePlan) -> SearchTerminal:
    """Create the SearchReporter of the command line.

    Args:
        tune: What is searched.

    Returns:
        The SearchReporter.
    """
    plan, spec = tune.plan, tune.spec
    rungs = plan_rungs(spec)
    title = (
        f"{plan.agent.name} on {plan.env}, preset {preset_name(plan.options.preset)}: "
        f"{counted(spec.settings, 'setting')} x up to {counted(spec.seeds, 'seed')} x {spec.env_steps:,} env steps, "
        f"{spec.method} in {counted(len(rungs), 'rung')}"
    )
    return SearchTerminal(title, plan.agent.name, *_extent(spec, rungs))


def search_reporter_of(progress: Any, tune: TunePlan) -> SearchReporter:
    """Create the SearchReporter that a `progress` argument asks for.

    Args:
        progress: None for a line in interactive sessions and nothing elsewhere, True or False for a line or nothing, a
            Reporter, a function (Plan) -> Reporter, or `terminal_of`, for which there is a line, too.
        tune: What is searched.

    Returns:
        The SearchReporter.
    """
    if progress is terminal_of:
        return search_terminal_of(tune)
    if (is_watched() if progress is None else progress) is True:
        stream = sys.stdout if "ipykernel" in sys.modules else sys.stderr
        if stream is not None:
            extent = _extent(tune.spec, plan_rungs(tune.spec))
            return SearchTerminal("", tune.plan.agent.name, *extent, stream=stream, is_live=True)
    return Relay(reporter_of(False if progress is None or progress is True else progress, tune.plan))


def _extent(spec: SearchSpec, rungs: Sequence[Rung]) -> tuple[int, int]:
    """Env steps of a search, or more, and those of all settings and seeds."""
    return count_env_steps(rungs), spec.settings * spec.seeds * spec.env_steps
