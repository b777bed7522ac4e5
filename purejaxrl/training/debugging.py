"""Debug mode: every operation of a program is checked for NaN, division by zero and indices out of bounds.

Out-of-bounds reads are clamped and writes dropped without a word otherwise, and a NaN is noticed when it has spread.
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
    """Jit a function with the checks; what it returns stands behind what they have found."""
    return jax.jit(checkify.checkify(function, errors=CHECKS))


def raising(compiled: Callable[..., tuple[Any, Any]]) -> Callable[..., Any]:
    """A compiled checked function that raises DivergedError, naming operation and line, at the first thing found."""
    return partial(call_checked, compiled)


def call_checked(compiled: Callable[..., tuple[Any, Any]], *args: Any) -> Any:
    """The result of a compiled checked function. Raises DivergedError, see `raising`."""
    found, result = compiled(*args)
    error = found.get_exception()
    if error is not None:
        message = " ".join(str(error).split()).rstrip(".")
        raise DivergedError(f"--debug: {message}{place_of(getattr(error, 'traceback_info', None))}")
    return result


def place_of(found: Any) -> str:
    """Where the innermost line outside JAX and the like stands, in words; empty where that is not known."""
    if not hasattr(found, "as_python_traceback"):
        return ""
    frames = traceback.extract_tb(found.as_python_traceback())
    own = [frame for frame in frames if not any(name in frame.filename for name in FOREIGN)]
    return f" at {own[-1].filename}:{own[-1].lineno}, in {own[-1].name}: {own[-1].line}" if own else ""
