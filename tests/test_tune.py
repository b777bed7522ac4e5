"""Searches: whoever goes on is the run that it would have been alone, and whatever is interrupted ends the same."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import purejaxrl
from purejaxrl import Range
from purejaxrl.cli import main
from purejaxrl.errors import ClusterError, InputError
from purejaxrl.experiment import tune as tuning
from purejaxrl.experiment import tune_time
from purejaxrl.experiment.shards import places_of
from purejaxrl.experiment.tune_plan import plan_tune
from purejaxrl.storage.files import read_json
from purejaxrl.storage.run_folder import find_shards, read_metadata, read_params

# An iteration has 40 env steps, so that rungs end within logging intervals of 100.
SMALL = {"steps_per_epoch": 40, "actors": 4, "hidden_sizes": (8,), "log_every": 100, "devices": 2}
# In the order of flags, in which settings are drawn.
SPACE = {"gamma": [0.9, 0.99], "pi_lr": Range(1e-4, 1e-1, log=True)}
SEARCH = {**SMALL, **SPACE, "env_steps": 1080, "settings": 7, "seeds": 3, "confirm_seeds": 2}
OPTIONS = {
    "steps_per_epoch": "40", "actors": "4", "hidden_sizes": "8", "log_every": "100", "devices": "2",
    "pi_lr": "1e-4..1e-1:log", "gamma": "0.9,0.99", "env_steps": "1080", "settings": "7", "seeds": "3",
    "confirm_seeds": "2",
}  # fmt: skip


def words_of(**changes):
    """The command line of the same search, with other options."""
    options = {**OPTIONS, **changes}
    return ["tune", "vpg", *(word for name, text in options.items() if text for word in (f"--{name}", text))]


# They say when something was done, and by whom.
TIMED = ("summary.json", "confirm/summary.json", "confirm/checkpoints")
FIGURES = ("sweep.png", "tune.png", "confirm/sweep.png")


def files(path):
    found = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(TIMED)}


def summary(path):
    return {name: value for name, value in read_json(path / "summary.json").items() if "second" not in name}


def assert_same_search(one, other):
    mine, others = files(one), files(other)
    assert mine.keys() - {*FIGURES} == others.keys() - {*FIGURES}
    assert [name for name in mine if mine[name] != others.get(name, mine[name])] == []
    assert summary(one) == summary(other)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take longer than what these tests are about."""
    monkeypatch.setattr("purejaxrl.analysis.figures.write_figures", lambda *_: [])


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Seven settings, of which three go on."""
    return purejaxrl.tune("vpg", out=tmp_path_factory.mktemp("tune") / "run", **SEARCH)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The sweep of which the search trains a part."""
    settings = {name: value for name, value in SEARCH.items() if name not in ("settings", "confirm_seeds")}
    return purejaxrl.sweep("vpg", out=tmp_path_factory.mktemp("sweep") / "run", random=7, **settings)


def rows_of(result, name, run):
    """The rows of a run in one of the tables."""
    table = getattr(result, name)()
    return table[table["run"] == run].reset_index(drop=True)


def recent_returns(episodes, settings, seeds, env_steps):
    """Mean return of the last 100 episodes up to so many env steps, [settings, seeds]."""
    rows = episodes[episodes["env_steps"] <= env_steps]
    runs = [3 * setting + seed for setting in settings for seed in range(seeds)]
    return np.array([rows[rows["run"] == run]["return"].iloc[-100:].mean() for run in runs]).reshape(-1, seeds)


