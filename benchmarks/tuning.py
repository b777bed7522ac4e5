"""Searches for hyperparameters, whose winners fresh seeds judge: `python benchmarks/tuning.py`.

Every search is timed from pressing Enter to the prompt. It goes on where it was interrupted; `--only NAME` takes one
kind of search, `--whole` adds the full sweeps that the large search trains a part of, twenty minutes each.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
from sweeps import command

HERE = Path(__file__).parent
FILE = HERE / "tuning.json"
LARGE = (
    "tune a3c --preset tuned --env CartPole-v1 --lr 1e-4..1e-1:log --gamma 0.9..0.999 --lam 0.8..1 "
    "--entropy_coef 0..0.02 --settings 1000 --seeds 8 --env_steps 300000"
)
# The seeds that ranges and rungs were chosen on lie below.
LARGE_SEEDS = (10_000, 20_000, 30_000, 40_000, 50_000)
FROM_ORIGINAL = {
    "vpg": "tune vpg --env CartPole-v1",
    "a3c": "tune a3c --env CartPole-v1",
    "dqn": "tune dqn --env CartPole-v1 --observation_type default --settings 64",
}
IN_TWO_MINUTES = "tune a3c --env Acrobot-v1 --time 2m"
ORIGINAL_SEEDS = (10_000, 20_000, 30_000)


def searches(*, has_whole: bool) -> list[tuple[str, str]]:
    """Kinds of searches and their commands."""
    found = [("large", f"{LARGE} --seed {seed}") for seed in LARGE_SEEDS]
    found += [(f"{name} from original", f"{words} --seed {ORIGINAL_SEEDS[0]}") for name, words in FROM_ORIGINAL.items()]
    found += [("in two minutes", f"{IN_TWO_MINUTES} --seed {seed}") for seed in ORIGINAL_SEEDS]
    if has_whole:
        found += [("whole sweep", f"{LARGE} --method random --seed {seed}") for seed in LARGE_SEEDS]
    return found


def measure(words: str, cache: str) -> dict[str, Any]:
    """Search, and collect what was found and what it took."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PUREJAXRL_CACHE_DIR": cache}
        started = time.perf_counter()
        subprocess.run(command(words, "--quiet", "--out", f"{folder}/run"), env=environment, check=True)
        seconds = time.perf_counter() - started
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
        confirmation = json.loads(Path(folder, "run", "confirm", "summary.json").read_text())
    names = ("values", "score", "low", "high", "confirmed", "full_env_steps", "rungs")
    return {
        "seconds": seconds,
        "compile_seconds": summary["compile_seconds"],
        "env_steps": summary["env_steps"],
        "confirmation_env_steps": confirmation["env_steps"],
        "settings": len(summary["settings"]),
        **{name: summary["tune"][name] for name in names},
    }


def main() -> None:
    """Measure what is missing, and write it down after every search."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--whole", action="store_true", help="the full sweeps, too")
    parser.add_argument("--only", help="one kind of search")
    given = parser.parse_args()
    results = json.loads(FILE.read_text())["searches"] if FILE.exists() else []
    known = {result["command"] for result in results}
    # The first search of a program compiles, as it does for whoever has never used it.
    with tempfile.TemporaryDirectory() as cache:
        for name, words in searches(has_whole=given.whole):
            full = f"purejaxrl {words}"
            if full in known or given.only not in (None, name):
                continue
            found = measure(words, cache)
            results.append({"kind": name, "command": full, **found})
            machine.save(FILE, searches=results)
            print(f"{full}\n  {found['seconds']:.1f} s, {found['confirmed']}", flush=True)


if __name__ == "__main__":
    main()
