"""Speed and memory of training on this machine's CPU: medians over repetitions, compile time apart.

Every case runs in a process of its own, so that its peak memory is its own. `python benchmarks/speed.py --help`.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import machine


class Case(NamedTuple):
    """What is timed: chunks of so many iterations of the preset on the environment."""

    algorithm: str
    seeds: int
    iterations: int
    cores: int = 2
    env: str = "CartPole-v0"
    preset: str = "original"
    settings: dict[str, Any] = {}  # noqa: RUF012
    observation_type: str = "default"


def a3c(seeds: int, iterations: int, mode: str, cores: int = 2) -> Case:
    """A3C with 16 actors and t_max 20."""
    return Case("a3c", seeds, iterations, cores, "CartPole-v1", "tuned", {"mode": mode})


CASES = {
    "vpg, 1 seed": Case("vpg", 1, 20),
    "vpg, 8 seeds": Case("vpg", 8, 5),
    "vpg, 64 seeds": Case("vpg", 64, 1),
    "vpg, 8 seeds, 1 core": Case("vpg", 8, 3, cores=1),
    "dqn, 1 seed": Case("dqn", 1, 5000),
    "dqn, 8 seeds": Case("dqn", 8, 2000),
    "dqn, 64 seeds": Case("dqn", 64, 300),
    "dqn, 8 seeds, 1 core": Case("dqn", 8, 1000, cores=1),
    "a3c async, 1 seed": a3c(1, 2000, "async"),
    "a3c async, 8 seeds": a3c(8, 500, "async"),
    "a3c async, 64 seeds": a3c(64, 100, "async"),
    "a3c async, 256 seeds": a3c(256, 30, "async"),
    "a3c async, 8 seeds, 1 core": a3c(8, 300, "async", cores=1),
    "a3c sync, 1 seed": a3c(1, 2000, "sync"),
    "a3c sync, 8 seeds": a3c(8, 500, "sync"),
    "a3c sync, 64 seeds": a3c(64, 100, "sync"),
    "a3c sync, 256 seeds": a3c(256, 30, "sync"),
}

UNITS = {"vpg": (1e3, "ms per epoch"), "dqn": (1e6, "us per env step"), "a3c": (1e6, "us per round")}


def measure(case: Case, repetitions: int) -> dict[str, Any]:
    """Median seconds of one iteration per run, and what surrounds it."""
    from purejaxrl.training import devices

    devices.ask_for_cpu_devices(case.cores)
    program, configs, seeds = compile_case(case, devices.local_devices("cpu"))
    return {
        "algorithm": case.algorithm,
        "seeds": case.seeds,
        "cores": program.mesh.size,
        **time_chunks(case, program, configs, seeds, repetitions),
        "compile_seconds": program.compile_seconds,
        "peak_memory_mb": peak_memory_mb(),
    }


def compile_case(case: Case, local: list[Any]) -> tuple[Any, Any, Any]:
    """The compiled program of a case on these devices, and its settings and seeds, one per run."""
    import numpy as np

    from purejaxrl.agents import AGENTS
    from purejaxrl.components.hyperparameters import find_budget
    from purejaxrl.envs import make
    from purejaxrl.experiment import presets
    from purejaxrl.experiment.plan import images_of
    from purejaxrl.training.batches import stack_configs
    from purejaxrl.training.compilation import compile_program

    agent = AGENTS[case.algorithm]
    # A budget that outlasts the timing; the presets' own would end within it.
    settings = {**case.settings, "env_steps": 10**9}
    config = presets.resolve(agent, case.env, case.observation_type, case.preset, settings)
    env = make(case.env, max_ep_len=config.max_ep_len, images=images_of(config))
    program = compile_program(agent, env, config, find_budget(config), local, case.seeds)
    return program, stack_configs([config], case.seeds), np.arange(case.seeds, dtype=np.uint32)


def time_chunks(case: Case, program: Any, configs: Any, seeds: Any, repetitions: int) -> dict[str, Any]:
    """Seconds of one iteration per run: chunks of `case.iterations` each, after one to warm up."""
    import numpy as np

    from purejaxrl.training.runner import place_runs, span_of

    configs, numbers = place_runs((configs, seeds), program.width, program.mesh)
    state, iteration = program.start(configs, numbers)[0], 0
    # DQN fills its first batch before it learns; what is timed comes after.
    unlearned = case.iterations + getattr(configs, "batch_size", 0)
    warm_up = [min(program.capacity, unlearned - start) for start in range(0, unlearned, program.capacity)]
    seconds = []
    for count in [*warm_up, *[case.iterations] * repetitions]:
        started = time.perf_counter()
        state, log = program.chunk(configs, state, span_of(iteration, count, program.budget.amount))
        assert np.asarray(log.active)[:count].all(), "a run has ended: what follows would not be training"
        state.active.block_until_ready()
        seconds.append((time.perf_counter() - started) / (count * case.seeds))
        iteration += count
    timed = seconds[len(warm_up) :]
    median = statistics.median(timed)
    return {
        "seconds_per_iteration_and_seed": median,
        "fastest": min(timed),
        "slowest": max(timed),
        "repetitions": repetitions,
        "env_steps_per_second": program.shape[0] * program.shape[1] / median,
    }


def peak_memory_mb() -> float:
    """Peak resident memory of this process; macOS counts it in bytes, Linux in KiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def measure_growth() -> dict[str, float]:
    """Peak memory of the whole process after a short training and after one a hundred times as long."""
    peaks = {}
    for env_steps in (20_000, 2_000_000):
        words = f"train vpg --steps_per_epoch 400 --train_v_iters 1 --seeds 4 --quiet --env_steps {env_steps}"
        code = (
            f"import sys, tempfile\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from speed import peak_memory_mb\nfrom purejaxrl.cli import main\n"
            f"words = '{words}'.split()\n"
            "assert main([*words, '--out', tempfile.mkdtemp() + '/run']) == 0\n"
            "print(peak_memory_mb())"
        )
        # The peak of one process varies by some percent, so the median of five.
        runs = [
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)
        ]
        peaks[str(env_steps)] = statistics.median(float(done.stdout.split()[-1]) for done in runs)
    return peaks


def show(results: dict[str, Any]) -> None:
    """Print the table."""
    print(f"{'case':28} {'cost per seed':>20} {'min .. max':>22} {'env steps/s':>12} {'compile':>8} {'peak':>9}")
    for name, row in results["cases"].items():
        scale, unit = UNITS[row["algorithm"]]
        cost, low, high = (row[key] * scale for key in ("seconds_per_iteration_and_seed", "fastest", "slowest"))
        print(
            f"{name:28} {cost:8.1f} {unit:15}{low:9.1f} .. {high:7.1f} {row['env_steps_per_second']:12,.0f}"
            f" {row['compile_seconds']:6.1f} s {row['peak_memory_mb']:6.0f} MB"
        )
    if "memory_growth_mb" in results:
        print("peak memory by env steps of a run:", results["memory_growth_mb"])


def main() -> None:
    """Measure every case, each in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three repetitions, one and eight seeds only")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(CASES[options.case], options.repetitions)))
        return
    names = [name for name in CASES if not options.quick or not ("64" in name or "256" in name or "core" in name)]
    repetitions = 3 if options.quick else options.repetitions
    results: dict[str, Any] = {"machine": machine.describe(), "cases": {}}
    for name in names:
        words = [sys.executable, __file__, "--case", name, "--repetitions", str(repetitions)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        results["cases"][name] = json.loads(done.stdout.splitlines()[-1])
    if not options.quick:
        results["memory_growth_mb"] = measure_growth()
    show(results)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
