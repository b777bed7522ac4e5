"""Run folders read back, and what is said of those that cannot be."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from by_hand import CONFIG
from helpers import terminal

from purejaxrl.analysis import statistics
from purejaxrl.analysis.compare import compare, format_comparison, read_metrics, read_summary, write_comparison
from purejaxrl.cli import main
from purejaxrl.errors import InputError, ResourceError

PLAIN = {
    "algorithm": "dqn",
    "env": "CartPole-v1",
    "preset": "tuned",
    "seeds": 3,
    "solved_at": 475.0,
    "stop_when_solved": False,
    "failed_runs": [1],
    "final_return_per_run": [10.0, None, 30],
    "area_under_curve_per_run": [1, 2.5, None],
    "env_steps_to_solve_per_run": [None, 800, None],
    "settings": [{}],
}
SWEEP = PLAIN | {
    "seeds": 2,
    "failed_runs": [3],
    "final_return_per_run": [1, 2, 300, 400],
    "area_under_curve_per_run": [5, 6, 7, 8],
    "env_steps_to_solve_per_run": [None, None, 10, 20],
    "settings": [
        {"lr": 0.001, "hidden_sizes": [32, 32], "normalize": True},
        {"lr": 1e-05, "hidden_sizes": [8], "normalize": False},
    ],
}


@pytest.fixture
def folders(tmp_path):
    """Write run folders: name -> summary, as JSON or as the text that is to stand in it."""

    def write_folders(**summaries):
        for name, summary in summaries.items():
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            if isinstance(summary, dict) and isinstance(summary.get("final_return_per_run"), list):
                summary = {"env_steps_per_run": [1000] * len(summary["final_return_per_run"]), **summary}
            text = summary if isinstance(summary, str) else json.dumps(summary)
            (tmp_path / name / "summary.json").write_text(text)
        return [tmp_path / name for name in summaries]

    return write_folders


def error_of(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.startswith("compare: ")
    assert "\n" not in message
    return message


def test_read_a_plain_run(folders):
    (path,) = folders(first=PLAIN)
    summary = read_summary(path)
    assert (summary.env, summary.solved_at, summary.settings) == ("CartPole-v1", 475, [{}])
    assert summary.stop_when_solved is False
    (scores,) = summary.scores_by_setting()
    np.testing.assert_array_equal(scores.final_return, [10, np.nan, 30])
    np.testing.assert_array_equal(scores.area_under_curve, [1, 2.5, np.nan])
    np.testing.assert_array_equal(scores.env_steps_to_solve, [np.inf, 800, np.inf])
    np.testing.assert_array_equal(scores.is_ok, [True, False, True])


def test_read_a_sweep(folders):
    (path,) = folders(night=SWEEP)
    both = read_summary(path).scores_by_setting()
    np.testing.assert_array_equal([scores.final_return for scores in both], [[1, 2], [300, 400]])
    np.testing.assert_array_equal([scores.is_ok for scores in both], [[True, True], [True, False]])


def test_compare(folders):
    comparison = compare(folders(first=PLAIN, night=SWEEP))
    assert comparison.labels == [
        "first",
        "night lr=0.001 hidden_sizes=32x32 normalize=true",
        "night lr=1e-05 hidden_sizes=8 normalize=false",
    ]
    assert (comparison.env, comparison.solved_at, comparison.stop_when_solved) == ("CartPole-v1", 475, False)
    assert list(comparison.frame["rank"]) == [3, 2, 1]
    assert set(comparison.frame["ranked_by"]) == {"final_return"}
    assert list(comparison.frame["final_return_iqm"]) == [20, 1.5, 350]
    assert list(comparison.frame["runs_ok"]) == [2, 2, 1]
    assert list(comparison.frame["env_steps_to_solve_median"]) == [np.inf, np.inf, 15]
    assert list(comparison.setting_of_run) == [0, 0, 0, 1, 1, 2, 2]
    assert len(comparison.scores) == 3


def test_folders_of_one_name_are_distinguished_by_their_paths(folders):
    paths = folders(**{"a/run": PLAIN, "b/run": SWEEP})
    assert [label.split()[0] for label in compare(paths).labels] == [str(paths[0]), str(paths[1]), str(paths[1])]


def test_without_a_threshold_nothing_is_solved(folders):
    paths = folders(a=PLAIN | {"solved_at": None}, b=PLAIN | {"solved_at": None})
    assert compare([str(path) for path in paths]).frame["solved_fraction"].isna().all()


def test_folders_that_cannot_be_compared(folders, tmp_path, monkeypatch):
    one, other, high, free = folders(
        one=PLAIN,
        other=PLAIN | {"env": "Acrobot-v1"},
        high=PLAIN | {"solved_at": 499},
        free=PLAIN | {"solved_at": None},
    )
    assert "1 folders given; give two or more" in error_of(compare, [one])
    message = error_of(compare, [one, other])
    assert f"environment CartPole-v1 in {one}, Acrobot-v1 in {other}" in message
    assert f"threshold 475.0 in {one}, 499.0 in {high}" in error_of(compare, [one, high])
    assert f"threshold 475.0 in {one}, None in {free}" in error_of(compare, [one, free])
    images, vectors = folders(
        images=PLAIN | {"observation_type": "img"}, vectors=PLAIN | {"observation_type": "default"}
    )
    assert f"observation type img in {images}, default in {vectors}; give" in error_of(compare, [images, vectors])
    assert compare([images, one]).horizon is None
    for path, gravity in ((one, 5.0), (images, 9.8)):
        config = CONFIG | {"env": PLAIN["env"], "env_params": {"gravity": gravity}}
        (path / "config.json").write_text(json.dumps(config | {"seeds": 3, "swept": [], "settings": [{}]}))
    assert f"env_params {{'gravity': 5.0}} in {one}, {{'gravity': 9.8}} in {images}" in error_of(compare, [one, images])
    monkeypatch.chdir(tmp_path)
    assert "one is given twice" in error_of(compare, [one, "one"])
    (tmp_path / "link").symlink_to(one)
    assert "link is given twice" in error_of(compare, [one, tmp_path / "link"])


def test_paths_that_are_no_run(folders, tmp_path):
    (good,) = folders(good=PLAIN)
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd" / "summary.json").mkdir(parents=True)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for name, said in {
        "nowhere": "nowhere does not exist",
        "circle": "circle does not exist",
        "good/summary.json": "summary.json is a file",
        "empty": "empty holds no summary.json",
        "odd": "cannot read",
        "x" * 300: "cannot read",
    }.items():
        assert said in error_of(compare, [good, tmp_path / name])


@pytest.mark.parametrize("field", sorted(PLAIN.keys() - {"algorithm", "preset"}))
def test_a_lacking_field_is_named(folders, field):
    paths = folders(good=PLAIN, bad={name: value for name, value in PLAIN.items() if name != field})
    assert f"bad/summary.json: lacks {field}" in error_of(compare, paths)


@pytest.mark.parametrize("text", ["", "{", "\0", '{"env": "Cart', "[" * 100_000])
def test_broken_json(folders, text):
    assert "summary.json is not valid JSON" in error_of(compare, folders(good=PLAIN, bad=text))


def test_bytes_that_are_no_text(folders):
    good, bad = folders(good=PLAIN, bad="")
    (bad / "summary.json").write_bytes(b"\xff\xfe\x00\xd8")
    assert "summary.json is not valid JSON" in error_of(compare, [good, bad])


@pytest.mark.parametrize("text", ["[]", "null", "3", '"a"'])
def test_json_that_is_no_object(folders, text):
    assert "should hold a JSON object" in error_of(compare, folders(good=PLAIN, bad=text))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("env", 3, "env is not a name"),
        ("seeds", 0, "seeds is not a whole number"),
        ("seeds", "3", "seeds is not a whole number"),
        ("seeds", True, "seeds is not a whole number"),
        ("seeds", 4, "has 3 entries for 4 runs"),
        ("observation_type", 3, "observation_type is not a name"),
        ("preset", [], "preset is not a name"),
        ("solved_at", "high", "solved_at holds 'high'"),
        ("solved_at", [1], "solved_at holds '[1]'"),
        ("stop_when_solved", None, "stop_when_solved is neither true nor false"),
        ("stop_when_solved", 1, "stop_when_solved is neither true nor false"),
        ("stop_when_solved", "true", "stop_when_solved is neither true nor false"),
        ("failed_runs", {}, "failed_runs is not a list"),
        ("failed_runs", [3], "failed_runs is not a list of runs below 3"),
        ("failed_runs", ["1"], "failed_runs is not a list of runs below 3"),
        ("settings", [], "settings is not a list of swept values"),
        ("settings", [[]], "settings is not a list of swept values"),
        ("settings", [{}, {}], "has 3 entries for 6 runs"),
        ("final_return_per_run", "many", "final_return_per_run is not a list"),
        ("final_return_per_run", [1, 2], "final_return_per_run has 2 entries for 3 runs"),
        ("area_under_curve_per_run", [1, 2, "x"], "area_under_curve_per_run holds 'x'"),
        ("env_steps_to_solve_per_run", [1, 2, False], "env_steps_to_solve_per_run holds 'False'"),
        ("final_return_per_run", [1, 2, 10**400], "final_return_per_run holds"),
    ],
)
def test_a_wrong_field_is_named(folders, field, value, said):
    assert said in error_of(compare, folders(good=PLAIN, bad=PLAIN | {field: value}))


HEADER = "run,seed,iteration,env_steps,episodes,return_mean,return_min,return_100,loss\n"


def test_metrics_of_several_folders(folders):
    """The run numbers go on where the folder before had its last run, whether that run has rows or not."""
    paths = folders(first=PLAIN, absent=PLAIN, empty=PLAIN, night=SWEEP)
    (paths[0] / "metrics.csv").write_text(HEADER + "0,0,1,100,2,5,1,,3\n1,1,1,100,2,,1,7,3\n")
    (paths[2] / "metrics.csv").write_text("")
    (paths[3] / "metrics.csv").write_text(HEADER + "0,0,1,50,2,8,1,,3\n3,1,1,60,2,9,1,6,3\n3,1")
    metrics = read_metrics(paths)
    assert set(metrics.columns) == {"run", "env_steps", "episodes", "return_100", "return_mean"}
    assert list(metrics["run"]) == [0, 1, 9, 12]
    assert metrics["run"].dtype == np.int64
    assert list(metrics["env_steps"]) == [100, 100, 50, 60]
    np.testing.assert_array_equal(metrics["return_mean"], [5, np.nan, 8, 9])
    np.testing.assert_array_equal(metrics["return_100"], [np.nan, 7, np.nan, 6])


def test_no_metrics_at_all(folders):
    paths = folders(first=PLAIN, header=PLAIN)
    (paths[1] / "metrics.csv").write_text(HEADER)
    for given in (paths[:1], paths):
        metrics = read_metrics(given)
        assert len(metrics) == 0
        assert metrics["run"].dtype == np.int64
        assert pd.api.types.is_float_dtype(metrics["return_100"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run,env_steps\n0,1\n", "return_100"),
        (HEADER + "0,0,1,many,2,5,1,,3\n", "many"),
        (HEADER + "3,0,1,100,2,5,1,,3\n", "a run that is not among the 3"),
        (HEADER + "-1,0,1,100,2,5,1,,3\n", "a run that is not among the 3"),
        (HEADER + "0.5,0,1,100,2,5,1,,3\n", "a run that is not among the 3"),
        (HEADER + '"0,0,1,100', "EOF"),
    ],
)
def test_broken_metrics(folders, text, said):
    (path,) = folders(first=PLAIN)
    (path / "metrics.csv").write_text(text)
    message = error_of(read_metrics, [path])
    assert "metrics.csv" in message
    assert said in message


def test_metrics_that_cannot_be_read(folders):
    (path,) = folders(first=PLAIN)
    (path / "metrics.csv").mkdir()
    assert "metrics.csv" in error_of(read_metrics, [path])


# Every run of `good` beats every run of `poor`, in final return and in area; both are complete.
GOOD = PLAIN | {
    "failed_runs": [],
    "final_return_per_run": [480, 490, 500],
    "area_under_curve_per_run": [300, 310, 320],
    "env_steps_to_solve_per_run": [900, 800, 1000],
}
POOR = GOOD | {
    "final_return_per_run": [20, 10, 30],
    "area_under_curve_per_run": [15, 14, 16],
    "env_steps_to_solve_per_run": [None, None, None],
}
OUT = ["compare.csv", "compare.png", "improvement.csv"]


def test_comparisons_as_text(folders):
    """The table has the best first, pairs are in the order given: 10, 20 and 30 never beat 480, 490 and 500."""
    words = format_comparison(compare(folders(poor=POOR, good=GOOD))).splitlines()
    assert [line.split()[0] for line in words[2:4]] == ["good", "poor"]
    assert words[2].split()[-3:] == ["100%", "900", "-"]
    assert words[3].split()[-3:] == ["0%", "never", "1.00"]
    assert words[4:] == [
        "probability that a run of the first is better than one of the second:",
        "  0.00 [0.00, 0.00]  poor > good",
    ]


def test_text_says_what_is_not_known(folders):
    """One run has no interval, and no run with an area no probability."""
    one = GOOD | {"seeds": 1, "final_return_per_run": [5], "area_under_curve_per_run": [5]}
    one |= {"env_steps_to_solve_per_run": [None]}
    none = one | {"final_return_per_run": [None], "area_under_curve_per_run": [None]}
    paths = folders(one=one, none=none, poor=one | {"area_under_curve_per_run": [4]})
    assert format_comparison(compare(paths)).splitlines()[-3:] == [
        "  - [-, -]  one > none",
        "  1.00 [-, -]  one > poor",
        "  - [-, -]  none > poor",
    ]


# Runs of `soon` ended at 475, those of `good` went on to 480 and more but took longer to be there.
SOON = GOOD | {
    "stop_when_solved": True,
    "final_return_per_run": [475, 476, 475],
    "area_under_curve_per_run": [200, 210, 220],
    "env_steps_to_solve_per_run": [100, 850, 300],
}


@pytest.mark.parametrize("is_stopping", [(True, False, False), (False, True, False), (True, True, True)])
def test_any_folder_of_stopped_runs_makes_env_steps_to_solve_count(folders, tmp_path, is_stopping):
    """SOON against GOOD: 100 and 300 are below 900, 800 and 1000, 850 is below two of them, 8 of 9."""
    summaries = {"soon": SOON, "good": GOOD, "poor": POOR}
    paths = folders(
        **{
            name: summary | {"stop_when_solved": value}
            for (name, summary), value in zip(summaries.items(), is_stopping, strict=True)
        }
    )
    assert [read_summary(path).stop_when_solved for path in paths] == list(is_stopping)
    comparison = compare(paths)
    assert comparison.stop_when_solved is True
    assert set(comparison.frame["ranked_by"]) == {"env_steps_to_solve"}
    assert list(comparison.frame["rank"]) == [1, 2, 3]
    np.testing.assert_allclose(comparison.frame["best_improves"], [np.nan, 8 / 9, 1])
    words = format_comparison(comparison).splitlines()
    assert [line.split()[0] for line in words[2:5]] == ["soon", "good", "poor"]
    assert words[5] == "Runs ended once they were solved, so settings are ranked by env steps to solve."
    assert [(line.split()[0], line.split("]")[1]) for line in words[7:]] == [
        ("0.89", "  soon > good"),
        ("1.00", "  soon > poor"),
        ("1.00", "  good > poor"),
    ]
    write_comparison(comparison, paths, tmp_path / "out")
    np.testing.assert_allclose(pd.read_csv(tmp_path / "out" / "improvement.csv")["probability"], [8 / 9, 1, 1])


def test_without_stopped_runs_final_returns_count(folders):
    comparison = compare(folders(soon=SOON | {"stop_when_solved": False}, good=GOOD))
    assert comparison.stop_when_solved is False
    assert list(comparison.frame["rank"]) == [2, 1]


def test_pairs_of_many_settings_are_not_printed(folders):
    """All 15 pairs of six settings are; the 21 of seven are left to improvement.csv."""
    paths = folders(**{f"run{n}": POOR for n in range(7)})
    assert format_comparison(compare(paths[:6])).count(" > ") == 15
    assert " > " not in format_comparison(compare(paths))


def test_what_is_written(folders, tmp_path):
    paths = folders(poor=POOR, good=GOOD)
    (paths[0] / "metrics.csv").write_text(HEADER + "0,0,1,100,2,5,1,,3\n")
    before = {path: sorted(path.iterdir()) for path in paths}
    out = tmp_path / "a" / "b"
    comparison = compare(paths)
    write_comparison(comparison, paths, out)
    assert sorted(path.name for path in out.iterdir()) == OUT
    frame = pd.read_csv(out / "compare.csv")
    assert list(frame["setting"]) == ["poor", "good"]
    assert list(frame["final_return_iqm"]) == [20, 490]
    assert list(frame["env_steps_to_solve_median"]) == [np.inf, 900]
    pd.testing.assert_frame_equal(frame.drop(columns="setting"), comparison.frame)
    pairs = pd.read_csv(out / "improvement.csv")
    assert pairs.to_dict("list") == {"setting": [0], "other": [1], "probability": [0], "low": [0], "high": [0]}
    assert (out / "compare.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert {path: sorted(path.iterdir()) for path in paths} == before


@pytest.mark.parametrize(("settings", "files"), [(32, OUT), (33, ["compare.csv", "compare.png"])])
def test_pairs_of_very_many_settings_are_not_written(folders, tmp_path, settings, files):
    """The 496 pairs of 32 settings are; more settings are compared with the best of them only."""
    count = settings - 1
    many = GOOD | {
        "seeds": 1,
        "settings": [{"gamma": n} for n in range(count)],
        "final_return_per_run": list(range(count)),
        "area_under_curve_per_run": [1] * count,
        "env_steps_to_solve_per_run": [None] * count,
    }
    paths = folders(many=many, good=GOOD)
    write_comparison(compare(paths), paths, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    frame = pd.read_csv(tmp_path / "out" / "compare.csv")
    assert list(frame["best_improves"][:-1]) == [1] * count
    if settings == 32:
        assert len(pd.read_csv(tmp_path / "out" / "improvement.csv")) == 496


def test_nothing_is_written_where_metrics_are_broken(folders, tmp_path):
    paths = folders(poor=POOR, good=GOOD)
    (paths[1] / "metrics.csv").write_text("run,env_steps\n0,1\n")
    message = error_of(write_comparison, compare(paths), paths, tmp_path / "out")
    assert f"cannot read {paths[1] / 'metrics.csv'}" in message
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_anything_is_not_written_to(folders, tmp_path, capsys):
    words = ["compare", *map(str, folders(poor=POOR, good=GOOD)), "--out"]
    assert main([*words, str(tmp_path / "good")]) == 2
    assert one_line(capsys) == f"--out: {tmp_path / 'good'} exists; give another folder"
    assert main([*words, str(tmp_path / "good" / "summary.json")]) == 2
    assert one_line(capsys) == f"--out: {tmp_path / 'good' / 'summary.json'} exists; give another folder"
    assert [path.name for path in (tmp_path / "good").iterdir()] == ["summary.json"]
    (tmp_path / "empty").mkdir()
    assert main([*words, str(tmp_path / "empty")]) == 0
    assert sorted(path.name for path in (tmp_path / "empty").iterdir()) == OUT


def one_line(capsys):
    """The one line of an error, without the program's name; nothing else was printed."""
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("purejaxrl: ")
    assert printed.err.count("\n") == 1
    return printed.err.removeprefix("purejaxrl: ").rstrip("\n")


