"""The commands `train`, `sweep`, `tune` and `resume`."""

from __future__ import annotations

import json
import logging
import pkgutil
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import purejaxrl
from purejaxrl.cli import clusters
from purejaxrl.cli.flags import JOB_TIME, parse, parse_resumption, resume_parser, training_parser
from purejaxrl.cli.streams import shorten_path
from purejaxrl.errors import InputError
from purejaxrl.storage.files import home_path

if TYPE_CHECKING:
    from purejaxrl.analysis.result import Result
    from purejaxrl.experiment.loggers import Logger

LOG = logging.getLogger("purejaxrl")
# Time limits count from here, before most is imported.
STARTED = time.perf_counter()
# One algorithm a file; importing them to know their names would take a second.
ALGORITHMS = sorted(module.name for module in pkgutil.iter_modules([str(Path(purejaxrl.__file__).parent / "agents")]))
TRAINING_HELP = "purejaxrl {0} ALGORITHM: ALGORITHM is one of {1}; purejaxrl {0} dqn --help shows its flags"


def _resume(words: list[str]) -> int:
    """Run `purejaxrl resume RUN`."""
    path, flags = parse_resumption(resume_parser(), words)
    cluster = clusters.take_flags(flags)
    own = {name: flags.pop(name, None) for name in ("quiet", "verbose", "json", "dry_run", "no_cache", "log_to")}
    loggers = _make_loggers(own)
    is_silent = _configure_logging(own)

    from purejaxrl.storage.files import plain, read_json
    from purejaxrl.storage.run_folder import check_run

    check_run(path)
    device = flags.get("device") or read_json(path / "config.json").get("device")
    _prepare_jax(_own_device(str(device), cluster), use_cache=not own["no_cache"], is_silent=is_silent)
    from purejaxrl.api import resume_run
    from purejaxrl.experiment import run
    from purejaxrl.experiment.progress import terminal_of
    from purejaxrl.experiment.tune_plan import plan_tune_resumption

    with _warning_in_one_line():
        if own["dry_run"]:
            content = read_json(path / "config.json")
            if "tune" in content:
                print(json.dumps(plain(plan_tune_resumption(path, content, **flags).as_dict()), indent=2))
                return 0
            plan, found = run.plan_resumption(path, **flags)
            print(json.dumps(plain(plan.as_dict() | {"checkpoint": str(found.path) if found else None}), indent=2))
            return 0
        progress = False if is_silent else terminal_of
        with clusters.executor_of(cluster) as executor:
            result = resume_run(path, progress=progress, loggers=loggers, executor=executor, **flags)
    return _print_result(result, own)


def _own_device(device: str, cluster: dict[str, Any]) -> str:
    """Return the device that this process uses: where workers train, none of the GPUs that may be theirs."""
    return device if cluster["cluster"] is None else "cpu"


def _make_loggers(own: dict[str, Any]) -> list[Logger]:
    """The loggers that --log_to asks for."""
    if own["log_to"] is None:
        return []
    from purejaxrl.experiment.loggers import named

    return [named(own["log_to"])]


