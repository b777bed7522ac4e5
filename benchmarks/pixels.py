"""Learning from pixels: what matters, one factor at a time; images beside states; the presets `original`.

Run all with `python benchmarks/pixels.py`, some with their names as arguments. Results go to pixels.json one by one, so
an interrupted run loses only what it was at; then `python benchmarks/report.py` writes RESULTS.md and the figures.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import learning
import pandas as pd
import sweeps

FILE = Path(__file__).with_name("pixels.json")

ABLATED = "train dqn --env CartPole-v0 --preset tuned --observation_type img --seeds 4 --log_every 2000"
# What differs from the preset `tuned`, whose own value is the empty one; a factor is a panel of the figure.
ABLATION = {
    "observation": {"stack of 2 frames": "", "difference": "--image difference"},
    "frames": {"1": "--frames 1", "2": "", "3": "--frames 3", "4": "--frames 4"},
    "frame_spacing": {"1": "", "2": "--frame_spacing 2"},
    "size": {"8 x 60": "", "20 x 60": "--image_size 20 60", "40 x 90": "--image_size 40 90"},
    "torso": {"mlp": "", "conv": "--torso conv --conv_channels 16 --conv_kernels 8 --conv_strides 4"},
    "motion_scale": {"6": "", "off": "--motion_scale off"},
    "normalize_observations": {"on": "", "off": "--normalize_observations false"},
    "n_steps": {"1": "--n_steps 1", "5": "", "10": "--n_steps 10"},
}
TUNED = "--env CartPole-v0 --preset tuned --seeds 8 --log_every 2000"
SIDE_BY_SIDE = {
    f"{label}, {kind}": f"train {words} {TUNED} --observation_type {kind}"
    for label, words in {"DQN": "dqn", "VPG": "vpg", "A3C async": "a3c", "A3C sync": "a3c --mode sync"}.items()
    for kind in ("default", "img")
}
ORIGINAL = {
    "dqn original": "train dqn --seeds 4 --log_every 500",
    "vpg original": "train vpg --observation_type img --seeds 4 --epochs 60",
    "a3c original": "train a3c --observation_type img --seeds 4 --episodes 5000",
}

# From Enter, nothing cached; 64 seeds for the memory they take.
COLD = "train dqn --env CartPole-v0 --preset tuned --observation_type img --no_cache"
COSTS = {
    "1 seed": f"{COLD} --seeds 1",
    "4 seeds": f"{COLD} --seeds 4",
    "64 seeds": f"{COLD} --seeds 64 --env_steps 10000",
}


def experiments() -> dict[str, str]:
    """Name -> command of what is to be learned; the preset's own settings are run once for all factors."""
    ablation = {
        f"{factor} {label}": f"{ABLATED} {words}"
        for factor, settings in ABLATION.items()
        for label, words in settings.items()
        if words
    }
    return {"tuned": ABLATED, **ablation, **SIDE_BY_SIDE, **ORIGINAL}


def curves(out: Path) -> dict[str, list[list[float | None]]]:
    """Per run env steps, finished episodes and the mean return of the last 100 of them, at every log."""
    metrics = pd.read_csv(out / "metrics.csv")
    columns = ("env_steps", "episodes", "return_100")
    return {
        column: [
            [None if pd.isna(value) else round(float(value), 1) for value in rows[column]]
            for _, rows in metrics.groupby("run")
        ]
        for column in columns
    }


def learn(name: str, command: str) -> dict[str, Any]:
    """The result of one training, with its curves."""
    folder = f"pixels-{name.replace(' ', '-').replace(',', '')}"
    return {**learning.run(folder, command), "curves": curves(learning.RESULTS / folder)}


def cost(command: str) -> dict[str, Any]:
    """Seconds from Enter and peak memory."""
    measured = sweeps.run(command, dict(os.environ))
    return {"command": f"purejaxrl {command}", **{key: measured[key] for key in ("seconds", "peak_memory_mb")}}


def main() -> None:
    """Run the experiments named on the command line, or those that pixels.json lacks."""
    commands = experiments()
    results = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in sys.argv[1:] or [name for name in (*commands, *COSTS) if name not in results]:
        results[name] = cost(COSTS[name]) if name in COSTS else learn(name, commands[name])
        FILE.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
