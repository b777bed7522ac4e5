"""Runs programs_on_disk.py in a process without the suite's own type checks, which are no installed package's code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("ring", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_programs_on_disk(ring):
    words = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", ring]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words, Path(__file__).with_name("programs_on_disk.py")],
        env={**os.environ, "PUREJAXRL_TESTS_UNTYPED": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