def _begin(command: str, words: list[str]) -> int:
    """Run `purejaxrl train ALGORITHM`, `purejaxrl sweep ALGORITHM` or `purejaxrl tune ALGORITHM`."""
    if not words:
        raise InputError(TRAINING_HELP.format(command, ", ".join(ALGORITHMS)))
    if words[0] in ("--help", "-h"):
        print(TRAINING_HELP.format(command, ", ".join(ALGORITHMS)))
        return 0
    from purejaxrl.agents import AGENTS
    from purejaxrl.experiment.options import Options

    if words[0] not in AGENTS:
        raise InputError(f"unknown algorithm {words[0]!r}; use one of {', '.join(AGENTS)}")
    agent = AGENTS[words[0]]
    flags = parse(training_parser(command, agent), agent, words[1:], is_sweep=command != "train")
    cluster = clusters.take_flags(flags, JOB_TIME if command == "tune" else "time")
    names = ("out", "overwrite", "quiet", "verbose", "json", "dry_run", "no_cache", "log_to")
    own = {name: flags.pop(name, None) for name in names}
    loggers = _make_loggers(own)
    is_silent = _configure_logging(own)
    _prepare_jax(
        _own_device(flags.get("device", Options.device), cluster), use_cache=not own["no_cache"], is_silent=is_silent
    )

    from purejaxrl.api import run_new, run_new_tune
    from purejaxrl.experiment.labels import preset_name
    from purejaxrl.experiment.plan import plan_sweep, plan_train
    from purejaxrl.experiment.progress import terminal_of
    from purejaxrl.experiment.search import SEEDS
    from purejaxrl.experiment.tune_plan import plan_tune
    from purejaxrl.storage.files import plain
    from purejaxrl.storage.run_folder import check_free
    from purejaxrl.training.devices import local_devices

    with _warning_in_one_line():
        make_plan = partial(plan_tune, agent, **{"seeds": SEEDS, **flags})
        tune = make_plan() if command == "tune" else None
        plan = tune.plan if tune else plan_sweep(agent, **flags) if command == "sweep" else plan_train(agent, **flags)
        kind = "" if command == "train" else f"{command}-"
        out = home_path(own["out"] or f"results/{kind}{agent.name}-{plan.env}-{preset_name(plan.options.preset)}")
        if own["dry_run"]:
            if cluster["cluster"] is None:
                local_devices(plan.options.device, plan.options.devices)
            check_free(out, overwrite=own["overwrite"])
            print(json.dumps(plain((tune or plan).as_dict() | {"out": str(out)}), indent=2))
            return 0
        if cluster["cluster"] is not None:
            # Rather than when a cluster has been started.
            check_free(out, overwrite=bool(own["overwrite"]))
        with clusters.executor_of(cluster) as executor:
            settings: dict[str, Any] = {
                "overwrite": bool(own["overwrite"]),
                "progress": False if is_silent else terminal_of,
                "loggers": loggers,
                "executor": executor,
            }
            if tune:
                result = run_new_tune(make_plan, out, started=STARTED, **settings)
            else:
                result = run_new(plan, out, **settings)
    return _print_result(result, own)


def _print_result(result: Result, own: dict[str, Any]) -> int:
    """Print the result of a training as --json and --quiet ask, and return the exit code."""
    if own["json"]:
        print(json.dumps(result.summary_json, indent=2))
    elif not own["quiet"]:
        _print_summary(result)
        if result.interruption:
            print(f"{result.interruption}: {_way_to_resume(result)}")
    LOG.info("most memory in use by this process: %.1f MiB", _peak_memory() / 2**20)
    return 0 if result.stopped_by is None else 128 + result.stopped_by


def _way_to_resume(result: Result) -> str:
    """The command that resumes an interrupted training, and what it cannot continue from."""
    from purejaxrl.storage import checkpoint, run_folder

    command = f"purejaxrl resume {shlex.quote(str(shorten_path(result.path)))}"
    if result.plan.options.checkpoint_every or not run_folder.find_results(result.path):
        return command
    if checkpoint.numbers(result.path / "checkpoints"):
        return f"{command} goes on from an earlier checkpoint, as --checkpoint_every 0 keeps none"
    return f"{command} --restart trains anew, as --checkpoint_every 0 keeps no checkpoint"


def _peak_memory() -> int:
    """Peak memory in bytes; macOS reports bytes, Linux KiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _configure_logging(own: dict[str, Any]) -> bool:
    """Show the package's log with --verbose, and return whether nothing but errors is to be shown."""
    if own["verbose"] and own["quiet"]:
        raise InputError("--verbose: it contradicts --quiet; give one")
    from purejaxrl.experiment.progress import AboveTheBar

    LOG.handlers[:] = [AboveTheBar()] if own["verbose"] else []
    LOG.setLevel(logging.INFO if own["verbose"] else logging.WARNING)
    return bool(own["quiet"] or own["json"])


