"""Interrupted and resumed trainings against those that were not: bitwise equal, whatever interrupted them."""

import itertools
import json
import os
import pkgutil
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import purejaxrl
from purejaxrl.agents import vpg
from purejaxrl.cli import main
from purejaxrl.cli.flags import parse_resumption, resume_parser
from purejaxrl.components.hyperparameters import Budget
from purejaxrl.errors import CheckpointError, InputError, InUseError, ResourceError
from purejaxrl.experiment import checkpointing
from purejaxrl.experiment import run as run_module
from purejaxrl.experiment.progress import Silent
from purejaxrl.experiment.tracker import BatchPosition
from purejaxrl.storage import checkpoint as disk
from purejaxrl.storage.run_folder import RunFolder, read_params
from purejaxrl.training import metrics
from purejaxrl.training.compilation import StopRequestedError
from purejaxrl.training.runner import ResumePoint
from purejaxrl.types import Episode, RunState

VPG = {"algorithm": "vpg", "epochs": 40, "steps_per_epoch": 80, "actors": 4, "train_v_iters": 1, "hidden_sizes": (8,)}
DQN = {"algorithm": "dqn", "batch_size": 8, "memory_size": 64, "hidden_sizes": (8,)}
VECTORS = {**DQN, "observation_type": "default", "env_steps": 600}
IMAGES = {**DQN, "observation_type": "img", "image_size": (10, 16), "env_steps": 120}
A3C = {"algorithm": "a3c", "actors": 3, "t_max": 10, "hidden_sizes": (8,), "episodes": 120}
FILES = ("metrics.csv", "episodes.csv", "params/last.safetensors")
SLOW = pytest.mark.slow
OF_SWEEPS = ("sweep.csv", "improvement.csv", "params/last-1.safetensors", "params/last-2.safetensors")
EVALUATED = {"log_every": 200, "eval_every": 700, "eval_episodes": 2}


@pytest.fixture(autouse=True)
def chunks_of_seven_iterations(monkeypatch):
    """Instead of about a second, so that interruptions fall where they fell the last time."""
    monkeypatch.setattr("purejaxrl.training.runner.next_length", lambda *_: 7)


class StopAfter(Silent):
    """Sends the process a signal after so many chunks; the start of a training that is resumed counts as one."""

    def __init__(self, chunks, number=signal.SIGTERM):
        self.left, self.number = chunks, number

    def advance(self, stats, seconds):
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)


def start(arguments, out, progress=None, **more):
    arguments = {**arguments, **more}
    run = purejaxrl.sweep if any(isinstance(value, list) for value in arguments.values()) else purejaxrl.train
    return run(**arguments, out=out, progress=progress)


def interrupt_often(arguments, out, chunks=2, **more):
    """Train with up to two interruptions, each after so many chunks, and then to the end; how many there were."""
    result, count = start(arguments, out, StopAfter(chunks), **more), 0
    while result.stopped_by:
        count += 1
        result = purejaxrl.resume(out, progress=None if count == 2 else lambda _: StopAfter(chunks))
    return count


def assert_same_files(one, other, files=FILES):
    for name in files:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize(
    ("arguments", "files"),
    [
        ({**VPG, "seeds": 3, **EVALUATED}, (*FILES, "params/best.safetensors")),
        pytest.param({**VPG, "epochs": 30, "lr_anneal": True, "normalize_observations": True}, FILES, marks=SLOW),
        pytest.param({**VECTORS, "seeds": 3}, FILES, marks=SLOW),
        pytest.param({**IMAGES, "seeds": 2}, FILES, marks=SLOW),
        pytest.param({**A3C, "seeds": 3}, FILES, marks=SLOW),
        pytest.param({**A3C, "mode": "sync"}, FILES, marks=SLOW),
        pytest.param(
            {**VPG, "seeds": 2, "pi_lr": [1e-3, 1e-2], "hidden_sizes": [(8,), (4, 4)]},
            (*FILES[:2], *OF_SWEEPS),
            marks=SLOW,
        ),
        pytest.param({**A3C, "lr": [1e-3, 1e-2], "seeds": 2}, FILES, marks=SLOW),
    ],
    ids=["vpg", "vpg alone", "dqn", "dqn images", "a3c", "a3c sync", "sweep", "a3c sweep"],
)  # fmt: skip
def test_interrupted_trainings_end_bitwise_as_others(arguments, files, tmp_path):
    start(arguments, tmp_path / "whole")
    assert interrupt_often(arguments, tmp_path / "cut") >= 2
    assert_same_files(tmp_path / "whole", tmp_path / "cut", files)
    whole, cut = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "cut"))
    for name in whole.keys() - {"compile_seconds", "run_seconds", "env_steps_per_second"}:
        assert whole[name] == cut[name], name


class StopTwiceAfter(StopAfter):
    """Sends it once more with the next chunk."""

    def advance(self, stats, seconds):
        super().advance(stats, seconds)
        if self.left == 0:
            signal.raise_signal(self.number)


