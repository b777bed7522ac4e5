"""Runs first in every process that has this folder on its PYTHONPATH; see ../covering.py."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import covering

covering.begin(leave_at_exit=True)
