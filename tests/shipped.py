"""Train as users do, by the Python of each environment given: python tests/shipped.py .venv ...

The first environment trains every algorithm; the others train one that uses every kind of component.

The test suite turns XLA's optimizations down (see quickly.py) and keeps compiled programs. Here XLA is as users have
it, nothing has been compiled before, and a compiler that does not finish is a failure.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

TRAININGS = {
    "vpg": "vpg --epochs 2 --steps_per_epoch 200 --seeds 2",
    "a3c": "a3c --episodes 20 --seeds 2",
    "dqn": "dqn --observation_type default --episodes 30 --seeds 2",
    "dqn, images": "dqn --observation_type img --episodes 4 --batch_size 32 --memory_size 1000 --seeds 2",
}
IN_EVERY_ENVIRONMENT = ("dqn, images",)
# Some twenty times what they take on two cores.
MOST_SECONDS = 300


def train(environment, flags):
    """What is wrong with a training by an environment's `purejaxrl`; None if nothing is."""
    names = {name: value for name, value in os.environ.items() if not name.startswith(("XLA_", "JAX_", "PUREJAXRL_"))}
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(environment).absolute() / "bin" / "purejaxrl")
        command = [program, "train", *flags.split(), "--no_cache", "--quiet", "--out", f"{folder}/run"]
        try:
            ended = subprocess.run(command, cwd=folder, env=names, timeout=MOST_SECONDS, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            return f"not done after {MOST_SECONDS} s"
        if ended.returncode or ended.stderr:
            return f"exit code {ended.returncode}: {ended.stderr}"
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
        sound = summary["runs_ok"] == 2 and summary["env_steps"] > 0 and math.isfinite(summary["compile_seconds"])
        return None if sound else f"summary.json holds {summary}"


def main(environments):
    """Train two at a time, and return how many failed."""
    first, *others = environments
    cases = [(first, name) for name in TRAININGS]
    cases += [(environment, name) for environment in others for name in IN_EVERY_ENVIRONMENT]
    with ThreadPoolExecutor(2) as pool:
        wrong = list(pool.map(lambda case: train(case[0], TRAININGS[case[1]]), cases))
    for (environment, name), reason in zip(cases, wrong, strict=True):
        print(f"{environment} {name}: {reason or 'ok'}")
    failed = sum(reason is not None for reason in wrong)
    print(f"{len(cases) - failed} passed, {failed} failed")
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) > 0)
