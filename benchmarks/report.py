"""Write RESULTS.md from the JSON files beside it: what was measured, and the commands that did it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from accelerator_report import accelerator_lines
from checkpoints import ROUNDS, SEEDS
from learning import EXPERIMENTS
from matplotlib.figure import Figure
from pixels_report import pixel_lines, write_figures
from quotes import update_quotes
from rivals_report import environment_lines, parity_lines, plot_parity, rival_lines, solved_lines
from scaling_report import plot_scaling, scaling_lines
from speed import UNITS
from tables import ON_AN_ACCELERATOR, machine_line, section, shown, table_line

HERE = Path(__file__).parent

GOALS = {
    "vpg-original-v0": "20-epoch mean at 195 before epoch 400 in at least 7 of 8 runs",
    "dqn-original-v0": "100-episode mean at 195 within 1200 episodes in at least 10 of 16 runs",
    "vpg-tuned-v1": "100-episode mean at 475 within 1 M env steps in at least 30 of 32 runs",
    "dqn-tuned-v1": "100-episode mean at 475 within 200 k env steps in at least 30 of 32 runs",
    "a3c-original-v0": "above 180, which the PyTorch original shows after 9000 episodes",
    "dqn-tuned-v0-images": "100-episode mean at 195 within 1200 episodes in at least 7 of 8 runs",
    "vpg-tuned-v0-images": "100-episode mean at 195 in at least 7 of 8 runs",
    "a3c-async-tuned-v0-images": "100-episode mean at 195 in at least 7 of 8 runs",
    "a3c-sync-tuned-v0-images": "100-episode mean at 195 in at least 7 of 8 runs",
    "a3c-async-tuned-v1": "100-episode mean at 475 within 500 k env steps in at least 30 of 32 runs",
    "a3c-sync-tuned-v1": "100-episode mean at 475 within 500 k env steps in at least 30 of 32 runs",
    "vpg-tuned-pendulum": "at least 6 of 8 runs end 500 or more above a random policy within 5 M env steps",
    "a3c-async-tuned-pendulum": "at least 6 of 8 runs end 500 or more above a random policy within 5 M env steps",
    "a3c-sync-tuned-pendulum": "at least 6 of 8 runs end 500 or more above a random policy within 5 M env steps",
}
ABOVE_RANDOM = 500


def main() -> None:
    """Write the file."""
    learning = json.loads((HERE / "learning.json").read_text())
    speed = json.loads((HERE / "speed.json").read_text())
    sweeps = json.loads((HERE / "sweeps.json").read_text())
    frames = json.loads((HERE / "frames.json").read_text())
    delay = json.loads((HERE / "delay.json").read_text())
    pixels = json.loads((HERE / "pixels.json").read_text())
    plot_delay(delay).savefig(HERE / "delay.png", metadata={"Software": None})
    write_figures(pixels)
    lines = [
        "# Results",
        "",
        "Every part says when and with which command it was measured. Parts of before 2026-11-26 are "
        "older than the changes for speed that [the log](PERFORMANCE.md) has on top: these alter rounding, and neither "
        "learning nor seconds of those parts were measured again.",
        "",
        *speed_lines(speed),
        "",
        *against_pytorch(),
        *accelerator_lines(json.loads((HERE / "accelerator.json").read_text())),
        "",
        *sweep_lines(sweeps),
        "",
        *cluster_lines(json.loads((HERE / "clusters.json").read_text())),
        "",
        *tuning_lines(json.loads((HERE / "tuning.json").read_text())),
        "",
        *waiting_lines(json.loads((HERE / "waiting.json").read_text())),
        "",
        *checkpoint_lines(json.loads((HERE / "checkpoints.json").read_text())),
        "",
        *frame_lines(frames),
        "",
        *pixel_lines(pixels),
        "",
        *learning_lines(learning),
        *delay_lines(delay),
    ]
    results = "\n".join(lines) + "\n"
    (HERE / "RESULTS.md").write_text(results)
    update_quotes(results)


def against_pytorch() -> list[str]:
    """What has been measured beside others, which needs the extra `bench`, and against number of seeds."""
    rivals, floor, environment, scaling, parity, solved = (
        json.loads(file.read_text()) if (file := HERE / f"{name}.json").exists() else {}
        for name in ("rivals", "floor", "environment", "scaling", "parity", "solved")
    )
    lines: list[str] = []
    if rivals and floor:
        lines += [*rival_lines(rivals, floor), "", machine_line(rivals["machine"]), ""]
    if environment:
        lines += [*environment_lines(environment), ""]
    if scaling:
        plot_scaling(scaling).savefig(HERE / "scaling.png", metadata={"Software": None})
        lines += [*scaling_lines(scaling), ""]
    if parity:
        plot_parity(parity).savefig(HERE / "parity.png", metadata={"Software": None})
        lines += [*parity_lines(parity), ""]
    if solved:
        lines += [*solved_lines(solved), ""]
    return lines


def learning_lines(learning: dict[str, Any]) -> list[str]:
    """One section per experiment, every seed reported."""
    lines = [
        "## Learning",
        "",
        "Every seed from 0 is reported. Commands as shown, or all at once: `make bench-learning`. Training returns, with "
        "exploration; a dash means never. Wall times here are of a machine that was busy with other work as well.",
        "",
    ]
    for name in sorted(learning, key=list(EXPERIMENTS).index):
        row = learning[name]
        lines += [f"### {name}", "", f"`{row['command']}`", ""]
        if name in GOALS:
            lines += [f"Asked for: {GOALS[name]}.", ""]
        lines += [outcome(row), "", *table(row), "", machine_line(row["machine"]), ""]
    return lines


def outcome(row: dict[str, Any]) -> str:
    """The sentence that sums an experiment up."""
    if row["solved_at"] is None:
        random = row["random_policy_return"]
        above = sum(final is not None and final >= random + ABOVE_RANDOM for final in row["final_return_per_run"])
        return (
            f"**{above} of {row['runs']} runs** end {ABOVE_RANDOM} or more above a random policy's mean return of {random:.0f} "
            f"(1000 episodes). {row['env_steps']:,} env steps in {row['run_seconds']:.0f} s."
        )
    solved = [steps for steps in row["env_steps_to_solve_per_run"] if steps is not None]
    text = f"**{len(solved)} of {row['runs']} runs** reached a 100-episode mean of {row['solved_at']:g}"
    if solved:
        text += f", the median of them after {statistics.median(solved):,.0f} env steps, the last after {max(solved):,}"
    epochs = [epoch for epoch in row.get("first_epoch_of_20_at_threshold_per_run", []) if epoch is not None]
    if epochs:
        text += (
            f"; the 20-epoch mean reached it in {len(epochs)}, the median at epoch {statistics.median(epochs):.0f}, "
            f"the last at epoch {max(epochs)}"
        )
    return text + f". {row['env_steps']:,} env steps in {row['run_seconds']:.0f} s."


def table(row: dict[str, Any]) -> list[str]:
    """Numbers per seed."""
    columns = {
        "env steps to solve": row["env_steps_to_solve_per_run"] if row["solved_at"] is not None else None,
        "first epoch of the 20-epoch mean": row.get("first_epoch_of_20_at_threshold_per_run"),
        "highest 100-episode mean": row["best_return_100_per_run"],
        "last 100-episode mean": row["final_return_per_run"],
        "best greedy evaluation": row.get("best_eval_return_per_run"),
    }
    columns = {name: values for name, values in columns.items() if values is not None}
    head = ["| seed | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return head + [
        f"| {seed} | " + " | ".join(shown(values[seed]) for values in columns.values()) + " |"
        for seed in range(row["runs"])
    ]


def speed_lines(speed: dict[str, Any]) -> list[str]:
    """The table of costs per seed."""
    lines = [
        "## Speed",
        "",
        "`make bench`: VPG and DQN with preset `original` on CartPole-v0, A3C with preset `tuned` (16 actors, t_max 20) on "
        "CartPole-v1, state observations; median (fastest to slowest) of "
        f"{next(iter(speed['cases'].values()))['repetitions']} chunks after one to warm up, compile time apart, each case in "
        "a process of its own. Cost per seed is wall time / (seeds x iterations); for DQN an iteration is one env step with "
        "its gradient step, for A3C a round of 320 env steps and their updates.",
        "",
        "| case | cores | cost per seed | env steps/s in total | compile | peak memory of the process |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in speed["cases"].items():
        scale, unit = UNITS[row["algorithm"]]
        cost, low, high = (row[key] * scale for key in ("seconds_per_iteration_and_seed", "fastest", "slowest"))
        lines.append(
            f"| {name} | {row['cores']} | {cost:.1f} {unit} ({low:.1f} to {high:.1f}) | {row['env_steps_per_second']:,.0f} "
            f"| {row['compile_seconds']:.1f} s | {row['peak_memory_mb']:,.0f} MB |"
        )
    lines += ["", *targets(speed["cases"])]
    growth = speed["memory_growth_mb"]
    peaks = " and ".join(f"{peak:,.0f} MB for {int(steps):,} env steps a run" for steps, peak in growth.items())
    replay = 100_000 * 12 * 4 / 1e6
    return [
        *lines,
        "",
        f"Peak memory of the process (VPG, 4 seeds, median of five): {peaks}. A replay of 100 000 CartPole transitions "
        f"takes {replay:.1f} MB per seed (12 float32 each).",
        "",
        ON_AN_ACCELERATOR,
        "",
        machine_line(speed["machine"]),
    ]


def targets(cases: dict[str, Any]) -> list[str]:
    """What was asked for, and what was measured."""
    cost = {name: row["seconds_per_iteration_and_seed"] for name, row in cases.items()}
    rate = {name: row["env_steps_per_second"] / 1e3 for name, row in cases.items()}
    rows = [
        ("VPG, 1 seed, ms per epoch", cost["vpg, 1 seed"] * 1e3, "at most 40"),
        ("VPG, 8 seeds, ms per epoch and seed", cost["vpg, 8 seeds"] * 1e3, "at most 22"),
        ("DQN, 1 seed, us per env step", cost["dqn, 1 seed"] * 1e6, "at most 200"),
        ("DQN, 8 seeds, us per env step and seed", cost["dqn, 8 seeds"] * 1e6, "at most 100"),
        ("DQN, 64 seeds, us per env step and seed", cost["dqn, 64 seeds"] * 1e6, "at most 100"),
        ("A3C async, 1 seed, thousand env steps/s", rate["a3c async, 1 seed"], "at least 450"),
        ("A3C async, 8 seeds, thousand env steps/s", rate["a3c async, 8 seeds"], "at least 1500"),
        ("A3C sync, 1 seed, thousand env steps/s", rate["a3c sync, 1 seed"], "at least 800"),
        ("A3C sync, 8 seeds, thousand env steps/s", rate["a3c sync, 8 seeds"], "at least 2000"),
        ("VPG, cost per seed at 64 seeds over that at 8", cost["vpg, 64 seeds"] / cost["vpg, 8 seeds"], "at most 1.1"),
        ("DQN, cost per seed at 64 seeds over that at 8", cost["dqn, 64 seeds"] / cost["dqn, 8 seeds"], "at most 1.1"),
        *(
            (
                f"A3C {mode}, cost per seed at 256 seeds over that at 8",
                cost[f"a3c {mode}, 256 seeds"] / cost[f"a3c {mode}, 8 seeds"],
                "about 1",
            )
            for mode in ("async", "sync")
        ),
    ]
    table = [f"| {name} | {measured:,.{2 if measured < 10 else 0}f} | {limit} |" for name, measured, limit in rows]
    return ["| target on two cores | measured | asked for |", "|---|---|---|", *table]


def cluster_lines(clusters: dict[str, Any]) -> list[str]:
    """A sweep by two workers of a cluster, and what a shard costs."""
    throughput, overhead = clusters["throughput"], clusters["overhead"]
    medians, seconds = throughput["medians"], throughput["seconds"]
    return [
        "## Workers of a cluster",
        "",
        f"`make bench-clusters`: `{throughput['command']}` in one process on two cores, and by two Dask workers on loopback, each held to "
        "one core, from pressing Enter to the last file, with nothing compiled before. The workers are there, but have imported nothing. "
        f"Repetitions: {len(seconds['alone'])}.",
        "",
        "| one process | two workers | throughput |",
        "|---|---|---|",
        f"| {medians['alone']:.1f} s | {medians['workers']:.1f} s | {throughput['ratio']:.2f} |",
        "",
        f"A shard costs {1000 * overhead['overhead_seconds']:.1f} ms beside its training (mean of {overhead['shards']} with one worker, of "
        f"{1000 * overhead['shard_seconds']:.0f} ms each), of which the client takes {1000 * overhead['client_seconds']:.1f} ms to write it; "
        f"a run of these takes {overhead['bytes_per_run'] / 1000:.1f} kB while it waits.",
        "",
        machine_line(clusters["machine"]),
    ]


def tuning_lines(tuning: dict[str, Any]) -> list[str]:
    """Searches for hyperparameters: what they took, and what fresh seeds say of their winners."""
    rows = []
    for found in tuning["searches"]:
        share = found["env_steps"] / found["full_env_steps"]
        confirmed, values = found["confirmed"], ", ".join(f"{name} {value}" for name, value in found["values"].items())
        judged = [
            f"{it['score']:.1f} [{it['low']:.1f}, {it['high']:.1f}]{_solved(it['solved'], confirmed['seeds'])}"
            for it in (confirmed["winner"], confirmed["preset"])
        ]
        rows.append(
            f"| `{found['command']}` | {found['seconds']:.1f} | {found['compile_seconds']:.1f} | "
            f"{found['env_steps'] / 1e6:.1f} M ({100 * share:.1f}%) | {found['score']:.1f} | {judged[0]} | {judged[1]} | {values} |"
        )
    return [
        "## Searches for hyperparameters",
        "",
        "`make bench-tuning`: seconds from pressing Enter to the prompt, the confirmation included; of them compilation, where a program was "
        "trained for the first time; env steps of the search and their share of those that all settings and seeds would have taken; the final "
        "return (interquartile mean) that the winner had in the search; and what fresh seeds say of the winner and the preset, with 95% "
        "intervals and how many runs reached the threshold.",
        "",
        "| command | seconds | compiling | env steps | in the search | winner | preset | values of the winner |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        machine_line(tuning["machine"]),
    ]


def _solved(number: int | None, seeds: int) -> str:
    """How many runs were solved, where there is a threshold."""
    return "" if number is None else f", {number} of {seeds} solved"


def sweep_lines(sweeps: dict[str, Any]) -> list[str]:
    """Whole sweeps from Enter to the last file, two devices against one, and start-up."""
    cases, scaling, start = sweeps["cases"], sweeps["scaling"], sweeps["start"]
    lines = [
        "## Sweeps",
        "",
        "`make bench-sweeps`: commands as a user types them, from pressing Enter to the last file, imports and pictures included, "
        "compiled programs from a warm cache (`cold`: without it); medians (fastest to slowest). Throughput is all env steps "
        "over that whole time.",
        "",
        "| command | runs | wall | cold | solved | env steps/s | peak memory | 1, 64, 1024, 4096 seeds on an accelerator |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in cases.values():
        batches = f" in {row['batches']} batches" if row["batches"] > 1 else ""
        span = f" ({row['fastest']:.1f} to {row['slowest']:.1f})" if row["repetitions"] > 1 else ""
        cold = "-" if row["cold_seconds"] is None else f"{row['cold_seconds']:.1f} s"
        lines.append(
            f"| `{row['command']}` | {row['runs_ok']:,} ok of {row['runs']:,}{batches} | {row['seconds']:.1f} s{span} | {cold} "
            f"| {row['solved_runs']:,} | {row['env_steps_per_second']:,.0f} | {row['peak_memory_mb']:,.0f} MB | not measured |"
        )
    solved, dqn, many = cases.values()
    asked = [
        ("64 seeds of A3C until solved, s", f"{solved['seconds']:.1f}", "under 30"),
        ("of them solved", str(solved["solved_runs"]), "at least 60"),
        ("64 seeds of DQN, env steps/s", f"{dqn['env_steps_per_second']:,.0f}", "at least 11,000"),
        ("10 000 runs of A3C, s", f"{many['seconds']:.0f}", "under 300"),
        *((f"{name}, two devices over one", f"{row['ratio']:.2f}", "at least 1.8") for name, row in scaling.items()),
        ("`purejaxrl --help`, s", f"{start['help_seconds']:.2f}", "under 1.5"),
        ("cached A3C run to its first progress, s", f"{start['first_progress_seconds']:.1f}", "under 8"),
    ]
    lines += ["", "| target on two cores | measured | asked for |", "|---|---|---|"]
    lines += [f"| {name} | {measured} | {limit} |" for name, measured, limit in asked]
    lines += [
        "",
        "Throughput while training, of the same sweep on one device and on two, taking turns (medians of three):",
        "",
    ]
    for row in scaling.values():
        lines.append(f"- `{row['command']}`: {row['one']:,.0f} and {row['two']:,.0f} env steps/s")
    note = (
        "A ratio above 2: on one of two CPU devices XLA splits small operations over the cores, which costs more than it "
        "gains."
    )
    return [*lines, "", note, "", machine_line(sweeps["machine"])]


def waiting_lines(waiting: dict[str, Any]) -> list[str]:
    """How long users wait for commands and calls, and for which part."""
    parts = ("interpreter", "imports", "trace", "lower", "compile", "train", "files", "results", "rest")
    lines = [
        "## Waiting",
        "",
        f"`python benchmarks/waiting.py --repeats {waiting['repeats']}`: seconds from pressing Enter to the prompt, and of calls within "
        f"one process, medians of {waiting['repeats']} (of 3 with nothing cached and of 200 settings), fastest to slowest in parentheses. `compile` is loading where "
        "programs are cached; where they are not it goes on beside tracing and lowering, and this is what remains of it. "
        "`train` is time in compiled programs, `files` what the host does between them, `results` are tables and figures. Of "
        "calls `compile` is all three, and `train` both.",
        "",
        f"| | seconds | {' | '.join(parts)} |",
        "|---" * (len(parts) + 2) + "|",
    ]
    for name, row in waiting["cases"].items():
        shown = f"`purejaxrl {name}`" if name.endswith("--help") or name == "list" else name
        cells = (f"{row[part]:.2f}" if part in row else "-" for part in parts)
        span = f"{row['seconds']:.2f} ({row['fastest']:.2f} to {row['slowest']:.2f})"
        lines.append(f"| {shown} | {span} | {' | '.join(cells)} |")
    return [*lines, "", machine_line(waiting["machine"])]


def checkpoint_lines(found: dict[str, Any]) -> list[str]:
    """A checkpoint of this package beside one of Orbax."""
    size = found["ours"]["megabytes"]

    def cells(row: dict[str, Any]) -> list[str]:
        seconds = [f"{row[name]:.2f}" for name in ("import_seconds", "write_seconds", "read_seconds")]
        memory = [f"{row[name]:.0f} MB" for name in ("write_memory_megabytes", "on_disk_megabytes")]
        return [*seconds, *memory, row["flipped_bit"]]

    columns = ["", "import, s", "write, s", "read, s", "more memory to write", "on disk", "a flipped bit is"]
    text = (
        f"The states of {SEEDS} runs of DQN with full replays, {size:.0f} MB (`python benchmarks/checkpoints.py`, medians of "
        f"{ROUNDS}). Writing ends when it is on the disk; reading includes verifying."
    )
    return [
        *section("## Checkpoints", text, columns),
        table_line("purejaxrl", found["ours"], cells),
        table_line("Orbax", found["orbax"], cells),
        "",
        machine_line(found["machine"]),
    ]


def frame_lines(frames: dict[str, Any]) -> list[str]:
    """Rendered frames per second."""
    cases = frames["cases"]
    lines = [
        "## Pictures",
        "",
        "`make bench` (`python benchmarks/frames.py`): CartPole's picture, every frame consumed (multiplied with weights and "
        f"summed); medians (slowest to fastest) of {frames['repetitions']}. Small ones are what agents see, 400x600 is "
        "`render_rgb`. Asked for: at least 500,000 grey frames/s at 40x90 on 2 cores; measured: "
        f"{cases['grey 40x90, 2 cores']['frames_per_second']:,.0f}.",
        "",
        "| picture | frames/s |",
        "|---|---|",
    ]
    for name, row in cases.items():
        lines.append(f"| {name} | {row['frames_per_second']:,.0f} ({row['slowest']:,.0f} to {row['fastest']:,.0f}) |")
    return [*lines, "", ON_AN_ACCELERATOR, "", machine_line(frames["machine"])]


def best_settings(delay: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of every variant and number of actors the row with the learning rate that gave the highest mean return."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in delay["settings"]:
        groups.setdefault((row["variant"], row["actors"]), []).append(row)
    for _, rows in sorted(groups.items()):
        yield max(rows, key=lambda row: np.mean(row["mean_return_per_run"]))


def steps_to_solve(row: dict[str, Any]) -> np.ndarray:
    """Quartiles over runs of the env steps to solve; infinite where the runs needed for it never did."""
    steps = [np.inf if steps is None else steps for steps in row["env_steps_to_solve_per_run"]]
    return np.percentile(steps, (25, 50, 75), method="lower")


def delay_lines(delay: dict[str, Any]) -> list[str]:
    """The study of learning speed against delay."""
    lines = [
        "## A3C: learning speed against delay",
        "",
        "`python benchmarks/delay.py`: CartPole-v1, preset `tuned` with other numbers of actors, t_max 20, 500 k env steps, 16 "
        "seeds. Learning rates 3e-4, 1e-3, 3e-3, 1e-2 and 3e-2 were tried for each; the one with the highest mean return over the "
        "whole training is shown. The delay of a gradient is the number of updates made to theta since the worker took its "
        "copy. Quartiles of env steps to a 100-episode mean of 475; inf where fewer runs than that reached it.",
        "",
        "![env steps to solve against actors](delay.png)",
        "",
        "| variant | actors | learning rate | mean delay | runs solved | env steps to solve, quartiles | mean return of the training |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in best_settings(delay):
        solved = sum(steps is not None for steps in row["env_steps_to_solve_per_run"])
        quartiles = " / ".join(f"{steps:,.0f}" for steps in steps_to_solve(row))
        lines.append(
            f"| {row['variant']} | {row['actors']} | {row['lr']:g} | {row['mean_delay']:.1f} | {solved} of "
            f"{len(row['mean_return_per_run'])} | {quartiles} | {np.mean(row['mean_return_per_run']):.0f} |"
        )
    lines += [
        "",
        "More actors need more env steps in every variant, also without any delay: they make fewer updates of theta's own "
        "gradient per env step. Up to 16 actors the delay costs nothing that shows beside sync; at 64, where the delay forces "
        "the learning rate down, async is still ahead, as its 64 late updates do more than one averaged one. There, random "
        "order, which has the same mean delay as fixed order but spreads it, stands a higher learning rate and is faster.",
    ]
    return [*lines, "", machine_line(delay["machine"])]


def plot_delay(delay: dict[str, Any]) -> Figure:
    """Median and quartiles of env steps to solve against the number of actors, one line per variant."""
    figure = Figure(figsize=(8, 4.8), dpi=120, layout="constrained")
    axes = figure.subplots()
    rows = list(best_settings(delay))
    for shift, variant in enumerate(sorted({row["variant"] for row in rows})):
        own = sorted((row for row in rows if row["variant"] == variant), key=lambda row: row["actors"])
        low, median, high = np.array([steps_to_solve(row) for row in own]).T
        actors = np.array([row["actors"] for row in own]) * 1.06 ** (shift - 1)
        axes.errorbar(
            actors, median, (median - low, high - median), marker="o", capsize=3, linewidth=1.5, label=variant
        )
    axes.set(
        xscale="log",
        yscale="log",
        title="A3C on CartPole-v1: env steps to a 100-episode mean of 475, median and quartiles of 16 seeds",
        xlabel="actors (delay in mode async: actors - 1 updates on average)",
        ylabel="env steps",
    )
    axes.title.set_fontsize(10)
    axes.set_xticks([1, 4, 16, 64], ["1", "4", "16", "64"])
    axes.set_yticks([50_000, 100_000, 200_000, 400_000], ["50 k", "100 k", "200 k", "400 k"])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    main()
