"""Training as a call: what the command line and notebooks share."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import shutil
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from purejaxrl import presets
from purejaxrl.agents import AGENTS
from purejaxrl.config import MAX_ENV_STEPS, MAX_INT, Budget, budget_of, check_fields
from purejaxrl.envs import limit_steps, make, name_of
from purejaxrl.errors import InputError
from purejaxrl.results import plots, run_folder
from purejaxrl.results.progress import Reporter, Silent
from purejaxrl.results.recorder import Recorder
from purejaxrl.training import devices, loop
from purejaxrl.training.devices import device_kind
from purejaxrl.training.evaluate import Best
from purejaxrl.training.fit import Chunk, Program, StopRequestedError, compile_program, fit, stack_runs
from purejaxrl.training.loop import Log, iterations_of, without_replay
from purejaxrl.types import Agent, Env, PyTree, RunState, ScalarKey

__all__ = ["Plan", "Result", "make_train", "plan", "train", "validate"]

EVAL_EPISODES = 20
MAX_LOGGED_RUNS = 256
PACKAGES = ("purejaxrl", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy")


class Plan(NamedTuple):
    """A training that has been checked and not yet started: nothing in it has been compiled."""

    agent: Agent
    env: Env
    config: Any
    budget: Budget
    shape: tuple[int, int]
    observation_type: str
    preset: str
    device: str
    devices: int | None
    seeds: int
    seed: int
    log_every: int
    eval_every: int | None
    eval_episodes: int
    episodes_log: str
    env_label: str

    def as_dict(self) -> dict[str, Any]:
        """What config.json holds: everything needed to repeat the training."""
        return {
            "algorithm": self.agent.name,
            "env": self.env_label,
            "observation_type": self.observation_type,
            "preset": self.preset,
            "solved_at": self.env.solved_at,
            "device": self.device,
            "devices": self.devices,
            "seeds": self.seeds,
            "seed": self.seed,
            "log_every": self.log_every,
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
            "episodes_log": self.episodes_log,
            "config": presets.as_dict(self.config),
            "versions": versions(),
        }


@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """A training that has ended. `state` is the stacked RunState [runs, ...], or None if nothing was trained."""

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

    @property
    def curve(self) -> Path:
        """The picture of the learning curve."""
        return self.path / "learning_curve.png"


def make_train(agent: Agent, config: Any, env: Env) -> Callable[[ScalarKey], tuple[RunState, Log]]:
    """The whole run as a pure function key -> (RunState, Log[iterations, ...]).

    One `lax.scan` of fixed length: jit it, vmap it over keys, differentiate through it in reverse mode. The Log holds
    one entry per iteration; where `active` is False the run had already ended and the entry means nothing. The config's
    `max_ep_len` limits the environment.
    Raises InputError if the config is wrong or does not fit the environment; fields that are arrays or tracers pass.
    """
    validate(agent, config, env)
    max_ep_len = getattr(config, "max_ep_len", None)
    if max_ep_len is not None and max_ep_len < env.max_episode_steps:
        env = limit_steps(env, max_ep_len)
    return loop.make_train(agent, config, env)


def validate(agent: Agent, config: Any, env: Env) -> None:
    """Check a Config's values, and that it fits the environment. Raises InputError naming the first that does not."""
    check_fields(config)
    budget_of(config)
    agent.check(config, env)