@pytest.fixture
def default_of():
    """A function that gives a signal the system's own handler, whatever this process was started with."""
    previous = {}

    def take(number):
        previous[number] = signal.signal(number, signal.SIG_DFL)

    yield take
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    "number",
    [signal.SIGHUP, *(pytest.param(n, marks=SLOW) for n in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU))],
    ids=lambda n: n.name,
)
def test_what_terminals_and_schedulers_send_stops_as_sigterm_does(number, default_of, tmp_path):
    """However often it comes: a terminal that is closed sends SIGHUP twice."""
    default_of(number)
    start(VPG, tmp_path / "whole")
    result = start(VPG, tmp_path / "cut", StopTwiceAfter(2, number))
    assert result.stopped_by == number
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["stopped_by"] == number.name
    assert 0 < result.summary_json["env_steps"] < 40 * 80
    assert disk.numbers(tmp_path / "cut" / "checkpoints") == [1]
    assert signal.getsignal(number) == signal.SIG_DFL
    assert purejaxrl.resume(tmp_path / "cut").stopped_by is None
    assert_same_files(tmp_path / "whole", tmp_path / "cut")


def test_signals_that_a_program_ignores_or_handles_are_left_to_it(default_of, tmp_path):
    """As under nohup."""
    numbers, received = (signal.SIGHUP, signal.SIGUSR1), []
    for number, handler in zip(numbers, (signal.SIG_IGN, lambda number, _: received.append(number)), strict=True):
        default_of(number)
        signal.signal(number, handler)
        result = start(VPG, tmp_path / number.name, StopAfter(2, number))
        assert (result.stopped_by, result.summary_json["env_steps"]) == (None, 40 * 80)
        assert signal.getsignal(number) == handler
    assert received == [signal.SIGUSR1]


def test_a_figure_that_fails_costs_nothing_else(tmp_path, monkeypatch):
    """Everything else has been written by then, so the training can be extended, and what it has learned be played."""

    def no_memory(folder, *_):
        assert (folder.path / "checkpoints" / "000001" / "SHA256SUMS").exists()
        raise MemoryError("std::bad_alloc")

    start(VPG, tmp_path / "whole", epochs=12)
    monkeypatch.setattr("purejaxrl.analysis.figures.write_figures", no_memory)
    with pytest.warns(
        UserWarning, match=r"figures could not be plotted.*: MemoryError: std::bad_alloc; purejaxrl plot"
    ):
        result = start(VPG, tmp_path / "cut", epochs=8)
    assert result.summary_json["env_steps"] == 8 * 80
    assert not (tmp_path / "cut" / "learning_curve.png").exists()
    with pytest.warns(UserWarning, match="figures could not be plotted"):
        purejaxrl.resume(tmp_path / "cut", extend=12)
    assert_same_files(tmp_path / "whole", tmp_path / "cut")
    monkeypatch.undo()
    assert main(["plot", str(tmp_path / "cut")]) == 0
    names = [(tmp_path / name / "learning_curve.png").read_bytes() for name in ("whole", "cut")]
    assert names[0] == names[1]


@pytest.mark.slow
def test_trainings_in_several_batches_are_resumed(tmp_path):
    """Memory for few runs at a time: batches that are done stay done, and the current one is resumed."""
    arguments = {**VECTORS, "env_steps": 400, "memory_size": 4000, "seeds": 6}
    probe = start(arguments, tmp_path / "wide")
    assert probe.summary_json["batches"] == 1
    arguments["max_memory"] = 0.0018
    whole = start(arguments, tmp_path / "whole")
    assert whole.summary_json["batches"] > 1
    assert interrupt_often(arguments, tmp_path / "cut", chunks=3) >= 2
    files = [f"params/last-{k + 1}.safetensors" for k in range(whole.summary_json["batches"])]
    assert_same_files(tmp_path / "whole", tmp_path / "cut", ["metrics.csv", "episodes.csv", *files])


def test_a_larger_budget_of_episodes_wakes_the_runs_that_it_lets_go_on():
    """Not the one that has had more episodes already, nor, where solved runs stop, the one that is solved."""
    finished = np.array([5, 9, 6, 4])
    spec = metrics.MetricsSpec(np.arange(4), np.arange(4), 1, 1, 5, None)
    before = metrics.init(spec)._replace(
        is_over=np.array([True, True, True, False]),
        episodes=np.array([5, 5, 5, 4]),
        solved_at_steps=np.array([-1, -1, 40, -1]),
    )
    episode = Episode(None, None, finished)
    state = RunState(None, None, None, episode, np.array([False, False, False, True]), None)
    point = ResumePoint(state, None, 7)
    for stop_at, expected in ((None, [True, False, True, True]), (195.0, [True, False, False, True])):
        after, kept = checkpointing.extend(point, before, Budget("episodes", 8, stop_at))
        assert after.state.active.tolist() == expected
        assert kept.is_over.tolist() == [not goes_on for goes_on in expected]
        assert kept.episodes.tolist() == [finished[k] if expected[k] else before.episodes[k] for k in range(4)]
    assert checkpointing.extend(point, before, Budget("env_steps", 8)) == (point, before)


@pytest.mark.parametrize(
    "arguments", [pytest.param(VPG, marks=SLOW), {**VECTORS, "seeds": 2}], ids=["epochs", "env_steps"]
)
def test_extending_is_exact(arguments, tmp_path):
    """Logging and evaluation intervals that do not divide the first budget leave no trace of its end."""
    budget = "epochs" if "epochs" in arguments else "env_steps"
    arguments = {**arguments, "log_every": 330, "eval_every": 990, "eval_episodes": 2}
    start(arguments, tmp_path / "whole", **{budget: 2 * arguments[budget]})
    start(arguments, tmp_path / "first")
    result = purejaxrl.resume(tmp_path / "first", extend=2 * arguments[budget])
    assert result.summary_json["env_steps"] > 0
    assert_same_files(tmp_path / "whole", tmp_path / "first", (*FILES, "params/best.safetensors"))
    assert json.loads((tmp_path / "first" / "config.json").read_text())["config"][budget] == 2 * arguments[budget]


