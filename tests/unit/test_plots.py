"""What figures show: which lines, where they run, and that nothing is cut off."""

import itertools

import numpy as np
import pandas as pd
import pytest

from purejaxrl.analysis import plots, statistics
from purejaxrl.analysis.statistics import Scores


def make_metrics(curves, env_steps=None, return_100=True):
    """Curves, one per run, as metrics.csv has them; 100, 200, ... env steps."""
    frames = [
        pd.DataFrame(
            {
                "run": run,
                "env_steps": 100 * np.arange(1, len(curve) + 1) if env_steps is None else env_steps[run],
                "episodes": np.arange(1, len(curve) + 1) * (100 if return_100 else 10),
                "return_100": np.asarray(curve, float) if return_100 else np.nan,
                "return_mean": np.asarray(curve, float) + 0.25,
            }
        )
        for run, curve in enumerate(curves)
    ]
    return pd.concat(frames, ignore_index=True).sample(frac=1, random_state=0)


def columns(frame):
    """As figures take them."""
    return {name: frame[name].to_numpy() for name in frame}


def sweep_figure(curves, runs, labels, return_100=True, solved_at=None, final=None):
    """The figure of a sweep with these curves, as many for each setting."""
    settings = len(curves) // runs
    ends = np.array([curve[-1] if return_100 else np.nan for curve in curves], float) if final is None else final
    areas = np.array([np.mean(curve) for curve in curves])
    scores = [
        Scores(ends[part], areas[part], np.full(runs, np.inf), np.ones(runs, bool))
        for part in np.split(np.arange(len(curves)), settings)
    ]
    frame = statistics.describe(scores, has_threshold=solved_at is not None)
    of_run = np.repeat(np.arange(settings), runs)
    return plots.sweep(columns(make_metrics(curves, return_100=return_100)), frame, labels, of_run, "title", solved_at)


