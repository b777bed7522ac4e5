"""The figures of README.md and the documentation: learning curves of the presets `tuned`, and a sweep.

`make figures` trains what they show, about five minutes on two cores, and plots docs/figures/*.png. Run folders are
left in results/figures. The same versions on the same machine give the same figures, byte for byte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import purejaxrl
from purejaxrl.analysis import plots
from purejaxrl.analysis.figures import read_statistics

FIGURES = Path(__file__).parents[1] / "docs" / "figures"
RUNS = Path("results/figures")

# Name -> title and training.
CURVES: dict[str, tuple[str, dict[str, Any]]] = {
    "vpg": ("VPG", {"algorithm": "vpg", "log_every": 4000}),
    "a3c": ("A3C", {"algorithm": "a3c", "log_every": 4000}),
    "dqn": ("DQN, state vectors", {"algorithm": "dqn"}),
    "dqn-images": ("DQN, images", {"algorithm": "dqn", "observation_type": "img"}),
}
SEEDS = 8
SWEEP: dict[str, Any] = {
    "env": "CartPole-v1",
    "env_steps": 300_000,
    "seeds": 16,
    "lr": [3e-4, 1e-3, 3e-3, 1e-2],
    "mode": ["async", "sync"],
}


def plot_curves(results: dict[str, purejaxrl.Result]) -> Figure:
    """One panel per training: mean return of each log interval, by seed and over all, with one standard deviation."""
    figure = Figure(figsize=(9, 5.6), dpi=120, layout="constrained")
    panels = figure.subplots(2, 2, sharey=True).flat
    for axes, color, (name, result) in zip(panels, plots.COLORS, results.items(), strict=False):
        axes.set_title(CURVES[name][0])
        result.plot(axes, column="return_mean", color=color, label="mean")
        axes.axhline(result.plan.solved_at, color="0.4", linestyle=":", linewidth=1)
        axes.set(xlabel="", ylabel="", xlim=(0, None), ylim=(0, 220))
    figure.supxlabel("env steps", fontsize="medium")
    figure.supylabel("training return", fontsize="medium")
    return figure


def plot_sweep(result: purejaxrl.Result) -> Figure:
    """The figure of every sweep, in the size of a page."""
    plan, metrics = result.plan, result.frame()
    figure = plots.sweep(
        {name: metrics[name].to_numpy() for name in metrics},
        read_statistics(result.path),
        plan.labels,
        np.arange(plan.runs) // plan.options.seeds,
        f"{len(plan.settings)} settings of A3C on {plan.env}, {plan.options.seeds} seeds each",
        plan.solved_at,
    )
    figure.set_size_inches(11, 4)
    return figure


def main() -> None:
    """Train and plot."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    swept = purejaxrl.sweep("a3c", preset="tuned", log_every=5000, out=RUNS / "sweep", overwrite=True, **SWEEP)
    plot_sweep(swept).savefig(FIGURES / "sweep.png", metadata={"Software": None})
    results = {}
    for name, (title, training) in CURVES.items():
        print(f"training {title}")
        settings = {"preset": "tuned", "seeds": SEEDS, **training}
        results[name] = purejaxrl.train(**settings, out=RUNS / name, overwrite=True)
    plot_curves(results).savefig(FIGURES / "curves.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