def plan(
    algorithm: str | Agent,
    *,
    env: Any = "CartPole-v0",
    env_params: Any = None,
    observation_type: str = "default",
    preset: str = "original",
    device: str = "cpu",
    devices: int | None = None,
    seeds: int = 1,
    seed: int = 0,
    log_every: int | None = None,
    eval_every: int | None = None,
    eval_episodes: int = EVAL_EPISODES,
    solved_at: float | None = None,
    episodes_log: str = "auto",
    **hyperparameters: Any,
) -> Plan:
    """Resolve and check everything about a training; compiles nothing. Raises InputError. Arguments as for `train`."""
    agent = agent_of(algorithm)
    lists = [name for name, value in hyperparameters.items() if isinstance(value, list)]
    if lists:
        raise InputError(f"--{lists[0]}: a list is a sweep; train takes one value, alternatives are for `sweep`")
    check_observation_type(observation_type)
    check_counts(seeds, seed, devices)
    check_logging(log_every, eval_every, eval_episodes, episodes_log)
    if solved_at is not None and not (isinstance(solved_at, int | float) and np.isfinite(solved_at)):
        raise InputError(f"--solved_at: {solved_at} is not allowed; it takes a finite number")

    config = presets.resolve(agent, name_of(env), observation_type, preset, hyperparameters)
    max_ep_len = getattr(config, "max_ep_len", None)
    made = make(env, env_params, max_ep_len=max_ep_len, solved_at=solved_at)
    validate(agent, config, made)
    budget, shape = budget_of(config), agent.rollout_shape(config)
    check_extent(budget, shape, made)
    default_log_every = shape[0] * shape[1] if hasattr(config, "epochs") else 1000
    return Plan(
        agent,
        made,
        config,
        budget,
        shape,
        observation_type,
        preset,
        device_kind(device),
        devices,
        seeds,
        seed,
        log_every or min(default_log_every, eval_every or default_log_every),
        eval_every,
        eval_episodes,
        episodes_log if episodes_log != "auto" else "on" if seeds <= MAX_LOGGED_RUNS else "off",
        made.name if isinstance(env, str) else f"custom: {made.name}",
    )


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
    preset: `original` or `tuned`.
    device: `cpu`, `auto`, `cuda` or `tpu`; devices: how many of them, all by default.
    seeds: number of runs; run i uses jax.random.key(seed + i).
    log_every, eval_every: env steps between rows of metrics.csv, and between greedy evaluations of `eval_episodes`
    episodes (off by default; the best parameters by them are kept).
    solved_at: mean return over 100 episodes that counts as solved.
    episodes_log: `on`, `off`, or `auto`: episodes.csv is written up to 256 runs.
    All else overrides a field of the algorithm's Config.

    out: the run folder; without it the files live as long as the Result. SIGINT and SIGTERM end the training with
    everything learned so far; `Result.stopped_by` then holds the signal.
    Raises InputError before anything is compiled, and ResourceError if the disk does not suffice.
    """
    devices.ask_for_cpu_devices()
    planned = plan(algorithm, **arguments)
    return carry_out(planned, out=out, overwrite=overwrite, progress=progress)


def carry_out(planned: Plan, *, out: str | Path | None = None, overwrite: bool = False, progress: Any = None) -> Result:
    """Run a Plan; see `train`."""
    local = devices.local_devices(planned.device, planned.devices)
    devices.warn_about_idle_cores(local, planned.devices, planned.seeds)
    if out is not None:
        return _carry_out(planned, local, run_folder.create(Path(out), overwrite=overwrite), progress or Silent())
    path = Path(tempfile.mkdtemp(prefix="purejaxrl-"))
    try:
        result = _carry_out(planned, local, run_folder.create(path, overwrite=False), progress or Silent())
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    weakref.finalize(result, shutil.rmtree, path, ignore_errors=True)
    return result


def _carry_out(planned: Plan, local: list[jax.Device], folder: run_folder.RunFolder, progress: Reporter) -> Result:
    folder.write_json("config.json", {**planned.as_dict(), "devices": min(len(local), planned.seeds)})
    logs_episodes = planned.episodes_log == "on"
    recorder = recorder_of(planned)
    trained = None
    with StopSignals() as signals:
        try:
            progress.start()
            for trained in run(planned, local, signals):
                chunk, is_stopping = trained.chunk, signals.is_stopping()
                episodes, metrics = recorder.add(chunk.start, chunk.log, chunk.eval_return, chunk.is_over | is_stopping)
                if logs_episodes:
                    folder.append_episodes(episodes)
                folder.append_metrics(metrics)
                progress.advance(recorder.runs, chunk.start + chunk.length, trained.run_seconds)
                if is_stopping:
                    break
        except StopRequestedError:
            pass
        finally:
            progress.close()
        # Still within StopSignals: what has been learned is written whole.
        summary = summarize(planned, recorder, trained, local, signals.received)
        if logs_episodes:
            folder.append_episodes([])
        folder.write_json("summary.json", summary)
        state, best = (None, None) if trained is None else write_learners(folder, planned, trained)
        write_pictures(folder, planned, recorder)
    return Result(folder.path, summary, planned, state, best, signals.received)


class Trained(NamedTuple):
    """Where a training stands after a chunk."""

    program: Program
    chunk: Chunk
    run_seconds: float


def run(planned: Plan, local: list[jax.Device], signals: StopSignals) -> Iterator[Trained]:
    """Compile a Plan, then train it chunk by chunk. Raises StopRequestedError if asked to stop while compiling."""
    program = compile_program(
        planned.agent,
        planned.env,
        stack_runs(planned.config, planned.seeds),
        np.arange(planned.seed, planned.seed + planned.seeds),
        planned.budget,
        devices.mesh_for(local, planned.seeds),
        planned.shape,
        eval_episodes=planned.eval_episodes if planned.eval_every else None,
        should_stop=signals.is_stopping,
    )
    started = time.perf_counter()
    for chunk in fit(program, planned.shape, eval_every=planned.eval_every):
        yield Trained(program, chunk, time.perf_counter() - started)


def recorder_of(planned: Plan) -> Recorder:
    """A Recorder for the Plan's runs."""
    return Recorder(
        seeds=[planned.seed + run for run in range(planned.seeds)],
        steps=planned.shape[0] * planned.shape[1],
        log_every=planned.log_every,
        max_episodes=planned.budget.amount if planned.budget.kind == "episodes" else None,
        solved_at=planned.env.solved_at,
    )


