"""JAX's global settings: whatever they are, a training and its policies are the same, or a line says why not."""

import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import purejaxrl
from purejaxrl.agents import AGENTS
from purejaxrl.errors import InputError
from purejaxrl.experiment import run as run_module
from purejaxrl.training import compilation
from purejaxrl.training.jax_settings import REQUIRED, standard_jax

# A setting, its value for everything in this package, and another.
HELD = {
    "jax_enable_x64": (False, True),
    "jax_numpy_dtype_promotion": ("standard", "strict"),
    "jax_default_matmul_precision": (None, "bfloat16"),
    "jax_default_prng_impl": ("threefry2x32", "rbg"),
    "jax_threefry_partitionable": (True, False),
    "jax_softmax_custom_jvp": (False, True),
    "jax_debug_nans": (False, True),
    "jax_debug_infs": (False, True),
    "jax_disable_jit": (False, True),
    "jax_transfer_guard": ("allow", "disallow"),
}
TINY = {
    "vpg": {"epochs": 2, "steps_per_epoch": 40, "actors": 2},
    "a3c": {"env_steps": 80, "actors": 2, "t_max": 20, "eval_every": 40, "eval_episodes": 2},
    "dqn": {"observation_type": "default", "env_steps": 200, "batch_size": 16, "memory_size": 64},
}


@pytest.fixture
def settings():
    """What sets JAX's settings for the process, as environment variables do, until the test ends."""
    before = {name: getattr(jax.config, name) for name in [*HELD, *REQUIRED] if name != "jax_transfer_guard"}
    yield lambda **values: [jax.config.update(name, value) for name, value in values.items()]
    for name, value in (before | {"jax_transfer_guard": "allow"}).items():
        jax.config.update(name, value)


@pytest.mark.parametrize("name", [name for name in HELD if name != "jax_transfer_guard"])
def test_each_is_held_and_given_back(name, settings):
    standard, other = HELD[name]
    settings(**{name: other})
    with standard_jax():
        assert getattr(jax.config, name) == standard
        with standard_jax():
            pass
        assert getattr(jax.config, name) == standard
    assert getattr(jax.config, name) == other


def test_the_thread_that_compiles_holds_them_too(settings, monkeypatch):
    """JAX's settings go by thread."""
    compile_lowered, seen = jax.stages.Lowered.compile, []

    def spy(lowered, *arguments):
        seen.append((threading.current_thread() is threading.main_thread(), jax.config.jax_enable_x64))
        return compile_lowered(lowered, *arguments)

    monkeypatch.setattr(jax.stages.Lowered, "compile", spy)
    monkeypatch.setattr(run_module, "compile_fitting", compilation.compile_fitting)
    settings(jax_enable_x64=True)
    purejaxrl.train("vpg", **TINY["vpg"])
    assert set(seen) == {(False, False)}


FILES = ("params/last.safetensors", "metrics.csv", "episodes.csv")


@pytest.mark.parametrize("algorithm", ["vpg", *(pytest.param(name, marks=pytest.mark.slow) for name in ("a3c", "dqn"))])
def test_trainings_are_the_same_under_all_of_them(algorithm, settings, tmp_path, monkeypatch):
    # Programs that other tests have compiled would not be traced under these settings.
    monkeypatch.setattr(run_module, "compile_fitting", compilation.compile_fitting)
    for name in ("standard", "other"):
        purejaxrl.train(algorithm, out=tmp_path / name, **TINY[algorithm])
        settings(**{name: other for name, (_, other) in HELD.items()})
    for name in FILES:
        assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "standard" / name).read_bytes()


@pytest.mark.slow
def test_everything_that_comes_after_a_training_is_the_same_under_all_of_them(settings, tmp_path):
    trained = purejaxrl.sweep("vpg", seeds=2, out=tmp_path / "run", **TINY["vpg"])
    observations = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)

    def outcome():
        result = purejaxrl.load(tmp_path / "run")
        return [
            np.asarray(result.policy()(observations)).tolist(),
            result.evaluate(episodes=2).returns["return"].tolist(),
            purejaxrl.evaluate(tmp_path / "run", episodes=2, backend="gymnasium")["return"].tolist(),
            result.video(tmp_path / "video.gif", max_steps=4).read_bytes(),
            trained[1].state.episode.returns.tolist(),
        ]

    expected = outcome()
    purejaxrl.sweep("vpg", seeds=2, out=tmp_path / "whole", **{**TINY["vpg"], "epochs": 3})
    settings(**{name: other for name, (_, other) in HELD.items()})
    assert outcome() == expected
    purejaxrl.resume(tmp_path / "run", extend=3)
    for name in FILES:
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(("name", "value"), [("jax_random_seed_offset", 5), ("jax_high_dynamic_range_gumbel", True)])
def test_what_cannot_be_held_is_refused_by_name(name, value, settings):
    settings(**{name: value})
    with pytest.raises(InputError, match=f"^{name.upper()}: {value} is not allowed, .* it must be {REQUIRED[name]}$"):
        purejaxrl.train("vpg", **TINY["vpg"])


@pytest.mark.parametrize(
    ("algorithm", "fields"),
    [
        ("vpg", {"epochs": 1, "steps_per_epoch": 20}),
        ("a3c", {"episodes": None, "env_steps": 20, "t_max": 5, "order": "random"}),
        ("dqn", {"episodes": None, "env_steps": 20, "batch_size": 4, "memory_size": 100}),
    ],
)
def test_the_pure_function_keeps_the_precision_that_is_asked_for(algorithm, fields):
    """`make_train` is the caller's own computation: in float64 where JAX is."""
    agent = AGENTS[algorithm]
    with jax.enable_x64(True):
        train = purejaxrl.make_train(agent, agent.Config(actors=2, **fields), purejaxrl.make("CartPole-v0"))
        learner = jax.eval_shape(train, jax.random.key(0))[0].learner
    assert {leaf.dtype for leaf in jax.tree.leaves(learner[0])} == {jnp.dtype("float64")}


def run(words, **variables):
    command = [sys.executable, "-m", "purejaxrl", *words]
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


VPG = ["train", "vpg", "--epochs", "1", "--steps_per_epoch", "20", "--actors", "2", "--quiet"]


@pytest.mark.slow
def test_the_flag_for_the_cpu_is_stronger_than_the_variables(tmp_path):
    done = run([*VPG, "--out", str(tmp_path / "run")], JAX_PLATFORM_NAME="gpu", JAX_PLATFORMS="cuda")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="there is such a device")
@pytest.mark.parametrize("variable", ["JAX_PLATFORM_NAME", "JAX_PLATFORMS"])
def test_a_device_that_is_not_there_is_refused_by_the_variable_that_asks_for_it(variable, tmp_path):
    words = [*VPG, "--device", "auto", "--out", str(tmp_path / "run")]
    done = run(words, **{"JAX_PLATFORMS": "", variable: "cuda"})
    assert done.returncode == 2
    assert done.stderr.startswith(f"purejaxrl: {variable}: no cuda device here")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
