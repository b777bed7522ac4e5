"""The command line. Flags come from the fields of each Config; nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import purejaxrl
from purejaxrl.errors import InputError, PurejaxrlError

if TYPE_CHECKING:
    from purejaxrl.api import Result
    from purejaxrl.config import Spec
    from purejaxrl.plan import Plan
    from purejaxrl.results.progress import Terminal
    from purejaxrl.types import Agent

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

# Flags of `purejaxrl sweep` beside those of `train`.
SWEEP_FLAGS = {
    "random": "draw so many settings, from lists and from ranges as --lr 1e-4..1e-2:log",
    "coordinator": "several hosts: HOST:PORT of the first process, with the next two",
    "num_processes": "several hosts: how many processes there are",
    "process_id": "several hosts: which of them this one is, from 0",
}
# Diverged runs beyond so many are counted, and named in summary.json only.
MAX_NAMED = 20

COMPARE_HELP = """usage: purejaxrl compare RUN RUN ... [--out FOLDER] [--json]

Compare run folders of one environment: interquartile means with 95% intervals, runs solved, probability of improvement.

  --out FOLDER   also write compare.csv, improvement.csv and compare.png there
  --json         print the table as JSON and nothing else
"""


class Parser(argparse.ArgumentParser):
    """argparse whose errors are exceptions."""

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(message.removeprefix("argument "))


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
        raise InputError(_unknown_flag(unknown[0], parser))

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


def training_parser(command: str, agent: Agent) -> Parser:
    """Common flags, and one for every field of the agent's Config. Values are strings; `parse` converts them."""
    from purejaxrl.config import field_specs

    parser = Parser(
        prog=f"purejaxrl {command} {agent.name}",
        description=f"{(sys.modules[agent.update.__module__].__doc__ or '').splitlines()[0]}",
        allow_abbrev=False,
    )
    kind = "sweep-" if command == "sweep" else ""
    common = parser.add_argument_group("what and how")
    common.add_argument("--env", default="CartPole-v0", help="environment (default CartPole-v0; see purejaxrl list)")
    common.add_argument("--observation_type", default="default", help="default: the state vector")
    common.add_argument("--preset", default="original", help="original (default) or tuned")
    common.add_argument("--seeds", default="1", help="runs side by side (default 1)")
    common.add_argument("--seed", default="0", help="run i uses seed + i (default 0)")
    common.add_argument("--device", default="cpu", help="cpu (default), auto, cuda (or gpu), tpu")
    common.add_argument("--devices", help="how many devices; on CPU every core is one (default all)")
    common.add_argument("--max_memory", help="GiB that may be used (default 60%% of what there is)")
    common.add_argument("--solved_at", help="mean return of 100 episodes that counts as solved")
    common.add_argument("--stop_when_solved", action="store_true", help="end each run once it is solved")
    if command == "sweep":
        sweeping = parser.add_argument_group("sweep", "hyperparameters take alternatives: --lr 1e-3,3e-4")
        for name, text in SWEEP_FLAGS.items():
            sweeping.add_argument(f"--{name}", help=text)
        sweeping.add_argument("--yes", action="store_true", help="allow more than 100 000 runs")
    output = parser.add_argument_group("output")
    output.add_argument("--out", help=f"run folder (default results/{kind}ALGORITHM-ENV-PRESET)")
    output.add_argument("--overwrite", action="store_true", help="replace an existing run folder")
    output.add_argument("--log_every", help="env steps between rows of metrics.csv (default one epoch, else 1000)")
    output.add_argument("--eval_every", help="env steps between greedy evaluations (default off)")
    output.add_argument("--eval_episodes", help="episodes of one evaluation (default 20)")
    output.add_argument("--episodes_log", help="on, off, or auto (default): episodes.csv is written up to 256 runs")
    output.add_argument("--quiet", action="store_true", help="print nothing but errors")
    output.add_argument("--json", action="store_true", help="print the summary as JSON and nothing else")
    output.add_argument(
        "--no_cache", action="store_true", help="compile anew, and keep nothing compiled for later runs"
    )
    output.add_argument("--dry_run", action="store_true", help="check everything, print the configuration and stop")
    output.add_argument("--debug", action="store_true", help="show tracebacks")
    own = parser.add_argument_group("hyperparameters", "defaults are those of the preset original")
    for name, spec in field_specs(agent.Config).items():
        default = getattr(agent.Config(), name)
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
        text = f"{spec.help}; {spec.allowed}" + ("" if default is None else f" (default {shown})")
        flag = own.add_argument(f"--{name}", help=text.replace("%", "%%"), metavar="VALUE")
        if spec.length is not None:
            flag.nargs = "+"
        elif spec.kind is bool:
            flag.nargs, flag.const = "?", "true"
    return parser