@pytest.mark.slow
def test_more_episodes_continue_from_the_frozen_learner(tmp_path):
    start(A3C, tmp_path / "run", seeds=2)
    before = pd.read_csv(tmp_path / "run" / "episodes.csv")
    reporter = Starting()
    result = purejaxrl.resume(tmp_path / "run", extend=200, progress=reporter)
    assert reporter.share == 0.0
    after = pd.read_csv(tmp_path / "run" / "episodes.csv")
    for run, rows in after.groupby("run"):
        earlier = before[before["run"] == run]
        pd.testing.assert_frame_equal(rows.head(120).reset_index(drop=True), earlier.reset_index(drop=True))
        assert rows["env_steps"].is_monotonic_increasing
        assert rows["episode"].is_monotonic_increasing
        assert rows["episode"].max() == 200
    assert result.summary_json["runs_ok"] == 2


def test_what_cannot_be_extended_is_refused(tmp_path, capsys):
    start(VPG, tmp_path / "run", epochs=3)
    start(VPG, tmp_path / "annealed", epochs=3, lr_anneal=True)
    start(VPG, tmp_path / "cut", epochs=3, hidden_sizes=[(4,), (8,)])
    before = (tmp_path / "run" / "metrics.csv").read_bytes()
    for name, amount, text in (
        ("run", "3", "--extend: 3 is not more than the 3 epochs there were"),
        ("run", "0", "--extend: 0 is not allowed"),
        ("run", "many", "--extend: 'many' is not allowed"),
        ("annealed", "6", "--extend: update of vpg depends on the share of the budget that is used"),
        ("cut", "6", "--extend: this training was cut into batches"),
    ):
        assert main(["resume", str(tmp_path / name), "--extend", amount, "--quiet"]) == 2
        error = capsys.readouterr().err
        assert text in error
        assert error.count("\n") == 1
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == before


def test_a_finished_training_has_nothing_left_to_do(tmp_path):
    start(VPG, tmp_path / "run", epochs=3)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.csv")}
    result = purejaxrl.resume(tmp_path / "run")
    assert result.stopped_by is None
    assert result.summary_json["env_steps"] == 240
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.csv")} == before


def test_without_a_checkpoint_results_are_kept(tmp_path, capsys):
    """Unless they may be replaced: not where it was stopped, nor where it has ended, nor where it was extended."""
    start(VPG, tmp_path / "whole", checkpoint_every=0)
    start(VPG, tmp_path / "cut", StopAfter(2), checkpoint_every=0)
    shutil.copytree(tmp_path / "cut", tmp_path / "params only")
    for name in ("metrics.csv", "episodes.csv", "summary.json"):
        (tmp_path / "params only" / name).unlink()
    texts = {
        "cut": "holds episodes.csv, and no checkpoint to go on from",
        "whole": "has ended and holds no checkpoint to go on from",
        "params only": "holds params/last.safetensors, and no checkpoint to go on from",
    }
    for name, text in texts.items():
        before = contents(tmp_path / name)
        assert not any("checkpoints" in path.parts for path in before)
        for flags in ([], ["--dry_run"], ["--extend", "50"]):
            assert main(["resume", str(tmp_path / name), "--quiet", *flags]) == 2
            said = f"{tmp_path / name} {text}; --restart trains anew and replaces what is there"
            assert capsys.readouterr().err == f"purejaxrl: {said}\n"
        with pytest.raises(InputError, match=text):
            purejaxrl.resume(tmp_path / name)
        assert contents(tmp_path / name) == before
    whole = contents(tmp_path / "whole")
    (tmp_path / "cut" / "params" / "best.safetensors").write_text("of an earlier training")
    (tmp_path / "cut" / "notes.txt").write_text("mine")
    assert main(["resume", str(tmp_path / "cut"), "--quiet", "--restart"]) == 0
    purejaxrl.resume(tmp_path / "params only", restart=True)
    for name in ("cut", "params only"):
        assert_same_files(tmp_path / "whole", tmp_path / name)
    after = contents(tmp_path / "cut")
    assert after.keys() - whole.keys() == {Path("notes.txt")}
    assert whole.keys() <= after.keys()


def test_resuming_starts_over_if_nothing_was_learned(tmp_path):
    """A signal, or kill -9, before the first chunk has ended."""
    start(VPG, tmp_path / "whole")
    folder = tmp_path / "cut"
    folder.mkdir()
    shutil.copy(tmp_path / "whole" / "config.json", folder)
    header, _, _ = (tmp_path / "whole" / "episodes.csv").read_text().partition("\n")
    (folder / "episodes.csv").write_text(header + "\n")
    (folder / "summary.json").write_text('{"stopped_by": "SIGTERM"}')
    with pytest.warns(UserWarning, match=f"^{folder} holds no checkpoint and no results; training begins anew$"):
        purejaxrl.resume(folder)
    assert_same_files(tmp_path / "whole", folder)


