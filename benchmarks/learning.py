"""The learning results of RESULTS.md: every seed, its env steps to solve, its final return.

Run all with `python benchmarks/learning.py`, some with their names as arguments. Results go to learning.json one by
one, so an interrupted run loses only what it was at; then `python benchmarks/report.py` writes RESULTS.md.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import machine
import numpy as np
import pandas as pd

from purejaxrl import cli

FILE = Path(__file__).with_name("learning.json")
RESULTS = Path("results/learning")

EXPERIMENTS = {
    "vpg-original-v0": "train vpg --env CartPole-v0 --seeds 8 --epochs 400",
    "dqn-original-v0": "train dqn --env CartPole-v0 --seeds 16",
    "vpg-tuned-v1": "train vpg --env CartPole-v1 --preset tuned --seeds 32",
    "dqn-tuned-v1": "train dqn --env CartPole-v1 --preset tuned --seeds 32 --eval_every 10000",
    "vpg-tuned-v0": "train vpg --env CartPole-v0 --preset tuned --seeds 32",
    "dqn-tuned-v0": "train dqn --env CartPole-v0 --preset tuned --seeds 32",
}

KEPT = (
    "runs",
    "runs_ok",
    "solved_at",
    "solved_runs",
    "env_steps",
    "compile_seconds",
    "run_seconds",
    "final_return_per_run",
    "env_steps_to_solve_per_run",
)


def first_epoch_at(metrics: pd.DataFrame, threshold: float, window: int = 20) -> list[int | None]:
    """Per run: the first epoch at which the mean of the last `window` epoch means is at or above the threshold.

    Epochs in which no episode ended are left out.
    """
    firsts: list[int | None] = []
    for _, rows in metrics.groupby("run"):
        known = rows.loc[rows["return_mean"].notna()]
        means = known["return_mean"].rolling(window).mean().to_numpy()
        reached = np.nonzero(means >= threshold)[0]
        firsts.append(int(known["iteration"].to_numpy()[reached[0]]) if len(reached) else None)
    return firsts


def run(name: str, command: str) -> dict[str, Any]:
    """One experiment through the command line."""
    out = RESULTS / name
    words = [*shlex.split(command), "--out", str(out)]
    code = cli.main([*words, "--overwrite"])
    if code:
        sys.exit(code)
    summary = json.loads((out / "summary.json").read_text())
    metrics = pd.read_csv(out / "metrics.csv")
    result = {
        "command": "purejaxrl " + command,
        "machine": machine.describe(),
        **{key: summary[key] for key in KEPT},
        "best_return_100_per_run": metrics.groupby("run")["return_100"].max().tolist(),
    }
    if summary["algorithm"] == "vpg":
        result["first_epoch_of_20_at_threshold_per_run"] = first_epoch_at(metrics, summary["solved_at"])
    if metrics["eval_return"].notna().any():
        result["best_eval_return_per_run"] = metrics.groupby("run")["eval_return"].max().tolist()
    return result


def main() -> None:
    """Run the experiments named on the command line, or all."""
    for name in sys.argv[1:] or EXPERIMENTS:
        results = json.loads(FILE.read_text()) if FILE.exists() else {}
        results[name] = run(name, EXPERIMENTS[name])
        FILE.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