def test_a_folder_that_cannot_be_written_to(folders, tmp_path, capsys):
    """Root may write to read-only folders, so that a file, a loop of links and a name too long stand in the way."""
    paths = folders(poor=POOR, good=GOOD)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for below in (paths[0] / "summary.json" / "below", tmp_path / "circle", tmp_path / ("x" * 300)):
        assert main(["compare", *map(str, paths), "--out", str(below)]) == 6
        assert one_line(capsys).startswith(f"cannot write {below}")


def test_a_full_disk(folders, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    paths = folders(poor=POOR, good=GOOD)
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(ResourceError, match=r"cannot write .*out/compare.png: No space left on device") as caught:
        write_comparison(compare(paths), paths, tmp_path / "out")
    assert caught.value.exit_code == 6


def test_compare_on_the_command_line(folders, tmp_path, capsys, monkeypatch):
    """Flags may stand anywhere, and hyphens mean underscores; the order of folders stays."""
    folders(poor=POOR, good=GOOD)
    monkeypatch.chdir(tmp_path)
    assert main(["compare", "poor", "good"]) == 0
    printed = capsys.readouterr()
    assert printed.out == format_comparison(compare(["poor", "good"])) + "\n"
    assert printed.err == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good", "poor"]
    for number, words in enumerate((["poor", "--out", "0", "good"], ["--out=1", "poor", "good"])):
        assert main(["compare", *words]) == 0
        assert list(pd.read_csv(tmp_path / str(number) / "compare.csv")["setting"]) == ["poor", "good"]
        assert capsys.readouterr().out == printed.out


@pytest.mark.parametrize("columns", [80, 120, 160])
def test_a_comparison_fits_its_terminal_and_names_settings_whole(columns, folders, tmp_path, monkeypatch):
    folders(night=SWEEP | {"settings": [{f"hyperparameter_{n}": n / lr for n in range(1, 8)} for lr in (10, 100)]})
    folders(good=PLAIN)
    monkeypatch.chdir(tmp_path)
    with terminal(columns) as (stream, lines):
        monkeypatch.setattr("sys.stdout", stream)
        assert main(["compare", "night", "good"]) == 0
    table = " ".join(lines).split("probability that")[0]
    for label in compare(["night", "good"]).labels:
        assert f" {label} " in table


@pytest.mark.parametrize("threshold", [475.0, None])
def test_compare_prints_only_json(folders, tmp_path, capsys, threshold):
    """JSON knows neither NaN nor infinity: null stands for the run that never solved and for what is not known."""
    paths = folders(poor=POOR | {"solved_at": threshold}, good=GOOD | {"solved_at": threshold})
    assert main(["compare", str(paths[0]), "--json", str(paths[1]), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""

    def refuse(constant):
        pytest.fail(f"{constant} is not JSON")

    poor, good = json.loads(printed.out, parse_constant=refuse)
    assert (poor["setting"], poor["runs"], poor["final_return_iqm"]) == ("poor", 3, 20)
    assert (good["setting"], good["runs"], good["final_return_iqm"]) == ("good", 3, 490)
    assert (poor["best_improves"], good["best_improves"]) == (1, None)
    assert poor["env_steps_to_solve_median"] is None
    assert good["env_steps_to_solve_median"] == (None if threshold is None else 900)
    assert good.keys() == {"setting", *statistics.describe(compare(paths).scores, True).columns}
    assert math.isinf(pd.read_csv(tmp_path / "out" / "compare.csv")["env_steps_to_solve_median"][0]) == bool(threshold)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["poor"], ["compare: 1 folders given", "two or more"]),
        (["--json"], ["compare: 0 folders given", "two or more"]),
        (["poor", "nowhere"], ["compare: nowhere does not exist", "folder of a run"]),
        (["poor", "good", "poor"], ["compare: poor is given twice"]),
        (["poor", "good", "--jsn"], ["unknown flag --jsn", "--json"]),
        (["poor", "good", "--seeds", "3"], ["unknown flag --seeds", "purejaxrl compare --help"]),
        (["poor", "good", "--json=yes"], ["--json", "'yes'"]),
        (["poor", "good", "--out"], ["--out: expected one argument"]),
    ],
    ids=" ".join,
)
def test_wrong_input_to_compare(folders, tmp_path, capsys, monkeypatch, words, said):
    folders(poor=POOR, good=GOOD)
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *words]) == 2
    message = one_line(capsys)
    assert all(part in message for part in said), message