def test_restart_is_refused_if_there_is_a_checkpoint(folder, capsys):
    before = contents(folder)
    assert main(["resume", str(folder), "--restart", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"purejaxrl: --restart: {folder} has a checkpoint to go on from, "
        f"{max((folder / 'checkpoints').iterdir())}; leave --restart out\n"
    )
    assert contents(folder) == before


@pytest.mark.slow
def test_a_signal_between_two_programs_leaves_a_checkpoint(tmp_path, monkeypatch):
    """What the first batch has learned is resumed; a second signal before anything is learned changes nothing."""
    arguments = {**VPG, "epochs": 10, "hidden_sizes": [(8,), (4, 4)]}
    start(arguments, tmp_path / "whole")
    compiled, count = run_module.compile_fitting, 0

    def stop_at_the_second(*args, **options):
        nonlocal count
        count += 1
        if count > 1:
            signal.raise_signal(signal.SIGTERM)
            raise StopRequestedError
        return compiled(*args, **options)

    monkeypatch.setattr(run_module, "compile_fitting", stop_at_the_second)
    assert start(arguments, tmp_path / "cut").stopped_by == signal.SIGTERM
    assert disk.numbers(tmp_path / "cut" / "checkpoints") == [1]
    assert purejaxrl.resume(tmp_path / "cut").stopped_by == signal.SIGTERM
    assert disk.numbers(tmp_path / "cut" / "checkpoints") == [1]
    monkeypatch.setattr(run_module, "compile_fitting", compiled)
    purejaxrl.resume(tmp_path / "cut")
    assert_same_files(tmp_path / "whole", tmp_path / "cut", (*FILES[:2], *OF_SWEEPS))


@pytest.fixture(scope="module")
def two_programs(tmp_path_factory):
    """A sweep of two programs that nothing interrupted."""
    out = tmp_path_factory.mktemp("two programs") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("purejaxrl.training.runner.next_length", lambda *_: 7)
        start(TWO_PROGRAMS, out)
    return out


TWO_PROGRAMS = {**VPG, "epochs": 10, "hidden_sizes": [(8,), (4, 4)]}
OF_TWO_PROGRAMS = (*FILES[:2], *OF_SWEEPS, "sweep.png")
FIGURES, STATISTICS = "purejaxrl.analysis.figures.write_figures", "purejaxrl.analysis.statistics.describe"
EXPERIMENT = "purejaxrl.experiment"
WRITE = f"{EXPERIMENT}.checkpointing.disk.write"


def happening(monkeypatch, function, call, events):
    """Before that call of a function, the process gets these signals, or an error is raised."""
    module, _, name = function.rpartition(".")
    owner = pkgutil.resolve_name(module)
    original, calls = getattr(owner, name), itertools.count(1)

    def wrapped(*args, **options):
        if next(calls) == call:
            for event in events:
                if isinstance(event, Exception):
                    raise event
                signal.raise_signal(event)
        return original(*args, **options)

    monkeypatch.setattr(owner, name, wrapped)


class Starting(Silent):
    """Keeps the share of the runs that had ended when it was first told of any."""

    share = None

    def advance(self, stats, seconds):
        if self.share is None:
            self.share = float(stats.is_over.mean())


def assert_resumed_from(out, share, whole, files):
    """Resuming starts with at least that share of the runs done, and ends as a training that was never stopped."""
    reporter = Starting()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert purejaxrl.resume(out, progress=reporter).stopped_by is None
    # Where all have ended there is no progress to tell of.
    assert (1.0 if reporter.share is None else reporter.share) >= share
    assert_same_files(whole, out, files)


@pytest.mark.parametrize(
    ("function", "call", "share"),
    [
        (f"{EXPERIMENT}.run.compile_fitting", 1, 0.0), (f"{EXPERIMENT}.callbacks.FileWriter.on_chunk", 1, 0.0),
        (f"{EXPERIMENT}.callbacks.FileWriter.on_batch_end", 1, 0.5), (WRITE, 1, 0.5),
        (f"{EXPERIMENT}.run.compile_fitting", 2, 0.5), (f"{EXPERIMENT}.run.fit", 2, 0.5),
        (f"{EXPERIMENT}.run.summarize", 1, 1.0), (WRITE, 2, 1.0), (STATISTICS, 1, 1.0), (FIGURES, 1, 1.0),
    ],
)  # fmt: skip
def test_a_signal_at_any_moment_of_a_sweep_loses_no_run(function, call, share, two_programs, tmp_path, monkeypatch):
    """Before and between programs, while files are written, and at the end, where it stops nothing any more."""
    out = tmp_path / "cut"
    happening(monkeypatch, function, call, [signal.SIGTERM])
    result = start(TWO_PROGRAMS, out)
    monkeypatch.undo()
    assert result.stopped_by == purejaxrl.load(out).stopped_by == (None if share == 1.0 else signal.SIGTERM)
    assert_resumed_from(out, share, two_programs, OF_TWO_PROGRAMS)


@pytest.mark.parametrize(
    ("function", "call", "share"),
    [
        (WRITE, 1, 0.5), (f"{EXPERIMENT}.run.compile_fitting", 2, 0.5), (f"{EXPERIMENT}.run.fit", 2, 0.5),
        (f"{EXPERIMENT}.callbacks.FileWriter.on_batch_end", 2, 0.5), (f"{EXPERIMENT}.run.summarize", 1, 0.5),
        (WRITE, 2, 1.0), (STATISTICS, 1, 1.0), (FIGURES, 1, 1.0),
    ],
)  # fmt: skip
def test_a_second_signal_loses_no_run_either(function, call, share, two_programs, tmp_path, monkeypatch):
    """It ends the training at once, but a checkpoint that is being written becomes whole."""
    out = tmp_path / "cut"
    happening(monkeypatch, function, call, [signal.SIGINT] * 2)
    with pytest.raises(KeyboardInterrupt):
        start(TWO_PROGRAMS, out)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    assert_resumed_from(out, share, two_programs, OF_TWO_PROGRAMS)


def test_two_signals_after_the_end_cost_no_figure(tmp_path, monkeypatch):
    arguments = {**VPG, "epochs": 10}
    start(arguments, tmp_path / "whole")
    happening(monkeypatch, FIGURES, 1, [signal.SIGINT] * 2)
    with pytest.raises(KeyboardInterrupt):
        start(arguments, tmp_path / "cut")
    assert not (tmp_path / "cut" / "learning_curve.png").exists()
    assert_resumed_from(tmp_path / "cut", 1.0, tmp_path / "whole", (*FILES, "learning_curve.png"))


def test_a_program_that_cannot_be_compiled_costs_nothing_of_the_one_before(two_programs, tmp_path, monkeypatch):
    """As one that does not fit in memory."""
    happening(monkeypatch, f"{EXPERIMENT}.run.compile_fitting", 2, [ResourceError("--max_memory: one run needs more")])
    with pytest.raises(ResourceError):
        start(TWO_PROGRAMS, tmp_path / "cut")
    monkeypatch.undo()
    assert_resumed_from(tmp_path / "cut", 0.5, two_programs, OF_TWO_PROGRAMS)


HALF = ["--epochs", "16", "--steps_per_epoch", "80", "--actors", "4", "--train_v_iters", "1", "--hidden_sizes", "8"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "{}"),
        (["--checkpoint_every", "0"], "{} --restart trains anew, as --checkpoint_every 0 keeps no checkpoint"),
    ],
    ids=["resumable", "no checkpoint"],
)
def test_an_interrupted_training_names_what_resumes_it(flags, said, tmp_path, monkeypatch, capsys):
    """Chunks of one epoch and of seven are half of 16; the command works as it is printed."""
    monkeypatch.chdir(tmp_path)
    happening(monkeypatch, f"{EXPERIMENT}.callbacks.FileWriter.on_chunk", 1, [signal.SIGTERM])
    assert main(["train", "vpg", *HALF, *flags, "--out", "a run"]) == 143
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "interrupted at 50%: " + said.format("purejaxrl resume 'a run'")
    result = purejaxrl.load("a run")
    assert (result.interruption, result.summary_json["fraction_done"]) == ("interrupted at 50%", 0.5)
    assert ", interrupted at 50%, in " in repr(result)
    words = shlex.split(last.partition(": ")[2].partition(" trains anew")[0])
    assert main(words[1:]) == 0
    assert "interrupted" not in capsys.readouterr().out
    result = purejaxrl.load("a run")
    assert (result.interruption, result.summary_json["fraction_done"]) == ("", 1.0)
    assert ", interrupted" not in repr(result)


