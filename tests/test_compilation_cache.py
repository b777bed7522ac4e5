"""The cache of compiled programs: private, used, and absent where it is not wanted."""

import os
import stat
import subprocess
import sys

import pytest

from purejaxrl.training.compilation_cache import VARIABLE, cache_folder, is_private

TINY = ["train", "a3c", "--env_steps", "400", "--actors", "4", "--t_max", "5", "--hidden_sizes", "8", "--quiet"]


def train(tmp_path, cache, out, *words):
    done = subprocess.run(
        [sys.executable, "-m", "purejaxrl", *TINY, "--out", str(tmp_path / out), *words],
        env={**os.environ, VARIABLE: str(cache)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return (tmp_path / out / "params" / "last.safetensors").read_bytes()


def test_a_second_run_reads_what_the_first_compiled_and_learns_the_same(tmp_path):
    cache = tmp_path / "deep" / "cache"
    first = train(tmp_path, cache, "first")
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    entries = {path.name for path in cache.iterdir()}
    assert len(entries) >= 2
    assert train(tmp_path, cache, "second") == first
    assert {path.name for path in cache.iterdir() if path.name.endswith("-cache")} <= entries


def test_no_cache_keeps_nothing(tmp_path):
    cache = tmp_path / "cache"
    train(tmp_path, cache, "run", "--no_cache")
    assert not cache.exists()


@pytest.mark.slow
def test_training_goes_on_without_a_cache_where_none_can_be(tmp_path):
    (tmp_path / "file").write_text("in the way")
    train(tmp_path, tmp_path / "file", "run")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_that_others_can_enter_is_left_alone_and_not_used(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o750)
    train(tmp_path, shared, "run")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o750
    assert list(shared.iterdir()) == []


def test_private_is_a_folder_of_ones_own(tmp_path, monkeypatch):
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir(mode=0o700)
    link.symlink_to(folder)
    assert is_private(folder)
    assert not is_private(link)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert not is_private(folder)


def test_the_environment_variable_moves_the_folder(monkeypatch):
    monkeypatch.setenv(VARIABLE, "/somewhere/else")
    assert str(cache_folder()) == "/somewhere/else"
    monkeypatch.delenv(VARIABLE)
    assert cache_folder().is_absolute()
    assert "purejaxrl" in str(cache_folder())
