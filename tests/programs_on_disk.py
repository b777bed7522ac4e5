"""Programs on disk: found by what they are made from and by nothing less, and as good as those just compiled.

test_executables.py runs this in a process without the suite's own type checks, which are no installed package's code.
"""

import functools
import json
import os
import platform
import subprocess
import sys
import time
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits
from jax.experimental.compilation_cache.compilation_cache import reset_cache

import purejaxrl
from purejaxrl.agents import a3c
from purejaxrl.cli import main
from purejaxrl.envs import make
from purejaxrl.experiment import kept_programs
from purejaxrl.experiment import run as run_module
from purejaxrl.experiment.progress import Silent
from purejaxrl.storage import cache
from purejaxrl.training import compilation, compilation_cache, executables, identity, loop
from purejaxrl.training.identity import UnknownIdentityError, contents_of_modules, stable_text

A3C = {"env_steps": 80, "actors": 2, "t_max": 10, "hidden_sizes": (4,)}
TRAININGS = {
    "a3c": ("a3c", A3C),
    "a3c, until solved": ("a3c", {**A3C, "stop_when_solved": True, "seeds": 3, "max_ep_len": 50}),
    "vpg": ("vpg", {"epochs": 2, "steps_per_epoch": 40, "actors": 2, "train_v_iters": 1, "hidden_sizes": (4,)}),
    "vpg, continuous": ("vpg", {"env": "Pendulum-v1", "epochs": 2, "steps_per_epoch": 40, "train_v_iters": 1}),
    "dqn, evaluations": (
        "dqn",
        {"env_steps": 60, "batch_size": 8, "memory_size": 64, "hidden_sizes": (4,), "eval_every": 20, "seeds": 2},
    ),
    "dqn, images": (
        "dqn",
        {"observation_type": "img", "env_steps": 40, "batch_size": 8, "memory_size": 64, "hidden_sizes": (4,)},
    ),
}
FILES = ("episodes.csv", "metrics.csv", "params/last.safetensors")


IS_COVERED = "PUREJAXRL_COVERAGE" in os.environ


@pytest.fixture(autouse=IS_COVERED)
def covered(monkeypatch):
    """What measures coverage rewrites code while it runs, so functions are known by their places."""
    monkeypatch.setattr(identity, "_digest_of_code", lambda code: f"{code.co_filename} {code.co_firstlineno}")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of its own, used as users' is, and without the suite's own memory of programs."""
    monkeypatch.setattr(kept_programs, "find_file", executables.find_file)
    monkeypatch.setattr(run_module, "compile_fitting", compilation.compile_fitting)
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    before = jax.config.values["jax_compilation_cache_dir"]
    found = compilation_cache.use_compilation_cache()
    # JAX stays with the folder that it has used first.
    reset_cache()
    yield found
    jax.config.update("jax_compilation_cache_dir", before)
    reset_cache()


@pytest.fixture
def compiled(folder, monkeypatch):
    """How many programs were compiled so far, traced, lowered and all."""
    found = []

    def compile_fitting(*args, **options):
        found.append(args[0].name)
        return compilation.compile_fitting(*args, **options)

    monkeypatch.setattr(run_module, "compile_fitting", compile_fitting)
    return found


def train(out, name="a3c", **changes):
    algorithm, settings = TRAININGS[name]
    result = purejaxrl.train(algorithm, **{**settings, **changes}, progress=False, out=out)
    files = {file: (out / file).read_bytes() for file in FILES}
    if (out / "params" / "best.safetensors").exists():
        files["best"] = (out / "params" / "best.safetensors").read_bytes()
    return result, files


@pytest.mark.parametrize(
    "name", [it if it == "a3c, until solved" else pytest.param(it, marks=pytest.mark.slow) for it in TRAININGS]
)
def test_what_is_read_from_disk_is_what_was_compiled(name, compiled, folder, tmp_path):
    before, files = train(tmp_path / "first", name)
    assert len(compiled) == len(list(folder.glob("*.program"))) == 1
    after, again = train(tmp_path / "second", name)
    assert len(compiled) == 1
    assert again == files
    assert jax.tree.structure(after.state) == jax.tree.structure(before.state)
    assert_same_bits(after.state, before.state)
    # Another seed and learning rate are the same program.
    train(tmp_path / "third", name, seed=7, **{"pi_lr" if name.startswith("vpg") else "lr": 1e-4})
    assert len(compiled) == 1


class Notes(Silent):
    """Keeps what is to be shown."""

    def __init__(self):
        self.told = []

    def note(self, text):
        self.told.append(text)


def test_a_user_who_waits_for_the_compiler_knows_for_what_and_how_long(compiled, tmp_path, monkeypatch):
    def told(out, **changes):
        notes = Notes()
        purejaxrl.train("a3c", **{**A3C, **changes}, progress=notes, out=tmp_path / out)
        return notes.told

    def compile_fitting(*args, **options):
        return compiling(*args, **options)._replace(compile_seconds=41.6)

    compiling = run_module.compile_fitting
    monkeypatch.setattr(run_module, "compile_fitting", compile_fitting)
    assert told("first") == ["compiling (first time for this setting, some seconds) ..."]
    assert told("second") == []
    assert told("third", hidden_sizes=(5,)) == ["compiling (first time for this setting, about 42 seconds) ..."]
    # Not so long as with images.
    images = {"observation_type": "img", "hidden_sizes": (6,)}
    assert told("fourth", **images) == ["compiling (first time for this setting, some seconds) ..."]
    purejaxrl.configure(cache=False)
    try:
        assert told("fifth", hidden_sizes=(7,)) == ["compiling (first time for this setting, some seconds) ..."]
    finally:
        purejaxrl.configure(cache=True)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_with_what_is_read(compiled, tmp_path):
    _, whole = train(tmp_path / "whole", env_steps=400)
    train(tmp_path / "parts", env_steps=200)
    purejaxrl.resume(tmp_path / "parts", extend=400, progress=False)
    assert {file: (tmp_path / "parts" / file).read_bytes() for file in FILES} == whole
    assert compiled == ["a3c"]


@pytest.mark.slow
def test_other_processes_read_it_and_trace_nothing(tmp_path):
    """Two that start at once, and two that come later; the later ones compile nothing of the training."""
    code = """