def test_settings_go_on_by_their_returns(found, whole):
    """Scores are computed anew from the episodes of the whole sweep."""
    table, episodes = found.tuning.table, whole.episodes()
    assert list(table) == [
        "setting", "gamma", "pi_lr", "rung", "budget", "seeds", "env_steps", "score", "low", "high", "goes_on"
    ]  # fmt: skip
    first, second = table[table["rung"] == 0], table[table["rung"] == 1]
    assert first["setting"].tolist() == [*range(7)]
    assert first[["budget", "seeds", "env_steps"]].drop_duplicates().to_numpy().tolist() == [[360, 2, 720]]
    scores = recent_returns(episodes, range(7), 2, 360)
    # Below four values the interquartile mean is the mean; the bootstrap of two has these ends.
    np.testing.assert_allclose(first["score"], scores.mean(axis=1), rtol=1e-6)
    np.testing.assert_allclose(first[["low", "high"]], np.sort(scores, axis=1), rtol=1e-6)
    best = sorted(np.argsort(-scores.mean(axis=1), kind="stable")[:3].tolist())
    assert second["setting"].tolist() == first["setting"][first["goes_on"] == 1].tolist() == best
    assert second[["budget", "seeds", "env_steps", "goes_on"]].drop_duplicates().to_numpy().tolist() == [
        [1080, 3, 3240, 0]
    ]
    last = recent_returns(episodes, best, 3, 1080).mean(axis=1)
    np.testing.assert_allclose(second["score"], last, rtol=1e-6)
    winner = best[int(np.argmax(last))]
    assert found.tuning.best == found.config.settings[winner]
    assert found.tuning.finalists()["setting"][0] == winner
    assert found.tuning.found.score == pytest.approx(last.max())
    assert "<Tuning: gamma=" in repr(found.tuning)


def test_who_goes_on_is_the_run_alone(found, whole):
    """Bitwise, at equal width; and who is dropped is its beginning."""
    table = found.tuning.table
    last = table[table["rung"] == 1]["setting"].tolist()
    survivors = [3 * setting + seed for setting in last for seed in range(3)]
    dropped = [3 * setting + seed for setting in set(range(7)) - set(last) for seed in range(2)]
    assert sorted(set(found.frame()["run"])) == sorted(survivors + dropped)
    for name in ("frame", "episodes"):
        mine, theirs = (getattr(result, name)() for result in (found, whole))
        for run in survivors:
            rows = [one[one["run"] == run].reset_index(drop=True) for one in (mine, theirs)]
            pd.testing.assert_frame_equal(*rows, check_exact=True)
        for run in dropped:
            rows, alone = (one[one["run"] == run].reset_index(drop=True) for one in (mine, theirs))
            assert rows["env_steps"].max() <= 360
            # The last interval is cut off where the rung ends.
            count = len(rows) - (name == "frame")
            pd.testing.assert_frame_equal(rows[:count], alone[:count], check_exact=True)
    mine, theirs = (read_params(result.path, "last") for result in (found, whole))
    places = read_metadata(found.path, "last")["runs"]
    assert places == sorted(survivors + dropped)
    for name, values in mine.items():
        np.testing.assert_array_equal(values[[places.index(run) for run in survivors]], theirs[name][survivors])


def test_the_files_of_a_search(found):
    names = {path.relative_to(found.path).as_posix() for path in found.path.rglob("*") if path.is_file()}
    own = {"config.json", "episodes.csv", "metrics.csv", "summary.json", "sweep.csv", "improvement.csv", "sweep.png"}
    assert names >= {*own, "params/last.safetensors", "tune.csv", "best.json"}
    assert {f"confirm/{name}" for name in own} < names
    assert not {name for name in names if name.startswith(("shards", "states", "checkpoints"))}
    content = read_json(found.path / "summary.json")
    assert (content["runs"], content["runs_begun"], content["fraction_done"]) == (21, 17, 1)
    assert content["env_steps"] == 4 * 2 * 360 + 3 * 3 * 1080
    assert content["tune"]["full_env_steps"] == 7 * 3 * 1080


def test_best_json_holds_the_whole_config(found):
    content = read_json(found.path / "best.json")
    assert (content["algorithm"], content["env"], content["observation_type"]) == ("vpg", "CartPole-v0", "default")
    winner = found.config.settings[content["found_by"]["setting"]]
    expected = {**read_json(found.path / "config.json")["config"], **winner}
    assert content["hyperparameters"] == expected
    assert content["found_by"]["confirmed"] == read_json(found.path / "summary.json")["tune"]["confirmed"]


