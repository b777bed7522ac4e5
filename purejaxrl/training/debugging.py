"""Debug mode: every operation of a program is checked for NaN, division by zero and indices out of bounds.

Without it out-of-bounds reads are clamped and writes dropped silently, and a NaN is noticed only once it has spread.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.experimental import checkify

from purejaxrl.errors import DivergedError

CHECKS = checkify.float_checks | checkify.index_checks
# Frames of these packages are not where a mistake is.
FOREIGN = ("/jax/", "/jaxlib/", "/flax/", "/optax/")


def jit_checked(function: Callable[..., Any]) -> Any:
    """Jit a function with checks of its operations.

    Args:
        function: The function.

    Returns:
        A jitted function that returns the error found, and the function's result.
    """
    return jax.jit(checkify.checkify(function, errors=CHECKS))


def raising(compiled: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
    """Make a compiled checked function raise its errors, naming operation and line.

    Args:
        compiled: A compiled function of `jit_checked`.

    Returns:
        A function that returns the result, or raises DivergedError at the first error found.
    """
    return partial(_call_checked, compiled)


def _call_checked(compiled: Callable[..., tuple[Any, Any]], *args: Any) -> Any:
    """Call a compiled checked function and raise the error that it found."""
    found, result = compiled(*args)
    error = found.get_exception()
    if error is not None:
        message = " ".join(str(error).split()).rstrip(".")
        raise DivergedError(f"--debug: {message}{_place_of(getattr(error, 'traceback_info', None))}")
    return result


def _place_of(found: Any) -> str:
    """Describe the innermost line of a traceback that is outside of JAX and similar packages."""
    if not hasattr(found, "as_python_traceback"):
        return ""
    frames = traceback.extract_tb(found.as_python_traceback())
    own = [frame for frame in frames if not any(name in frame.filename for name in FOREIGN)]
    return f" at {own[-1].filename}:{own[-1].lineno}, in {own[-1].name}: {own[-1].line}" if own else ""
