"""CONTRIBUTING shows by diffs how to add something; here they are applied to a copy of the package, and used."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DIFFS = re.findall(
    r"^### (.+?)$.*?^```diff\n(.*?)^```$", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL | re.MULTILINE
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The package with all that the diffs add."""
    path = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "purejaxrl", path / "purejaxrl", ignore=shutil.ignore_patterns("__pycache__"))
    for _, diff in DIFFS:
        subprocess.run(["git", "apply", "--whitespace=error", "-"], input=diff, cwd=path, text=True, check=True)
    return path


def call(copy, *words):
    """Standard output of a command by the changed package."""
    code = (
        f"import sys; sys.path.insert(0, {str(copy)!r}); from purejaxrl.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_each_kind_of_addition_is_shown():
    assert [title for title, _ in DIFFS] == ["An algorithm", "An environment", "A hyperparameter", "An option"]


@pytest.mark.slow
def test_what_is_added_has_flags_and_is_listed(copy):
    assert "reinforce" in call(copy, "train", "--help")
    listed = call(copy, "list")
    assert "  reinforce" in listed
    assert re.search("Acrobot-v1 +solved at -100, images", listed)
    planned = json.loads(call(copy, "train", "vpg", "--weight_decay", "0.5", "--note", "first", "--dry_run"))
    assert (planned["config"]["weight_decay"], planned["note"]) == (0.5, "first")


def test_older_folders_have_what_a_hyperparameter_and_an_option_were(copy):
    shutil.copytree(ROOT / "tests" / "folders" / "1" / "interrupted", copy / "old")
    config = json.loads(call(copy, "resume", "old", "--dry_run"))
    assert (config["config"]["weight_decay"], config["note"]) == (0.0, None)


@pytest.mark.slow
def test_an_algorithm_learns_and_is_resumed(copy):
    words = ["reinforce", "--out", "run", "--seeds", "4", "--env_steps", "40960", "--json", "--devices", "1"]
    first = json.loads(call(copy, "train", *words))
    # A random policy stays up for 22 steps.
    assert all(mean > 60 for mean in first["final_return_per_run"])
    assert json.loads(call(copy, "resume", "run", "--extend", "49152", "--json"))["env_steps"] == 4 * 49152
    assert "4" in call(copy, "evaluate", "run", "--episodes", "3")


@pytest.mark.slow
def test_an_environment_has_images_videos_and_a_twin(copy):
    words = "dqn --env Acrobot-v1 --observation_type img --image stack --image_size 8 10 --channels 1 --env_steps 64"
    small = "--batch_size 8 --memory_size 64 --hidden_sizes 4 --devices 1 --out acrobot --json"
    assert json.loads(call(copy, "train", *words.split(), *small.split()))["solved_at"] == -100
    call(copy, "video", "acrobot", "--max_steps", "3", "--out", "film.gif")
    assert (copy / "film.gif").stat().st_size > 0
    returns = [
        re.search(r"-\d+", call(copy, "evaluate", "acrobot", "--episodes", "1", "--backend", backend)).group()
        for backend in ("gymnax", "gymnasium")
    ]
    assert all(-500 <= float(mean) < 0 for mean in returns)


@pytest.mark.slow
def test_a_hyperparameter_is_swept_and_an_option_recorded(copy):
    sizes = {"epochs": 1, "steps_per_epoch": 40, "actors": 2, "train_v_iters": 1, "hidden_sizes": 4, "devices": 1}
    small = [f"--{name}={value}" for name, value in sizes.items()]
    call(copy, "sweep", "vpg", *small, "--weight_decay", "0.5,1", "--note", "first", "--out", "decayed", "--quiet")
    config = json.loads((copy / "decayed" / "config.json").read_text())
    assert config["note"] == "first"
    assert [setting["weight_decay"] for setting in config["settings"]] == [0.5, 1.0]
