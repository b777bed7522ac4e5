"""What the command `tune` prints at its end."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

from purejaxrl.cli.streams import shorten_path

if TYPE_CHECKING:
    from purejaxrl.analysis.result import Result
    from purejaxrl.analysis.tuned import Judgement, Tuning

SHOWN = 10
MEASURES = {"final_return": "final return", "area": "area under curve", "steps_to_solve": "env steps to solve"}


def describe_tuning(result: Result) -> list[str]:
    """Describe what a search has found: the best settings, what fresh seeds say, and how to train the winner.

    Args:
        result: The Result of a search that has ended.

    Returns:
        Lines of text.
    """
    from purejaxrl.experiment.search_progress import millions

    tuning, summary = result.tuning, result.summary_json
    spent, full = summary["env_steps"], summary["tune"]["full_env_steps"]
    rungs = summary["tune"]["rungs"]
    return [
        f"{len(result.config.settings)} settings in {rungs} rung{'s' if rungs > 1 else ''}, {millions(spent)} of "
        f"{millions(full)} env steps ({spent / full:.1%})",
        *_best_settings(result, tuning),
        *_fresh_seeds(tuning),
        *_next_steps(result),
    ]


def _best_settings(result: Result, tuning: Tuning) -> list[str]:
    """A table of the settings that have trained for the full budget, best first."""
    from purejaxrl.analysis.statistics import settings_table, with_intervals
    from purejaxrl.experiment.labels import terminal_columns

    rows = tuning.finalists()
    shown, labels = rows[:SHOWN], result.config.labels
    columns = [
        ("", "seeds", [str(seeds) for seeds in shown["seeds"]]),
        (MEASURES[tuning.objective], "IQM [95%]", with_intervals(shown, ("score", "low", "high"))),
    ]
    names = [labels[setting] for setting in shown["setting"]]
    return settings_table(names, columns, len(rows), terminal_columns(sys.stdout))


def _fresh_seeds(tuning: Tuning) -> list[str]:
    """What fresh seeds say of winner and preset, and what was expected."""
    confirmed, measure = tuning.confirmation, MEASURES[tuning.objective]
    expected = f"expected from the search: {measure} {_figures(tuning.found)}"
    if confirmed is None:
        return [expected]
    lines = [f"on {confirmed.seeds} fresh seeds, {measure}:"]
    for name, found in (("winner", confirmed.winner), ("preset", confirmed.preset)):
        solved = "" if found.solved is None else f", {found.solved} of {confirmed.seeds} solved"
        lines.append(f"  {name}  {_figures(found)}{solved}")
    return [*lines, expected]


def _next_steps(result: Result) -> list[str]:
    """The command that trains the winner."""
    best = shlex.quote(str(shorten_path(result.path / "best.json")))
    config = result.config
    return [f"train it: purejaxrl train {config.algorithm} --env {config.env} --preset {best} --seeds 32"]


def _figures(found: Judgement) -> str:
    """A score with its interval."""
    from purejaxrl.experiment.search import Score
    from purejaxrl.experiment.search_progress import format_score

    return format_score(Score(*found[:3]))
