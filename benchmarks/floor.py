"""The least that an update can cost on a core: its work over what the core reaches.

    seconds >= flops / (flops/s of a large matrix product) + tanh / (tanh/s) + random words / (words/s)
               + bytes / (bytes/s of a pass over an array in the cache)

Flops are those of the networks' matrix products: 2 n m for n inputs and m outputs of a layer and sample, three times
that with gradients, less the first layer's gradient with respect to its inputs. Bytes are what must be moved even if
everything within a network stayed in registers: transitions, each written and read once, the inputs of every pass (of
an image the few numbers that it is rendered from), and parameters with Adam's two averages, read and written at every
step. Everything else (arithmetic of Adam and losses, the environment, rendering) is left out, so this is a lower bound.
`python benchmarks/floor.py` writes floor.json.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import machine

from purejaxrl.kernels.threefry import unrolled

FILE = Path(__file__).with_name("floor.json")
HIDDEN = (32, 32)
IMAGE = 40 * 90 * 3
STATE = 4
FLOAT = 4
PI, V, Q = 2, 1, 2


class Work(NamedTuple):
    """What must be done: floating-point operations of matrix products, values of tanh, random 32-bit words, bytes."""

    flops: float = 0.0
    tanh: float = 0.0
    words: float = 0.0
    bytes: float = 0.0


def plus(*works: Work) -> Work:
    """All of it."""
    return Work(*map(sum, zip(*works, strict=True)))


def times(count: float, work: Work) -> Work:
    """As often."""
    return Work(*(count * amount for amount in work))


def forward(inputs: int, outputs: int, *, tanh: bool) -> Work:
    """A sample through inputs -> 32 -> 32 -> outputs."""
    layers = itertools.pairwise((inputs, *HIDDEN, outputs))
    return Work(sum(2.0 * n * m for n, m in layers), sum(HIDDEN) if tanh else 0, bytes=FLOAT * STATE)


def gradient(inputs: int, outputs: int, *, tanh: bool) -> Work:
    """A sample there and back."""
    there = forward(inputs, outputs, tanh=tanh)
    return there._replace(flops=3 * there.flops - 2.0 * inputs * HIDDEN[0], bytes=2 * there.bytes)


def adam(inputs: int, outputs: int) -> Work:
    """One step: parameters and both running averages, read and written."""
    layers = itertools.pairwise((inputs, *HIDDEN, outputs))
    return Work(bytes=6 * FLOAT * sum(m * (n + 1) for n, m in layers))


# Two observations of four numbers, action, reward, two flags: written and read.
TRANSITION = Work(bytes=2 * FLOAT * (2 * STATE + 4))

# One action of two is a comparison of one random number; random numbers of resets are left out.
VPG_EPOCH = plus(
    times(
        4000,
        plus(
            TRANSITION,
            forward(STATE, PI, tanh=True),
            Work(words=1),
            times(2, forward(STATE, V, tanh=True)),
            gradient(STATE, PI, tanh=True),
            times(80, gradient(STATE, V, tanh=True)),
        ),
    ),
    adam(STATE, PI),
    times(80, adam(STATE, V)),
)
# Its Adam step serves a whole rollout, which leaves next to nothing for one env step.
A3C_ENV_STEP = plus(
    TRANSITION,
    forward(STATE, PI, tanh=True),
    Work(words=1),
    forward(STATE, V, tanh=True),
    gradient(STATE, PI, tanh=True),
    gradient(STATE, V, tanh=True),
)


def dqn_env_step(inputs: int) -> Work:
    """Acting, and one gradient step on 512 transitions; images travel as no more numbers than states do."""
    return plus(
        TRANSITION,
        adam(inputs, Q),
        forward(inputs, Q, tanh=False),
        Work(words=2),
        times(512, plus(Work(words=1), forward(inputs, Q, tanh=False), gradient(inputs, Q, tanh=False))),
    )


WORK = {
    "VPG, epoch": VPG_EPOCH,
    "DQN, env step": dqn_env_step(STATE),
    "DQN, images, env step": dqn_env_step(IMAGE),
    "A3C, env step": A3C_ENV_STEP,
}


def seconds_of(function: Callable[..., Any], *args: Any, repetitions: int = 15) -> float:
    """Median seconds of a compiled call."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*args))
    found = []
    for _ in range(repetitions):
        started = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def rates() -> dict[str, float]:
    """What one core reaches per second: flops in a matrix product, tanh in a cached array, random words in bulk, bytes
    read and written by passes over a cached array.
    """
    size, rows, repeats = 1024, 4096, 200
    square = jax.random.normal(jax.random.key(0), (size, size))
    small = jax.random.normal(jax.random.key(1), (rows, 32))

    def many_tanh(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda _, x: jnp.tanh(x), x)

    def many_layers(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda _, x: x @ kernel, x)

    def many_passes(x: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda _, x: x + 1, x)

    def many_words(key: jax.Array) -> jax.Array:
        return jax.random.bits(key, (1_000_000,))

    return {
        "flops": 2 * size**3 / seconds_of(lambda x: x @ x, square),
        "flops of a 32 x 32 layer": repeats
        * 2
        * small.size
        * 32
        / seconds_of(many_layers, small, square[:32, :32] / 8),
        "tanh": repeats * small.size / seconds_of(many_tanh, small),
        "words": 1_000_000 / seconds_of(many_words, unrolled(jax.random.key(2))),
        "bytes": repeats * 2 * small.nbytes / seconds_of(many_passes, small),
    }


def floor(work: Work, rate: dict[str, float]) -> float:
    """Seconds of one core."""
    return sum(amount / rate[name] for name, amount in work._asdict().items())


def main() -> None:
    """Measure this machine's rates on one core, and write the floors."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rate = rates()
    rows = {name: {**work._asdict(), "seconds": floor(work, rate)} for name, work in WORK.items()}
    machine.save(FILE, rates=rate, floors=rows)
    for name, value in rate.items():
        print(f"{name}: {value:.3g} a second and core")
    for name, row in rows.items():
        print(f"{name}: {row['seconds']:.3g} s of one core")


if __name__ == "__main__":
    main()
