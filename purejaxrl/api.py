"""Training from Python, by the functions that the command line and notebooks share."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

from purejaxrl.analysis.pickling import LazyPlan, TemporaryFolder
from purejaxrl.analysis.result import Result, make_result
from purejaxrl.components.hyperparameters import check_fields, field_specs, with_whole_numbers
from purejaxrl.envs import Renderer, find_renderer, limit_steps, observe_images
from purejaxrl.errors import InputError
from purejaxrl.experiment.cluster import Workers, check_executor
from purejaxrl.experiment.loggers import Logger, check_loggers
from purejaxrl.experiment.options import FOR_SWEEPS, Options
from purejaxrl.experiment.plan import (
    Plan,
    agent_of,
    images_of,
    plan_sweep,
    plan_train,
    refuse_unknown,
    refuse_unknown_objects,
    validate,
)
from purejaxrl.experiment.progress import Reporter, reporter_of
from purejaxrl.experiment.run import Outcome, devices_at_hand, plan_resumption, run_experiment
from purejaxrl.experiment.search import Search
from purejaxrl.experiment.search_progress import search_reporter_of
from purejaxrl.experiment.tune import Deadline, run_tune
from purejaxrl.experiment.tune_plan import TunePlan, plan_tune, plan_tune_resumption
from purejaxrl.experiment.tune_time import plan_in_time
from purejaxrl.experiment.validation import check_agent, check_record
from purejaxrl.storage.cache import hash_of_source
from purejaxrl.storage.files import absolute_path, read_json
from purejaxrl.storage.run_folder import RunFolder, check_free, create, open_existing
from purejaxrl.training import loop
from purejaxrl.training.compilation_cache import use_compilation_cache
from purejaxrl.training.devices import ask_for_cpu_devices, warn_about_idle_cores
from purejaxrl.training.loop import Log
from purejaxrl.types import Agent, Env, RunState, ScalarKey

__all__ = ["Result", "make_train", "resume", "sweep", "train", "tune"]

Progress: TypeAlias = bool | Reporter | Callable[[Plan], Reporter] | None
# Name of the thread that imports what tables and figures need.
IMPORTER = "purejaxrl-importer"


def make_train(agent: Agent, config: Any, env: Env) -> Callable[[ScalarKey], tuple[RunState, Log]]:
    """Build a training run as a pure function of a random key.

    The run is one `lax.scan` of fixed length: jit it, vmap it over keys, differentiate through it in reverse mode. It
    knows nothing of files, progress or signals.

    Args:
        agent: The algorithm, such as `purejaxrl.AGENTS["dqn"]`, or one of your own.
        config: An `agent.Config`, with exactly one budget; fields that are arrays or tracers pass. Its `max_ep_len`
            limits the environment, its `image` and the fields that belong to it make images of the observations.
        env: What `purejaxrl.make` returns, or an Env of your own.

    Returns:
        A function key -> (RunState, Log [iterations, ...]). The Log holds an entry per iteration; where `active` is
        False the run had already ended, and the entry means nothing.

    Raises:
        InputError: If the config is wrong, or does not fit the environment.
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
    if images is not None and env.image_format is None:
        env = observe_images(env, find_renderer(env.name), images)
    validate(agent, config, env)
    check_agent(agent, config, env)
    return loop.make_train(agent, config, env)


