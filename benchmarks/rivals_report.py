"""The part of RESULTS.md on PyTorch and other libraries, and its figures, from their JSON files."""

from __future__ import annotations

import statistics
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tables import duration, machine_line, microseconds, section, table_line

from purejaxrl.analysis.plots import COLORS

HERE = Path(__file__).parent
MANY = 512
STEPS_OF_A_SEED = 100_000


class Goal(NamedTuple):
    """How many times the throughput of one form of PyTorch is wanted of ours with so many seeds."""

    contest: str
    seeds: int
    form: str
    times: float


GOALS = (
    Goal("VPG", 64, "one environment", 20),
    Goal("DQN", 64, "one environment", 6),
    Goal("DQN, images", 64, "one environment", 5),
    Goal("A3C async", 64, "16 workers", 60),
    Goal("A3C async", 64, "a worker per core", 60),
    Goal("A3C sync", 64, "16 environments", 15),
    Goal("VPG", 1, "one environment, 1 process", 12),
    Goal("DQN", 1, "one environment, 1 process", 4),
    Goal("A3C sync", 1, "16 environments, 1 process", 8),
)
# What README quotes: ours with 64 seeds beside a form of PyTorch with one process per core.
AT_A_GLANCE = {
    "VPG, one environment": ("VPG", "one environment"),
    "VPG, 20 environments in one process": ("VPG", "20 environments"),
    "DQN": ("DQN", "one environment"),
    "DQN, images": ("DQN, images", "one environment"),
    "A3C async, 16 workers": ("A3C async", "16 workers"),
    "A3C async, a worker per core": ("A3C async", "a worker per core"),
    "A3C sync, 16 environments in one process": ("A3C sync", "16 environments"),
}
# Of what was measured per iteration, and its part in floor.json: iterations of ours a second are env steps over these.
FLOORS = {
    "VPG": ("VPG, epoch", 4000),
    "DQN": ("DQN, env step", 1),
    "DQN, images": ("DQN, images, env step", 1),
    "A3C async": ("A3C, env step", 1),
    "A3C sync": ("A3C, env step", 1),
}


def rival_lines(rivals: dict[str, Any], floor: dict[str, Any]) -> list[str]:
    """Throughput of both, the ratios, the floor, other libraries."""
    found = next(rivals[name] for name in FLOORS if name in rivals)
    rounds = len(found["ours"]["64"]["rounds"])
    return [
        "## Against PyTorch",
        "",
        "`make bench` (`python benchmarks/rivals.py`): the preset `original` on CartPole-v0 and the references in "
        "`benchmarks/torch`, which have the same networks, hyperparameters and truncation. All forms take turns, each in "
        f"processes of its own; medians of {rounds} rounds. PyTorch: one process per core with one thread each, together, "
        "unless a line says 1 process. Start-up is compilation for ours, and imports and exit for PyTorch; memory is that "
        f"of all processes together. The last column is what {MANY} seeds of {STEPS_OF_A_SEED:,} env steps each would take "
        "at this throughput.",
        "",
        *glance_lines(rivals),
        "",
        *(line for name in FLOORS if name in rivals for line in contest_lines(name, rivals[name])),
        *ratio_lines(rivals),
        "",
        *floor_lines(rivals, floor),
        "",
        *library_lines(rivals),
    ]


def glance_lines(rivals: dict[str, Any]) -> list[str]:
    """64 seeds of ours beside PyTorch."""
    lines = section(
        "### At a glance",
        "64 seeds of ours; the ratio is the median of the rounds.",
        ["env steps/s", "purejaxrl", "PyTorch", "times"],
    )
    for label, (contest, form) in AT_A_GLANCE.items():
        lines.append(table_line(label, rivals.get(contest), partial(cells_at_a_glance, form)))
    return lines


def cells_at_a_glance(form: str, found: dict[str, Any]) -> list[str]:
    """Both rates and their ratio."""
    ours, theirs = found["ours"]["64"], found["theirs"][form]
    rates = [f"{row['env_steps_per_second']:,.0f}" for row in (ours, theirs)]
    return [*rates, f"{statistics.median(ratios_of(ours, theirs)):.1f}"]


def ratios_of(ours: dict[str, Any], theirs: dict[str, Any]) -> list[float]:
    """Round by round."""
    return [mine / other for mine, other in zip(ours["rounds"], theirs["rounds"], strict=True)]


