"""The command line: its commands, what they print and their exit codes. Nothing is imported before it is needed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import purejaxrl
from purejaxrl.errors import InputError, PurejaxrlError
from purejaxrl.flags import Parser, parse, training_parser, unknown_flag

if TYPE_CHECKING:
    from purejaxrl.api import Result
    from purejaxrl.plan import Plan
    from purejaxrl.results.progress import Terminal

USAGE = """usage: purejaxrl COMMAND ...

Deep reinforcement learning as pure functions in JAX.

commands:
  train ALGORITHM   train vpg, a3c or dqn, many seeds side by side
  sweep ALGORITHM   train every combination of hyperparameters, and compare them
  compare RUN RUN   compare run folders: intervals and probabilities of improvement
  list              algorithms, presets and environments

purejaxrl train ALGORITHM --help shows every flag. Flags are written with underscores; hyphens mean the same.

options:
  --help            this text
  --version         the version
"""

TRAINING_HELP = "purejaxrl {0} ALGORITHM: ALGORITHM is vpg, a3c or dqn; purejaxrl {0} dqn --help shows its flags"

# Diverged runs beyond so many are counted, and named in summary.json only.
MAX_NAMED = 20

COMPARE_HELP = """usage: purejaxrl compare RUN RUN ... [--out FOLDER] [--json]

