"""Results: of a folder written by hand, whose numbers are known, and of a small training."""

import csv
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import matplotlib as mpl
import numpy as np
import pytest
from by_hand import CONFIG, FINAL, SUMMARY, write_run
from helpers import flat

import purejaxrl
from purejaxrl.analysis.learned_params import load_params
from purejaxrl.cli import main
from purejaxrl.errors import InputError, UnsupportedError
from purejaxrl.experiment.loggers import TensorBoard
from purejaxrl.experiment.progress import Silent, Terminal, is_watched, reporter_of
from purejaxrl.storage.cache import VARIABLE, cache_folder
from purejaxrl.training import devices

mpl.use("Agg")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("by_hand") / "run")


@pytest.fixture
def result(path):
    return purejaxrl.load(path)


def edited(tmp_path, **changes):
    return purejaxrl.load(write_run(tmp_path / "run", summary=SUMMARY | changes))


def test_places_are_numpys(result):
    assert len(result) == 8
    assert result.runs.tolist() == list(range(8))
    assert result[3].runs.tolist() == [3]
    assert result[-1].runs.tolist() == [7]
    assert result[2:5].runs.tolist() == [2, 3, 4]
    assert result[2:5][1:].runs.tolist() == [3, 4]
    assert result[[5, 0]].runs.tolist() == [5, 0]
    assert result[np.arange(8) > 5].runs.tolist() == [6, 7]
    assert [run.runs.tolist() for run in result[6:]] == [[6], [7]]
    assert len(result[5:5]) == 0
    with pytest.raises(IndexError):
        result[8]


def test_nothing_is_evaluated_where_nothing_is_selected(result):
    for call in (result[5:5].evaluate, result[5:5].policy, result[5:5].summary):
        with pytest.raises(InputError, match="no runs are selected"):
            call()


def test_no_policy_plays_in_a_process_that_was_forked_after_jax_had_started(result, monkeypatch):
    monkeypatch.setattr(devices, "lacks_threads", True)
    for call in (result.policy, result.evaluate):
        with pytest.raises(UnsupportedError, match="forked"):
            call()
    assert len(result.frame())


def test_a_folder_without_a_name_is_refused(result):
    with pytest.raises(InputError, match="save: '' is not allowed"):
        result.save("")
    with pytest.raises(InputError, match="out: '' is not allowed"):
        purejaxrl.train("vpg", out="")


def test_it_says_what_it_is_in_one_line(result, path):
    assert repr(result) == f"<Result: dqn on CartPole-v0, original, 8 runs, 4 settings, interrupted, in {path}>"
    assert repr(result[3]) == (
        f"<Result: dqn on CartPole-v0, original, 1 run of 8, lr=0.001 hidden_sizes=4x4, interrupted, in {path}>"
    )
    assert repr(result[1:3]) == (
        f"<Result: dqn on CartPole-v0, original, 2 runs of 8, 2 settings, interrupted, in {path}>"
    )
    assert (result.stopped_by, result.summary_json["seeds"], result.state) == (2, 2, None)


def test_tables_hold_the_rows_of_the_runs(result, path):
    with (path / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["run"] in ("2", "5")]
    frame = result[[2, 5]].frame()
    assert frame["run"].astype(str).tolist() == [row["run"] for row in rows] == ["2", "5", "2", "5"]
    assert frame["return_100"].tolist() == [float(row["return_100"]) for row in rows]
    assert frame["lr"].tolist() == [1e-3, 3e-4, 1e-3, 3e-4]
    # Texts even where all of them could be read as numbers.
    assert frame["hidden_sizes"].tolist() == ["4x4", "8", "4x4", "8"]
    assert result.select(hidden_sizes=(8,)).frame()["hidden_sizes"].tolist() == ["8"] * 8
    assert result[6:].episodes()["run"].tolist() == [6, 7]