def test_a_figure_that_fails_costs_no_table(folders, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("purejaxrl.analysis.plots.sweep", lambda *_: [][0])
    out = tmp_path / "out"
    with pytest.warns(UserWarning, match=r"cannot plot .*compare\.png: IndexError"):
        assert main(["compare", *map(str, folders(poor=POOR, good=GOOD)), "--out", str(out)]) == 0
    assert sorted(file.name for file in out.iterdir()) == ["compare.csv", "improvement.csv"]
    assert "good" in capsys.readouterr().out


def test_help_of_compare(capsys):
    for words in (["--help"], ["-h"]):
        assert main(["compare", *words]) == 0
        assert "--out FOLDER" in capsys.readouterr().out


def test_runs_that_never_began_are_neither_ok_nor_unsolved(folders):
    """The second run of three, which null says of, did not diverge either."""
    interrupted = PLAIN | {"failed_runs": [], "final_return_per_run": [10, None, 30], "env_steps_per_run": [9, 0, 9]}
    scores = read_summary(folders(a=interrupted | {"env_steps_to_solve_per_run": [None, None, 7]})[0]).scores
    assert scores.is_ok.tolist() == [True, False, True]
    np.testing.assert_array_equal(scores.env_steps_to_solve, [np.inf, np.nan, 7])
    frame = statistics.describe([scores], has_threshold=True)
    assert frame["solved_fraction"].tolist() == [0.5]
    assert frame["ranked_by"].tolist() == ["final_return"]
    with pytest.raises(InputError, match="env_steps_per_run has 1 entries for 3 runs"):
        read_summary(folders(b=interrupted | {"env_steps_per_run": [1]})[0])


# One run of 3000 env steps: 100 episodes of 10 steps, then 100 of 20, each with a return of its length. The mean of 100
# is 15 after 2000 env steps.
LONG = PLAIN | {
    "seeds": 1,
    "failed_runs": [],
    "solved_at": 15.0,
    "final_return_per_run": [20.0],
    "area_under_curve_per_run": [16.0],
    "env_steps_to_solve_per_run": [2000],
    "env_steps_per_run": [3000],
}
SHORT = LONG | {
    "preset": "original",
    "final_return_per_run": [12.0],
    "area_under_curve_per_run": [12.0],
    "env_steps_to_solve_per_run": [None],
    "env_steps_per_run": [1500],
}


def write_rows(path, *, log_every=500, episodes=True):
    lengths = [10] * 100 + [20] * 100
    ends = np.cumsum(lengths)
    if episodes:
        rows = [
            f"0,0,{n},{end},{length},{length}\n" for n, (end, length) in enumerate(zip(ends, lengths, strict=True), 1)
        ]
        (path / "episodes.csv").write_text("run,seed,episode,env_steps,return,length\n" + "".join(rows))
    with (path / "metrics.csv").open("w") as file:
        file.write("run,seed,iteration,env_steps,episodes,return_mean,return_100\n")
        for step in range(log_every, 3001, log_every):
            ended = int(np.sum(ends <= step))
            last = np.mean(lengths[ended - 100 : ended]) if ended >= 100 else ""
            file.write(f"0,0,1,{step},{ended},{10 if step <= 1000 else 20},{last}\n")


@pytest.mark.parametrize("has_episodes", [True, False])
def test_folders_with_different_budgets_are_compared_where_both_are_known(folders, tmp_path, capsys, has_episodes):
    """After 1500 env steps LONG has had 125 episodes, the last 100 of which are 75 of 10 and 25 of 20 steps."""
    paths = folders(short=SHORT, long=LONG)
    write_rows(paths[1], episodes=has_episodes)
    comparison = compare(paths)
    assert comparison.horizon == 1500
    assert comparison.frame["horizon"].tolist() == [1500, 1500]
    assert comparison.frame["final_return_iqm"].tolist() == [12, 12.5]
    assert comparison.frame["area_iqm"].tolist() == pytest.approx([12, (10 * 1000 + 20 * 500) / 1500])
    assert comparison.frame["solved_fraction"].tolist() == [0, 0]
    assert comparison.notes == [
        "Env steps differ (1,500 in short, 3,000 in long), so all runs are compared at 1,500.",
        "Presets differ: original in short; tuned in long.",
    ]
    assert main(["compare", *map(str, paths), "--out", str(tmp_path / "out")]) == 0
    assert all(note in capsys.readouterr().out.splitlines() for note in comparison.notes[:1])
    assert pd.read_csv(tmp_path / "out" / "compare.csv")["horizon"].tolist() == [1500, 1500]
    assert main(["compare", *map(str, paths), "--json"]) == 0
    printed = capsys.readouterr()
    assert [row["horizon"] for row in json.loads(printed.out)] == [1500, 1500]
    assert printed.err.splitlines() == [f"purejaxrl: compare: {note}" for note in comparison.notes]
    # The files of what is not cut are not needed, and whole trainings are compared as they are.
    assert compare(folders(a=LONG, b=LONG)).horizon is None


def test_a_horizon_within_an_interval(folders):
    """The curve is constant over an interval; one without an episode has the value before, the first ones have none."""
    paths = folders(short=SHORT | {"env_steps_per_run": [1400]}, long=LONG)
    rows = ["400,0,,", "800,2,5,", "1200,2,,", "1600,4,9,", "3000,9,nonsense"]
    (paths[1] / "metrics.csv").write_text(
        "run,env_steps,episodes,return_mean,return_100\n" + "".join(f"0,{row}\n" for row in rows[:4])
    )
    comparison = compare(paths)
    assert comparison.horizon == 1400
    assert comparison.scores[1].area_under_curve == pytest.approx([(400 * 5 + 400 * 5 + 200 * 9) / 1000])
    assert np.isnan(comparison.scores[1].final_return).all()
    assert comparison.frame["ranked_by"].tolist() == ["area_under_curve"] * 2


def test_what_a_horizon_needs_is_named(folders):
    paths = folders(short=SHORT, long=LONG)
    message = error_of(compare, paths)
    assert f"{paths[1]} holds no metrics.csv, from which returns at 1,500 env steps are read" in message
    (paths[1] / "metrics.csv").write_text("run,env_steps\n0,1\n")
    assert f"cannot read {paths[1] / 'metrics.csv'}" in error_of(compare, paths)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "holds no JSON object"),
        ('{"schema_version": 99}', "schema_version is 99"),
        ('{"config": 3}', "it does not say what was trained"),
        (json.dumps(CONFIG), "config.json has 4 settings and 2 seeds, summary.json 1 and 1"),
    ],
)
def test_a_damaged_config_is_one_line(folders, content, said):
    paths = folders(a=LONG, b=LONG)
    (paths[1] / "config.json").write_text(content)
    assert said in error_of(compare, paths)


