"""Run folders where the system refuses: locks, modes, full disks, growing files, leftovers."""

import errno
import fcntl
import hashlib
import json
import os
import runpy
import shutil
import stat
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers import chmodded, files_up_to, unprivileged
from matplotlib.figure import Figure

import purejaxrl
from purejaxrl.cli import main
from purejaxrl.errors import CheckpointError, InputError, InUseError, ResourceError
from purejaxrl.storage import locking, run_folder
from purejaxrl.storage.csv_files import Logs
from purejaxrl.storage.files import read_json
from purejaxrl.storage.run_folder import RunFolder

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
    logs.append_text("metrics.csv", "")
    content = (tmp_path / "metrics.csv").read_bytes()
    assert content == b"run,loss\n0,0.5\n1,\n2,\n"
    assert logs.positions() == {
        "metrics.csv": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()},
    }
    with pytest.raises(InputError, match=r"metrics\.csv: entropy is reported by some runs only"):
        logs.append("metrics.csv", {**ROWS, "entropy": np.zeros(2)})
    assert (tmp_path / "metrics.csv").read_bytes() == content


def test_csv_files_are_truncated_to_the_checkpoint(tmp_path):
    logs = Logs(tmp_path)
    logs.append("metrics.csv", ROWS)
    positions, content = logs.positions(), (tmp_path / "metrics.csv").read_bytes()
    logs.append("metrics.csv", ROWS)
    logs.append("episodes.csv", {"run": np.array([0])})
    later = Logs(tmp_path)
    later.verify(positions)
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
        Logs(tmp_path).verify(logs.positions())
    assert (tmp_path / "metrics.csv").read_bytes() == damage


def test_a_full_disk_names_the_file(tmp_path):
    logs = Logs(tmp_path)
    logs.append("metrics.csv", ROWS)
    with refused(os, "fsync"), pytest.raises(ResourceError, match=r"cannot write .*metrics\.csv: No space"):
        logs.positions()
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
    with refused(Path, "rglob"), pytest.raises(InputError, match=r"cannot read .*: No space"):
        run_folder.check_run(run)
    with refused(os, "walk"), pytest.raises(InputError, match=r"out: cannot read .*: No space"):
        run_folder.check_free(run, overwrite=True)
    with refused(Path, "exists"), pytest.raises(InputError, match=r"out: cannot read .*: No space"):
        run_folder.check_place(run)
    with refused(Path, "touch"), pytest.raises(ResourceError, match=r"cannot write .*: No space"):
        run_folder.create(run, overwrite=True)
    # None of them has kept the lock.
    RunFolder(run).close()


@pytest.mark.parametrize("name", [".DS_Store", "._config.json", "Thumbs.db", "desktop.ini", ".nfs00a1"])
def test_what_systems_leave_in_folders_is_in_no_runs_way(run, name):
    (run / "params").mkdir()
    for place in (run / name, run / "params" / name):
        place.write_text("the system's own")
    with pytest.raises(InputError, match=r"^out: .* exists; use overwrite"):
        run_folder.check_free(run, overwrite=False)
    run_folder.create(run, overwrite=True).close()
    assert [path.name for path in run.iterdir()] == [name]
    # It makes a folder no run, and stays what it is.
    run_folder.create(run, overwrite=False).close()
    assert (run / name).read_text() == "the system's own"


def test_windows_is_refused(monkeypatch):
    """Windows has no fcntl."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.raises(RuntimeError, match="purejaxrl runs on Linux and macOS; on Windows it runs in WSL"):
        runpy.run_path(locking.__file__)


def test_json_that_is_no_object_is_refused(run):
    for text in ("[]", "{", "\0", "[" * 100_000):
        (run / "config.json").write_text(text)
        with pytest.raises(InputError, match=r"cannot read .*config\.json"):
            read_json(run / "config.json")


TINY = {"epochs": 2, "steps_per_epoch": 40, "actors": 2, "train_v_iters": 1, "hidden_sizes": (4,), "eval_every": 40,
        "eval_episodes": 1}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training, which nobody may change, with the parameters of its best evaluation and an export."""
    out = tmp_path_factory.mktemp("trained") / "run"
    purejaxrl.train("vpg", **TINY, out=out)
    purejaxrl.export(out)
    return out


