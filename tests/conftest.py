"""Checks that are on for the whole suite: shapes and types of every call, key reuse, rank promotion."""

import os
import tempfile

import jax
import pytest
from jaxtyping import install_import_hook

# What users type wrongly must meet the package's own checks: tests/test_fuzz.py runs without these.
if "PUREJAXRL_TESTS_UNTYPED" not in os.environ:
    install_import_hook("purejaxrl", "typechecking.typechecked")

# What tests compile is not for the user's own cache. The processes of one session share a folder, made by the first, as
# many tests compile the same program.
if "PYTEST_XDIST_WORKER" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="purejaxrl-tests-")
    os.environ["PUREJAXRL_CACHE_DIR"] = CACHE.name

jax.config.update("jax_compilation_cache_dir", os.environ["PUREJAXRL_CACHE_DIR"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def draw_by_gymnasium():
    """gymnasium's picture of a state: (x, theta) -> [400, 600, 3]."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDL_VIDEODRIVER", "dummy")
        patch.setenv("SDL_AUDIODRIVER", "dummy")
        patch.setenv("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        from gymnasium.envs.classic_control.cartpole import CartPoleEnv

        env = CartPoleEnv(render_mode="rgb_array")

        def draw(x, theta):
            env.state = (float(x), 0.0, float(theta), 0.0)
            return env.render()

        yield draw
        env.close()
