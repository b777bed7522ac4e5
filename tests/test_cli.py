"""The command line end to end: files, wrong input, signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from purejaxrl import cli
from purejaxrl.cli import main, training

TINY_VPG = ["train", "vpg", "--epochs", "3", "--steps_per_epoch", "400", "--actors", "4", "--train_v_iters", "2"]
VECTORS = ["train", "dqn", "--observation_type", "default"]
IMAGES_VPG = ["train", "vpg", "--observation_type", "img"]
TINY_DQN = [*VECTORS, "--episodes", "6", "--batch-size", "16", "--memory_size=100", "--hidden_sizes", "8x8"]


def run(*words, **options):
    return subprocess.run(
        [sys.executable, "-m", "purejaxrl", *words], capture_output=True, text=True, timeout=120, **options
    )


def test_a_vpg_run_leaves_all_its_files(tmp_path):
    done = run(
        *TINY_VPG,
        "--seeds",
        "3",
        "--seed",
        "5",
        "--eval_every",
        "800",
        "--eval_episodes",
        "2",
        "--out",
        "a/b",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "curve: a/b/learning_curve.png" in done.stdout
    folder = tmp_path / "a" / "b"
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "config.json", "episodes.csv", "metrics.csv", "summary.json", "learning_curve.png",
        "params/last.safetensors", "params/best.safetensors", "checkpoints/000001/arrays.safetensors",
        "checkpoints/000001/facts.json", "checkpoints/000001/SHA256SUMS",
    }  # fmt: skip
    config = json.loads((folder / "config.json").read_text())
    assert config["config"]["steps_per_epoch"] == 400
    assert config["config"]["gamma"] == 0.99
    assert config["versions"]["jax"]
    metrics = pd.read_csv(folder / "metrics.csv")
    assert list(metrics.columns[:10]) == [
        "run", "seed", "iteration", "env_steps", "episodes", "return_mean", "return_min", "return_max", "return_100",
        "eval_return",
    ]  # fmt: skip
    assert len(metrics) == 9
    assert list(metrics["env_steps"].unique()) == [400, 800, 1200]
    evaluated = metrics.groupby("env_steps")["eval_return"].count()
    assert list(evaluated) == [0, 3, 3]
    episodes = pd.read_csv(folder / "episodes.csv")
    assert list(episodes.columns) == ["run", "seed", "episode", "env_steps", "return", "length"]
    assert set(episodes["seed"]) == {5, 6, 7}
    for run_index, rows in episodes.groupby("run"):
        assert list(rows["episode"]) == list(range(1, len(rows) + 1))
        assert rows["env_steps"].is_monotonic_increasing
        assert metrics.loc[metrics["run"] == run_index, "episodes"].max() == len(rows)
    np.testing.assert_array_equal(episodes["return"], episodes["length"])
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["runs"] == summary["runs_ok"] == 3
    assert summary["env_steps"] == 3 * 1200
    assert summary["episodes"] == len(episodes)
    assert summary["solved_runs"] == 0
    assert (folder / "learning_curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_dqn_run_twice_is_bitwise_equal_and_exact_in_its_episodes(tmp_path):
    for name in ("first", "second"):
        assert main([*TINY_DQN, "--seeds", "3", "--quiet", "--out", str(tmp_path / name)]) == 0
    for file in ("episodes.csv", "metrics.csv", "params/last.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    episodes = pd.read_csv(tmp_path / "first" / "episodes.csv")
    assert list(episodes.groupby("run").size()) == [6, 6, 6]
    # With one actor the last episode's step is the run's last.
    ends = episodes.groupby("run")["env_steps"].max()
    metrics = pd.read_csv(tmp_path / "first" / "metrics.csv")
    np.testing.assert_array_equal(metrics.groupby("run")["env_steps"].max(), ends)
    assert episodes.groupby("run")["length"].sum().equals(ends.rename("length"))


@pytest.mark.slow
def test_a_seed_alone_is_the_seed_in_a_batch(tmp_path):
    assert main([*TINY_VPG, "--seeds", "3", "--quiet", "--out", str(tmp_path / "many")]) == 0
    assert main([*TINY_VPG, "--seed", "2", "--quiet", "--out", str(tmp_path / "one")]) == 0
    many, one = (pd.read_csv(tmp_path / name / "episodes.csv") for name in ("many", "one"))
    columns = ["seed", "episode", "env_steps", "return", "length"]
    expected = many.loc[many["seed"] == 2, columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(one[columns], expected)


def test_json_prints_only_the_summary(tmp_path, capsys):
    assert main([*TINY_VPG, "--json", "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out) == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert printed.err == ""


def test_dry_run_prints_the_configuration_and_compiles_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("purejaxrl.experiment.run.compile_fitting", lambda *_, **__: pytest.fail("compiled"))
    out = tmp_path / "run"
    assert main([*TINY_DQN, "--eps-vals", "(0.5,0.1,0.01)", "--dry_run", "--out", str(out)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"]["hidden_sizes"] == [8, 8]
    assert shown["config"]["batch_size"] == 16
    assert shown["config"]["eps_vals"] == [0.5, 0.1, 0.01]
    assert shown["out"] == str(out)
    assert not out.exists()


def test_a_budget_replaces_the_presets(capsys):
    assert main(["train", "dqn", "--env_steps", "1e5", "--dry_run"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert config["env_steps"] == 100_000
    assert config["episodes"] is None


def test_the_original_dqn_observes_images_and_others_vectors(capsys):
    def planned(*words):
        assert main(["train", *words, "--dry_run"]) == 0
        shown = json.loads(capsys.readouterr().out)
        return shown["observation_type"], shown["config"]

    observed, config = planned("dqn")
    assert observed == "img"
    assert (config["image"], config["image_size"], config["channels"]) == ("difference", [40, 90], 3)
    assert planned("dqn", "--image", "stack", "--channels", "1")[1]["image"] == "stack"
    for words in ("dqn --observation_type default", "dqn --preset tuned", "vpg", "a3c", "vpg --image off"):
        observed, config = planned(*words.split())
        assert (observed, config["image"]) == ("default", None)
    for name in ("vpg", "a3c"):
        observed, config = planned(name, "--observation_type", "img", "--torso", "conv", "--conv_kernels", "5x3")
        assert (observed, config["image"], config["conv_kernels"]) == ("img", "difference", [5, 3])


WRONG = [
    (["fly"], "'fly'", "train"),
    (["train", "ppo"], "'ppo'", "vpg, a3c, dqn"),
    (["train", "dqn", "--lrr", "1"], "--lrr", "--lr"),
    (["train", "dqn", "7"], "'7'", "--"),
    (["train", "dqn", "--env", "CartPole-v9"], "CartPole-v9", "CartPole-v0"),
    ([*VECTORS, "--env", "Pendulum-v1"], "Pendulum-v1", "discrete"),
    (["train", "dqn", "--env", "MNISTBandit-bsuite"], "MNISTBandit", "cannot build"),
    (["train", "dqn", "--observation_type", "text"], "--observation_type: 'text'", "default, img"),
    (
        ["train", "dqn", "--env", "Acrobot-v1"],
        "--observation_type: img needs a renderer, and Acrobot-v1",
        "CartPole-v1",
    ),
    ([*IMAGES_VPG, "--env", "Pendulum-v1"], "--observation_type: img needs a renderer, and Pendulum-v1", "CartPole-v0"),
    (["train", "dqn", "--image_size", "7", "90"], "--image_size: 7 90 is not allowed", "at least 8"),
    (["train", "dqn", "--image_size", "40", "2000"], "--image_size: 40 2000 is not allowed", "at most 1024"),
    (["train", "dqn", "--image_size", "40"], "--image_size: 40 is not allowed", "2 whole numbers"),
    (["train", "dqn", "--image", "film"], "--image: 'film' is not allowed", "stack, difference"),
    (["train", "dqn", "--image", "off"], "--image: off is not allowed", "stack or difference"),
    (["train", "dqn", "--image", "stack", "--frames", "0"], "--frames: 0 is not allowed", "at least 1"),
    (["train", "dqn", "--image", "stack", "--frame_spacing", "0"], "--frame_spacing: 0 is not allowed", "at least 1"),
    (["train", "dqn", "--image", "stack", "--motion_scale", "0"], "--motion_scale: 0 is not allowed", "above 0"),
    (["train", "dqn", "--channels", "2"], "--channels: 2 is not allowed", "one of 1, 3"),
    (["train", "dqn", "--image", "difference", "--frames", "2"], "--frames: it goes with", "--image stack"),
    (["train", "dqn", "--frame_spacing", "2"], "--frame_spacing: it goes with", "--image stack"),
    (["train", "dqn", "--motion_scale", "5"], "--motion_scale: it goes with", "--image stack"),
    ([*VECTORS, "--image", "stack"], "--image: it goes with", "--observation_type img"),
    ([*VECTORS, "--frames", "2"], "--frames: it goes with", "--observation_type img"),
    ([*VECTORS, "--frame_spacing", "1"], "--frame_spacing: it goes with", "--observation_type img"),
    ([*VECTORS, "--motion_scale", "5"], "--motion_scale: it goes with", "--observation_type img"),
    ([*VECTORS, "--image_size", "40", "90"], "--image_size: it goes with", "--observation_type img"),
    ([*VECTORS, "--channels", "1"], "--channels: it goes with", "--observation_type img"),
    (["train", "a3c", "--channels", "3"], "--channels: it goes with", "--observation_type img"),
    (["train", "dqn", "--preset", "tuned", "--image_size", "40", "90"], "--image_size", "--observation_type img"),
    ([*VECTORS, "--torso", "conv"], "--torso: conv takes images", "[4]"),
    (["train", "dqn", "--torso", "cnn"], "--torso: 'cnn' is not allowed", "mlp, conv"),
    (["train", "dqn", "--conv_kernels", "8", "4"], "--conv_kernels: it goes with", "--torso conv"),
    (["train", "dqn", "--conv_channels", "8", "8"], "--conv_channels: it goes with", "--torso conv"),
    ([*VECTORS, "--conv_strides", "2", "2"], "--conv_strides: it goes with", "--torso conv"),
    (["train", "dqn", "--torso", "conv", "--conv_kernels", "3"], "--conv_kernels", "2, 1 and 2 layers"),
    (["train", "dqn", "--torso", "conv", "--conv_strides", "1x1x1"], "--conv_strides", "2, 2 and 3 layers"),
    (["train", "dqn", "--torso", "conv", "--conv_kernels", "41", "4"], "--conv_kernels: 41", "40 pixels"),
    (["train", "dqn", "--torso", "conv", "--image_size", "8", "12"], "--conv_kernels: 4", "1 pixels that layer 2"),
    (["train", "dqn", "--preset", "best"], "'best'", "original, tuned"),
    (["train", "dqn", "--preset", "tuned", "--env", "Acrobot-v1"], "Acrobot-v1", "dqn CartPole-v1 default"),
    (["train", "dqn", "--lr", "-1"], "--lr: -1 is not allowed", "above 0"),
    (["train", "dqn", "--lr", "0"], "--lr: 0 is not allowed", "above 0"),
    (["train", "dqn", "--lr", "nan"], "nan", "finite"),
    (["train", "dqn", "--lr", "inf"], "inf", "finite"),
    (["train", "dqn", "--lr", "fast"], "'fast'", "finite number above 0"),
    (["train", "dqn", "--lr"], "--lr", "argument"),
    (["train", "dqn", "--lr", "1e-3,1e-4"], "1e-3,1e-4", "sweep"),
    (["train", "dqn", "--hidden_sizes", "32x32,64x64"], "32x32,64x64", "sweep"),
    (["train", "dqn", "--hidden_sizes", "32", "0"], "32 0", "at least 1"),
    (["train", "dqn", "--hidden_sizes", "()"], "empty", "one or more"),
    (["train", "dqn", "--gamma", "1.01"], "1.01", "at most 1"),
    (["train", "vpg", "--lam", "-0.1"], "-0.1", "at least 0"),
    (["train", "dqn", "--eps_vals", "1", "0.1"], "1 0.1", "3 finite numbers"),
    (["train", "dqn", "--eps_vals", "1.5", "0.1", "0.1"], "1.5 0.1 0.1", "at most 1"),
    (["train", "dqn", "--batch_size", "200", "--memory_size", "100"], "200", "100"),
    (["train", "dqn", "--batch_size", "2.5"], "2.5", "whole number"),
    (["train", "dqn", "--actors", "0"], "--actors: 0 is not allowed", "at least 1"),
    (["train", "dqn", "--actors", "3", "--train_every", "2"], "2", "divide"),
    (["train", "dqn", "--loss", "l1"], "l1", "mse, huber"),
    (["train", "dqn", "--double_q", "perhaps"], "perhaps", "true or false"),
    (["train", "vpg", "--steps_per_epoch", "100", "--actors", "3"], "100", "divisible"),
    (["train", "vpg", "--steps_per_epoch", "10"], "--steps_per_epoch: 10 is not divisible", "--actors 20"),
    (["train", "vpg", "--env_steps", "3e9"], "--env_steps: 3000000000 is not allowed", "at most 2147483647"),
    (["train", "vpg", "--env_steps", "2147483647"], "--env_steps: 2147483647 is not allowed", "at most 2147480000,"),
    (["train", "vpg", "--epochs", "536871"], "--epochs: 536871 is not allowed", "at most 536870,"),
    (["train", "vpg", "--pi_lr", "1e-50"], "--pi_lr: 1e-50 is not allowed", "in float32 1e-50 is 0"),
    (["train", "vpg", "--out", ""], "--out: '' is not allowed", "takes a value"),
    (["train", "vpg", "--env="], "--env: '' is not allowed", "takes a value"),
    (["train", "vpg", "--hidden_sizes", ""], "--hidden_sizes: '' is not allowed", "takes a value"),
    (["train", "dqn", "--hidden_sizes", "32,32"], "--hidden_sizes: 32,32 is a list", "is written 32x32"),
    (["sweep", "dqn", "--hidden_sizes", "32,32"], "--hidden_sizes: 32,32 is a list", "is written 32x32"),
    (["sweep", "dqn", "--eps_vals", "1,0.1,0.01"], "--eps_vals: 1,0.1,0.01 is a list", "is written 1x0.1x0.01"),
    (["train"], "ALGORITHM is one of a3c, dqn, vpg", "--help"),
    (["completion"], "completion: ''", "bash, zsh, fish"),
    (["plot"], "plot: give a run folder", "plot --help"),
    *(
        ([name], f"{name}: give one run folder, not 0", f"{name} --help")
        for name in ("evaluate", "export", "video", "resume")
    ),
    (["compare"], "compare: 0 folders given", "two or more"),
    (["evaluate", "nothing"], "nothing is not a run folder", "it does not exist"),
    (["evaluate", ""], "RUN: '' is not allowed", "takes a value"),
    (["video", "run", "--out", ""], "--out: '' is not allowed", "takes a value"),
    (["train", "vpg", "--epochs", "0"], "--epochs: 0 is not allowed", "at least 1"),
    (["train", "vpg", "--epochs", "10", "--env_steps", "100"], "--epochs", "two budgets"),
    (["train", "vpg", "--epochs", "1000000"], "1000000", "env steps per run"),
    (["train", "vpg", "--max_ep_len", "-5"], "-5", "at least 1"),
    (["train", "vpg", "--seeds", "0"], "--seeds: 0 is not allowed", "at least 1"),
    (["train", "vpg", "--seed", "-1"], "-1", "at least 0"),
    (["train", "vpg", "--seed", "4294967296"], "4294967296", "at most"),
    (["train", "vpg", "--eval_every", "0"], "--eval_every: 0 is not allowed", "at least 1"),
    (["train", "vpg", "--log_every", "x"], "'x'", "whole number"),
    (["train", "vpg", "--solved_at", "nan"], "nan", "finite"),
    (["train", "a3c", "--actors", "0"], "--actors: 0 is not allowed", "at least 1"),
    (
        ["train", "a3c", "--actors", "70000", "--t_max", "70000", "--dry_run"],
        "--actors: 70000 with 70000",
        "2147483647",
    ),
    (["train", "a3c", "--rmsprop_eps", "1e-40"], "--rmsprop_eps: 1e-40 is not allowed", "above 0"),
    (["train", "a3c", "--t_max", "0"], "--t_max: 0 is not allowed", "at least 1"),
    (["train", "a3c", "--sync_every", "0"], "--sync_every: 0 is not allowed", "at least 1"),
    (["train", "a3c", "--mode", "asink"], "--mode: 'asink' is not allowed", "async, sync"),
    (["train", "a3c", "--preset", "tuned", "--mode", "asink"], "--mode: 'asink' is not allowed", "async, sync"),
    (["train", "a3c", "--order", "any"], "--order: 'any' is not allowed", "fixed, random"),
    (["train", "a3c", "--optimizer", "sgd"], "--optimizer: 'sgd' is not allowed", "adam, rmsprop"),
    (["train", "a3c", "--entropy_coef", "-0.1"], "--entropy_coef: -0.1 is not allowed", "at least 0"),
    (["train", "a3c", "--value_coef", "-1"], "--value_coef: -1 is not allowed", "at least 0"),
    (["train", "a3c", "--max_grad_norm", "0"], "--max_grad_norm: 0 is not allowed", "above 0"),
    (["train", "a3c", "--reward_scale", "0"], "--reward_scale: 0 is not allowed", "above 0"),
    (["train", "a3c", "--epochs", "5"], "unknown flag --epochs", "train a3c --help"),
    (["train", "a3c", "--preset", "tuned", "--env", "Acrobot-v1", "--mode", "sync"], "default sync", "default async"),
    (["list", "vpg"], "'vpg'", "nothing"),
    (["train", "dqn", "--episodes", "3000000000"], "--episodes: 3000000000 is not allowed", "whole number"),
    (["train", "dqn", "--target_update", "3000000000"], "--target_update: 3000000000 is not allowed", "whole number"),
    (["train", "dqn", "--log_every", "10000000000"], "--log_every: 10000000000 is not allowed", "at most 2147483647"),
    (["train", "dqn", "--seeds", "8589934592"], "--seeds: 8589934592 is not allowed", "at most 2147483647"),
    (["train", "dqn", "--lr", "1e-50"], "--lr: 1e-50 is not allowed", "above 0"),
    (["train", "dqn", "--lr", "1e39"], "--lr: 1e+39 is not allowed", "finite"),
    (["train", "dqn", "--target_update", "5", "--target_update_steps", "5"], "--target_update", "give one"),
    (["train", "dqn", "--eval_every", "10", "--log_every", "100"], "--log_every: 100", "--eval_every 10"),
    (["train", "dqn", "--episodes_log", "never"], "--episodes_log: 'never'", "one of auto, on, off"),
    (["train", "dqn", "--device", "toaster", "--dry_run"], "--device: 'toaster'", "auto, cpu, cuda, tpu"),
]


@pytest.mark.parametrize(("words", "value", "allowed"), WRONG, ids=[" ".join(words) for words, _, _ in WRONG])
def test_wrong_input_is_refused_in_one_line(words, value, allowed, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert value in printed.err
    assert allowed in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("covered_processes")
@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_a_device_that_is_not_there_is_an_error_and_leaves_nothing(device, tmp_path):
    done = run(*TINY_VPG, "--device", device, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("purejaxrl: --device: ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_too_many_devices(tmp_path, capsys):
    assert main([*TINY_VPG, "--devices", "99", "--out", str(tmp_path / "run")]) == 2
    expected = "purejaxrl: --devices: 99 is not allowed; there are 1 to 2 cpu devices\n"
    assert capsys.readouterr().err == expected
    assert main([*TINY_VPG, "--devices", "99", "--out", str(tmp_path / "run"), "--dry_run"]) == 2
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "run").exists()


def test_an_existing_run_is_kept_unless_overwrite_is_given(tmp_path, capsys):
    out = tmp_path / "run"
    words = [*TINY_VPG, "--quiet", "--out", str(out)]
    assert main(words) == 0
    before = (out / "episodes.csv").read_bytes()
    for again in (["--quiet"], [], ["--dry_run"]):
        assert main([*TINY_VPG, *again, "--out", str(out)]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err == f"purejaxrl: --out: {out} exists; use --overwrite to replace it, or give another folder\n"
    assert (out / "episodes.csv").read_bytes() == before
    assert main([*words, "--overwrite", "--seed", "1"]) == 0
    assert (out / "episodes.csv").read_bytes() != before


def test_overwrite_removes_only_runs(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert main([*TINY_VPG, "--quiet", "--overwrite", "--out", str(tmp_path)]) == 2
    assert "thesis.tex" in capsys.readouterr().err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    below = tmp_path / "run" / "params" / "thesis.tex"
    below.parent.mkdir(parents=True)
    below.write_text("years of work")
    (tmp_path / "run" / "config.json").write_text("{}")
    assert main([*TINY_VPG, "--quiet", "--overwrite", "--out", str(tmp_path / "run")]) == 2
    assert "params/thesis.tex" in capsys.readouterr().err
    assert below.exists()
    file = tmp_path / "thesis.tex"
    assert main([*TINY_VPG, "--quiet", "--overwrite", "--out", str(file)]) == 2
    assert main([*TINY_VPG, "--quiet", "--out", str(file / "below")]) == 2
    assert "below" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/proc/self").exists(), reason="root may write everywhere")
def test_an_unwritable_folder_is_refused_before_anything_compiles(capsys):
    assert main([*TINY_VPG, "--quiet", "--out", "/proc/self/run"]) == 2
    assert "--out: cannot write to /proc/self/run" in capsys.readouterr().err


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_ends_the_run_with_all_it_has_learned(number, tmp_path):
    """Interrupted after the first rows stand in metrics.csv; every file is whole and the numbers agree."""
    words = [*TINY_DQN, "--episodes", "100000", "--seeds", "2", "--log_every", "200", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "purejaxrl", *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    metrics = tmp_path / "run" / "metrics.csv"
    for _ in range(600):
        if metrics.exists() and metrics.stat().st_size > 500:
            break
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stopped_by"] == number.name
    rows = pd.read_csv(metrics)
    assert summary["env_steps"] == rows.groupby("run")["env_steps"].max().sum() > 0
    assert summary["episodes"] == len(pd.read_csv(tmp_path / "run" / "episodes.csv"))
    assert (tmp_path / "run" / "learning_curve.png").exists()
    assert (tmp_path / "run" / "params" / "last.safetensors").exists()


def test_a_signal_while_compiling_ends_soon(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "purejaxrl", *VECTORS, "--out", "run"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    config = tmp_path / "run" / "config.json"
    for _ in range(600):
        if config.exists():
            break
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["env_steps"] == 0
    assert (tmp_path / "run" / "episodes.csv").exists()


def test_help_needs_no_environment_library():
    code = (
        "import sys\nfrom purejaxrl.cli import main\n"
        "for words in (['--help'], ['--version'], *([name, '--help'] for name in\n"
        "  ('train', 'completion', 'list', 'plot', 'video', 'evaluate'))): assert main(words) == 0\n"
        "assert not {'jax', 'chex'} & set(sys.modules)\n"
        "try: main(['train', 'dqn', '--help'])\nexcept SystemExit as stop: assert stop.code == 0\n"
        "assert 'gymnax' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--target_update_steps" in done.stdout


def test_an_override_replaces_the_presets_other_rule(capsys):
    words = ["train", "dqn", "--preset", "tuned", "--env", "CartPole-v1", "--dry_run"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["config"]["target_update_steps"] == 512
    assert main([*words, "--target_update", "5"]) == 0
    config = json.loads(capsys.readouterr().out)["config"]
    assert (config["target_update"], config["target_update_steps"]) == (5, None)


def test_episodes_log_off_writes_no_episodes(tmp_path):
    assert main([*TINY_VPG, "--quiet", "--episodes_log", "off", "--out", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run" / "episodes.csv").exists()
    assert (tmp_path / "run" / "metrics.csv").exists()


def test_list(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "  vpg   Vanilla policy gradient with a learned baseline and generalized advantage estimation",
        "  CartPole-v0   solved at 195, images",
        "    --env         --observation_type  vpg  a3c --mode async  a3c --mode sync  dqn",
        "    CartPole-v1   img                 x    x                 x                x",
        "    Pendulum-v1   default             x    x                 x                -",
    ):
        assert line in printed.splitlines()
    assert "Acrobot-v1" in printed
    assert max(map(len, printed.splitlines())) <= 110
    assert main(["list", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content["algorithms"]) == ["vpg", "a3c", "dqn"]
    assert ["a3c", "CartPole-v1", "default", "sync"] in content["tuned"]


def test_internal_errors_are_one_line_without_debug(capsys, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("something\nlong")

    monkeypatch.setattr("purejaxrl.experiment.plan.plan_train", broken)
    assert main(["train", "dqn", "--dry_run"]) == 1
    assert (
        capsys.readouterr().err
        == "purejaxrl: internal error: RuntimeError: something long (--debug shows the traceback)\n"
    )
    assert main(["train", "dqn", "--dry_run", "--debug"]) == 1
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (MemoryError("Unable to allocate"), 6, "purejaxrl: out of memory: Unable to allocate\n"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 bytes"), 6, "purejaxrl: out of memory: RESOURCE_EXHAUSTED: 9 bytes\n"),
    ],
    ids=["interrupt", "host memory", "device memory"],
)
def test_what_ends_a_command_decides_its_exit_code(error, code, said, capsys, monkeypatch):
    def broken(*_):
        raise error

    monkeypatch.setattr(cli, "_dispatch", broken)
    assert main(["list"]) == code
    assert capsys.readouterr().err == said


def test_nobody_has_to_read_all_of_it():
    """As of `purejaxrl list | head -1`: no error is made of it."""
    words = f"{sys.executable} -m purejaxrl list | head -c 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a", "")


@pytest.mark.parametrize(
    ("words", "begins"),
    [
        ([], "usage: purejaxrl COMMAND"),
        (["help"], "usage: purejaxrl COMMAND"),
        (["--version"], f"purejaxrl {cli.purejaxrl.__version__}"),
        (["train", "--help"], "purejaxrl train ALGORITHM"),
        (["sweep", "--help"], "purejaxrl sweep ALGORITHM"),
        *(([command, "--help"], f"usage: purejaxrl {command} ") for command in ("evaluate", "export", "plot", "video")),
        *(([command, "--help"], f"usage: purejaxrl {command}") for command in ("list", "cache", "completion")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help(words, begins, capsys, tmp_path, monkeypatch):
    """Printed anew, as no text has been kept in this folder."""
    monkeypatch.setenv("PUREJAXRL_CACHE_DIR", str(tmp_path / "cache"))
    assert main(words) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(begins)
    assert printed.err == ""


def test_a_cache_that_cannot_be_is_an_error(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PUREJAXRL_CACHE_DIR", str(tmp_path / "file" / "cache"))
    assert main(["cache"]) == 2
    assert capsys.readouterr().err.startswith("purejaxrl: cache: nothing is kept; ")


def test_what_is_said_of_a_training_that_went_wrong(capsys, tmp_path):
    """Two of four runs diverged before any had 100 episodes, in an environment without a threshold, and no figure."""
    counts = {"runs": 4, "runs_ok": 2, "env_steps": 5000, "run_seconds": 2.0, "env_steps_per_second": 2500.0}
    outcome = {"compile_seconds": 1.0, "final_return_mean": None, "solved_at": None, "failed_runs": [1, 2]}
    config = SimpleNamespace(is_sweep=False)
    training._print_summary(SimpleNamespace(summary_json=counts | outcome, config=config, curve=tmp_path / "none.png"))
    assert capsys.readouterr().out.splitlines() == [
        "2 of 4 runs ok, 5,000 env steps in 2.0 s (2,500 per second), compiled in 1.0 s",
        "diverged (NaN): runs 1, 2",
    ]


def test_a_cache_that_others_can_write_to_is_not_used(capsys, monkeypatch, tmp_path):
    tmp_path.chmod(0o777)
    monkeypatch.setenv("PUREJAXRL_CACHE_DIR", str(tmp_path))
    assert main(["train", "vpg", "--dry_run"]) == 0
    said = f"no compilation cache: {tmp_path} is not a private folder (mode 0700)\n"
    assert capsys.readouterr().err == said
    assert main(["train", "vpg", "--dry_run", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_without_docstrings_and_asserts_everything_is_the_same(tmp_path):
    """As PYTHONOPTIMIZE=2 and `python -OO` leave them out."""
    code = (
        "from purejaxrl.cli import main\n"
        f"train = {[*TINY_VPG, '--quiet', '--out', 'run']}\n"
        "sweep = ['sweep', 'vpg', '--pi_lr', '1e-3,1e-4', '--dry_run']\n"
        "for words in (['list'], ['completion', 'bash'], train, sweep, ['evaluate', 'run', '--episodes', '1'],\n"
        "  ['train', 'a3c', '--help']):\n"
        "  code = main(words)\n  print(words[0], code)\n"
    )
    outputs = []
    for level in ("", "2"):
        folder = tmp_path / f"level{level}"
        folder.mkdir()
        env = {**os.environ, "PYTHONOPTIMIZE": level, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, cwd=folder)
        assert (done.returncode, done.stderr) == (0, "")
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]
    assert "Vanilla policy gradient" in outputs[1]
