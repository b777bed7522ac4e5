"""Speed against PyTorch at the same hyperparameters, and beside other libraries at their own, on this machine's CPU.

In every round all take their turn, each in processes of its own, so that a ratio compares what ran within minutes;
figures are medians over rounds. PyTorch runs one process per core, each with one thread, which is its best case for
many seeds. `python benchmarks/rivals.py --help`. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import json
import operator
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import machine
import psutil
import speed

HERE = Path(__file__).parent
CORES = os.cpu_count() or 1
ROUNDS = 2  # of 20 minutes together; a third would take `make bench` beyond thirty


class Rival(NamedTuple):
    """A form of the PyTorch reference: its script and flags, env steps of a process, processes at a time."""

    words: str
    env_steps: int
    processes: int = CORES


class Contest(NamedTuple):
    """The preset `original` of an algorithm: iterations to time by number of seeds, and PyTorch's forms of it.

    steps: env steps of an iteration of one run; updates: its gradient steps.
    """

    ours: speed.Case
    iterations: dict[int, int]
    updates: int
    theirs: dict[str, Rival]


def original(algorithm: str, observation_type: str = "default", **settings: Any) -> speed.Case:
    """The preset on CartPole-v0; seeds and iterations come later."""
    return speed.Case(algorithm, 0, 0, CORES, settings=settings, observation_type=observation_type)


CONTESTS = {
    "VPG": Contest(
        original("vpg"),
        {1: 20, 8: 5, 64: 1, 512: 1},
        81,
        {
            "one environment": Rival("vpg.py", 120_000),
            "20 environments": Rival("vpg.py --envs 20", 200_000),
            "one environment, 1 process": Rival("vpg.py", 120_000, processes=1),
            "20 environments, 1 process": Rival("vpg.py --envs 20", 200_000, processes=1),
        },
    ),
    "DQN": Contest(
        original("dqn"),
        {1: 5000, 8: 2000, 64: 300, 512: 60},
        1,
        {
            "one environment": Rival("dqn.py", 12_000),
            "one environment, 1 process": Rival("dqn.py", 12_000, processes=1),
        },
    ),
    "DQN, images": Contest(
        original("dqn", "img"),
        {1: 60, 8: 30, 64: 5, 512: 1},
        1,
        {
            "one environment": Rival("dqn.py --observation_type img", 1100),
            "one environment, 1 process": Rival("dqn.py --observation_type img", 1100, processes=1),
        },
    ),
    "A3C async": Contest(
        original("a3c"),
        {1: 200, 8: 60, 64: 10, 512: 2},
        16,
        {
            "16 workers": Rival("a3c.py --workers 16", 600_000, processes=1),
            "a worker per core": Rival(f"a3c.py --workers {CORES}", 600_000, processes=1),
        },
    ),
    "A3C sync": Contest(
        original("a3c", mode="sync"),
        {1: 200, 8: 60, 64: 10, 512: 2},
        1,
        {
            "16 environments": Rival("a3c.py --mode sync --envs 16", 1_500_000),
            "16 plain environments": Rival("a3c.py --mode sync --workers 16", 300_000),
            "16 environments, 1 process": Rival("a3c.py --mode sync --envs 16", 1_500_000, processes=1),
        },
    ),
}

# Other libraries: script, arguments, processes at a time. Their settings are their own, so only speed compares.
LIBRARIES = {
    "Stable-Baselines3 A2C": ("sb3_train.py", "a2c --env_steps 60000"),
    "Stable-Baselines3 PPO": ("sb3_train.py", "ppo --env_steps 40000"),
    "Stable-Baselines3 DQN": ("sb3_train.py", "dqn --env_steps 20000"),
    "rejax PPO": ("rejax_train.py", "ppo --seeds 8"),
    "rejax DQN": ("rejax_train.py", "dqn --seeds 8"),
}


def memory_of(process: psutil.Process) -> float:
    """MB of a process and all that it has started: each page counted once where Linux tells who shares it."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            usage = each.memory_full_info()
        except psutil.Error:
            continue
        total += getattr(usage, "pss", usage.uss)
    return total / 2**20


def run_all(commands: list[list[str]]) -> tuple[float, float]:
    """Run commands side by side: seconds from the start to the end of the last, and the peak of their memory in MB."""
    started = time.perf_counter()
    processes = [psutil.Popen(words, stdout=subprocess.DEVNULL) for words in commands]
    peak = 0.0
    while any(process.poll() is None for process in processes):
        peak = max(peak, sum(memory_of(process) for process in processes if process.is_running()))
        time.sleep(0.5)
    assert not any(process.returncode for process in processes), commands
    return time.perf_counter() - started, peak


