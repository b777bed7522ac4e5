"""What becomes of a training and of its exit code where nobody reads what it says, or where that cannot be written."""

import fcntl
import io
import json
import logging
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import warnings

import pytest
from helpers import terminal

import purejaxrl
from purejaxrl.cli import main
from purejaxrl.experiment import checkpointing
from purejaxrl.experiment.progress import Silent
from purejaxrl.training.compilation import StopRequestedError

TINY_VPG = ["train", "vpg", "--epochs", "2", "--steps_per_epoch", "40", "--actors", "2", "--train_v_iters", "1"]
IN_PYTHON = {"epochs": 2, "steps_per_epoch": 40, "actors": 2, "train_v_iters": 1}


KINDS = ("full", "unread", "closed", "none")
SAID = {"full": "No space left on device", "closed": "I/O operation on closed file."}


@pytest.fixture
def broken():
    """A function that makes a stream of a kind: one that cannot be written to, or None."""
    made = []

    def make(kind):
        if kind == "none":
            return None
        number = os.open("/dev/full", os.O_WRONLY)
        if kind == "unread":
            reading, writing = os.pipe()
            os.dup2(writing, number)
            os.close(reading)
            os.close(writing)
        stream = os.fdopen(number, "w", buffering=1)
        if kind == "closed":
            stream.close()
        else:
            made.append(stream)
        return stream

    yield make
    for stream in made:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        stream.close()


@pytest.fixture(params=KINDS)
def stream(request, broken):
    return broken(request.param)


@pytest.fixture
def said(request):
    """What is said of standard output of the kind at hand."""
    reason = SAID.get(request.node.callspec.params["stream"])
    return f"purejaxrl: cannot write to standard output: {reason}\n" if reason else ""


def assert_complete(folder):
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["stopped_by"], summary["env_steps"]) == (None, 80)
    for name in ("params/last.safetensors", "checkpoints/000001/SHA256SUMS", "learning_curve.png"):
        assert (folder / name).exists(), name


