"""Training as a call: what the command line and notebooks share."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import pandas as pd

from purejaxrl.config import check_fields
from purejaxrl.envs import limit_steps, observe_images, renderer_of
from purejaxrl.ledger import Ledger, Stage, summarize, write_pictures, write_statistics
from purejaxrl.plan import Plan, images_of, plan_sweep, plan_train, validate
from purejaxrl.processes import exchange_standing, hand_over, take_in
from purejaxrl.results import run_folder
from purejaxrl.results.progress import Reporter, Silent
from purejaxrl.results.run_folder import RunFolder
from purejaxrl.training import devices, loop
from purejaxrl.training.evaluate import Best
from purejaxrl.training.fit import StopRequestedError, compile_fitting, fit
from purejaxrl.training.hosts import Hosts, alone, check_hosts
from purejaxrl.training.hosts import start as start_hosts
from purejaxrl.training.loop import Log
from purejaxrl.training.signals import StopSignals
from purejaxrl.training.sweep import batch_of, cut, group_settings, share_of
from purejaxrl.types import Agent, Env, RunState, ScalarKey

__all__ = ["Result", "carry_out", "make_train", "sweep", "train"]


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A training that has ended.

    state, best: the stacked RunState and best learners [runs, ...] where all runs were trained side by side in one
    batch, else None; params/ holds them all.
    """

    path: Path
    summary: dict[str, Any]
    plan: Plan
    state: RunState | None
    best: Best | None
    stopped_by: int | None

    def frame(self) -> pd.DataFrame:
        """metrics.csv: one row per run and logging interval."""
        return pd.read_csv(self.path / "metrics.csv")

    def episodes(self) -> pd.DataFrame:
        """episodes.csv: one row per episode."""
        return pd.read_csv(self.path / "episodes.csv")

    def statistics(self) -> pd.DataFrame:
        """sweep.csv: one row per setting of a sweep."""
        return pd.read_csv(self.path / "sweep.csv")

    @property
    def curve(self) -> Path:
        """The picture of the learning curves."""
        return self.path / ("sweep.png" if self.plan.is_sweep else "learning_curve.png")


def make_train(agent: Agent, config: Any, env: Env) -> Callable[[ScalarKey], tuple[RunState, Log]]:
    """The whole run as a pure function key -> (RunState, Log[iterations, ...]).

    One `lax.scan` of fixed length: jit it, vmap it over keys, differentiate through it in reverse mode. The Log holds
    one entry per iteration; where `active` is False the run had already ended and the entry means nothing. The config's
    `max_ep_len` limits the environment, its `image` and what belongs to it make images of the observations.
    Raises InputError if the config is wrong or does not fit the environment; fields that are arrays or tracers pass.
    """
    check_fields(config)
    max_ep_len, images = getattr(config, "max_ep_len", None), images_of(config)
    if max_ep_len is not None and max_ep_len < env.max_episode_steps:
        env = limit_steps(env, max_ep_len)
    if images is not None and env.rendered_shape is None:
        env = observe_images(env, renderer_of(env.name), images)
    validate(agent, config, env)
    return loop.make_train(agent, config, env)


def train(
    algorithm: str | Agent,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Any = None,
    **arguments: Any,
) -> Result:
    """Train one setting with several seeds side by side, and return what was learned.

    algorithm: `vpg`, `a3c` or `dqn`, or an Agent.
    env: a name, or a gymnax environment object with its `env_params`.
    observation_type: `default` for state vectors, `img` for images; renderer: how to draw an environment of your own.
    preset: `original` or `tuned`.
    device: `cpu`, `auto`, `cuda` or `tpu`; devices: how many of them, all by default.
    seeds: number of runs; run i uses jax.random.key(seed + i).
    log_every, eval_every: env steps between rows of metrics.csv, and between greedy evaluations of `eval_episodes`
    episodes (off by default; the best parameters by them are kept).
    solved_at: mean return over 100 episodes that counts as solved; stop_when_solved: end each run once it is.
    episodes_log: `on`, `off`, or `auto`: episodes.csv is written up to 256 runs.
    max_memory: GiB that may be used, by default 60% of the memory there is; runs are cut into batches that fit.
    All else overrides a field of the algorithm's Config.

    out: the run folder; without it the files live as long as the Result. SIGINT and SIGTERM end the training with
    everything learned so far; `Result.stopped_by` then holds the signal.
    Raises InputError before anything is compiled, and ResourceError if disk or memory do not suffice.
    """
    devices.ask_for_cpu_devices()
    return carry_out(plan_train(algorithm, **arguments), out=out, overwrite=overwrite, progress=progress)


def sweep(
    algorithm: str | Agent,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Any = None,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    **arguments: Any,
) -> Result:
    """Train every combination of hyperparameters given as lists, each with several seeds, and compare them.

    `sweep("dqn", seeds=16, lr=[1e-3, 3e-4], hidden_sizes=[(32, 32), (64, 64)])`: a list holds alternatives, a tuple is
    one value. random: draw so many settings instead, from lists and from `Range(1e-4, 1e-2, log=True)`; `seed` decides
    which. Run r has setting r // seeds and starts from jax.random.key(seed + r % seeds).
    Real-valued hyperparameters share a compiled program; one is compiled for every combination of the others.
    yes: allow more than 100 000 runs.
    coordinator, num_processes, process_id: train together with other processes, see `training.hosts`; the first one
    writes the run folder, the others' Results hold their share.
    All else as for `train`. Raises HostError, too, where another process is lost.
    """
    check_hosts(coordinator, num_processes, process_id)
    devices.ask_for_cpu_devices()
    everyone = alone() if coordinator is None else start_hosts(coordinator, num_processes, process_id)
    with everyone.telling_of_errors():
        plan = plan_sweep(algorithm, **arguments)
        return carry_out(plan, out=out, overwrite=overwrite, progress=progress, everyone=everyone)