def write_learners(folder: run_folder.RunFolder, planned: Plan, trained: Trained) -> tuple[RunState, Best | None]:
    """Write the last and, if there were evaluations, the best learners [runs, ...] to params/; return both."""
    runs = trained.program.runs
    state, best = jax.tree.map(lambda leaf: leaf[:runs], (trained.chunk.state, trained.chunk.best))
    facts = {"algorithm": planned.agent.name, "runs": runs}
    folder.write_params("last", named_leaves(without_replay(state.learner)), facts)
    if not planned.eval_every:
        return state, None
    folder.write_params("best", named_leaves(best.learner), {**facts, "eval_return": np.asarray(best.eval_return)})
    return state, best


def write_pictures(folder: run_folder.RunFolder, planned: Plan, recorder: Recorder) -> None:
    """Draw learning_curve.png from metrics.csv, and NAME_histogram.png of every tally, as far as there is anything."""
    if not (folder.path / "metrics.csv").exists():
        return
    title = f"{planned.agent.name} on {planned.env.name}, {planned.preset}"
    figure = plots.learning_curve(pd.read_csv(folder.path / "metrics.csv"), title, planned.env.solved_at)
    folder.write_picture("learning_curve.png", figure)
    for name, tally in recorder.tallies.items():
        folder.write_picture(f"{name}_histogram.png", plots.histogram(tally.counts, tally.width, title, name))


def summarize(
    planned: Plan, recorder: Recorder, trained: Trained | None, local: list[jax.Device], stopped_by: int | None
) -> dict[str, Any]:
    """What summary.json holds. Returns are means of the last 100 episodes, null where a run had fewer."""
    runs = recorder.runs
    failed = [] if trained is None else failed_runs(trained.chunk.state.learner, planned.seeds)
    env_steps = sum(run.env_steps for run in runs)
    seconds = trained.run_seconds if trained else 0.0
    returns = np.array([run.return_100 for run in runs])
    return {
        "algorithm": planned.agent.name,
        "env": planned.env.name,
        "observation_type": planned.observation_type,
        "preset": planned.preset,
        "device": local[0].device_kind,
        "devices": min(len(local), planned.seeds),
        "seeds": planned.seeds,
        "runs": len(runs),
        "runs_ok": len(runs) - len(failed),
        "failed_runs": failed,
        "stopped_by": signal.Signals(stopped_by).name if stopped_by else None,
        "env_steps": env_steps,
        "episodes": sum(run.episodes for run in runs),
        "compile_seconds": trained.program.compile_seconds if trained else 0.0,
        "run_seconds": seconds,
        "env_steps_per_second": env_steps / seconds if seconds else 0.0,
        "final_return_mean": float(np.mean(returns)),
        "final_return_per_run": returns,
        "solved_at": planned.env.solved_at,
        "solved_runs": sum(run.solved_at_steps is not None for run in runs),
        "env_steps_to_solve_per_run": [run.solved_at_steps for run in runs],
        **{f"{name}_histogram": tally.as_dict() for name, tally in recorder.tallies.items()},
        "versions": versions(),
    }


