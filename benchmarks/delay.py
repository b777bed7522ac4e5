"""How much does the delay of A3C's gradients cost? Learning speed against the number of actors, by mode and order.

CartPole-v1, the preset `tuned` with 1, 4, 16 and 64 actors; async with fixed and with random order, and sync. Each is
tried with several learning rates, 16 seeds each, and reported at the one with the highest mean return over training.
Results go to delay.json one by one; then `python benchmarks/report.py` writes RESULTS.md and the figure.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import machine
import numpy as np

import purejaxrl

FILE = Path(__file__).with_name("delay.json")
ACTORS = (1, 4, 16, 64)
VARIANTS = {
    "async, fixed order": {"mode": "async", "order": "fixed"},
    "async, random order": {"mode": "async", "order": "random"},
    "sync": {"mode": "sync"},
}
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
SEEDS = 16
ENV_STEPS = 500_000


def measure(actors: int, variant: str, lr: float) -> dict[str, Any]:
    """Train one setting; env steps to a 100-episode mean of 475, and the mean return over the whole training."""
    settings = {**VARIANTS[variant], "actors": actors, "lr": lr, "env_steps": ENV_STEPS}
    result = purejaxrl.train("a3c", env="CartPole-v1", preset="tuned", seeds=SEEDS, log_every=5000, **settings)
    curves = result.frame().pivot(index="env_steps", columns="run", values="return_mean").ffill()
    tally = {int(delay): count for delay, count in result.summary_json["delay_histogram"]["counts"].items()}
    return {
        "actors": actors,
        "variant": variant,
        "lr": lr,
        "mean_delay": sum(delay * count for delay, count in tally.items()) / sum(tally.values()),
        "mean_return_per_run": curves.mean().tolist(),
        "env_steps_to_solve_per_run": result.summary_json["env_steps_to_solve_per_run"],
        "final_return_per_run": np.asarray(result.summary_json["final_return_per_run"], float).tolist(),
    }


def main() -> None:
    """Measure what delay.json lacks."""
    results = json.loads(FILE.read_text()) if FILE.exists() else {"machine": machine.describe(), "settings": []}
    done = {(row["actors"], row["variant"], row["lr"]) for row in results["settings"]}
    for actors in ACTORS:
        for variant in VARIANTS:
            for lr in LEARNING_RATES:
                if (actors, variant, lr) in done:
                    continue
                row = measure(actors, variant, lr)
                results["settings"].append(row)
                FILE.write_text(json.dumps(results, indent=1) + "\n")
                print(f"{actors} actors, {variant}, lr {lr:g}: mean return {np.mean(row['mean_return_per_run']):.0f}")


if __name__ == "__main__":
    main()