def parse(parser: Parser, agent: Agent, words: list[str], *, is_sweep: bool) -> dict[str, Any]:
    """Flags as keyword arguments of `purejaxrl.train` or `sweep`; those not given are left out.

    In a sweep a hyperparameter's alternatives are a list and its range is a Range.
    """
    from purejaxrl.config import Spec, field_specs

    known, unknown = parser.parse_known_args(words)
    if unknown:
        raise InputError(_unknown_flag(unknown[0], parser))
    flags = {name: value for name, value in vars(known).items() if value is not None and name != "debug"}
    flags.setdefault("out", None)
    whole = Spec(help="", is_leaf=False, kind=int)
    counts = ("seeds", "seed", "devices", "log_every", "eval_every", "eval_episodes", *SWEEP_FLAGS)
    common = {name: whole for name in counts if name != "coordinator"}
    common |= dict.fromkeys(("solved_at", "max_memory"), whole._replace(kind=float))
    own = field_specs(agent.Config)
    for name in flags:
        if name in own:
            flags[name] = (convert_sources if is_sweep else convert_one)(name, _joined(flags[name]), own[name])
        elif name in common:
            if "," in flags[name]:
                raise InputError(f"--{name}: {flags[name]} is a list; --{name} takes one value")
            flags[name] = convert(name, flags[name], common[name])
        elif name in ("env", "observation_type", "preset", "device") and "," in flags[name]:
            raise InputError(f"--{name}: {flags[name]} is a list; --{name} takes one value")
    return flags


def _joined(words: str | list[str]) -> str:
    return words if isinstance(words, str) else " ".join(words)


def _unknown_flag(word: str, parser: Parser) -> str:
    if not word.startswith("-"):
        return f"unexpected {word!r}; flags start with --"
    flags = [flag for action in parser._actions for flag in action.option_strings]
    close = difflib.get_close_matches(word.partition("=")[0], flags, n=1)
    return f"unknown flag {word}; " + (
        f"did you mean {close[0]}?" if close else f"{parser.prog} --help lists those there are"
    )


def convert_sources(name: str, text: str, spec: Spec) -> Any:
    """A sweep's value of a hyperparameter: one value, a list of alternatives, or a Range. Raises InputError."""
    from purejaxrl.settings import Range, takes_range

    if ".." in text:
        if not takes_range(spec):
            raise InputError(f"--{name}: {text} is a range; it takes {spec.allowed}")
        bounds, _, scale = text.partition(":")
        low, _, high = bounds.partition("..")
        if scale not in ("", "log"):
            raise InputError(f"--{name}: {text!r} is not a range; write LOW..HIGH or LOW..HIGH:log")
        ends = [convert(name, end, spec._replace(optional=False)) for end in (low, high)]
        return Range(ends[0], ends[1], log=scale == "log")
    entries = split_alternatives(text)
    if not all(entry.strip() for entry in entries):
        raise InputError(f"--{name}: {text!r} holds an empty alternative; separate values with single commas")
    values = [convert(name, entry.strip(), spec) for entry in entries]
    return values if len(values) > 1 else values[0]


def split_alternatives(text: str) -> list[str]:
    """The parts between commas that stand in no parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def convert_one(name: str, text: str, spec: Spec) -> Any:
    """The one value that `train` takes. Raises InputError."""
    if len(split_alternatives(text)) > 1 or (".." in text and not spec.choices):
        raise InputError(f"--{name}: {text} is a list of alternatives; train takes one value, sweep takes several")
    return convert(name, text, spec)


def convert(name: str, text: str, spec: Spec) -> Any:
    """A flag's text as the value its Spec asks for; bounds are checked later. Raises InputError."""
    if spec.optional and text.lower() in ("none", "off"):
        return None
    if spec.length is not None:
        words = text.translate(str.maketrans("x(),", "    ")).split()
        return tuple(convert(name, word, spec._replace(length=None, optional=False)) for word in words)
    if spec.choices:
        return text
    if spec.kind is bool:
        if text.lower() not in ("true", "false"):
            raise InputError(f"--{name}: {text!r} is not allowed; it takes {spec.allowed}")
        return text.lower() == "true"
    try:
        return _whole(text) if spec.kind is int else float(text)
    except ValueError:
        raise InputError(f"--{name}: {text!r} is not allowed; it takes {spec.allowed}") from None


def _whole(text: str) -> int:
    """A whole number; 1e5 and 100_000 are whole too."""
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


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
    is_tuned = tuned_key(plan.agent, plan.env, plan.options.observation_type, as_dict(first.config)) in TUNED
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