def run_rival(rival: Rival, device: str = "cpu") -> dict[str, float]:
    """Throughput of all processes together while training; from Enter to exit what it adds; memory."""
    script, *flags = rival.words.split()
    with tempfile.TemporaryDirectory() as folder:
        outs = [f"{folder}/{index}.json" for index in range(rival.processes)]
        words = [sys.executable, str(HERE / "torch" / script), *flags, "--env_steps", str(rival.env_steps)]
        words += ["--device", device]
        seconds, peak = run_all([[*words, "--seed", str(n), "--out", out] for n, out in enumerate(outs)])
        runs = [json.loads(Path(out).read_text()) for out in outs]
    learning = [run["seconds"] - run["warm_up"]["seconds"] for run in runs]
    env_steps = [run["env_steps"] - run["warm_up"]["env_steps"] for run in runs]
    return {
        "env_steps_per_second": sum(map(operator.truediv, env_steps, learning)),
        "gradient_steps_per_second": sum(map(operator.truediv, (run["gradient_steps"] for run in runs), learning)),
        "start_seconds": seconds - max(run["seconds"] for run in runs),
        "peak_memory_mb": peak,
    }


def run_ours(name: str, seeds: int, repetitions: int = 3) -> dict[str, float]:
    """The same of this project: a process of its own, medians of chunks after one to warm up."""
    words = [sys.executable, __file__, "--case", name, "--seeds", str(seeds), "--repetitions", str(repetitions)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    row = json.loads(done.stdout.splitlines()[-1])
    updates = CONTESTS[name].updates
    return {
        "env_steps_per_second": row["env_steps_per_second"],
        "gradient_steps_per_second": updates / row["seconds_per_iteration_and_seed"],
        "start_seconds": row["compile_seconds"],
        "peak_memory_mb": row["peak_memory_mb"],
    }


def case_of(name: str, seeds: int) -> speed.Case:
    """What speed.py times."""
    contest = CONTESTS[name]
    return contest.ours._replace(seeds=seeds, iterations=contest.iterations[seeds])


def run_library(name: str, python: str) -> float:
    """Env steps/s of another library, of one process per core where it is PyTorch's."""
    script, words = LIBRARIES[name]
    count = CORES if script == "sb3_train.py" else 1
    command = [python, str(HERE / "others" / script), *words.split()]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    outputs = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes), command
    rows = [json.loads(output.splitlines()[-1]) for output in outputs]
    return sum(row["env_steps"] / row["seconds"] for row in rows)


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure, over rounds; and all throughputs."""
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    return {**middle, "rounds": [row["env_steps_per_second"] for row in rows]}


def run_contest(name: str, rounds: int) -> dict[str, Any]:
    """All forms of an algorithm, taking turns: PyTorch's, ours with one seed and with many."""
    contest = CONTESTS[name]
    turns = [seeds for seeds in contest.iterations if seeds in (1, 64)]
    theirs: dict[str, list[dict[str, float]]] = {form: [] for form in contest.theirs}
    ours: dict[int, list[dict[str, float]]] = {seeds: [] for seeds in contest.iterations}
    for _ in range(rounds):
        for form, rival in contest.theirs.items():
            theirs[form].append(run_rival(rival))
        for seeds in turns:
            ours[seeds].append(run_ours(name, seeds))
    for seeds in set(contest.iterations) - set(turns):
        ours[seeds].append(run_ours(name, seeds))
    return {
        "ours": {str(seeds): medians(rows) for seeds, rows in ours.items()},
        "theirs": {form: medians(rows) for form, rows in theirs.items()},
        "forms": {form: rival._asdict() for form, rival in contest.theirs.items()},
    }


def main() -> None:
    """Measure everything, and write the figures contest by contest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"contests to run: {', '.join(CONTESTS)} or libraries (default: all)")
    parser.add_argument("--out", type=Path, default=HERE / "rivals.json")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--rejax_python", default="python", help="interpreter of an environment that has rejax")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--seeds", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--repetitions", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(speed.measure(case_of(options.case, options.seeds), options.repetitions)))
        return
    for name in options.names or [*CONTESTS, "libraries"]:
        if name == "libraries":
            pythons = {"sb3_train.py": sys.executable, "rejax_train.py": options.rejax_python}
            found: Any = {label: run_library(label, pythons[script]) for label, (script, _) in LIBRARIES.items()}
        else:
            found = run_contest(name, options.rounds)
        results = json.loads(options.out.read_text()) if options.out.exists() else {}
        options.out.write_text(json.dumps({**results, "machine": machine.describe(), name: found}, indent=1) + "\n")
        print(name, json.dumps(found, indent=1), flush=True)


if __name__ == "__main__":
    main()
