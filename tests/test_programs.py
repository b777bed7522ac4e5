"""Compiled programs are used again for what they are right for, and for nothing else."""

import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Choice

import purejaxrl
from purejaxrl.agents import vpg
from purejaxrl.envs import make
from purejaxrl.experiment import run as run_module
from purejaxrl.training import compilation, programs
from purejaxrl.training.identity import identify

TINY = {
    "vpg": {"epochs": 2, "steps_per_epoch": 40, "actors": 2, "train_v_iters": 1, "hidden_sizes": (4,)},
    "a3c": {"env_steps": 80, "actors": 2, "t_max": 10, "hidden_sizes": (4,)},
    "dqn": {"preset": "tuned", "env_steps": 60, "batch_size": 8, "memory_size": 64, "hidden_sizes": (4,)},
}
FILES = ("episodes.csv", "metrics.csv", "params/last.safetensors")


@pytest.fixture(autouse=True)
def kept(monkeypatch):
    """Programs are kept as users have them kept, and the suite's own memory of programs is left out."""
    monkeypatch.setattr(programs, "MAX_PROGRAMS", 16)
    monkeypatch.setattr(run_module, "compile_fitting", compilation.compile_fitting)
    purejaxrl.clear_programs()
    yield
    purejaxrl.clear_programs()


@pytest.fixture
def compiled():
    """Names of the programs that XLA compiles while a function is called, or that are read from a disk."""
    names = []

    def listen(event, seconds, **details):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(details.get("fun_name", ""))

    jax.monitoring.register_event_duration_secs_listener(listen)

    def call(function, *args, **options):
        names.clear()
        function(*args, **options)
        return list(names)

    yield call
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("algorithm", ["a3c", *(pytest.param(name, marks=pytest.mark.slow) for name in ("vpg", "dqn"))])
def test_a_second_training_compiles_nothing(algorithm, compiled, tmp_path):
    settings = TINY[algorithm]
    assert compiled(purejaxrl.train, algorithm, **settings, out=tmp_path / "first")
    [budget] = [name for name in ("epochs", "env_steps") if name in settings]
    lr = "pi_lr" if algorithm == "vpg" else "lr"
    for changes in ({}, {"seed": 3}, {lr: 0.01}, {budget: settings[budget] + 40}):
        assert compiled(purejaxrl.train, algorithm, **{**settings, **changes}) == []
    # It is the training that a process of its own would do.
    purejaxrl.train(algorithm, **settings, out=tmp_path / "second")
    for name in FILES:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    purejaxrl.clear_programs()
    longer = {**settings, budget: settings[budget] + 40}
    purejaxrl.train(algorithm, **longer, out=tmp_path / "anew")
    purejaxrl.clear_programs()
    purejaxrl.train(algorithm, **settings)
    purejaxrl.train(algorithm, **longer, out=tmp_path / "kept")
    for name in FILES:
        assert (tmp_path / "anew" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()


def test_a_sweep_of_the_width_of_a_training_compiles_nothing(compiled):
    purejaxrl.train("vpg", seeds=4, **TINY["vpg"])
    assert compiled(purejaxrl.sweep, "vpg", seeds=2, pi_lr=[1e-3, 1e-2], **TINY["vpg"]) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_sizes": (5,)},
        *(
            pytest.param(changes, marks=pytest.mark.slow)
            for changes in (
                {"env_params": {"gravity": 5.0}},
                {"seeds": 2},
                {"devices": 1, "seeds": 2},
                {"env": "CartPole-v1"},
                {"max_ep_len": 11},
                {"stop_when_solved": True},
                {"eval_every": 40},
                {"eval_every": 40, "eval_episodes": 3},
                {"epochs": None, "env_steps": 80},
            )
        ),
    ],
    ids=str,
)
def test_what_decides_a_program_compiles_anew(changes, compiled):
    purejaxrl.train("vpg", **TINY["vpg"])
    assert any("advance_group" in name for name in compiled(purejaxrl.train, "vpg", **{**TINY["vpg"], **changes}))


