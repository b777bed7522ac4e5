"""Compiled programs that are at hand: those of this process, and those of the package on disk."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any, NamedTuple

import jax

from purejaxrl.components.hyperparameters import field_specs
from purejaxrl.experiment.plan import Plan, Training, is_built_in
from purejaxrl.storage.cache import cache_folder, find_text, keep_text
from purejaxrl.training import devices
from purejaxrl.training.compilation import Program
from purejaxrl.training.compilation_cache import private_folder
from purejaxrl.training.executables import ProgramFile, find_file, load_program, save_program
from purejaxrl.training.programs import find_program, keep_program, program_key


class Kept(NamedTuple):
    """What is known of a program before it is compiled.

    Attributes:
        program: The program, None if it has to be compiled.
        key: What decides which program it is, None where an object has nothing to be recognized by.
        file: Its file, None where it is not to be kept on disk.
        is_of_process: Whether this process has kept it.
        timing: File that tells how long such a program took to compile the last time, None where nothing is kept.
        seconds: What it tells, None where it is not there.
    """

    program: Program | None
    key: Hashable | None
    file: ProgramFile | None
    is_of_process: bool
    timing: Path | None = None
    seconds: float | None = None

    @property
    def tag(self) -> str | None:
        """Name of the program on disk, None if it is not to be written there."""
        return None if self.file is None else self.file.tag


def memory_limit(plan: Plan, local: list[jax.Device]) -> int:
    """Compute how many bytes a training may use per memory.

    Args:
        plan: What is trained.
        local: The devices.

    Returns:
        The number of bytes.
    """
    return int(plan.options.max_memory * 2**30) if plan.options.max_memory else devices.memory_of(local)


def find_kept(plan: Plan, setting: Training, config: Any, runs: int, local: list[jax.Device], limit: int) -> Kept:
    """Look for the program that trains a number of runs, in this process and on disk.

    Args:
        plan: What is trained.
        setting: The setting of any of the runs.
        config: Its Config, as the program is compiled for it.
        runs: Number of runs.
        local: The devices.
        limit: Bytes that may be used per memory.

    Returns:
        The program, if it is there, and where it is kept.
    """
    key = None
    if not plan.options.debug:
        key = program_key(plan.agent, setting.env, config, runs, setting.budget, local[:runs], plan.eval_episodes)
    program = find_program(key, setting.budget, limit)
    if program is not None:
        return Kept(program, key, None, is_of_process=True)
    file = None
    if _is_of_the_package(plan, config):
        file = find_file(key, local[:runs])
        program = load_program(file, plan.agent, setting.env, config, setting.budget, local, limit)
    # Texts are in the user's folder; where JAX was given another, nothing is put there.
    if program is not None or cache_folder() is None or private_folder() != cache_folder():
        return Kept(program, key, file, is_of_process=False)
    kind = {"compiled": plan.agent.name, "dimensions": len(setting.env.input_shape), "device": local[0].device_kind}
    timing, text = find_text(**kind)
    return Kept(None, key, file, False, timing, None if text is None else float(text))


def keep(kept: Kept, program: Program, runs: int) -> Program:
    """Keep a program for later trainings, unless it is kept already.

    Args:
        kept: What `find_kept` returned.
        program: The program: the one that was found, else the one that was compiled.
        runs: Number of runs that it was compiled for.

    Returns:
        The program.
    """
    if kept.program is None:
        program = save_program(kept.file, program, runs)
        if kept.timing is not None:
            keep_text(kept.timing, f"{program.compile_seconds:.1f}")
    if not kept.is_of_process:
        keep_program(kept.key, program, runs)
    return program


def _is_of_the_package(plan: Plan, config: Any) -> bool:
    """Check that agent, environment and networks are the package's own, so that their names tell what they are."""
    has_objects = any(
        spec.is_object and getattr(config, name) is not None for name, spec in field_specs(config).items()
    )
    is_named = isinstance(plan.options.env, str) and plan.options.renderer is None
    return is_built_in(plan.agent) and is_named and not has_objects
