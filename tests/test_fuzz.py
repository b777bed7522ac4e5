"""Runs generated.py in processes without the suite's own type checks, which users do not have either."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    "names", ["command_line or heap", "python_calls or codes", pytest.param("damaged", marks=pytest.mark.slow)]
)
def test_whatever_is_put_in_one_line_comes_out(names):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:xdist",
            "-p",
            "no:cacheprovider",
            "-k",
            names,
            HERE / "generated.py",
        ],
        env={**os.environ, "PUREJAXRL_TESTS_UNTYPED": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