def test_a_summary_by_hand(result):
    """Means of two, as below four values nothing is left out; the setting of run 7, which diverged, has one run ok."""
    table = result.summary()
    assert table["rank"].tolist() == [1, 2, 3, 4]
    assert table.index.tolist() == [0, 1, 2, 3]
    assert table["setting"].tolist() == [2, 1, 0, 3]
    assert table["lr"].tolist() == [3e-4, 1e-3, 1e-3, 3e-4]
    assert table["hidden_sizes"].tolist() == ["8", "4x4", "8", "4x4"]
    assert table["final_return_iqm"].tolist() == [150, 40, 15, 5.5]
    assert table["area_median"].tolist() == [32.5, 3.5, 1.5, 7.5]
    assert table["runs_ok"].tolist() == [2, 2, 2, 1]
    assert table["solved_fraction"].tolist() == [1, 0, 0, 0]
    assert table["env_steps_to_solve_median"].tolist() == [1200, np.inf, np.inf, np.inf]
    some = result[[1, 4, 5]].summary()
    assert some["setting"].tolist() == [2, 0]
    assert some["final_return_median"].tolist() == [150, 20]
    assert some["runs"].tolist() == [2, 1]


def test_the_best_run(result, tmp_path):
    assert result.best().runs.tolist() == [4]
    assert result[:4].best().runs.tolist() == [3]
    assert result[[6, 7]].best().runs.tolist() == [6]
    assert edited(tmp_path / "diverged", failed_runs=[4]).best().runs.tolist() == [5]
    assert edited(tmp_path / "short", final_return_per_run=[None] * 8).best().runs.tolist() == [5]
    assert edited(tmp_path / "some_short", final_return_per_run=[*FINAL[:7], None]).best().runs.tolist() == [4]
    # What overshoots the threshold most is not the best of runs that were stopped there.
    assert edited(tmp_path / "stopped", stop_when_solved=True).best().runs.tolist() == [5]
    with pytest.raises(InputError, match="no runs are selected"):
        result[3:3].best()


def test_runs_are_selected_by_swept_values_and_seed(result):
    assert result.select(lr=3e-4).runs.tolist() == [4, 5, 6, 7]
    assert result.select(lr=np.float32(3e-4)).runs.tolist() == [4, 5, 6, 7]
    assert result.select(hidden_sizes=(4, 4)).runs.tolist() == [2, 3, 6, 7]
    assert result.select(hidden_sizes=[(4, 4), (8,)], lr=1e-3).runs.tolist() == [0, 1, 2, 3]
    assert result.select(seed=8, lr=3e-4).runs.tolist() == [5, 7]
    assert result[1:3].select(seed=8).runs.tolist() == [1]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"gamma": 0.9}, "gamma was not swept; use one of lr, hidden_sizes, seed"),
        ({"lr": 1e-2}, "no run has lr=0.01; there are 0.001, 0.0003"),
        ({"seed": 1}, "no run has seed=1; there are 7, 8"),
    ],
)
def test_what_cannot_be_selected_is_named(result, values, text):
    with pytest.raises(InputError, match=text):
        result.select(**values)
    with pytest.raises(InputError, match="together"):
        result[:3].select(seed=8, hidden_sizes=(4, 4))


def test_a_curve_is_the_mean_of_its_runs(result):
    axes = result.select(lr=1e-3, hidden_sizes=(8,)).plot(c="purple", lw=3, ls="--")
    lines = {line.get_label(): line for line in axes.lines}
    mean = lines["training, mean of 100 episodes (2 runs)"]
    assert (mean.get_color(), mean.get_linewidth(), mean.get_linestyle()) == ("purple", 3, "--")
    # Runs 0 and 1: 1 and 2 after 1000 steps, 2 and 3 after 2000.
    np.testing.assert_allclose(mean.get_xdata()[[0, -1]], [1000, 2000])
    np.testing.assert_allclose(mean.get_ydata()[[0, -1]], [1.5, 2.5])
    assert axes.get_title() == "dqn on CartPole-v0, original, lr=0.001 hidden_sizes=8"
    assert result.plot().get_title() == "dqn on CartPole-v0, original"
    assert result.plot(axes) is axes


