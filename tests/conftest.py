"""Checks that are on for the whole suite: shapes and types of every call, key reuse, rank promotion."""

import gc
import importlib
import os
import signal
from pathlib import Path

import jax
import jaxtyping
import pytest

# What users type wrongly must meet the package's own checks: tests/test_fuzz.py runs without these.
CHECKER = None if "PUREJAXRL_TESTS_UNTYPED" in os.environ else "typechecking.typechecked"
if CHECKER is not None:
    jaxtyping.install_import_hook("purejaxrl", CHECKER)

if "PUREJAXRL_COVERAGE" in os.environ:
    import covering

    os.environ["PUREJAXRL_COVERAGE"] = os.path.abspath(os.environ["PUREJAXRL_COVERAGE"])
    COVERED = covering.begin(CHECKER)

    def pytest_sessionfinish():
        """Leave what this process has covered."""
        covering.leave(COVERED)


# As in the command line: what tracing allocates lives on, and looking for garbage in it takes an eighth of the time.
gc.set_threshold(100_000, 50, 100)

# A shell starts what runs in the background with SIGINT ignored, and Python and its children leave that as it is.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def untyped(monkeypatch):
    """Calls are checked as users' are, who have none of the suite's own checks of shapes and types."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def covered_processes(monkeypatch):
    """The processes that a test starts count too. Not for every test: they take a second longer to start."""
    if "PUREJAXRL_COVERAGE" in os.environ:
        paths = [str(covering.TESTS / "covered"), *filter(None, [os.environ.get("PYTHONPATH")])]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


# What tests compile is not for the user's own cache. It stays from one session to the next, as compiling is most of the
# work; entries are found by the whole program, its flags and versions.
CACHE = Path(__file__).parents[1] / ".pytest_cache" / "programs"
CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
os.environ["PUREJAXRL_CACHE_DIR"] = str(CACHE)

jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
jax.config.update("jax_platforms", "cpu")
# It takes a seventh of the suite's time; make test-full has it.
jax.config.update("jax_debug_key_reuse", "PUREJAXRL_TESTS_KEYS_UNCHECKED" not in os.environ)
jax.config.update("jax_numpy_rank_promotion", "raise")

from purejaxrl.training import compilation_cache, devices  # noqa: E402 (its types are to be checked too)

devices.ask_for_cpu_devices(2)
# Else a thread would import them beside a training, and jaxtyping's hook makes syntax trees of what is imported, which
# two threads must not do at once (Python 3.11).
for name in ("figures", "statistics"):
    importlib.import_module(f"purejaxrl.analysis.{name}")
if "PYTEST_XDIST_WORKER" not in os.environ:
    compilation_cache.remove_damaged(CACHE)


@pytest.fixture(scope="session", autouse=True)
def compiled_once():
    """Trainings of the same shape share a program, as most of the suite's time would be spent making it again."""
    from helpers import remembered

    from purejaxrl.experiment import kept_programs, plan
    from purejaxrl.experiment import run as run_module
    from purejaxrl.training import programs as programs_module

    compile_fitting, programs = run_module.compile_fitting, {}

    def compiled(agent, env, config, runs, budget, local, *, memory_limit, should_stop, **options):
        # Only what a test gives as the limit is small; else it is what this machine has at the moment.
        limit = min(memory_limit, 2**30)
        shape = (agent, env, jax.tree.structure(config), runs, budget, *local, limit, *options.items())
        if shape not in programs:
            options |= {"memory_limit": memory_limit, "should_stop": should_stop}
            programs[shape] = compile_fitting(agent, env, config, runs, budget, local, **options)
            # They take memory, and tests of the same shape stand together.
            if len(programs) > 8:
                del programs[next(iter(programs))]
        return programs[shape]

    with pytest.MonkeyPatch.context() as patch:
        # tests/test_programs.py looks at what the package keeps itself.
        patch.setattr(programs_module, "MAX_PROGRAMS", 0)
        patch.setattr(run_module, "compile_fitting", compiled)
        # tests/test_executables.py looks at what is kept on disk.
        patch.setattr(kept_programs, "find_file", lambda *_: None)
        # Environments of the same name and options are one object, or their programs would be told apart.
        patch.setattr(plan, "make", remembered(plan.make))
        yield


@pytest.fixture(scope="session")
def render_by_gymnasium():
    """gymnasium's frame of a state: (x, theta) -> [400, 600, 3]."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDL_VIDEODRIVER", "dummy")
        patch.setenv("SDL_AUDIODRIVER", "dummy")
        patch.setenv("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        from gymnasium.envs.classic_control.cartpole import CartPoleEnv

        env = CartPoleEnv(render_mode="rgb_array")

        def render(x, theta):
            env.state = (float(x), 0.0, float(theta), 0.0)
            return env.render()

        yield render
        env.close()
