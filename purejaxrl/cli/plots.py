"""Commands that draw: `plot` and `video`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from purejaxrl.cli.flags import Parser, convert_count, folder_parser, parse_folder, parse_folders, shows_help
from purejaxrl.cli.folders import use_cpu
from purejaxrl.cli.streams import shown
from purejaxrl.errors import InputError, PurejaxrlError
from purejaxrl.storage.files import absolute_path, home_path


def plot_parser() -> Parser:
    """The flags of `plot`."""
    return folder_parser(
        "plot",
        "RUN ... [--out FILE] [--column NAME]",
        "Draw the pictures of a run folder anew. With --out, draw the learning curves of one or several folders of one "
        "environment into one picture instead.",
        [
            ("out", "a picture's name, as curves.png, curves.pdf or curves.svg"),
            ("column", "with --out: draw another column of metrics.csv, as loss"),
        ],
    )


def video_parser() -> Parser:
    """The flags of `video`."""
    parser = folder_parser(
        "video",
        "RUN [--out FILE] [--run N] [--params KIND] [--seed N] [--max_steps N]",
        "Film an episode of the greedy policy of the best run, or of another, in CartPole, from states or images.",
        [
            ("out", "a name that ends in .gif, or in .mp4 where ffmpeg is installed (default RUN/video.gif)"),
            ("run", "number of the run (default: the best)"),
            ("params", "last (default), or best by the evaluations during training"),
            ("seed", "decides where the episode starts (default 0)"),
            ("max_steps", "cut the episode after so many steps (default 500)"),
        ],
    )
    parser.set_defaults(params="last", seed="0", max_steps="500")
    return parser


def plot(words: list[str]) -> int:
    """`purejaxrl plot RUN ...`."""
    parser = plot_parser()
    if shows_help(words, parser.format_help()):
        return 0
    runs, known = parse_folders(parser, words)
    if not runs:
        raise InputError(f"{parser.prog}: give a run folder; {parser.prog} --help says more")
    if known["out"] is None:
        if len(runs) > 1:
            raise InputError(f"plot: {len(runs)} folders are drawn into one picture; give its name with --out")
        if known["column"] is not None:
            raise InputError("--column: it goes with --out")
        written = draw_anew(home_path(runs[0]))
    else:
        written = [draw_together(runs, home_path(known["out"]), known["column"])]
    for path in written:
        print(path)
    return 0


@contextmanager
def drawing(what: str) -> Iterator[None]:
    """Whatever goes wrong in drawing tables of files is an InputError: anyone may have edited them."""
    try:
        yield
    except PurejaxrlError:
        raise
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"plot: cannot draw {what}: its tables are not those of a training ({error!r})") from error


def draw_anew(path: Path) -> list[Path]:
    """Draw the pictures of a run folder, and return where they are."""
    from purejaxrl import load
    from purejaxrl.analysis.figures import write_pictures
    from purejaxrl.storage.run_folder import open_existing

    result = load(path)
    with open_existing(path) as folder, drawing(str(path)):
        written = write_pictures(folder, result.recorded, result.facts)
    if not written:
        raise InputError(f"{path} holds no metrics.csv; no interval of the training has ended yet")
    return written


def draw_together(runs: list[str], out: Path, column: str | None) -> Path:
    """Draw the curves of run folders into one picture."""
    from purejaxrl import load
    from purejaxrl.analysis.figures import check_target, write_curves

    check_target(out)
    results = [load(run) for run in runs]
    for run, result in zip(runs, results, strict=True):
        if result.recorded.env != results[0].recorded.env:
            environments = f"{results[0].recorded.env} in {runs[0]}, {result.recorded.env} in {run}"
            raise InputError(f"plot: environment {environments}; give folders of one environment")
    names = [absolute_path(run).resolve().name for run in runs]
    names = runs if len(set(names)) < len(names) else names
    draws = [partial(result.plot, column=column) for result in results]
    if len(runs) > 1:
        draws = [partial(draw, label=name) for draw, name in zip(draws, names, strict=True)]
    with drawing(" ".join(runs)):
        write_curves(out, draws)
    return out


def video(words: list[str]) -> int:
    """`purejaxrl video RUN`."""
    parser = video_parser()
    if shows_help(words, parser.format_help()):
        return 0
    path, known = parse_folder(parser, words)
    seed, max_steps = (convert_count(name, known[name]) for name in ("seed", "max_steps"))

    from purejaxrl import load
    from purejaxrl.storage.run_folder import open_existing
    from purejaxrl.storage.video_files import check_target

    result = load(path)
    if known["run"] is not None:
        run = convert_count("run", known["run"])
        if not 0 <= run < len(result):
            raise InputError(f"--run: {run} is not allowed; {path} has runs 0 to {len(result) - 1}")
        result = result[run]
    out = home_path(known["out"] or path / "video.gif")
    check_target("--out", out)
    use_cpu()
    if known["out"]:
        print(shown(result.video(out, params=known["params"], seed=seed, max_steps=max_steps)))
        return 0
    with open_existing(path):
        print(shown(result.video(out, params=known["params"], seed=seed, max_steps=max_steps)))
    return 0