def test_fresh_seeds_judge_winner_and_preset(found):
    """They are the runs of a sweep of both with the seeds that follow."""
    values = found.tuning.best
    both = {name: [value, {"pi_lr": 3e-4, "gamma": 0.99}[name]] for name, value in values.items()}
    if both["gamma"][0] == both["gamma"][1]:
        both["gamma"] = 0.99
    alone = purejaxrl.sweep("vpg", seeds=2, seed=3, env_steps=1080, **SMALL, **both)
    fresh = purejaxrl.load(found.path / "confirm")
    assert sorted(set(fresh.frame()["seed"])) == [3, 4]
    for setting, picked in ((0, values), (1, {"pi_lr": 3e-4, "gamma": 0.99})):
        chosen = {name: value for name, value in picked.items() if name in alone.config.swept}
        runs = alone.select(**chosen).episodes()
        rows = fresh[2 * setting : 2 * setting + 2].episodes()
        np.testing.assert_array_equal(rows["return"], runs["return"])
        returns = [rows[rows["seed"] == seed]["return"].iloc[-100:].mean() for seed in (3, 4)]
        judged = found.tuning.confirmation[1 + setting]
        assert judged.score == pytest.approx(np.mean(returns))
        assert (judged.low, judged.high) == pytest.approx((min(returns), max(returns)))
        assert judged.solved == 0


def test_the_result_can_be_loaded_saved_and_copied(found, tmp_path):
    loaded = purejaxrl.load(found.path)
    assert loaded.tuning == found.tuning
    loaded.save(tmp_path / "copy")
    assert purejaxrl.load(tmp_path / "copy").tuning.confirmation == found.tuning.confirmation
    assert files(tmp_path / "copy") == files(found.path)
    with pytest.raises(InputError, match=r"holds no best.json: it is no folder of a tune"):
        _ = purejaxrl.load(found.path / "confirm").tuning
    (tmp_path / "copy" / "best.json").write_text('{"found_by": 3, "hyperparameters": {}}')
    with pytest.raises(InputError, match="does not say what was found"):
        _ = purejaxrl.load(tmp_path / "copy").tuning


class CrashedError(Exception):
    """Ends a search at once."""


@pytest.fixture
def crashing(monkeypatch):
    """Makes searches end after so many shards, of which the confirmation has some, too; after 0 they do not."""
    left, before = [0], tuning.RunFolder.write_shard

    def write(self, name, arrays, metadata, kind="shards"):
        before(self, name, arrays, metadata, kind)
        left[0] -= kind == "shards"
        if kind == "shards" and left[0] == 0:
            raise CrashedError

    monkeypatch.setattr(tuning.RunFolder, "write_shard", write)

    def crash(after):
        left[0] = after

    return crash


