"""What compiled training programs do, by XLA's own account of them: as much as was recorded, and no copy of a replay.

No clock is looked at, so twice the work shows on a busy machine too. XLA's cost analysis takes a loop's body once,
whatever its rounds, so the rounds are compared as well; a small matrix product beside large ones shows in their number
alone.

After a change that is meant to change the work, `python tests/test_compiled_programs.py --write` writes
compiled_programs.json anew.
"""

import json
import math
import platform
import re
import sys
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import jax
import jaxlib
import numpy as np
import pytest
from quickly import CAN_DO_WITHOUT_EMITTERS

from purejaxrl.agents import AGENTS
from purejaxrl.components.hyperparameters import find_budget
from purejaxrl.envs import make
from purejaxrl.experiment import presets
from purejaxrl.experiment.plan import images_of
from purejaxrl.training import loop
from purejaxrl.training.compilation import A_SPAN, LOG_BYTES
from purejaxrl.training.loop import advance_group, init_run

RECORDED = Path(__file__).with_name("compiled_programs.json")
RUNS, CAPACITY = 2, 4
# Algorithm, observation type and what differs from the preset original: rollouts and batches of images are small, so
# that what is done beside them shows, and a replay of images is larger than all that is computed from it.
CASES = {
    "vpg": ("vpg", "default", {"steps_per_epoch": 200}),
    "dqn on states": ("dqn", "default", {}),
    "dqn on images": ("dqn", "img", {"batch_size": 64, "memory_size": 1_000_000}),
    "a3c async": ("a3c", "default", {"mode": "async", "t_max": 20}),
    "a3c sync": ("a3c", "default", {"mode": "sync", "t_max": 20}),
}
# The result's dimensions and the opcode of an instruction that makes one array.
ARRAY = re.compile(r" = \w+\[([\d,]+)\]\S* ([\w-]+)\(")
# What hands an array on or writes into it. What a fusion does inside is in the text as well.
IN_PLACE = {"parameter", "get-tuple-element", "bitcast", "dynamic-update-slice", "fusion"}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_programs_do_as_much_as_was_recorded(name):
    recorded = json.loads(RECORDED.read_text())
    # Another compiler fuses in another way.
    factor = 1.02 if recorded["compiler"] == compiler() else 1.5
    counts, expected = counts_of(compile_chunk(name)[0]), recorded["programs"][name]
    # One more of each: there may be none.
    ratios = {key: (1 + np.sum(counts[key])) / (1 + np.sum(expected[key])) for key in expected}
    other = {key: f"{counts[key]}, not {expected[key]}" for key in expected if not 1 / factor < ratios[key] < factor}
    assert not other


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dqn on states", "dqn on images"])
def test_the_replay_is_written_in_place(name):
    program, state = compile_chunk(name)
    rows = state.learner.memory.rows
    one_replay = rows.size // RUNS
    assert {"parameter"} <= opcodes_of_arrays(program.as_text(), at_least=one_replay) <= IN_PLACE
    assert program.memory_analysis().temp_size_in_bytes < one_replay * rows.dtype.itemsize / 2


@cache
def compile_chunk(name):
    """The program that trains RUNS runs side by side, and the shapes of their state. Nothing is allocated."""
    algorithm, observation_type, changes = CASES[name]
    agent = AGENTS[algorithm]
    config = presets.resolve(agent, "CartPole-v0", observation_type, "original", changes)
    env = make("CartPole-v0", max_ep_len=config.max_ep_len, images=images_of(config))
    configs = jax.tree.map(lambda _: jax.ShapeDtypeStruct((RUNS,), np.float32), config)
    keys = jax.eval_shape(jax.vmap(jax.random.key), np.arange(RUNS))
    state = jax.eval_shape(jax.vmap(partial(init_run, agent, env)), configs, keys)
    chunk = partial(advance_group, agent, env, find_budget(config), LOG_BYTES)
    with patch.object(loop, "MAX_CHUNK", CAPACITY):
        lowered = jax.jit(chunk, donate_argnums=1).lower(configs, state, A_SPAN)
    # The level concerns what is made of the optimized HLO, which is not looked at and would take half of the time. The
    # emitters, which the suite does without, decide what is fused.
    options = {"xla_backend_optimization_level": 0}
    if CAN_DO_WITHOUT_EMITTERS:
        options |= {"xla_cpu_use_fusion_emitters": True}
    return lowered.compile(compiler_options=options), state


def counts_of(program):
    """What a compiled program does, in numbers."""
    cost, text = program.cost_analysis(), program.as_text()
    return {
        "flops": int(cost["flops"]),
        "bytes accessed": int(cost["bytes accessed"]),
        "instructions": text.count(" = "),
        "matrix products": text.count(" dot("),
        "loops": text.count(" while("),
        "known rounds of loops": sorted(map(int, re.findall(r'"known_trip_count":\{"n":"(\d+)"', text))),
    }


def opcodes_of_arrays(text, at_least):
    """The opcodes of all instructions of optimized HLO whose result is one array of so many numbers."""
    return {opcode for sizes, opcode in ARRAY.findall(text) if math.prod(map(int, sizes.split(","))) >= at_least}


def compiler():
    """What decides how a program is compiled, beside the program."""
    return f"jax {jax.__version__}, jaxlib {jaxlib.__version__}, {platform.machine()}"


def record():
    """Write what the programs do now as what is expected."""
    programs = {name: counts_of(compile_chunk(name)[0]) for name in CASES}
    RECORDED.write_text(json.dumps({"compiler": compiler(), "programs": programs}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    jax.config.update("jax_platforms", "cpu")
    record()
