"""A sweep by the workers of a cluster beside the same in one process: `python benchmarks/clusters.py`.

Two Dask workers, each held to one core, against one process on two cores. Both are timed from pressing Enter to the
last file, with an empty cache of compiled programs; the workers are there, but have imported nothing. What a shard
costs beside its training is measured with short runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
from sweeps import command

HERE = Path(__file__).parent
WORDS = "sweep a3c --preset tuned --env CartPole-v1 --seeds 256 --lr 1e-3,2e-3 --env_steps 500000"
QUICK = "sweep a3c --preset tuned --env CartPole-v1 --seeds 8 --lr 1e-3,2e-3 --env_steps 300000"
# As many shards as there are groups of runs side by side, as none takes long.
SHARDS = 100


@contextmanager
def workers(count: int, environment: dict[str, str]) -> Iterator[str]:
    """A scheduler, and workers of one core each, on loopback."""
    dask = str(Path(sys.executable).parent / "dask")
    quiet: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "scheduler.json")
        words = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        started = [subprocess.Popen([dask, *words], start_new_session=True, cwd=folder, **quiet)]
        try:
            while not file.exists():
                time.sleep(0.1)
            time.sleep(0.2)
            address = json.loads(file.read_text())["address"]
            cores = sorted(os.sched_getaffinity(0))
            for number in range(count):
                words = ["taskset", "-c", str(cores[number % len(cores)]), dask, "worker", address]
                words += ["--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]
                started.append(subprocess.Popen(words, start_new_session=True, cwd=folder, **quiet))
            time.sleep(5)
            yield address
        finally:
            for process in started:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def timed(words: str, environment: dict[str, str], *more: str) -> float:
    """Seconds from start to end of a sweep."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(command(words, "--quiet", "--out", f"{folder}/run", *more), env=environment, check=True)
        return time.perf_counter() - started


def measure_throughput(words: str, repetitions: int) -> dict[str, Any]:
    """Seconds of a sweep in one process and by two workers, taking turns, compilation included."""
    found: dict[str, list[float]] = {"alone": [], "workers": []}
    for _ in range(repetitions):
        for name, seconds in found.items():
            with tempfile.TemporaryDirectory() as cache:
                environment = os.environ | {
                    "PUREJAXRL_CACHE_DIR": cache,
                    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
                }
                if name == "alone":
                    seconds.append(timed(words, environment))
                    continue
                with workers(2, environment) as address:
                    seconds.append(timed(words, environment, "--cluster", address))
    medians = {name: statistics.median(seconds) for name, seconds in found.items()}
    ratio = medians["alone"] / medians["workers"]
    return {"command": f"purejaxrl {words}", "seconds": found, "medians": medians, "ratio": ratio}


def measure_overhead() -> dict[str, Any]:
    """What a shard costs beside its training, and what the client's part of that is: unpacking and writing it."""
    from distributed import Client

    from purejaxrl.experiment import cluster
    from purejaxrl.experiment.plan import plan_sweep
    from purejaxrl.experiment.shards import pack
    from purejaxrl.storage.run_folder import create
    from purejaxrl.training.devices import ask_for_cpu_devices, local_devices

    ask_for_cpu_devices()
    settings = {"preset": "tuned", "env": "CartPole-v1", "env_steps": 20_000}
    plan = plan_sweep("a3c", seeds=8 * SHARDS // 2, lr=[1e-3, 2e-3], **settings)
    (work,) = cluster.plan_work(plan, local_devices("cpu"))
    cluster.PARTS = SHARDS
    with workers(1, dict(os.environ)) as address, Client(address) as client, tempfile.TemporaryDirectory() as path:
        folder = create(Path(path), overwrite=True)
        walls, training, client_seconds, sizes = [], [], [], []
        arrivals = cluster.train_shards(plan, [(work, work.shard)], client.get_executor(), bool)
        for _, shard, trained in arrivals:
            started = time.perf_counter()
            folder.write_shard(shard.name, *pack(trained))
            client_seconds.append(time.perf_counter() - started)
            sizes.append((folder.path / "shards" / f"{shard.name}.safetensors").stat().st_size / len(trained.runs))
            walls.append(time.perf_counter())
            training.append(trained.seconds)
    # The first one compiles.
    return {
        "shards": len(walls),
        "shard_seconds": statistics.median(training[1:]),
        "overhead_seconds": (walls[-1] - walls[0] - sum(training[1:])) / (len(walls) - 1),
        "client_seconds": statistics.median(client_seconds),
        "bytes_per_run": statistics.median(sizes),
    }


def main() -> None:
    """Measure, and write clusters.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small sweep, once, printed only")
    parser.add_argument("--repetitions", type=int, default=1, help="each takes six minutes")
    given = parser.parse_args()
    if shutil.which("taskset") is None:
        parser.error("taskset is needed, which holds workers to one core")
    results = {
        "machine": machine.describe(),
        "overhead": measure_overhead(),
        "throughput": measure_throughput(QUICK if given.quick else WORDS, given.repetitions),
    }
    print(json.dumps(results, indent=2))
    if not given.quick:
        (HERE / "clusters.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
