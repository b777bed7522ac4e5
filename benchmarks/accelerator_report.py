"""The part of RESULTS.md on an accelerator, from accelerator.json."""

from __future__ import annotations

from typing import Any

from accelerator import FORMS, SEEDS, SEEDS_OF, SHARES
from tables import machine_line, section, table_line


def accelerator_lines(found: dict[str, Any]) -> list[str]:
    """Throughput by number of seeds, PyTorch on the same machine, and the environment alone."""
    text = (
        f"`python benchmarks/accelerator.py` on one {found['accelerator']} with {found['machine']['cores']} cores beside it: "
        "the preset `original` on CartPole-v0, medians of 5 chunks of about half a second, or of as many "
        "iterations as a chunk's log may hold, after one to warm up, compile time apart. Memory is the accelerator's, by the "
        "compiler's own account. Products are of full float32."
    )
    columns = ["", "seeds", "env steps/s", "gradient steps/s", "device memory, MB"]
    lines = section("## On an accelerator", text, columns)
    for name in FORMS:
        for seeds in SEEDS_OF.get(name, SEEDS):
            lines.append(table_line(f"{name} | {seeds:,}", found["ours"].get(f"{name}, {seeds} seeds"), cells_of_ours))
    return [
        *lines,
        "",
        *torch_lines(found),
        "",
        *alone_lines(found),
        "",
        *command_lines(found.get("commands", {})),
        "",
        machine_line(found["machine"]),
    ]


def cells_of_ours(row: dict[str, Any]) -> list[str]:
    """Env steps and gradient steps a second, and memory."""
    keys = ("env_steps_per_second", "gradient_steps_per_second", "device_memory_mb")
    return [f"{row[key]:,.0f}" for key in keys]


def torch_lines(found: dict[str, Any]) -> list[str]:
    """Every form of PyTorch, and how many times as fast the most seeds of ours are."""
    text = (
        f"PyTorch {found['torch']} with the references of `make bench`, in another run on such a machine: on the accelerator "
        "in one process and in one per core, and on the CPUs beside it. The references act on the CPU, where gymnasium's "
        "environments are, and learn on the device. Times: env steps/s of ours with 64 seeds, and with the most, over these."
    )
    lines = section(
        "### PyTorch on the same machine", text, ["", "where", "env steps/s", "times, 64 seeds", "times, most"]
    )
    for name, forms in FORMS.items():
        many = SEEDS_OF.get(name, SEEDS)[-1]
        ours = [found["ours"][f"{name}, {seeds} seeds"]["env_steps_per_second"] for seeds in (64, many)]

        def cells(row: dict[str, Any], ours: list[float] = ours) -> list[str]:
            theirs = row["env_steps_per_second"]
            return [f"{theirs:,.0f}", *(f"{rate / theirs:,.0f}" for rate in ours)]

        for form in forms:
            for share in SHARES:
                row = found["theirs"].get(f"{name}, {form}, {share}")
                if row is not None:
                    lines.append(table_line(f"{name}, {form} | {share}", row, cells))
    missing = [name for name in FORMS if not any(label.startswith(f"{name}, ") for label in found["theirs"])]
    if missing:
        lines += ["", f"Not measured: PyTorch's {', '.join(missing[:-1])}{' and ' * (len(missing) > 1)}{missing[-1]}."]
    return lines


def command_lines(commands: dict[str, Any]) -> list[str]:
    """Sweeps from Enter to the last file."""
    if not commands:
        return ["Whole commands with 1 to 4096 seeds, from Enter to the last file: not measured."]
    text = "From Enter to the last file, compiled programs from the cache (`cold`: without it)."
    lines = section("### Whole commands", text, ["", "wall, s", "cold, s", "solved", "env steps/s"])

    def cells(row: dict[str, Any]) -> list[str]:
        seconds = [f"{row[name]:.1f}" for name in ("seconds", "cold_seconds")]
        return [*seconds, f"{row['solved_runs']} of {row['runs']}", f"{row['env_steps_per_second']:,.0f}"]

    return [*lines, *(table_line(f"`{row['command']}`", row, cells) for row in commands.values())]


def alone_lines(found: dict[str, Any]) -> list[str]:
    """The environment under a random policy, and rendering."""
    text = "What `make bench` measures on CPUs, on the accelerator: median (slowest to fastest) of 5."
    lines = section("### Environment and pictures alone", text, ["", "per second"])

    def cells(row: dict[str, Any]) -> list[str]:
        return [f"{row['per_second']:,.0f} ({row['slowest']:,.0f} to {row['fastest']:,.0f})"]

    return [*lines, *(table_line(label, row, cells) for label, row in found["alone"].items())]
