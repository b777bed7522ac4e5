"""The command `completion`, which lets a shell complete commands, flags and file names."""

from __future__ import annotations

import argparse

from purejaxrl.errors import InputError

HELP = """usage: purejaxrl completion SHELL

Print what makes a shell complete commands, flags and file names; SHELL is bash, zsh or fish.

  bash   purejaxrl completion bash > ~/.local/share/bash-completion/completions/purejaxrl
  zsh    purejaxrl completion zsh > ~/.zfunc/_purejaxrl        with ~/.zfunc in fpath, before compinit
  fish   purejaxrl completion fish > ~/.config/fish/completions/purejaxrl.fish
"""
SHELLS = ("bash", "zsh", "fish")


def _completion(words: list[str]) -> int:
    """Run `purejaxrl completion SHELL`."""
    if words and words[0] in ("--help", "-h"):
        print(HELP, end="")
        return 0
    if len(words) != 1 or words[0] not in SHELLS:
        raise InputError(f"completion: {' '.join(words)!r} is not a shell; use one of {', '.join(SHELLS)}")
    import shtab

    print(shtab.complete(_combined_parser(), shell=words[0]))
    return 0


def _combined_parser() -> argparse.ArgumentParser:
    """All commands and flags as one parser, which only completion needs."""
    import shtab

    from purejaxrl.agents import AGENTS
    from purejaxrl.cli import folders, plots
    from purejaxrl.cli.flags import resume_parser, training_parser

    whole = argparse.ArgumentParser(prog="purejaxrl")
    whole.add_argument("--version", action="store_true", help="the version")
    commands = whole.add_subparsers()
    # Commands without a help of their own would not be offered.
    for command, text in (
        ("train", "train one setting"),
        ("sweep", "train every combination of hyperparameters"),
        ("tune", "search for the best hyperparameters"),
    ):
        algorithms = commands.add_parser(command, help=text).add_subparsers()
        for name, agent in AGENTS.items():
            parser = training_parser(command, agent)
            algorithms.add_parser(name, parents=[parser], add_help=False, help=parser.description)
    for parser in (
        resume_parser(),
        folders.evaluate_parser(),
        folders.export_parser(),
        folders.compare_parser(),
        plots.plot_parser(),
        plots.video_parser(),
    ):
        name = parser.prog.split()[-1]
        added = commands.add_parser(name, parents=[parser], add_help=False, help=parser.description)
        for action in added._actions:
            if action.dest in ("runs", "out"):
                action.complete = shtab.FILE if action.dest == "out" else shtab.DIRECTORY  # type: ignore[attr-defined]
    commands.add_parser("list", help="algorithms, presets and environments").add_argument("--json", action="store_true")
    cache = commands.add_parser("cache", help="show or clear the cache of compiled programs")
    cache.add_argument("--clear", action="store_true")
    cache.add_argument("--json", action="store_true")
    commands.add_parser("completion", help="for your shell").add_argument("shell", choices=SHELLS)
    return whole


COMMANDS = {"completion": _completion}