def test_an_interrupted_training_is_compared_where_it_stopped(folders):
    """At the env steps of its shortest run, without those that never began or had ended as they were solved."""
    many = LONG | {
        "seeds": 4,
        "stopped_by": "SIGINT",
        "env_steps_per_run": [3000, 2500, 0, 900],
        "stop_when_solved": True,
    }
    many |= {"final_return_per_run": [20.0] * 4, "area_under_curve_per_run": [16.0] * 4}
    many |= {"env_steps_to_solve_per_run": [None, None, None, 800]}
    whole, stopped = folders(whole=LONG, stopped=many)
    write_rows(whole)
    (stopped / "metrics.csv").write_text("run,env_steps,episodes,return_mean,return_100\n3,900,90,10,\n")
    comparison = compare([whole, stopped])
    assert comparison.horizon == 2500
    # The mean of 100 was 20 at its end, and the last 100 of 175 episodes are 25 of 10 and 75 of 20 steps.
    assert comparison.scores[0].final_return.tolist() == [17.5]
    # 900 env steps at 10, then at the threshold of 15.
    assert comparison.scores[1].area_under_curve[3] == pytest.approx((900 * 10 + 1600 * 15) / 2500)
    assert comparison.scores[1].env_steps_to_solve[[0, 1, 3]].tolist() == [np.inf, np.inf, 800]


