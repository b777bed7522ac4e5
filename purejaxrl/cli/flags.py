"""Parsers of the commands, and conversion of flags from text to values."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from purejaxrl.errors import InputError
from purejaxrl.storage.files import home_path

if TYPE_CHECKING:
    from purejaxrl.components.hyperparameters import Spec
    from purejaxrl.types import Agent

VERBOSE_HELP = "say more: devices, folders, and of each program its memory, its width and how long it took to compile"


# What a time limit of a job is called where there is one for the whole command.
JOB_TIME = "job_time"


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are exceptions."""

    def error(self, message: str) -> NoReturn:
        """Raise argparse's error as one of the package.

        Args:
            message: What argparse says is wrong.

        Raises:
            InputError: Always.
        """
        raise InputError(message.removeprefix("argument "))


def training_parser(command: str, agent: Agent) -> Parser:
    """Make the parser of `train`, `sweep` or `tune`: common flags, and one for every field of the agent's Config.

    Args:
        command: `train`, `sweep` or `tune`.
        agent: The algorithm.

    Returns:
        The parser. Its values are strings, which `parse` converts.
    """
    from purejaxrl.components.hyperparameters import field_specs
    from purejaxrl.experiment.options import FOR_SWEEPS, Options
    from purejaxrl.experiment.search import SEEDS, Search

    parser = Parser(
        prog=f"purejaxrl {command} {agent.name}",
        description=agent.summary,
        allow_abbrev=False,
    )
    kind = "" if command == "train" else f"{command}-"
    specs = field_specs(Options)
    options = parser.add_argument_group("training")
    options.add_argument("--env", help=f"{specs['env'].help} (default {Options.env})", metavar="NAME")
    for name in [name for name, spec in specs.items() if not spec.is_object and name not in FOR_SWEEPS]:
        default = SEEDS if command == "tune" and name == "seeds" else getattr(Options, name)
        _add_option(options, name, specs[name], _default(default))
    if command == "tune":
        searching = parser.add_argument_group("search", "hyperparameters take lists and ranges: --lr 1e-4..1e-2:log")
        for name, spec in field_specs(Search).items():
            _add_option(searching, name, spec, _default(getattr(Search, name)))
        _add_option(searching, "yes", specs["yes"])
        add_cluster_flags(parser, time=JOB_TIME)
    if command == "sweep":
        sweeping = parser.add_argument_group("sweep", "hyperparameters take alternatives: --lr 1e-3,3e-4")
        for name in FOR_SWEEPS:
            _add_option(sweeping, name, specs[name])
        add_cluster_flags(parser)
    output = parser.add_argument_group("output")
    output.add_argument("--out", help=f"run folder (default results/{kind}ALGORITHM-ENV-PRESET)")
    output.add_argument("--overwrite", action="store_true", help="replace an existing run folder")
    output.add_argument("--log_to", help="also log to tensorboard (RUN/tensorboard) or wandb (./wandb)")
    output.add_argument("--quiet", action="store_true", help="print nothing but errors")
    output.add_argument("--verbose", action="store_true", help=VERBOSE_HELP)
    output.add_argument("--json", action="store_true", help="print the summary as JSON and nothing else")
    output.add_argument(
        "--no_cache", action="store_true", help="compile anew, and keep nothing compiled for later runs"
    )
    output.add_argument("--dry_run", action="store_true", help="check everything, print the configuration and stop")
    own = parser.add_argument_group("hyperparameters", "defaults are those of the preset original")
    for name, spec in field_specs(agent.Config).items():
        if spec.is_object:
            continue
        text = f"{spec.help}; {spec.allowed}{_default(getattr(agent.Config(), name))}"
        flag = own.add_argument(f"--{name}", help=text.replace("%", "%%"), metavar="VALUE")
        if spec.length is not None:
            flag.nargs = "+"
        elif spec.kind is bool:
            flag.nargs, flag.const = "?", "true"
    return parser


def add_cluster_flags(parser: Parser, time: str = "time") -> None:
    """Add the flags that say where the runs of a sweep are trained.

    Args:
        parser: The parser of `sweep`, `tune` or `resume`.
        time: Name of the flag for the time limit of a job.
    """
    from purejaxrl.cli.clusters import FLAGS

    group = parser.add_argument_group("cluster", "workers on several machines train the runs of a sweep")
    for name, text in FLAGS:
        group.add_argument(f"--{time if name == 'time' else name}", help=text, metavar="VALUE")


def _add_option(group: Any, name: str, spec: Spec, default: str = "") -> None:
    """Add the flag of an option."""
    if spec.kind is bool:
        group.add_argument(f"--{name}", action="store_true", default=None, help=spec.help.replace("%", "%%"))
    else:
        allowed = "" if spec.kind is str and not spec.choices else f"; {spec.allowed}"
        group.add_argument(f"--{name}", help=f"{spec.help}{allowed}{default}".replace("%", "%%"), metavar="VALUE")


