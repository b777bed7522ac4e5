"""The part of RESULTS.md on cost per seed, and its figure, from scaling.json."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from scaling import ACTORS, SEEDS, SETTINGS
from tables import ON_AN_ACCELERATOR, machine_line, microseconds

from purejaxrl.analysis.plots import COLORS


def scaling_lines(scaling: dict[str, Any]) -> list[str]:
    """Tables: seeds, cores, actors."""
    lines = [
        "## Cost per seed",
        "",
        "`make bench-scaling` (`python benchmarks/scaling.py`): preset `original`, CartPole-v0, state observations. Wall time "
        "per env step and seed, its share of learning included: a flat line means that twice the seeds take twice as long, "
        "however many there are. DQN's replay holds 10 000 transitions here.",
        "",
        "![cost per env step against seeds and actors](scaling.png)",
        "",
        "| seeds, 2 cores | " + " | ".join(SETTINGS) + " | peak memory, MB, in that order |",
        "|---" * (len(SETTINGS) + 2) + "|",
    ]
    for seeds in SEEDS:
        rows = [scaling.get(f"{name}, {seeds} seeds") for name in SETTINGS]
        peaks = ", ".join("-" if row is None else f"{row['peak_memory_mb']:,.0f}" for row in rows)
        lines.append(f"| {seeds:,} | " + " | ".join(map(cost_of, rows)) + f" | {peaks} |")
    lines += [
        "",
        "A device is a core on CPU. 64 seeds on one and on two; ratio of throughputs:",
        "",
        "| | 1 core | 2 cores | ratio |",
        "|---|---|---|---|",
    ]
    for name in SETTINGS:
        one, two = (scaling.get(f"{name}, {words}") for words in ("1 core", "64 seeds"))
        if one and two:
            ratio = two["env_steps_per_second"] / one["env_steps_per_second"]
            lines.append(f"| {name} | {cost_of(one)} | {cost_of(two)} | {ratio:.2f} |")
    lines += ["", "8 seeds on 2 cores, by number of actors:", ""]
    for name, numbers in ACTORS.items():
        costs = ((actors, scaling.get(f"{name}, {actors} actors")) for actors in numbers)
        lines.append(f"- {name}: " + ", ".join(f"{cost_of(row)} with {actors}" for actors, row in costs))
    return [*lines, "", ON_AN_ACCELERATOR, "", machine_line(scaling["machine"])]


def cost_of(row: dict[str, Any] | None) -> str:
    """Wall time per env step of one seed."""
    return "not measured" if row is None else microseconds(1 / row["env_steps_per_second"])


def plot_scaling(scaling: dict[str, Any]) -> Figure:
    """Cost per env step against seeds and against actors."""
    figure = Figure(figsize=(9, 3.6), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for color, name in zip(COLORS, SETTINGS, strict=False):
        for axes, numbers, word in ((left, SEEDS, "seeds"), (right, ACTORS[name], "actors")):
            rows = {number: scaling.get(f"{name}, {number} {word}") for number in numbers}
            rows = {number: row for number, row in rows.items() if row}
            costs = [1e6 / row["env_steps_per_second"] for row in rows.values()]
            axes.plot(list(rows), costs, marker="o", color=color, label=name)
    left.set(xlabel="seeds (20 actors for VPG, 1 for DQN, 16 for A3C)", ylabel="us per env step and seed")
    right.set(xlabel="actors (8 seeds)")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8, loc="center right", bbox_to_anchor=(1, 0.3))
    return figure