def with_budget(path, **budget):
    content = CONFIG | {"env": PLAIN["env"], "seeds": 1, "swept": [], "settings": [{}], "config": budget}
    (path / "config.json").write_text(json.dumps(content))


def test_the_same_budget_is_no_horizon(folders):
    """Of episodes, whose env steps differ, which is said; of env steps, which are rounded up to whole iterations."""
    paths = folders(a=LONG, b=LONG | {"env_steps_per_run": [2000]})
    for path in paths:
        with_budget(path, episodes=200, env_steps=None)
    comparison = compare(paths)
    assert comparison.horizon is None
    assert comparison.notes == ["Runs had 200 episodes each, which took 2,000 to 3,000 env steps."]
    for path in paths:
        with_budget(path, env_steps=1990, episodes=None)
    assert compare(paths).horizon is None
    with_budget(paths[1], epochs=2, steps_per_epoch=995)
    assert compare(paths).notes == []
    with_budget(paths[1], episodes=100, env_steps=None)
    for path in paths:
        write_rows(path)
    assert compare(paths).horizon == 1990


def test_a_run_that_diverged_before_the_horizon_has_no_final_return(folders):
    paths = folders(a=LONG, b=SHORT)
    for path in paths:
        write_rows(path)
    text = (paths[0] / "episodes.csv").read_text().splitlines()
    row = text[120].split(",")
    text[120] = ",".join([*row[:4], "nan", row[5]])
    (paths[0] / "episodes.csv").write_text("\n".join(text) + "\n")
    assert compare(paths).horizon == 1500
    assert math.isnan(compare(paths).scores[0].final_return[0])


def test_a_training_that_was_stopped_in_any_way_is_compared_at_its_end(folders):
    """With the same budgets: `--fail_on_nan` stops without a signal."""
    paths = folders(a=LONG, b=SHORT | {"fraction_done": 0.5, "stopped_by": None})
    for path in paths:
        write_rows(path)
        with_budget(path, env_steps=3000, episodes=None)
    assert compare(paths).horizon == 1500


def test_parameters_that_only_have_a_label_are_no_defaults(folders):
    paths = folders(a=LONG, b=LONG)
    for path, params in zip(paths, ("custom: MyParams", None), strict=True):
        with_budget(path, env_steps=3000, episodes=None)
        content = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(content | {"env_params": params}))
    assert compare(paths).notes == ["Environment parameters differ: MyParams in a; the defaults in b."]
