"""Importance of hyperparameters, against functions whose shares are known, and the figure of a search."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection

from purejaxrl.analysis.tuning import importance, plot_tuning, read_search, scale_of, share_of_variance
from purejaxrl.errors import InputError
from purejaxrl.storage.csv_files import csv_text


def table_of(score, **hyperparameters):
    """tune.csv of one rung."""
    n = len(score)
    return {"setting": np.arange(n), **hyperparameters, "rung": np.zeros(n), "budget": np.full(n, 1e4), "score": score}


def test_shares_by_hand():
    """Groups (1, 3) and (5, 7): SS_between = 16, SS_within = 4, so (16 - 1 * 4 / 2) / 20."""
    groups, score = np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 5.0, 7.0])
    assert share_of_variance(groups, score) == pytest.approx(0.7)
    assert share_of_variance(groups, np.array([1.0, 3.0, 3.0, 1.0])) == 0.0
    assert share_of_variance(groups, np.ones(4)) == 0.0
    assert share_of_variance(np.zeros(4, int), score) == 0.0
    assert math.isnan(share_of_variance(np.array([0, 0, 1]), score[:3]))


def test_shares_of_the_ishigami_function():
    """sin x1 + 7 sin^2 x2 + 0.1 x3^4 sin x1 for x in -pi..pi has the first-order Sobol indices 0.3139, 0.4424 and 0."""
    x = np.random.default_rng(0).uniform(-np.pi, np.pi, (3, 20_000))
    score = np.sin(x[0]) + 7 * np.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * np.sin(x[0])
    found = importance(table_of(score, a=x[0], b=x[1], c=x[2]))
    # Ten groups average some of the shape away: sin x1 loses 4% of its share, and sin^2 x2, twice as fast, 13%.
    assert found["a"] == pytest.approx(0.3139, rel=0.07)
    assert found["b"] == pytest.approx(0.4424, rel=0.15)
    assert found["c"] < 0.005
    assert found["a"] < 0.3139
    assert found["b"] < 0.4424


def test_shares_of_a_sum():
    """Var(2u) : Var(v) : Var(w in -1, 1) : noise = 4/12 : 1/12 : 1 : 0.25, in a search of usual size."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(50):
        u, v = rng.uniform(size=(2, 256))
        w = rng.integers(2, size=256)
        score = 2 * u + v + (2 * w - 1) + rng.normal(0, 0.5, 256)
        found.append(importance(table_of(score, u=10.0**u, v=v, w=np.where(w, "on", "off"))))
    mean = {name: np.mean([shares[name] for shares in found]) for name in found[0]}
    total = 4 / 12 + 1 / 12 + 1 + 0.25
    assert mean["u"] == pytest.approx(4 / 12 / total, abs=0.02)
    assert mean["v"] == pytest.approx(1 / 12 / total, abs=0.02)
    assert mean["w"] == pytest.approx(1 / total, abs=0.02)


def test_chance_is_taken_off():
    """Without it the share of nothing would be (B - 1) / (n - 1): 9 / 99, as the mean over many searches shows."""
    rng = np.random.default_rng(2)
    groups = np.arange(100) % 10
    scores = rng.normal(size=(400, 100))
    shares = [share_of_variance(groups, score) for score in scores]
    means = scores.reshape(400, 10, 10).mean(axis=1)
    biased = 10 * means.var(axis=1, ddof=0) * 10 / (scores.var(axis=1) * 100)
    assert np.mean(biased) == pytest.approx(9 / 99, abs=0.01)
    # Negative estimates count as 0, so half of the noise stays.
    assert np.mean(shares) < 0.025
    assert np.mean(np.array(shares) == 0) > 0.4


def test_only_the_first_score_of_a_setting_counts():
    rng = np.random.default_rng(3)
    lr, first = rng.uniform(size=100), rng.normal(size=100)
    once = importance(table_of(first, lr=lr))
    again = {name: np.concatenate([values, values[:30]]) for name, values in table_of(first, lr=lr).items()}
    again["score"][100:] = 1000 * lr[:30]
    again["rung"][100:] = 1
    assert importance(again) == once
    assert importance(pd.DataFrame(again)) == once


def test_budgets_that_searches_begin_at_are_not_compared():
    """Hyperband begins some settings at a larger budget, where all scores are higher by 100."""
    rng = np.random.default_rng(4)
    lr, late = rng.uniform(size=200), np.arange(200) % 2
    table = table_of(lr + 100 * late, lr=lr)
    assert importance(table)["lr"] < 0.1
    assert importance({**table, "budget": np.where(late, 3e4, 1e4)})["lr"] > 0.95


def test_a_setting_without_a_score_is_the_worst():
    lr = np.arange(40.0)
    score = np.where(lr < 30, 10.0 + lr % 2, np.nan)
    assert importance(table_of(score, lr=lr))["lr"] < 0.05
    steps = importance(table_of(np.where(lr < 30, 10.0 + lr % 2, np.nan), lr=lr), is_lower_better=True)
    assert steps["lr"] < 0.05
    score[0:30] = 100 + lr[:30] % 2
    score[0] = 0.0
    assert importance(table_of(score, lr=lr))["lr"] > 0.6
    assert math.isnan(importance(table_of(np.full(40, np.nan), lr=lr))["lr"])


