"""What `make bench` and `make bench-sweeps` measure, on one accelerator: ours, and PyTorch on the same machine.

`python benchmarks/accelerator.py` writes accelerator.json point by point, and goes on where it was interrupted. Numbers
of seeds are those that fill an accelerator. PyTorch has the accelerator to itself with one process, shares it among one
process per core, and does without it, with one process per core on the CPUs beside it: its networks are so small that
the last may be its best. The references act on the CPU, where gymnasium's environments are, and learn on the device.
Needs the extra `bench`, and JAX and PyTorch with CUDA.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import machine
import rivals
import speed
import sweeps

FILE = Path(__file__).with_name("accelerator.json")
KIND = "cuda"
SEEDS = (1, 64, 1024, 4096)
# A batch of 512 differences of images takes 22 MB a seed, and a gradient needs several.
SEEDS_OF = {"DQN, images": (1, 64, 256)}
COMPILERS = 8
SECONDS = 0.5
REPETITIONS = 5
# The forms of PyTorch that are worth their time here, and how they are shared out.
FORMS = {
    "VPG": ("one environment", "20 environments"),
    "DQN": ("one environment",),
    "DQN, images": ("one environment",),
    "A3C async": ("16 workers",),
    "A3C sync": ("16 environments",),
}
# Env steps of a process: fewer than on a CPU where processes wait for each other.
STEPS = {"VPG": 60_000, "DQN": 4000, "DQN, images": 800, "A3C async": 600_000, "A3C sync": 800_000}
SHARES = {
    f"{KIND}, 1 process": (KIND, 1),
    f"{KIND}, a process per core": (KIND, None),
    "cpu, a process per core": ("cpu", None),
}
COMMANDS = {
    "A3C until solved": "sweep a3c --preset tuned --env CartPole-v1 --stop_when_solved",
    "DQN, 20 000 env steps": "sweep dqn --observation_type default --env_steps 20000",
}

Results = dict[str, Any]


def save(results: Results) -> None:
    """Write what there is so far."""
    FILE.write_text(json.dumps(results, indent=1) + "\n")


def measure_ours(results: Results) -> None:
    """Throughput of training. Programs are compiled side by side, then timed one after another."""
    import jax

    from purejaxrl.training import devices

    local = devices.local_devices(KIND, 1)
    results["accelerator"] = local[0].device_kind
    found = results.setdefault("ours", {})
    cases = {
        f"{name}, {seeds} seeds": contest.ours._replace(seeds=seeds, iterations=1)
        for name, contest in rivals.CONTESTS.items()
        for seeds in SEEDS_OF.get(name, SEEDS)
    }
    missing = {name: case for name, case in cases.items() if name not in found}
    with ThreadPoolExecutor(COMPILERS) as pool:
        compiled = dict(
            zip(missing, pool.map(lambda case: speed.compile_case(case, local), missing.values()), strict=True)
        )
    for name, case in missing.items():
        program, configs, seeds = compiled.pop(name)
        once = speed.time_chunks(case, program, configs, seeds, 3)["fastest"] * case.seeds
        length = max(1, min(int(SECONDS / once), program.capacity))
        row = speed.time_chunks(case._replace(iterations=length), program, configs, seeds, REPETITIONS)
        updates = rivals.CONTESTS[name.rpartition(", ")[0]].updates
        found[name] = {
            "seeds": case.seeds,
            "iterations": length,
            **row,
            "gradient_steps_per_second": updates / row["seconds_per_iteration_and_seed"],
            "device_memory_mb": program.memory / 2**20,
        }
        save(results)
        print(f"{name}: {row['env_steps_per_second']:,.0f} env steps/s, {program.memory / 2**20:,.0f} MB", flush=True)
        jax.clear_caches()


def measure_alone(results: Results) -> None:
    """The environment under a random policy, and rendering."""
    import environment
    import frames

    from purejaxrl.training import devices

    local = devices.local_devices(KIND, 1)
    found = results.setdefault("alone", {})
    for side_by_side in (1024, 65_536, 1_048_576):
        name = f"env steps/s of {side_by_side:,} environments"
        if name not in found:
            play = environment.play_ours(local, side_by_side, 2000)
            found[name] = machine.spread("per_second", [play() for _ in range(REPETITIONS)])
            save(results)
            print(f"{name}: {found[name]['per_second']:,.0f}", flush=True)
    for name, case in {"grey 40x90": frames.Case(40, 90, 1, 1), "RGB 400x600": frames.Case(400, 600, 0, 1)}.items():
        label = f"frames/s, {name}"
        if label not in found:
            row = frames.measure(case, REPETITIONS, KIND, 2**15)
            found[label] = {"per_second": row.pop("frames_per_second"), **row}
            save(results)
            print(f"{label}: {found[label]['per_second']:,.0f}", flush=True)


def measure_torch(results: Results) -> None:
    """The references, shared out in every way."""
    results["torch"] = importlib.metadata.version("torch")
    found = results.setdefault("theirs", {})
    for name, forms in FORMS.items():
        for form in forms:
            rival = rivals.CONTESTS[name].theirs[form]
            for share, (device, processes) in SHARES.items():
                # Asynchronous workers are processes already.
                if processes is None and rival.processes == 1 and device != "cpu":
                    continue
                label = f"{name}, {form}, {share}"
                if label in found:
                    continue
                count = 1 if rival.processes == 1 else processes or rivals.CORES
                found[label] = rivals.run_rival(rival._replace(processes=count, env_steps=STEPS[name]), device)
                save(results)
                print(f"{label}: {found[label]['env_steps_per_second']:,.0f} env steps/s", flush=True)


def measure_commands(results: Results) -> None:
    """Sweeps from Enter to the last file: the first run compiles, the second finds that in the cache."""
    found = results.setdefault("commands", {})
    with tempfile.TemporaryDirectory() as cache:
        variables = {**os.environ, "PUREJAXRL_CACHE_DIR": cache}
        for seeds in SEEDS:
            for name, words in COMMANDS.items():
                label = f"{name}, {seeds} seeds"
                if label in found:
                    continue
                line = f"{words} --seeds {seeds} --device {KIND}"
                cold, warm = sweeps.run(line, variables), sweeps.run(line, variables)
                summary = warm["summary"]
                found[label] = {
                    "command": f"purejaxrl {line}",
                    "cold_seconds": cold["seconds"],
                    "seconds": warm["seconds"],
                    "env_steps_per_second": summary["env_steps"] / warm["seconds"],
                    **{key: summary[key] for key in ("runs", "runs_ok", "solved_runs", "env_steps", "compile_seconds")},
                    "run_seconds": summary["run_seconds"],
                }
                save(results)
                print(label, json.dumps(found[label]), flush=True)


PARTS: dict[str, Callable[[Results], None]] = {
    "ours": measure_ours,
    "alone": measure_alone,
    "torch": measure_torch,
    "commands": measure_commands,
}


def main() -> None:
    """Measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="that one alone")
    options = parser.parse_args()
    if options.part is None:
        # Each in a process of its own: one that uses JAX takes most of the memory.
        for part in PARTS:
            subprocess.run([sys.executable, __file__, part], check=True)
        return
    results = json.loads(FILE.read_text()) if FILE.exists() else {}
    results["machine"] = machine.describe()
    PARTS[options.part](results)


if __name__ == "__main__":
    main()