@pytest.mark.parametrize("flag", [[], ["--verbose"]], ids=["plain", "verbose"])
def test_a_training_needs_no_standard_error(stream, flag, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", stream)
    assert main([*TINY_VPG, *flag, "--out", str(tmp_path / "run")]) == 0
    assert_complete(tmp_path / "run")
    assert "1 of 1 runs ok" in capsys.readouterr().out


def test_a_training_needs_no_standard_output(stream, said, tmp_path, monkeypatch, capsys):
    """Failed writes are reported, unless the reader closed the pipe."""
    monkeypatch.setattr(sys, "stdout", stream)
    assert main([*TINY_VPG, "--out", str(tmp_path / "run")]) == 0
    assert_complete(tmp_path / "run")
    lines = capsys.readouterr().err.splitlines(keepends=True)
    assert "".join(line for line in lines if line.startswith("purejaxrl: ")) == said


@pytest.mark.parametrize(
    "words", [["list"], [], ["train", "vpg", "--help"], [*TINY_VPG, "--dry_run"], ["completion", "zsh"]], ids=" ".join
)
def test_output_that_was_asked_for_and_cannot_be_written_is_an_error(words, stream, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(words) == (6 if said else 0)
    assert capsys.readouterr().err == said


def test_a_summary_that_was_asked_for_is_such_output(broken, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", broken("full"))
    assert main([*TINY_VPG, "--json", "--out", str(tmp_path / "run")]) == 6
    assert_complete(tmp_path / "run")
    assert capsys.readouterr().err == "purejaxrl: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("flag", [[], ["--json"]], ids=["plain", "json"])
def test_an_interrupted_training_says_so_even_if_nobody_reads(flag, broken, tmp_path, monkeypatch):
    keep = checkpointing.Checkpointer.on_chunk
    kept = []

    def interrupted(*arguments):
        keep(*arguments)
        kept.append(None)
        if len(kept) == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(checkpointing.Checkpointer, "on_chunk", interrupted)
    monkeypatch.setattr(sys, "stdout", broken("unread"))
    assert main([*TINY_VPG, "--epochs", "100000", *flag, "--out", str(tmp_path / "run")]) == 143
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["stopped_by"] == "SIGTERM"


@pytest.mark.parametrize("shown", ["both", "errors", "output"])
def test_a_summary_stands_on_a_line_of_its_own(shown, tmp_path, monkeypatch):
    """Whatever of standard output and error is the terminal."""
    with terminal(80) as (stream, lines):
        monkeypatch.setattr(sys, "stdout", io.StringIO() if shown == "errors" else stream)
        monkeypatch.setattr(sys, "stderr", io.StringIO() if shown == "output" else stream)
        assert main([*TINY_VPG, "--out", str(tmp_path / "run")]) == 0
        print("$", file=stream)
    expected = ["vpg on CartPole-v0", "vpg: 100%|"] * (shown != "output")
    expected += ["1 of 1 runs ok, 80 env steps", "mean return of the last episodes: ", "reached a 100", "curve: "] * (
        shown != "errors"
    )
    # A long path goes on in the next line.
    found = [line for line in lines if line.startswith(tuple(expected))]
    assert len(found) == len(expected)
    assert all(line.startswith(start) for line, start in zip(found, expected, strict=True))
    assert lines[-1] == "$"


def test_a_training_stopped_before_its_first_interval_has_a_summary_too(tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        signal.raise_signal(signal.SIGTERM)
        raise StopRequestedError

    monkeypatch.setattr("purejaxrl.experiment.run.compile_fitting", stopped)
    assert main([*TINY_VPG, "--out", str(tmp_path / "run")]) == 143
    assert not (tmp_path / "run" / "metrics.csv").exists()
    first, second, last = capsys.readouterr().out.splitlines()
    assert last.startswith("interrupted at 0%: ")
    assert first.startswith("0 of 1 runs ok, 0 env steps in ")
    assert second == "reached a 100-episode mean of 195: 0 of 1 runs"


@pytest.mark.slow
def test_a_training_without_an_ended_episode_has_no_return(tmp_path, capsys):
    """An episode of Pendulum lasts 200 steps."""
    assert main([*TINY_VPG, "--env", "Pendulum-v1", "--out", str(tmp_path / "run")]) == 0
    assert "mean return of the last episodes: -\n" in capsys.readouterr().out


def test_errors_keep_their_exit_codes_if_they_cannot_be_printed(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    assert main(["fly"]) == 2
    assert main(["list", "--debug", "vpg"]) == 2


def test_letters_that_an_encoding_lacks_are_escaped(tmp_path, monkeypatch):
    written = io.BytesIO()
    output = io.TextIOWrapper(written, "ascii")
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.chdir(tmp_path)
    assert main([*TINY_VPG, "--out", "ü"]) == 0
    assert_complete(tmp_path / "ü")
    assert b"\ncurve: \\xfc/learning_curve.png\n" in written.getvalue()


class Failing(Silent):
    """Fails at one call, and keeps what it receives."""

    def __init__(self, at):
        self.at, self.told = at, []

    def __getattribute__(self, name):
        if name not in ("start", "advance", "close"):
            return super().__getattribute__(name)
        self.told.append(name)
        if name == self.at:
            raise RuntimeError("no paper")
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    ("at", "told"),
    [
        ("start", ["start", "close"]),
        ("advance", ["start", "advance", "close"]),
        ("close", ["start", "advance", "close"]),
    ],
)
def test_a_reporter_that_fails_is_not_called_again(at, told, tmp_path):
    reporter = Failing(at)
    with pytest.warns(
        UserWarning, match=rf"^Failing\.{at} failed, and training goes on without it: RuntimeError: no paper"
    ):
        purejaxrl.train("vpg", **IN_PYTHON, progress=reporter, out=tmp_path / "run")
    assert list(dict.fromkeys(reporter.told)) == told
    assert reporter.told.count(at) == 1
    assert_complete(tmp_path / "run")


def test_a_training_in_python_needs_no_standard_error(stream, tmp_path, monkeypatch):
    """Its bar fails there, and so do the warning about that and the lines of the log."""
    monkeypatch.setattr(sys, "stderr", stream)
    log = logging.getLogger("purejaxrl")
    monkeypatch.setattr(log, "handlers", [logging.StreamHandler(stream)])
    monkeypatch.setattr(log, "level", logging.INFO)
    monkeypatch.setattr(log, "propagate", False)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: print(message, file=stream)
        purejaxrl.train("vpg", **IN_PYTHON, progress=True, out=tmp_path / "run")
    assert_complete(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.usefixtures("covered_processes")
@pytest.mark.parametrize("redirected", ["2>&1 | head -1", ">&- 2>&- <&-"])
def test_a_training_is_as_good_as_its_reader_is_bad(redirected, tmp_path):
    command = " ".join([sys.executable, "-m", "purejaxrl", *TINY_VPG, "--out", "run", redirected])
    done = subprocess.run(
        ["bash", "-c", f"{command}; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout in ("", "vpg on CartPole-v0, preset original, 1 seed\n")
    assert_complete(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.usefixtures("covered_processes")
def test_a_terminal_that_goes_without_a_signal_takes_no_training_with_it(tmp_path):
    """As of a process that has been disowned: whatever it says is an error from then on."""
    here, there = pty.openpty()
    words = [sys.executable, "-m", "purejaxrl", *TINY_VPG, "--out", "run"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=there, stderr=there, start_new_session=True)
    os.close(there)
    assert b"1 seed" in os.read(here, 1000)
    os.close(here)
    assert process.wait(timeout=300) == 0
    assert_complete(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.usefixtures("covered_processes")
def test_a_terminal_that_is_closed_ends_a_training_with_a_checkpoint(tmp_path):
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    code = (
        "import fcntl, os, signal, sys, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
        # The suite itself may run under nohup.
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'purejaxrl', *sys.argv[1:]])"
    )
    words = [sys.executable, "-c", code, *TINY_VPG, "--epochs", "10000000", "--out", "run"]
    process = subprocess.Popen(words, cwd=tmp_path, stdin=there, stdout=there, stderr=there, start_new_session=True)
    os.close(there)
    shown = b""
    while b"return" not in shown:
        shown += os.read(here, 1000)
    os.close(here)
    assert process.wait(timeout=300) == 128 + signal.SIGHUP
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["stopped_by"] == "SIGHUP"
    assert 0 < summary["env_steps"] < 10_000_000 * 40
    assert (tmp_path / "run" / "checkpoints" / "000001" / "SHA256SUMS").exists()


def test_what_is_closed_is_filled_and_what_is_open_stays(tmp_path):
    """Files that are opened later do not get the numbers of standard output and error."""
    code = (
        "from purejaxrl.cli import streams\nimport os\nstreams.open_closed()\n"
        "file = open('file', 'w')\nassert file.fileno() > 2\nos.write(2, b'noise')\nos.write(1, b'kept')\n"
    )
    done = subprocess.run(
        ["bash", "-c", f'{sys.executable} -c "$1" 2>&- <&-', "bash", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "kept")
    assert (tmp_path / "file").read_text() == ""
