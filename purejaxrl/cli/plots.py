"""The commands `plot` and `video`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from purejaxrl.cli.flags import Parser, convert_count, folder_parser, parse_folder, parse_folders
from purejaxrl.cli.folders import name_settings, use_cpu
from purejaxrl.cli.streams import shorten_path
from purejaxrl.errors import InputError, PurejaxrlError
from purejaxrl.storage.files import absolute_path, home_path

if TYPE_CHECKING:
    from purejaxrl.experiment.run_config import Recorded


def plot_parser() -> Parser:
    """Make the parser of `plot`."""
    return folder_parser(
        "plot",
        "RUN ... [--out FILE] [--column NAME]",
        "Plot the figures of a run folder again. With --out, plot the learning curves of one or several folders of one "
        "environment in one figure instead.",
        [
            ("out", "the figure's name, such as curves.png, curves.pdf or curves.svg"),
            ("column", "with --out: plot another column of metrics.csv, such as loss"),
        ],
    )


def video_parser() -> Parser:
    """Make the parser of `video`."""
    parser = folder_parser(
        "video",
        "RUN [--out FILE] [--run N] [--params KIND] [--seed N] [--max_steps N]",
        "Record an episode of the greedy policy of the best run, or of another, in CartPole, from states or images.",
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


def _plot(words: list[str]) -> int:
    """Run `purejaxrl plot RUN ...`."""
    parser = plot_parser()
    runs, flags = parse_folders(parser, words)
    if not runs:
        raise InputError(f"{parser.prog}: give a run folder; {parser.prog} --help says more")
    if flags["out"] is None:
        if len(runs) > 1:
            raise InputError(f"plot: {len(runs)} folders are plotted in one figure; give its name with --out")
        if flags["column"] is not None:
            raise InputError("--column: it goes with --out")
        written = _write_figures(home_path(runs[0]))
    else:
        written = [_write_curves(runs, home_path(flags["out"]), flags["column"])]
    for path in written:
        print(path)
    return 0


@contextmanager
def _refusing_bad_tables(what: str) -> Iterator[None]:
    """Turn errors of plotting tables from files into InputErrors: anyone may have edited them."""
    try:
        yield
    except PurejaxrlError:
        raise
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"plot: cannot plot {what}: its tables are not those of a training ({error!r})") from error


def _write_figures(path: Path) -> list[Path]:
    """Write the figures of a run folder again."""
    from purejaxrl import load
    from purejaxrl.analysis.figures import write_figures
    from purejaxrl.storage.run_folder import open_existing

    result = load(path)
    with open_existing(path) as folder, _refusing_bad_tables(str(path)):
        written = write_figures(folder, result.config, result.summary_json)
    if not written:
        raise InputError(f"{path} holds no metrics.csv; no interval of the training has ended yet")
    return written


def _write_curves(runs: list[str], out: Path, column: str | None) -> Path:
    """Plot the curves of run folders in one figure."""
    from purejaxrl import load
    from purejaxrl.analysis.figures import check_figure_path, write_curves

    check_figure_path(out)
    results = [load(run) for run in runs]
    env = results[0].config.env
    for run, result in zip(runs, results, strict=True):
        if result.config.env != env:
            environments = f"{env} in {runs[0]}, {result.config.env} in {run}"
            raise InputError(f"plot: environment {environments}; give folders of one environment")
    names = [absolute_path(run).resolve().name for run in runs]
    names = runs if len(set(names)) < len(names) else names
    plotters = [partial(result.plot, column=column) for result in results]
    if len(runs) > 1:
        plotters = [
            partial(result.plot, column=column, label=name) for result, name in zip(results, names, strict=True)
        ]
    mixed = _describe_mixture(names, [result.config for result in results])
    for note in mixed.values():
        print(f"purejaxrl: plot: {note}", file=sys.stderr)
    title = f"{env}: {', '.join(mixed).lower()} differ" if mixed else None
    with _refusing_bad_tables(" ".join(runs)):
        write_curves(out, plotters, title)
    return out


def _describe_mixture(names: Sequence[str], configs: Sequence[Recorded]) -> dict[str, str]:
    """Say in what folders differ that are plotted in one figure, by what it is."""
    from purejaxrl.analysis.compare import describe_differences, describe_env_params

    return describe_differences(
        names,
        {
            "Observation types": [config.observation_type for config in configs],
            "Environment parameters": describe_env_params(configs),
            "Presets": [config.preset for config in configs],
            "Budgets": [
                " and ".join(dict.fromkeys(str(budget) for budget in config.budgets if budget)) or None
                for config in configs
            ],
        },
    )


def _video(words: list[str]) -> int:
    """Run `purejaxrl video RUN`."""
    path, flags = parse_folder(video_parser(), words)
    seed, max_steps = (convert_count(name, flags[name]) for name in ("seed", "max_steps"))

    from purejaxrl import load
    from purejaxrl.storage.run_folder import open_existing
    from purejaxrl.storage.video_files import check_target

    result = load(path)
    if flags["run"] is not None:
        run = convert_count("run", flags["run"])
        if not 0 <= run < len(result):
            raise InputError(f"--run: {run} is not allowed; {path} has runs 0 to {len(result) - 1}")
        result = result[run]
    out = home_path(flags["out"] or path / "video.gif")
    check_target("--out", out)
    use_cpu()
    with nullcontext() if flags["out"] else open_existing(path):
        shown = result if len(result) == 1 else result.best()
        print(shorten_path(shown.video(out, params=flags["params"], seed=seed, max_steps=max_steps)))
    if result.config.is_sweep:
        print(name_settings(result.config, shown.runs.tolist())[0])
    return 0


COMMANDS = {"plot": _plot, "video": _video}