def train(
    algorithm: str | Agent,
    *,
    env: Any = "CartPole-v0",
    env_params: Any = None,
    observation_type: str | None = None,
    renderer: Renderer | None = None,
    preset: str | Path = "original",
    device: str = "cpu",
    devices: int | None = None,
    max_memory: float | None = None,
    seeds: int = 1,
    seed: int = 0,
    log_every: int | None = None,
    eval_every: int | None = None,
    eval_episodes: int = 20,
    solved_at: float | None = None,
    stop_when_solved: bool = False,
    episodes_log: str = "auto",
    checkpoint_every: float = 5.0,
    fail_on_nan: bool = False,
    debug: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
    loggers: Sequence[Logger] = (),
    **hyperparameters: Any,
) -> Result:
    """Train one setting with several seeds side by side, and return what was learned.

    SIGINT and SIGTERM end the training with everything learned so far; `Result.stopped_by` then holds the signal. So do
    SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU, unless your program handles or ignores them.

    Args:
        algorithm: `vpg`, `a3c`, `dqn`, or an Agent.
        env: Name of an environment, gymnax environment object, or Env.
        env_params: Parameters of a gymnax environment where they are not its defaults: all, or a dict of those changed.
        observation_type: `default` for state vectors, `img` for images; by default what the preset has.
        renderer: How to draw the images of an environment of your own.
        preset: `original`, `tuned` for the quickest settings found, or the path of a tune's best.json.
        device: `cpu`, `cuda` (or `gpu`), `tpu`, or `auto`.
        devices: How many devices to use, all by default; on a CPU every core is one.
        max_memory: GiB that may be used, by default 60% of what there is; runs are cut into batches that fit.
        seeds: Number of runs side by side.
        seed: Run i starts from `jax.random.key(seed + i)`.
        log_every: Env steps between rows of metrics.csv; by default an epoch, or 1000.
        eval_every: Env steps between greedy evaluations, by which the best parameters are kept; by default there are
            none.
        eval_episodes: Episodes of an evaluation.
        solved_at: Mean return of 100 episodes that counts as solved; by default that agreed for the environment.
        stop_when_solved: Whether to end each run once it is solved.
        episodes_log: `on`, `off`, or `auto`, which writes episodes.csv for up to 256 runs.
        checkpoint_every: Minutes between checkpoints, 0 for none; they are kept where `out` is given.
        fail_on_nan: Whether to stop, with DivergedError, when a run diverges.
        debug: Whether to find the operation that makes a NaN or an index out of bounds; slow.
        out: Run folder to write. Without it the files live as long as the Result, and `Result.save` keeps them.
        overwrite: Whether to replace an earlier run in that folder.
        progress: True for a bar of one line, False for none, or a Reporter of your own, or a function (Plan) ->
            Reporter. By default there is a bar in a notebook, in IPython and at an interactive prompt.
        loggers: Where else metrics go, see `purejaxrl.experiment.loggers`.
        **hyperparameters: Fields of the algorithm's Config, as `lr` or `network`, with other values than the preset's.

    Returns:
        The Result: tables, curves, policies and the state of all runs.

    Raises:
        InputError: If an argument is unknown or not allowed; nothing has been compiled then.
        ResourceError: If disk or memory do not suffice.
        InUseError: If another process writes to the run folder.
        DivergedError: If a run diverges, with `fail_on_nan` or `debug`.
    """
    arguments = {**locals()}
    for name in FOR_SWEEPS:
        if name in hyperparameters:
            raise InputError(f"--{name}: {hyperparameters[name]} is for `sweep`; train takes one setting")
    agent = agent_of(algorithm)
    refuse_unknown(train, hyperparameters, field_specs(agent.Config))
    ask_for_cpu_devices()
    use_compilation_cache()
    plan = plan_train(agent, **_pick_options(arguments), **hyperparameters)
    return run_new(plan, out, overwrite=overwrite, progress=progress, loggers=loggers, executor=None)


