"""The cache of compiled programs: private, used, and absent where it is not wanted."""

import os
import pwd
import stat
import subprocess
import sys

import jax
import pytest

from purejaxrl.cli import main
from purejaxrl.storage.cache import VARIABLE, cache_folder, is_private, why_unused
from purejaxrl.training.compilation_cache import CHECKED, remove_damaged, use_compilation_cache

TINY = ["train", "a3c", "--env_steps", "400", "--actors", "4", "--t_max", "5", "--hidden_sizes", "8", "--quiet"]


@pytest.fixture
def settings():
    """What sets JAX's settings for the process until the test ends."""
    names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    # A command line that ran in this process with --no_cache has turned it off.
    jax.config.update("jax_enable_compilation_cache", True)
    yield lambda **values: [jax.config.update(name, value) for name, value in values.items()]
    for name, value in before.items():
        jax.config.update(name, value)


def train(tmp_path, cache, out, *words, **variables):
    done = subprocess.run(
        [sys.executable, "-m", "purejaxrl", *TINY, "--out", str(tmp_path / out), *words],
        env={**os.environ, VARIABLE: str(cache), **variables},
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
    # What compiles in about a tenth of a second may be kept the second time only.
    assert {path.name for path in cache.glob("*.program")} <= entries
    assert len(list(cache.glob("*.program"))) == 1


@pytest.mark.slow
def test_what_a_killed_process_wrote_in_part_is_compiled_again(tmp_path):
    cache = tmp_path / "cache"
    train(tmp_path, cache, "run")

    def evaluate():
        words = [sys.executable, "-m", "purejaxrl", "evaluate", str(tmp_path / "run"), "--json"]
        environment = {**os.environ, VARIABLE: str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    first = evaluate()
    entries = [path for path in cache.glob("*-cache") if path.stat().st_size > 1000]
    assert entries
    for path in entries:
        path.write_bytes(path.read_bytes()[:1000])
    assert evaluate() == first
    assert all(path.stat().st_size > 1000 for path in entries)
    assert remove_damaged(cache) == []
    entries[0].write_bytes(b"")
    os.utime(cache / CHECKED, (0, 0))
    assert remove_damaged(cache) == [entries[0].name]


def test_no_cache_keeps_nothing(tmp_path):
    cache, given_to_jax = tmp_path / "cache", tmp_path / "given"
    train(tmp_path, cache, "run", "--no_cache", JAX_COMPILATION_CACHE_DIR=str(given_to_jax))
    assert not cache.exists()
    assert not given_to_jax.exists()


@pytest.mark.slow
def test_a_folder_that_jax_was_given_is_used_in_place_of_the_users_cache(tmp_path):
    users, chosen = tmp_path / "users", tmp_path / "chosen"
    # As it is: JAX keeps only what took a second to compile, unless it is told otherwise.
    kept = {"JAX_COMPILATION_CACHE_DIR": str(chosen), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    train(tmp_path, "", "run", XDG_CACHE_HOME=str(users), **kept)
    assert list(chosen.iterdir())
    assert not (users / "purejaxrl").exists()


CODE = """
import sys
import jax
import jax.numpy as jnp
jax.jit(lambda x: x + 1)(jnp.ones(3))
import purejaxrl
if "off" in sys.argv:
    purejaxrl.configure(cache=False)
purejaxrl.train("a3c", env_steps=400, actors=4, t_max=5, hidden_sizes=(8,), progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "variables", "is_kept"),
    [
        ([], {}, True),
        pytest.param(["off"], {}, False, marks=pytest.mark.slow),
        pytest.param([], {"PUREJAXRL_CACHE": "0"}, False, marks=pytest.mark.slow),
    ],
    ids=["by default", "configured", "by the environment"],
)
def test_python_keeps_programs_unless_it_is_told_otherwise(words, variables, is_kept, tmp_path):
    """Also where JAX has compiled something before."""
    environment = {**os.environ, VARIABLE: str(tmp_path / "cache"), **variables}
    subprocess.run([sys.executable, "-W", "ignore", "-c", CODE, *words], env=environment, check=True, timeout=120)
    assert bool(list(tmp_path.glob("cache/*.program"))) == is_kept


def test_which_folder_of_several_it_is(tmp_path, monkeypatch, settings):
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "users"))
    settings(jax_compilation_cache_dir=str(tmp_path / "jax's"))
    assert use_compilation_cache() == tmp_path / "jax's"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "named"))
    assert use_compilation_cache() == tmp_path / "named"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "named")


def test_no_cache_is_made_if_jax_disables_it(tmp_path, monkeypatch, settings):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    settings(jax_enable_compilation_cache=False)
    assert use_compilation_cache() is None
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
def test_training_continues_without_a_cache_if_none_can_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    train(tmp_path, tmp_path / "file", "run")
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.slow
def test_a_cache_folder_open_to_others_is_not_used(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o750)
    train(tmp_path, shared, "run")
    assert stat.S_IMODE(shared.stat().st_mode) == 0o750
    assert list(shared.iterdir()) == []


def test_private_means_owned_by_the_user(tmp_path, monkeypatch):
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


NO_HOME = f"no compilation cache: this user has no home folder; {VARIABLE} can name another\n"


def test_who_has_no_home_trains_without_a_cache(monkeypatch, capsys, settings):
    """As in a container that runs under an id which has no entry in its passwd file."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in (VARIABLE, "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    settings(jax_compilation_cache_dir=None)
    assert cache_folder() is use_compilation_cache() is None
    assert main(["train", "vpg", "--dry_run"]) == 0
    assert capsys.readouterr().err == NO_HOME
    assert main(["train", "vpg", "--dry_run", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take on another id")
def test_a_process_of_an_unknown_user_says_so_in_one_line(tmp_path):
    # Its effective id stays root's: the interpreter may lie where nobody else can read.
    code = (
        "import os\nos.setreuid(54321, 0)\n"
        "from purejaxrl.cli import main\nraise SystemExit(main(['train', 'vpg', '--dry_run']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, NO_HOME)
    assert list(tmp_path.iterdir()) == []


def test_what_is_said_of_a_cache_that_cannot_be(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    below = tmp_path / "file" / "cache"
    monkeypatch.setenv(VARIABLE, str(below))
    assert use_compilation_cache() is None
    assert why_unused(below) == f"{below} cannot be created; {VARIABLE} can name another"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    assert use_compilation_cache() is None
    assert why_unused(tmp_path / "file") == f"{tmp_path / 'file'} is not a private folder (mode 0700)"
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    monkeypatch.setenv(VARIABLE, str(own))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert use_compilation_cache() is None
    assert why_unused(own) == f"{own} cannot be written to"
