"""Options of a training besides hyperparameters: one line each, from which the flag, its help and its range follow."""

from __future__ import annotations

from typing import Any

from purejaxrl.components.hyperparameters import (
    MAX_INT,
    Spec,
    check_value,
    config,
    make_checked,
    static,
)
from purejaxrl.envs import Renderer
from purejaxrl.errors import InputError

__all__ = ["FOR_RESUMING", "FOR_SWEEPS", "Options", "check_whole", "make_options"]

FOR_SWEEPS = ("random", "yes")
# What a training may be resumed with instead of what it began with.
FOR_RESUMING = ("device", "devices", "max_memory", "log_every", "checkpoint_every", "fail_on_nan", "debug")


@config
class Options:
    """Options of a training besides hyperparameters, each with one value.

    `purejaxrl.train` and `sweep` take and describe them, with the same defaults. Objects have no flags; of an
    environment, the flag gives its name.
    """

    env: Any = static("CartPole-v0", "environment; see purejaxrl list", kind=object)
    env_params: Any = static(None, "parameters of a gymnax environment", kind=object, optional=True)
    observation_type: str | None = static(
        None, "default: the state vector; img: images (default for DQN with preset original)", kind=str, optional=True
    )
    renderer: Renderer | None = static(None, "how images are drawn", kind=object, optional=True)
    preset: str = static(
        "original", "original, or tuned: hyperparameters that learn fastest; or the best.json of a tune", kind=str
    )
    device: str = static("cpu", "cpu, auto, cuda (or gpu), tpu", kind=str)
    devices: int | None = static(
        None, "number of devices, all unless given; on CPU every core is one", at_least=1, optional=True
    )
    seeds: int = static(1, "runs side by side, of each setting", at_least=1)
    seed: int = static(0, "run i uses seed + i", at_least=0, at_most=2**32 - 1)
    log_every: int | None = static(
        None, "env steps between rows of metrics.csv, one epoch or 1000 unless given", at_least=1, optional=True
    )
    eval_every: int | None = static(None, "env steps between greedy evaluations", at_least=1, optional=True)
    eval_episodes: int = static(20, "episodes of one evaluation", at_least=1)
    solved_at: float | None = static(
        None, "mean return of 100 episodes that counts as solved", kind=float, optional=True
    )
    stop_when_solved: bool = static(False, "end each run once it is solved", kind=bool)
    episodes_log: str = static(
        "auto", "whether episodes.csv is written; auto: for up to 256 runs", choices=("auto", "on", "off")
    )
    max_memory: float | None = static(
        None, "GiB that may be used, 60% of what there is unless given", kind=float, above=0, optional=True
    )
    checkpoint_every: float = static(
        5.0, "minutes between checkpoints; there is one at the end, too; 0: none", kind=float, at_least=0
    )
    fail_on_nan: bool = static(False, "stop, with exit code 5, when a run diverges", kind=bool)
    debug: bool = static(
        False, "find the operation that makes a NaN or an index out of bounds, and show tracebacks; slow", kind=bool
    )
    random: int | None = static(
        None, "sample so many settings, from lists and from ranges as --lr 1e-4..1e-2:log", at_least=1, optional=True
    )
    yes: bool = static(False, "allow more than 100 000 runs", kind=bool)


def make_options(values: dict[str, Any]) -> Options:
    """Make Options and check their values. The names of environment, preset and device are checked later.

    Args:
        values: Values by name; what is not given has its default, and whole numbers may be written as 1e5.

    Returns:
        The Options.

    Raises:
        InputError: If a value is not allowed.
    """
    options = make_checked(Options, values)
    check_whole("seed", options.seed, at_least=0, at_most=2**32 - options.seeds)
    if options.eval_every is not None and options.log_every is not None and options.log_every > options.eval_every:
        raise InputError(
            f"--log_every: {options.log_every} is more than --eval_every {options.eval_every}; "
            "rows would lose evaluations"
        )
    return options


def check_whole(name: str, value: Any, *, at_least: int, at_most: int = MAX_INT) -> None:
    """Check that a value is a whole number within bounds.

    Args:
        name: Name of the argument or flag.
        value: The value.
        at_least: The lower bound.
        at_most: The upper bound.

    Raises:
        InputError: If it is not.
    """
    check_value(name, value, Spec(name, is_leaf=False, kind=int, at_least=at_least, at_most=at_most))