def sweep(
    algorithm: str | Agent,
    *,
    env: Any = "CartPole-v0",
    env_params: Any = None,
    observation_type: str | None = None,
    renderer: Renderer | None = None,
    preset: str | Path = "original",
    device: str = "cpu",
    devices: int | None = None,
    max_memory: float | None = None,
    seeds: int = 1,
    seed: int = 0,
    log_every: int | None = None,
    eval_every: int | None = None,
    eval_episodes: int = 20,
    solved_at: float | None = None,
    stop_when_solved: bool = False,
    episodes_log: str = "auto",
    checkpoint_every: float = 5.0,
    fail_on_nan: bool = False,
    debug: bool = False,
    random: int | None = None,
    yes: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
    loggers: Sequence[Logger] = (),
    executor: Workers | None = None,
    **hyperparameters: Any,
) -> Result:
    """Train every combination of hyperparameters given as lists, each with several seeds, and compare them.

    Run r has setting r // seeds and starts from `jax.random.key(seed + r % seeds)`. Real-valued hyperparameters share a
    compiled program; one is compiled for every combination of the others. Signals are as for `train`.

    >>> sweep("dqn", seeds=16, lr=[1e-3, 3e-4], hidden_sizes=[(32, 32), (64, 64)])

    Args:
        algorithm: `vpg`, `a3c`, `dqn`, or an Agent.
        env: Name of an environment, gymnax environment object, or Env.
        env_params: Parameters of a gymnax environment where they are not its defaults: all, or a dict of those changed.
        observation_type: `default` for state vectors, `img` for images; by default what the preset has.
        renderer: How to draw the images of an environment of your own.
        preset: `original`, `tuned` for the quickest settings found, or the path of a tune's best.json.
        device: `cpu`, `cuda` (or `gpu`), `tpu`, or `auto`.
        devices: How many devices to use, all by default; on a CPU every core is one.
        max_memory: GiB that may be used, by default 60% of what there is; runs are cut into batches that fit.
        seeds: Number of runs of every setting.
        seed: First seed of every setting; it decides, too, what `random` draws.
        log_every: Env steps between rows of metrics.csv; by default an epoch, or 1000.
        eval_every: Env steps between greedy evaluations, by which the best parameters are kept; by default there are
            none.
        eval_episodes: Episodes of an evaluation.
        solved_at: Mean return of 100 episodes that counts as solved; by default that agreed for the environment.
        stop_when_solved: Whether to end each run once it is solved.
        episodes_log: `on`, `off`, or `auto`, which writes episodes.csv for up to 256 runs.
        checkpoint_every: Minutes between checkpoints, 0 for none; they are kept where `out` is given.
        fail_on_nan: Whether to stop, with DivergedError, when a run diverges.
        debug: Whether to find the operation that makes a NaN or an index out of bounds; slow.
        random: Draw so many settings, from lists and from `Range(1e-4, 1e-2, log=True)`; by default all combinations of
            the lists are taken.
        yes: Whether to allow more than 100 000 runs.
        out: Run folder to write. Without it the files live as long as the Result, and `Result.save` keeps them.
        overwrite: Whether to replace an earlier run in that folder.
        progress: True for a bar of one line, False for none, or a Reporter of your own, or a function (Plan) ->
            Reporter. By default there is a bar in a notebook, in IPython and at an interactive prompt.
        loggers: Where else metrics go, see `purejaxrl.experiment.loggers`.
        executor: Any `concurrent.futures.Executor`, whose workers train slices of the runs, such as that of a Dask
            Client or of submitit; None trains in this process. See the page GPUs and clusters.
        **hyperparameters: Fields of the algorithm's Config: a list holds alternatives, a Range is drawn from,
            and a tuple is one value.

    Returns:
        The Result of all settings and seeds.

    Raises:
        InputError: If an argument is unknown or not allowed; nothing has been compiled then.
        ResourceError: If disk or memory do not suffice.
        InUseError: If another process writes to the run folder.
        DivergedError: If a run diverges, with `fail_on_nan` or `debug`.
        ClusterError: If the workers of the Executor are gone, or could not train a single run.
    """
    arguments = {**locals()}
    agent = agent_of(algorithm)
    refuse_unknown(sweep, hyperparameters, field_specs(agent.Config))
    ask_for_cpu_devices()
    use_compilation_cache()
    plan = plan_sweep(agent, **_pick_options(arguments), **hyperparameters)
    return run_new(plan, out, overwrite=overwrite, progress=progress, loggers=loggers, executor=executor)


