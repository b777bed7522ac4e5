"""The part of RESULTS.md on learning from pixels, and its figures, from pixels.json."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pixels import ABLATION, COSTS, ORIGINAL, SIDE_BY_SIDE
from tables import section, table_line

from purejaxrl.analysis.plots import COLORS

HERE = Path(__file__).parent

SOLVED_AT = 195
ORIGINALS_DQN = 91  # after 1200 episodes, read off the published figure
STACK = "stack of 2 frames, grey, 8 x 60"


def write_figures(pixels: dict[str, Any]) -> None:
    """Plot what has been measured."""
    plot_ablation(pixels).savefig(HERE / "pixels-ablation.png", metadata={"Software": None})
    plot_side_by_side(pixels).savefig(HERE / "pixels-and-states.png", metadata={"Software": None})
    if any(name in pixels for name in ORIGINAL):
        plot_original(pixels).savefig(HERE / "pixels-original.png", metadata={"Software": None})


def pixel_lines(pixels: dict[str, Any]) -> list[str]:
    """Sections: images beside states, what matters, the presets `original`, time and memory."""
    return [
        "## Learning from pixels",
        "",
        "`python benchmarks/pixels.py`, CartPole-v0, plain reward of 1 a step. Mean return of the last 100 training episodes; "
        "solved is 195. Env steps are those of all actors of a run.",
        "",
        *side_by_side_lines(pixels),
        "",
        *ablation_lines(pixels),
        "",
        *original_lines(pixels),
        "",
        *cost_lines(pixels),
    ]


def side_by_side_lines(pixels: dict[str, Any]) -> list[str]:
    """How much longer images take than states."""
    lines = [
        "### Images and states, side by side",
        "",
        f"The preset `tuned` with 8 seeds each; images are a {STACK}. Thin lines are seeds, thick ones their mean.",
        "",
        "![learning curves of images and of states](pixels-and-states.png)",
        "",
        "| | solved | env steps to solve, median (last) | episodes by then, median | training, s for 8 seeds |",
        "|---|---|---|---|---|",
    ]
    for name in SIDE_BY_SIDE:
        label = name.replace("default", "states").replace("img", "images")
        lines.append(table_line(label, pixels.get(name), cells_beside))
    return lines


def cells_beside(row: dict[str, Any]) -> list[str]:
    """Solved, env steps and episodes to solve, seconds."""
    solved = solved_at(row)
    return [
        f"{len(solved)} of {row['runs']}",
        f"{statistics.median(solved):,.0f} ({max(solved):,})",
        f"{episodes_to_solve(row):,.0f}",
        f"{row['run_seconds']:.0f}",
    ]


def solved_at(row: dict[str, Any]) -> list[int]:
    """Env steps to solve of the runs that did."""
    return [steps for steps in row["env_steps_to_solve_per_run"] if steps is not None]


def episodes_to_solve(row: dict[str, Any]) -> float:
    """Median over the runs that solved of the episodes finished by then, to the next log."""
    counts = []
    for steps, known, episodes in zip(
        row["env_steps_to_solve_per_run"], row["curves"]["env_steps"], row["curves"]["episodes"], strict=True
    ):
        if steps is not None:
            counts.append(episodes[min(np.searchsorted(known, steps), len(known) - 1)])
    return statistics.median(counts)


def ablation_lines(pixels: dict[str, Any]) -> list[str]:
    """One factor at a time."""
    lines = [
        "### What matters",
        "",
        f"DQN's preset `tuned` ({STACK}, motion_scale 6, n_steps 5) with one setting changed, 4 seeds and 100 k env steps each; "
        "the preset's own value is bold, and black in the picture. Lines are means of the seeds, bands from the lowest to the highest. "
        "Other work shared the machine, so seconds are upper bounds.",
        "",
        "![learning curves, one factor per panel](pixels-ablation.png)",
        "",
        "| factor | value | solved | env steps to solve, median | highest 100-episode mean per seed | training, s |",
        "|---|---|---|---|---|---|",
    ]
    for factor, settings in ABLATION.items():
        for label, words in settings.items():
            value = label if words else f"**{label}**"
            lines.append(table_line(f"{factor} | {value}", row_of(pixels, factor, label, words), cells_of_setting))
    return lines


def cells_of_setting(row: dict[str, Any]) -> list[str]:
    """Solved, env steps to solve, the highest means, seconds."""
    solved = solved_at(row)
    return [
        f"{len(solved)} of {row['runs']}",
        f"{statistics.median(solved):,.0f}" if solved else "-",
        ", ".join(f"{best:.0f}" for best in row["best_return_100_per_run"]),
        f"{row['run_seconds']:.0f}",
    ]


def original_lines(pixels: dict[str, Any]) -> list[str]:
    """How far the presets `original` get on differences of RGB frames."""
    lines = [
        "### The presets `original`",
        "",
        "Differences of RGB frames of 40 x 90 into an MLP of 32-32, 4 seeds. The PyTorch original shows a 100-episode mean of "
        f"about {ORIGINALS_DQN} for DQN at 1200 episodes.",
        "",
        *(
            ["![learning curves of the presets original](pixels-original.png)", ""]
            if any(name in pixels for name in ORIGINAL)
            else []
        ),
        "| command | highest 100-episode mean per seed | last per seed | env steps in all | training, s |",
        "|---|---|---|---|---|",
    ]
    return lines + [
        table_line(f"`purejaxrl {command}`", pixels.get(name), cells_of_original) for name, command in ORIGINAL.items()
    ]


def cells_of_original(row: dict[str, Any]) -> list[str]:
    """The highest and the last means, env steps, seconds."""
    means = (row[key] for key in ("best_return_100_per_run", "final_return_per_run"))
    return [
        *(", ".join(f"{value:.0f}" for value in values) for values in means),
        f"{row['env_steps']:,}",
        f"{row['run_seconds']:.0f}",
    ]


def cost_lines(pixels: dict[str, Any]) -> list[str]:
    """From Enter to the last file, and memory."""
    lines = section(
        "### Time and memory of DQN",
        "From Enter to the last file and picture, compilation included, nothing cached; peak memory of the process.",
        ["command", "s", "peak memory"],
    )
    lines += [table_line(f"`purejaxrl {command}`", pixels.get(name), cells_of_cost) for name, command in COSTS.items()]
    return [*lines, "", "On an accelerator: not measured."]


def cells_of_cost(row: dict[str, Any]) -> list[str]:
    """Seconds and memory."""
    return [f"{row['seconds']:.0f}", f"{row['peak_memory_mb']:,.0f} MB"]


def row_of(pixels: dict[str, Any], factor: str, label: str, words: str) -> dict[str, Any] | None:
    """The result of one setting, if there is one; settings without words are the preset itself."""
    return pixels.get(f"{factor} {label}" if words else "tuned")


def plot_ablation(pixels: dict[str, Any]) -> Figure:
    """A panel per factor; the preset's own setting is black in all."""
    figure, panels = grid_of_panels(len(ABLATION), columns=4)
    for axes, (factor, settings) in zip(panels, ABLATION.items(), strict=True):
        colors = iter(COLORS)
        for label, words in settings.items():
            color = next(colors) if words else "black"
            row = row_of(pixels, factor, label, words)
            if row is None:
                continue
            env_steps, values = on_one_grid(row, "env_steps")
            # Before 100 episodes have ended there is no value.
            known = ~np.isnan(values).any(axis=0)
            env_steps, values = env_steps[known], values[:, known]
            axes.plot(env_steps, values.mean(axis=0), color=color, linewidth=2, label=label)
            axes.fill_between(env_steps, values.min(axis=0), values.max(axis=0), color=color, alpha=0.12, linewidth=0)
        style(axes, factor, "env steps")
        legend(axes, "best")
    return figure


