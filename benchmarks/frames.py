"""Frames per second: the small images that agents see, full-size frames, and gymnasium's own, on the same machine.

`python benchmarks/frames.py --out benchmarks/frames.json`; `--quick` prints only, with fewer repetitions. Every frame
is consumed: multiplied with weights and summed, so that none can be optimized away.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import machine

BATCH = 512
SECONDS = 0.5


class Case(NamedTuple):
    """Images of one size; channels 0 means full-size frames, 400 x 600 RGB in whole numbers."""

    height: int
    width: int
    channels: int
    cores: int


CASES = {
    "grey 40x90, 2 cores": Case(40, 90, 1, 2),
    "grey 40x90, 1 core": Case(40, 90, 1, 1),
    "RGB 40x90, 2 cores": Case(40, 90, 3, 2),
    "grey 24x80, 2 cores": Case(24, 80, 1, 2),
    "grey 8x24, 2 cores": Case(8, 24, 1, 2),
    "RGB 400x600, 2 cores": Case(400, 600, 0, 2),
}


def consume(case: Case) -> Callable[..., Any]:
    """A function of (x, theta)[batches, BATCH] that renders all of them and returns a number per frame."""
    import jax
    import jax.numpy as jnp

    from purejaxrl.envs.cartpole.image import render_observation
    from purejaxrl.envs.cartpole.rgb import render_rgb

    weights = jnp.linspace(0.5, 1.5, case.height * case.width * max(case.channels, 3 * (case.channels == 0)))

    def render_batch(states: Any) -> Any:
        x, theta = states
        if case.channels:
            frames = render_observation(x, theta, case.height, case.width, case.channels)
        else:
            frames = render_rgb(x, theta)
        return frames.reshape(len(x), -1).astype(jnp.float32) @ weights

    return lambda x, theta: jax.lax.map(render_batch, (x, theta))


def measure(case: Case, repetitions: int, kind: str = "cpu", at_once: int = BATCH) -> dict[str, float]:
    """Frames per second of all devices together. at_once: how many small images are rendered side by side on each."""
    import jax
    import numpy as np
    from jax.sharding import NamedSharding, PartitionSpec

    from purejaxrl.training.devices import local_devices, mesh_for

    mesh = mesh_for(local_devices(kind, case.cores), case.cores)
    batch = at_once if case.channels else at_once // 64
    generator = np.random.default_rng(0)

    def timed(batches: int) -> float:
        count = case.cores * batches
        states = [generator.uniform(-limit, limit, (count, batch)).astype(np.float32) for limit in (2.4, 0.2)]
        placed = jax.device_put(states, NamedSharding(mesh, PartitionSpec("runs")))
        started = time.perf_counter()
        jax.block_until_ready(function(*placed))
        return time.perf_counter() - started

    spec = PartitionSpec("runs")
    sharded = jax.shard_map(consume(case), mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False)
    function = jax.jit(sharded)
    timed(1)
    once = timed(1)
    batches = max(int(SECONDS / once), 1)
    timed(batches)
    rates = [case.cores * batches * batch / timed(batches) for _ in range(repetitions)]
    return machine.spread("frames_per_second", rates)


def measure_gymnasium(repetitions: int) -> dict[str, float]:
    """Frames per second of gymnasium's CartPole, 400 x 600 RGB, on one core."""
    os.environ |= {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}
    import gymnasium
    import numpy as np

    env = gymnasium.make("CartPole-v1", render_mode="rgb_array").unwrapped
    env.reset(seed=0)
    generator, rates = np.random.default_rng(0), []
    for _ in range(repetitions):
        states = generator.uniform(-1, 1, (200, 2)) * (2.4, 0.2)
        started = time.perf_counter()
        for x, theta in states:
            env.state = (x, 0.0, theta, 0.0)
            env.render().sum()
        rates.append(len(states) / (time.perf_counter() - started))
    return machine.spread("frames_per_second", rates)


def main() -> None:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three repetitions")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    repetitions = 3 if options.quick else 9

    from purejaxrl.training import devices

    devices.ask_for_cpu_devices(2)
    results = {name: measure(case, repetitions) for name, case in CASES.items()}
    results["gymnasium, RGB 400x600, 1 core"] = measure_gymnasium(repetitions)
    for name, row in results.items():
        print(f"{name:32} {row['frames_per_second']:12,.0f} frames/s ({row['slowest']:,.0f} to {row['fastest']:,.0f})")
    if options.out:
        machine.save(options.out, repetitions=repetitions, cases=results)


if __name__ == "__main__":
    main()