def contest_lines(name: str, found: dict[str, Any]) -> list[str]:
    """A table of all forms."""
    lines = [
        f"### {name}",
        "",
        f"| | env steps/s | gradient steps/s | start-up, s | memory, MB | {MANY} seeds |",
        "|---|---|---|---|---|---|",
    ]
    labels = {f"PyTorch, {form}": row for form, row in found["theirs"].items()}
    labels |= {
        f"**purejaxrl, {seeds} seed{'s' if seeds != '1' else ''}**": found["ours"][seeds]
        for seeds in sorted(found["ours"], key=int)
    }
    for label, row in labels.items():
        lines.append(
            f"| {label} | {row['env_steps_per_second']:,.0f} | {row['gradient_steps_per_second']:,.0f} "
            f"| {row['start_seconds']:.1f} | {row['peak_memory_mb']:,.0f} "
            f"| {duration(MANY * STEPS_OF_A_SEED / row['env_steps_per_second'])} |"
        )
    return [*lines, ""]


def ratio_lines(rivals: dict[str, Any]) -> list[str]:
    """Ours over theirs."""
    lines = section(
        "### How many times as fast",
        "Env steps/s of ours over PyTorch's, round by round; the median, and the lowest and highest round.",
        ["ours", "PyTorch", "times as fast", "asked for"],
    )
    for goal in GOALS:
        label = f"{goal.contest}, {goal.seeds} seed{'s' if goal.seeds > 1 else ''} | {goal.form}"
        lines.append(table_line(label, rivals.get(goal.contest), partial(cells_of_goal, goal)))
    return lines


def cells_of_goal(goal: Goal, found: dict[str, Any]) -> list[str]:
    """Median, lowest and highest ratio of the rounds."""
    ratios = ratios_of(found["ours"][str(goal.seeds)], found["theirs"][goal.form])
    return [f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})", f"{goal.times:g}"]


def floor_lines(rivals: dict[str, Any], floor: dict[str, Any]) -> list[str]:
    """How far from what arithmetic alone would take."""
    rates = ", ".join(f"{name} {value:.3g}/s" for name, value in floor["rates"].items())
    lines = section(
        "### The floor",
        "`python benchmarks/floor.py`: matrix products, tanh, random words and bytes that the algorithm must spend, at the rates "
        f"that one core reaches ({rates}). Measured: 64 seeds on all cores, seconds of one core. PyTorch: its best form "
        "with one process per core, likewise.",
        ["", "floor", "ours", "ours over the floor", "PyTorch over the floor"],
    )
    for name, (part, steps) in FLOORS.items():
        least = floor["floors"][part]["seconds"]
        core_seconds = steps * rivals["machine"]["cores"]
        label = f"{part} ({name}) | {microseconds(least)}"
        lines.append(table_line(label, rivals.get(name), partial(cells_of_floor, least, core_seconds)))
    return lines


def cells_of_floor(least: float, core_seconds: float, found: dict[str, Any]) -> list[str]:
    """Ours with 64 seeds, and how many floors it and PyTorch's best form take; `core_seconds` are an iteration's if all
    cores together make one env step a second.
    """
    ours = core_seconds / found["ours"]["64"]["env_steps_per_second"]
    on_all_cores = [row for form, row in found["theirs"].items() if not form.endswith("1 process")]
    theirs = core_seconds / max(row["env_steps_per_second"] for row in on_all_cores)
    return [microseconds(ours), f"{ours / least:.1f}", f"{theirs / least:.1f}"]


def library_lines(rivals: dict[str, Any]) -> list[str]:
    """Other libraries, at settings of their own."""
    lines = section(
        "### Other libraries",
        "At the settings that they publish for CartPole-v1 (networks, batches and numbers of updates differ, so this says "
        "what users meet, not who computes faster): Stable-Baselines3 with one process per core, rejax with 8 seeds in one "
        "program and without evaluations; one run each.",
        ["", "env steps/s"],
    )
    return lines + [f"| {name} | {rate:,.0f} |" for name, rate in rivals.get("libraries", {}).items()]


