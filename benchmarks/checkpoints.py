"""A checkpoint of 64 runs of DQN, written and read by this package and by Orbax, each in a process of its own.

Also what each does about a flipped bit in an array. `python benchmarks/checkpoints.py` writes checkpoints.json.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine

HERE = Path(__file__).parent
FILE = HERE / "checkpoints.json"
SEEDS, ROUNDS = 64, 5


def state() -> Any:
    """RunState of DQN with 64 seeds as numpy arrays, keys as their bits, replays filled with random rows."""
    import jax
    import numpy as np

    from purejaxrl.experiment.plan import plan_train
    from purejaxrl.kernels.threefry import is_key
    from purejaxrl.training.compilation import shapes_of_runs

    setting = plan_train("dqn", observation_type="default", seeds=SEEDS).settings[0]
    agent = plan_train("dqn").agent
    shapes = shapes_of_runs(agent, setting.env, setting.config, setting.budget, False, SEEDS)[0]
    generator = np.random.default_rng(0)

    def fill(leaf: Any) -> np.ndarray:
        if is_key(leaf):
            return generator.integers(2**32, size=(*leaf.shape, 2), dtype=np.uint32)
        return (generator.random(leaf.shape, np.float32) * 100).astype(leaf.dtype)

    return jax.tree.map(fill, shapes)


def ours(folder: Path) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Write and read."""
    from purejaxrl.storage import checkpoint as disk

    def read(tree: Any) -> Any:
        newest = folder / f"{disk.numbers(folder)[0]:06d}"
        return disk.read(disk.verify(newest), disk.named_leaves(tree))

    return lambda tree: disk.write(folder, disk.named_leaves(tree), {}), read


def orbax(folder: Path) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Write and read; a checkpoint is on the disk when `write` returns."""
    import orbax.checkpoint

    checkpointer = orbax.checkpoint.StandardCheckpointer()
    written: list[Path] = []

    def write(tree: Any) -> None:
        written.append(folder / str(len(written)))
        checkpointer.save(written[-1], tree._asdict())
        checkpointer.wait_until_finished()

    def read(tree: Any) -> Any:
        path = written[-1] if written else max(folder.iterdir())
        return checkpointer.restore(path, tree._asdict())

    return write, read


def measure(who: str) -> dict[str, Any]:
    """Seconds and memory of one of them, in this process."""
    import jax

    tree = state()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(tree))
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write, read = {"ours": ours, "orbax": orbax}[who](Path(folder))
        first = time.perf_counter() - started
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        seconds: dict[str, list[float]] = {"write": [], "read": []}
        write(tree)
        after_write = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(ROUNDS):
            for name, act in (("write", write), ("read", read)):
                started = time.perf_counter()
                act(tree)
                seconds[name].append(time.perf_counter() - started)
        newest = max(Path(folder).iterdir(), key=os.path.getmtime)
        on_disk = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
        flipped = notices_a_flipped_bit(newest, lambda: read(tree))
    return {
        "megabytes": size / 1e6,
        "on_disk_megabytes": on_disk / 1e6,
        "import_seconds": first,
        "write_seconds": statistics.median(seconds["write"]),
        "read_seconds": statistics.median(seconds["read"]),
        "write_memory_megabytes": (after_write - before) / 1e3,
        "flipped_bit": flipped,
    }


def notices_a_flipped_bit(folder: Path, read: Callable[[], Any]) -> str:
    """Flip a bit in the middle of the largest file, and read."""
    largest = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 16
    largest.write_bytes(content)
    try:
        read()
    except Exception as error:
        return f"refused: {type(error).__name__}"
    return "read without a word"


def main() -> None:
    """Measure both in turn."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    found = {}
    for who in ("ours", "orbax"):
        done = subprocess.run([sys.executable, __file__, who], check=True, capture_output=True, text=True)
        found[who] = json.loads(done.stdout.splitlines()[-1])
        print(who, found[who], flush=True)
    machine.save(FILE, **found)


if __name__ == "__main__":
    main()
