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
    from purejaxrl.config import Spec
    from purejaxrl.types import Agent

USAGE = """usage: purejaxrl COMMAND ...

Deep reinforcement learning as pure functions in JAX.

commands:
  train ALGORITHM   train vpg, a3c or dqn, many seeds side by side
  list              algorithms, presets and environments

purejaxrl train ALGORITHM --help shows every flag. Flags are written with underscores; hyphens mean the same.

options:
  --help            this text
  --version         the version
"""

TRAIN_HELP = "purejaxrl train ALGORITHM: ALGORITHM is vpg, a3c or dqn; purejaxrl train dqn --help shows its flags"


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
    commands: dict[str, Callable[[list[str]], int]] = {"train": train, "list": list_all}
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
    if not words or words[0] in ("--help", "-h"):
        print(TRAIN_HELP)
        return 0
    from purejaxrl.agents import AGENTS

    if words[0] not in AGENTS:
        raise InputError(f"unknown algorithm {words[0]!r}; use one of {', '.join(AGENTS)}")
    agent = AGENTS[words[0]]
    flags = parse(train_parser(agent), agent, words[1:])
    _prepare_jax(flags["device"], use_cache=not flags.pop("no_cache"), is_silent=flags["quiet"] or flags["json"])

    from purejaxrl import api
    from purejaxrl.results.run_folder import check_free, plain
    from purejaxrl.training.devices import local_devices

    own = {name: flags.pop(name) for name in ("out", "overwrite", "quiet", "json", "dry_run")}
    planned = api.plan(agent, **flags)
    out = Path(own["out"] or f"results/{agent.name}-{planned.env.name}-{planned.preset}")
    if own["dry_run"]:
        local_devices(planned.device, planned.devices)
        check_free(out, overwrite=own["overwrite"])
        print(json.dumps(planned.as_dict() | {"out": str(out)}, indent=2))
        return 0
    is_silent = own["quiet"] or own["json"]
    result = api.carry_out(
        planned, out=out, overwrite=own["overwrite"], progress=None if is_silent else _terminal(planned)
    )
    if own["json"]:
        print(json.dumps(plain(result.summary), indent=2))
    elif not own["quiet"]:
        _print_summary(result.summary, result.path)
    return 0 if result.stopped_by is None else 128 + result.stopped_by


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


def train_parser(agent: Agent) -> Parser:
    """Common flags, and one for every field of the agent's Config. Values are strings; `parse` converts them."""
    from purejaxrl.config import field_specs

    parser = Parser(
        prog=f"purejaxrl train {agent.name}",
        description=f"{(sys.modules[agent.update.__module__].__doc__ or '').splitlines()[0]}",
        allow_abbrev=False,
    )
    common = parser.add_argument_group("what and how")
    common.add_argument("--env", default="CartPole-v0", help="environment (default CartPole-v0; see purejaxrl list)")
    common.add_argument("--observation_type", default="default", help="default: the state vector")
    common.add_argument("--preset", default="original", help="original (default) or tuned")
    common.add_argument("--seeds", default="1", help="runs side by side (default 1)")
    common.add_argument("--seed", default="0", help="run i uses seed + i (default 0)")
    common.add_argument("--device", default="cpu", help="cpu (default), auto, cuda (or gpu), tpu")
    common.add_argument("--devices", help="how many devices; on CPU every core is one (default all)")
    common.add_argument("--solved_at", help="mean return of 100 episodes that counts as solved")
    output = parser.add_argument_group("output")
    output.add_argument("--out", help="run folder (default results/ALGORITHM-ENV-PRESET)")
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


def parse(parser: Parser, agent: Agent, words: list[str]) -> dict[str, Any]:
    """Flags as keyword arguments of `api.plan` and of `train`; those not given are left out."""
    from purejaxrl.config import Spec, field_specs

    known, unknown = parser.parse_known_args(words)
    if unknown:
        raise InputError(_unknown_flag(unknown[0], parser))
    flags = {name: value for name, value in vars(known).items() if value is not None and name != "debug"}
    flags.setdefault("out", None)
    whole = Spec(help="", is_leaf=False, kind=int)
    specs = dict.fromkeys(("seeds", "seed", "devices", "log_every", "eval_every", "eval_episodes"), whole)
    specs |= {"solved_at": whole._replace(kind=float), **field_specs(agent.Config)}
    for name in set(specs) & set(flags):
        flags[name] = convert(name, flags[name], specs[name])
    return flags


def _unknown_flag(word: str, parser: Parser) -> str:
    if not word.startswith("-"):
        return f"unexpected {word!r}; flags start with --"
    flags = [flag for action in parser._actions for flag in action.option_strings]
    close = difflib.get_close_matches(word.partition("=")[0], flags, n=1)
    return f"unknown flag {word}; " + (
        f"did you mean {close[0]}?" if close else f"{parser.prog} --help lists those there are"
    )


def convert(name: str, text: str | list[str], spec: Spec) -> Any:
    """A flag's text as the value its Spec asks for; bounds are checked later. Raises InputError."""
    if spec.length is not None:
        joined = " ".join(text)
        if "," in joined.strip("() ").rstrip(",") and ("x" in joined or not joined.startswith("(")):
            raise InputError(
                f"--{name}: {joined} is a list of alternatives; train takes one value, sweep takes several"
            )
        words = joined.translate(str.maketrans("x(),", "    ")).split()
        return tuple(convert(name, word, spec._replace(length=None)) for word in words)
    assert isinstance(text, str)
    if spec.optional and text.lower() in ("none", "off"):
        return None
    if spec.choices:
        return text
    if "," in text:
        raise InputError(f"--{name}: {text} is a list of alternatives; train takes one value, sweep takes several")
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


def _terminal(planned: Any) -> Any:
    from purejaxrl.presets import TUNED, as_dict, tuned_key
    from purejaxrl.results.progress import Terminal
    from purejaxrl.training.loop import iterations_of

    runs = f"{planned.seeds} seed{'s' if planned.seeds > 1 else ''}"
    title = f"{planned.agent.name} on {planned.env.name}, preset {planned.preset}, {runs}"
    is_tuned = tuned_key(planned.agent, planned.env.name, planned.observation_type, as_dict(planned.config)) in TUNED
    hint = "; --preset tuned is quicker" if planned.preset == "original" and is_tuned else ""
    limit = iterations_of(planned.budget, planned.shape, planned.env.max_episode_steps)
    return Terminal(
        title,
        planned.agent.name,
        planned.budget.kind,
        planned.budget.amount,
        limit,
        hint,
        planned.env.solved_at is not None,
    )


def _print_summary(summary: dict[str, Any], path: Path) -> None:
    final = summary["final_return_mean"]
    print(
        f"{summary['runs_ok']} of {summary['runs']} runs ok, "
        f"{summary['env_steps']:,} env steps in {summary['run_seconds']:.1f} s "
        f"({summary['env_steps_per_second']:,.0f} per second), compiled in {summary['compile_seconds']:.1f} s"
    )
    if final == final:
        print(f"mean return of the last 100 episodes: {final:.1f}")
    if summary["solved_at"] is not None:
        solved = f"{summary['solved_runs']} of {summary['runs']} runs"
        print(f"reached a 100-episode mean of {summary['solved_at']:g}: {solved}")
    if summary["failed_runs"]:
        print(f"diverged (NaN): runs {', '.join(map(str, summary['failed_runs']))}")
    print(f"curve: {path / 'learning_curve.png'}")
