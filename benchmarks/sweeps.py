"""Whole sweeps as a user starts them, from pressing Enter to the last file: `python benchmarks/sweeps.py --help`.

Every case is a command line, run in a process of its own; compiled programs come from a warm cache, made by a first run
that is not counted. Figures are medians over repetitions.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import machine


class Case(NamedTuple):
    """A command line, and how often it is timed after the first."""

    words: str
    repetitions: int = 3


CASES = {
    "a3c until solved, 64 seeds": Case("sweep a3c --preset tuned --env CartPole-v1 --seeds 64 --stop_when_solved"),
    "dqn original, 64 seeds, 20 000 env steps": Case(
        "sweep dqn --observation_type default --seeds 64 --env_steps 20000"
    ),
    "a3c original, 10 000 runs, 20 000 env steps": Case("sweep a3c --seeds 10000 --env_steps 20000", 1),
}

# The same sweep on one device and on two, taking turns.
SCALING = {
    "vpg": Case("sweep vpg --seeds 16 --epochs 40"),
    "dqn": Case("sweep dqn --observation_type default --seeds 16 --env_steps 6000"),
    "a3c": Case("sweep a3c --preset tuned --env CartPole-v1 --seeds 64 --env_steps 100000"),
}


def command(words: str, *more: str) -> list[str]:
    """A command line of this interpreter's purejaxrl."""
    return [sys.executable, "-m", "purejaxrl", *words.split(), *more]


def run(words: str, environment: dict[str, str]) -> dict[str, Any]:
    """Seconds from start to end of a command, its peak memory, and what its summary says."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        words_of_run = command(words, "--quiet", "--out", f"{folder}/run")
        process = subprocess.Popen(words_of_run, env=environment)
        # Of this one process; what the usage of all children says is the largest of them so far.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, words
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
    peak = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {"seconds": seconds, "peak_memory_mb": peak, "summary": summary}


def measure_case(case: Case, environment: dict[str, str]) -> dict[str, Any]:
    """Medians of a case; the first run, which compiles, apart."""
    cold = run(case.words, environment)["seconds"] if case.repetitions > 1 else None
    runs = [run(case.words, environment) for _ in range(case.repetitions)]
    summary = runs[0]["summary"]
    seconds = statistics.median(one["seconds"] for one in runs)
    return {
        "command": f"purejaxrl {case.words}",
        "seconds": seconds,
        "fastest": min(one["seconds"] for one in runs),
        "slowest": max(one["seconds"] for one in runs),
        "cold_seconds": cold,
        "repetitions": case.repetitions,
        "runs": summary["runs"],
        "runs_ok": summary["runs_ok"],
        "solved_runs": summary["solved_runs"],
        "batches": summary["batches"],
        "env_steps": summary["env_steps"],
        "env_steps_per_second": summary["env_steps"] / seconds,
        "peak_memory_mb": max(one["peak_memory_mb"] for one in runs),
    }


def measure_scaling(case: Case, environment: dict[str, str]) -> dict[str, Any]:
    """Throughput while training on one device and on two, and the ratio of the medians."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(case.repetitions):
        for devices in rates:
            summary = run(f"{case.words} --devices {devices}", environment)["summary"]
            rates[devices].append(summary["env_steps_per_second"])
    one, two = (statistics.median(rates[devices]) for devices in rates)
    return {"command": f"purejaxrl {case.words} --devices 1 (2)", "one": one, "two": two, "ratio": two / one}


def measure_start(environment: dict[str, str], repetitions: int = 3) -> dict[str, float]:
    """Seconds to the end of --help, and from Enter to the first progress of a cached A3C run."""
    helps, firsts = [], []
    for repetition in range(repetitions + 1):
        started = time.perf_counter()
        subprocess.run(command("--help"), capture_output=True, check=True, env=environment)
        helps.append(time.perf_counter() - started)
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            words = command("train a3c --preset tuned --env_steps 200000", "--out", f"{folder}/run")
            process = subprocess.Popen(
                words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
            )
            assert process.stderr
            for line in process.stderr:
                if "env steps/s" in line:
                    break
            seconds = time.perf_counter() - started
            process.communicate()
        if repetition:
            firsts.append(seconds)
    return {"help_seconds": statistics.median(helps), "first_progress_seconds": statistics.median(firsts)}


def show(results: dict[str, Any]) -> None:
    """Print the tables."""
    for name, row in results["cases"].items():
        print(
            f"{name:45} {row['seconds']:6.1f} s  solved {row['solved_runs']}/{row['runs']}"
            f"  {row['env_steps_per_second']:11,.0f} env steps/s  peak {row['peak_memory_mb']:5.0f} MB"
        )
    for name, row in results["scaling"].items():
        print(f"{name}: {row['one']:,.0f} env steps/s on one device, {row['two']:,.0f} on two: {row['ratio']:.2f}")
    print(results["start"])


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--only", choices=("cases", "scaling", "start"), help="measure that alone, and only print it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PUREJAXRL_CACHE_DIR": cache}
        wanted = ("start", "scaling", "cases") if options.only is None else (options.only,)
        results: dict[str, Any] = {"machine": machine.describe(), "cases": {}, "scaling": {}, "start": {}}
        if "start" in wanted:
            results["start"] = measure_start(environment)
        if "scaling" in wanted:
            results["scaling"] = {name: measure_scaling(case, environment) for name, case in SCALING.items()}
        if "cases" in wanted:
            results["cases"] = {name: measure_case(case, environment) for name, case in CASES.items()}
    show(results)
    if options.out and options.only is None:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
