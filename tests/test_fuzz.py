"""Runs generated.py in processes without the suite's own type checks, which users do not have either."""

import pytest
from helpers import assert_passes_untyped


@pytest.mark.parametrize(
    "names", ["command_line or heap", "python_calls or codes", pytest.param("damaged", marks=pytest.mark.slow)]
)
def test_whatever_is_put_in_one_line_comes_out(names):
    assert_passes_untyped("generated.py", "-k", names)