@pytest.mark.parametrize(
    ("after", "spoil"),
    [
        (2, "shard"),
        (4, "nothing"),
        *(
            pytest.param(*point, marks=pytest.mark.slow)
            for point in ((1, "nothing"), (1, "states"), (2, "nothing"), (3, "states"))
        ),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_a_search_goes_on_from_its_shards(found, crashing, tmp_path, after, spoil):
    """After the first rung, within the second, after it, and in the confirmation."""
    path = tmp_path / "run"
    crashing(after)
    with pytest.raises(CrashedError):
        purejaxrl.tune("vpg", out=path, **SEARCH)
    crashing(0)
    assert find_shards(path)
    if spoil == "states":
        # Without them runs train once more from the beginning.
        shutil.rmtree(path / "states", ignore_errors=True)
    if spoil == "shard":
        file = path / "shards" / f"{find_shards(path)[0]}.safetensors"
        file.write_bytes(file.read_bytes()[:-10])
    purejaxrl.resume(path)
    assert_same_search(found.path, path)


@pytest.mark.usefixtures("undrawn")
def test_a_signal_keeps_everything(found, tmp_path, monkeypatch):
    """Between the rungs, as if somebody had pressed Ctrl-C."""
    search = tuning.search

    def interrupted(setup, output):
        stop = lambda: len(find_shards(setup.folder.path)) > 1  # noqa: E731
        found = search(setup._replace(should_stop=stop), output)
        signal.raise_signal(signal.SIGINT)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "search", interrupted)
        result = purejaxrl.tune("vpg", out=tmp_path / "run", **SEARCH)
    assert result.stopped_by == signal.SIGINT
    assert result.interruption.startswith("interrupted at")
    content = result.summary_json
    assert content["runs_begun"] == len(set(result.frame()["run"]))
    # Every run is closed where it was.
    frame = result.frame()
    assert frame.groupby("run")["env_steps"].max().sum() == content["env_steps"]
    assert not (result.path / "best.json").exists()
    purejaxrl.resume(tmp_path / "run")
    assert_same_search(found.path, tmp_path / "run")
    # And once more it does nothing.
    before = files(tmp_path / "run")
    purejaxrl.resume(tmp_path / "run")
    assert files(tmp_path / "run") == before


@pytest.mark.usefixtures("undrawn")
def test_workers_write_the_files_of_one_machine(found, tmp_path):
    with ThreadPoolExecutor(1) as executor:
        purejaxrl.tune("vpg", out=tmp_path / "run", executor=executor, **SEARCH)
    assert_same_search(found.path, tmp_path / "run")


class Failing(ThreadPoolExecutor):
    """Cannot train runs that go on."""

    def submit(self, function, shard, *arguments, **options):
        return super().submit(fail if shard["leg"]["start"] else function, shard, *arguments, **options)


def fail(*arguments, **options):
    raise RuntimeError("no luck")


@pytest.mark.usefixtures("undrawn")
def test_a_rung_that_is_not_whole_decides_nothing(found, tmp_path):
    with (
        Failing(1) as executor,
        pytest.warns(UserWarning, match="failed 3 times"),
        pytest.raises(ClusterError, match=r"cluster: a search needs all runs of a rung, and some of [\d, ]* could not"),
    ):
        purejaxrl.tune("vpg", out=tmp_path / "run", executor=executor, **SEARCH)
    purejaxrl.resume(tmp_path / "run")
    assert_same_search(found.path, tmp_path / "run")


@pytest.mark.usefixtures("undrawn")
def test_states_that_do_not_fit_are_made_again(found, tmp_path, monkeypatch):
    """Only what that costs is another number."""
    monkeypatch.setattr(tuning, "STATES_SHARE", 0.0)
    path = tmp_path / "run"
    purejaxrl.tune("vpg", out=path, **SEARCH)
    mine, others = files(path), files(found.path)
    assert [name for name in mine if mine[name] != others[name]] == ["tune.csv"]
    spent = pd.read_csv(path / "tune.csv").query("rung == 1")["env_steps"]
    assert set(spent) == {2 * 360 + 3 * 1080}


@pytest.mark.parametrize("method", ["random", "racing", pytest.param("hyperband", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("undrawn")
def test_every_method_trains_parts_of_the_same_sweep(whole, method, tmp_path):
    result = purejaxrl.tune("vpg", out=tmp_path / "run", method=method, **{**SEARCH, "confirm_seeds": 0})
    table = result.tuning.table
    assert result.tuning.confirmation is None
    assert not (result.path / "confirm").exists()
    assert table["budget"].is_monotonic_increasing or method == "hyperband"
    mine, theirs = result.episodes(), whole.episodes()
    for setting in table[table["budget"] == 1080]["setting"]:
        for run in range(3 * setting, 3 * setting + 3):
            rows = [one[one["run"] == run].reset_index(drop=True) for one in (mine, theirs)]
            pd.testing.assert_frame_equal(*rows, check_exact=True)
    if method == "random":
        assert table["rung"].tolist() == [0] * 7
        for name in ("frame", "episodes"):
            order = ["run", "env_steps"]
            tables = [getattr(one, name)().sort_values(order, ignore_index=True) for one in (result, whole)]
            pd.testing.assert_frame_equal(*tables, check_exact=True)
    if method == "racing":
        assert table["rung"].max() == 9
        assert set(table["seeds"]) == {3}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_runs_that_are_solved_end_within_their_rung(tmp_path):
    """Whole rungs of them, so that the clock of the next rung begins later than they have ended."""
    settings = {
        **SMALL,
        "pi_lr": [1e-3, 1e-2, 3e-2, 1e-1, 3e-3, 3e-4],
        "seeds": 3,
        "env_steps": 9000,
        "solved_at": 15.0,
    }
    result = purejaxrl.tune("vpg", objective="steps_to_solve", confirm_seeds=1, out=tmp_path / "run", **settings)
    alone = purejaxrl.tune("vpg", objective="steps_to_solve", method="random", confirm_seeds=0, **settings)
    table = result.tuning.table
    last = table[table["rung"] == 1]
    steps = [at or 18_000 for at in alone.summary_json["env_steps_to_solve_per_run"]]
    for row in last.itertuples():
        assert row.score == pytest.approx(np.mean(steps[3 * row.setting : 3 * row.setting + 3]))
    assert result.tuning.found.score == pytest.approx(last["score"].min())
    assert (table[table["rung"] == 0]["env_steps"] < 2 * 3000).any()
    runs = [3 * setting + seed for setting in last["setting"] for seed in range(3)]
    for name in ("frame", "episodes"):
        for run in runs:
            pd.testing.assert_frame_equal(*(rows_of(one, name, run) for one in (result, alone)), check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        (
            "dqn",
            {"preset": "tuned", "observation_type": "default", "env_steps": 3000, "lr": Range(1e-4, 1e-2, log=True),
             "eval_every": 400, "eval_episodes": 2},
        ),
        ("a3c", {"env_steps": 6400, "t_max": 20, "actors": 4, "lr": Range(1e-4, 1e-2, log=True)}),
        ("vpg", {**SMALL, "hidden_sizes": [(8,), (6, 6)], "pi_lr": [1e-3, 1e-2, 1e-1], "env_steps": 1080}),
    ],
)  # fmt: skip
def test_every_algorithm_goes_on_as_it_would_alone(algorithm, options, tmp_path, crashing):
    # As many seeds as make devices compute as many runs side by side in the sweep.
    options = {"devices": 2, **options, "seeds": 8}
    result = purejaxrl.tune(algorithm, settings=6, confirm_seeds=2, out=tmp_path / "run", **options)
    random = None if algorithm == "vpg" else 6
    alone = purejaxrl.sweep(algorithm, random=random, **options)
    last = result.tuning.finalists()["setting"]
    assert len(last) == 2
    for setting in last:
        for run in range(8 * setting, 8 * setting + 8):
            for name in ("frame", "episodes"):
                pd.testing.assert_frame_equal(*(rows_of(one, name, run) for one in (result, alone)), check_exact=True)
    for after in (1, 2, 3):
        crashing(after)
        with pytest.raises(CrashedError):
            purejaxrl.tune(algorithm, settings=6, confirm_seeds=2, out=tmp_path / str(after), **options)
        crashing(0)
        purejaxrl.resume(tmp_path / str(after))
        assert_same_search(tmp_path / "run", tmp_path / str(after))


def test_the_command_line(found, tmp_path, capsys):
    assert main([*words_of(), "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert_same_search(found.path, tmp_path / "run")
    assert (
        "vpg on CartPole-v0, preset original: 7 settings x up to 3 seeds x 1,080 env steps, halving in 2 rungs" in err
    )
    assert "vpg: rung 1 of 2, 7 settings x 2 seeds up to 360 env steps" in err
    assert "vpg: rung 2 of 2, 3 settings x 3 seeds up to 1,080 env steps, best gamma=" in err
    for setting in found.tuning.finalists()["setting"]:
        assert found.config.labels[setting] in out
    assert "on 2 fresh seeds, final return:\n  winner  " in out
    command = f"purejaxrl train vpg --env CartPole-v0 --preset {tmp_path / 'run' / 'best.json'} --seeds 32"
    assert command in out.replace(str(Path("~").expanduser()), "~") or command in out
    assert main(["resume", str(tmp_path / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tune"]["confirmed"]["seeds"] == 2
    assert main(["resume", str(tmp_path / "run"), "--dry_run"]) == 0
    assert json.loads(capsys.readouterr().out)["tune"]["settings"] == 7
    assert main(["resume", str(tmp_path / "run"), "--extend", "3000"]) == 2
    assert "--extend: the rungs of a tune are parts of its budget" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_a_search_with_a_time_limit_repeats_what_it_has_decided(crashing, tmp_path, monkeypatch):
    """One that is fast enough keeps all; whoever resumes it does, too."""
    monkeypatch.setattr(tune_time, "measure", lambda tune, local: (0.0, 1e6))
    options = {**SMALL, **SPACE, "env_steps": 1080, "seeds": 3, "confirm_seeds": 2, "time": "60s"}
    monkeypatch.setattr(tune_time, "MAX_SETTINGS", 8)
    crashing(2)
    with pytest.raises(CrashedError):
        purejaxrl.tune("vpg", out=tmp_path / "run", **options)
    crashing(0)
    content = read_json(tmp_path / "run" / "config.json")
    assert (content["tune"]["settings"], content["tune"]["kept"]) == (8, [8])
    result = purejaxrl.resume(tmp_path / "run")
    assert result.tuning.table["goes_on"].tolist() == [1] * 8 + [0] * 8
    with ThreadPoolExecutor(1) as executor, pytest.raises(InputError, match="time: it is measured on this machine"):
        purejaxrl.tune("vpg", executor=executor, **options)


@pytest.mark.slow
def test_a_time_limit_is_kept():
    """From the call to the Result, within a tenth, with whatever this machine does besides."""
    started = time.perf_counter()
    purejaxrl.tune("a3c", env="CartPole-v1", t_max=20, lr=Range(1e-4, 1e-1, log=True), time="60s")
    assert 54 < time.perf_counter() - started < 66


def test_a_dry_run_shows_the_search(capsys, tmp_path):
    assert main([*words_of(), "--out", str(tmp_path / "run"), "--dry_run"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["tune"] == {
        "settings": 7, "objective": "final_return", "method": "halving", "eta": 3, "confirm_seeds": 2, "time": None,
        "space": {"gamma": [0.9, 0.99], "pi_lr": {"low": 1e-4, "high": 0.1, "log": True}},
        "preset": {"gamma": 0.99, "pi_lr": 3e-4}, "kept": [],
    }  # fmt: skip
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--settings 1", "--settings: 1 is not allowed; it takes a whole number at least 2"),
        ("--settings many", "--settings: 'many' is not allowed"),
        ("--method best", "--method: 'best' is not allowed; it takes one of halving, hyperband, racing, random"),
        ("--objective loss", "--objective: 'loss' is not allowed; it takes one of final_return, area, steps_to_solve"),
        ("--eta 1", "--eta: 1 is not allowed; it takes a whole number at least 2"),
        ("--confirm_seeds -1", "--confirm_seeds: -1 is not allowed; it takes a whole number at least 0"),
        ("--env_steps 119", "--env_steps: 119 does not divide into rungs; halving takes at least 120, 3 iterations"),
        ("--env_steps 1000,2000", "--env_steps: it is the budget of every run of a tune, and takes one value"),
        ("--epochs 3", "--epochs: tune divides a budget of env steps; give --env_steps"),
        ("--pi_lr 1e-3,fast", "--pi_lr: 'fast' is not allowed"),
        ("--pi_lr 1e-3..0", "--pi_lr: 0.001..0 is not a range"),
        ("--method racing --seeds 1", "--method: racing compares intervals over seeds; give --seeds 2 or more"),
        ("--random 3", "unknown flag --random"),
        ("--time soon", "--time: 'soon' is not allowed; it takes a number of s, m or h, as 90s, 2m or 1h"),
        ("--time 2m", "--time: it decides how many settings there are; leave --settings 7 out"),
        ("--time 2m --method racing", "--time: it decides the rungs of halving, not those of --method racing"),
        ("--job_time 01:00:00", "--job_time: 01:00:00 is for --cluster slurm"),
        ("--seed 4294967292", "--confirm_seeds: 2 is not allowed; its last seed would be 4294967296"),
        ("--env Pendulum-v1 --objective steps_to_solve", "--stop_when_solved: no threshold is agreed for Pendulum-v1"),
    ],
)
def test_wrong_input_is_refused_before_anything_compiles(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("purejaxrl.experiment.shards.compile_fitting", lambda *_, **__: pytest.fail("compiled"))
    given = words.split()
    changes = dict(zip([word.removeprefix("--") for word in given[::2]], given[1::2], strict=True))
    if "epochs" in changes:
        changes["env_steps"] = ""
    assert main([*words_of(**changes), "--out", str(tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"purejaxrl: {said}")
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_spaces():
    """Lists alone are all combinations, if they are no more; nothing is a space of the algorithm's own."""
    lists = {"pi_lr": [1e-3, 1e-2, 1e-1], "gamma": [0.9, 0.99]}
    assert len(plan_tune("vpg", **SMALL, **lists, settings=6).plan.settings) == 6
    points = [tuple(setting.values.values()) for setting in plan_tune("vpg", **SMALL, **lists).plan.settings]
    assert points == [(rate, gamma) for rate in lists["pi_lr"] for gamma in lists["gamma"]]
    assert len(plan_tune("vpg", **SMALL, **lists, settings=5).plan.settings) == 5
    tune = plan_tune("a3c")
    assert len(tune.plan.settings) == 256
    assert len({setting.config.lr for setting in tune.plan.settings}) > 200
    with pytest.raises(InputError, match="settings: 1 setting is nothing to choose from"):
        plan_tune("vpg", pi_lr=[1e-3])
    array = plan_tune("vpg", pi_lr=np.array([1e-3, 1e-2]))
    assert [setting.config.pi_lr for setting in array.plan.settings] == [1e-3, 1e-2]
    # What is off is a choice, too.
    tuned = {"preset": "tuned", "observation_type": "default", "lr": [1e-3, 1e-2]}
    off = plan_tune("dqn", target_update_steps=None, target_update=5, **tuned)
    assert {setting.config.target_update_steps for setting in off.plan.settings} == {None}


def test_the_usual_budget():
    """The preset's own, else that of tuned, else that of the algorithm."""
    budgets = [
        plan_tune(algorithm, gamma=[0.9, 0.99], **options).spec.env_steps
        for algorithm, options in (
            ("a3c", {"env": "CartPole-v1"}),
            ("a3c", {"env": "CartPole-v1", "preset": "tuned", "observation_type": "img"}),
            ("dqn", {"observation_type": "default"}),
            ("a3c", {"env": "Acrobot-v1"}),
            ("vpg", {"env_steps": 12_345}),
        )
    ]
    assert budgets == [500_000, 1_000_000, 100_000, 500_000, 12_345]


def test_places_are_spread_over_devices():
    assert places_of(9, 64, 2).tolist() == [0, 1, 2, 3, 4, 32, 33, 34, 35]
    assert places_of(64, 64, 2).tolist() == [*range(64)]
    assert places_of(3, 12, 3).tolist() == [0, 4, 8]
    assert places_of(1, 8, 2).tolist() == [0]


BIN = Path(sys.executable).parent


@pytest.mark.slow
def test_a_killed_search_is_resumed(tmp_path):
    """With SIGKILL, at ten moments, in the rungs and in the confirmation, and by two workers of Dask."""
    words = [str(BIN / "purejaxrl"), *words_of(env_steps="40000")]
    alone = subprocess.run([*words, "--out", str(tmp_path / "alone")], capture_output=True, text=True, timeout=300)
    assert alone.returncode == 0, alone.stderr
    for moment in range(10):
        path, cluster = tmp_path / str(moment), ["--cluster", "local:2"] if moment % 2 else []
        search = subprocess.Popen(
            [*words, "--out", str(path), *cluster], stderr=subprocess.DEVNULL, start_new_session=True
        )
        while not (path / "config.json").exists():
            time.sleep(0.05)
        time.sleep(0.7 * moment)
        os.killpg(search.pid, signal.SIGKILL)
        search.wait()
        done = subprocess.run(
            [str(BIN / "purejaxrl"), "resume", str(path), *cluster], capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert_same_search(tmp_path / "alone", path)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_networks_of_several_depths_are_searched_together(tmp_path):
    """Their programs have states of other names."""
    settings = {**SEARCH, "hidden_sizes": [(8,), (8, 8)], "confirm_seeds": 0}
    found = purejaxrl.tune("vpg", out=tmp_path / "run", **settings)
    going = found.tuning.table.query("rung == 1")
    assert len(going) == 3
    assert set(found.tuning.table["hidden_sizes"]) == {"8", "8x8"}


def test_what_a_default_space_has_gives_way_to_the_rule_that_the_user_gives():
    tune = plan_tune("dqn", observation_type="default", target_update=5, settings=4)
    assert {setting.config.target_update for setting in tune.plan.settings} == {5}
    assert {setting.config.target_update_steps for setting in tune.plan.settings} == {None}


def test_a_confirmation_is_planned_before_the_search():
    with pytest.raises(InputError, match=r"^confirm_seeds: 60000 is not allowed; it takes up to 50000"):
        plan_tune("vpg", settings=4, confirm_seeds=60_000)
