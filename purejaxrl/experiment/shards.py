"""Shards: contiguous slices of one program's runs, which any process can train from a description in plain data.

    description = describe(plan, group, ...)           once per program, by the process that was asked for the sweep
    shard = {**description, **slice_of(batch)}
    trained = train_shard(shard, objects)              by any worker, twice if need be, with the same result

A run's numbers depend neither on the shard it is in nor on the worker. On CPU they depend on how many runs a device
computes side by side, and on whether a program is compiled for one device or several: the description says both.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import socket
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxrl.components.hyperparameters import field_specs, without_budget
from purejaxrl.errors import InputError, PurejaxrlError
from purejaxrl.experiment.kept_programs import find_kept, keep, memory_limit
from purejaxrl.experiment.plan import Plan, Training, is_built_in, versions
from purejaxrl.experiment.plan_from_config import replan
from purejaxrl.experiment.states import carry_arrays, metrics_arrays, metrics_state, on_host, resume_point
from purejaxrl.experiment.tracker import find_diverged, metrics_spec
from purejaxrl.storage.checkpoint import named_leaves
from purejaxrl.storage.files import plain
from purejaxrl.storage.locking import one_at_a_time
from purejaxrl.training import metrics
from purejaxrl.training.batches import Batch, take
from purejaxrl.training.compilation import Program, StopRequestedError, compile_fitting
from purejaxrl.training.compilation_cache import private_folder, use_compilation_cache
from purejaxrl.training.devices import ask_for_cpu_devices, claim_gpu, local_devices, use_cpu_only
from purejaxrl.training.evaluation import Best
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.metrics import MetricsState, Rows, RunStats, Table, Tally
from purejaxrl.training.runner import CHUNK_SECONDS, Chunk, fit, next_length
from purejaxrl.types import Learner, RunState

MAX_PREPARED = 16
# Characters of an error's message that are shown from each of its ends.
MAX_ERROR = 200
# What a worker has made ready of a sweep's programs, by their tokens; the last used comes last.
_PREPARED: OrderedDict[str, Prepared] = OrderedDict()
_PREPARING = threading.Lock()


class ShardError(RuntimeError):
    """What went wrong on a worker, as text: not every exception can be pickled.

    Its arguments are a message of one line, and the worker's traceback.
    """

    @property
    def traceback(self) -> str:
        """The worker's traceback."""
        return str(self.args[1])


class Shard(NamedTuple):
    """Which runs a shard holds: a slice of all runs that share a program.

    Attributes:
        group: Index of the group of settings, which share a program.
        first: Index of its first run within the group.
        stop: Index after its last one.
    """

    group: int
    first: int
    stop: int

    @property
    def name(self) -> str:
        """Name of its file."""
        return f"{self.group:05d}-{self.first:08d}-{self.stop:08d}"


def shard_of(name: str) -> Shard | None:
    """Return the shard of a file.

    Args:
        name: Name of the file.

    Returns:
        The shard, None where the name is that of no shard.
    """
    parts = name.split("-")
    return Shard(*map(int, parts)) if len(parts) == 3 and all(map(str.isdecimal, parts)) else None


class Leg(NamedTuple):
    """A part of a training, from one iteration to another.

    Attributes:
        start: Its first iteration. What came before has been recorded.
        end: Iteration before which it ends, None for the end of the budget.
        returns_states: Whether states are returned, from which runs can go on.
        arrays: States of the runs at its start by name, as `states` names them; None where they train once more, from
            the beginning.
    """

    start: int
    end: int | None
    returns_states: bool
    arrays: dict[str, np.ndarray] | None = None

    def take(self, which: slice) -> Leg:
        """Select some of the runs.

        Args:
            which: Indices of the runs.

        Returns:
            The leg of these runs.
        """
        arrays = None if self.arrays is None else {name: values[which] for name, values in self.arrays.items()}
        return self._replace(arrays=arrays)


WHOLE = Leg(0, None, returns_states=False)


class Watch(NamedTuple):
    """What a thread of the client's own process asks and tells while it trains, as `train_shard` takes them."""

    should_stop: Callable[[], bool]
    report: Callable[[np.ndarray, RunStats], None] | None


class Prepared(NamedTuple):
    """A program that a worker has at hand.

    Attributes:
        plan: A Plan of one setting, that of any of the runs.
        config: Its Config, as the program was compiled for it.
        program: The program.
    """

    plan: Plan
    config: Any
    program: Program

    @property
    def setting(self) -> Training:
        """The only setting of the Plan."""
        return self.plan.settings[0]