def carry_out(
    plan: Plan,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: Any = None,
    everyone: Hosts | None = None,
) -> Result:
    """Run a Plan, or this process's share of it; see `train` and `sweep`."""
    everyone = everyone or alone()
    local = devices.local_devices(plan.options.device, plan.options.devices)
    devices.warn_about_idle_cores(local, plan.options.devices, plan.runs)
    shown = progress if progress and everyone.index == 0 else Silent()
    if out is not None and everyone.index == 0:
        return _carry_out(plan, local, run_folder.create(Path(out), overwrite=overwrite), shown, everyone)
    path = Path(tempfile.mkdtemp(prefix="purejaxrl-"))
    try:
        result = _carry_out(plan, local, run_folder.create(path, overwrite=False), shown, everyone)
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    weakref.finalize(result, shutil.rmtree, path, ignore_errors=True)
    return result


def _carry_out(plan: Plan, local: list[jax.Device], folder: RunFolder, progress: Reporter, everyone: Hosts) -> Result:
    used = min(len(local), -(-plan.runs // everyone.count))
    folder.write_json("config.json", {**plan.as_dict(), "devices": used, "processes": everyone.count})
    ledger = Ledger(plan, folder, used)
    with StopSignals() as signals:
        stopper = Stopper(signals, everyone)
        look = partial(look_around, stopper, ledger, progress)
        try:
            progress.start()
            try:
                for stage in run(plan, local, everyone, stopper.poll, progress.note):
                    is_stopping = stopper.poll()
                    ledger.enter(stage, is_stopping)
                    look()
                    # A batch's arrays are to go before the next one's come.
                    del stage
                    if is_stopping:
                        break
            except StopRequestedError:
                pass
            # Still within StopSignals: what has been learned is written whole.
            if everyone.index:
                hand_over(everyone, ledger, stopper.poll)
            else:
                for process in range(1, everyone.count):
                    take_in(everyone, ledger, process, look)
        finally:
            progress.close()
        stopped_by = signals.received or everyone.asked_to_stop
        summary = summarize(ledger, local[0].device_kind, stopped_by)
        if everyone.index == 0:
            folder.write_json("summary.json", summary)
            write_statistics(ledger)
            write_pictures(ledger)
        everyone.finish()
    return Result(folder.path, summary, plan, ledger.state, ledger.best, stopped_by)


class Stopper(NamedTuple):
    """Who may ask a training to stop: a signal that any of its processes has received."""

    signals: StopSignals
    everyone: Hosts

    def poll(self) -> bool:
        """Whether to stop; a signal received here is passed on. Raises HostError where a process is lost."""
        self.everyone.check()
        if self.signals.received is not None:
            self.everyone.ask_to_stop(self.signals.received)
        return self.everyone.asked_to_stop is not None


def look_around(stopper: Stopper, ledger: Ledger, progress: Reporter) -> None:
    """Pass a signal on, exchange with other processes where the runs stand, and show it. Raises HostError."""
    stopper.poll()
    exchange_standing(stopper.everyone, ledger)
    progress.advance(ledger.records, ledger.seconds())


def run(
    plan: Plan,
    local: list[jax.Device],
    everyone: Hosts,
    should_stop: Callable[[], bool],
    note: Callable[[str], None],
) -> Iterator[Stage]:
    """Train a share of a Plan: group after group, compiling each; batch after batch, as they fit in memory.

    Yields a Stage after every chunk. Raises StopRequestedError if asked to stop while compiling, and ResourceError
    where not even one run fits.
    """
    limit = int(plan.options.max_memory * 2**30) if plan.options.max_memory else devices.memory_of(local)
    groups = group_settings([setting.config for setting in plan.settings])
    for turn, group in enumerate(groups):
        setting = plan.settings[group.settings[0]]
        share = share_of(batch_of(group, plan.options.seeds, plan.options.seed), everyone.index, everyone.count, turn)
        if not len(share.runs):
            continue
        program = compile_fitting(
            plan.agent,
            setting.env,
            setting.config,
            len(share.runs),
            setting.budget,
            local,
            memory_limit=limit,
            eval_episodes=plan.options.eval_episodes if plan.options.eval_every else None,
            should_stop=should_stop,
        )
        batches = cut(share, program.width)
        if len(batches) > 1:
            note(f"{len(share.runs)} runs in {len(batches)} batches of up to {len(batches[0].runs)}")
        is_only = len(groups) == len(batches) == everyone.count == 1
        for batch in batches:
            chunks = fit(program, batch.configs, batch.seeds, eval_every=plan.options.eval_every)
            # Without a variable of its own here: the last chunk would live on beside the next batch.
            yield from (Stage(setting, batch, is_only, program, chunk) for chunk in chunks)
