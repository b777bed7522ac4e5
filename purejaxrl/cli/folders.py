"""Commands that play, export and compare what run folders hold."""

from __future__ import annotations

import json
import os

from purejaxrl.cli.flags import Parser, convert_count, folder_parser, parse_folder, parse_folders, shows_help
from purejaxrl.cli.streams import shown

# Runs beyond so many are summed up only.
MAX_SHOWN = 20


def evaluate_parser() -> Parser:
    """The flags of `evaluate`."""
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
    parser.add_argument("--json", action="store_true", help="print every run's returns as JSON and nothing else")
    parser.set_defaults(episodes="100", params="last", backend="gymnax", seed="0")
    return parser


def export_parser() -> Parser:
    """The flags of `export`."""
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
    """The flags of `compare`."""
    parser = folder_parser(
        "compare",
        "RUN RUN ... [--out FOLDER] [--json]",
        "Compare run folders of one environment: interquartile means with 95% intervals, runs solved, probability of "
        "improvement.",
        [("out", "also write compare.csv, improvement.csv and compare.png to this folder")],
    )
    parser.add_argument("--json", action="store_true", help="print the table as JSON and nothing else")
    return parser


def evaluate(words: list[str]) -> int:
    """`purejaxrl evaluate RUN`."""
    parser = evaluate_parser()
    if shows_help(words, parser.format_help()):
        return 0
    path, known = parse_folder(parser, words)
    episodes, seed = (convert_count(name, known[name]) for name in ("episodes", "seed"))
    use_cpu()

    from purejaxrl.analysis import evaluation
    from purejaxrl.storage.files import plain

    frame = evaluation.evaluate(path, episodes=episodes, params=known["params"], seed=seed, backend=known["backend"])
    per_run = frame.groupby("run")["return"].agg(["mean", "std", "min", "max"])
    if known["json"]:
        returns = frame.groupby("run")["return"].agg(list).to_dict()
        print(json.dumps(plain({"mean": frame["return"].mean(), "returns": returns}), indent=2))
        return 0
    for run, row in per_run.head(MAX_SHOWN).iterrows():
        error = 1.96 * row["std"] / episodes**0.5
        interval = f" +- {error:.1f}" if error == error else ""
        print(f"run {run}: {row['mean']:.1f}{interval} (from {row['min']:g} to {row['max']:g})")
    if len(per_run) > MAX_SHOWN:
        print(f"and {len(per_run) - MAX_SHOWN} more runs")
    if len(per_run) > 1:
        print(f"mean of all {len(per_run)} runs: {per_run['mean'].mean():.1f}")
    return 0


def export(words: list[str]) -> int:
    """`purejaxrl export RUN`."""
    parser = export_parser()
    if shows_help(words, parser.format_help()):
        return 0
    path, known = parse_folder(parser, words)
    use_cpu()

    from purejaxrl.analysis import export

    for written in export.export(path, **known):
        print(shown(written))
    return 0


def use_cpu() -> None:
    """Keep JAX on the CPU, with programs from the user's cache; only a program may decide that.

    JAX's own variables say where else.
    """
    import jax

    from purejaxrl.training.compilation_cache import use_compilation_cache

    if "JAX_PLATFORMS" not in os.environ and "JAX_PLATFORM_NAME" not in os.environ:
        jax.config.update("jax_platforms", "cpu")
    use_compilation_cache()


def compare(words: list[str]) -> int:
    """`purejaxrl compare RUN RUN ...`."""
    parser = compare_parser()
    if shows_help(words, parser.format_help()):
        return 0
    runs, known = parse_folders(parser, words)

    from purejaxrl.analysis import compare as comparing

    comparison = comparing.compare(runs)
    if known["out"]:
        comparing.write(comparison, runs, known["out"])
    if known["json"]:
        from purejaxrl.storage.files import plain

        rows = comparison.frame.assign(setting=comparison.labels).to_dict("records")
        print(json.dumps(plain(rows), indent=2))
    else:
        print(comparing.in_words(comparison))
    return 0
