"""Write RESULTS.md from learning.json and speed.json: what was measured, and the commands that measured it."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

GOALS = {
    "vpg-original-v0": "20-epoch mean at 195 before epoch 400 in at least 7 of 8 runs",
    "dqn-original-v0": "100-episode mean at 195 within 1200 episodes in at least 10 of 16 runs",
    "vpg-tuned-v1": "100-episode mean at 475 within 1 M env steps in at least 30 of 32 runs",
    "dqn-tuned-v1": "100-episode mean at 475 within 200 k env steps in at least 30 of 32 runs",
}


def main() -> None:
    """Write the file."""
    learning = json.loads((HERE / "learning.json").read_text())
    speed = json.loads((HERE / "speed.json").read_text())
    lines = ["# Results", "", *speed_lines(speed), "", *learning_lines(learning)]
    (HERE / "RESULTS.md").write_text("\n".join(lines) + "\n")


def learning_lines(learning: dict[str, Any]) -> list[str]:
    """One section per experiment, every seed reported."""
    lines = [
        "## Learning",
        "",
        "Every seed from 0 is reported. Commands as shown, or all at once: `make bench-learning`. Training returns, with "
        "exploration; a dash means never. Wall times here are of a machine that was busy with other work as well.",
        "",
    ]
    for name, row in learning.items():
        lines += [f"### {name}", "", f"`{row['command']}`", ""]
        if name in GOALS:
            lines += [f"Asked for: {GOALS[name]}.", ""]
        lines += [outcome(row), "", *table(row), "", machine_line(row["machine"]), ""]
    return lines


def outcome(row: dict[str, Any]) -> str:
    """The sentence that sums an experiment up."""
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
        "env steps to solve": row["env_steps_to_solve_per_run"],
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


def shown(value: float | None) -> str:
    """A number for people."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.1f}"


def machine_line(machine: dict[str, Any]) -> str:
    """Where and with what something was measured."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return (
        f"Measured on {machine['date']}: {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']:.0f} GiB, "
        f"{machine['system']}; {versions}."
    )


def speed_lines(speed: dict[str, Any]) -> list[str]:
    """The table of costs per seed."""
    lines = [
        "## Speed",
        "",
        "`make bench`: preset `original`, CartPole-v0, state observations; median (fastest to slowest) of "
        f"{next(iter(speed['cases'].values()))['repetitions']} chunks after one to warm up, compile time apart, each case in "
        "a process of its own. Cost per seed is wall time / (seeds x iterations); for DQN an iteration is one env step with "
        "its gradient step.",
        "",
        "| case | cores | cost per seed | env steps/s in total | compile | peak memory of the process |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in speed["cases"].items():
        scale, unit = (1e3, "ms per epoch") if row["algorithm"] == "vpg" else (1e6, "us per env step")
        cost, low, high = (row[key] * scale for key in ("seconds_per_iteration_and_seed", "fastest", "slowest"))
        lines.append(
            f"| {name} | {row['cores']} | {cost:.1f} {unit} ({low:.1f} to {high:.1f}) | {row['env_steps_per_second']:,.0f} "
            f"| {row['compile_seconds']:.1f} s | {row['peak_memory_mb']:,.0f} MB |"
        )
    lines += ["", *targets(speed["cases"])]
    growth = speed["memory_growth_mb"]
    peaks = " and ".join(f"{peak:,.0f} MB for {int(steps):,} env steps a run" for steps, peak in growth.items())
    replay = 100_000 * 11 * 4 / 1e6
    return [
        *lines,
        "",
        f"Memory does not grow with training length: peak {peaks} (VPG, 4 seeds). A replay of 100 000 CartPole transitions "
        f"takes {replay:.1f} MB per seed (11 float32 each).",
        "",
        "On an accelerator: not measured.",
        "",
        machine_line(speed["machine"]),
    ]


def targets(cases: dict[str, Any]) -> list[str]:
    """What was asked for, and what was measured."""
    cost = {name: row["seconds_per_iteration_and_seed"] for name, row in cases.items()}
    rows = [
        ("VPG, 1 seed, ms per epoch", cost["vpg, 1 seed"] * 1e3, 40),
        ("VPG, 8 seeds, ms per epoch and seed", cost["vpg, 8 seeds"] * 1e3, 22),
        ("DQN, 1 seed, us per env step", cost["dqn, 1 seed"] * 1e6, 200),
        ("DQN, 8 seeds, us per env step and seed", cost["dqn, 8 seeds"] * 1e6, 100),
        ("DQN, 64 seeds, us per env step and seed", cost["dqn, 64 seeds"] * 1e6, 100),
        ("VPG, cost per seed at 64 seeds over that at 8", cost["vpg, 64 seeds"] / cost["vpg, 8 seeds"], 1.1),
        ("DQN, cost per seed at 64 seeds over that at 8", cost["dqn, 64 seeds"] / cost["dqn, 8 seeds"], 1.1),
    ]
    table = [f"| {name} | {measured:.3g} | {limit:g} |" for name, measured, limit in rows]
    return ["| target on two cores | measured | at most |", "|---|---|---|", *table]


if __name__ == "__main__":
    main()
