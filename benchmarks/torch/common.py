"""What the scripts share: flags, seeds, and the JSON of a run."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch


def parser(description: str, budget: str, amount: int) -> argparse.ArgumentParser:
    """Flags of every script; the budget is `budget`, or env steps in its place."""
    flags = argparse.ArgumentParser(description=description)
    budgets = flags.add_mutually_exclusive_group()
    budgets.add_argument(f"--{budget}", type=int, default=amount, help=f"budget (default {amount})")
    budgets.add_argument("--env_steps", type=int, help="budget in env steps of all environments instead")
    flags.add_argument("--seed", type=int, default=0)
    flags.add_argument("--threads", type=int, default=1, help="threads of PyTorch's own (default 1)")
    flags.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    flags.add_argument("--out", type=Path, help="write the run as JSON here")
    return flags


def prepare(seed: int, threads: int) -> None:
    """Seed everything but environments, which are seeded where they are made; set the number of threads."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads)


def report(
    algorithm: str,
    args: argparse.Namespace,
    settings: dict[str, Any],
    episodes: tuple[list[int], list[float]],
    counts: tuple[int, int],
    seconds: float,
    warm_up: tuple[int, float] = (0, 0.0),
) -> None:
    """Print a line, and write everything to `--out`. episodes: env steps and returns; counts: env, gradient steps.

    warm_up: env steps and seconds, of those in all, before the first gradient step could be made.
    """
    env_steps, gradient_steps = counts
    ended_at, returns = episodes
    last = float(np.mean(returns[-100:])) if returns else float("nan")
    print(
        f"{algorithm}: {env_steps} env steps, {gradient_steps} gradient steps, {len(returns)} episodes"
        f" in {seconds:.1f} s ({env_steps / seconds:.0f} env steps/s, {gradient_steps / seconds:.0f} gradient steps/s);"
        f" mean return of the last 100: {last:.1f}"
    )
    if args.out is None:
        return
    left_out = {"out", "env_steps"} if args.env_steps is None else {"out", "epochs", "episodes"}
    flags = {name: value for name, value in vars(args).items() if name not in left_out}
    run = {
        "algorithm": algorithm,
        "env": "CartPole-v0",
        "seed": args.seed,
        "flags": flags,
        "settings": settings,
        "env_steps": env_steps,
        "gradient_steps": gradient_steps,
        "seconds": seconds,
        "warm_up": dict(zip(("env_steps", "seconds"), warm_up, strict=True)),
        "versions": {"python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in ("torch", "gymnasium", "numpy")},
        "episodes": {"env_steps": ended_at, "return": returns},
    }
    args.out.write_text(json.dumps(run) + "\n")
