"""Loggers receive the rows of metrics.csv between chunks, and none of them can harm a training."""

import json
import shutil
import signal
import struct

import numpy as np
import pandas as pd
import pytest
from helpers import files_up_to

import purejaxrl
from purejaxrl.cli import main
from purejaxrl.errors import InputError
from purejaxrl.experiment.loggers import Listeners, TensorBoard, Wandb, check_loggers, kept_steps
from purejaxrl.experiment.progress import Silent

TINY = {"epochs": 3, "steps_per_epoch": 40, "actors": 4, "hidden_sizes": (4,), "max_ep_len": 10}


class Notes:
    """Keeps what it receives."""

    def __init__(self):
        self.told, self.rows = [], []

    def start(self, config, folder):
        self.told.append(("start", config, folder))

    def log(self, rows):
        self.told.append(("log", len(rows)))
        self.rows += rows

    def finish(self, summary):
        self.told.append(("finish", summary))


class Failing(Notes):
    """Fails the first time that it receives rows."""

    def log(self, rows):
        super().log(rows)
        raise OSError("no space\nleft")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """One sweep of two settings x two seeds, with two loggers."""
    notes, failing = Notes(), Failing()
    out = tmp_path_factory.mktemp("logged") / "run"
    with pytest.warns(
        UserWarning, match=r"Failing.log failed, and training goes on without it: OSError: no space left"
    ):
        result = purejaxrl.sweep("vpg", seeds=2, pi_lr=[1e-3, 1e-2], out=out, loggers=[failing, notes], **TINY)
    return result, notes, failing


def test_a_logger_receives_every_row_of_metrics_csv(swept):
    result, notes, _ = swept
    kinds = [entry[0] for entry in notes.told]
    assert kinds == ["start", *["log"] * (len(kinds) - 2), "finish"]
    frame = result.frame()
    told = pd.DataFrame(notes.rows)
    assert list(told) == list(frame)
    assert (
        list(told["pi_lr"])
        == ["0.001"] * 2 + ["0.01"] * 2 + ["0.001"] * 2 + ["0.01"] * 2 + ["0.001"] * 2 + ["0.01"] * 2
    )
    numbers = [name for name in frame if name != "pi_lr"]
    np.testing.assert_allclose(told[numbers].to_numpy(float), frame[numbers].to_numpy(float), rtol=1e-6)
    assert all(type(row["run"]) is int and type(row["return_mean"]) is float for row in notes.rows)


def test_a_logger_receives_config_and_summary(swept):
    result, notes, _ = swept
    _, config, folder = notes.told[0]
    assert config == json.loads((result.path / "config.json").read_text())
    assert folder == result.path
    assert notes.told[-1][1] == json.loads((result.path / "summary.json").read_text())


def test_a_logger_that_fails_is_not_called_again(swept):
    assert [entry[0] for entry in swept[2].told] == ["start", "log"]
    assert swept[0].summary_json["runs_ok"] == 4


def test_an_error_ends_the_loggers_too(monkeypatch):
    def fail(*_):
        raise RuntimeError("the machine is ill")

    monkeypatch.setattr("purejaxrl.experiment.run.train_groups", fail)
    notes = Notes()
    with pytest.raises(RuntimeError, match="ill"):
        purejaxrl.train("vpg", epochs=1, loggers=(notes,))
    assert [entry[0] for entry in notes.told] == ["start", "finish"]
    assert notes.told[-1] == ("finish", None)


def test_loggers_finish_when_everything_else_is_on_the_disk(tmp_path):
    """They may take long, and a checkpoint must not wait for them."""
    found = []

    class Looking(Notes):
        def finish(self, summary):
            found.append([(tmp_path / "run" / name).exists() for name in ("checkpoints/000001", "learning_curve.png")])

    settings = {"epochs": 1, "steps_per_epoch": 40, "actors": 2, "train_v_iters": 1, "hidden_sizes": (4,)}
    purejaxrl.train("vpg", out=tmp_path / "run", loggers=[Looking()], **settings)
    assert found == [[True, True]]


def test_resuming_tells_what_follows(swept, tmp_path):
    result, before, _ = swept
    folder = shutil.copytree(result.path, tmp_path / "run")
    notes = Notes()
    purejaxrl.resume(folder, extend=5, loggers=(notes,))
    assert {row["iteration"] for row in before.rows} == {1, 2, 3}
    # The last row is told once more: with a larger budget it may have no evaluation.
    assert [(row["iteration"], row["run"]) for row in notes.rows] == [(i, run) for i in (3, 4, 5) for run in range(4)]


@pytest.mark.parametrize("wrong", [[Notes], [3], "tensorboard", Notes()])
def test_what_is_no_logger_is_refused(wrong):
    with pytest.raises(InputError, match="loggers: "):
        check_loggers(wrong)