@contextmanager
def _warning_in_one_line() -> Iterator[None]:
    """Print warnings as errors are printed; whatever Python's own filters say, they stop nothing."""
    from purejaxrl.experiment.progress import print_above_the_bar

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        # What is deprecated within libraries is no user's affair; figures are imported while this holds.
        if not issubclass(category, DeprecationWarning | PendingDeprecationWarning):
            print_above_the_bar(f"purejaxrl: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _prepare_jax(device: str, *, use_cache: bool, is_silent: bool) -> None:
    """Configure JAX before it starts. Only a program may do this; importing the package never does."""
    import jax

    from purejaxrl.storage.cache import cache_folder, why_unused
    from purejaxrl.training.compilation_cache import is_enabled, use_compilation_cache
    from purejaxrl.training.devices import ask_for_cpu_devices

    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_platform_name", "cpu")
    ask_for_cpu_devices()
    if not use_cache:
        jax.config.update("jax_enable_compilation_cache", False)
    kept = use_compilation_cache()
    LOG.info("compiled programs: %s", f"kept in {kept}" if kept else "not kept")
    if is_enabled() and kept is None and not is_silent:
        print(f"no compilation cache: {why_unused(cache_folder())}", file=sys.stderr)


def _print_summary(result: Result) -> None:
    summary, final = result.summary_json, result.summary_json["final_return_mean"]
    print(
        f"{summary['runs_ok']} of {summary['runs']} runs ok, "
        f"{summary['env_steps']:,} env steps in {summary['run_seconds']:.1f} s "
        f"({summary['env_steps_per_second']:,.0f} per second), compiled in {summary['compile_seconds']:.1f} s"
    )
    if "tune" in summary and not result.interruption:
        from purejaxrl.cli.tuning import describe_tuning

        print("\n".join(describe_tuning(result)))
    elif result.config.is_sweep:
        from purejaxrl.analysis.statistics import table
        from purejaxrl.experiment.labels import terminal_columns

        settings, labels = result.summary(), result.config.labels
        print(table(settings, [labels[setting] for setting in settings["setting"]], terminal_columns(sys.stdout)))
    elif final is not None:
        print(f"mean return of the last 100 episodes: {final:.1f}")
    elif not summary["failed_runs"]:
        # There is no metrics.csv before the end of the first interval.
        with suppress(FileNotFoundError):
            print(f"mean return of the last episodes: {_recent_return(result)}")
    if summary["solved_at"] is not None:
        solved = f"{summary['solved_runs']} of {summary['runs']} runs"
        print(f"reached a 100-episode mean of {summary['solved_at']:g}: {solved}")
    if summary["failed_runs"]:
        from purejaxrl.experiment.labels import name_runs

        print(f"diverged (NaN): runs {name_runs(summary['failed_runs'])}")
    if result.curve.exists():
        print(f"curve{'s' if result.config.is_sweep else ''}: {shorten_path(result.curve)}")
    if "tune" in summary and (result.path / "tune.png").exists():
        print(f"search: {shorten_path(result.path / 'tune.png')}")


def _recent_return(result: Result) -> str:
    """Format the mean return of runs that have not all had 100 episodes."""
    import numpy as np

    from purejaxrl.analysis.plots import add_recent_returns
    from purejaxrl.experiment.progress import format_return
    from purejaxrl.storage.csv_files import read_numbers

    columns = ("run", "env_steps", "episodes", "return_100", "return_mean")
    rows = add_recent_returns(read_numbers(result.path / "metrics.csv", columns))
    last = np.append(np.diff(rows["run"]) != 0, True)
    return format_return(float(rows["recent_return"][last].mean()), rows["episodes"][last])


COMMANDS = {
    "train": partial(_begin, "train"),
    "sweep": partial(_begin, "sweep"),
    "tune": partial(_begin, "tune"),
    "resume": _resume,
}