def test_settings_have_a_color_and_a_name_each_the_best_first(result):
    axes = result.plot()
    handles, labels = axes.get_legend_handles_labels()
    order = ["lr=0.0003 hidden_sizes=8", "lr=0.001 hidden_sizes=4x4", "lr=0.001 hidden_sizes=8"]
    assert labels[:3] == order
    assert len({line.get_color() for line in handles}) == len(labels) == 4
    np.testing.assert_allclose(handles[0].get_ydata()[[0, -1]], [5.5, 6.5])


def test_results_share_axes_under_names_of_their_own(result):
    axes = result[0].plot(label="one")
    result[4].plot(axes, label="other")
    handles, labels = axes.get_legend_handles_labels()
    assert labels == ["one (1 run)", "other (1 run)"]
    assert handles[0].get_color() != handles[1].get_color()
    assert axes.get_title() == "CartPole-v0"
    assert sum(line.get_linestyle() == ":" for line in axes.lines) == 1


def test_any_column_is_plotted(result):
    axes = result[[2, 3]].plot(column="loss")
    assert axes.get_ylabel() == "loss"
    np.testing.assert_allclose(axes.get_legend_handles_labels()[0][0].get_ydata(), 1.25)
    for wrong in ("los", "hidden_sizes"):
        with pytest.raises(InputError, match=f"{wrong} is no column of numbers; there are run, seed"):
            result.plot(column=wrong)