class Trained(NamedTuple):
    """Runs that have been trained to their end, or to that of a leg, on the host.

    Attributes:
        runs: Numbers of the runs, [runs].
        episodes: Their rows of episodes.csv.
        metrics: Their rows of metrics.csv.
        stats: Their statistics.
        params: Their last params by name, [runs, ...].
        best: Their best params by name, None where there are no evaluations.
        best_return: The evaluations of these, [runs]; None likewise.
        diverged: Numbers of the runs that have diverged.
        tallies: Histograms by name.
        device: Kind of the device.
        worker: The host and the process that trained them.
        seconds: How long training took.
        compile_seconds: How long compilation took before it.
        closing: Rows of metrics.csv for the intervals that are open after a leg, in case the runs do not go on;
            None where nothing can follow, and `metrics` has them.
        states: States from which the runs go on by name, as `states` names them; None where that was not asked for.
    """

    runs: np.ndarray
    episodes: Table
    metrics: Table
    stats: RunStats
    params: dict[str, np.ndarray]
    best: dict[str, np.ndarray] | None
    best_return: np.ndarray | None
    diverged: np.ndarray
    tallies: dict[str, Tally]
    device: str
    worker: str
    seconds: float
    compile_seconds: float
    closing: Table | None = None
    states: dict[str, np.ndarray] | None = None


def describe(plan: Plan, setting: Training, token: str, width: int, devices: int) -> dict[str, Any]:
    """Describe a program of a sweep as plain data.

    Args:
        plan: What is trained.
        setting: The first of the settings that share the program.
        token: Text that no other program of any sweep has.
        width: Number of runs that the program trains side by side.
        devices: Number of devices that it is compiled for.

    Returns:
        The description; with `slice_of` some runs, `train_shard` trains them.
    """
    return {
        "versions": versions(),
        "token": token,
        "config": json.dumps(plain(plan._replace(settings=(setting._replace(values={}),), is_sweep=False).as_dict())),
        "debug": plan.options.debug,
        "width": width,
        "devices": devices,
    }


def slice_of(batch: Batch) -> dict[str, Any]:
    """Describe runs as plain data.

    Args:
        batch: The runs.

    Returns:
        Their numbers, seeds, and real-valued hyperparameters by name.
    """
    leaves = {name: getattr(batch.configs, name) for name, spec in field_specs(batch.configs).items() if spec.is_leaf}
    leaves = {name: values for name, values in leaves.items() if values is not None}
    return {"runs": batch.runs, "seeds": batch.seeds, "leaves": leaves}


def train_shard(
    shard: Mapping[str, Any],
    objects: Mapping[str, Any],
    should_stop: Callable[[], bool] = bool,
    report: Callable[[np.ndarray, RunStats], None] | None = None,
) -> Trained:
    """Train the runs of a shard to their end.

    Args:
        shard: The description: `describe` and `slice_of` and, for a part of the training, the fields of a Leg as
            `leg`.
        objects: The user's own agent, networks and environment, as `plan_from_config.objects_of` returns them.
        should_stop: Whether to stop.
        report: Called with numbers and statistics of runs after every chunk; None for no reports.

    Returns:
        The trained runs.

    Raises:
        InputError: If this process has other versions than the one that has made the description.
        StopRequestedError: If asked to stop.
        ShardError: If anything else goes wrong that is not an error of the package's own.
    """
    try:
        _check_versions(shard["versions"])
        content = json.loads(shard["config"])
        _prepare_process(content["device"], shard["devices"])
        with standard_jax():
            prepared, compile_seconds = _prepare(shard, content, objects, should_stop)
            return _train(prepared, shard, compile_seconds, Watch(should_stop, report))
    except (PurejaxrlError, StopRequestedError):
        raise
    except Exception as error:
        words = " ".join(str(error).split())
        # JAX says first where something was raised, and at the end what.
        shown = words if len(words) <= 2 * MAX_ERROR else f"{words[:MAX_ERROR]} ... {words[-MAX_ERROR:]}"
        line = f"{type(error).__name__}: {shown}"
        # Only text leaves the worker: the exception's own class may not be known elsewhere, or not survive pickling.
        raise ShardError(f"{line} (on {_this_worker()})", traceback.format_exc()) from None


