"""Running a search: rung after rung of shards, what is recorded of them, and the confirmation of the winner.

Every shard that comes in is on the disk at once, and what trains next is a pure function of what has come in. So a
search that was interrupted is repeated from its shards, and trains only what is missing.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxrl.errors import ClusterError, DivergedError, InputError, log
from purejaxrl.experiment import checkpointing, presets
from purejaxrl.experiment.callbacks import FileWriter, Logging
from purejaxrl.experiment.cluster import (
    ACCELERATOR_RUNS,
    Saved,
    Work,
    Workers,
    train_shards,
)
from purejaxrl.experiment.kept_programs import memory_limit
from purejaxrl.experiment.labels import column_name, columns_of, label_of, name_runs
from purejaxrl.experiment.loggers import Listeners, Logger
from purejaxrl.experiment.options import FOR_RESUMING
from purejaxrl.experiment.plan import Plan, Training, recorded
from purejaxrl.experiment.plan_from_config import objects_of
from purejaxrl.experiment.progress import Reporter
from purejaxrl.experiment.run import (
    Outcome,
    WriteResults,
    devices_at_hand,
    plan_resumption,
    run_experiment,
)
from purejaxrl.experiment.schema import SCHEMA_VERSION
from purejaxrl.experiment.search import (
    Rung,
    RungResult,
    Score,
    SearchSpec,
    count_env_steps,
    evaluate,
    find_winner,
    keep_in_time,
    next_rung,
    plan_rungs,
    ranking,
    score,
)
from purejaxrl.experiment.search_progress import SafeSearchReporter, SearchReporter, Standing
from purejaxrl.experiment.settings import Range
from purejaxrl.experiment.shards import Leg, Shard, Trained, concatenate, describe, join, pack, sort_rows, unpack
from purejaxrl.experiment.tracker import BatchPosition, RunTracker, summarize
from purejaxrl.experiment.tune_plan import TunePlan, plan_confirmation
from purejaxrl.storage import run_folder
from purejaxrl.storage.csv_files import Table
from purejaxrl.storage.files import plain, read_json
from purejaxrl.storage.run_folder import CONFIRMATION, RunFolder
from purejaxrl.training import devices, metrics
from purejaxrl.training.batches import Batch, batch_of, group_settings, take
from purejaxrl.training.compilation import plan_layout, shapes_of_runs
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.metrics import Rows, RunStats
from purejaxrl.training.signals import StopSignals

# Runs that a program on CPU trains side by side. It is the same for all rungs, the confirmation, and every other
# search, so that one program trains them all; wider ones are no faster there.
WIDTH = 64
# Share of the memory that may hold states of runs that wait; beyond it runs train again from the beginning.
STATES_SHARE = 0.25
# Tables and figures, the import of what they need, and the end of the process; and for each setting.
END_SECONDS, END_SECONDS_PER_SETTING = 3.0, 0.002
# A rung that takes no longer says nothing about how fast training is.
LEAST_SECONDS = 3.0


class Deadline(NamedTuple):
    """When a search is to end.

    Attributes:
        at: The time, as `time.perf_counter` has it.
        rate: Env steps per second that training has taken so far.
    """

    at: float
    rate: float

    def env_steps_left(self, tune: TunePlan) -> float:
        """Compute how many env steps there is time for until the search itself has to end.

        Args:
            tune: The search.

        Returns:
            The number of env steps, which may be negative.
        """
        spec = tune.spec
        seconds = self.at - time.perf_counter() - end_seconds(spec.settings)
        return seconds * self.rate - 2 * tune.search.confirm_seeds * spec.env_steps


def end_seconds(settings: int) -> float:
    """Estimate how long it takes to write tables and figures.

    Args:
        settings: Number of settings.

    Returns:
        The number of seconds.
    """
    return END_SECONDS + END_SECONDS_PER_SETTING * settings


class Group(NamedTuple):
    """Settings that share a program.

    Attributes:
        setting: The first of them.
        batch: All runs of all of them.
        width: Number of runs that a worker trains side by side.
        description: What `train_shard` needs to know besides runs and legs.
    """

    setting: Training
    batch: Batch
    width: int
    description: dict[str, Any]


class Arrival(NamedTuple):
    """Runs that have come to the end of a rung.

    Attributes:
        trained: What has become of them, without states.
        saved: Their states, None where there are none.
        is_new: Whether they have been trained now, rather than read from the run folder.
    """

    trained: Trained
    saved: Saved | None
    is_new: bool


class Record(NamedTuple):
    """A row of tune.csv besides the hyperparameters, see `tune_table`."""

    setting: int
    rung: int
    budget: int
    seeds: int
    env_steps: int
    score: float
    low: float
    high: float
    goes_on: int


class Setup(NamedTuple):
    """What the rungs of a search are trained with.

    Attributes:
        tune: The search.
        groups: Its runs by programs.
        folder: The run folder.
        workers: What gives work to workers.
        is_here: Whether workers are threads of this process.
        returns_states: Whether states are kept from which runs go on.
        should_stop: Whether to stop.
        report: Called with numbers and statistics of runs while they train, (runs, RunStats).
        deadline: When the search is to end, None for no limit.
    """

    tune: TunePlan
    groups: list[Group]
    folder: RunFolder
    workers: Workers
    is_here: bool
    returns_states: bool
    should_stop: Callable[[], bool]
    report: Callable[[np.ndarray, RunStats], None]
    deadline: Deadline | None = None


class Searched(NamedTuple):
    """What the rungs of a search have led to.

    Attributes:
        results: The rungs that are complete.
        trained: All that has come in, without rows.
    """

    results: list[RungResult]
    trained: list[Trained]


class Output(NamedTuple):
    """Where a search is recorded and shown."""

    tracker: RunTracker
    writer: FileWriter
    logging: Logging
    reporter: SearchReporter


@standard_jax()
def run_tune(
    tune: TunePlan,
    folder: RunFolder,
    write_results: WriteResults,
    *,
    reporter: SearchReporter,
    confirmation_reporter: Callable[[Plan], Reporter | None],
    loggers: Sequence[Logger] = (),
    executor: Workers | None = None,
    deadline: Deadline | None = None,
) -> Outcome:
    """Search, judge the winner on fresh seeds, and write the run folder; what is there of the same search is used.

    A signal stops it, and everything that has come in is kept.

    Args:
        tune: What to search.
        folder: The run folder, locked.
        write_results: Writes tables and figures, once everything else is on the disk.
        reporter: Shows the progress of the search.
        confirmation_reporter: Makes the Reporter of the training that judges the winner, or None.
        loggers: Additional destinations for metrics.
        executor: An Executor whose workers train, None to train in this process.
        deadline: When the search is to end, None for no limit.

    Returns:
        The outcome of the search.

    Raises:
        ResourceError: If disk or memory do not suffice.
        DivergedError: If a run diverges, with `fail_on_nan` or `debug`.
        ClusterError: If the workers of the Executor are gone, or could not train some runs.
    """
    plan, reporter = tune.plan, SafeSearchReporter(reporter)
    local = devices_at_hand(plan, executor)
    used = min(len(local), plan.runs)
    config = plain({**tune.as_dict(), "devices": used})
    if run_folder.has_ended(folder.path):
        summary = read_json(folder.path / "summary.json")
        # The process may have ended before these were written, or shards removed.
        write_results(folder, config, summary)
        _remove_shards(folder)
        return Outcome(folder.path, config, summary, plan)
    groups = group_runs(tune, local, is_here=executor is None)
    returns_states = are_states_kept(plan, tune.spec, groups, local)
    log("run folder: %s", folder.path)
    log("devices: %s, %d of %d used", local[0].device_kind, used, len(local))
    log("states of runs that wait: %s", "kept" if returns_states else "too large to be kept")
    tracker, signals = RunTracker(plan, used, local[0].device_kind), StopSignals()
    output = Output(tracker, FileWriter(folder, {}), Logging(folder, Listeners(loggers)), reporter)
    live = RunStats(*(values.copy() for values in tracker.stats))
    with signals, ExitStack() as closing:
        closing.callback(reporter.close)
        closing.callback(output.logging.on_close)
        for callback in (output.writer, output.logging):
            callback.on_start(tracker, config)
        reporter.start()
        workers = executor or closing.enter_context(ThreadPoolExecutor(1))
        report = partial(_report, output, live)
        setup = Setup(tune, groups, folder, workers, executor is None, returns_states, signals.is_stopping, report)
        setup = setup._replace(deadline=deadline)
        searched = search(setup, output)
        write_params(folder, tracker, groups, searched.trained)
        reporter.close()
        stopped_by, found_by = signals.received, {}
        if next_rung(tune.spec, searched.results) is None:
            winner, best = find_winner(tune.spec, searched.results)
            found_by = _found_by(tune, winner, best)
            folder.write_json("best.json", best_content(tune, winner, found_by))
            if not tune.search.confirm_seeds:
                stopped_by = None
            elif stopped_by is None:
                outcome = confirm(tune, winner, folder, write_results, confirmation_reporter, executor, local, signals)
                stopped_by = outcome.stopped_by
                found_by["confirmed"] = None if stopped_by else judge(tune, outcome)
                folder.write_json("best.json", best_content(tune, winner, found_by))
        summary = _summary(tracker, tune.spec, len(searched.results), stopped_by, found_by)
        output.writer.on_end(summary)
        output.logging.on_end(summary)
        write_results(folder, config, summary)
        if stopped_by is None:
            _remove_shards(folder)
    return Outcome(folder.path, config, summary, plan, None, stopped_by, tracker.stats)


def _report(output: Output, live: RunStats, runs: np.ndarray, stats: RunStats) -> None:
    """Show the progress of runs that are training."""
    for whole, part in zip(live, stats, strict=True):
        whole[runs] = part
    output.reporter.advance(live, output.tracker.seconds())


def search(setup: Setup, output: Output) -> Searched:
    """Train rung after rung, and write what each has led to, until the search has ended or is to stop.

    Args:
        setup: What the rungs are trained with.
        output: Where they are recorded and shown.

    Returns:
        What they have led to.

    Raises:
        DivergedError: If a run diverges, with `fail_on_nan`.
        ClusterError: If some runs could not be trained.
    """
    plan, spec, tracker = setup.tune.plan, setup.tune.spec, output.tracker
    started = time.perf_counter()
    rungs, searched, arrivals = len(plan_rungs(spec)), Searched([], []), list[Arrival]()
    records: list[Record] = []
    while (rung := next_rung(spec, searched.results)) is not None:
        output.reporter.begin_rung(_standing(setup.tune, rungs, rung, searched.results))
        runs, waiting = runs_of(plan, rung), _closing(arrivals)
        before, arrivals = arrivals, []
        for arrival in train_rung(setup, rung, searched.results, before):
            arrivals.append(arrival)
            searched.trained.append(arrival.trained._replace(episodes={}, metrics={}, closing=None))
            _add(tracker, arrival)
            setup.report(arrival.trained.runs, arrival.trained.stats)
        # Params of several programs do not have the same shapes.
        parts = [arrival.trained._replace(params={}, best=None, best_return=None) for arrival in arrivals]
        whole = join(parts) if parts else None
        if whole is None or len(whole.runs) < len(runs):
            # Runs that were under way are closed as if they did not go on.
            rest = None if waiting is None else _select(waiting, np.isin(waiting["run"], runs))
            _write_rows(output, _rows(whole, runs, rest))
            break
        _count(tracker, whole)
        stats = RunStats(*(values[np.argsort(whole.runs)] for values in whole.stats))
        searched.results.append(evaluate(spec, rung, stats, np.isin(runs, whole.diverged)))
        setup = _decide(setup, searched.results, time.perf_counter() - started)
        spec, started = setup.tune.spec, time.perf_counter()
        following = next_rung(spec, searched.results)
        ending = runs if following is None else np.setdiff1d(runs, runs_of(plan, following))
        _write_rows(output, _rows(whole, ending, None))
        records += _records(setup, searched.results, following, tracker.stats, records)
        setup.folder.write_table("tune.csv", tune_table(plan, records))
        _remove_states(setup.folder, before=len(searched.results) - 1)
        if plan.options.fail_on_nan and len(whole.diverged):
            shown = name_runs(sorted(whole.diverged.tolist()))
            raise DivergedError(f"--fail_on_nan: the search stopped as runs diverged: {shown}; see {setup.folder.path}")
    return searched


def _decide(setup: Setup, results: Sequence[RungResult], seconds: float) -> Setup:
    """Decide how many settings go on, where there is a time limit, and record it."""
    tune, deadline = setup.tune, setup.deadline
    if deadline is None or len(tune.kept) >= len(results) or next_rung(tune.spec, results) is None:
        return setup
    if seconds > LEAST_SECONDS:
        before = count_env_steps([result.rung for result in results[:-1]])
        deadline = deadline._replace(rate=(count_env_steps([result.rung for result in results]) - before) / seconds)
    count = keep_in_time(tune.spec, results, deadline.env_steps_left(tune))
    tune = tune._replace(kept=(*tune.kept, count))
    content = read_json(setup.folder.path / "config.json")
    setup.folder.write_json("config.json", {**content, "tune": {**content["tune"], "kept": list(tune.kept)}})
    return setup._replace(tune=tune, deadline=deadline)


def runs_of(plan: Plan, rung: Rung) -> np.ndarray:
    """Return the runs that train in a rung.

    Args:
        plan: The sweep of all settings and seeds.
        rung: The rung.

    Returns:
        Their numbers in order, one setting after another, [settings * seeds].
    """
    return (np.array(rung.settings)[:, None] * plan.options.seeds + np.arange(rung.seeds)).ravel()


def group_runs(tune: TunePlan, local: list[jax.Device], *, is_here: bool) -> list[Group]:
    """Group the runs of a search by the programs that train them.

    Args:
        tune: The search.
        local: The devices of this machine.
        is_here: Whether runs are trained on them.

    Returns:
        The groups.
    """
    plan, token, groups = tune.plan, uuid.uuid4().hex, []
    largest = max(len(rung.settings) * rung.seeds for rung in plan_rungs(tune.spec))
    for turn, group in enumerate(group_settings([setting.config for setting in plan.settings])):
        setting = plan.settings[group.settings[0]]
        batch = batch_of(group, plan.options.seeds, plan.options.seed)
        if plan.options.device == "cpu":
            runs = cpu_width(local)
            layout = plan_layout(
                plan.agent,
                setting.env,
                setting.config,
                runs,
                setting.budget,
                local,
                memory_limit=memory_limit(plan, local),
                keeps_best=plan.eval_episodes is not None,
            )
            # A program for several devices rounds as one for any other number of them, but not as one for a single one.
            used = layout.devices if is_here else min(layout.devices, 2)
            width = runs if is_here else layout.group * used
            size = layout.batch if is_here else width
        else:
            used = len(local) if is_here else 1
            width = size = min(largest, len(batch.runs), ACCELERATOR_RUNS * used)
        groups.append(Group(setting, batch, size, describe(plan, setting, f"{token}-{turn}", width, used)))
    return groups


def cpu_width(local: list[jax.Device]) -> int:
    """Compute for how many runs programs are compiled on CPU.

    Args:
        local: The devices.

    Returns:
        The number of runs: WIDTH, or more where there are so many cores that each would have less than a group.
    """
    return devices.padded(WIDTH, devices.CPU_GROUP_RUNS * len(local))


def are_states_kept(plan: Plan, spec: SearchSpec, groups: list[Group], local: list[jax.Device]) -> bool:
    """Decide whether the states of runs that may go on are kept in the memory of this process.

    Args:
        plan: The sweep of all settings and seeds.
        spec: The search.
        groups: The runs by programs.
        local: The devices of this machine.

    Returns:
        Whether those of the largest rung fit in a share of the memory.
    """
    sizes = [
        devices.bytes_of(
            shapes_of_runs(
                plan.agent,
                group.setting.env,
                group.setting.config,
                group.setting.budget,
                plan.eval_episodes is not None,
                1,
            )
        )
        for group in groups
    ]
    short = [rung for rung in plan_rungs(spec) if rung.env_steps < spec.env_steps]
    most = max((len(rung.settings) * rung.seeds for rung in short), default=0)
    on_cpu = plan.options.device == "cpu"
    limit = memory_limit(plan, local if on_cpu else devices.local_devices("cpu", 1))
    return max(sizes) * most <= STATES_SHARE * limit


def train_rung(
    setup: Setup, rung: Rung, results: Sequence[RungResult], before: Sequence[Arrival]
) -> Generator[Arrival]:
    """Train the runs of a rung, but for those of which the run folder has the shards.

    Args:
        setup: What it is trained with.
        rung: The rung.
        results: The rungs before.
        before: The runs of the last of them, with their states.

    Yields:
        Runs as they come in; not all where it has stopped.

    Raises:
        ClusterError: If some runs could not be trained.
    """
    plan, folder, is_last = setup.tune.plan, setup.folder, rung.env_steps == setup.tune.spec.env_steps
    left = runs_of(plan, rung)
    for arrival in _read_arrivals(folder, len(results), rung, left):
        left = np.setdiff1d(left, arrival.trained.runs)
        yield arrival
    earlier = results[-1].rung if results else Rung((), 0, 0)
    saved = [arrival.saved for arrival in before if arrival.saved is not None]
    returns_states = setup.returns_states and not is_last
    works = plan_legs(setup.groups, left, rung, runs_of(plan, earlier), earlier, saved, is_last, returns_states)
    pieces = [(work, work.shard) for work in works]
    arriving = train_shards(plan, pieces, setup.workers, setup.should_stop, is_here=setup.is_here, report=setup.report)
    with ExitStack() as closing:
        closing.callback(arriving.close)
        for work, _, trained in arriving:
            if trained is None:
                raise ClusterError(
                    f"--cluster: a search needs all runs of a rung, and some of {name_runs(work.batch.runs.tolist())} "
                    f"could not be trained; purejaxrl resume {folder.path} goes on"
                )
            states = None if trained.states is None else Saved(trained.runs, trained.states)
            arrival = Arrival(trained._replace(states=None), states, is_new=True)
            # A temporary folder, which keeps no checkpoints, cannot be resumed.
            if plan.options.checkpoint_every:
                _write_arrival(folder, len(results), rung, arrival)
            yield arrival


def plan_legs(
    groups: list[Group],
    left: np.ndarray,
    rung: Rung,
    begun: np.ndarray,
    earlier: Rung,
    saved: Sequence[Saved],
    is_last: bool,
    returns_states: bool,
) -> list[Work]:
    """Divide runs by the programs that train them and by where they start, as all runs of a batch share one clock.

    Args:
        groups: Runs by programs.
        left: Runs to be trained.
        rung: The rung.
        begun: Runs of the rung before.
        earlier: That rung.
        saved: Their states; those that have none train again from the beginning.
        is_last: Whether runs train to the end of their budget.
        returns_states: Whether states are to be returned.

    Returns:
        The work.
    """
    works: list[Work] = []
    at_hand = np.concatenate([np.empty(0, int), *(part.runs for part in saved)])
    for group in groups:
        steps = group.setting.steps
        own = np.isin(group.batch.runs, left)
        # States of other programs are of other shapes.
        kept = [part for part in saved if np.isin(part.runs, group.batch.runs).all()]
        has_begun, is_saved = np.isin(group.batch.runs, begun), np.isin(group.batch.runs, at_hand)
        start, end = (max(1, budget // steps) for budget in (earlier.env_steps, rung.env_steps))
        for which, first, states in (
            (own & has_begun & is_saved, start, kept),
            (own & has_begun & ~is_saved, start, ()),
            (own & ~has_begun, 0, ()),
        ):
            if which.any():
                batch, leg = take(group.batch, which), Leg(first, None if is_last else end, returns_states)
                shard = Shard(len(works), 0, len(batch.runs))
                works.append(
                    Work(
                        group.setting,
                        batch,
                        shard,
                        BatchPosition(),
                        is_only=False,
                        width=group.width,
                        description=group.description,
                        leg=leg,
                        states=states,
                    )
                )
    return works


def _name(rung: int, runs: np.ndarray) -> str:
    """Name of the files of some runs of a rung."""
    return f"{rung:03d}-{runs.min():08d}"


def _write_arrival(folder: RunFolder, index: int, rung: Rung, arrival: Arrival) -> None:
    """Write runs to files, first their states: without these they would have to train again."""
    name = _name(index, arrival.trained.runs)
    if arrival.saved is not None:
        folder.write_shard(name, {"runs": arrival.saved.runs, **arrival.saved.arrays}, {}, "states")
    arrays, facts = pack(arrival.trained)
    folder.write_shard(name, arrays, facts | {"env_steps": rung.env_steps})


def _read_arrivals(folder: RunFolder, index: int, rung: Rung, runs: np.ndarray) -> Generator[Arrival]:
    """Read the runs of a rung from the run folder, and remove files that are of no use."""
    path, left = folder.path, runs
    states = run_folder.find_shards(path, "states")
    for name in run_folder.find_shards(path):
        if not name.startswith(f"{index:03d}-"):
            continue
        # A file that was cut off is trained again, like one that is missing.
        with suppress(InputError, KeyError, TypeError, ValueError):
            arrays, facts = run_folder.read_shard(path, name)
            trained = unpack(arrays, facts)
            if facts["env_steps"] == rung.env_steps and np.isin(trained.runs, left).all():
                left = np.setdiff1d(left, trained.runs)
                saved = None
                if name in states:
                    with suppress(InputError, KeyError):
                        found, _ = run_folder.read_shard(path, name, "states")
                        saved = Saved(found.pop("runs"), found)
                yield Arrival(trained, saved, is_new=False)
                continue
        folder.remove_shards([name])


def _remove_shards(folder: RunFolder) -> None:
    """Remove what an interrupted search would have gone on from."""
    for kind in ("shards", "states"):
        folder.remove_shards(run_folder.find_shards(folder.path, kind), kind)


def _remove_states(folder: RunFolder, *, before: int) -> None:
    """Remove the states of rungs before one that is complete."""
    names = run_folder.find_shards(folder.path, "states")
    folder.remove_shards([name for name in names if int(name.partition("-")[0]) < before], "states")


def _add(tracker: RunTracker, arrival: Arrival) -> None:
    """Record runs that have come in; those read from the run folder took as long as their files say."""
    trained = arrival.trained
    if not arrival.is_new:
        tracker.started -= trained.seconds
    seconds = trained.compile_seconds if arrival.is_new else 0.0
    tracker.add_shard(trained.runs, trained.stats, trained.device, seconds)


def _count(tracker: RunTracker, whole: Trained) -> None:
    """Record what a tracker knows of whole rungs."""
    tracker.batches += 1
    # What comes later counts.
    tracker.failed = sorted({*tracker.failed} - {*whole.runs.tolist()} | {*whole.diverged.tolist()})
    for name, tally in whole.tallies.items():
        tracker.tallies[name] = metrics.merge_tallies(tracker.tallies.get(name, metrics.EMPTY_TALLY), tally)


def _closing(arrivals: Sequence[Arrival]) -> Table | None:
    """The last rows of runs, in case they do not go on."""
    tables = [arrival.trained.closing for arrival in arrivals if arrival.trained.closing is not None]
    return concatenate(tables) if tables else None


def _rows(whole: Trained | None, ending: np.ndarray, waiting: Table | None) -> Rows:
    """Rows of some runs, with the last ones of those that end, and those of other runs that wait for nothing more."""
    nothing = {name: np.empty(0) for name in metrics.EPISODE_COLUMNS}
    tables = [] if whole is None else [whole.metrics]
    if whole is not None and whole.closing is not None:
        tables.append(_select(whole.closing, np.isin(whole.closing["run"], ending)))
    if waiting is not None:
        tables.append(_select(waiting, ~np.isin(waiting["run"], [] if whole is None else whole.runs)))
    rows = sort_rows(concatenate(tables), ("run", "iteration")) if tables else {"run": np.empty(0)}
    return Rows(nothing if whole is None else whole.episodes, rows)


def _select(table: Table, which: np.ndarray) -> Table:
    return {name: values[which] for name, values in table.items()}


def _write_rows(output: Output, rows: Rows) -> None:
    """Write rows to the CSV files, and pass them to the loggers."""
    output.writer.append(output.tracker, rows)
    if len(rows.metrics["run"]):
        output.logging.listeners.log(output.tracker.add_swept(rows.metrics))


def _records(
    setup: Setup,
    results: Sequence[RungResult],
    following: Rung | None,
    stats: RunStats,
    records: Sequence[Record],
) -> list[Record]:
    """The rows of tune.csv for a rung that is complete."""
    spec, result, going = setup.tune.spec, results[-1], () if following is None else following.settings
    # Runs that cannot go on where they were have trained anew.
    earlier = {} if setup.returns_states else {record.setting: record.env_steps for record in records}
    spent = stats.env_steps.reshape(spec.settings, -1).sum(axis=1)
    return [
        Record(
            setting,
            len(results) - 1,
            result.rung.env_steps,
            result.rung.seeds,
            int(spent[setting]) + earlier.get(setting, 0),
            *figures,
            int(setting in going),
        )
        for setting, figures in zip(result.rung.settings, score(spec, result), strict=True)
    ]


def tune_table(plan: Plan, records: Sequence[Record]) -> Table:
    """Collect the content of tune.csv.

    Args:
        plan: The sweep of all settings and seeds.
        records: Its rows besides the hyperparameters.

    Returns:
        A row per setting and rung: `setting`, the swept hyperparameters, `rung`, `budget` (env steps per run at its
        end), `seeds`, `env_steps` (of all runs of the setting so far), `score` with its 95% interval `low`, `high`
        (empty with one seed), and whether the setting `goes_on`.
    """
    own = dict(zip(Record._fields, map(np.array, zip(*records, strict=True)), strict=True))
    settings = own.pop("setting")
    swept = columns_of(setting.values for setting in plan.settings)
    return {"setting": settings, **{column_name(name, own): values[settings] for name, values in swept.items()}, **own}


def write_params(folder: RunFolder, tracker: RunTracker, groups: list[Group], trained: Sequence[Trained]) -> None:
    """Write the last params of every run, and the best ones where there are evaluations, a file for each program.

    Args:
        folder: The run folder.
        tracker: State of the search.
        groups: Runs by programs.
        trained: All that has come in, in order: what comes later counts.
    """
    place = {run: (part, row) for part in trained for row, run in enumerate(part.runs.tolist())}
    for number, group in enumerate(groups, 1):
        runs = [run for run in group.batch.runs.tolist() if run in place]
        if not runs:
            continue
        tracker.programs += 1
        found = [place[run] for run in runs]
        suffix = "" if len(groups) == 1 else f"-{number}"
        facts = {"schema_version": SCHEMA_VERSION, "algorithm": tracker.plan.agent.name, "runs": runs}
        last = {name: np.stack([part.params[name][row] for part, row in found]) for name in found[0][0].params}
        folder.write_params(f"last{suffix}", last, facts)
        kept = [(part.best, part.best_return, row) for part, row in found if part.best is not None]
        if kept:
            best = {name: np.stack([params[name][row] for params, _, row in kept]) for name in last}
            returns = [float(values[row]) for _, values, row in kept if values is not None]
            folder.write_params(f"best{suffix}", best, facts | {"eval_return": returns})


def _standing(tune: TunePlan, rungs: int, rung: Rung, results: Sequence[RungResult]) -> Standing:
    """Describe a search before a rung."""
    label, found = "", None
    if results:
        # Of Hyperband's brackets, one that has ended knows more than the next one's first rungs.
        is_whole = any(result.rung.env_steps == tune.spec.env_steps for result in results)
        if is_whole:
            setting, found = find_winner(tune.spec, results)
        else:
            place = int(ranking(results[-1])[0])
            setting, found = results[-1].rung.settings[place], score(tune.spec, results[-1])[place]
        values = tune.plan.settings[setting].values
        # A list of one value makes no difference.
        searched = [name for name, source in tune.space.items() if isinstance(source, Range) or len(source) > 1]
        label = label_of({name: values[name] for name in searched})
    return Standing(len(results) + 1, rungs, len(rung.settings), rung.seeds, rung.env_steps, label, found)


def best_content(tune: TunePlan, winner: int, found_by: dict[str, Any]) -> dict[str, Any]:
    """Return the content of best.json, from which `--preset` takes hyperparameters.

    Args:
        tune: The search.
        winner: The setting that won.
        found_by: How it was found.

    Returns:
        The content.
    """
    plan, best = tune.plan, tune.plan.settings[winner]
    return {
        "schema_version": SCHEMA_VERSION,
        "algorithm": plan.as_dict()["algorithm"],
        "env": plan.env,
        "observation_type": plan.options.observation_type,
        "hyperparameters": recorded(plan.agent, presets.as_dict(best.config)),
        "found_by": found_by,
    }


def _found_by(tune: TunePlan, winner: int, best: Score) -> dict[str, Any]:
    """Say how a search has found its winner, before that is confirmed."""
    plan, values = tune.plan, tune.plan.settings[winner].values
    return {
        "method": tune.search.method,
        "objective": tune.search.objective,
        "settings": len(plan.settings),
        "seeds": plan.options.seeds,
        "setting": winner,
        "values": recorded(plan.agent, values),
        "score": best.value,
        "low": best.low,
        "high": best.high,
        "confirmed": None,
    }


def confirm(
    tune: TunePlan,
    winner: int,
    folder: RunFolder,
    write_results: WriteResults,
    make_reporter: Callable[[Plan], Reporter | None],
    executor: Workers | None,
    local: list[jax.Device],
    signals: StopSignals,
) -> Outcome:
    """Train winner and preset with fresh seeds, in a run folder within that of the search.

    Args:
        tune: The search.
        winner: The setting that won.
        folder: The run folder of the search.
        write_results: Writes tables and figures.
        make_reporter: Makes what shows the progress.
        executor: An Executor whose workers train, None to train in this process.
        local: The devices of this machine.
        signals: Records the signals that stop it.

    Returns:
        The outcome of the training, whose first setting is the winner.
    """
    path, plan = folder.path / CONFIRMATION, plan_confirmation(tune, winner)
    found = None
    if checkpointing.find(path)[0] is None:
        opened = run_folder.create(path, overwrite=True)
    else:
        opened = run_folder.open_existing(path)
        changes = {name: getattr(plan.options, name) for name in FOR_RESUMING}
        plan, found = plan_resumption(path, **objects_of(plan), **changes)
    width = cpu_width(local) if plan.options.device == "cpu" else None
    with opened:
        return run_experiment(
            plan,
            opened,
            write_results,
            progress=make_reporter(plan),
            found=found,
            executor=executor,
            width=width,
            signals=signals,
        )


def judge(tune: TunePlan, outcome: Outcome) -> dict[str, Any]:
    """Compare winner and preset on fresh seeds.

    Args:
        tune: The search.
        outcome: The training of both.

    Returns:
        Number and first of the seeds; for `winner` and `preset`, score, low and high as in the search, and how many
        runs were solved (None without a threshold).
    """
    spec, seeds = tune.spec, tune.search.confirm_seeds
    stats = outcome.stats
    assert stats is not None
    failed = np.isin(np.arange(2 * seeds), outcome.summary["failed_runs"])
    result = evaluate(spec, Rung((0, 1), seeds, spec.env_steps), stats, failed)
    solved = (stats.solved_at_steps >= 0).reshape(2, seeds).sum(axis=1).tolist()
    has_threshold = outcome.plan.solved_at is not None
    winner, preset = (
        found._asdict() | {"solved": number if has_threshold else None}
        for found, number in zip(score(spec, result), solved, strict=True)
    )
    for it in (winner, preset):
        it["score"] = it.pop("value")
    return {"seeds": seeds, "first_seed": outcome.plan.options.seed, "winner": winner, "preset": preset}


def _summary(
    tracker: RunTracker, spec: SearchSpec, rungs: int, stopped_by: int | None, found_by: dict[str, Any]
) -> dict[str, Any]:
    """The content of summary.json. A search is done although most runs end early."""
    spent, planned = int(tracker.stats.env_steps.sum()), plan_rungs(spec)
    share = 1.0 if stopped_by is None else min(spent / count_env_steps(planned), 0.99)
    full = spec.settings * spec.seeds * spec.env_steps
    found = {"rungs": rungs, "planned_rungs": len(planned), "full_env_steps": full, **found_by}
    content: dict[str, Any] = plain(summarize(tracker, stopped_by) | {"fraction_done": share, "tune": found})
    return content
