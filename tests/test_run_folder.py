"""Run folders where the system refuses: locks, growing files, leftovers."""

import errno
import fcntl
import hashlib
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from purejaxrl.errors import CheckpointError, InputError, InUseError, ResourceError
from purejaxrl.results import run_folder
from purejaxrl.results.logs import Logs
from purejaxrl.results.run_folder import RunFolder

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
ROWS = {"run": np.array([0, 1]), "loss": np.array([0.5, np.nan])}


@contextmanager
def refused(owner, name):
    """Have every call of it fail as on a full disk."""

    def refuse(*_, **__):
        raise NO_SPACE

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, refuse)
        yield


@pytest.fixture
def run(tmp_path):
    """A folder that looks like a run's."""
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_a_folder_is_locked_until_it_is_closed(tmp_path):
    first = RunFolder(tmp_path)
    with pytest.raises(InUseError, match="is in use by another process"):
        RunFolder(tmp_path)
    first.close()
    first.close()
    with RunFolder(tmp_path):
        pass


def test_a_file_system_without_locks_is_written_without(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with RunFolder(tmp_path) as folder:
        folder.write_json("config.json", {"seed": 0})
    assert (tmp_path / "config.json").exists()


def test_logs_grow_row_by_row(tmp_path):
    logs = Logs(tmp_path)
    logs.append("metrics.csv", ROWS)
    logs.append("metrics.csv", {"run": np.array([2])})
    logs.append_file("metrics.csv", b"run,loss\n3,1\n")
    logs.append_text("metrics.csv", "")
    content = (tmp_path / "metrics.csv").read_bytes()
    assert content == b"run,loss\n0,0.5\n1,\n2,\n3,1\n"
    assert logs.standing() == {
        "metrics.csv": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
    }
    with pytest.raises(InputError, match=r"metrics\.csv: entropy is reported by some runs only"):
        logs.append("metrics.csv", {**ROWS, "entropy": np.zeros(2)})
    with pytest.raises(InputError, match=r"metrics\.csv: some runs report other columns: run,entropy"):
        logs.append_file("metrics.csv", b"run,entropy\n3,1\n")
    assert (tmp_path / "metrics.csv").read_bytes() == content


def test_logs_are_cut_back_to_where_they_stood(tmp_path):
    logs = Logs(tmp_path)
    logs.append("metrics.csv", ROWS)
    standing, content = logs.standing(), (tmp_path / "metrics.csv").read_bytes()
    logs.append("metrics.csv", ROWS)
    logs.append("episodes.csv", {"run": np.array([0])})
    later = Logs(tmp_path)
    later.find_standing(standing)
    later.rewind()
    assert (tmp_path / "metrics.csv").read_bytes() == content
    assert not (tmp_path / "episodes.csv").exists()
    later.append("metrics.csv", {"loss": np.array([1.0])})
    assert (tmp_path / "metrics.csv").read_bytes() == content + b",1\n"


@pytest.mark.parametrize("damage", [b"", b"run,loss\n", b"run,loss\n9,0.5\n1,\n", b"\xff\xfe"])
def test_logs_that_do_not_begin_as_before_are_refused(tmp_path, damage):
    logs = Logs(tmp_path)
    logs.append("metrics.csv", ROWS)
    (tmp_path / "metrics.csv").write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"metrics\.csv"):
        Logs(tmp_path).find_standing(logs.standing())
    assert (tmp_path / "metrics.csv").read_bytes() == damage


def test_a_full_disk_names_the_file(tmp_path):
    logs = Logs(tmp_path)
    logs.append("metrics.csv", ROWS)
    with refused(os, "fsync"), pytest.raises(ResourceError, match=r"cannot write .*metrics\.csv: No space"):
        logs.standing()
    with refused(os, "truncate"), pytest.raises(ResourceError, match=r"cannot write .*metrics\.csv: No space"):
        logs.rewind()
    with refused(Path, "open"), pytest.raises(ResourceError, match=r"cannot write .*metrics\.csv: No space"):
        logs.append("metrics.csv", ROWS)
    with (
        RunFolder(tmp_path) as folder,
        refused(os, "replace"),
        pytest.raises(ResourceError, match=r"cannot write .*sweep\.csv: No space"),
    ):
        folder.write_table("sweep.csv", ROWS)


def test_leftovers_that_cannot_go_and_folders_that_cannot_be_read_are_named(run):
    (run / "summary.json.partial").write_text("half")
    with refused(Path, "unlink"), pytest.raises(ResourceError, match=r"cannot clean .*: No space"):
        run_folder.open_existing(run)
    run_folder.open_existing(run).close()
    assert [path.name for path in run.iterdir()] == ["config.json"]
    for call in (run_folder.check_run, lambda path: run_folder.check_free(path, overwrite=True)):
        with refused(Path, "rglob"), pytest.raises(InputError, match=r"cannot read .*: No space"):
            call(run)
    with refused(Path, "exists"), pytest.raises(InputError, match=r"--out: cannot read .*: No space"):
        run_folder.check_place(run)
    with refused(Path, "touch"), pytest.raises(InputError, match=r"--out: cannot write to .*: No space"):
        run_folder.create(run, overwrite=True)
    # None of them has kept the lock.
    RunFolder(run).close()


def test_json_that_is_no_object_is_refused(run):
    for text in ("[]", "{", "\0", "[" * 100_000):
        (run / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"cannot read .*config\.json"):
            run_folder.read_json(run / "config.json")