def test_a_part_of_the_package_that_was_replaced_compiles_anew(compiled, monkeypatch, tmp_path):
    """Whoever tries an idea by assigning to a module gets what it says, and what the package says afterwards."""

    def train(out):
        names = compiled(purejaxrl.train, "vpg", **TINY["vpg"], out=tmp_path / out)
        return any("advance_group" in name for name in names), (tmp_path / out / FILES[2]).read_bytes()

    before = train("before")
    original = vpg.generalized_advantages
    with monkeypatch.context() as patch:
        patch.setattr(vpg, "generalized_advantages", lambda *args: -original(*args))
        is_compiled, params = train("replaced")
        assert is_compiled
        assert params != before[1]
    assert train("after") == (True, before[1])


def test_evaluations_and_videos_of_one_run_compile_once(compiled, tmp_path):
    result = purejaxrl.train("vpg", **TINY["vpg"], out=tmp_path / "run")
    calls = [(result.evaluate, {"episodes": 2}), (result.video, {"path": tmp_path / "one.gif", "max_steps": 2})]
    for call, arguments in calls:
        assert any(name for name in compiled(call, **arguments))
        assert compiled(call, **arguments) == []
    assert compiled(purejaxrl.evaluate, tmp_path / "run", episodes=2) == []


@pytest.mark.slow
def test_few_are_kept_and_all_can_be_forgotten(monkeypatch, compiled):
    monkeypatch.setattr(programs, "MAX_PROGRAMS", 2)
    sizes = [{**TINY["vpg"], "hidden_sizes": (size,)} for size in (2, 3, 4)]
    for settings in sizes:
        purejaxrl.train("vpg", **settings)
    assert compiled(purejaxrl.train, "vpg", **sizes[1]) == compiled(purejaxrl.train, "vpg", **sizes[2]) == []
    assert compiled(purejaxrl.train, "vpg", **sizes[0])
    purejaxrl.clear_programs()
    assert compiled(purejaxrl.train, "vpg", **sizes[0])


def defined(source, **names):
    """What a cell of a notebook defines, executed in these global variables."""
    module = types.ModuleType("__main__")
    vars(module).update({"jax": jax, "jnp": jnp, "nn": nn, "np": np, "vpg": vpg, "functools": functools, **names})
    exec(source, vars(module))
    return vars(module)


CELLS = {
    "a function": ("def loss(x): return x", "loss"),
    "a lambda": ("loss = lambda x: x + 1", "loss"),
    "a partial": ("def f(a, x): return x\nloss = functools.partial(f, 1)", "loss"),
    "a jitted function": ("@jax.jit\ndef loss(x): return x", "loss"),
    "a class": ("class Net(nn.Module):\n    size: int = 3\n    def __call__(self, x): return x\nnet = Net()", "net"),
    "an object": ("class Game:\n    speed = 1.0\n    def step(self): return self.speed\ngame = Game()", "game"),
}


@pytest.mark.parametrize("cell", CELLS)
def test_what_a_cell_defines_again_is_something_else(cell):
    source, name = CELLS[cell]
    names = defined(source)
    first = identify(names[name])
    assert first is not None
    assert identify(names[name]) == first
    exec(source, names)
    assert identify(names[name]) != first


