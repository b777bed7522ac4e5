"""Experiments: planning, running, recording and resuming a training."""
