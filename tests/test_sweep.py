"""Sweeps: every run is the run that it would be alone, whatever it shares a program, a batch or a process with."""

import gc
import json
import signal

import jax
import numpy as np
import pandas as pd
import pytest
from helpers import assert_same_bits, bits
from probes import Counter

import purejaxrl
from purejaxrl.agents import dqn, vpg
from purejaxrl.components.hyperparameters import find_budget
from purejaxrl.envs import make
from purejaxrl.errors import ResourceError
from purejaxrl.storage.run_folder import read_metadata, read_params
from purejaxrl.training import devices
from purejaxrl.training.batches import batch_of, cut, group_settings, stack_configs
from purejaxrl.training.compilation import compile_fitting, compile_program
from purejaxrl.training.loop import slide_window
from purejaxrl.training.rollout import Ended
from purejaxrl.training.runner import fit

VECTORS = {"observation_type": "default"}
TINY = {**VECTORS, "env_steps": 1200, "batch_size": 16, "memory_size": 64}
CHECKPOINT = ("arrays.safetensors", "facts.json", "SHA256SUMS")
SWEPT = {"lr": [1e-3, 1e-4], "hidden_sizes": [(8,), (4, 4)]}


class Notes:
    """A reporter that keeps what it receives."""

    def __init__(self):
        self.notes, self.stats = [], None

    def start(self):
        pass

    def note(self, text):
        self.notes.append(text)

    def advance(self, stats, seconds):
        self.stats, self.seconds = stats, seconds

    def close(self):
        pass


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Two learning rates in one program, two networks in one each; three seeds, so that two devices need padding."""
    return purejaxrl.sweep("dqn", seeds=3, seed=5, out=tmp_path_factory.mktemp("sweep") / "grid", **TINY, **SWEPT)


def test_the_files_of_a_sweep(grid):
    names = {path.relative_to(grid.path).as_posix() for path in grid.path.rglob("*") if path.is_file()}
    assert names == {
        "config.json", "episodes.csv", "metrics.csv", "summary.json", "sweep.csv", "improvement.csv", "sweep.png",
        "params/last-1.safetensors", "params/last-2.safetensors",
        # One between the programs and one at the end.
        *(f"checkpoints/{k}/{file}" for k in ("000001", "000002") for file in CHECKPOINT),
    }  # fmt: skip
    config = json.loads((grid.path / "config.json").read_text())
    assert config["config"]["gamma"] == 0.99
    assert not set(SWEPT) & set(config["config"])
    assert config["settings"] == [
        {"lr": lr, "hidden_sizes": list(sizes)} for lr in SWEPT["lr"] for sizes in SWEPT["hidden_sizes"]
    ]
    summary = json.loads((grid.path / "summary.json").read_text())
    assert (summary["runs"], summary["runs_ok"], summary["seeds"], summary["programs"]) == (12, 12, 3, 2)
    assert summary["env_steps"] == 12 * 1200
    assert len(summary["final_return_per_run"]) == len(summary["area_under_curve_per_run"]) == 12
    statistics, table = grid.summary(), pd.read_csv(grid.path / "sweep.csv")
    assert statistics["rank"].tolist() == table["rank"].tolist() == [1, 2, 3, 4]
    assert statistics["setting"].tolist() == table["setting"].tolist()
    assert sorted(table["setting"]) == [0, 1, 2, 3]
    for row in table.itertuples():
        lr, sizes = [(lr, sizes) for lr in SWEPT["lr"] for sizes in ("8", "4x4")][row.setting]
        assert (row.lr, row.hidden_sizes) == (lr, sizes)
        areas = summary["area_under_curve_per_run"][3 * row.setting : 3 * row.setting + 3]
        assert row.area_median == pytest.approx(np.median(areas))
    assert statistics["runs"].tolist() == statistics["runs_ok"].tolist() == [3, 3, 3, 3]
    assert statistics["area_median"].notna().all()
    pairs = pd.read_csv(grid.path / "improvement.csv")
    assert pairs[["setting", "other"]].to_numpy().tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert grid.curve.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert grid.curve.stat().st_size > 20_000


def test_each_run_of_a_sweep_is_the_run_alone(grid):
    episodes = grid.episodes()
    assert list(episodes.columns) == ["run", "seed", "episode", "env_steps", "return", "length", "lr", "hidden_sizes"]
    assert set(episodes["run"]) == set(grid.frame()["run"]) == set(range(12))
    settings = [(lr, sizes) for lr in SWEPT["lr"] for sizes in SWEPT["hidden_sizes"]]
    for setting in (1, 2):
        lr, sizes = settings[setting]
        alone = purejaxrl.train("dqn", seed=7, lr=lr, hidden_sizes=sizes, **TINY).episodes()
        found = episodes[episodes["run"] == 3 * setting + 2].reset_index(drop=True)
        assert set(found["seed"]) == {7}
        assert set(found["lr"]) == {lr}
        assert set(found["hidden_sizes"].astype(str)) == {"x".join(map(str, sizes))}
        # Chaos may separate the two after some hundred updates; before that they are the same.
        columns = ["seed", "episode", "env_steps", "return", "length"]
        early = alone["env_steps"] <= 16 + 400
        assert early.sum() > 10
        pd.testing.assert_frame_equal(found.loc[: early.sum() - 1, columns], alone.loc[early, columns])


def test_params_say_whose_they_are(grid):
    for name, runs in (("last-1", [0, 1, 2, 6, 7, 8]), ("last-2", [3, 4, 5, 9, 10, 11])):
        assert read_params(grid.path, name)["q/kernel_0"].shape[0] == len(runs)
        assert read_metadata(grid.path, name)["runs"] == runs
    assert grid.state is None


def test_a_sweep_of_one_program_keeps_its_state():
    result = purejaxrl.sweep("dqn", seeds=2, lr=[1e-3, 1e-4, 1e-5], hidden_sizes=(8,), **TINY)
    assert result.state.learner.params.q["kernel_0"].shape == (6, 4, 8)
    assert result.summary_json["programs"] == 1
    assert result.frame()["lr"].unique().tolist() == [1e-3, 1e-4, 1e-5]


def test_swept_names_that_files_already_have_get_a_prefix():
    """The budget's name is that of a column of both files, the loss's that of a metric."""
    result = purejaxrl.sweep(
        "dqn", env_steps=[200, 400], loss=["mse"], hidden_sizes=(8,), batch_size=16, memory_size=64, **VECTORS
    )
    metrics, episodes = result.frame(), result.episodes()
    assert metrics.groupby("run")["env_steps"].max().tolist() == [200, 400]
    assert metrics.groupby("run")["swept_env_steps"].unique().map(list).tolist() == [[200], [400]]
    assert episodes["env_steps"].nunique() > 10
    assert set(episodes["swept_env_steps"]) == {200, 400}
    assert metrics["loss"].dtype == float
    assert set(metrics["swept_loss"]) == set(episodes["loss"]) == {"mse"}
    assert result.summary().set_index("setting")["env_steps"].to_dict() == {0: 200, 1: 400}


@pytest.mark.slow
def test_an_interrupted_sweep_says_what_has_not_begun_and_the_next_one_runs():
    """A signal after some episodes: the next chunk is the last, and the second group never begins."""

    class Interrupting(Notes):
        def advance(self, stats, seconds):
            super().advance(stats, seconds)
            if not self.notes and stats.episodes.sum() > 10:
                self.note("interrupted")
                signal.raise_signal(signal.SIGINT)

    settings = {**TINY, "hidden_sizes": [(8,), (4,)], "env_steps": 10**8}
    notes = Interrupting()
    result = purejaxrl.sweep("dqn", seeds=2, progress=notes, **settings)
    assert result.stopped_by == signal.SIGINT
    begun = result.summary_json["env_steps"]
    assert (result.summary_json["runs"], result.summary_json["runs_begun"], result.summary_json["runs_ok"]) == (4, 2, 2)
    assert 0 < begun < 10**6
    assert not notes.stats.is_over.any()
    # The open interval is closed, and the learners are written.
    assert result.frame().groupby("run")["env_steps"].max().sum() == begun
    assert read_params(result.path, "last-1")["q/kernel_0"].shape == (2, 4, 8)
    statistics = result.summary()
    assert statistics["runs_ok"].tolist() == [2, 0]
    assert np.isnan(statistics["solved_fraction"][1])
    assert statistics["rank"].tolist() == [1, 2]
    held = result.frame()["return_mean"].ffill()
    assert max(result.summary_json["area_under_curve_per_run"][:2]) <= held.max()
    again = purejaxrl.sweep("dqn", seeds=2, hidden_sizes=(8,), **TINY)
    assert again.stopped_by is None
    assert again.summary_json["env_steps"] == 2400


@pytest.mark.slow
def test_a_batch_makes_room_for_the_next(monkeypatch):
    """When a batch starts, no array of the one before lives: the replays would fill memory twice."""
    settings = {**TINY, "hidden_sizes": (8,), "env_steps": 64, "memory_size": 100_000}
    replay, alive = 100_000 * 11 * 4, []

    def counting(program, *arguments, **options):
        gc.collect()
        alive.append(sum(array.nbytes for array in jax.live_arrays() if array.nbytes >= replay))
        return fit(program, *arguments, **options)

    monkeypatch.setattr("purejaxrl.experiment.run.fit", counting)
    gc.collect()
    before = sum(array.nbytes for array in jax.live_arrays() if array.nbytes >= replay)
    result = purejaxrl.sweep("dqn", seeds=6, **settings, max_memory=2.5 * replay / 2**30)
    assert result.summary_json["batches"] == 3
    assert alive == [before] * 3


def test_groups_batches_and_shares():
    configs = [dqn.Config(lr=lr, batch_size=size) for lr in (1e-3, 1e-4) for size in (32, 64)]
    configs.append(dqn.Config(gamma=0.5, batch_size=32))
    groups = group_settings(configs)
    assert [group.settings for group in groups] == [(0, 2, 4), (1, 3)]
    batch = batch_of(groups[0], seeds=2, seed=10)
    assert batch.runs.tolist() == [0, 1, 4, 5, 8, 9]
    assert batch.seeds.tolist() == [10, 11] * 3
    np.testing.assert_allclose(batch.configs.lr, [1e-3, 1e-3, 1e-4, 1e-4, 1e-3, 1e-3], rtol=1e-6)
    np.testing.assert_allclose(batch.configs.gamma, [0.99, 0.99, 0.99, 0.99, 0.5, 0.5], rtol=1e-6)
    np.testing.assert_allclose(batch.configs.eps_vals[2], np.full(6, 1e-3), rtol=1e-6)
    assert [part.runs.tolist() for part in cut(batch, 4)] == [[0, 1, 4, 5], [8, 9]]
    # An optional real value makes another program: without it there is nothing to compute.
    assert len(group_settings([purejaxrl.AGENTS["a3c"].Config(max_grad_norm=norm) for norm in (None, 0.5, 1.0)])) == 2


def test_a_diverged_setting_is_named_and_touches_nobody():
    """The same sweep with a healthy and with an absurd second setting: the others are bitwise as they are."""
    healthy = purejaxrl.sweep("dqn", seeds=2, lr=[1e-3, 1e-4], hidden_sizes=(8,), **TINY)
    sick = purejaxrl.sweep("dqn", seeds=2, lr=[1e-3, 1e38], hidden_sizes=(8,), **TINY)
    assert sick.summary_json["failed_runs"] == [2, 3]
    assert sick.summary_json["runs_ok"] == 2
    assert sick.summary()["runs_ok"].tolist() == [2, 0]
    assert sick.summary()["runs"].tolist() == [2, 2]
    assert pd.read_csv(sick.path / "sweep.csv")["runs_ok"].tolist() == [2, 0]
    for run in (0, 1):
        pick = lambda state, run=run: jax.tree.map(lambda leaf: leaf[run], state)  # noqa: E731
        assert_same_bits(pick(sick.state), pick(healthy.state))
    rows = [result.episodes().query("run < 2").reset_index(drop=True) for result in (healthy, sick)]
    pd.testing.assert_frame_equal(rows[0], rows[1])


def test_what_does_not_fit_in_memory_is_cut_into_batches(tmp_path):
    settings = {**TINY, "hidden_sizes": (8,), "env_steps": 600, "memory_size": 100_000}
    # Four replays of 100 000 rows of 12 float32 fit, and little else.
    limit = 4.5 * 100_000 * 12 * 4 / 2**30
    notes = Notes()
    whole = purejaxrl.sweep("dqn", seeds=5, lr=[1e-3, 1e38], **settings)
    parts = purejaxrl.sweep(
        "dqn", seeds=5, lr=[1e-3, 1e38], **settings, max_memory=limit, progress=notes, out=tmp_path / "parts"
    )
    assert whole.summary_json["failed_runs"] == parts.summary_json["failed_runs"] == [5, 6, 7, 8, 9]
    assert whole.summary_json["batches"] == 1
    assert parts.summary_json["batches"] == 3
    assert notes.notes[-1] == "10 runs in 3 batches of up to 4"
    assert notes.stats.is_over.all()
    assert notes.stats.env_steps.tolist() == [600] * 10
    assert len(list((tmp_path / "parts" / "params").iterdir())) == 3
    order = ["run", "episode"]
    frames = [result.episodes().sort_values(order).reset_index(drop=True) for result in (whole, parts)]
    pd.testing.assert_frame_equal(frames[0].query("env_steps < 400"), frames[1].query("env_steps < 400"))
    with pytest.raises(ResourceError, match=r"max_memory: one run needs \d+\.\d MiB, and 1\.0 MiB may be used"):
        purejaxrl.sweep("dqn", seeds=5, **settings, max_memory=0.001)


def test_the_memory_of_a_program_is_what_its_arrays_take():
    """Six runs whose replays are 4.6 MiB each: the analysis sees them once, not twice, as they are updated in place."""
    config = dqn.Config(episodes=None, env_steps=100, batch_size=16, memory_size=100_000, hidden_sizes=(8,))
    local = devices.local_devices("cpu", 2)
    program = compile_fitting(dqn.agent, make("CartPole-v0"), config, 6, find_budget(config), local, memory_limit=2**34)
    replays = 6 * 100_000 * 12 * 4
    # A chunk's log beside them: return and length of an episode, and whether the run was active.
    logs = program.capacity * 6 * (4 + 4 + 1)
    assert program.width == 6
    assert replays + logs < program.memory < 1.5 * replays


def test_slide_window_against_a_plain_loop():
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 2, (30, 5, 3)) * rng.integers(1, 9, (30, 5, 3))
    history, recent, slide = [], np.zeros(7, np.float32), jax.jit(slide_window)
    for length in lengths:
        ended = Ended(np.float32(length * 2), np.int32(length))
        finished = np.int32(len(history))
        means = [-np.inf]
        for total in ended.returns.ravel()[ended.length.ravel() > 0]:
            history.append(float(total))
            means += [np.mean(history[-7:])] if len(history) >= 7 else []
        recent, best = slide(recent, ended, finished)
        assert best == pytest.approx(max(means), rel=1e-6)
        np.testing.assert_array_equal(recent[-len(history) :], history[-7:])


def test_runs_that_are_solved_stop_and_the_cut_into_chunks_does_not_show():
    """Episodes of the counting probe last four steps and return 4: solved with the hundredth, in iteration 20."""
    config = vpg.Config(epochs=None, env_steps=4000, steps_per_epoch=20, actors=1, train_v_iters=1, hidden_sizes=(4,))
    budget = find_budget(config)._replace(stop_at=4.0)
    local = devices.local_devices("cpu", 2)
    program = compile_program(vpg.agent, make(Counter(length=4)), config, budget, local, 2)
    ends = []
    for seconds in (1.0, 1e-3, 1e-6):
        chunks = list(fit(program, stack_configs([config], 2), np.arange(2), chunk_seconds=seconds))
        assert sum(chunk.log.active.sum(axis=0) for chunk in chunks).tolist() == [20, 20]
        assert chunks[-1].is_last
        ends.append((len(chunks), bits(chunks[-1].state)))
    assert ends[0][0] < ends[2][0]
    assert ends[0][1] == ends[1][1] == ends[2][1]


@pytest.mark.slow
def test_stop_when_solved_ends_each_run_with_the_iteration_that_solves_it():
    settings = {"t_max": 10, "actors": 4, "env_steps": 60_000, "lr": 3e-3}
    result = purejaxrl.train("a3c", seeds=4, solved_at=30, stop_when_solved=True, log_every=40, **settings)
    solved = result.summary_json["env_steps_to_solve_per_run"]
    assert None not in solved
    assert len(set(solved)) == 4
    assert max(solved) < 50_000
    ends = result.frame().groupby("run")["env_steps"].max()
    assert ends.tolist() == [-(-steps // 40) * 40 for steps in solved]
    assert result.episodes().groupby("run")["env_steps"].max().le(ends).all()
    # What is left of the budget counts with the threshold, so that stopping early is no loss.
    for run, frame in result.frame().groupby("run"):
        held = frame["return_mean"].ffill()
        known = frame[held.notna()]
        area = np.average(held.dropna(), weights=np.full(len(known), 40))
        left = 60_000 - ends[run]
        expected = (area * ends[run] + 30 * left) / 60_000
        assert result.summary_json["area_under_curve_per_run"][run] == pytest.approx(expected, rel=1e-6)