def test_numbers_and_names():
    """Numbers written as text are numbers, and off among them makes them names."""
    lr = np.random.default_rng(5).uniform(size=60)
    texts = np.array([f"{value:.9g}" for value in lr])
    assert importance(table_of(lr, lr=texts)) == pytest.approx(importance(table_of(lr, lr=lr)))
    norm = ["off", "0.5", "1"] * 20
    score = np.array([0.0, 1.0, 2.0] * 20)
    assert importance(table_of(score, max_grad_norm=norm, double_q=[True, False] * 30)) == {
        "max_grad_norm": 1.0,
        "double_q": 0.0,
    }


def test_scales():
    rng = np.random.default_rng(6)
    assert scale_of(10 ** rng.uniform(-4, -2, 30)).is_log
    assert not scale_of(rng.uniform(0.01, 1, 30)).is_log
    assert not scale_of(rng.uniform(0.9, 0.999, 30)).is_log
    assert not scale_of(rng.uniform(-1, 1, 30)).is_log
    assert scale_of(np.array(["128x128", "64x64", "off"])).labels == ["off", "64x64", "128x128"]
    few = scale_of(np.array([0.1, 0.001, 0.1, 0.01]))
    assert few.labels == ["0.001", "0.01", "0.1"]
    assert np.rint(few.places).tolist() == [2, 0, 2, 1]