def records_of(path):
    """The records of an event file: length, its checksum, bytes, their checksum."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + length]
        data = data[16 + length :]


def scalars_of(folder):
    """(step, name) -> value, of all event files of a folder."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in folder.glob("events*"):
        for record in records_of(path):
            event = Event.FromString(record)
            found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
    return found


def test_tensorboard(tmp_path, capsys):
    """From the command line, too: a folder per run within the run folder, which can still be replaced."""
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    words = ["sweep", "vpg", "--epochs", "3", "--steps_per_epoch", "40", "--actors", "4", "--hidden_sizes", "4"]
    words += ["--max_ep_len", "10", "--pi_lr", "1e-3,1e-2", "--out", str(tmp_path / "run"), "--quiet"]
    assert main([*words, "--log_to", "tensorboard"]) == 0
    folders = sorted(path.name for path in (tmp_path / "run" / "tensorboard").iterdir())
    assert folders == ["run_0,pi_lr=0.001", "run_1,pi_lr=0.01"]
    frame = pd.read_csv(tmp_path / "run" / "metrics.csv").query("run == 1")
    found = scalars_of(tmp_path / "run" / "tensorboard" / folders[1])
    for name in ("return_mean", "pi_loss", "v_loss", "episodes"):
        assert [found[step, name] for step in (40, 80, 120)] == pytest.approx(list(frame[name]), rel=1e-5)
    assert not {name for _, name in found} & {"run", "seed", "env_steps", "pi_lr", "eval_return"}
    assert main([*words, "--log_to", "tensorboard", "--overwrite"]) == 0
    assert len(list((tmp_path / "run" / "tensorboard").rglob("events*"))) == 2
    assert main([*words, "--log_to", "paper"]) == 2
    assert "--log_to: 'paper' is not allowed; use one of tensorboard, wandb" in capsys.readouterr().err


