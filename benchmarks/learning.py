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

import jax
import jax.numpy as jnp
import machine
import numpy as np
import pandas as pd

from purejaxrl import cli
from purejaxrl.envs import make

FILE = Path(__file__).with_name("learning.json")
RESULTS = Path("results/learning")

# A3C as the paper has it, but for 20 steps per update and the budget.
PAPER = "--env CartPole-v1 --preset tuned --optimizer rmsprop --entropy_coef 0.01 --lam 1 --reward_scale 1"

IMAGES = "--preset tuned --observation_type img"
V0_IMAGES = "--env CartPole-v0 --preset tuned --seeds 8 --log_every 2000 --observation_type img"

EXPERIMENTS = {
    "vpg-original-v0": "train vpg --env CartPole-v0 --seeds 8 --epochs 400",
    "dqn-original-v0": "train dqn --observation_type default --env CartPole-v0 --seeds 16",
    "vpg-tuned-v1": "train vpg --env CartPole-v1 --preset tuned --seeds 32",
    "dqn-tuned-v1": "train dqn --env CartPole-v1 --preset tuned --seeds 32 --eval_every 10000",
    "a3c-original-v0": "train a3c --env CartPole-v0 --seeds 8",
    "a3c-original-v0-lr-3e-4": "train a3c --env CartPole-v0 --lr 3e-4 --seeds 8",
    "a3c-original-v0-lr-3e-3": "train a3c --env CartPole-v0 --lr 3e-3 --seeds 8",
    "a3c-async-tuned-v1": "train a3c --env CartPole-v1 --preset tuned --seeds 32",
    "a3c-sync-tuned-v1": "train a3c --env CartPole-v1 --preset tuned --mode sync --seeds 32",
    "a3c-async-rmsprop-v1": f"train a3c {PAPER} --seeds 32",
    "a3c-async-rmsprop-clipped-v1": f"train a3c {PAPER} --max_grad_norm 0.5 --seeds 32",
    "a3c-async-adam-clipped-v1": "train a3c --env CartPole-v1 --preset tuned --max_grad_norm 0.5 --seeds 32",
    "vpg-tuned-pendulum": "train vpg --env Pendulum-v1 --preset tuned --seeds 8",
    "a3c-async-tuned-pendulum": "train a3c --env Pendulum-v1 --preset tuned --seeds 8",
    "a3c-sync-tuned-pendulum": "train a3c --env Pendulum-v1 --preset tuned --mode sync --seeds 8",
    "vpg-tuned-v0": "train vpg --env CartPole-v0 --preset tuned --seeds 32",
    "dqn-tuned-v0": "train dqn --env CartPole-v0 --preset tuned --seeds 32",
    "a3c-async-tuned-v0": "train a3c --env CartPole-v0 --preset tuned --seeds 32",
    "a3c-sync-tuned-v0": "train a3c --env CartPole-v0 --preset tuned --mode sync --seeds 32",
    "dqn-tuned-v0-images": f"train dqn {V0_IMAGES}",
    "vpg-tuned-v0-images": f"train vpg {V0_IMAGES}",
    "a3c-async-tuned-v0-images": f"train a3c {V0_IMAGES}",
    "a3c-sync-tuned-v0-images": f"train a3c --mode sync {V0_IMAGES}",
    "dqn-tuned-v1-images": f"train dqn --env CartPole-v1 {IMAGES} --seeds 4",
    "vpg-tuned-v1-images": f"train vpg --env CartPole-v1 {IMAGES} --seeds 4",
    "a3c-async-tuned-v1-images": f"train a3c --env CartPole-v1 {IMAGES} --seeds 4",
    "a3c-sync-tuned-v1-images": f"train a3c --env CartPole-v1 --mode sync {IMAGES} --seeds 4",
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


def random_return(env_name: str, episodes: int = 1000) -> float:
    """Mean return of actions sampled uniformly between the bounds of a continuous action space."""
    env = make(env_name)
    low, high, shape = env.action_space.low, env.action_space.high, env.action_space.shape

    def play(key: jax.Array) -> jax.Array:
        start_key, *step_keys = jax.random.split(key, 2 * env.max_episode_steps + 1)
        action_keys, env_keys = jnp.stack(step_keys).reshape(2, -1)

        def step(carry: Any, keys: Any) -> Any:
            state, is_running = carry
            after = env.step(keys[1], state, jax.random.uniform(keys[0], shape, minval=low, maxval=high))
            return (after.state, is_running & ~(after.terminated | after.truncated)), after.reward * is_running

        start = (env.reset(start_key)[1], jnp.ones((), bool))
        return jnp.sum(jax.lax.scan(step, start, (action_keys, env_keys))[1])

    return float(jnp.mean(jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), episodes))))


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
    if summary["solved_at"] is None:
        result["random_policy_return"] = random_return(summary["env"])
    elif summary["algorithm"] == "vpg":
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
