"""Programs that this process has compiled, kept so that the next training of their kind starts at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import jax

from purejaxrl.components.hyperparameters import Budget, field_specs
from purejaxrl.training.compilation import Program
from purejaxrl.training.identity import contents_of_modules, identify, is_unchanged
from purejaxrl.types import Agent, Env

MAX_PROGRAMS = 16
# All that outlives a training in its process, with what the modules held that it was made from: anyone may assign to
# them. What was used longest ago comes first.
_PROGRAMS: OrderedDict[Hashable, tuple[Program, dict[str, str]]] = OrderedDict()
_JITTED: OrderedDict[Hashable, tuple[Callable[..., Any], dict[str, str]]] = OrderedDict()


def clear_programs() -> None:
    """Forget the programs that this process has compiled, which frees their memory; the next training compiles anew."""
    _PROGRAMS.clear()
    _JITTED.clear()


def jit_once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Jit a function, or return what an earlier call returned for the same one, with all that it has compiled.

    Args:
        function: The function, often a `partial` of an agent and its environment, that is recognized by `identify`.

    Returns:
        The jitted function.
    """
    key = identify(function)
    if key is None:
        return jax.jit(function)
    if key not in _JITTED or not is_unchanged(_JITTED[key][1]):
        _JITTED[key] = jax.jit(function), contents_of_modules()
    _JITTED.move_to_end(key)
    jitted, _ = _JITTED[key]
    while len(_JITTED) > MAX_PROGRAMS:
        _JITTED.popitem(last=False)
    return jitted


def program_key(
    agent: Agent, env: Env, config: Any, runs: int, budget: Budget, local: list[jax.Device], eval_episodes: int | None
) -> Hashable | None:
    """Return what decides which program trains a number of runs.

    Seeds, values of leaves, and the amount of the budget do not: programs take them as data.

    Args:
        agent: The algorithm.
        env: The environment.
        config: Config of any of the runs.
        runs: Number of runs.
        budget: Budget of each run.
        local: The devices.
        eval_episodes: Episodes of an evaluation, None without evaluations.

    Returns:
        The key. None where an object has nothing to be recognized by, so that every training compiles anew.
    """
    values = {
        name: getattr(config, name) is None if spec.is_leaf else getattr(config, name)
        for name, spec in field_specs(config).items()
    }
    found = identify((agent, env, type(config), values, budget._replace(amount=None), runs, eval_episodes))
    return None if found is None else (found, local[0].platform, tuple(device.id for device in local))


def find_program(key: Hashable | None, budget: Budget, memory_limit: int) -> Program | None:
    """Return the program of an earlier training.

    Args:
        key: What `program_key` returned.
        budget: Budget of each run.
        memory_limit: Bytes that may be used per memory, see `devices`.

    Returns:
        The program, None if there is none, if it needs more memory, or if a module that it was made from holds
        something else now.
    """
    program, modules = _PROGRAMS.get(key, (None, {}))
    if program is None or program.memory > memory_limit or not is_unchanged(modules):
        return None
    _PROGRAMS.move_to_end(key)
    return program._replace(budget=budget, compile_seconds=0.0)


def keep_program(key: Hashable | None, program: Program, runs: int) -> None:
    """Keep a program for later trainings, and forget the one that was used longest ago.

    Args:
        key: What `program_key` returned.
        program: The program. One that trains a part of the runs at a time, as memory was short, is not kept.
        runs: Number of runs that it was compiled for.
    """
    if key is not None and program.width >= runs:
        _PROGRAMS[key] = program, contents_of_modules()
        while len(_PROGRAMS) > MAX_PROGRAMS:
            _PROGRAMS.popitem(last=False)