def names_of(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


def test_at_most_100_faint_lines_and_a_mean_over_all_runs():
    """Run r is a constant r; a hundred lines of the 250 would not average 124.5."""
    axes = plots.learning_curve(columns(make_metrics([[run, run] for run in range(250)])), "many").axes[0]
    *faint, mean = axes.lines
    assert 50 < len(faint) <= 100
    assert len({line.get_ydata()[0] for line in faint}) == len(faint)
    np.testing.assert_allclose(mean.get_ydata(), 124.5)
    band = axes.collections[0].get_paths()[0].get_extents()
    deviation = np.arange(250).std()
    np.testing.assert_allclose((band.y0, band.y1), (124.5 - deviation, 124.5 + deviation))
    assert "250 runs" in mean.get_label()


def test_the_band_ends_where_the_runs_end():
    """Three runs at 500 and one at 100: mean 400, deviation 173."""
    axes = plots.learning_curve(columns(make_metrics([[500.0, 500.0]] * 3 + [[100.0, 100.0]])), "bounded").axes[0]
    band = axes.collections[0].get_paths()[0].get_extents()
    np.testing.assert_allclose((band.y0, band.y1), (400 - np.sqrt(30000), 500))


@pytest.mark.parametrize(("runs", "lines"), [(1, 1), (3, 3), (100, 100), (101, 51)])
def test_few_runs_are_all_plotted(runs, lines):
    axes = plots.learning_curve(columns(make_metrics([[1, 2]] * runs)), "few").axes[0]
    assert len(axes.lines) == lines + 1


def test_a_run_that_ended_earlier_keeps_its_last_value():
    """Three runs of differing length in mixed-up rows; the mean begins where the last of them has."""
    metrics = make_metrics([[0, 2, 4, 6], [10, 10], [5, 1, 2]], [[100, 200, 300, 400], [50, 250], [100, 200, 300]])
    mean = plots.learning_curve(columns(metrics), "ended").axes[0].lines[-1]
    at = lambda env_steps: np.interp(env_steps, *mean.get_data())  # noqa: E731
    assert mean.get_xdata()[[0, -1]].tolist() == [100, 400]
    assert at(100) == pytest.approx((0 + 10 + 5) / 3)
    assert at(250) == pytest.approx((3 + 10 + 1.5) / 3, abs=0.01)
    assert at(400) == pytest.approx((6 + 10 + 2) / 3)


def test_interval_means_where_no_run_has_100_episodes():
    axes = plots.learning_curve(columns(make_metrics([[1, 1]], return_100=False)), "short").axes[0]
    assert axes.lines[-1].get_ydata()[0] == 1.25
    assert "mean of the interval" in axes.lines[-1].get_label()


def make_early(run, episodes, means, return_100):
    return pd.DataFrame(
        {
            "run": run,
            "env_steps": 100 * np.arange(1, len(episodes) + 1),
            "episodes": episodes,
            "return_mean": means,
            "return_100": return_100,
        }
    )


NAN = np.nan
# Means of 2, 8, 8 and 100 episodes; and of none, 10, 50 and 60 of them.
EARLY = make_early(0, [2, 8, 8, 108], [10, 30, NAN, 90], [NAN, NAN, NAN, 90])
LATER = make_early(1, [0, 10, 50, 60], [NAN, 20, 40, 100], [NAN] * 4)


def test_recent_returns_by_hand():
    shuffled = pd.concat([LATER, EARLY]).sample(frac=1, random_state=1)
    by_run = pd.DataFrame(plots.add_recent_returns(columns(shuffled))).groupby("run")["recent_return"].agg(list)
    np.testing.assert_allclose(by_run[0], [10, (2 * 10 + 6 * 30) / 8, 25, 90])
    np.testing.assert_allclose(by_run[1], [NAN, 20, (10 * 20 + 40 * 40) / 50, (1800 + 10 * 100) / 60])
    diverged = EARLY.assign(return_mean=[10, NAN, 5, 5], return_100=NAN)
    np.testing.assert_allclose(plots.add_recent_returns(columns(diverged))["recent_return"], [10, NAN, NAN, NAN])


def test_a_curve_begins_with_the_first_episodes_as_a_thinner_line():
    """One run has 100 episodes after 200 env steps, the other after 300."""
    sooner = make_early(0, [10, 110, 210, 310], [20, 40, 60, 80], [NAN, 40, 60, 80])
    later = make_early(1, [10, 20, 120, 220], [40, 60, 80, 100], [NAN, NAN, 78, 100])
    axes = plots.learning_curve(columns(pd.concat([later, sooner])), "early").axes[0]
    *faint, thin, thick, _ = axes.lines
    assert [line.get_ydata().tolist() for line in faint] == [[20, 40, 60, 80], [40, 50, 78, 100]]
    assert thin.get_linewidth() < thick.get_linewidth()
    assert thin.get_color() == thick.get_color()
    assert (thin.get_xdata()[0], thick.get_xdata()[-1]) == (100, 400)
    assert thin.get_ydata()[0] == 30
    assert np.interp(200, *thin.get_data()) == pytest.approx(45, abs=0.1)
    assert thick.get_ydata()[[0, -1]] == pytest.approx([69, 90], abs=0.2)
    assert thick.get_xdata()[0] == thin.get_xdata()[-1] == pytest.approx(300, abs=1)


@pytest.mark.parametrize("at", [200, 300])
def test_the_line_is_thick_once_every_run_has_100_episodes(at):
    later = make_early(1, [10, 20, 120, 220], [20, 40, 60, 80], [NAN, NAN, 60, 80])
    sooner = make_early(0, [10, 110, 210, 310], [20, 40, 60, 80], [NAN, 40, 60, 80])
    metrics = sooner if at == 200 else pd.concat([later, sooner])
    axes = plots.learning_curve(columns(metrics), "early").axes[0]
    thick = next(line for line in axes.lines if line.get_linewidth() == 2)
    assert at <= thick.get_xdata()[0] < at + 1
    assert "mean of 100 episodes" in thick.get_label()
    assert "thin: fewer than 100 episodes so far" in [text.get_text() for text in axes.get_legend().texts]


def test_several_curves_explain_the_thin_line_once_and_keep_their_colors():
    axes = plots.new_figure()[1]
    for name in ("one", "other"):
        early = make_early(0, [10, 110, 210], [20, 40, 60], [NAN, 40, 60])
        plots.plot_runs(axes, columns(early), "", label=name, lw=None)
    handles, labels = axes.get_legend_handles_labels()
    assert sorted(labels) == ["one (1 run)", "other (1 run)", "thin: fewer than 100 episodes so far"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == sorted(labels)
    colors = {label: handle.get_color() for label, handle in zip(labels, handles, strict=True)}
    assert (colors["one (1 run)"], colors["other (1 run)"]) == plots.COLORS[:2]


def test_a_setting_of_a_sweep_with_too_few_episodes_has_a_thin_curve():
    full = [make_early(run, [50, 150, 250], [20, 40, 60], [NAN, 50, 60]) for run in (0, 1)]
    few = [make_early(run, [5, 15, 25], [200, 200, 200], [NAN] * 3) for run in (2, 3)]
    scores = [Scores(np.full(2, final), np.full(2, 30.0), np.full(2, np.inf), np.ones(2, bool)) for final in (60, NAN)]
    frame = statistics.describe(scores, has_threshold=False)
    of_run = np.array([0, 0, 1, 1])
    axes = plots.sweep(columns(pd.concat([*full, *few])), frame, ["full", "few"], of_run, "title", None).axes[0]
    by_width = {}
    for line in (line for line in axes.lines if line.get_xdata().size):
        by_width.setdefault(line.get_linewidth(), []).append(line)
    thick_width, thin_width = sorted(by_width, reverse=True)
    (thick,) = by_width[thick_width]
    assert 200 <= thick.get_xdata()[0] < 201
    assert thick.get_ydata()[-1] == 60
    assert sorted(float(line.get_ydata()[0]) for line in by_width[thin_width]) == [20, 200]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [plots.THIN]


def test_evaluations_are_a_second_line():
    metrics = make_metrics([[1, 1], [3, 3]]).assign(eval_return=9.0)
    labels = [line.get_label() for line in plots.learning_curve(columns(metrics), "evaluated", 7.0).axes[0].lines]
    assert "training, mean of 100 episodes (2 runs)" in labels
    assert "greedy evaluation (2 runs)" in labels


def test_sweep_plots_interquartile_means_best_on_top():
    """Four runs of a setting: the middle two are averaged, their band reaches from one quartile to the other."""
    curves = [[0, 0], [10, 20], [30, 40], [900, 900], *[[500, 500]] * 4]
    figure = sweep_figure(curves, 4, ["low", "high"], solved_at=100.0)
    axes, final, area = figure.axes
    high, low = axes.lines[:2]
    assert names_of(final) == ["high", "low"]
    np.testing.assert_allclose(high.get_ydata(), 500)
    np.testing.assert_allclose(low.get_ydata()[[0, -1]], [(10 + 30) / 2, (20 + 40) / 2])
    band = axes.collections[1].get_paths()[0].get_extents()
    np.testing.assert_allclose((band.y0, band.y1), (7.5, 255))
    dots = final.collections[-1].get_offsets()
    np.testing.assert_allclose(dots, [[500, 0], [30, 1]])
    np.testing.assert_allclose(area.collections[-1].get_offsets()[:, 0], [500, 25])
    bars = final.collections[0].get_segments()
    assert bars[1][0][0] < 30 < bars[1][1][0]
    bottom, top = final.get_ylim()
    assert bottom > 1 > 0 > top
    assert [label.get_color() for label in final.get_yticklabels()] == [high.get_color(), low.get_color()]
    assert [line.get_ydata()[0] for line in axes.lines[2:]] == [100]


def test_sweep_says_how_many_settings_are_not_plotted():
    figure = sweep_figure([[n, n] for n in range(40)], 1, [f"setting {n}" for n in range(40)])
    axes, final, area = figure.axes
    assert len(axes.lines) == 8
    assert axes.get_title() == "learning curves, 8 best of 40 settings"
    assert final.get_title() == "final return, 30 best"
    assert names_of(final) == [f"setting {n}" for n in range(39, 9, -1)]
    assert len(area.collections[-1].get_offsets()) == 30
    few = sweep_figure([[n, n] for n in range(8)], 1, [f"setting {n}" for n in range(8)])
    assert [axes.get_title() for axes in few.axes] == ["learning curves", "final return", "area under curve"]


def test_single_runs_have_dots_without_bars():
    _, final, _ = sweep_figure([[1, 2], [3, 4]], 1, ["a", "b"]).axes
    assert len(final.collections[0].get_segments()) == 0
    assert len(final.collections[1].get_offsets()) == 2


def test_a_setting_without_returns_has_a_row_but_no_curve():
    curves = [[1, 1], [3, 3], [np.nan, np.nan], [np.nan, np.nan]]
    axes, final, _ = sweep_figure(curves, 2, ["known", "unknown"]).axes
    assert len(axes.lines) == 1
    assert names_of(final) == ["known", "unknown"]
    assert len(final.collections[-1].get_offsets()) == 1


def test_rows_and_colors_follow_the_rank():
    """Runs that ended once they were solved: the setting with the lower returns was the sooner, another diverged."""
    curves = [[4, 4], [8, 9], [9, 9], [7, 5]]
    steps, is_ok = [np.inf, 200, 200, 100], [False, True, True, True]
    scores = [
        Scores(*(np.array([value], float) for value in (np.nan if not ok else curve[-1], 1, step)), np.array([ok]))
        for curve, step, ok in zip(curves, steps, is_ok, strict=True)
    ]
    frame = statistics.describe(scores, has_threshold=True, stopped_when_solved=True)
    labels = ["diverged", "late", "alike", "soon"]
    axes, final, area = plots.sweep(columns(make_metrics(curves)), frame, labels, np.arange(4), "title", None).axes
    assert names_of(final) == ["soon", "late", "alike", "diverged"]
    assert [line.get_ydata()[-1] for line in axes.lines] == [5, 9, 9, 4]
    np.testing.assert_allclose(final.collections[-1].get_offsets(), [[5, 0], [9, 1], [9, 2]])
    assert len(area.collections[-1].get_offsets()) == 4


def test_sweep_of_interval_means_has_no_final_returns():
    axes, final, area = sweep_figure([[1, 1], [3, 3]], 1, ["a", "b"], return_100=False, solved_at=2.0).axes
    assert axes.lines[0].get_ydata()[0] == 3.25
    assert axes.get_ylabel() == "return, mean of the interval"
    assert [text.get_text() for text in final.texts] == ["not known"]
    assert not final.lines
    assert not area.texts


def test_sweep_without_metrics():
    frame = statistics.describe([Scores(np.ones(2), np.ones(2), np.ones(2), np.ones(2, bool))], has_threshold=False)
    metrics = make_metrics([[1]]).iloc[:0]
    axes = plots.sweep(columns(metrics), frame, ["a"], np.zeros(2, int), "title", None).axes[0]
    assert not axes.lines
    assert [text.get_text() for text in axes.texts] == ["no returns"]


@pytest.mark.parametrize("settings", [1, 2, 40])
def test_long_labels_are_neither_cut_off_nor_laid_over_the_curves(settings, tmp_path):
    labels = [
        f"a-folder-with-a-long-name learning_rate=${n}$ hidden_sizes=64x64x64 gamma=0.9{n}" for n in range(settings)
    ]
    figure = sweep_figure([[n, n + 1] for n in range(2 * settings)], 2, labels, solved_at=3.0)
    figure.savefig(tmp_path / "sweep.png")
    shown = [name.replace("\n", " ") for name in names_of(figure.axes[1])]
    assert shown == [labels[row] for row in range(settings - 1, max(-1, settings - 31), -1)]
    curves, final, area = (axes.get_window_extent() for axes in figure.axes)
    names = [label.get_window_extent() for label in figure.axes[1].get_yticklabels()]
    assert all(curves.x1 < name.x0 and name.x1 < final.x0 for name in names)
    assert all(below.y1 < above.y0 for above, below in itertools.pairwise(names))
    assert area.x1 <= figure.bbox.x1
    assert curves.width > 0.35 * figure.bbox.width
    assert not any(label.get_parse_math() for label in figure.axes[1].get_yticklabels())


@pytest.mark.parametrize(("settings", "words"), [(2, 5), (8, 5), (8, 40)])
def test_legends_name_settings_whole_and_within_the_figure(settings, words, tmp_path):
    """Beside the curves, as they would cover them; where there are many lines the figure is higher."""
    labels = [" ".join(f"hyperparameter_{word}={n}.{word}" for word in range(words)) for n in range(settings)]
    figure, axes = plots.new_figure()
    curves = columns(make_metrics([[n, n + 1] for n in range(settings)]))
    plots.plot_settings(axes, curves, labels, range(settings), np.arange(settings), "title")
    plots.make_room_for_legend(figure)
    figure.savefig(tmp_path / "curves.png")
    texts = axes.get_legend().get_texts()
    assert [text.get_text().replace("\n", " ") for text in texts] == labels
    for extent in (text.get_window_extent() for text in texts):
        assert axes.get_window_extent().x1 < extent.x0 < extent.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= extent.y0 < extent.y1 <= figure.bbox.y1


def test_long_names_of_run_folders_are_whole_too(tmp_path):
    names = [f"{'a-folder-with-a-very-long-name-' * 4}{n}" for n in range(3)]
    figure, axes = plots.new_figure()
    for name in names:
        plots.plot_runs(axes, columns(make_metrics([[1, 2]])), "title", label=name)
    plots.make_room_for_legend(figure)
    figure.savefig(tmp_path / "curves.png")
    texts = axes.get_legend().get_texts()
    assert ["".join(text.get_text().split("\n")) for text in texts] == [f"{name} (1 run)" for name in names]
    assert max(text.get_window_extent().x1 for text in texts) <= figure.bbox.x1