import json, sys
import jax
traced = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **details: traced.append(str(details.get("fun_name"))) if "compile" in event else None
)
import purejaxrl
purejaxrl.train("a3c", **eval(sys.argv[2]), progress=False, out=sys.argv[1])
print(json.dumps(traced))
"""

    def start(number):
        words = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / str(number)), repr(A3C)]
        environment = {**os.environ, cache.VARIABLE: str(tmp_path / "cache")}
        return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)

    def traced(process):
        text = process.communicate(timeout=300)[0]
        assert process.returncode == 0
        return {name for name in json.loads(text) if "advance_group" in name or "start_run" in name}

    assert all(traced(process) for process in [start(0), start(1)])
    assert not any(traced(process) for process in [start(2), start(3)])
    found = [{file: (tmp_path / str(number) / file).read_bytes() for file in FILES} for number in range(4)]
    assert all(files == found[0] for files in found)
    assert not list((tmp_path / "cache").glob("*.partial"))
    assert len(list((tmp_path / "cache").glob("*.program"))) == 1


def key_of(config=None, env="CartPole-v1", seeds=3, evaluations=None, stop_at=None, kind="env_steps"):
    from purejaxrl.components.hyperparameters import Budget
    from purejaxrl.training.programs import program_key

    made = make(env) if isinstance(env, str) else env
    budget = Budget(kind, 80, stop_at)
    return program_key(a3c.agent, made, config or a3c.Config(**A3C), seeds, budget, jax.devices(), evaluations)


def file_of(local=None, **changes):
    found = executables.find_file(key_of(**changes), local or jax.devices())
    return None if found is None else found.path


ELSEWHERE = {
    "the source": ("hash_of_source", lambda: "other"),
    "the files of a package": ("_files_of", lambda package: "other" if package == "gymnax" else "same"),
    "a version": ("_versions", lambda: {"jax": "other"}),
    "the processor": ("_processor", lambda: "other"),
    "the number of cores": ("usable_cores", lambda: 99),
    "the version of Python": (
        "sys",
        SimpleNamespace(version_info=SimpleNamespace(major=3, minor=99), platform=sys.platform),
    ),
    "the operating system": ("sys", SimpleNamespace(version_info=sys.version_info, platform="other")),
    "the machine": (
        "platform",
        SimpleNamespace(machine=lambda: "other", python_implementation=platform.python_implementation),
    ),
}
CHANGES = {
    "a size": {"config": a3c.Config(**{**A3C, "hidden_sizes": (5,)})},
    "a static number": {"config": a3c.Config(**{**A3C, "t_max": 11})},
    "a value that there is": {"config": a3c.Config(**A3C, max_grad_norm=0.5)},
    "the environment": {"env": "CartPole-v0"},
    "parameters of the environment": {"env": make("CartPole-v1", {"gravity": 9.7})},
    "the limit of episodes": {"env": make("CartPole-v1", max_ep_len=50)},
    "the number of runs": {"seeds": 4},
    "evaluations": {"evaluations": 5},
    "more evaluations": {"evaluations": 6},
    "a threshold": {"stop_at": 195.0},
    "the kind of the budget": {"kind": "episodes"},
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ELSEWHERE)
def test_what_could_change_a_program_outside_of_it_is_another_file(name, monkeypatch):
    before = file_of()
    assert before == file_of()
    monkeypatch.setattr(executables, *ELSEWHERE[name])
    assert file_of() not in (None, before)


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", CHANGES)
def test_what_could_change_a_program_in_it_is_another_file(name):
    assert file_of(**CHANGES[name]) not in (None, file_of())


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("variable", executables.VARIABLES)
def test_variables_that_could_change_a_program(variable, monkeypatch):
    before = file_of()
    monkeypatch.setenv(variable, "--other")
    assert file_of() not in (None, before)


@pytest.mark.usefixtures("folder")
def test_devices_and_settings_that_could_change_a_program():
    before = file_of()
    assert file_of(local=jax.devices()[:1]) not in (None, before)
    jax.config.update("jax_numpy_rank_promotion", "allow")
    try:
        assert file_of() not in (None, before)
    finally:
        jax.config.update("jax_numpy_rank_promotion", "raise")


def test_what_is_made_of_installed_code_is_not_taken_for_it():
    """A function that wraps a package's has its name, and a network that flax makes of another has flax's module."""

    @functools.wraps(nn.softplus)
    def own(x):
        return file_of() + x

    class Net(nn.Module):
        """A network of one's own."""

    for value in (own, nn.remat(Net), Net):
        with pytest.raises(UnknownIdentityError):
            stable_text(identity.identify(value))
    assert "flax" in stable_text(identity.identify(nn.softplus)) + stable_text(identity.identify(nn.Dense))