def shown_by_tensorboard(folder):
    """(tag, step) -> the values that TensorBoard shows: a session that starts at a step drops those from it on."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    shown = {}
    for path in sorted(folder.glob("events*")):
        for record in records_of(path):
            event = Event.FromString(record)
            if event.session_log.status == SessionLog.START:
                shown = {place: values for place, values in shown.items() if place[1] < event.step}
            for value in event.summary.value:
                shown.setdefault((value.tag, event.step), []).append(value.simple_value)
    return shown


class StopAfter(Silent):
    """Sends the process a signal after so many chunks; the start of a training that is resumed counts as one."""

    def __init__(self, chunks):
        self.left = chunks

    def advance(self, stats, seconds):
        self.left -= 1
        if not self.left:
            signal.raise_signal(signal.SIGTERM)


class KilledAfter(Silent):
    """Ends a training after so many chunks as kill -9 would: nothing more is written."""

    def __init__(self, chunks):
        self.left = chunks

    def advance(self, stats, seconds):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    "log_every", [pytest.param(80, marks=pytest.mark.slow), 1000], ids=["some rows stay", "no row stays"]
)
def test_tensorboard_holds_no_step_twice(log_every, tmp_path, monkeypatch):
    """The first checkpoint is that of the second chunk, and two more chunks are logged; the second run ends early."""
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    monkeypatch.setattr("purejaxrl.training.runner.next_length", lambda *_: 7)
    arguments = {**TINY, "epochs": 40, "pi_lr": [1e-3, 1e-2], "log_every": log_every, "checkpoint_every": 0}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    purejaxrl.sweep("vpg", **arguments, out=whole)
    with pytest.raises(KeyboardInterrupt):
        purejaxrl.sweep("vpg", **(arguments | {"checkpoint_every": 1e-9}), out=cut, loggers=[TensorBoard()],
                        progress=KilledAfter(5))  # fmt: skip
    # As if the newest had not been written before the kill.
    newest = sorted((cut / "checkpoints").iterdir())[-1]
    shutil.rmtree(newest)
    result = purejaxrl.resume(cut, loggers=[TensorBoard()], progress=lambda _: StopAfter(2))
    assert result.stopped_by == signal.SIGTERM
    purejaxrl.resume(cut, loggers=[TensorBoard()])
    frame = pd.read_csv(whole / "metrics.csv")
    assert (cut / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()
    for run, rows in frame.groupby("run"):
        (folder,) = (cut / "tensorboard").glob(f"run_{run},*")
        assert len(list(folder.glob("events*"))) == 3
        shown = shown_by_tensorboard(folder)
        assert {len(values) for values in shown.values()} == {1}
        assert sorted(step for tag, step in shown if tag == "pi_loss") == list(rows["env_steps"])
        for name in ("pi_loss", "v_loss"):
            found = [shown[name, step][0] for step in rows["env_steps"]]
            np.testing.assert_allclose(found, rows[name], rtol=1e-5)


def test_tensorboard_of_a_full_disk_is_a_warning(tmp_path):
    """No row waits for a thread that has died, and nothing is said when the program ends."""
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    board = TensorBoard()
    said = "TensorBoard.log failed, and training goes on without it: ResourceError: cannot write "
    listeners = Listeners([board])
    listeners.start({"seeds": 1}, tmp_path)
    with (
        files_up_to(10_000),
        pytest.warns(UserWarning, match=f"{said}{tmp_path / 'tensorboard'}: File too large") as warned,
    ):
        tell_much(listeners)
    assert len(warned) == 1
    listeners.finish(None)


def tell_much(listeners):
    for step in range(1, 40):
        steps = 100 * step + np.arange(100)
        listeners.log({"run": np.zeros(100, int), "env_steps": steps, "loss": np.ones(100)})


def test_tensorboard_loses_no_rows(tmp_path):
    """Where the process is killed, too: rows are in the file once `log` has returned."""
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    board = TensorBoard(tmp_path)
    board.start({"seeds": 1}, tmp_path)
    for step in range(1, 30):
        board.log([{"run": 0, "seed": 0, "env_steps": step, "loss": 0.5}])
        assert list(shown_by_tensorboard(tmp_path / "run_0")) == [("loss", at) for at in range(1, step + 1)]
    board.finish(None)


def test_a_logger_of_three_methods_can_know_what_stays(swept, tmp_path):
    result, _, _ = swept
    folder = shutil.copytree(result.path, tmp_path / "run")
    assert kept_steps(tmp_path) == {}
    kept = []

    class Keeping(Notes):
        def start(self, config, folder):
            kept.append(kept_steps(folder))

    notes = Keeping()
    purejaxrl.resume(folder, extend=4, loggers=[notes])
    assert kept == [dict.fromkeys(range(4), 80)]
    assert {row["env_steps"] for row in notes.rows} == {120, 160}


def test_tensorboard_takes_so_many_runs(swept, tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    board, notes = TensorBoard(tmp_path / "here", max_runs=1), swept[1]
    with pytest.warns(UserWarning, match="TensorBoard takes the first 1 of 4 runs"):
        board.start(notes.told[0][1], tmp_path)
    board.log(notes.rows)
    board.finish(None)
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["run_0,pi_lr=0.001"]


def wandb_records(path):
    """What an offline run holds: after 7 bytes LevelDB's log format, pieces with checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, pieces = path.read_bytes(), 7, b""
    while place < len(data):
        left = 32768 - place % 32768
        _, length, kind = struct.unpack("<IHB", data[place : place + 7]) if left >= 7 else (0, left - 7, 0)
        pieces += data[place + 7 : place + 7 + length] if kind else b""
        place += 7 + length
        # 1: a whole record, 2 to 4: its first, middle and last piece.
        if kind in (1, 4):
            yield Record.FromString(pieces)
            pieces = b""


def items_of(entries):
    return {entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries}


@pytest.mark.filterwarnings("default")
def test_wandb_offline(swept, tmp_path, monkeypatch):
    """A W&B run for each run, grouped, with its seed and settings, metrics by env steps, and what it came to."""
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    result, notes, _ = swept
    logger = Wandb("trial", mode="offline", dir=tmp_path)
    logger.start(*notes.told[0][1:])
    logger.log(notes.rows)
    logger.finish(result.summary_json)
    # Its own process has written everything once it has ended.
    wandb.teardown()
    files = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 4
    runs = {}
    for path in files:
        records = list(wandb_records(path))
        (begun,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
        history = [items_of(record.history.item) for record in records if record.WhichOneof("record_type") == "history"]
        runs[begun.display_name] = begun, history
    assert sorted(runs) == ["vpg-0", "vpg-1", "vpg-2", "vpg-3"]
    begun, history = runs["vpg-3"]
    assert (begun.project, begun.run_group) == ("trial", "run")
    config = {entry.key: json.loads(entry.value_json) for entry in begun.config.update}
    assert (config["pi_lr"], config["seed"], config["run"], config["algorithm"]) == (0.01, 1, 3, "vpg")
    frame = result.frame().query("run == 3")
    assert [row["env_steps"] for row in history] == [40, 80, 120]
    assert [row["return_mean"] for row in history] == pytest.approx(list(frame["return_mean"]), rel=1e-6)
    assert "eval_return" not in history[0]
    # The folder's metrics.csv says that a training goes on from here.
    assert config["goes_on_after"] == 120
