"""Whether two checkouts train alike, bit for bit: python tests/golden.py BEFORE AFTER [CASE ...].

Each case is a command line. The Python that runs this runs it with either checkout's package, on the same machine, and
the files of the two run folders are compared: parameters array by array, episodes.csv, metrics.csv and sweep.csv byte
by byte, and summary.json without times and versions. Parameters that an earlier checkout names differently are compared
under the present names; what it kept beside them, as optimizers, is left out.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from safetensors import safe_open
from safetensors.numpy import load_file

from purejaxrl.experiment.schema import rename_params

# Enough updates for rounding to spread through every parameter, in seconds each.
DQN = "train dqn --observation_type default --batch_size 32 --memory_size 4000 --seeds 3"
VPG = "train vpg --steps_per_epoch 400 --actors 4 --seeds 3"
A3C = "train a3c --actors 8 --t_max 20 --seeds 3"
CASES = {
    "vpg": f"{VPG} --epochs 12",
    "a3c": f"{A3C} --episodes 200 --order random",
    "a3c, sync": f"{A3C} --env_steps 20000 --mode sync --lr_anneal true --optimizer rmsprop --max_grad_norm 0.5",
    "dqn": f"{DQN} --episodes 60",
    "dqn, several steps": f"{DQN} --env_steps 2000 --n_steps 3 --double_q true --actors 2 --train_every 2",
    "dqn, images": "train dqn --observation_type img --env_steps 500 --batch_size 32 --memory_size 1000 --seeds 2",
    "vpg, images": "train vpg --observation_type img --image stack --epochs 3 --steps_per_epoch 200 --actors 2",
    "a3c, convolutions": "train a3c --observation_type img --torso conv --env_steps 1000 --actors 2 --seeds 2",
    "vpg, continuous": f"{VPG} --env Pendulum-v1 --epochs 6 --normalize_observations true --reward_scale 0.1",
    "a3c, continuous": f"{A3C} --env Pendulum-v1 --env_steps 8000",
    "sweep of two programs": "sweep a3c --actors 4 --episodes 80 --seeds 2 --mode async,sync --lr 1e-3,3e-3",
    "evaluations": f"{DQN} --env_steps 1500 --eval_every 400 --eval_episodes 3",
    "an early end": f"{A3C} --preset tuned --episodes 3000 --solved_at 60 --stop_when_solved",
    "batches": "train vpg --steps_per_epoch 4000 --actors 20 --epochs 3 --seeds 6 --max_memory 0.08",
    "resumed": f"{VPG} --epochs 300",
    "extended": f"{VPG} --epochs 6",
}
TIMES = ("compile_seconds", "run_seconds", "env_steps_per_second", "versions")


def purejaxrl(checkout, words, **options):
    """Start the command line of a checkout."""
    paths = os.pathsep.join([str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(
        [sys.executable, "-m", "purejaxrl", *words], env=os.environ | {"PYTHONPATH": paths}, **options
    )


def finish(process, allowed=(0,)):
    """Wait for a command. Raises where its exit code is another than those allowed."""
    output, _ = process.communicate()
    if process.returncode not in allowed:
        raise RuntimeError(f"{' '.join(process.args)}: exit code {process.returncode}: {output}")


def train(checkout, case, folder):
    """Run a case by the package of a checkout."""
    shared = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "cwd": checkout}
    process = purejaxrl(checkout, [*CASES[case].split(), "--quiet", "--out", str(folder)], **shared)
    if case == "resumed":
        # Wherever it stops, the end must be the same.
        rows = folder / "metrics.csv"
        while process.poll() is None and not (rows.exists() and rows.read_text().count("\n") > 30):
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        finish(process, (143,))
        process = purejaxrl(checkout, ["resume", str(folder), "--quiet"], **shared)
    finish(process)
    if case == "extended":
        finish(purejaxrl(checkout, ["resume", str(folder), "--extend", "10", "--quiet"], **shared))


def load_params(file):
    """Parameters by their present names."""
    with safe_open(file, "np") as opened:
        metadata = json.loads(opened.metadata()["purejaxrl"])
    return rename_params(load_file(file), metadata["algorithm"], metadata.get("schema_version", 0))


def differences(before, after):
    """What differs between two run folders, in words."""
    found = []
    for name in ("episodes.csv", "metrics.csv", "sweep.csv"):
        texts = [(folder / name).read_bytes() if (folder / name).exists() else None for folder in (before, after)]
        if texts[0] != texts[1]:
            found.append(name)
    names = [sorted(file.name for file in folder.glob("params/*")) for folder in (before, after)]
    if names[0] != names[1] or not names[0]:
        found.append(f"files in params/: {names[0]} and {names[1]}")
    for name in set(names[0]) & set(names[1]):
        trees = [load_params(folder / "params" / name) for folder in (before, after)]
        for key in sorted(trees[0].keys() | trees[1].keys()):
            arrays = [tree.get(key) for tree in trees]
            if any(array is None for array in arrays):
                found.append(f"{name}: {key} is in one of them")
            elif (arrays[0].dtype, arrays[0].shape, arrays[0].tobytes()) != (
                arrays[1].dtype, arrays[1].shape, arrays[1].tobytes()
            ):  # fmt: skip
                found.append(f"{name}: {key}")
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (before, after)]
    keys = sorted((summaries[0].keys() | summaries[1].keys()) - set(TIMES))
    changed = [key for key in keys if summaries[0].get(key, "missing") != summaries[1].get(key, "missing")]
    return found + [f"summary.json: {key}" for key in changed]


def compare(before, after, case):
    """Train a case by both checkouts and say what differs, or which command failed."""
    with tempfile.TemporaryDirectory() as folder:
        folders = [Path(folder, "before"), Path(folder, "after")]
        for checkout, own in zip((before, after), folders, strict=True):
            try:
                train(checkout, case, own)
            except RuntimeError as error:
                return [str(error)]
        return differences(*folders)


def main(words):
    """Compare every case, or those named, two at a time, and return how many differ."""
    before, after, *cases = words
    cases = cases or list(CASES)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda case: compare(Path(before).absolute(), Path(after).absolute(), case), cases))
    for case, different in zip(cases, found, strict=True):
        print(f"{case}: {', '.join(different) or 'equal'}")
    wrong = sum(map(bool, found))
    print(f"{len(cases) - wrong} passed, {wrong} failed")
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