def tune(
    algorithm: str | Agent,
    *,
    settings: int | None = None,
    objective: str = "final_return",
    method: str = "halving",
    eta: int = 3,
    confirm_seeds: int = 32,
    time: str | None = None,
    env: Any = "CartPole-v0",
    env_params: Any = None,
    observation_type: str | None = None,
    renderer: Renderer | None = None,
    preset: str | Path = "original",
    device: str = "cpu",
    devices: int | None = None,
    max_memory: float | None = None,
    seeds: int = 8,
    seed: int = 0,
    log_every: int | None = None,
    eval_every: int | None = None,
    eval_episodes: int = 20,
    solved_at: float | None = None,
    stop_when_solved: bool = False,
    episodes_log: str = "auto",
    checkpoint_every: float = 5.0,
    fail_on_nan: bool = False,
    debug: bool = False,
    yes: bool = False,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Progress = None,
    loggers: Sequence[Logger] = (),
    executor: Workers | None = None,
    **hyperparameters: Any,
) -> Result:
    """Search for the best hyperparameters, each setting with several seeds, and judge the winner on fresh ones.

    Settings are drawn from lists and ranges; without any, from a space of the algorithm's own. They share a budget of
    `env_steps` for each run, of which most settings train a part only. A run that trains to its end is the run that it
    would have been alone, and the same `seed` searches in the same way. Signals are as for `train`, and `resume` goes
    on.

    >>> found = tune("a3c", env="CartPole-v1", lr=Range(1e-4, 1e-1, log=True), gamma=[0.95, 0.99], env_steps=300_000)
    >>> found.tuning.best, found.tuning.confirmation, found.tuning.table

    Args:
        algorithm: `vpg`, `a3c`, `dqn`, or an Agent.
        settings: Number of settings, by default 256; of lists alone all combinations, if they are no more.
        objective: `final_return`, the mean return of the last 100 episodes; `area`, the mean return per env step; or
            `steps_to_solve`, env steps until a run is solved, where those that are not count as twice the budget.
        method: `halving`: the best train on with more seeds; `hyperband`: halving from several first budgets;
            `racing`: settings are dropped once they are worse than the best; `random`: all train to their end.
        eta: Of so many settings one goes on, with so many times the budget.
        confirm_seeds: Fresh seeds with which the winner and the preset train once more; 0 for none.
        time: How long all of it may take, as `"90s"`, `"2m"` or `"1h"`, in place of `settings` and, unless it is given,
            `env_steps`. What there is time for is measured, so another search with the same `seed` may differ.
        env: Name of an environment, gymnax environment object, or Env.
        env_params: Parameters of a gymnax environment where they are not its defaults: all, or a dict of those changed.
        observation_type: `default` for state vectors, `img` for images; by default what the preset has.
        renderer: How to draw the images of an environment of your own.
        preset: What hyperparameters are that are not searched: `original`, `tuned`, or the path of a best.json.
        device: `cpu`, `cuda` (or `gpu`), `tpu`, or `auto`.
        devices: How many devices to use, all by default; on a CPU every core is one.
        max_memory: GiB that may be used, by default 60% of what there is.
        seeds: Greatest number of runs of a setting.
        seed: First seed of every setting; it decides, too, which settings are drawn.
        log_every: Env steps between rows of metrics.csv; by default an epoch, or 1000.
        eval_every: Env steps between greedy evaluations, by which the best parameters are kept; by default there are
            none.
        eval_episodes: Episodes of an evaluation.
        solved_at: Mean return of 100 episodes that counts as solved; by default that agreed for the environment.
        stop_when_solved: Whether to end each run once it is solved, as `steps_to_solve` does.
        episodes_log: `on`, `off`, or `auto`, which writes episodes.csv for up to 256 runs.
        checkpoint_every: 0 keeps nothing to resume from; all else keeps whatever has come in, at once.
        fail_on_nan: Whether to stop, with DivergedError, when a run diverges.
        debug: Whether to find the operation that makes a NaN or an index out of bounds; slow.
        yes: Whether to allow more than 100 000 runs.
        out: Run folder to write. Without it the files live as long as the Result, and `Result.save` keeps them.
        overwrite: Whether to replace an earlier run in that folder.
        progress: As for `train`; of a Reporter of your own, `note` is told of every rung.
        loggers: Where else metrics go, see `purejaxrl.experiment.loggers`.
        executor: As for `sweep`.
        **hyperparameters: Fields of the algorithm's Config: a list holds alternatives, a Range is drawn from, and a
            tuple is one value. `env_steps` is the full budget of a run; by default the preset's, or that of `tuned`.

    Returns:
        The Result of all runs that were trained, whose `tuning` holds the winner, its confirmation and the table.

    Raises:
        InputError: If an argument is unknown or not allowed; nothing has been compiled then.
        ResourceError: If disk or memory do not suffice.
        InUseError: If another process writes to the run folder.
        DivergedError: If a run diverges, with `fail_on_nan` or `debug`.
        ClusterError: If the workers of the Executor are gone, or could not train a run.
    """
    arguments, started = {**locals()}, perf_counter()
    agent = agent_of(algorithm)
    refuse_unknown(tune, hyperparameters, field_specs(agent.Config))
    ask_for_cpu_devices()
    use_compilation_cache()
    chosen = {name: arguments[name] for name in field_specs(Search)} | _pick_options(arguments) | hyperparameters
    return run_new_tune(
        partial(plan_tune, agent, **chosen),
        out,
        overwrite=overwrite,
        progress=progress,
        loggers=loggers,
        executor=executor,
        started=started,
    )


