"""Do the PyTorch references learn as this project does? Same hyperparameters, same budgets, many seeds of both.

Run all with `python benchmarks/parity.py`, some with their names as arguments. Every run of PyTorch is a file of its
own and is not repeated, so an interrupted script goes on where it was; parity.json gets each contest as it ends, then
`python benchmarks/report.py` writes RESULTS.md. Where only this package has changed, `--ours` trains that anew and
compares it with the runs of PyTorch that parity.json holds. Needs the extra `bench`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import machine
import numpy as np
import pandas as pd
from scipy import stats

HERE = Path(__file__).parent
FILE = HERE / "parity.json"
RESULTS = Path("results/parity")

WINDOW = 100  # episodes whose mean is a run's final return
POINTS = 60  # of a curve


class Contest(NamedTuple):
    """The same training twice: `purejaxrl ours --seeds seeds`, and a script of benchmarks/torch for each seed.

    `processes` of PyTorch run at a time; their budget is `budget` ("epochs" or "episodes") x amount.
    """

    ours: str
    theirs: str
    budget: str
    amount: int
    seeds: int = 30
    processes: int = os.cpu_count() or 1


CONTESTS = {
    "VPG": Contest("train vpg", "vpg.py --envs 20", "epochs", 300),
    "DQN": Contest("train dqn --observation_type default", "dqn.py", "episodes", 400),
    "A3C async": Contest("train a3c", "a3c.py --workers 16", "episodes", 3000, processes=1),
    "A3C sync": Contest("train a3c --mode sync", "a3c.py --mode sync --envs 16", "episodes", 3000),
    "DQN, images": Contest("train dqn", "dqn.py --observation_type img", "episodes", 150, seeds=8),
}


class Episodes(NamedTuple):
    """The finished episodes of a run in the order of their ends: env steps of all actors by then, and returns."""

    env_steps: np.ndarray
    returns: np.ndarray


def train_ours(name: str, contest: Contest) -> list[Episodes]:
    """All seeds in one program, unless that has been done."""
    out = RESULTS / slug(name) / "ours"
    if not (out / "summary.json").exists():
        words = [*shlex.split(contest.ours), f"--{contest.budget}", str(contest.amount), "--seeds", str(contest.seeds)]
        subprocess.run(
            [sys.executable, "-m", "purejaxrl", *words, "--quiet", "--overwrite", "--out", str(out)], check=True
        )
    episodes = pd.read_csv(out / "episodes.csv")
    return [
        Episodes(rows["env_steps"].to_numpy(), rows["return"].to_numpy(float)) for _, rows in episodes.groupby("seed")
    ]


def train_theirs(name: str, contest: Contest) -> list[Episodes]:
    """The seeds that have no file yet, a few processes at a time."""
    folder = RESULTS / slug(name) / "theirs"
    folder.mkdir(parents=True, exist_ok=True)

    def train(seed: int) -> Episodes:
        out = folder / f"{seed}.json"
        if not out.exists():
            script, *flags = contest.theirs.split()
            words = [str(HERE / "torch" / script), *flags, f"--{contest.budget}", str(contest.amount)]
            # Renamed when whole: an interrupted run leaves no file that looks finished.
            subprocess.run(
                [sys.executable, *words, "--seed", str(seed), "--out", f"{out}.part"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            Path(f"{out}.part").rename(out)
        run = json.loads(out.read_text())["episodes"]
        return Episodes(np.array(run["env_steps"]), np.array(run["return"], float))

    with ThreadPoolExecutor(contest.processes) as pool:
        return list(pool.map(train, range(contest.seeds)))


def slug(name: str) -> str:
    """A folder's name."""
    return name.lower().replace(",", "").replace(" ", "-")


def within_budget(contest: Contest, episodes: Episodes) -> Episodes:
    """Episodes beyond the budget dropped: workers of their own process finish what they are at."""
    return Episodes(*(column[: contest.amount] for column in episodes)) if contest.budget == "episodes" else episodes


def area(contest: Contest, episodes: Episodes) -> float:
    """Area under the learning curve over its length: mean return of an episode, or of an env step's episode where the
    budget is one of env steps (an episode has as many steps as its return).
    """
    return float(np.average(episodes.returns, weights=episodes.returns if contest.budget == "epochs" else None))


def curve(contest: Contest, episodes: Episodes) -> list[float]:
    """Mean return in each of POINTS equal parts of the budget, NaN where no episode ended."""
    if contest.budget == "episodes":
        return [float(part.mean()) for part in np.array_split(episodes.returns, POINTS)]
    edges = np.linspace(0, episodes.env_steps[-1], POINTS + 1)[1:-1]
    part = np.searchsorted(edges, episodes.env_steps)
    return [float(episodes.returns[part == k].mean()) if (part == k).any() else float("nan") for k in range(POINTS)]


def difference(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Mean of ours minus mean of theirs, with a 95% bootstrap interval (bias-corrected and accelerated)."""
    samples = np.array(ours), np.array(theirs)
    low, high = stats.bootstrap(samples, mean_difference, rng=np.random.default_rng(0)).confidence_interval
    return {"difference": float(mean_difference(*samples)), "low": float(low), "high": float(high)}


def mean_difference(x: np.ndarray, y: np.ndarray, axis: int = -1) -> Any:
    """What is bootstrapped."""
    return x.mean(axis=axis) - y.mean(axis=axis)


def summarize(contest: Contest, runs: list[Episodes]) -> dict[str, Any]:
    """What is kept of the runs of one side, and when they were made."""
    runs = [within_budget(contest, run) for run in runs]
    return {
        "date": datetime.date.today().isoformat(),
        "final_return": [float(run.returns[-WINDOW:].mean()) for run in runs],
        "area": [area(contest, run) for run in runs],
        "curves": [[round(value, 2) for value in curve(contest, run)] for run in runs],
    }


def compare(name: str, contest: Contest, theirs: dict[str, Any] | None = None) -> dict[str, Any]:
    """Both trainings, and how far apart they are. theirs: of PyTorch's, where these are not to be made."""
    result: dict[str, Any] = {
        "contest": contest._asdict(),
        "machine": machine.describe(),
        "ours": summarize(contest, train_ours(name, contest)),
        "theirs": theirs or summarize(contest, train_theirs(name, contest)),
    }
    for measure in ("final_return", "area"):
        result[measure] = difference(result["ours"][measure], result["theirs"][measure])
    return result


def main() -> None:
    """Run the contests named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"contests to run: {', '.join(CONTESTS)} (default: all)")
    parser.add_argument("--ours", action="store_true", help="leave PyTorch's runs as parity.json has them")
    options = parser.parse_args()
    for name in options.names or CONTESTS:
        results = json.loads(FILE.read_text()) if FILE.exists() else {}
        result = compare(name, CONTESTS[name], results[name]["theirs"] if options.ours else None)
        FILE.write_text(json.dumps(results | {name: result}) + "\n")
        for measure in ("final_return", "area"):
            found = result[measure]
            print(
                f"{name}: {measure} {found['difference']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]", flush=True
            )


if __name__ == "__main__":
    main()
