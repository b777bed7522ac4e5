"""Training as a call: what the command line and notebooks share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from purejaxrl.config import check_fields, field_specs, with_whole_numbers
from purejaxrl.envs import limit_steps, observe_images, renderer_of
from purejaxrl.errors import InputError
from purejaxrl.execution import carry_on, carry_out
from purejaxrl.loggers import Logger
from purejaxrl.plan import images_of, plan_sweep, plan_train, validate
from purejaxrl.protocol import check_agent, check_record
from purejaxrl.reporting import reporter_of
from purejaxrl.result import Result
from purejaxrl.training import devices, loop
from purejaxrl.training.loop import Log
from purejaxrl.types import Agent, Env, RunState, ScalarKey

__all__ = ["Result", "make_train", "resume", "sweep", "train"]


def make_train(agent: Agent, config: Any, env: Env) -> Callable[[ScalarKey], tuple[RunState, Log]]:
    """The whole run as a pure function key -> (RunState, Log[iterations, ...]).

    One `lax.scan` of fixed length: jit it, vmap it over keys, differentiate through it in reverse mode. The Log holds
    one entry per iteration; where `active` is False the run had already ended and the entry means nothing. The config's
    `max_ep_len` limits the environment, its `image` and what belongs to it make images of the observations.
    Raises InputError if the config is wrong or does not fit the environment; fields that are arrays or tracers pass.
    """
    check_record(agent)
    if not isinstance(config, agent.Config):
        raise InputError(
            f"config: it is a {type(config).__name__} of {type(config).__module__}, not one of {agent.name}"
        )
    specs = field_specs(config)
    config = type(config)(**with_whole_numbers({name: getattr(config, name) for name in specs}, specs))
    check_fields(config)
    max_ep_len, images = getattr(config, "max_ep_len", None), images_of(config)
    if max_ep_len is not None and max_ep_len < env.max_episode_steps:
        env = limit_steps(env, max_ep_len)
    if images is not None and env.rendered_shape is None:
        env = observe_images(env, renderer_of(env.name), images)
    validate(agent, config, env)
    check_agent(agent, config, env)
    return loop.make_train(agent, config, env)


def train(
    algorithm: str | Agent,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Any = None,
    loggers: Sequence[Logger] = (),
    **arguments: Any,
) -> Result:
    """Train one setting with several seeds side by side, and return what was learned.

    algorithm: `vpg`, `a3c` or `dqn`, or an Agent.
    env: a name, a gymnax environment object, or an Env.
    env_params: the parameters of a gymnax environment where they are not its defaults: all, or a dict of those changed.
    network: a Flax module, inputs [B, ...] -> features [B, F], to which linear heads are added.
    observation_type: `default` for state vectors, `img` for images; renderer: how to draw an environment of your own.
    preset: `original` or `tuned`.
    device: `cpu`, `auto`, `cuda` or `tpu`; devices: how many of them, all by default.
    seeds: number of runs; run i uses jax.random.key(seed + i).
    log_every, eval_every: env steps between rows of metrics.csv, and between greedy evaluations of `eval_episodes`
    episodes (off by default; the best parameters by them are kept).
    solved_at: mean return over 100 episodes that counts as solved; stop_when_solved: end each run once it is.
    episodes_log: `on`, `off`, or `auto`: episodes.csv is written up to 256 runs.
    max_memory: GiB that may be used, by default 60% of the memory there is; runs are cut into batches that fit.
    loggers: where else metrics go, see `purejaxrl.loggers`.
    All else overrides a field of the algorithm's Config.

    out: the run folder; without it the files live as long as the Result, and `Result.save` keeps them.
    progress: True for a bar of one line, False for none; by default there is one where somebody looks on: in a
    notebook, in IPython, at an interactive prompt. A Reporter of your own is taken, too.
    SIGINT and SIGTERM end the training with everything learned so far; `Result.stopped_by` then holds the signal. So do
    SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU, unless your program handles or ignores them.
    Raises InputError before anything is compiled, and ResourceError if disk or memory do not suffice.
    """
    devices.ask_for_cpu_devices()
    plan = plan_train(algorithm, **arguments)
    shown = reporter_of(progress, plan)
    return carry_out(plan, out=out, overwrite=overwrite, progress=shown, loggers=loggers)


def sweep(
    algorithm: str | Agent,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Any = None,
    loggers: Sequence[Logger] = (),
    **arguments: Any,
) -> Result:
    """Train every combination of hyperparameters given as lists, each with several seeds, and compare them.

    `sweep("dqn", seeds=16, lr=[1e-3, 3e-4], hidden_sizes=[(32, 32), (64, 64)])`: a list holds alternatives, a tuple is
    one value. random: draw so many settings instead, from lists and from `Range(1e-4, 1e-2, log=True)`; `seed` decides
    which. Run r has setting r // seeds and starts from jax.random.key(seed + r % seeds).
    Real-valued hyperparameters share a compiled program; one is compiled for every combination of the others.
    yes: allow more than 100 000 runs.
    All else as for `train`.
    """
    devices.ask_for_cpu_devices()
    plan = plan_sweep(algorithm, **arguments)
    shown = reporter_of(progress, plan)
    return carry_out(plan, out=out, overwrite=overwrite, progress=shown, loggers=loggers)


def resume(
    path: str | Path,
    *,
    restart: bool = False,
    progress: Any = None,
    loggers: Sequence[Logger] = (),
    **arguments: Any,
) -> Result:
    """Go on with the training of a run folder from its newest checkpoint, as if it had never stopped.

    extend: a larger budget, in the unit of the training's own. For `epochs` and `env_steps` the result is that of a
    training with the larger budget from the start; for `episodes`, whose end freezes a run, it goes on from the frozen
    learner. agent, network, env, env_params, renderer: the objects of your own that config.json names only.
    device, devices, max_memory, log_every, checkpoint_every, fail_on_nan: instead of those recorded. progress: as for
    `train`.
    On the machine, devices and versions of before, parameters and CSV files end bitwise equal to those of a training
    that was never interrupted. Where no checkpoint was written the training begins anew, unless there are rows or
    parameters, which that would replace; restart: True lets it do so.
    Raises InputError, InUseError where another process writes there, and CheckpointError where no checkpoint is whole
    or config.json differs from what it was written with. Nothing has been changed then.
    """
    devices.ask_for_cpu_devices()
    shown = partial(reporter_of, progress)
    return carry_on(path, restart=restart, progress=shown, loggers=loggers, **arguments)