def plot_side_by_side(pixels: dict[str, Any]) -> Figure:
    """A panel per algorithm, states and images in each."""
    algorithms = list(dict.fromkeys(name.split(", ")[0] for name in SIDE_BY_SIDE))
    figure, panels = grid_of_panels(len(algorithms), columns=2)
    for axes, algorithm in zip(panels, algorithms, strict=True):
        for color, kind, label in ((COLORS[0], "default", "states"), (COLORS[1], "img", "images")):
            if f"{algorithm}, {kind}" in pixels:
                plot_seeds(axes, pixels[f"{algorithm}, {kind}"], "env_steps", color, label)
        style(axes, algorithm, "env steps")
        legend(axes, "lower right")
    return figure


def plot_original(pixels: dict[str, Any]) -> Figure:
    """A panel per algorithm, against episodes."""
    figure, panels = grid_of_panels(len(ORIGINAL), columns=3)
    for axes, name in zip(panels, ORIGINAL, strict=True):
        if name in pixels:
            plot_seeds(axes, pixels[name], "episodes", COLORS[0], "this project")
        style(axes, name, "episodes")
        if name.startswith("dqn"):
            axes.plot(1200, ORIGINALS_DQN, "x", color=COLORS[1], markersize=9, mew=2, label="the PyTorch original")
        legend(axes, "center left")
    return figure


def legend(axes: Axes, place: str) -> None:
    """A legend, if there is anything to tell apart."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8, loc=place)


def grid_of_panels(count: int, columns: int) -> tuple[Figure, list[Axes]]:
    """That many panels, row by row."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(3.6 * max(columns, 2), 3.2 * rows), dpi=120, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.set_visible(False)
    return figure, panels[:count]


def on_one_grid(row: dict[str, Any], column: str) -> tuple[np.ndarray, np.ndarray]:
    """Places [200] from 0 to the furthest, and the value of every run there; a run that has ended keeps its last."""
    runs = list(zip(*(row["curves"][key] for key in (column, "return_100")), strict=True))
    grid = np.linspace(0, max(places[-1] for places, _ in runs), 200)
    return grid, np.stack([np.interp(grid, places, np.array(values, float)) for places, values in runs])


def plot_seeds(axes: Axes, row: dict[str, Any], column: str, color: str, label: str) -> None:
    """Thin lines of the seeds and a thick one of their mean."""
    grid, values = on_one_grid(row, column)
    axes.plot(grid, values.T, color=color, alpha=0.3, linewidth=0.8)
    axes.plot(grid, values.mean(axis=0), color=color, linewidth=2, label=label)


def style(axes: Axes, title: str, label: str) -> None:
    """What all panels share."""
    axes.axhline(SOLVED_AT, color="0.4", linestyle=":", linewidth=1)
    axes.set(xlabel=label, ylabel="mean return of 100 episodes", ylim=(0, 205))
    axes.set_title(title, fontsize=10, parse_math=False)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e3:g} k" if value >= 1e4 else f"{value:g}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
