"""Runs programs_on_disk.py in a process without the suite's own type checks, which are no installed package's code."""

import pytest
from helpers import assert_passes_untyped


@pytest.mark.parametrize("ring", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_programs_on_disk(ring):
    assert_passes_untyped("programs_on_disk.py", "-m", ring)