def write_search(path, settings=9, seed=0, budgets=(1000, 3000, 9000), objective="final_return", fresh=True, **columns):
    """The files of a search by halving, whose settings score their own number; returns tune.csv as a table."""
    rows, alive = [], np.arange(settings)
    for rung, budget in enumerate(budgets):
        goes_on = alive[-max(1, len(alive) // 3) :] if budget < budgets[-1] else []
        for setting in alive:
            one_seed = (np.nan, np.nan) if rung == 0 else (setting - 1.0, setting + 1.0)
            rows.append((setting, rung, budget, 2**rung, budget * 2**rung, setting, *one_seed, int(setting in goes_on)))
        alive = goes_on
    names = ("setting", "rung", "budget", "seeds", "env_steps", "score", "low", "high", "goes_on")
    table = {name: np.array(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    columns = columns or {"lr": 10.0 ** -np.arange(1, settings + 1)}
    table = {"setting": table["setting"], **{name: of[table["setting"]] for name, of in columns.items()}, **table}
    path.mkdir(exist_ok=True)
    (path / "tune.csv").write_text(csv_text(table))
    confirmed = CONFIRMED if fresh else None
    found_by = {"method": "halving", "objective": objective, "setting": settings - 1, "confirmed": confirmed}
    (path / "best.json").write_text(json.dumps({"algorithm": "a3c", "env": "CartPole-v1", "found_by": found_by}))
    return table


CONFIRMED = {
    "seeds": 2,
    "winner": {"score": 8.0, "low": 7.0, "high": 9.0, "solved": 1},
    "preset": {"score": 2.0, "low": None, "high": None, "solved": 0},
}


def texts_of(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_what_a_search_holds(tmp_path):
    table = write_search(tmp_path)
    search = read_search(tmp_path)
    assert search.names == ["lr"]
    assert (search.objective, search.winner) == ("final_return", 8)
    assert search.title == "a3c on CartPole-v1, 9 settings, halving"
    for name in table:
        np.testing.assert_allclose(search.table[name], table[name].astype(float))
    assert (search.fresh.seeds, search.fresh.winner[:3], search.fresh.preset.score) == (2, (8, 7, 9), 2)
    (tmp_path / "best.json").unlink()
    # Before the search has ended.
    (tmp_path / "config.json").write_text(json.dumps({"tune": {"objective": "area"}}))
    assert read_search(tmp_path).objective == "area"
    (tmp_path / "config.json").unlink()
    search = read_search(tmp_path)
    assert (search.title, search.winner, search.fresh) == ("9 settings", None, None)


def test_the_course_of_a_search(tmp_path):
    """Nine settings, three of which train on, then one: its line, and the ends of the others."""
    write_search(tmp_path)
    figure = plot_tuning(tmp_path)
    course, bars, below, bar = figure.axes
    assert texts_of(course) == [
        "8 settings dropped",
        "winner, setting 8: 8",
        "winner, 2 fresh seeds: 8 [7, 9]",
        "preset, 2 fresh seeds: 2",
    ]
    (winner,) = [line for line in course.lines if len(line.get_xdata()) == 3]
    assert winner.get_xydata().tolist() == [[1000, 8], [3000, 8], [9000, 8]]
    (dropped,) = [it for it in course.collections if isinstance(it, LineCollection) and len(it.get_segments()) == 8]
    assert sorted(map(len, dropped.get_segments())) == [1] * 6 + [2] * 2
    assert course.get_xscale() == "log"
    assert [label.get_text() for label in course.get_xticklabels()] == ["1 k", "3 k", "9 k"]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["lr", "interactions,\nchance"]
    assert (below.get_xlabel(), below.get_xscale(), below.get_ylabel()) == ("lr", "log", "last score")
    assert bar.get_ylabel() == "last score"


def test_a_search_of_one_rung_is_shown_by_rank(tmp_path):
    write_search(tmp_path, budgets=(1000,), fresh=False)
    course = plot_tuning(tmp_path).axes[0]
    assert course.get_xlabel() == "rank"
    (ranks,) = [it for it in course.collections if len(it.get_offsets()) == 9]
    assert ranks.get_offsets()[:, 1].tolist() == list(range(8, -1, -1))
    write_search(tmp_path, budgets=(1000,), objective="steps_to_solve")
    course = plot_tuning(tmp_path).axes[0]
    (ranks,) = [it for it in course.collections if len(it.get_offsets()) == 9]
    assert ranks.get_offsets()[:, 1].tolist() == list(range(9))
    assert texts_of(course)[-2:] == [
        "winner, 2 fresh seeds: 0.008 k [0.007 k, 0.009 k]",
        "preset, 2 fresh seeds: 0.002 k",
    ]


def test_budgets_that_grow_by_equal_amounts_have_a_linear_axis(tmp_path):
    write_search(tmp_path, budgets=range(1000, 16_000, 1000), settings=30)
    course = plot_tuning(tmp_path).axes[0]
    assert course.get_xscale() == "linear"
    assert len(course.get_xticks()) == 8


@pytest.mark.parametrize(("count", "panels"), [(0, 0), (1, 1), (2, 3), (3, 3), (4, 6), (14, 6)])
def test_the_most_important_hyperparameters_stand_in_pairs(count, panels, tmp_path):
    rng = np.random.default_rng(7)
    columns = {f"h{number}": rng.uniform(size=40) for number in range(count)}
    if count > 2:
        columns["h1"] = np.arange(40) / 40
        columns["h2"] = np.array([f"a name that is very long {number}" for number in range(13)])[np.arange(40) % 13]
    write_search(tmp_path, settings=40, **{"same": np.full(40, 3), **columns})
    figure = plot_tuning(tmp_path)
    figure.canvas.draw()
    assert len(figure.axes) == 2 + panels + bool(panels)
    if count > 2:
        assert figure.axes[2].get_xlabel() == "h1"
    bars = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    assert len(bars) == min(count + 1, 12) + 1
    assert bars[-1].endswith("and 3 more") == (count == 14)


def test_settings_without_a_score_are_crosses(tmp_path):
    columns = {"a": np.arange(9.0), "b": np.arange(9.0)}
    write_search(tmp_path, **columns)
    text = (tmp_path / "tune.csv").read_text().splitlines()
    text[1] = "0,0,0,0,1000,1,1000,,,,0"
    (tmp_path / "tune.csv").write_text("\n".join(text) + "\n")
    pair = plot_tuning(tmp_path).axes[2]
    assert pair.collections[0].get_offsets().tolist() == [[0, 0]]
    assert len(pair.collections[1].get_offsets()) == 8
    (tmp_path / "tune.csv").write_text("\n".join(f"{line[:2]}{line[1:4]},0,1000,1,1000,,,,0" for line in text[:1]))
    only = [text[0], *(f"{n},{n},{n},0,1000,1,1000,,,,0" for n in range(9))]
    (tmp_path / "tune.csv").write_text("\n".join(only))
    figure = plot_tuning(tmp_path)
    figure.canvas.draw()
    assert figure.axes[1].texts[0].get_text() == "too few settings"


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*tune.csv: No such file"):
        plot_tuning(tmp_path)
    write_search(tmp_path)
    whole = (tmp_path / "tune.csv").read_text()
    for text, said in (
        (whole.replace("goes_on", "goes"), "it has no column goes_on"),
        (whole.replace("score", "lr"), "it has no column score"),
        (whole + "1,2\n", "its rows are not whole"),
        (whole.replace("\n8,", "\neight,"), "could not convert"),
        ("", "it has no column setting"),
        (whole.partition("\n")[0], "its rows are not whole"),
    ):
        (tmp_path / "tune.csv").write_text(text)
        with pytest.raises(InputError, match=rf"cannot read .*tune.csv: .*{said}"):
            plot_tuning(tmp_path)
    (tmp_path / "tune.csv").write_text(whole)
    (tmp_path / "best.json").write_text(json.dumps({"found_by": {"confirmed": {"seeds": 2}}}))
    with pytest.raises(
        InputError, match=r"cannot use .*best.json: it does not say what was found \(KeyError\('winner'\)\)"
    ):
        plot_tuning(tmp_path)
    (tmp_path / "best.json").write_text(
        json.dumps({"found_by": {"setting": 99, "objective": "fun", "confirmed": None}})
    )
    search = read_search(tmp_path)
    assert (search.winner, search.objective) == (None, "final_return")