def test_what_is_lost_without_checkpoints_is_said(folder, monkeypatch, capsys):
    """A training that is resumed without them goes on from the one before."""
    monkeypatch.chdir(folder.parent)
    happening(monkeypatch, f"{EXPERIMENT}.callbacks.FileWriter.on_chunk", 1, [signal.SIGTERM])
    assert main(["resume", "run", "--checkpoint_every", "0"]) == 143
    *_, last = capsys.readouterr().out.splitlines()
    way = "purejaxrl resume run goes on from an earlier checkpoint, as --checkpoint_every 0 keeps none"
    assert re.fullmatch(rf"interrupted at \d\d%: {way}", last)


@pytest.mark.parametrize("flag", ["--quiet", "--json"])
def test_an_interruption_is_said_only_where_a_summary_is(flag, tmp_path, monkeypatch, capsys):
    happening(monkeypatch, f"{EXPERIMENT}.callbacks.FileWriter.on_chunk", 1, [signal.SIGTERM])
    assert main(["train", "vpg", *HALF, flag, "--out", str(tmp_path / "run")]) == 143
    printed = capsys.readouterr()
    assert printed.err == ""
    if flag == "--quiet":
        assert printed.out == ""
    else:
        summary = json.loads(printed.out)
        assert (summary["stopped_by"], summary["fraction_done"]) == ("SIGTERM", 0.5)


