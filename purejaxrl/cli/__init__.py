"""The command line: commands and exit codes. Nothing is imported before it is needed."""

from __future__ import annotations

import gc
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from typing import NoReturn

import purejaxrl
from purejaxrl.cli import caching, completion, folders, listing, plots, streams, training
from purejaxrl.errors import InputError, PurejaxrlError, ResourceError
from purejaxrl.training.signals import end_at_signals

TRAININGS = ("train", "sweep", "tune", "resume")
# Flags with which even these do nothing but print.
PRINTING = ("--json", "--dry_run", "--help", "-h")
USAGE = """usage: purejaxrl COMMAND ...

Deep reinforcement learning as pure functions in JAX.

commands:
  train ALGORITHM   train one setting, many seeds side by side
  sweep ALGORITHM   train every combination of hyperparameters, and compare them
  tune ALGORITHM    search for the best hyperparameters, and judge them on fresh seeds
  resume RUN        go on with a training from its newest checkpoint, or with a larger budget
  evaluate RUN      play whole episodes with the greedy policies of a run folder
  plot RUN ...      plot the figures of a run folder again, or curves of several in one figure
  video RUN         record a video of the greedy policy in CartPole
  export RUN        write the parameters alone, for other programs
  compare RUN RUN   compare run folders: intervals and probabilities of improvement
  list              algorithms, presets and environments
  cache             show or clear the cache of compiled programs
  completion SHELL  complete commands and flags in bash, zsh or fish

purejaxrl train ALGORITHM --help shows every flag. Flags are written with underscores; hyphens mean the same.

options:
  --help            this text
  --version         the version
"""


def entry() -> NoReturn:
    """Run the program `purejaxrl`, which is `main` with the right exit code whenever a signal comes.

    Before there is anything to save, signals end the process at once and without an exception, which would surface from
    whatever is being imported. A compiler that is still running is not waited for.
    """
    # Nearly all that imports and tracing allocate lives on, and looking for garbage in it takes a tenth of the time.
    gc.set_threshold(100_000, 50, 100)
    streams.open_closed()
    end_at_signals()
    code = main()
    is_busy = any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())
    if is_busy:
        os._exit(code)
    # Python would look for garbage in all that was imported and traced before it ends, for half a second.
    gc.freeze()
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    A command does its whole work even if standard output or standard error fail. If its output could not be written,
    standard error says so and the exit code is 6, with two exceptions: a reader that has seen enough, like `head`, is
    no error, and the exit code of a training tells what became of the training.

    Args:
        arguments: The command and its flags, by default those of the process.

    Returns:
        The exit code.
    """
    words = [_underscored(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    is_debugging = "--debug" in words
    words = [word for word in words if word != "--debug"]
    # It warns about its caches and fonts, for instance where the user has no home folder.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    with streams.safe_streams() as output:
        code = _run(words, is_debugging)
        output.flush()
        if output.failure is None or isinstance(output.failure, BrokenPipeError):
            return code
        print(f"purejaxrl: cannot write to standard output: {_reason(output.failure)}", file=sys.stderr)
        is_training = bool(words) and words[0] in TRAININGS and not set(PRINTING) & set(words)
        return code if is_training else code or ResourceError.exit_code


def _run(words: list[str], is_debugging: bool) -> int:
    """Run a command, print its errors, and return its exit code."""
    try:
        return _dispatch(words, is_debugging)
    except SystemExit as stop:
        # Parsers exit after they have printed help.
        return int(stop.code or 0)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        if is_debugging:
            traceback.print_exc()
        message, code = _explain(error)
        print(f"purejaxrl: {message}", file=sys.stderr)
        return code


def _reason(error: Exception) -> str:
    """The message of an error, without the number that an OSError puts before it."""
    return str(error.strerror or error) if isinstance(error, OSError) else str(error)


def _explain(error: Exception) -> tuple[str, int]:
    """The line to print for an error, and its exit code."""
    if isinstance(error, PurejaxrlError):
        return " ".join(error.with_flags.split()), error.exit_code
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        return f"out of memory: {text[:200]}", 6
    return f"internal error: {type(error).__name__}: {text[:200]} (--debug shows the traceback)", 1


def _underscored(word: str) -> str:
    """A word with --log-every written as --log_every; values stay as they are."""
    if not word.startswith("--"):
        return word
    flag, equals, value = word.partition("=")
    return "--" + flag[2:].replace("-", "_") + equals + value


def _dispatch(words: list[str], is_debugging: bool) -> int:
    modules = (training, folders, plots, listing, caching, completion)
    commands: dict[str, Callable[[list[str]], int]] = {
        name: run for module in modules for name, run in module.COMMANDS.items()
    }
    if not words or words[0] in ("--help", "-h", "help"):
        print(USAGE, end="")
        return 0
    if words[0] == "--version":
        print(f"purejaxrl {purejaxrl.__version__}")
        return 0
    if words[0] not in commands:
        raise InputError(f"unknown command {words[0]!r}; use one of {', '.join(commands)}")
    takes_debug = is_debugging and words[0] in TRAININGS
    command = partial(commands[words[0]], words[1:] + ["--debug"] * takes_debug)
    return _print_kept(words, command) if words[0] == "list" or {"--help", "-h"} & set(words) else command()


def _print_kept(words: list[str], command: Callable[[], int]) -> int:
    """Run a command that prints a text and nothing else, or print what it printed the last time.

    The text follows from the code, the environments that gymnax has, and how wide a terminal is.
    """
    import shutil
    from importlib.metadata import version

    from purejaxrl.storage.cache import find_text, keep_text

    columns = shutil.get_terminal_size().columns
    looks = {name: os.environ.get(name) for name in ("NO_COLOR", "FORCE_COLOR", "PYTHON_COLORS", "TERM")}
    file, text = find_text(words=words, columns=columns, looks=looks, python=sys.version, gymnax=version("gymnax"))
    if text is None:
        with redirect_stdout(io.StringIO()) as caught:
            try:
                code = command()
            except SystemExit as stop:
                # Parsers exit after they have printed help.
                code = int(stop.code or 0)
        text = caught.getvalue()
        if code:
            print(text, end="")
            return code
        if file is not None:
            keep_text(file, text)
    print(text, end="")
    return 0