def failed_runs(learner: PyTree, runs: int) -> list[int]:
    """Runs whose learner (without replay) holds a NaN or an infinity."""
    leaves = [np.asarray(leaf)[:runs].reshape(runs, -1) for leaf in jax.tree.leaves(without_replay(learner))]
    finite = np.all([np.isfinite(leaf).all(axis=1) for leaf in leaves], axis=0)
    return np.nonzero(~finite)[0].tolist()


def named_leaves(tree: PyTree) -> dict[str, np.ndarray]:
    """Path -> array, as in `pi_params/kernel_0`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf) for path, leaf in leaves}


class StopSignals(AbstractContextManager["StopSignals"]):
    """While entered, SIGINT and SIGTERM are noted instead of ending the process; a second one ends it at once.

    Signals reach Python only in the main thread; elsewhere nothing is changed.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def is_stopping(self) -> bool:
        """Whether a signal came."""
        return self.received is not None

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())


def agent_of(algorithm: str | Agent) -> Agent:
    """An Agent by name, or as given. Raises InputError for an unknown name."""
    if isinstance(algorithm, Agent):
        return algorithm
    if algorithm not in AGENTS:
        raise InputError(f"unknown algorithm {algorithm!r}; use one of {', '.join(AGENTS)}")
    return AGENTS[algorithm]


def check_observation_type(observation_type: str) -> None:
    """Raise InputError unless the observation type is one there is."""
    if observation_type == "img":
        raise InputError("--observation_type: img is not available yet; use default")
    if observation_type != "default":
        raise InputError(f"--observation_type: {observation_type!r} is not allowed; use default")


def check_counts(seeds: Any, seed: Any, devices: Any) -> None:
    """Raise InputError unless seeds are whole numbers that 32 bits hold, and there is a number of devices, if any."""
    check_whole("seeds", seeds, at_least=1)
    check_whole("seed", seed, at_least=0, at_most=2**32 - seeds)
    if devices is not None:
        check_whole("devices", devices, at_least=1)


def check_logging(log_every: Any, eval_every: Any, eval_episodes: Any, episodes_log: Any) -> None:
    """Raise InputError unless what is logged, and how often, makes sense together."""
    for name, value in (("log_every", log_every), ("eval_every", eval_every)):
        if value is not None:
            check_whole(name, value, at_least=1)
    check_whole("eval_episodes", eval_episodes, at_least=1)
    if eval_every is not None and log_every is not None and log_every > eval_every:
        raise InputError(
            f"--log_every: {log_every} is more than --eval_every {eval_every}; rows would lose evaluations"
        )
    if episodes_log not in ("auto", "on", "off"):
        raise InputError(f"--episodes_log: {episodes_log!r} is not allowed; use auto, on or off")


def check_extent(budget: Budget, shape: tuple[int, int], env: Env) -> None:
    """Raise InputError where env steps would pass int32, within one iteration or over the budget."""
    steps = shape[0] * shape[1]
    if steps > MAX_ENV_STEPS:
        raise InputError(
            f"--actors: {shape[1]} with {shape[0]} steps each are more than {MAX_ENV_STEPS} env steps per iteration"
        )
    if budget.kind != "episodes" and iterations_of(budget, shape, env.max_episode_steps) * steps > MAX_ENV_STEPS:
        raise InputError(f"--{budget.kind}: {budget.amount} is more than {MAX_ENV_STEPS} env steps per run")


def check_whole(name: str, value: Any, *, at_least: int, at_most: int = MAX_INT) -> None:
    """Raise InputError unless value is a whole number within bounds."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or not at_least <= value <= at_most:
        limits = f"at least {at_least} and at most {at_most}"
        raise InputError(f"--{name}: {value!r} is not allowed; it takes a whole number {limits}")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