def _default(value: Any) -> str:
    """Say what a default is, if there is one."""
    shown = " ".join(map(str, value)) if isinstance(value, tuple) else value
    return "" if value is None else f" (default {shown})"


def folder_parser(command: str, usage: str, description: str, flags: Iterable[tuple[str, str]] = ()) -> Parser:
    """Make the parser of a command that takes run folders.

    Args:
        command: Name of the command.
        usage: Its arguments, for the first line of its help.
        description: What it does.
        flags: Name and help of each flag that takes a value.

    Returns:
        The parser. Its values are strings, and None where a flag is not given.
    """
    parser = Parser(
        prog=f"purejaxrl {command}",
        usage=f"purejaxrl {command} {usage}",
        description=description,
        allow_abbrev=False,
        add_help=False,
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="run folder")
    for name, text in flags:
        parser.add_argument(f"--{name}", help=text, metavar="VALUE")
    return parser


def parse_folders(parser: Parser, words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Parse a command line of run folders and flags, or print help and exit where that is asked for.

    Args:
        parser: A parser that `folder_parser` has made.
        words: The arguments after the command.

    Returns:
        The run folders and the flags.

    Raises:
        InputError: If a flag is unknown or has no value.
    """
    if {"--help", "-h"} & set(words):
        print(parser.format_help(), end="")
        raise SystemExit(0)
    known, unknown = parser.parse_known_intermixed_args(words)
    if unknown:
        raise InputError(_explain_unknown(unknown[0], parser))
    flags = vars(known)
    _refuse_empty(flags)
    return flags.pop("runs"), flags


def _refuse_empty(flags: dict[str, Any]) -> None:
    """Refuse a flag with an empty value, which `--out "$NAME"` has where the variable is not set."""
    for name, value in flags.items():
        if value == "" or (isinstance(value, list) and "" in value):
            where = "RUN" if name == "runs" else f"--{name}"
            raise InputError(f"{where}: '' is not allowed; it takes a value")


def parse_folder(parser: Parser, words: list[str]) -> tuple[Path, dict[str, Any]]:
    """Parse a command line of one run folder and flags, as `parse_folders` does.

    Args:
        parser: A parser that `folder_parser` has made.
        words: The arguments after the command.

    Returns:
        The run folder and the flags.

    Raises:
        InputError: If there is not exactly one run folder, or a flag is unknown or has no value.
    """
    runs, flags = parse_folders(parser, words)
    if len(runs) != 1:
        raise InputError(f"{parser.prog}: give one run folder, not {len(runs)}; {parser.prog} --help says more")
    return home_path(runs[0]), flags


def resume_parser() -> Parser:
    """Make the parser of `resume`; `parse_resumption` converts its values."""
    from purejaxrl.components.hyperparameters import field_specs
    from purejaxrl.experiment.options import FOR_RESUMING, Options

    parser = folder_parser(
        "resume",
        "RUN [--extend AMOUNT] ...",
        "Go on with a training from its newest checkpoint, as if it had never stopped.",
        [
            ("extend", "a larger budget, in the training's own unit"),
            ("log_to", "also log to tensorboard (RUN/tensorboard) or wandb (./wandb)"),
        ],
    )
    add_cluster_flags(parser)
    specs = field_specs(Options)
    for name in FOR_RESUMING:
        _add_option(parser, name, specs[name], " (default as before)")
    for name, text in (
        ("restart", "train anew where there is no checkpoint, and replace the rows and parameters that are there"),
        ("quiet", "print nothing but errors"),
        ("verbose", VERBOSE_HELP),
        ("json", "print the summary as JSON and nothing else"),
        ("no_cache", "compile anew, and keep nothing compiled for later runs"),
        ("dry_run", "check everything, print the configuration and the checkpoint, and stop"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=text)
    return parser


def parse_resumption(parser: Parser, words: list[str]) -> tuple[Path, dict[str, Any]]:
    """Parse the command line of `resume`.

    Args:
        parser: What `resume_parser` returns.
        words: The arguments after the command.

    Returns:
        The run folder; and the flags given, as keyword arguments of `purejaxrl.resume` and the command's own.

    Raises:
        InputError: If a flag is unknown or not allowed.
    """
    from purejaxrl.components.hyperparameters import field_specs
    from purejaxrl.experiment.options import FOR_RESUMING, Options

    path, known = parse_folder(parser, words)
    flags = {name: value for name, value in known.items() if value is not None}
    if "extend" in flags:
        flags["extend"] = convert_count("extend", flags["extend"])
    specs = field_specs(Options)
    flags |= {
        name: _convert(name, flags[name], specs[name]._replace(optional=False))
        for name in FOR_RESUMING
        if isinstance(flags.get(name), str)
    }
    return path, flags


def convert_count(name: str, text: str) -> int:
    """Convert a flag's text to a whole number.

    Args:
        name: Name of the flag.
        text: Its text.

    Returns:
        The number.

    Raises:
        InputError: If it is none.
    """
    from purejaxrl.components.hyperparameters import Spec

    number: int = _convert(name, text, Spec(help="", is_leaf=False, kind=int))
    return number


def parse(parser: Parser, agent: Agent, words: list[str], *, is_sweep: bool) -> dict[str, Any]:
    """Parse the command line of `train`, `sweep` or `tune`.

    Args:
        parser: What `training_parser` returns.
        agent: The algorithm.
        words: The arguments after the algorithm.
        is_sweep: Whether hyperparameters may have alternatives, which become lists, and ranges, which become Ranges.

    Returns:
        The flags given, as keyword arguments of `purejaxrl.train`, `sweep` or `tune` and the command's own.

    Raises:
        InputError: If a flag is unknown or not allowed.
    """
    from purejaxrl.components.hyperparameters import field_specs
    from purejaxrl.experiment.labels import is_preset_file
    from purejaxrl.experiment.options import Options
    from purejaxrl.experiment.search import Search

    known, unknown = parser.parse_known_args(words)
    if unknown:
        raise InputError(_explain_unknown(unknown[0], parser))
    flags = {name: value for name, value in vars(known).items() if value is not None}
    _refuse_empty(flags)
    flags.setdefault("out", None)
    options = field_specs(Search) | field_specs(Options)
    own = field_specs(agent.Config)
    for name in flags:
        if name in own:
            text = flags[name] if isinstance(flags[name], str) else " ".join(flags[name])
            flags[name] = (_convert_alternatives if is_sweep else _convert_one)(name, text, own[name])
        elif name in options and isinstance(flags[name], str):
            if "," in flags[name] and not (name == "preset" and is_preset_file(flags[name])):
                raise InputError(f"--{name}: {flags[name]} is a list; --{name} takes one value")
            flags[name] = _convert(name, flags[name], options[name])
    return flags


def _explain_unknown(word: str, parser: Parser) -> str:
    """The error message about a word that no flag takes."""
    if not word.startswith("-"):
        return f"unexpected {word!r}; flags start with --"
    from purejaxrl.components.hyperparameters import REMOVED

    name = word.partition("=")[0].removeprefix("--")
    if name in REMOVED:
        return f"--{name}: {REMOVED[name]}"
    flags = [flag for action in parser._actions for flag in action.option_strings]
    close = difflib.get_close_matches(word.partition("=")[0], flags, n=1)
    return f"unknown flag {word}; " + (
        f"did you mean {close[0]}?" if close else f"{parser.prog} --help lists those there are"
    )


def _convert_alternatives(name: str, text: str, spec: Spec) -> Any:
    """What `sweep` takes for a hyperparameter: one value, a list of alternatives, or a Range."""
    from purejaxrl.experiment.settings import Range, takes_range

    if ".." in text:
        if not takes_range(spec):
            raise InputError(f"--{name}: {text} is a range; it takes {spec.allowed}")
        bounds, _, scale = text.partition(":")
        low, _, high = bounds.partition("..")
        if scale not in ("", "log"):
            raise InputError(f"--{name}: {text!r} is not a range; write LOW..HIGH or LOW..HIGH:log")
        ends = [_convert(name, end, spec._replace(optional=False)) for end in (low, high)]
        return Range(ends[0], ends[1], log=scale == "log")
    entries = _split_alternatives(text)
    if not all(entry.strip() for entry in entries):
        raise InputError(f"--{name}: {text!r} holds an empty alternative; separate values with single commas")
    values = [_convert(name, entry.strip(), spec) for entry in entries]
    are_single = spec.length is not None and len(values) > 1 and all(len(value) == 1 for value in values)
    if are_single and (spec.length or len(set(values)) < len(values)):
        raise InputError(
            f"--{name}: {text} is a list of alternatives; one value of several numbers is written {_join_numbers(text)}"
        )
    return values if len(values) > 1 else values[0]


def _join_numbers(text: str) -> str:
    """Numbers that commas separate, written as one value."""
    return "x".join(word.strip() for word in text.split(","))


def _split_alternatives(text: str) -> list[str]:
    """The parts of a text between commas outside parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _convert_one(name: str, text: str, spec: Spec) -> Any:
    """The one value that `train` takes for a hyperparameter."""
    if len(_split_alternatives(text)) > 1 or (".." in text and not spec.choices):
        hint = f"; one value of several numbers is written {_join_numbers(text)}" if spec.length is not None else ""
        raise InputError(
            f"--{name}: {text} is a list of alternatives; train takes one value, sweep takes several{hint}"
        )
    return _convert(name, text, spec)


def _convert(name: str, text: str, spec: Spec) -> Any:
    """A flag's text as a value of the type that its Spec asks for; bounds are checked later."""
    if spec.optional and text.lower() in ("none", "off"):
        return None
    if spec.length is not None:
        words = text.translate(str.maketrans("x(),", "    ")).split()
        return tuple(_convert(name, word, spec._replace(length=None, optional=False)) for word in words)
    if spec.kind in (str, object):
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