def environment_lines(environment: dict[str, Any]) -> list[str]:
    """CartPole alone."""
    lines = section(
        "### The environment alone",
        f"`python benchmarks/environment.py`: CartPole-v1 under a random policy, {environment['environments']} side by side on each "
        "core, episodes beginning anew, both taking turns; medians (slowest to fastest) of seven.",
        ["", "env steps/s"],
    )
    for name, row in environment["cases"].items():
        lines.append(
            f"| {name} | {row['env_steps_per_second']:,.0f} ({row['slowest']:,.0f} to {row['fastest']:,.0f}) |"
        )
    return [*lines, "", machine_line(environment["machine"])]


def parity_lines(parity: dict[str, Any]) -> list[str]:
    """Whether both learn the same."""
    lines = [
        "## The same learning as PyTorch's",
        "",
        "`make bench-parity` (`python benchmarks/parity.py`): preset `original` and reference with the same budget. Final "
        "return: mean of the last 100 training episodes. Area under the learning curve: mean return over the whole "
        "training. Difference: ours minus PyTorch's, with a 95% bootstrap interval (BCa) over seeds. "
        f"{dates_of(parity)}",
        "",
        "![learning curves of both](parity.png)",
        "",
        "| | seeds | final return, ours and PyTorch's | difference | area, ours and PyTorch's | difference |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in parity.items():
        cells = []
        for measure in ("final_return", "area"):
            ours, theirs = (statistics.mean(found[side][measure]) for side in ("ours", "theirs"))
            apart = found[measure]
            cells += [
                f"{ours:.1f}, {theirs:.1f}",
                f"{apart['difference']:+.1f} [{apart['low']:+.1f}, {apart['high']:+.1f}]",
            ]
        budget = f"{found['contest']['amount']} {found['contest']['budget']}"
        lines.append(f"| {name}, {budget} | {len(found['ours']['area'])} | " + " | ".join(cells) + " |")
    return lines


def dates_of(parity: dict[str, Any]) -> str:
    """When the runs of each side were made."""
    ours, theirs = (sorted({found[side]["date"] for found in parity.values()}) for side in ("ours", "theirs"))
    return f"Ours were trained on {' and '.join(ours)}, PyTorch's on {' and '.join(theirs)}."


def plot_parity(parity: dict[str, Any]) -> Figure:
    """A panel per contest: means of both, and the middle half of their seeds."""
    figure = Figure(figsize=(3.4 * max(len(parity), 1), 3.2), dpi=120, layout="constrained")
    panels = figure.subplots(1, max(len(parity), 1), squeeze=False)[0]
    for axes, (name, found) in zip(panels, parity.items(), strict=False):
        for color, side, label in ((COLORS[0], "ours", "purejaxrl"), (COLORS[1], "theirs", "PyTorch")):
            curves = np.array(found[side]["curves"])
            share = np.linspace(0, found["contest"]["amount"], curves.shape[1])
            low, high = np.nanquantile(curves, (0.25, 0.75), axis=0)
            axes.plot(share, np.nanmean(curves, axis=0), color=color, label=label)
            axes.fill_between(share, low, high, color=color, alpha=0.2, linewidth=0)
        axes.set(xlabel=found["contest"]["budget"], ylabel="return")
        axes.set_title(f"{name}, {len(curves)} seeds", fontsize=10)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def solved_lines(solved: dict[str, Any]) -> list[str]:
    """Seconds from Enter to solved."""
    lines = section(
        "## From Enter to solved",
        "`python benchmarks/solved.py`: CartPole-v0 with the preset `original`, one seed at a time (ours) and one per core "
        "(PyTorch), start-up included, compiled programs from a warm cache. Median and quartiles of the seeds that reached "
        "a 100-episode mean of 195.",
        ["", "ours, s", "solved", "PyTorch, s", "solved"],
    )
    for name, found in solved.items():
        if name == "machine":
            continue
        cells = []
        for side in ("ours", "theirs"):
            seconds = [run["seconds"] for run in found[side] if run["env_steps"] is not None]
            low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75)) if seconds else (np.nan,) * 3
            cells += [f"{middle:.0f} ({low:.0f} to {high:.0f})", f"{len(seconds)} of {len(found[side])}"]
        lines.append(f"| {name}, {found['contest']['budget'].replace('--', '')} | " + " | ".join(cells) + " |")
    return [*lines, "", machine_line(solved["machine"])]