Compare run folders of one environment: interquartile means with 95% intervals, runs solved, probability of improvement.

  --out FOLDER   also write compare.csv, improvement.csv and compare.png there
  --json         print the table as JSON and nothing else
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    words = [_underscored(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    is_debugging = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if is_debugging:
            raise
        message, code = _explain(error)
        print(f"purejaxrl: {message}", file=sys.stderr)
        return code


def _explain(error: Exception) -> tuple[str, int]:
    """One line for an error, and its exit code."""
    text = " ".join(str(error).split())
    if isinstance(error, PurejaxrlError):
        return text, error.exit_code
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return f"out of memory: {text[:200]}", 6
    return f"internal error: {type(error).__name__}: {text[:200]} (--debug shows the traceback)", 1


def _underscored(word: str) -> str:
    """--log-every as --log_every; values stay as they are."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return "--" + flag[2:].replace("-", "_") + equals + value


def _dispatch(words: list[str]) -> int:
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": train,
        "sweep": sweep,
        "compare": compare,
        "list": list_all,
    }
    if not words or words[0] in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        print(f"purejaxrl {purejaxrl.__version__}")
        return 0
    if words[0] not in commands:
        raise InputError(f"unknown command {words[0]!r}; use one of {', '.join(commands)}")
    return commands[words[0]](words[1:])


def train(words: list[str]) -> int:
    """`purejaxrl train ALGORITHM`."""
    return _train_or_sweep("train", words)


def sweep(words: list[str]) -> int:
    """`purejaxrl sweep ALGORITHM`."""
    return _train_or_sweep("sweep", words)


def _train_or_sweep(command: str, words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h"):
        print(TRAINING_HELP.format(command))
        return 0
    from purejaxrl.agents import AGENTS

    if words[0] not in AGENTS:
        raise InputError(f"unknown algorithm {words[0]!r}; use one of {', '.join(AGENTS)}")
    agent = AGENTS[words[0]]
    flags = parse(training_parser(command, agent), agent, words[1:], is_sweep=command == "sweep")
    own = {name: flags.pop(name) for name in ("out", "overwrite", "quiet", "json", "dry_run", "no_cache")}
    is_silent = own["quiet"] or own["json"]
    _prepare_jax(flags["device"], use_cache=not own["no_cache"], is_silent=is_silent)

    from purejaxrl import api
    from purejaxrl.plan import plan_sweep, plan_train
    from purejaxrl.results.run_folder import check_free, plain
    from purejaxrl.training.devices import local_devices
    from purejaxrl.training.hosts import alone, check_hosts, start

    joining = {name: flags.pop(name, None) for name in ("coordinator", "num_processes", "process_id")}
    check_hosts(**joining)
    # Before anything that starts JAX, as making a plan does.
    everyone = start(**joining) if command == "sweep" and not own["dry_run"] else alone()
    with everyone.telling_of_errors():
        plan = plan_sweep(agent, **flags) if command == "sweep" else plan_train(agent, **flags)
        kind = "sweep-" if command == "sweep" else ""
        out = Path(own["out"] or f"results/{kind}{agent.name}-{plan.env}-{plan.options.preset}")
        if own["dry_run"]:
            local_devices(plan.options.device, plan.options.devices)
            check_free(out, overwrite=own["overwrite"])
            print(json.dumps(plain(plan.as_dict() | {"out": str(out)}), indent=2))
            return 0
        progress = None if is_silent else _terminal(plan)
        result = api.carry_out(plan, out=out, overwrite=own["overwrite"], progress=progress, everyone=everyone)
    if own["json"] and everyone.index == 0:
        print(json.dumps(plain(result.summary), indent=2))
    elif not own["quiet"] and everyone.index == 0:
        _print_summary(result)
    return 0 if result.stopped_by is None else 128 + result.stopped_by


def compare(words: list[str]) -> int:
    """`purejaxrl compare RUN RUN ...`."""
    if not words or {"--help", "-h"} & set(words):
        print(COMPARE_HELP, end="")
        return 0
    parser = Parser(prog="purejaxrl compare", allow_abbrev=False, add_help=False)
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--out")
    parser.add_argument("--json", action="store_true")
    known, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        raise InputError(unknown_flag(unknown[0], parser))

    from purejaxrl.results import compare as comparing

    comparison = comparing.compare(known.runs)
    if known.out:
        comparing.write(comparison, known.runs, Path(known.out))
    if known.json:
        from purejaxrl.results.run_folder import plain

        rows = comparison.frame.assign(setting=comparison.labels).to_dict("records")
        print(json.dumps(plain(rows), indent=2))
    else:
        print(comparing.in_words(comparison))
    return 0


def list_all(words: list[str]) -> int:
    """`purejaxrl list`."""
    if words and words[0] not in ("--help", "-h"):
        raise InputError(f"list: unexpected {words[0]!r}; it takes nothing")
    if words:
        print("purejaxrl list: algorithms, tuned presets and environments")
        return 0
    from purejaxrl.agents import AGENTS
    from purejaxrl.envs import names
    from purejaxrl.presets import TUNED, VARIANTS

    print("algorithms:    " + ", ".join(AGENTS))
    print("presets:       original (every environment), tuned:")
    for algorithm, env, observation_type, *variant in TUNED:
        chosen = "".join(f" --{VARIANTS[algorithm]} {value}" for value in variant)
        print(f"                 {algorithm} --env {env} --observation_type {observation_type}{chosen}")
    print("environments:  " + ", ".join(names()))
    return 0


def _prepare_jax(device: str, *, use_cache: bool, is_silent: bool) -> None:
    """Settle what JAX may use, before it starts. Only a program may do this; importing the package never does."""
    import jax

    from purejaxrl.training.compilation_cache import cache_folder, use_compilation_cache
    from purejaxrl.training.devices import ask_for_cpu_devices

    if device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    ask_for_cpu_devices()
    if use_cache and use_compilation_cache() is None and not is_silent:
        print(f"no compilation cache: {cache_folder()} is not a private folder (mode 0700)", file=sys.stderr)


def _terminal(plan: Plan) -> Terminal:
    from purejaxrl.ledger import extent_of
    from purejaxrl.presets import TUNED, as_dict, tuned_key
    from purejaxrl.results.progress import Goal, Terminal
    from purejaxrl.training.sweep import group_settings

    name, first = plan.agent.name, plan.settings[0]
    observation_type = str(plan.options.observation_type)
    is_tuned = tuned_key(plan.agent, plan.env, observation_type, as_dict(first.config)) in TUNED
    hint = "; --preset tuned is quicker" if plan.options.preset == "original" and is_tuned else ""
    seeds = f"{plan.options.seeds} seed{'s' if plan.options.seeds > 1 else ''}"
    title = f"{name} on {plan.env}, preset {plan.options.preset}, {seeds}"
    if plan.is_sweep:
        programs = len(group_settings([setting.config for setting in plan.settings]))
        count = f"{len(plan.settings)} setting{'s' if len(plan.settings) > 1 else ''}"
        title += f" x {count} = {plan.runs} runs, {programs} program{'s' if programs > 1 else ''} to compile"
    goal = Goal(
        first.budget.amount,
        first.budget.kind.replace("_", " "),
        extent_of(plan),
        plan.solved_at is not None,
        hint,
        plan.labels if plan.is_sweep else (),
    )
    return Terminal(title, name, goal)


def _print_summary(result: Result) -> None:
    summary, final = result.summary, result.summary["final_return_mean"]
    print(
        f"{summary['runs_ok']} of {summary['runs']} runs ok, "
        f"{summary['env_steps']:,} env steps in {summary['run_seconds']:.1f} s "
        f"({summary['env_steps_per_second']:,.0f} per second), compiled in {summary['compile_seconds']:.1f} s"
    )
    if result.plan.is_sweep:
        from purejaxrl.results.statistics import table

        print(table(result.statistics(), result.plan.labels))
    elif final == final:
        print(f"mean return of the last 100 episodes: {final:.1f}")
    if summary["solved_at"] is not None:
        solved = f"{summary['solved_runs']} of {summary['runs']} runs"
        print(f"reached a 100-episode mean of {summary['solved_at']:g}: {solved}")
    if summary["failed_runs"]:
        shown, more = summary["failed_runs"][:MAX_NAMED], len(summary["failed_runs"]) - MAX_NAMED
        print(f"diverged (NaN): runs {', '.join(map(str, shown))}" + (f" and {more} more" if more > 0 else ""))
    if result.curve.exists():
        print(f"curve{'s' if result.plan.is_sweep else ''}: {result.curve}")