def _this_worker() -> str:
    """Name this process and its host."""
    return f"{socket.gethostname()}, process {os.getpid()}"


def _check_versions(wanted: Mapping[str, str]) -> None:
    """Check that this process has the versions of the process that has asked for the sweep."""
    found = versions()
    for name, version in wanted.items():
        one, other = version, found.get(name)
        if name == "python":
            # Patch releases compute and pickle alike.
            one, other = (text.rpartition(".")[0] for text in (version, platform.python_version()))
        if one != other:
            raise InputError(
                f"--cluster: the worker on {_this_worker()} has {name} {other}, and {one} is needed, "
                "as in the process that has started the sweep"
            )


def _prepare_process(device: str, devices: int) -> None:
    """Configure JAX, unless this process has started it already."""
    if device == "cpu":
        use_cpu_only()
    else:
        claim_gpu()
    ask_for_cpu_devices(at_least=devices)
    use_compilation_cache()


def _prepare(
    shard: Mapping[str, Any], content: dict[str, Any], objects: Mapping[str, Any], should_stop: Callable[[], bool]
) -> tuple[Prepared, float]:
    """Make the program of a shard ready, and return how long its compilation took."""
    token = shard["token"]
    with _PREPARING, ExitStack() as turn:
        if token in _PREPARED:
            _PREPARED.move_to_end(token)
            return _PREPARED[token], 0.0
        started = time.perf_counter()
        plan = replan(content, **objects, debug=shard["debug"])
        if private_folder() is not None:
            # The first worker of a machine compiles with all of its cores, and the others read what it has kept.
            turn.enter_context(one_at_a_time("compiling"))
        _PREPARED[token] = _find_or_compile(plan, shard, should_stop)
        while len(_PREPARED) > MAX_PREPARED:
            _PREPARED.popitem(last=False)
        return _PREPARED[token], time.perf_counter() - started


def _find_or_compile(plan: Plan, shard: Mapping[str, Any], should_stop: Callable[[], bool]) -> Prepared:
    """Make the program of a shard, or read the one that another process has kept."""
    setting, width = plan.settings[0], shard["width"]
    # Programs of built-in agents are the same for all budgets.
    config = without_budget(setting.config) if is_built_in(plan.agent) else setting.config
    local = local_devices(plan.options.device)[: shard["devices"]]
    limit = memory_limit(plan, local)
    kept = find_kept(plan, setting, config, width, local, limit)
    program = kept.program
    if program is None:
        program = compile_fitting(
            plan.agent,
            setting.env,
            config,
            width,
            setting.budget,
            local,
            memory_limit=limit,
            eval_episodes=plan.eval_episodes,
            should_stop=should_stop,
            is_checked=plan.options.debug,
            tag=kept.tag,
        )
    return Prepared(plan, config, keep(kept, program, width))


def _train(prepared: Prepared, shard: Mapping[str, Any], compile_seconds: float, watch: Watch) -> Trained:
    """Train the runs of a shard, as many side by side as its program takes."""
    started = time.perf_counter()
    configs = dataclasses.replace(prepared.config, **shard["leaves"])
    batch, leg = Batch(shard["runs"], configs, shard["seeds"]), Leg(**shard["leg"]) if "leg" in shard else WHOLE
    parts, length, width = [], 1, prepared.program.width
    for first in range(0, len(batch.runs), width):
        which = slice(first, first + width)
        part, length = _train_batch(prepared, take(batch, which), leg.take(which), length, watch)
        parts.append(part)
    seconds = time.perf_counter() - started
    return join(parts)._replace(seconds=seconds, compile_seconds=compile_seconds)


