"""CartPole alone under a random policy: this project's scan of gymnax's step, and gymnasium's vector environment.

Both take turns, with the same number of environments side by side, on one core and on all; sampling actions is part of
what is timed, and episodes end and begin anew. `python benchmarks/environment.py --out benchmarks/environment.json`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import machine

ENVIRONMENTS = 1024  # side by side on each core
OURS, THEIRS = 20_000, 3000  # steps of each, a second or so
AT_ONCE = 200  # steps whose actions and keys are sampled at once, as in a rollout
CORES = os.cpu_count() or 1


def play_ours(devices: list[Any], environments: int = ENVIRONMENTS, steps: int = OURS) -> Callable[[], float]:
    """A function that plays once and returns env steps/s of all devices together; it compiles now.

    environments: side by side on each device.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from purejaxrl.envs import make
    from purejaxrl.kernels.threefry import split_for_scan, unrolled
    from purejaxrl.training.devices import RUNS, mesh_for, shard_over_runs

    env = make("CartPole-v1")

    def play(seeds: Any) -> Any:
        reset_key, step_key = jax.random.split(unrolled(jax.random.key(seeds[0])))
        _, state = jax.vmap(env.reset)(jax.random.split(reset_key, environments))
        bits, as_key = split_for_scan(step_key, steps // AT_ONCE)

        def rollout(carry: Any, bits: Any) -> tuple[Any, None]:
            action_key, env_key = jax.random.split(as_key(bits))
            action = jax.random.bernoulli(action_key, shape=(AT_ONCE, environments)).astype(jnp.int32)
            return jax.lax.scan(step, carry, (split_for_scan(env_key, (AT_ONCE, environments))[0], action))

        def step(carry: Any, inputs: Any) -> tuple[Any, None]:
            (state, total), (bits, action) = carry, inputs
            timestep = jax.vmap(env.step)(as_key(bits), state, action)
            # Of all that a step returns, so that nothing is left out.
            seen = timestep.reward + jnp.sum(timestep.next_observation + timestep.observation, axis=-1)
            return (timestep.state, total + seen + timestep.truncated), None

        (_, total), _ = jax.lax.scan(rollout, (state, jnp.zeros(environments)), bits)
        return total[None]

    count = len(devices)
    mesh = mesh_for(devices, count)
    function = shard_over_runs(play, mesh, RUNS, RUNS).lower(np.arange(count, dtype=np.uint32)).compile()

    def timed() -> float:
        seeds = jax.device_put(np.arange(count, dtype=np.uint32), jax.sharding.NamedSharding(mesh, RUNS))
        started = time.perf_counter()
        assert np.isfinite(np.asarray(function(seeds))).all()
        return count * steps * environments / (time.perf_counter() - started)

    timed()
    return timed


def play_theirs(seed: int) -> float:
    """Env steps/s of one process with gymnasium's vector environment."""
    import gymnasium

    envs = gymnasium.make_vec("CartPole-v1", ENVIRONMENTS, vectorization_mode="vector_entry_point")
    envs.reset(seed=seed)
    envs.action_space.seed(seed)
    started = time.perf_counter()
    for _ in range(THEIRS):
        envs.step(envs.action_space.sample())
    return THEIRS * ENVIRONMENTS / (time.perf_counter() - started)


def main() -> None:
    """Measure both in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()

    from purejaxrl.training import devices

    # Started before JAX is: a process with threads must not fork.
    with ProcessPoolExecutor(CORES) as pool:
        list(pool.map(play_theirs, range(CORES)))
        devices.ask_for_cpu_devices(CORES)
        cores = sorted({1, CORES})
        ours = {count: play_ours(devices.local_devices("cpu", count)) for count in cores}
        rates: dict[str, list[float]] = {}
        for repetition in range(7):
            for count in cores:
                words = f"{count} core{'s' if count > 1 else ''}"
                rates.setdefault(f"purejaxrl, {words}", []).append(ours[count]())
                theirs = sum(pool.map(play_theirs, range(repetition, repetition + count)))
                rates.setdefault(f"gymnasium in numpy, {words}", []).append(theirs)
    cases = {name: machine.spread("env_steps_per_second", found) for name, found in rates.items()}
    for name, row in cases.items():
        span = f"({row['slowest']:,.0f} to {row['fastest']:,.0f})"
        print(f"{name:32} {row['env_steps_per_second']:13,.0f} env steps/s {span}")
    if options.out:
        machine.save(options.out, environments=ENVIRONMENTS, cases=cases)


if __name__ == "__main__":
    main()
