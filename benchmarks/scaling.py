"""Cost per seed against number of seeds, actors, and cores (which are devices on CPU): `python benchmarks/scaling.py`.

The preset `original` on CartPole-v0 with state observations, each point in a process of its own; scaling.json gets them
one by one, so an interrupted script goes on where it was. DQN's replay is cut to 10 000 transitions: 4096 times 100 000
take 20 GB.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import machine
import speed

FILE = Path(__file__).with_name("scaling.json")
REPETITIONS = 3
SEEDS = (1, 8, 64, 512, 4096)
CORES = (1, 2)

SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "VPG": ("vpg", {}),
    "DQN": ("dqn", {"memory_size": 10_000}),
    "A3C async": ("a3c", {}),
    "A3C sync": ("a3c", {"mode": "sync"}),
}
# Of one seed, for about a second; many seeds take fewer.
ITERATIONS = {"VPG": 20, "DQN": 4000, "A3C async": 200, "A3C sync": 200}
ACTORS = {"VPG": (1, 4, 20, 100), "DQN": (1, 4, 16, 64), "A3C async": (4, 16, 64), "A3C sync": (4, 16, 64, 256)}


def points() -> dict[str, speed.Case]:
    """Name -> what is timed: seeds on all cores, 64 of them on one, and 8 with other numbers of actors."""
    found = {}
    for name in SETTINGS:
        for seeds in SEEDS:
            found[f"{name}, {seeds} seeds"] = case_of(name, seeds, CORES[-1])
        found[f"{name}, 1 core"] = case_of(name, 64, 1)
        for actors in ACTORS[name]:
            found[f"{name}, {actors} actors"] = case_of(name, 8, CORES[-1], actors=actors)
    return found


def case_of(name: str, seeds: int, cores: int, **more: Any) -> speed.Case:
    """A point, about a second long, or as short as an iteration allows."""
    algorithm, settings = SETTINGS[name]
    iterations = max(ITERATIONS[name] // seeds, 1)
    return speed.Case(algorithm, seeds, iterations, cores, settings={**settings, **more})


def measure(name: str, repetitions: int) -> dict[str, Any]:
    """One point in a process of its own."""
    words = [sys.executable, __file__, "--point", name, str(repetitions)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure the points named on the command line, or those that scaling.json lacks."""
    if sys.argv[1:2] == ["--point"]:
        print(json.dumps(speed.measure(points()[sys.argv[2]], int(sys.argv[3]))))
        return
    results = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name in sys.argv[1:] or [name for name in points() if name not in results]:
        # Thousands of seeds take minutes for what one seed does in a second.
        found = measure(name, 1 if points()[name].seeds > 512 else REPETITIONS)
        results |= {"machine": machine.describe(), name: found}
        FILE.write_text(json.dumps(results, indent=1) + "\n")
        print(
            f"{name}: {found['env_steps_per_second']:,.0f} env steps/s, {found['peak_memory_mb']:,.0f} MB", flush=True
        )


if __name__ == "__main__":
    main()
