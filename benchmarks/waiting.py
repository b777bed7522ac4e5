"""How long users wait, from Enter to the prompt and from call to call: `python benchmarks/waiting.py --help`.

Commands run in processes of their own, once with an empty cache of compiled programs and then with that cache. Calls
are repeated within one process. Figures are medians. Of a command they are, one after another: `interpreter`, Python's
start; `imports`, of what is needed before training; `trace`, `lower` and `compile`, which is loading where programs are
cached, and runs beside the former two where they are not; `train`, in compiled programs alone; `files`, what the host
does meanwhile with their rows; `results`, tables and figures with what they import and have not yet; and the rest, from
checking arguments to the end of the process.
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
from typing import Any

import machine

COMMANDS = {
    "A3C until solved": "train a3c --preset tuned --env CartPole-v1 --stop_when_solved",
    "VPG": "train vpg --preset tuned --env_steps 20000",
    "DQN": "train dqn --preset tuned --env_steps 20000",
    "DQN on images": "train dqn --preset tuned --observation_type img --env_steps 4000",
    "sweep of 64 seeds of A3C": "sweep a3c --preset tuned --env CartPole-v1 --seeds 64 --stop_when_solved",
}
# As much training as it takes to see what the host costs beside it.
LARGE = {
    "200 settings x 4 seeds of A3C": "sweep a3c --preset tuned --env CartPole-v1 --random 200 --lr 1e-4..1e-2:log "
    "--gamma 0.9..0.999 --seeds 4 --env_steps 100000",
}
HELPS = ("--help", "train --help", "train dqn --help", "list")
CALLS = {
    "the same": {},
    "another seed": {"seed": 1},
    "another learning rate": {"lr": 2e-3},
    "another budget": {"env_steps": 90_000},
}
# What a first cell of a notebook does, and what the next ones do.
CODE = """
import json, sys, time
calls = json.loads(sys.argv[1])
def timed(**changes):
    started = time.perf_counter()
    import purejaxrl
    result = purejaxrl.train("a3c", env="CartPole-v1", preset="tuned", stop_when_solved=True, progress=False, **changes)
    summary = result.summary_json
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "compile": summary["compile_seconds"], "train": summary["run_seconds"]}
first = timed()
print(json.dumps({"first": first, **{name: timed(**changes) for name, changes in calls.items()}}))
"""


# The command line in a process that takes the time of its parts. JAX tells how long it traces and lowers.
TIMED = """
import json, sys, time
started = time.perf_counter()
import purejaxrl.agents, purejaxrl.api, purejaxrl.cli
imported = time.perf_counter()
import jax
parts = {"imports": imported - started, "trace": 0.0, "lower": 0.0, "train": 0.0, "results": 0.0}
fit = purejaxrl.experiment.run.fit
def fit_timed(program, *arguments, **options):
    def timed(function):
        def call(*given):
            began = time.perf_counter()
            found = jax.block_until_ready(function(*given))
            parts["train"] += time.perf_counter() - began
            return found
        return call
    yield from fit(program._replace(start=timed(program.start), chunk=timed(program.chunk)), *arguments, **options)
purejaxrl.experiment.run.fit = fit_timed
events = {"/jax/core/compile/jaxpr_trace_duration": "trace", "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower"}
programs = ("train_chunk", "advance_group", "start_run", "evaluate_and_keep")
found = []
def listen(event, seconds, fun_name="", **details):
    found.extend((events[event], name, seconds) for name in programs if event in events and name in fun_name)
def tell():
    # train_chunk traces advance_group within itself.
    is_inner = any(name == "train_chunk" for _, name, _ in found)
    for part, name, seconds in found:
        parts[part] += 0.0 if is_inner and name == "advance_group" else seconds
    print(json.dumps(parts))
jax.monitoring.register_event_duration_secs_listener(listen)
write_results = purejaxrl.api.write_results
def timed(*arguments):
    began = time.perf_counter()
    write_results(*arguments)
    parts["results"] = time.perf_counter() - began
purejaxrl.api.write_results = timed
import atexit
atexit.register(tell)
purejaxrl.cli.entry()
"""


def run(words: list[str], cache: str) -> tuple[float, str]:
    """Seconds from start to end of a process, and its output."""
    environment = {**os.environ, "PUREJAXRL_CACHE_DIR": cache}
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *words], env=environment, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, done.stdout


def command(words: str, cache: str) -> dict[str, float]:
    """Seconds of a command as a whole, and of what its summary tells of it."""
    with tempfile.TemporaryDirectory() as folder:
        interpreter, _ = run(["-c", ""], cache)
        seconds, shown = run(["-c", TIMED, *words.split(), "--quiet", "--out", f"{folder}/run"], cache)
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
    parts = json.loads(shown.splitlines()[-1])
    compiling = summary["compile_seconds"] - parts["trace"] - parts["lower"]
    return {
        "seconds": seconds,
        "interpreter": interpreter,
        "imports": parts["imports"],
        "trace": parts["trace"],
        "lower": parts["lower"],
        "compile": max(compiling, 0.0),
        "train": parts["train"],
        "files": summary["run_seconds"] - parts["train"],
        "results": parts["results"],
    }


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Medians of each part, and the fastest and slowest as a whole."""
    found = {part: statistics.median(one[part] for one in runs) for part in runs[0]}
    seconds = [one["seconds"] for one in runs]
    rest = found["seconds"] - sum(value for part, value in found.items() if part != "seconds")
    return {**found, "rest": rest, "fastest": min(seconds), "slowest": max(seconds)}


def main() -> None:
    """Measure all, print a line each, and write them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "waiting.json")
    options = parser.parse_args()
    results: dict[str, Any] = {}

    def report(name: str, runs: list[dict[str, float]]) -> None:
        results[name] = medians(runs)
        print(name, " ".join(f"{part} {value:.2f}" for part, value in results[name].items()), flush=True)

    for name, words in {**COMMANDS, **LARGE}.items():
        cold, warm = [], []
        for repeat in range(options.repeats):
            with tempfile.TemporaryDirectory() as cache:
                # Three are enough for what takes long and varies little.
                if repeat < 3 and name not in LARGE:
                    cold.append(command(words, cache))
        with tempfile.TemporaryDirectory() as cache:
            # Programs that compile in about a tenth of a second may be kept the second time only.
            for _ in range(2):
                command(words, cache)
            warm = [command(words, cache) for _ in range(3 if name in LARGE else options.repeats)]
        if cold:
            report(f"{name}, nothing cached", cold)
        report(f"{name}, warm", warm)
    with tempfile.TemporaryDirectory() as cache:
        words = ["-W", "ignore", "-c", CODE, json.dumps(CALLS)]
        for _ in range(2):
            run(words, cache)
        found = [json.loads(run(words, cache)[1]) for _ in range(options.repeats)]
        report("first train of a process, warm", [one["first"] for one in found])
        for name in CALLS:
            report(f"next train of the process: {name}", [one[name] for one in found])
        for text in HELPS:
            report(
                text, [{"seconds": run(["-m", "purejaxrl", *text.split()], cache)[0]} for _ in range(options.repeats)]
            )
    machine.save(options.out, repeats=options.repeats, cases=results)


if __name__ == "__main__":
    main()
