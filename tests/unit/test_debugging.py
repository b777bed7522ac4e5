"""Debug mode on single operations: what it finds, and where it says that it is."""

import jax.numpy as jnp
import pytest

from purejaxrl.errors import DivergedError
from purejaxrl.training import debugging

VALUES = jnp.array([1.0, 0.0, -1.0])


def read(values, index):
    return values[index]


def write(values, index):
    return values.at[index].set(2.0)


def divide(values, index):
    return values[0] / values[index]


def root(values, index):
    return jnp.sqrt(values[index])


def call(function, index):
    arguments = (VALUES, jnp.int32(index))
    return debugging.raising(debugging.jit_checked(function).lower(*arguments).compile())(*arguments)


@pytest.mark.parametrize(
    ("function", "index", "found"),
    [(read, 3, "out-of-bounds"), (write, 5, "out-of-bounds"), (divide, 1, "division by zero"), (root, 2, "nan")],
)  # fmt: skip
def test_it_names_what_is_wrong_and_the_line(function, index, found):
    with pytest.raises(DivergedError, match=rf"debug: .*{found}.* at .*test_debugging\.py:\d+, in {function.__name__}"):
        call(function, index)


@pytest.mark.parametrize("function", [read, write, divide, root])
def test_what_is_sound_passes_and_is_returned(function):
    assert jnp.array_equal(call(function, 0), function(VALUES, 0))