def test_a_saved_result_is_the_same_elsewhere(result, path, tmp_path, capsys):
    (path / "notes.txt").write_text("not part of the run")
    saved = result[2:4].save(tmp_path / "a" / "saved")
    (path / "notes.txt").unlink()
    assert saved == tmp_path / "a" / "saved"
    assert sorted(file.name for file in saved.iterdir()) == [
        "config.json", "episodes.csv", "metrics.csv", "summary.json",
    ]  # fmt: skip
    assert all((saved / file.name).read_bytes() == file.read_bytes() for file in path.iterdir())
    with pytest.raises(InputError) as refusal:
        result.save(saved)
    assert str(refusal.value) == f"path: {saved} exists; use overwrite to replace it, or give another folder"
    # What the command line says, of its own flags.
    assert main(["train", "vpg", "--out", str(saved), "--dry_run"]) == 2
    assert capsys.readouterr().err == f"purejaxrl: {refusal.value.with_flags.replace('--path', '--out')}\n"
    result.save(saved, overwrite=True)
    with pytest.raises(InputError, match="is where the run is already"):
        result.save(path)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's home folder, which is not where the program runs."""
    for name in ("home", "elsewhere"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "home"


TINY = {"epochs": 2, "steps_per_epoch": 40, "actors": 2, "train_v_iters": 1}


@pytest.mark.slow
def test_a_tilde_is_the_home_folder_everywhere(home, monkeypatch, capsys):
    words = [word for name, value in TINY.items() for word in (f"--{name}", str(value))]
    assert main(["train", "vpg", *words, "--quiet", "--out=~/one"]) == 0
    result = purejaxrl.train("vpg", **TINY, seed=1, out="~/two")
    assert result.path == home / "two"
    assert purejaxrl.resume("~/two", extend=3).path == home / "two"
    assert purejaxrl.load("~/one").save("~/three") == home / "three"
    assert len(purejaxrl.evaluate("~/one", episodes=2)) == 2
    assert purejaxrl.export("~/one")[0] == home / "one" / "export" / "policy.safetensors"
    capsys.readouterr()
    for words in (
        ["resume", "~/one", "--extend", "3", "--quiet"],
        ["evaluate", "~/one", "--episodes", "1"],
        ["export", "~/one"],
        ["plot", "~/one"],
        ["plot", "~/one", "~/two", "--out", "~/curves.png"],
        ["compare", "~/one", "~/two", "--out", "~/compared"],
        ["video", "~/one", "--out", "~/video.gif", "--max_steps", "1"],
    ):
        assert main(words) == 0, words
    names = ("compared/compare.png", "compared/compare.csv", "curves.png", "video.gif")
    assert all((home / name).exists() for name in names)
    monkeypatch.setenv(VARIABLE, "~/cache")
    assert cache_folder() == home / "cache"
    assert TensorBoard("~/board").folder == home / "board"
    assert list(Path.cwd().iterdir()) == []


def test_a_home_that_nobody_knows_is_one_line(home, capsys):
    assert main(["train", "vpg", "--out=~nobody-of-that-name/run"]) == 2
    assert capsys.readouterr().err == (
        "purejaxrl: ~nobody-of-that-name/run is not allowed: no home folder is known for it; give a path without ~\n"
    )
    with pytest.raises(InputError, match="no home folder is known"):
        purejaxrl.load("~nobody-of-that-name/run")


class Moving(Silent):
    """Changes the current folder during a training."""

    def advance(self, stats, seconds):
        os.chdir("..")


@pytest.mark.slow
def test_files_are_where_the_training_began(home):
    here = Path.cwd()
    result = purejaxrl.train("vpg", **TINY, out="run", progress=Moving())
    assert Path.cwd() != here
    assert result.path == here / "run"
    assert (here / "run" / "checkpoints" / "000001").exists()
    assert result.frame()["env_steps"].tolist() == [40, 80]
    os.chdir(here)
    assert purejaxrl.resume("run", extend=3, progress=Moving()).frame()["env_steps"].tolist() == [40, 80, 120]
    os.chdir(here)
    loaded = purejaxrl.load("run")
    saved = loaded.save("saved")
    os.chdir("/")
    assert len(loaded.frame()) == 3
    assert len(loaded.evaluate(episodes=2).returns) == 2
    assert purejaxrl.load(saved).path == here / "saved"


def test_what_is_no_run_is_not_loaded(path, tmp_path):
    with pytest.raises(InputError, match="is not a run folder"):
        purejaxrl.load(tmp_path)
    with pytest.raises(
        InputError, match="unknown argument devices; load takes agent, network, env, env_params, renderer"
    ):
        purejaxrl.load(path, devices=2)
    wrong = write_run(tmp_path / "wrong", {**CONFIG, "seeds": "many"})
    with pytest.raises(InputError, match="it does not say what was trained"):
        purejaxrl.load(wrong)


def test_a_running_training_can_be_read(tmp_path):
    result = purejaxrl.load(write_run(tmp_path / "run", summary=None))
    assert len(result.frame()) == 16
    assert len(result.plot().get_legend_handles_labels()[1]) == 4
    with pytest.raises(InputError, match=r"holds no summary.json: the training has not ended"):
        result.best()
    (result.path / "episodes.csv").unlink()
    with pytest.raises(InputError, match=r"holds no episodes.csv; above 256 runs"):
        result.episodes()


@pytest.mark.parametrize(
    "changes", [{"final_return_per_run": [1.0]}, {"settings": [{}]}, {"env_steps_per_run": ["x"] * 8}]
)
def test_a_damaged_summary_is_one_line(tmp_path, changes):
    with pytest.raises(InputError, match=r"cannot use .*summary.json"):
        edited(tmp_path, **changes).summary()


def test_tables_and_curves_need_no_jax(path):
    code = (
        "import sys, matplotlib; matplotlib.use('Agg'); import purejaxrl\n"
        f"result = purejaxrl.load({str(path)!r})\n"
        "result.select(lr=1e-3).summary(), result.best(), result.episodes(), result.plot()\n"
        "assert 'jax' not in sys.modules"
    )
    # Deprecations are between other packages: older versions of matplotlib call what newer ones of pyparsing rename.
    warnings = ["-W", "error", "-W", "ignore::DeprecationWarning"]
    done = subprocess.run([sys.executable, *warnings, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


# A small training, of one program.
SMALL = {"epochs": 4, "steps_per_epoch": 80, "actors": 4, "train_v_iters": 2, "hidden_sizes": (4,), "eval_every": 80}
SWEPT = {"pi_lr": [1e-2, 1e-3], "seeds": 2, "seed": 3}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "run"
    return purejaxrl.sweep("vpg", **SWEPT, out=out, **SMALL)


def test_what_is_loaded_is_what_was_trained(trained):
    loaded = purejaxrl.load(trained.path)
    assert loaded.summary_json == trained.summary_json == json.loads((trained.path / "summary.json").read_text())
    assert loaded.frame().equals(trained.frame())
    assert loaded.plan.as_dict() == trained.plan.as_dict() | {"devices": 2}
    assert loaded.stopped_by is trained.stopped_by is None
    assert loaded.state is None


def test_figures_plotted_again_are_those_of_the_training(trained, capsys):
    figure = trained.path / "sweep.png"
    before = figure.read_bytes()
    figure.unlink()
    assert main(["plot", str(trained.path)]) == 0
    assert capsys.readouterr().out == f"{figure}\n"
    assert figure.read_bytes() == before


def test_a_slice_of_the_state(trained):
    whole = trained.state.learner.params.pi["kernel_0"]
    assert whole.shape == (4, 4, 4)
    np.testing.assert_array_equal(trained[[2, 1]].state.learner.params.pi["kernel_0"], whole[jax.numpy.array([2, 1])])


def test_a_policy_is_its_networks_argmax(trained):
    """By hand, in numpy; of the run that was chosen, and of the best where several are."""
    states = np.random.default_rng(0).normal(scale=5, size=(3, 30, 4)).astype(np.float32)
    params = jax.tree.map(np.asarray, trained.state.learner.params.pi)
    hidden = np.tanh(np.einsum("...i,rij->r...j", states, params["kernel_0"]) + params["bias_0"][:, None, None])
    logits = np.einsum("r...i,rij->r...j", hidden, params["kernel_1"]) + params["bias_1"][:, None, None]
    expected = np.argmax(logits, axis=-1)
    assert np.ptp(expected, axis=(1, 2)).any(), "constant policies would tell nothing"
    for run in range(4):
        np.testing.assert_array_equal(trained[run].policy()(states), expected[run])
    np.testing.assert_array_equal(trained.policy()(states), expected[trained.best().runs[0]])


def test_an_evaluation_is_that_of_the_selected_runs(trained):
    all_returns = purejaxrl.evaluate(trained.path, episodes=6, seed=1)
    assert trained[[1, 3]].evaluate(episodes=6, seed=1).returns["seed"].unique().tolist() == [4]
    found = trained[[2, 3]].evaluate(episodes=6, seed=1)
    expected = all_returns[all_returns["run"].isin([2, 3])].reset_index(drop=True)
    assert found.returns.equals(expected)
    assert list(found.returns["seed"].unique()) == [3, 4]
    assert found.returns["pi_lr"].unique().tolist() == [1e-3]
    assert found.mean == pytest.approx(expected["return"].mean())
    # The bootstrap of two values lies between them.
    assert (found.low, found.high) == tuple(sorted(expected.groupby("run")["return"].mean()))
    alone = trained[1].evaluate(episodes=6, seed=1)
    assert alone.low < alone.mean < alone.high
    assert repr(alone) == (
        f"pi_lr=0.01: mean return {alone.mean:.1f} [{alone.low:.1f}, {alone.high:.1f}], 1 run x 6 episodes"
    )
    with pytest.raises(InputError, match="episodes: 0 is not allowed"):
        trained.evaluate(episodes=0)
    with pytest.raises(InputError, match="params: 'worst' is not allowed"):
        trained.policy(params="worst")


def test_an_evaluation_of_several_settings_has_a_row_for_each(trained):
    """The best first. Means over settings mean nothing."""
    found = trained[[0, 2, 3]].evaluate(episodes=6, seed=1)
    means = found.returns.groupby("run")["return"].mean().to_dict()
    expected = {0: ("pi_lr=0.01", [means[0]]), 1: ("pi_lr=0.001", [means[2], means[3]])}
    assert sorted(found.settings["setting"]) == [0, 1]
    assert found.settings["mean"].is_monotonic_decreasing
    for row, line in zip(found.settings.itertuples(), repr(found).splitlines(), strict=True):
        label, of_runs = expected[row.setting]
        assert (row.label, row.pi_lr, row.runs) == (label, float(label.removeprefix("pi_lr=")), len(of_runs))
        assert row.mean == pytest.approx(np.mean(of_runs))
        assert row.low < row.mean < row.high
        assert line.startswith(f"{label}: mean return {row.mean:.1f} [{row.low:.1f}, {row.high:.1f}], ")
    (both,) = found.settings.query("runs == 2").itertuples()
    assert (both.low, both.high) == pytest.approx(sorted(expected[1][1]))
    assert np.isnan([found.mean, found.low, found.high]).all()


def test_best_parameters_are_those_after_the_best_evaluation(trained):
    """A training that ends with the epoch of the best evaluation ends with these parameters."""
    rows = trained.frame().query("run == 1")
    epoch = int(rows["iteration"].iloc[rows["eval_return"].argmax()])
    assert epoch < 4
    shorter = purejaxrl.sweep("vpg", **{**SMALL, **SWEPT, "epochs": epoch})
    (batch,) = load_params(trained.path, "best")[1]
    best = jax.tree.map(lambda leaf: leaf[1:2], batch.params.pi)
    np.testing.assert_array_equal(flat(best), flat(shorter[1].state.learner.params.pi))


def test_a_temporary_folder_lives_as_long_as_any_slice():
    result = purejaxrl.sweep("vpg", **SWEPT, **SMALL)
    path, run = result.path, result[1]
    del result
    gc.collect()
    assert len(run.frame()) == 4
    del run
    gc.collect()
    assert not path.exists()


def test_a_notebook_shows_curve_video_and_table(trained, path, tmp_path):
    shown = trained._repr_html_()
    assert shown.count("data:image/png;base64,") == shown.count("data:image/gif;base64,") == 1
    assert "vpg on CartPole-v0, original, 4 runs, 2 settings" in shown
    best = trained.best()
    whose = f"run {best.runs[0]}: pi_lr={best.frame()['pi_lr'].iloc[0]:g}<"
    for word in ("pi_lr=0.01", "2 of 2", "final return IQM [95%]", whose):
        assert word in shown
    # Nothing there but two files: no video, no table, and no exception.
    broken = purejaxrl.load(write_run(tmp_path / "run", summary=None))
    assert broken._repr_html_().count("data:image/") == 1
    (broken.path / "metrics.csv").write_text("nonsense")
    assert broken._repr_html_().count("<img") == 0


def test_a_bar_is_shown_in_interactive_sessions(trained, monkeypatch):
    plan = trained.plan
    assert not is_watched()
    assert isinstance(reporter_of(None, plan), Silent)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert isinstance(reporter_of(None, plan), Terminal)
    assert isinstance(reporter_of(False, plan), Silent)
    own = Silent()
    assert reporter_of(own, plan) is reporter_of(lambda _: own, plan) is own
    with pytest.raises(InputError, match="progress: 3 is not allowed"):
        reporter_of(3, plan)


@pytest.mark.parametrize("in_notebook", [False, True])
def test_a_bar_is_one_line_on_standard_error_and_in_notebooks_on_output(in_notebook, trained, capsys, monkeypatch):
    """What notebooks show of standard error is red."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    if in_notebook:
        monkeypatch.setitem(sys.modules, "ipykernel", sys)
    bar = reporter_of(True, trained.plan)
    bar.start()
    bar.close()
    shown, other = capsys.readouterr()[:: 1 if in_notebook else -1]
    assert other == ""
    assert shown.startswith("\rvpg, starting:   0%")
    assert shown.count("\n") == 1