def places_of(runs: int, width: int, devices: int) -> np.ndarray:
    """Choose places for runs in a program that is wider, so that all devices have equally many of them.

    Args:
        runs: Number of runs.
        width: Width of the program.
        devices: Number of its devices, each of which computes equally many consecutive places.

    Returns:
        The places, [runs].
    """
    each = -(-runs // devices)
    return np.arange(runs) // each * (width // devices) + np.arange(runs) % each


class _Advanced(NamedTuple):
    """Runs that have come to the end of a leg.

    Attributes:
        chunk: Their last chunk.
        state: Their metrics.
        stats: Their statistics as if nothing followed.
        rows: Their rows.
        closing: Their last rows if nothing follows, None where nothing can follow.
        length: A good length for the first chunk of other runs.
    """

    chunk: Chunk
    state: MetricsState
    stats: RunStats
    rows: list[Rows]
    closing: Table | None
    length: int


def _advance(
    prepared: Prepared,
    batch: Batch,
    places: np.ndarray,
    leg: Leg,
    length: int,
    watch: Watch,
) -> _Advanced:
    """Train runs, which have their places in the program, side by side through a leg."""
    program, spec = prepared.program, metrics_spec(prepared.setting, batch)
    # Runs fill the other places, too, where they do not train.
    filled = np.zeros(program.width, np.int64)
    filled[places] = np.arange(len(places))
    is_active = np.zeros(program.width, bool)
    is_active[places] = True
    state, point, rows = metrics.init(spec), None, []
    if leg.arrays is not None:
        state = metrics_state(leg.arrays)
        arrays = {name: leaf[filled] for name, leaf in leg.arrays.items()}
        point = resume_point(program.carry, leg.start, arrays)
    wide = take(batch, filled)
    started = time.perf_counter()
    for chunk in fit(
        program,
        wide.configs,
        wide.seeds,
        eval_every=prepared.plan.options.eval_every,
        resume_point=point,
        first_length=length,
        end=leg.end,
        is_active=is_active,
    ):
        if watch.should_stop():
            raise StopRequestedError
        log: Any = jax.tree.map(lambda leaf: leaf[:, places], chunk.log)
        eval_return = None if chunk.eval_return is None else chunk.eval_return[places]
        state, new = metrics.record(spec, state, chunk.start, log, eval_return, chunk.has_ended[places])
        rows.append(new)
        if watch.report is not None:
            watch.report(batch.runs, metrics.stats(state))
        length = next_length(max(length, chunk.length), time.perf_counter() - started, CHUNK_SECONDS)
        started = time.perf_counter()
    final, is_over = chunk.final, np.ones(len(places), bool) if chunk.is_last else None
    closed, last = metrics.close(spec, state, None if final is None else final.eval_return[places], is_over)
    if not chunk.is_last:
        return _Advanced(chunk, state, metrics.stats(closed), rows, last.metrics, length)
    # The budget has ended, or every run by itself.
    return _Advanced(chunk, closed, metrics.stats(closed), [*rows, last], None, length)


def _train_batch(prepared: Prepared, batch: Batch, leg: Leg, length: int, watch: Watch) -> tuple[Trained, int]:
    """Train runs side by side, and return a good length for the first chunk of those that follow."""
    program = prepared.program
    places = places_of(len(batch.runs), program.width, program.mesh.size)
    if leg.start and leg.arrays is None:
        earlier = _advance(prepared, batch, places, Leg(0, leg.start, returns_states=True), length, watch)
        leg, length = leg._replace(arrays=_states_after(earlier.chunk, earlier.state, places)), earlier.length
    chunk, state, stats, rows, closing, length = _advance(prepared, batch, places, leg, length, watch)
    # Selected on the host: JAX would dispatch an operation for every array.
    learner = jax.tree.map(lambda leaf: np.asarray(leaf)[places], chunk.state.learner._replace(memory=None))
    best = chunk.best if chunk.final is None else chunk.final.best
    return Trained(
        batch.runs,
        concatenate([part.episodes for part in rows]),
        concatenate([part.metrics for part in rows]),
        stats,
        named_leaves(learner.params),
        None if best is None else on_host(named_leaves(best.params), places),
        None if best is None else np.asarray(best.eval_return)[places],
        batch.runs[find_diverged(learner, len(places))],
        state.tallies,
        program.mesh.devices.flat[0].device_kind,
        _this_worker(),
        0.0,
        0.0,
        closing,
        _states_after(chunk, state, places) if leg.returns_states else None,
    ), length


def _states_after(chunk: Chunk, state: MetricsState, places: np.ndarray) -> dict[str, np.ndarray]:
    """Copy the states with which runs go on to the host."""
    return on_host(carry_arrays(chunk.state, chunk.best), places) | metrics_arrays(state)


def concatenate(tables: list[Table]) -> Table:
    """Join tables of the same columns; those of no rows may have fewer.

    Args:
        tables: Values by column, at least one table.

    Returns:
        The rows of all of them, in order.
    """
    whole = max(tables, key=len)
    return {name: np.concatenate([table[name] for table in tables if name in table]) for name in whole}


def join(parts: list[Trained]) -> Trained:
    """Join trained runs of one program, whose rows come in the order of one machine: by env steps, then by run.

    Args:
        parts: The trained runs.

    Returns:
        All of them, by number.
    """
    parts = sorted(parts, key=lambda part: part.runs[0])
    episodes = concatenate([part.episodes for part in parts])
    rows = concatenate([part.metrics for part in parts])
    tallies: dict[str, Tally] = {}
    for part in parts:
        for name, tally in part.tallies.items():
            tallies[name] = metrics.merge_tallies(tallies.get(name, metrics.EMPTY_TALLY), tally)
    closing = [part.closing for part in parts if part.closing is not None]
    states = [part.states for part in parts if part.states is not None]
    best = [part.best for part in parts if part.best is not None]
    returns = [part.best_return for part in parts if part.best_return is not None]
    return parts[0]._replace(
        runs=np.concatenate([part.runs for part in parts]),
        episodes=sort_rows(episodes, ("run", "env_steps")),
        metrics=sort_rows(rows, ("run", "iteration")),
        stats=RunStats(*(np.concatenate(values) for values in zip(*(part.stats for part in parts), strict=True))),
        params=concatenate([part.params for part in parts]),
        best=concatenate(best) if best else None,
        best_return=np.concatenate(returns) if returns else None,
        diverged=np.concatenate([part.diverged for part in parts]),
        tallies=tallies,
        closing=sort_rows(concatenate(closing), ("run", "iteration")) if closing else None,
        states=concatenate(states) if states else None,
    )


def sort_rows(table: Table, keys: tuple[str, ...]) -> Table:
    """Sort the rows of a table.

    Args:
        table: Values by column.
        keys: The columns to sort by, the last of which counts most.

    Returns:
        The sorted table.
    """
    order = np.lexsort([table[key] for key in keys])
    return {name: values[order] for name, values in table.items()}


def as_chunk(trained: Trained) -> Chunk:
    """Convert runs that have been trained elsewhere to the last chunk of their batch.

    Args:
        trained: The runs.

    Returns:
        A Chunk without logs, whose state holds nothing but params.
    """
    state: Any = RunState(Learner(trained.params), None, None, None, None, None)  # type: ignore[arg-type]
    best: Any = None if trained.best is None else Best(trained.best, trained.best_return)  # type: ignore[arg-type]
    return Chunk(0, 0, None, None, trained.stats.is_over, True, state, best)


# A trained shard as arrays by name and what JSON can hold, which is how it waits in the run folder.


def pack(trained: Trained) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Convert a trained shard to what a file can hold.

    Args:
        trained: The shard, whose states are left out.

    Returns:
        Arrays by name, and what JSON can hold.
    """
    tables: dict[str, dict[str, np.ndarray] | None] = {
        "episodes": trained.episodes,
        "metrics": trained.metrics,
        "stats": trained.stats._asdict(),
        "params": trained.params,
        "best": trained.best,
        "closing": trained.closing,
    }
    arrays = {"runs": trained.runs, "diverged": trained.diverged}
    if trained.best_return is not None:
        arrays["best_return"] = trained.best_return
    for kind, table in tables.items():
        arrays |= {f"{kind}/{name}": np.ascontiguousarray(values) for name, values in (table or {}).items()}
    facts = {name: getattr(trained, name) for name in ("device", "worker", "seconds", "compile_seconds")}
    # Files do not keep the order of names.
    facts["columns"] = {kind: list(table) for kind, table in tables.items() if table is not None}
    return arrays, facts | {"tallies": metrics.pack_tallies(trained.tallies)}


def unpack(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Trained:
    """Restore a trained shard from what `pack` returned.

    Args:
        arrays: Arrays by name.
        facts: What JSON can hold.

    Returns:
        The shard.

    Raises:
        KeyError: If something is missing.
    """
    tables = {kind: {name: arrays[f"{kind}/{name}"] for name in columns} for kind, columns in facts["columns"].items()}
    return Trained(
        runs=arrays["runs"],
        episodes=tables["episodes"],
        metrics=tables["metrics"],
        stats=RunStats(**tables["stats"]),
        params=tables["params"],
        best=tables.get("best"),
        best_return=arrays.get("best_return"),
        diverged=arrays["diverged"],
        tallies=metrics.unpack_tallies(facts["tallies"]),
        device=facts["device"],
        worker=facts["worker"],
        seconds=facts["seconds"],
        compile_seconds=facts["compile_seconds"],
        closing=tables.get("closing"),
    )