def test_the_source_is_all_of_it(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.py").write_text("x = 1\n")
    before = cache.hash_of_source.__wrapped__(tmp_path)
    (tmp_path / "deep" / "a.py").write_text("x = 2\n")
    assert cache.hash_of_source.__wrapped__(tmp_path) != before
    times = executables._files_in(tmp_path)
    os.utime(tmp_path / "deep" / "a.py", (1, 1))
    assert executables._files_in(tmp_path) != times


@pytest.mark.usefixtures("folder")
def test_only_what_is_of_installed_packages_is_kept():
    """An environment, a network and a function of one's own could become something else."""
    own = make("CartPole-v1")._replace(step=lambda key, state, action: None)
    assert file_of(env=own) is None
    assert file_of() is not None
    with pytest.raises(UnknownIdentityError):
        stable_text((1, file_of))


@pytest.mark.skipif(IS_COVERED, reason="what measures coverage rewrites code")
def test_the_key_is_the_same_in_every_process(folder):
    code = """
import sys; sys.path[:0] = ["tests"]
import jax
jax.config.update("jax_num_cpu_devices", 2)
from programs_on_disk import key_of
from purejaxrl.training.identity import stable_text
print(stable_text(key_of()))
"""
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    found = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == stable_text(key_of())


def test_a_package_that_somebody_has_changed_in_this_process_has_no_program(compiled, folder, monkeypatch, tmp_path):
    """A constant, and a method of the environment."""
    _, files = train(tmp_path / "before")
    monkeypatch.setattr(loop, "MAX_CHUNK", 2)
    assert train(tmp_path / "constant")[1] == files
    assert len(compiled) == 2

    @functools.wraps(loop.iterate)
    def wrapped(*args, **options):
        return loop.iterate.__wrapped__(*args, **options)

    for name, value in (("iterate", wrapped), ("iterate", lambda *args: None), ("freeze", functools.partial(wrapped))):
        with monkeypatch.context() as patch:
            patch.setattr(loop, name, value)
            assert file_of() is None
    from gymnax.environments.classic_control.cartpole import CartPole

    inner = CartPole.step_env
    (path,) = folder.glob("*.program")
    kept = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(
            CartPole, "step_env", lambda self, key, state, action, params: inner(self, key, state, 1 - action, params)
        )
        assert file_of() is None
        train(tmp_path / "method")
        # What it refers to could be something else in the next process.
        assert path.read_bytes() == kept
    assert len(compiled) == 3
    monkeypatch.undo()


def test_what_modules_hold_is_the_same_where_nobody_changes_it():
    before = contents_of_modules()
    assert before == contents_of_modules()
    assert {"purejaxrl.agents.a3c", "purejaxrl.training.loop", "purejaxrl.kernels.threefry"} <= set(before)


@pytest.mark.parametrize(
    "damage",
    [
        lambda it: it[:5000] + b"?" + it[5001:],
        *(
            pytest.param(cut, marks=pytest.mark.slow)
            for cut in (lambda it: it[:-100], lambda it: it[:200], lambda it: b"")
        ),
    ],
)
def test_a_damaged_file_is_compiled_again_with_one_warning(damage, compiled, folder, tmp_path):
    _, files = train(tmp_path / "first")
    (path,) = folder.glob("*.program")
    content = path.read_bytes()
    path.write_bytes(damage(content))
    with pytest.warns(UserWarning, match=rf"^{path} is damaged \(\w+\); the program is compiled again$") as caught:
        assert train(tmp_path / "second")[1] == files
    assert len(caught) == 1
    assert len(compiled) == 2
    assert train(tmp_path / "third")[1] == files
    assert len(compiled) == 2


@pytest.mark.slow
def test_what_a_stopped_process_has_left_in_jaxs_cache_is_used_once(compiled, folder, monkeypatch, tmp_path):
    """XLA cannot serialize what JAX has read, so such a program is not kept, and the next one is."""
    with monkeypatch.context() as patch:
        patch.setattr(kept_programs, "save_program", lambda file, program, runs: program)
        _, files = train(tmp_path / "stopped")
    assert list(folder.glob("*advance_group*"))
    for name, programs in (("read", 0), ("kept", 1), ("found", 1)):
        assert train(tmp_path / name)[1] == files
        assert len(list(folder.glob("*.program"))) == programs
        assert not list(folder.glob("*advance_group*"))
    assert len(compiled) == 3


def test_a_class_that_is_no_part_of_a_state_is_not_looked_up():
    for name in ("subprocess:Popen", "purejaxrl.errors:InputError", "os:system"):
        with pytest.raises(UnknownIdentityError):
            executables._class_of(name)
    assert executables._class_of("purejaxrl.types:Learner") is purejaxrl.Learner


def test_a_tree_is_built_again_from_its_description():
    tree = {
        "key": jax.eval_shape(lambda: jax.vmap(jax.random.key)(jnp.arange(3))),
        "list": [np.float32(1.0), None, (np.zeros(2), jnp.zeros((2, 3), bool))],
        "named": purejaxrl.Learner(np.zeros(1), (), None, ()),
    }
    described = json.loads(json.dumps(executables._describe(tree)))
    again = executables._rebuild(described)
    assert jax.tree.structure(again, is_leaf=executables._is_leaf) == jax.tree.structure(tree)
    assert again["list"][2][1] == executables._Leaf((2, 3), "bool", False)
    assert again["key"] == executables._Leaf((3, 2), "uint32", True)


def test_what_was_used_longest_ago_goes_first(tmp_path):
    now = time.time()
    for age, name in enumerate(["new.program", "newer-cache", "old.program", "x.partial", "oldest-cache"]):
        (tmp_path / name).write_bytes(b"x" * 100)
        os.utime(tmp_path / name, (now - 100 * age, now - 100 * age))
    (tmp_path / "users.txt").write_bytes(b"x" * 1000)
    # In a folder that JAX was given its own entries stay.
    assert cache.remove_oldest(tmp_path, 150) == ["old.program"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(cache.VARIABLE, str(tmp_path))
        assert cache.remove_oldest(tmp_path, 150) == ["oldest-cache", "newer-cache"]
        os.utime(tmp_path / "x.partial", (now - 7200, now - 7200))
        assert cache.remove_oldest(tmp_path, 0) == ["x.partial", "new.program"]
    assert [path.name for path in tmp_path.iterdir()] == ["users.txt"]


def test_the_cache_is_kept_within_its_limit(compiled, folder, monkeypatch, tmp_path):
    train(tmp_path / "first")
    monkeypatch.setattr(cache.remove_oldest, "__defaults__", (1,))
    train(tmp_path / "second", seeds=2)
    assert len(compiled) == 2
    assert cache.entries(folder) == []


def test_a_folder_that_others_can_access_keeps_no_program(folder):
    assert file_of() is not None
    folder.chmod(0o755)
    assert file_of() is None


def test_the_command_shows_and_clears(folder, capsys, monkeypatch):
    (folder / "a.program").write_bytes(b"x" * 2**20)
    (folder / "mine.txt").write_text("x")
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"{folder}: 1 files, 1.0 MiB of at most 1024 MiB\n"
    assert main(["cache", "--clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"folder": str(folder), "files": 0, "bytes": 0, "limit": 2**30}
    assert [path.name for path in folder.iterdir() if path.name != compilation_cache.CHECKED] == ["mine.txt"]
    given = folder.parent / "given-to-jax"
    given.mkdir(mode=0o700)
    (given / "b.program").write_bytes(b"x" * 2**20)
    (given / "jit_mine-cache").write_text("JAX's")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(given))
    assert main(["cache", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["folder"] == str(folder)
    monkeypatch.delenv(cache.VARIABLE)
    assert main(["cache", "--clear"]) == 0
    assert capsys.readouterr().out == f"{given}: 0 files, 0.0 MiB of at most 1024 MiB\n"
    assert [path.name for path in given.iterdir()] == ["jit_mine-cache"]
    assert main(["cache", "--help"]) == 0
    assert "--clear" in capsys.readouterr().out
    assert main(["cache", "--all"]) == 2
    assert capsys.readouterr().err == "purejaxrl: cache: unexpected '--all'; it takes --clear and --json\n"