@pytest.mark.slow
def test_another_number_of_devices_learns_the_same(tmp_path):
    """Within 1e-5 over the first 50 updates."""
    start(VPG, tmp_path / "whole", seeds=3)
    start(VPG, tmp_path / "cut", StopAfter(2), seeds=3)
    purejaxrl.resume(tmp_path / "cut", devices=1)
    whole, cut = (read_params(tmp_path / name, "last") for name in ("whole", "cut"))
    for name, values in whole.items():
        np.testing.assert_allclose(cut[name], values, atol=1e-5, err_msg=name)
    assert json.loads((tmp_path / "cut" / "config.json").read_text())["devices"] == 1


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A training with two checkpoints, which nobody may change."""
    out = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("purejaxrl.training.runner.next_length", lambda *_: 7)
        start(VPG, out, StopAfter(2), seeds=2, checkpoint_every=1e-6)
    assert len(disk.numbers(out / "checkpoints")) == 2
    return out


@pytest.fixture
def folder(interrupted, tmp_path):
    return shutil.copytree(interrupted, tmp_path / "run")


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    for name, value in changes.items():
        place = config["config"] if name in config["config"] else config
        place[name] = value
    (folder / "config.json").write_text(json.dumps(config))


def test_the_previous_checkpoint_is_used_with_a_warning(folder, tmp_path):
    start(VPG, tmp_path / "whole", seeds=2)
    newest = max((folder / "checkpoints").iterdir())
    arrays = bytearray((newest / "arrays.safetensors").read_bytes())
    arrays[len(arrays) // 2] ^= 1
    (newest / "arrays.safetensors").write_bytes(arrays)
    with pytest.warns(UserWarning, match=f"{newest.name} is damaged.*going on from the one before"):
        purejaxrl.resume(folder)
    assert_same_files(tmp_path / "whole", folder)


def test_where_all_are_damaged_nothing_is_changed(folder, capsys):
    for path in (folder / "checkpoints").iterdir():
        (path / "facts.json").write_text("{")
    before = contents(folder)
    assert main(["resume", str(folder), "--quiet"]) == 4
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is damaged" in error
    assert contents(folder) == before


@pytest.mark.parametrize("damage", ["shorter", "changed", "gone"])
@pytest.mark.parametrize("name", ["metrics.csv", "episodes.csv"])
def test_rows_that_are_not_those_of_before_are_refused(folder, name, damage, capsys):
    file = folder / name
    whole = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(whole[:60] if damage == "shorter" else whole.replace(b"1", b"7", 1))
    before = contents(folder)
    assert main(["resume", str(folder), "--quiet"]) == 4
    error = capsys.readouterr().err
    assert name in error
    assert error.count("\n") == 1
    assert contents(folder) == before


def test_a_changed_config_is_refused_field_by_field(folder, capsys):
    edit(folder, gamma=0.5, seed=3)
    before = contents(folder)
    assert main(["resume", str(folder), "--quiet"]) == 4
    error = capsys.readouterr().err
    assert "config/gamma 0.99 -> 0.5" in error
    assert "seed 0 -> 3" in error
    assert error.count("\n") == 1
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"log_every": 160}, 0), ({"max_memory": 2.0}, 0), ({"checkpoint_every": 1.5}, 0), ({"devices": 1}, 0),
        ({"epochs": 50}, 0), ({"epochs": 30}, 4), ({"hidden_sizes": [4]}, 4), ({"env": "CartPole-v1"}, 4),
        ({"eval_every": 100}, 4), ({"seeds": 3}, 4), ({"gamma": 2}, 2), ({"epochs": None}, 2), ({"algorithm": "os"}, 2),
        ({"env": "../x"}, 2), ({"seeds": 0}, 2), ({"observation_type": 3}, 2), ({"unknown": 1}, 2),
        ({"config": {}}, 2), ({"log_every": -1}, 2), ({"preset": None}, 2),
    ],
)  # fmt: skip
def test_only_budget_logging_and_devices_may_change(folder, changes, code, capsys):
    edit(folder, **changes)
    before = contents(folder)
    assert main(["resume", str(folder), "--dry_run"]) == code
    assert contents(folder) == before
    printed = capsys.readouterr()
    assert printed.err.count("\n") == (code != 0)
    assert (code == 0) == printed.out.startswith("{")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"algorithm": "vpg"}', "\0", "[" * 10_000])
def test_a_damaged_config_is_one_line(folder, text, capsys):
    (folder / "config.json").write_text(text)
    before = contents(folder)
    assert main(["resume", str(folder), "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert contents(folder) == before


def test_no_run_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for name in ("nothing", "file", "."):
        assert main(["resume", str(tmp_path / name)]) == 2
        assert "is not a run folder" in capsys.readouterr().err
    for words in ([str(tmp_path), "b"], ["--nonsense", "a"], ["a", "--extend", "x"], ["--quiet"]):
        assert main(["resume", *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert main(["resume", "--help"]) == 0


def test_other_versions_give_a_warning(folder, monkeypatch, tmp_path):
    monkeypatch.setattr("purejaxrl.experiment.run.versions", lambda: {"jax": "0.0.1", "python": "4"})
    with pytest.warns(UserWarning, match=r"versions differ.*jax .* -> 0\.0\.1, python .* -> 4"):
        purejaxrl.resume(folder)


def test_two_processes_cannot_have_one_folder(folder, capsys):
    before = contents(folder)
    with RunFolder(folder):
        assert main(["resume", str(folder), "--quiet"]) == 3
        assert "is in use by another process" in capsys.readouterr().err
        assert main(["train", "vpg", "--out", str(folder), "--overwrite", "--quiet"]) == 3
        assert main(["train", "vpg", "--out", str(folder), "--quiet"]) == 3
        with pytest.raises(InUseError):
            purejaxrl.export(folder)
    assert contents(folder) == before


def test_the_lock_of_a_dead_process_is_none(folder):
    code = f"from purejaxrl.storage.run_folder import RunFolder; RunFolder(__import__('pathlib').Path({str(folder)!r}))"
    hold = subprocess.Popen([sys.executable, "-c", code + "; print('held', flush=True); input()"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert hold.stdout.readline() == "held\n"
    with pytest.raises(InUseError):
        RunFolder(folder)
    hold.kill()
    hold.communicate()
    RunFolder(folder).close()


def test_custom_objects_must_be_passed(tmp_path):
    agent = vpg.agent._replace(name="mine")
    arguments = {**VPG, "algorithm": agent}
    start(arguments, tmp_path / "whole")
    start(arguments, tmp_path / "cut", StopAfter(2))
    with pytest.raises(InputError, match=r"algorithm 'mine' is an agent of your own; give it as agent="):
        purejaxrl.resume(tmp_path / "cut")
    with pytest.raises(InputError, match=r"'vpg' was given, and config\.json names 'mine'"):
        purejaxrl.resume(tmp_path / "cut", agent=vpg.agent)
    purejaxrl.resume(tmp_path / "cut", agent=agent)
    assert_same_files(tmp_path / "whole", tmp_path / "cut")


def test_a_custom_environment_must_be_passed(tmp_path):
    import gymnax

    env, params = gymnax.make("CartPole-v1")
    arguments = {**VPG, "env": env, "env_params": params}
    start(arguments, tmp_path / "whole")
    start(arguments, tmp_path / "cut", StopAfter(2))
    with pytest.raises(InputError, match=r"is an object of your own; give env="):
        purejaxrl.resume(tmp_path / "cut")
    purejaxrl.resume(tmp_path / "cut", env=env, env_params=params)
    assert_same_files(tmp_path / "whole", tmp_path / "cut")
    with pytest.raises(InputError, match="which needs none"):
        purejaxrl.resume(tmp_path / "cut", env=env, agent=vpg.agent)


def test_metadata_that_describes_nothing_is_refused(folder, monkeypatch):
    found, _ = disk.newest(folder / "checkpoints")
    for name, value in (("position", {"group": -1}), ("position", None), ("ledger", {}), ("files", 3), ("tails", [])):
        metadata = {**found.metadata, name: value}
        monkeypatch.setattr(disk, "newest", lambda _, metadata=metadata: (found._replace(metadata=metadata), []))
        before = contents(folder)
        with pytest.raises(CheckpointError, match="does not describe this training"):
            purejaxrl.resume(folder)
        assert contents(folder) == before


def test_a_checkpoint_that_does_not_say_of_what_is_refused(folder, monkeypatch):
    found, _ = disk.newest(folder / "checkpoints")
    for config in (None, {}, {"versions": []}):
        metadata = {**found.metadata, "config": config}
        monkeypatch.setattr(disk, "newest", lambda _, metadata=metadata: (found._replace(metadata=metadata), []))
        with pytest.raises(CheckpointError, match="does not say what it is a checkpoint of"):
            purejaxrl.resume(folder)


def run_and_kill(words, out, seed):
    """Start or resume a training, and kill it some time after its next checkpoint. Whether it was still running."""
    known = max(disk.numbers(out / "checkpoints"), default=0)
    process = subprocess.Popen([sys.executable, "-m", "purejaxrl", *words, "--quiet", "--checkpoint_every", "0.0005"])
    deadline = time.monotonic() + 120
    while process.poll() is None and max(disk.numbers(out / "checkpoints"), default=0) <= known:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, 1))
    is_running = process.poll() is None
    process.kill()
    process.wait()
    return is_running


def check_killed(tmp_path, kills):
    """kill -9 at random moments, saving included: resuming ends as if nothing had happened."""
    out = tmp_path / "cut"
    words = ["dqn", "--observation_type", "default", "--env_steps", str(max(5_000 * kills, 60_000)), "--seeds", "2"]
    words += ["--batch_size", "16", "--memory_size", "500", "--hidden_sizes", "8"]
    killed = run_and_kill(["train", *words, "--out", str(out)], out, 0)
    for seed in range(1, kills):
        killed += run_and_kill(["resume", str(out)], out, seed)
    assert killed > 0
    assert subprocess.run([sys.executable, "-m", "purejaxrl", "resume", str(out), "--quiet"]).returncode == 0
    assert not list(out.rglob("*.partial"))
    assert main(["train", *words, "--quiet", "--out", str(tmp_path / "whole")]) == 0
    assert_same_files(tmp_path / "whole", out)


@pytest.mark.slow
def test_killed_twice_and_still_the_same(tmp_path):
    check_killed(tmp_path, 2)


@pytest.mark.slow
def test_killed_fifty_times_and_still_the_same(tmp_path):
    check_killed(tmp_path, 50)


@pytest.mark.parametrize("limit_kib", [pytest.param(1, marks=SLOW), 16])
def test_a_full_disk_ends_with_code_6_and_what_was_saved_loads(folder, limit_kib, tmp_path):
    """RLIMIT_FSIZE stands in for the disk: metrics.csv or a checkpoint grows over it."""
    words = [sys.executable, "-m", "purejaxrl", "resume", str(folder), "--extend", "100000", "--no_cache",
             "--checkpoint_every", "0.001", "--log_every", "80"]  # fmt: skip
    largest = max(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // 1024
    script = f'ulimit -f {largest + limit_kib}; exec "$@"'
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 6, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("purejaxrl: cannot write ")
    assert str(folder) in last
    found, wrong = disk.newest(folder / "checkpoints")
    assert found is not None
    assert wrong == []
    assert main(["resume", str(folder), "--dry_run"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "pauses"), [(signal.SIGINT, (3.0,)), (signal.SIGTERM, (0.3, 2.5, 4.0))], ids=str)
def test_a_signal_at_any_time_leaves_what_resume_needs(number, pauses, tmp_path):
    """At the start, while compiling, and while training: the exit code is the signal's, and resuming ends the same."""
    start(VPG, tmp_path / "whole", seeds=2)
    words = ["vpg", "--epochs", "40", "--steps_per_epoch", "80", "--actors", "4", "--train_v_iters", "1"]
    command, out = (
        ["train", *words, "--hidden_sizes", "8", "--seeds", "2", "--no_cache", "--out", "cut"],
        tmp_path / "cut",
    )
    for pause in pauses:
        process = subprocess.Popen(
            [sys.executable, "-m", "purejaxrl", *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        time.sleep(pause)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        # Before the package has been imported, Python's own way of ending stands.
        assert process.returncode in (0, 128 + number, -number), errors
        if (out / "config.json").exists():
            command = ["resume", "cut", "--no_cache"]
    assert subprocess.run([sys.executable, "-m", "purejaxrl", *command, "--quiet"], cwd=tmp_path).returncode == 0
    assert_same_files(tmp_path / "whole", out)


def diverging(config, env, learner, batch, progress, key):
    """VPG whose second setting diverges."""
    import jax
    import jax.numpy as jnp

    learner, metrics = vpg.update(config, env, learner, batch, progress, key)
    is_bad = (config.pi_lr > 0.05) & (progress.iteration >= 10)
    return jax.tree.map(lambda x: jnp.where(is_bad, jnp.nan, x) if x.dtype == jnp.float32 else x, learner), metrics


@pytest.mark.slow
def test_a_diverged_run_leaves_the_others_alone(tmp_path):
    agent = vpg.agent._replace(name="diverging", update=diverging)
    arguments = {**VPG, "algorithm": agent, "epochs": 20, "seeds": 2}
    start(arguments, tmp_path / "healthy", pi_lr=[1e-3, 1e-2])
    result = start(arguments, tmp_path / "ill", pi_lr=[1e-3, 1e-1])
    assert result.summary_json["failed_runs"] == [2, 3]
    healthy, ill = (read_params(tmp_path / name, "last") for name in ("healthy", "ill"))
    for name, values in healthy.items():
        assert values[:2].tobytes() == ill[name][:2].tobytes(), name
    rows = [pd.read_csv(tmp_path / name / "metrics.csv").query("run < 2") for name in ("healthy", "ill")]
    pd.testing.assert_frame_equal(*(row.drop(columns="swept_pi_lr", errors="ignore") for row in rows))


def test_divergence_can_stop_the_training(tmp_path):
    agent = vpg.agent._replace(name="diverging", update=diverging)
    arguments = {**VPG, "algorithm": agent, "epochs": 1000, "seeds": 2, "fail_on_nan": True}
    with pytest.raises(purejaxrl.errors.DivergedError, match=r"runs diverged: 2, 3"):
        start(arguments, tmp_path / "run", pi_lr=[1e-3, 1e-1])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["failed_runs"] == [2, 3]
    assert 0 < summary["env_steps"] < 4 * 1000 * 80
    assert purejaxrl.errors.DivergedError.exit_code == 5


def test_debug_mode_names_the_operation(tmp_path):
    agent = vpg.agent._replace(name="dividing", update=dividing)
    arguments = {**VPG, "algorithm": agent, "epochs": 2}
    with pytest.raises(
        purejaxrl.errors.DivergedError, match=r"debug: .*(nan|zero).* at .*test_resume\.py:\d+, in dividing"
    ):
        start(arguments, tmp_path / "run", debug=True)


def dividing(config, env, learner, batch, progress, key):
    learner, metrics = vpg.update(config, env, learner, batch, progress, key)
    return learner, {**metrics, "ratio": metrics["pi_loss"] / (progress.iteration * 0.0)}


@pytest.mark.parametrize(
    "arguments",
    [
        {**VECTORS, "env_steps": 60},
        pytest.param(VPG, marks=pytest.mark.slow),
        A3C,
    ],
    ids=["dqn", "vpg", "a3c"],
)
def test_debug_mode_finds_nothing_in_sound_agents(arguments, tmp_path):
    arguments = {**arguments, "epochs": 2} if "epochs" in arguments else arguments
    checked, plain = start(arguments, tmp_path / "checked", debug=True), start(arguments, tmp_path / "plain")
    assert checked.summary_json["env_steps"] == plain.summary_json["env_steps"]
    pd.testing.assert_frame_equal(checked.episodes(), plain.episodes())


def test_no_leftover_outlives_the_next_start(folder):
    (folder / "summary.json.partial").write_text("half")
    (folder / "checkpoints" / "000009.partial").mkdir()
    (folder / "params" / "last.safetensors.partial").write_text("half")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        purejaxrl.resume(folder)
    assert not list(Path(folder).rglob("*.partial"))
    assert os.listdir(folder / "params") == ["last.safetensors"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"processes": 2}, "was trained by 2 processes, which keep no checkpoints"),
        ({"settings": []}, "config, settings and swept do not belong together"),
        ({"swept": ["lr"]}, "config, settings and swept do not belong together"),
    ],
    ids=str,
)
def test_a_config_that_cannot_be_resumed_is_refused(folder, changes, said, capsys):
    edit(folder, **changes)
    before = contents(folder)
    assert main(["resume", str(folder), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert contents(folder) == before


def test_an_environment_is_not_taken_where_one_is_named(folder):
    with pytest.raises(InputError, match=r"env: config.json names 'CartPole-v0', which needs none"):
        purejaxrl.resume(folder, env=purejaxrl.envs.make("CartPole-v0"))


def test_a_checkpoint_of_a_group_that_is_none_is_refused(folder):
    plan = purejaxrl.load(folder).plan
    with pytest.raises(CheckpointError, match=r"its group 1 is not one of 1"):
        checkpointing.batch_shapes(plan, BatchPosition(group=1))


def test_flags_of_resume_are_numbers():
    path, flags = parse_resumption(resume_parser(), ["run", "--checkpoint_every", "0.5", "--max_memory", "2"])
    assert path.name == "run"
    assert {name: flags[name] for name in ("checkpoint_every", "max_memory")} == {
        "checkpoint_every": 0.5,
        "max_memory": 2.0,
    }


@pytest.mark.parametrize("flag", ["max_memory", "devices"])
def test_what_was_set_cannot_be_unset_by_resume(flag):
    with pytest.raises(InputError, match=f"{flag}: 'none' is not allowed"):
        parse_resumption(resume_parser(), ["run", f"--{flag}", "none"])