def resume(
    path: str | Path,
    *,
    extend: int | None = None,
    restart: bool = False,
    agent: Agent | None = None,
    network: Any = None,
    env: Any = None,
    env_params: Any = None,
    renderer: Renderer | None = None,
    device: str | None = None,
    devices: int | None = None,
    max_memory: float | None = None,
    log_every: int | None = None,
    checkpoint_every: float | None = None,
    fail_on_nan: bool | None = None,
    debug: bool | None = None,
    progress: Progress = None,
    loggers: Sequence[Logger] = (),
    executor: Workers | None = None,
    **objects: Any,
) -> Result:
    """Go on with the training of a run folder from its newest checkpoint, as if it had never stopped.

    On the machine, devices and versions of before, parameters and CSV files end bitwise equal to those of a training
    that was never interrupted. Where nothing had been learned it begins anew, with a warning.

    Args:
        path: The run folder.
        extend: A larger budget, in the unit of the training's own. For `epochs` and `env_steps` the result is that of
            a training with the larger budget from the start; for `episodes`, whose end freezes a run, it goes on from
            the frozen learner.
        restart: Whether to begin anew where there is no checkpoint, but rows or parameters, which that replaces.
        agent: The Agent, where it is your own, which config.json only names.
        network: The Flax module, where the training had one; a list of them where they were swept.
        env: The environment object, where the training had one.
        env_params: Its parameters, where config.json does not hold them by value.
        renderer: How to draw its images, where that was given.
        device: `cpu`, `cuda` (or `gpu`), `tpu`, or `auto`. It replaces what was recorded, as do the next six.
        devices: How many devices to use.
        max_memory: GiB that may be used.
        log_every: Env steps between rows of metrics.csv.
        checkpoint_every: Minutes between checkpoints, 0 for none.
        fail_on_nan: Whether to stop, with DivergedError, when a run diverges.
        debug: Whether to find the operation that makes a NaN or an index out of bounds; slow.
        progress: As for `train`.
        loggers: Where else metrics go, see `purejaxrl.experiment.loggers`.
        executor: As for `sweep`. A sweep that was begun by workers may go on in this process, and the other way round
            unless it was interrupted within a batch of runs.
        **objects: Other fields of your own agent's Config that hold objects.

    Returns:
        The Result of the whole training.

    Raises:
        InputError: If there is no run, or an argument is unknown, missing or not allowed.
        InUseError: If another process writes to the run folder.
        CheckpointError: If no checkpoint is whole, or config.json differs from what it was written with. The folder is
            as it was then, as it is for an InputError.
        ResourceError: If disk or memory do not suffice.
        DivergedError: If a run diverges, with `fail_on_nan` or `debug`.
        ClusterError: If the workers of the Executor are gone, or could not train a single run.
    """
    refuse_unknown_objects(resume, objects, agent)
    ask_for_cpu_devices()
    use_compilation_cache()
    return resume_run(
        path,
        restart=restart,
        progress=progress,
        loggers=loggers,
        executor=executor,
        extend=extend,
        agent=agent,
        network=network,
        env=env,
        env_params=env_params,
        renderer=renderer,
        device=device,
        devices=devices,
        max_memory=max_memory,
        log_every=log_every,
        checkpoint_every=checkpoint_every,
        fail_on_nan=fail_on_nan,
        debug=debug,
        **objects,
    )


