"""What each command imports: starting quickly is a matter of leaving out what takes long."""

import json
import os
import subprocess
import sys

import pytest

# What may take a tenth of a second or more.
SLOW = {"jax", "flax", "optax", "gymnax", "seaborn", "scipy", "pandas", "matplotlib", "gymnasium", "IPython", "wandb"}
CODE = """
import json, sys
from purejaxrl.cli import main
def imported():
    return sorted({name for name in sys.modules if name in set(json.loads(sys.argv[1]))})
if sys.argv[2] == "before training":
    import purejaxrl.api
    def begin(plan):
        # Beside training figures are imported.
        raise SystemExit
    purejaxrl.api._import_figures = begin
main(sys.argv[3:])
print(json.dumps(imported()))
"""


def imported(when, *words, cwd, **variables):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CODE, json.dumps(sorted(SLOW)), when, *words],
        env={**os.environ, **variables},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("words", ["--help", "train --help", "plot --help", "evaluate --help", "cache", "cache --help"])
def test_what_only_prints_imports_nothing_slow(words, tmp_path):
    assert imported("at the end", *words.split(), cwd=tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [
        "list",
        *(
            pytest.param(words, marks=pytest.mark.slow)
            for words in ("train dqn --help", "sweep a3c --help", "resume --help", "list --json")
        ),
    ],
)
def test_what_takes_long_to_make_is_kept(words, tmp_path):
    """It is printed alike, without importing anything, until it would be another text."""
    cache = {"PUREJAXRL_CACHE_DIR": str(tmp_path / "cache")}

    def printed(**variables):
        done = subprocess.run(
            [sys.executable, "-m", "purejaxrl", *words.split()],
            env={**os.environ, "COLUMNS": "100", **cache, **variables},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout

    first = printed()
    assert "purejaxrl" in first or "algorithms" in first
    (kept,) = (tmp_path / "cache").glob("*.text")
    assert printed() == first
    assert imported("at the end", *words.split(), cwd=tmp_path, COLUMNS="100", **cache) == []
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert printed() == first
    assert printed(PUREJAXRL_CACHE="0") == first
    if "--help" in words:
        assert printed(COLUMNS="60") != first
        assert len(list((tmp_path / "cache").glob("*.text"))) == 2


@pytest.mark.parametrize("algorithm", ["a3c", "dqn"])
def test_training_begins_without_what_it_does_not_need(algorithm, tmp_path):
    found = imported("before training", "train", algorithm, "--env_steps", "400", "--quiet", cwd=tmp_path)
    # gymnax's spaces import gymnasium, in 20 ms.
    assert found == ["flax", "gymnasium", "gymnax", "jax", "optax"]


def test_a_training_of_one_setting_needs_no_tables(tmp_path):
    found = imported("at the end", "train", "vpg", "--env_steps", "3000", "--steps_per_epoch", "1000", cwd=tmp_path)
    assert (tmp_path / "results/vpg-CartPole-v0-original/learning_curve.png").exists()
    assert "matplotlib" in found
    assert not {"pandas", "scipy", "seaborn"} & set(found)


@pytest.mark.slow
def test_a_sweep_needs_no_scipy(tmp_path):
    words = ["sweep", "vpg", "--pi_lr", "1e-3,1e-2", "--seeds", "2", "--env_steps", "3000", "--steps_per_epoch", "1000"]
    found = imported("at the end", *words, cwd=tmp_path)
    assert {"matplotlib", "pandas"} < set(found)
    assert "scipy" not in found
