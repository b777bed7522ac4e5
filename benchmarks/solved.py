"""Seconds from Enter until CartPole-v0 is solved: the presets `original` beside their PyTorch references, many seeds.

A seed of ours is a command with `--stop_when_solved`, compiled programs from a warm cache; a seed of PyTorch is a
script, and its seconds are those of starting up and, of those of training, the share of env steps until it was solved.
One seed at a time each, PyTorch with one thread, one process per core. Runs are files and are not repeated, so an
interrupted script goes on where it was. `python benchmarks/solved.py` writes solved.json. Needs the extra `bench`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import machine
import numpy as np
import sweeps

HERE = Path(__file__).parent
FILE = HERE / "solved.json"
RESULTS = Path("results/solved")
SEEDS = 8
WINDOW, THRESHOLD = 100, 195
CORES = os.cpu_count() or 1


class Contest(NamedTuple):
    """A command, a script, and the budget of both; processes of PyTorch at a time."""

    ours: str
    theirs: str
    budget: str
    processes: int = CORES


CONTESTS = {
    "VPG": Contest("train vpg", "vpg.py --envs 20", "--epochs 500"),
    "DQN": Contest("train dqn --observation_type default", "dqn.py", "--episodes 1200"),
    "A3C async": Contest("train a3c", f"a3c.py --workers {CORES}", "--episodes 10000", processes=1),
    "A3C sync": Contest("train a3c --mode sync", "a3c.py --mode sync --envs 16", "--episodes 10000"),
}


def run_ours(contest: Contest, seed: int, environment: dict[str, str]) -> dict[str, Any]:
    """A seed of ours."""
    words = f"{contest.ours} {contest.budget} --seeds 1 --seed {seed} --stop_when_solved"
    measured = sweeps.run(words, environment)
    return {"seconds": measured["seconds"], "env_steps": measured["summary"]["env_steps_to_solve_per_run"][0]}


def run_theirs(contest: Contest, seed: int) -> dict[str, Any]:
    """A seed of PyTorch."""
    script, *flags = contest.theirs.split()
    words = [*flags, *contest.budget.split(), "--seed", str(seed)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "run.json")
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, str(HERE / "torch" / script), *words, "--out", str(out)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        seconds = time.perf_counter() - started
        run = json.loads(out.read_text())
    env_steps = solved_at(run["episodes"]["env_steps"], run["episodes"]["return"])
    share = 1.0 if env_steps is None else env_steps / run["env_steps"]
    return {"seconds": seconds - run["seconds"] * (1 - share), "env_steps": env_steps}


def solved_at(env_steps: list[int], returns: list[float]) -> int | None:
    """Env steps at the end of the first 100 episodes whose mean return is at the threshold."""
    if len(returns) < WINDOW:
        return None
    means = np.convolve(returns, np.ones(WINDOW) / WINDOW, mode="valid")
    reached = np.flatnonzero(means >= THRESHOLD)
    return env_steps[reached[0] + WINDOW - 1] if len(reached) else None


def once(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file says, or else what is measured now and written there."""
    if not path.exists():
        found = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
    return json.loads(path.read_text())


def run_contest(name: str, contest: Contest) -> dict[str, Any]:
    """All seeds of both."""
    folder = RESULTS / name.lower().replace(" ", "-")
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PUREJAXRL_CACHE_DIR": cache}
        if not (folder / f"ours-{SEEDS - 1}.json").exists():
            run_ours(contest, 0, environment)  # fills the cache
        ours = [
            once(folder / f"ours-{seed}.json", partial(run_ours, contest, seed, environment)) for seed in range(SEEDS)
        ]
    with ThreadPoolExecutor(contest.processes) as pool:
        started = [
            pool.submit(once, folder / f"theirs-{seed}.json", partial(run_theirs, contest, seed))
            for seed in range(SEEDS)
        ]
    return {"contest": contest._asdict(), "ours": ours, "theirs": [each.result() for each in started]}


def main() -> None:
    """Run the contests named on the command line, or all."""
    for name in sys.argv[1:] or CONTESTS:
        found = run_contest(name, CONTESTS[name])
        results = json.loads(FILE.read_text()) if FILE.exists() else {}
        FILE.write_text(json.dumps({**results, "machine": machine.describe(), name: found}, indent=1) + "\n")
        for side in ("ours", "theirs"):
            seconds = [f"{run['seconds']:.1f}" for run in found[side] if run["env_steps"] is not None]
            print(name, side, f"{len(seconds)} of {SEEDS} solved, s:", *seconds, flush=True)


if __name__ == "__main__":
    main()
