"""Settings of JAX that matter for results, held at fixed values during training.

JAX takes them from environment variables (JAX_ENABLE_X64=1) and from `jax.config.update`, for a whole process. What the
package does with them applies to the calling thread alone, and ends when the call does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import jax

from purejaxrl.errors import InputError

# What would change the numbers of a training: these have no context manager of JAX's own, so nothing else is taken.
REQUIRED = {"jax_random_seed_offset": 0, "jax_high_dynamic_range_gumbel": False}


@contextmanager
def standard_jax() -> Iterator[None]:
    """Run a block, or as a decorator a function, under the settings of JAX that all of the package's results are for.

    Precision, type promotion, the random number generator and softmax's derivative decide results. NaN and infinity
    stand for what is not known yet; `--debug` finds those that are mistakes. Host and device exchange arrays as needed.
    Nested calls are harmless. JAX keeps these settings by thread: a new thread has to enter for itself.

    Yields:
        None, while the settings hold.

    Raises:
        InputError: If a setting that cannot be held has another value than REQUIRED, or if JAX has no device of the
            kind that its own settings ask for.
    """
    _check_required()
    _check_platform()
    with ExitStack() as settings:
        settings.enter_context(jax.enable_x64(False))
        settings.enter_context(jax.numpy_dtype_promotion("standard"))
        settings.enter_context(jax.default_matmul_precision(None))
        settings.enter_context(jax.default_prng_impl("threefry2x32"))
        settings.enter_context(jax.threefry_partitionable(True))
        settings.enter_context(jax.softmax_custom_jvp(False))
        settings.enter_context(jax.debug_nans(False))
        settings.enter_context(jax.debug_infs(False))
        settings.enter_context(jax.disable_jit(False))
        settings.enter_context(jax.transfer_guard("allow"))
        yield


def _check_required() -> None:
    """Check that the settings which cannot be held have their required values."""
    for name, value in REQUIRED.items():
        found = jax.config.values[name]
        if found != value:
            raise InputError(
                f"{name.upper()}: {found} is not allowed, as it changes what seeds draw; it must be {value}"
            )


def _check_platform() -> None:
    """Check that JAX can start its devices."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = {name: jax.config.values[name] for name in ("jax_platform_name", "jax_platforms")}
        found = [f"{name.upper()}: no {value} device here" for name, value in asked.items() if value]
        words = " ".join(str(error).split())
        raise InputError(f"{found[0] if found else 'JAX finds no device'}{f' ({words})' if words else ''}") from error
