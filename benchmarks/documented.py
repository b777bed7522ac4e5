"""What README.md and the documentation show of a run, taken from that run.

`python benchmarks/documented.py` (`make figures`) runs the documented command as users do, keeps what it printed in
documented.json, and writes it into the pages. tests/test_documented.py holds the pages to the file, and the file to a
run. Numbers in sentences come from the measurements beside this file; a sentence that they contradict is printed.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine
import quotes

ROOT = Path(__file__).parents[1]
FILE = Path(__file__).with_name("documented.json")
COMMAND = "train dqn --preset tuned --seeds 8"
# The pages that show it, and the run folder of each: that of `make demo`, and the default.
PAGES = {"README.md": "results/demo-dqn", "docs/getting-started.md": "results/dqn-CartPole-v0-tuned"}
BLOCK = re.compile(r"(?<=\n)\d+ of \d+ runs ok.*?(?=\n```)", re.DOTALL)
# Times differ from run to run.
TIMES = re.compile(r" in [\d.,]+ s \(.*")


def run() -> list[str]:
    """Run the command in a folder and a process of its own, and return the lines it prints, without times."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["PYTHONPATH"] = str(ROOT)
    words = [sys.executable, "-m", "purejaxrl", *shlex.split(COMMAND)]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [TIMES.sub(" in ...", line) for line in done.stdout.splitlines()]


def block(page: str, lines: list[str]) -> str:
    """What a page shows of these lines."""
    return "\n".join([*lines[:-1], f"curve: {PAGES[page]}/learning_curve.png"])


def shown(page: str) -> list[str]:
    """The blocks of output in a page."""
    return BLOCK.findall((ROOT / page).read_text())


def measured(name: str) -> Any:
    """The content of a file of measurements."""
    return json.loads((ROOT / "benchmarks" / f"{name}.json").read_text())


def sentences() -> dict[str, list[str]]:
    """What pages say of measurements, with the numbers of these."""
    return {
        "README.md": [_parity(), _accelerator()],
        "docs/clusters.md": [_accelerator_by_seeds()],
        "docs/images.md": [*_images_and_states(), *_images_of_dqn(), _images_of_original()],
    }


def _parity() -> str:
    """Intervals of the differences in final return, which RESULTS.md has with a digit more."""
    _, *rows = quotes.table_of((ROOT / "benchmarks" / "RESULTS.md").read_text(), "## The same learning as PyTorch's")
    intervals = {}
    for row in rows:
        label, _, _, difference, *_ = (cell.strip() for cell in row.strip("|").split("|"))
        low, high = map(float, re.findall(r"[-+][\d.]+", difference.partition("[")[2]))
        intervals[label.rpartition(",")[0]] = f"[{low:+.0f}, {high:+.0f}]"
    return (
        f"{intervals['VPG']} for VPG, {intervals['DQN']} for DQN, {intervals['A3C async']} for A3C and "
        f"{intervals['A3C sync']} for its synchronous form, and of DQN on images (8 seeds) {intervals['DQN, images']};"
    )


def _rates() -> dict[str, float]:
    """Env steps per second on the accelerator by algorithm and seeds."""
    return {label: row["env_steps_per_second"] for label, row in measured("accelerator")["ours"].items()}


def _accelerator() -> str:
    """The largest rates, with two digits."""
    rates = (_rates()[f"{name}, 4096 seeds"] / 1e6 for name in ("VPG", "DQN", "A3C async"))
    vpg, dqn, a3c = (f"{float(f'{rate:.2g}'):g} million" for rate in rates)
    return f"{vpg} env steps/s with 4096 seeds of VPG, {dqn} with 4096 of DQN, {a3c} with 4096 of A3C"


def _accelerator_by_seeds() -> str:
    """How many times as fast as one seed 64 seeds are."""
    rates, names = _rates(), ("VPG", "DQN", "A3C async", "A3C sync")
    some = [rates[f"{name}, 64 seeds"] / rates[f"{name}, 1 seeds"] for name in names]
    images = rates["DQN, images, 64 seeds"] / rates["DQN, images, 1 seeds"]
    return (
        f"With 64 seeds the throughput of an H100 is {round(min(some), -1):.0f} to {round(max(some), -1):.0f} times "
        f"that of one seed ({images:.0f} times from images)"
    )