def _pick_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Select the arguments of a function that are fields of Options."""
    return {field.name: arguments[field.name] for field in dataclasses.fields(Options) if field.name in arguments}


@contextmanager
def new_run(
    plan: Plan, out: str | Path | None, *, overwrite: bool, loggers: Sequence[Logger], executor: Workers | None = None
) -> Iterator[tuple[Plan, RunFolder, TemporaryFolder | None]]:
    """Open the run folder of a training that begins.

    Args:
        plan: What is to be trained.
        out: The run folder; None for one that lives as long as the Result.
        overwrite: Whether to replace an earlier run in that folder.
        loggers: Additional destinations for metrics.
        executor: An Executor whose workers train, None where training is in this process.

    Yields:
        The Plan, the locked folder, and the object that deletes it, None where `out` was given.

    Raises:
        InputError: If an argument is not allowed; nothing has been written then.
        InUseError: If another process writes to the run folder.
    """
    check_loggers(loggers)
    if out == "":
        raise InputError("--out: '' is not allowed; it takes a folder")
    check_executor(executor)
    local = devices_at_hand(plan, executor)
    if executor is None:
        warn_about_idle_cores(local, plan.options.devices, plan.runs)
    temporary = None
    if out is None:
        out = (temporary := TemporaryFolder()).path
        # What goes with the Result is of no use after an interruption.
        plan = plan._replace(options=dataclasses.replace(plan.options, checkpoint_every=0.0))
    with create(absolute_path(out), overwrite=overwrite) as folder:
        _import_figures(plan)
        yield plan, folder, temporary


def run_new(
    plan: Plan,
    out: str | Path | None,
    *,
    overwrite: bool,
    progress: Any,
    loggers: Sequence[Logger],
    executor: Workers | None,
) -> Result:
    """Train in a new run folder.

    Args:
        plan: What to train.
        out: The run folder; None for one that lives as long as the Result.
        overwrite: Whether to replace an earlier run in that folder.
        progress: As for `train`.
        loggers: Additional destinations for metrics.
        executor: An Executor whose workers train, None to train in this process.

    Returns:
        The Result.
    """
    shown = reporter_of(progress, plan)
    with new_run(plan, out, overwrite=overwrite, loggers=loggers, executor=executor) as (plan, folder, temporary):
        outcome = run_experiment(plan, folder, write_results, progress=shown, loggers=loggers, executor=executor)
    return make_result_of(outcome, temporary)


def run_new_tune(
    make_plan: partial[TunePlan],
    out: str | Path | None,
    *,
    overwrite: bool,
    progress: Any,
    loggers: Sequence[Logger],
    executor: Workers | None,
    started: float,
) -> Result:
    """Search in a new run folder.

    Args:
        make_plan: Makes the plan of the search; keyword arguments replace those of `tune`.
        out: The run folder; None for one that lives as long as the Result.
        overwrite: Whether to replace an earlier run in that folder.
        progress: As for `tune`.
        loggers: Additional destinations for metrics.
        executor: An Executor whose workers train, None to train in this process.
        started: When the command began, as `time.perf_counter` had it, from which a time limit counts.

    Returns:
        The Result.
    """
    planned, deadline = make_plan(), None
    if planned.search.time is not None:
        if out is not None:
            # Rather than once it has been measured.
            check_free(absolute_path(out), overwrite=overwrite)
        planned, deadline = plan_in_time(make_plan, planned, executor, started)
    with new_run(planned.plan, out, overwrite=overwrite, loggers=loggers, executor=executor) as opened:
        plan, folder, temporary = opened
        outcome = _search(planned._replace(plan=plan), folder, progress, loggers, executor, deadline)
    return make_result_of(outcome, temporary)


def _search(
    planned: TunePlan,
    folder: RunFolder,
    progress: Any,
    loggers: Sequence[Logger],
    executor: Workers | None,
    deadline: Deadline | None = None,
) -> Outcome:
    """Search in a run folder, and show the progress as asked for."""
    return run_tune(
        planned,
        folder,
        write_results,
        reporter=search_reporter_of(progress, planned),
        confirmation_reporter=partial(reporter_of, progress),
        loggers=loggers,
        executor=executor,
        deadline=deadline,
    )


def write_results(folder: RunFolder, config: dict[str, Any], summary: dict[str, Any]) -> None:
    """Write tables and figures of a training that has ended, see `analysis.figures.write_results`.

    Args:
        folder: The run folder, locked.
        config: Content of config.json.
        summary: Content of summary.json.
    """
    # Two threads that import modules which import each other may see half of one.
    for thread in threading.enumerate():
        if thread.name == IMPORTER:
            thread.join()
    from purejaxrl.analysis import figures

    figures.write_results(folder, config, summary)


def _import_figures(plan: Plan) -> None:
    """Begin to import what figures and tables need while XLA loads or compiles programs and trains.

    Args:
        plan: What is to be trained: that of a single setting does without pandas.
    """
    # It reads a hundred files, and would have to wait for the interpreter at each.
    hash_of_source()
    names = ["purejaxrl.analysis.figures", *(["pandas"] if plan.is_sweep else [])]
    is_importing = any(thread.name == IMPORTER for thread in threading.enumerate())
    if not set(names) <= set(sys.modules) and not is_importing:
        threading.Thread(target=_import_all, args=(names,), name=IMPORTER).start()


def _import_all(names: list[str]) -> None:
    """Import modules beside other work."""
    # Whoever waits for the interpreter meanwhile gets it soon, or training would be held up at every step.
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        # What is wrong is said where they are used.
        with suppress(Exception):
            for name in names:
                importlib.import_module(name)
    finally:
        sys.setswitchinterval(interval)


def resume_run(
    path: str | Path,
    *,
    progress: Any = None,
    loggers: Sequence[Logger] = (),
    executor: Workers | None = None,
    **changes: Any,
) -> Result:
    """Continue the training of a run folder and return its Result.

    Args:
        path: The run folder.
        progress: As for `train`.
        loggers: Additional destinations for metrics.
        executor: An Executor whose workers train, None to train in this process.
        **changes: Other arguments of `plan_resumption`.

    Returns:
        The Result of the whole training.

    Raises:
        InputError: If there is no run, or an argument is not allowed.
        InUseError: If another process writes to the run folder.
        CheckpointError: If no checkpoint is intact, or config.json differs from what it was written with.
        ResourceError: If disk or memory do not suffice.
        DivergedError: If a run diverges, with `fail_on_nan` or `debug`.
    """
    check_loggers(loggers)
    check_executor(executor)
    with open_existing(absolute_path(path)) as folder:
        content = read_json(folder.path / "config.json")
        if "tune" in content:
            planned = plan_tune_resumption(folder.path, content, **changes)
            _import_figures(planned.plan)
            return make_result_of(_search(planned, folder, progress, loggers, executor))
        plan, found = plan_resumption(folder.path, **changes)
        shown = reporter_of(progress, plan)
        _import_figures(plan)
        outcome = run_experiment(
            plan, folder, write_results, progress=shown, loggers=loggers, found=found, executor=executor
        )
    return make_result_of(outcome)


def make_result_of(outcome: Outcome, temporary: TemporaryFolder | None = None) -> Result:
    """Build the Result of a training that has ended or was stopped.

    Args:
        outcome: The outcome of the training.
        temporary: The object that deletes its run folder, None for a folder that stays.

    Returns:
        The Result.
    """
    plan = LazyPlan(outcome.config, plan=outcome.plan)
    state, stopped_by = outcome.state, outcome.stopped_by
    return make_result(outcome.path, outcome.config, outcome.summary, plan, state, stopped_by, temporary)