@pytest.mark.parametrize(
    ("source", "again"),
    [
        ("def helper(x): return x\ndef loss(x): return helper(x)", "def helper(x): return -x"),
        ("scale = 1.0\ndef loss(x): return scale * x", "scale = 2.0"),
        ("table = np.ones(3)\ndef loss(x): return table * x", "table[0] = 2.0"),
        ("table = jnp.ones(3)\ndef loss(x): return table * x", "table = table.at[0].set(2.0)"),
        ("limits = {'low': [0, 1]}\ndef loss(x): return x + limits['low'][0]", "limits['low'][0] = 5"),
        ("def f(x): return g(x)\ndef g(x): return x\ndef loss(x): return [f(y) for y in x]", "def g(x): return -x"),
        ("class A:\n    def f(self): return 1\na = A()\ndef loss(x): return a.f()", "A.f = lambda self: 2"),
        ("class A:\n    n = 1\n    def __init__(self): self.m = 1\na = A()\ndef loss(x): return a.m", "a.m = 2"),
        ("class A:\n    n = 1\nclass B(A): pass\ndef loss(x): return B.n", "A.n = 2"),
        ("def make(n):\n    def inner(x): return x + n[0]\n    return inner\nn = [1]\nloss = make(n)", "n[0] = 2"),
        ("def f(x): return x\ndef loss(x, f=f): return f(x)", "loss.__defaults__ = (jnp.sin,)"),
        ("import types\nlib = types.ModuleType('lib')\nlib.f = abs\ndef loss(x): return lib.f(x)", "lib.f = jnp.cos"),
        (
            "import types\nlib = types.ModuleType('lib')\nlib.sub = types.ModuleType('lib.sub')\nlib.sub.f = abs\n"
            "def loss(x): return lib.sub.f(x)",
            "lib.sub.f = jnp.cos",
        ),
        (
            "import dataclasses\n@dataclasses.dataclass\nclass A:\n    n: int = 1\na = A()\na.m = 1\n"
            "def loss(x): return a.m * x",
            "a.m = 2",
        ),
    ],
)
def test_a_function_is_something_else_once_what_it_uses_is(source, again):
    names = defined(source)
    first = identify(names["loss"])
    assert first is not None
    assert identify(names["loss"]) == first
    exec(again, names)
    assert identify(names["loss"]) != first


def test_what_cannot_be_recognized_has_no_identity():
    class Slots:
        __slots__ = ("x",)

    assert identify(Slots()) is None
    assert jax.eval_shape(lambda x: jnp.zeros(1 if identify(x) is None else 2), jnp.ones(3)).shape == (1,)
    assert identify(np.zeros(2**22)) is None


def test_equal_numbers_of_other_types_differ():
    values = [1, True, 1.0, np.float32(1), "1", 0.0, -0.0, None, (1,), [1], jnp.ones(()), np.ones(1)]
    assert len({identify(value) for value in values}) == len(values)


def test_recursion_ends():
    names = defined("def loss(x): return other(x)\ndef other(x): return loss(x) if x else 0")
    assert identify(names["loss"]) == identify(names["loss"]) is not None


def test_environments_of_a_name_are_the_same():
    assert identify(make("CartPole-v0")) == identify(make("CartPole-v0"))
    assert identify(make("CartPole-v0")) != identify(make("CartPole-v1"))
    assert identify(make(Choice(), max_ep_len=3)) == identify(make(Choice(), max_ep_len=3))


def test_an_agent_defined_again_is_compiled_and_trained_anew(compiled):
    source = "def advantage(config, batch, value, next_value): return scale * jnp.ones_like(value)\nscale = 1.0"
    names = defined(source)
    results = []
    for cell in ("", "", "scale = 0.0", source, "def advantage(config, batch, value, next_value): return -value"):
        exec(cell, names)
        agent = vpg.agent._replace(name="mine", update=functools.partial(vpg.update, advantage=names["advantage"]))
        programs_compiled = compiled(lambda agent=agent: results.append(purejaxrl.train(agent, **TINY["vpg"])))
        assert any("advance_group" in name for name in programs_compiled) == (cell != "" or len(results) == 1)
    pi = [np.asarray(result.state.learner.params.pi["kernel_0"]) for result in results]
    np.testing.assert_array_equal(pi[0], pi[1])
    np.testing.assert_array_equal(pi[0], pi[3])
    assert not np.array_equal(pi[1], pi[2])
    assert not np.array_equal(pi[3], pi[4])