def _images_and_states() -> list[str]:
    """The rows of the table, and how many seeds are solved."""
    pixels, learning = measured("pixels"), measured("learning")
    labels = ("DQN", "VPG", "A3C async", "A3C sync")
    lines = []
    for what, kind in (("states", "default"), ("images", "img")):
        medians = [statistics.median(_solved(pixels[f"{label}, {kind}"])) for label in labels]
        lines.append(f"| {what} | " + " | ".join(f"{round(median / 1000)} k" for median in medians) + " |")
    (unsolved,) = (
        best
        for best, steps in zip(
            pixels["DQN, default"]["best_return_100_per_run"],
            pixels["DQN, default"]["env_steps_to_solve_per_run"],
            strict=True,
        )
        if steps is None
    )
    lines.append(f"(One of the 8 seeds of DQN on states only gets to {unsolved:.1f}.)")
    reached = min(len(_solved(pixels[f"{label}, img"])) for label in labels)
    lines.append(f"On CartPole-v0 {_share(reached, 8)} seeds of each algorithm reach 195")
    others = [len(_solved(learning[f"{name}-tuned-v1-images"])) for name in ("vpg", "a3c-async", "a3c-sync")]
    dqn = len(_solved(learning["dqn-tuned-v1-images"]))
    lines.append(f"VPG and A3C reach 475 from images in {_share(min(others), 4)} seeds, DQN in {dqn}.")
    return lines


def _images_of_dqn() -> list[str]:
    """What changing one setting of DQN does."""
    pixels = measured("pixels")
    one_step = pixels["n_steps 1"]["best_return_100_per_run"]
    solved = {name: len(_solved(row)) for name, row in pixels.items() if "env_steps_to_solve_per_run" in row}
    without_motion = max(solved["motion_scale off"], solved["observation difference"])
    return [
        f"(with one step: {min(one_step):.0f} to {max(one_step):.0f}, {solved['n_steps 1'] or 'none'} solved)",
        f"(`--motion_scale off`, or differences alone: {without_motion or 'none'} solved; "
        f"one frame: {max(pixels['frames 1']['best_return_100_per_run']):.0f})",
        f"normalized observations ({solved['normalize_observations off']} of 4 without)",
    ]


def _images_of_original() -> str:
    """Final returns of the presets `original`."""
    finals = (measured("pixels")[f"{name} original"]["final_return_per_run"] for name in ("dqn", "vpg", "a3c"))
    dqn, vpg, a3c = (f"{min(final):.0f} to {max(final):.0f}" for final in finals)
    return (
        f"DQN {dqn} after 1200 episodes (the PyTorch original shows about 91), VPG {vpg} after 60 epochs, A3C {a3c} "
        "after 5000 episodes."
    )


def _share(count: int, whole: int) -> str:
    """A number of seeds in words."""
    return f"all {whole}" if count == whole else f"at least {count} of {whole}"


def _solved(row: dict[str, Any]) -> list[int]:
    """Env steps to solve of the runs that were solved."""
    return [steps for steps in row["env_steps_to_solve_per_run"] if steps is not None]


def main() -> None:
    """Run the command, and write the file and the pages."""
    lines = run()
    FILE.write_text(
        json.dumps({"command": f"purejaxrl {COMMAND}", "machine": machine.describe(), "output": lines}, indent=1) + "\n"
    )
    for page in PAGES:
        file = ROOT / page
        file.write_text(BLOCK.sub(lambda _, page=page: block(page, lines), file.read_text()))
    wrong = contradicted()
    if wrong:
        sys.exit("\n".join(wrong))


def contradicted() -> list[str]:
    """Sentences with the measured numbers that pages lack."""
    found = []
    for page, expected in sentences().items():
        text = " ".join((ROOT / page).read_text().split())
        found += [f"{page} should say: {sentence}" for sentence in expected if sentence not in text]
    return found


if __name__ == "__main__":
    main()
