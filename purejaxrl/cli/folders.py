"""The commands `evaluate`, `export` and `compare`."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from purejaxrl.cli.flags import Parser, convert_count, folder_parser, parse_folder, parse_folders
from purejaxrl.cli.streams import shorten_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from purejaxrl.analysis.evaluation import Evaluation
    from purejaxrl.experiment.run_config import Recorded

# The results of as many runs or settings are printed one by one.
MAX_SHOWN = 20


def evaluate_parser() -> Parser:
    """Make the parser of `evaluate`."""
    parser = folder_parser(
        "evaluate",
        "RUN [--episodes N] [--params KIND] [--backend NAME] [--seed N] [--json]",
        "Play whole episodes with the greedy policy of every run.",
        [
            ("episodes", "of each run (default 100)"),
            ("params", "last (default), or best by the evaluations during training"),
            ("backend", "gymnax (default): as it was trained; gymnasium: CartPole as PyTorch users have it"),
            ("seed", "decides where episodes start (default 0)"),
        ],
    )
    parser.add_argument(
        "--json", action="store_true", help="print means and every run's returns as JSON and nothing else"
    )
    parser.set_defaults(episodes="100", params="last", backend="gymnax", seed="0")
    return parser


def export_parser() -> Parser:
    """Make the parser of `export`."""
    parser = folder_parser(
        "export",
        "RUN [--params KIND] [--out FOLDER]",
        "Write policy.safetensors and policy.json: parameters alone, for other programs.",
        [
            ("params", "last (default), or best by the evaluations during training"),
            ("out", "folder to write to (default RUN/export)"),
        ],
    )
    parser.set_defaults(params="last")
    return parser


def compare_parser() -> Parser:
    """Make the parser of `compare`."""
    parser = folder_parser(
        "compare",
        "RUN RUN ... [--out FOLDER] [--json]",
        "Compare run folders of one environment: interquartile means with 95% intervals, runs solved, probability of "
        "improvement. Where budgets differ, all are compared at the env steps of the smallest.",
        [("out", "also write compare.csv, improvement.csv and compare.png to this folder")],
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON and nothing else")
    return parser


def _evaluate(words: list[str]) -> int:
    """Run `purejaxrl evaluate RUN`."""
    path, flags = parse_folder(evaluate_parser(), words)
    episodes, seed = (convert_count(name, flags[name]) for name in ("episodes", "seed"))
    use_cpu()

    from purejaxrl import load
    from purejaxrl.analysis import evaluation
    from purejaxrl.storage.files import plain

    frame = evaluation.evaluate(path, episodes=episodes, params=flags["params"], seed=seed, backend=flags["backend"])
    config = load(path).config
    found = evaluation.Evaluation.from_returns(frame, config)
    if flags["json"]:
        returns = frame.groupby("run")["return"].agg(list).to_dict()
        whole = {"settings": found.settings.to_dict("records")} if config.is_sweep else {"mean": found.mean}
        print(json.dumps(plain({**whole, "returns": returns}), indent=2))
    elif config.is_sweep:
        from purejaxrl.analysis.statistics import evaluation_table
        from purejaxrl.experiment.labels import terminal_columns

        print(evaluation_table(found.settings, terminal_columns(sys.stdout)))
        if (count := found.returns["run"].nunique()) < config.runs:
            print(f"{count} of {config.runs} runs have parameters")
    else:
        _print_runs(found, episodes, config.runs)
    return 0


def _print_runs(found: Evaluation, episodes: int, runs: int) -> None:
    """Print the evaluation of one setting, of whose `runs` some may have no parameters."""
    per_run = found.returns.groupby("run")["return"].agg(["mean", "std", "min", "max"])
    for run, row in per_run.head(MAX_SHOWN).iterrows():
        error = 1.96 * row["std"] / episodes**0.5
        interval = f" +- {error:.1f}" if error == error else ""
        print(f"run {run}: {row['mean']:.1f}{interval} (from {row['min']:g} to {row['max']:g})")
    if len(per_run) > MAX_SHOWN:
        print(f"and {len(per_run) - MAX_SHOWN} more runs")
    if len(per_run) < runs:
        print(f"mean of {len(per_run)} of {runs} runs, the others have no parameters: {_with_interval(found)}")
    elif runs > 1:
        print(f"mean of all {runs} runs: {_with_interval(found)}")


def _with_interval(found: Evaluation) -> str:
    """A mean with its interval; one run has none."""
    return f"{found.mean:.1f}" + (f" [{found.low:.1f}, {found.high:.1f}]" if found.low == found.low else "")


def _export(words: list[str]) -> int:
    """Run `purejaxrl export RUN`."""
    path, flags = parse_folder(export_parser(), words)
    use_cpu()

    from purejaxrl import load
    from purejaxrl.analysis import export
    from purejaxrl.storage.files import read_json

    weights, description = export.export(path, **flags)
    print(shorten_path(weights))
    print(shorten_path(description))
    config = load(path).config
    if config.is_sweep:
        parts = read_json(description)["parts"]
        lines = [
            f"{prefix} {line}".lstrip()
            for prefix, part in parts.items()
            for line in name_settings(config, part["runs"])
        ]
        more = [f"and {len(lines) - MAX_SHOWN} more settings"] if len(lines) > MAX_SHOWN else []
        print("\n".join([*lines[:MAX_SHOWN], *more]))
    return 0


def name_settings(config: Recorded, runs: Sequence[int]) -> list[str]:
    """Say which runs have which setting of a sweep.

    Args:
        config: What was trained.
        runs: Numbers of runs, in order.

    Returns:
        A line for each setting.
    """
    labels = config.labels
    by_setting: dict[int, list[int]] = {}
    for run in runs:
        by_setting.setdefault(run // config.seeds, []).append(run)
    return [
        f"{f'run {own[0]}' if len(own) == 1 else f'runs {own[0]} to {own[-1]}'}: {labels[setting]}"
        for setting, own in by_setting.items()
    ]


def use_cpu() -> None:
    """Let JAX run on the CPU, unless its environment variables say otherwise, with the user's compilation cache.

    Only a program may decide that; importing the package never does.
    """
    import jax

    from purejaxrl.training.compilation_cache import use_compilation_cache

    if "JAX_PLATFORMS" not in os.environ and "JAX_PLATFORM_NAME" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    use_compilation_cache()


def _compare(words: list[str]) -> int:
    """Run `purejaxrl compare RUN RUN ...`."""
    runs, flags = parse_folders(compare_parser(), words)

    from purejaxrl.analysis import compare as comparing
    from purejaxrl.experiment.labels import terminal_columns

    comparison = comparing.compare(runs)
    if flags["out"]:
        comparing.write_comparison(comparison, runs, flags["out"])
    if flags["json"]:
        from purejaxrl.storage.files import plain

        rows = comparison.frame.assign(setting=comparison.labels).to_dict("records")
        print(json.dumps(plain(rows), indent=2))
        for note in comparison.notes:
            print(f"purejaxrl: compare: {note}", file=sys.stderr)
    else:
        print(comparing.format_comparison(comparison, terminal_columns(sys.stdout)))
    return 0


COMMANDS = {"evaluate": _evaluate, "export": _export, "compare": _compare}