@pytest.fixture
def copied(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.mark.parametrize("umask", [0o002, 0o027])
def test_the_umask_decides_who_may_read_what_is_written(umask, trained, tmp_path):
    before = os.umask(umask)
    try:
        result = purejaxrl.train("vpg", **TINY, out=tmp_path / "run")
        purejaxrl.export(result.path)
        purejaxrl.export(result.path, out=tmp_path / "exported")
        result.save(tmp_path / "saved")
        result.video(tmp_path / "run" / "video.gif", max_steps=2)
        assert main(["plot", str(result.path), "--out", str(tmp_path / "curves.pdf")]) == 0
        assert main(["compare", str(trained), str(result.path), "--out", str(tmp_path / "compared")]) == 0
    finally:
        os.umask(before)
    modes = {entry: entry.stat().st_mode for entry in tmp_path.rglob("*")}
    assert {stat.S_IMODE(mode) for mode in modes.values() if stat.S_ISDIR(mode)} == {0o777 & ~umask}
    assert {entry for entry, mode in modes.items() if stat.S_ISREG(mode) and mode & 0o777 != 0o666 & ~umask} == set()
    names = {entry.relative_to(tmp_path).as_posix() for entry in modes}
    assert {"run/params/last.safetensors", "run/params/best.safetensors", "run/export/policy.safetensors"} <= names
    assert {"run/checkpoints/000001/arrays.safetensors", "exported/policy.json", "compared/compare.png"} <= names


def test_a_read_only_folder_can_be_plotted_and_rendered(copied, trained, tmp_path, capsys):
    """Nothing there may be written, and somebody trains there, or so it seems."""
    (tmp_path / "mine").mkdir()
    before = {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()}
    for path in (copied, *copied.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    run, mine = str(copied), tmp_path / "mine"
    with RunFolder(copied), unprivileged():
        assert main(["evaluate", run, "--episodes", "2"]) == 0
        assert main(["plot", run, "--out", str(mine / "curves.png")]) == 0
        assert main(["video", run, "--out", str(mine / "video.gif"), "--max_steps", "2"]) == 0
        assert main(["compare", run, str(trained), "--out", str(mine / "compared")]) == 0
        capsys.readouterr()
        assert main(["export", run, "--out", str(mine / "exported")]) == 0
        assert capsys.readouterr().out.split() == [
            str(mine / "exported" / f"policy.{kind}") for kind in ("safetensors", "json")
        ]
        assert main(["export", run]) == 3
    for name in ("policy.safetensors", "policy.json"):
        assert (mine / "exported" / name).read_bytes() == (trained / "export" / name).read_bytes()
    capsys.readouterr()
    with unprivileged():
        for command, name in (
            ("plot", "learning_curve.png"),
            ("export", "export/policy.safetensors"),
            ("video", "video.gif"),
        ):
            assert main([command, run]) == 6
            assert capsys.readouterr().err == f"purejaxrl: cannot write {copied / name}: Permission denied\n"
        assert main(["train", "vpg", "--out", run, "--overwrite"]) == 2
        assert capsys.readouterr().err == f"purejaxrl: --out: cannot write to {copied}: Permission denied\n"
    assert {path: path.read_bytes() for path in copied.rglob("*") if path.is_file()} == before
    for path in (copied, *copied.rglob("*")):
        path.chmod(0o755)


def test_an_export_goes_where_it_can(trained, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    assert main(["export", str(trained), "--out", str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"purejaxrl: --out: {tmp_path / 'file'} is a file; give a folder\n"
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("command", "name", "code"),
    [
        ("evaluate", "params/last.safetensors", 2), ("evaluate", "params", 2), ("evaluate", "config.json", 2),
        ("evaluate", "", 2), ("export", "params/last.safetensors", 2), ("resume", "checkpoints", 4),
        ("resume", "checkpoints/000001/facts.json", 4), ("compare", "summary.json", 2),
    ],
)  # fmt: skip
def test_what_may_not_be_read_is_called_so(command, name, code, copied, capsys):
    with chmodded(copied / name, 0), unprivileged():
        assert main([command, str(copied), *["other"] * (command == "compare")]) == code
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"cannot read {copied / name}: Permission denied" in error


@pytest.mark.parametrize("command", ["resume", "plot", "export"])
def test_a_folder_whose_names_are_hidden_is_called_so(command, copied, capsys):
    with chmodded(copied, 0o311), unprivileged():
        assert main([command, str(copied)]) == 2
    assert capsys.readouterr().err == f"purejaxrl: cannot read {copied}: Permission denied\n"


def test_what_may_not_be_read_is_not_left_out_of_a_copy(copied, tmp_path):
    result = purejaxrl.load(copied)
    for name in ("params", "params/best.safetensors"):
        with chmodded(copied / name, 0), unprivileged(), pytest.raises(InputError, match=f"cannot read .*{name}: Perm"):
            result.save(tmp_path / "saved")
        assert not list(tmp_path.glob("saved/*"))
    result.save(tmp_path / "saved")
    # Nor is it taken for an empty folder.
    with chmodded(tmp_path / "saved" / "params", 0), unprivileged():
        assert main(["train", "vpg", "--out", str(tmp_path / "saved"), "--overwrite", "--dry_run"]) == 2


def test_a_file_that_is_missing_is_missing(copied, tmp_path, capsys):
    assert run_folder.check_free(tmp_path / "nothing", overwrite=False) == []
    (copied / "config.json").rename(copied / "config")
    assert main(["evaluate", str(copied)]) == 2
    assert capsys.readouterr().err == f"purejaxrl: {copied} is not a run folder: it has no config.json\n"


def figure_of_curves():
    figure = Figure()
    figure.subplots().plot(np.random.default_rng(0).normal(size=2000))
    return figure


MUCH = np.random.default_rng(0).normal(size=5000)
WRITERS = {
    "params/last.safetensors": lambda folder: folder.write_params("last", {"x": MUCH}, {}),
    "summary.json": lambda folder: folder.write_json("summary.json", MUCH),
    "sweep.csv": lambda folder: folder.write_table("sweep.csv", {"x": MUCH}),
    "learning_curve.png": lambda folder: folder.write_figure("learning_curve.png", figure_of_curves()),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_that_does_not_fit_is_named_and_the_one_before_stays(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("before")
    with (
        RunFolder(tmp_path) as folder,
        files_up_to(4096),
        pytest.raises(ResourceError, match=f"cannot write {tmp_path / name}: File too large"),
    ):
        WRITERS[name](folder)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["before"]


def test_rows_that_do_not_fit_are_named(tmp_path):
    logs = Logs(tmp_path)
    with files_up_to(4096), pytest.raises(ResourceError, match=r"cannot write .*metrics\.csv: File too large"):
        logs.append("metrics.csv", {"x": MUCH})


@pytest.mark.parametrize("kind", ["png", "pdf", "svg", "eps", "jpg", "webp", "tif"])
def test_a_figure_that_does_not_fit_is_named(kind, trained, tmp_path, capsys):
    out = tmp_path / f"curves.{kind}"
    with files_up_to(1000):
        assert main(["plot", str(trained), "--out", str(out)]) == 6
    assert capsys.readouterr().err == f"purejaxrl: cannot write {out}: File too large\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "limit", "name"),
    [
        (["export", "RUN"], 500, "export/policy.safetensors"),
        (["export", "RUN"], 1200, "export/policy.json"),
        (["export", "RUN", "--out", "OUT"], 500, "policy.safetensors"),
        (["compare", "RUN", "OTHER", "--out", "OUT"], 100, "compare.csv"),
        (["compare", "RUN", "OTHER", "--out", "OUT"], 5000, "compare.png"),
        (["video", "RUN", "--out", "OUT/video.gif", "--max_steps", "2"], 1000, "video.gif"),
    ],
)
def test_a_full_disk_is_code_6_whatever_is_written(words, limit, name, copied, trained, tmp_path, capsys):
    shutil.rmtree(copied / "export")
    places = {"RUN": copied, "OTHER": trained, "OUT": tmp_path / "out"}
    words = [str(places[word]) if word in places else word.replace("OUT", str(places["OUT"])) for word in words]
    with files_up_to(limit):
        assert main(words) == 6
    target = (places["OUT"] if "--out" in words else copied) / name
    assert capsys.readouterr().err == f"purejaxrl: cannot write {target}: File too large\n"
    assert not target.exists()
    assert not list(tmp_path.rglob("*.partial"))


def test_a_training_whose_parameters_do_not_fit_ends_with_code_6(tmp_path, capsys):
    words = ["vpg", "--epochs", "1", "--steps_per_epoch", "40", "--actors", "2", "--train_v_iters", "1"]
    words += ["--hidden_sizes", "40", "40", "--quiet", "--checkpoint_every", "0", "--no_cache"]
    # Nothing is compiled within the limit, which holds for the cache of programs, too.
    assert main(["train", *words, "--out", str(tmp_path / "first")]) == 0
    largest = max(file.stat().st_size for file in (tmp_path / "first").iterdir() if file.suffix in (".json", ".csv"))
    with files_up_to(largest + 100):
        assert main(["train", *words, "--out", str(tmp_path / "run")]) == 6
    params = tmp_path / "run" / "params" / "last.safetensors"
    assert capsys.readouterr().err == f"purejaxrl: cannot write {params}: File too large\n"
    assert not list(params.parent.iterdir())


def test_a_result_without_a_place_is_one_line(monkeypatch):
    def refuse(**_):
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(ResourceError, match=r"cannot make a temporary folder: No usable temporary directory found"):
        purejaxrl.train("vpg", **TINY)


def test_a_full_disk_is_no_wrong_input(tmp_path):
    for number, kind in ((errno.ENOSPC, ResourceError), (errno.EDQUOT, ResourceError), (errno.EACCES, InputError)):

        def refuse(*_, number=number, **__):
            raise OSError(number, os.strerror(number))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "mkdir", refuse)
            with pytest.raises(kind, match=os.strerror(number)):
                run_folder.create(tmp_path / "run", overwrite=False)


def test_parameters_are_bitwise_what_safetensors_writes(tmp_path):
    from safetensors.numpy import save_file

    params = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 2)), "count": np.full((), 3)}
    save_file(params, tmp_path / "theirs", {"purejaxrl": json.dumps({"runs": [0]})})
    with RunFolder(tmp_path) as folder:
        folder.write_params("last", params, {"runs": np.arange(1)})
    assert (tmp_path / "params" / "last.safetensors").read_bytes() == (tmp_path / "theirs").read_bytes()
