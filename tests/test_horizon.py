"""Trainings of different length are compared at the env steps that both have."""

import numpy as np
import pytest

import purejaxrl
from purejaxrl.analysis.compare import compare

LITTLE = {"steps_per_epoch": 600, "actors": 4, "train_v_iters": 1, "hidden_sizes": (4,), "seeds": 3, "log_every": 600}


@pytest.mark.parametrize(
    "stopping", [{}, pytest.param({"stop_when_solved": True, "solved_at": 23.5}, marks=pytest.mark.slow)]
)
def test_a_training_at_a_horizon_is_the_training_that_ended_there(tmp_path, stopping):
    """A larger budget changes nothing of what came before."""
    paths = [tmp_path / "short", tmp_path / "long"]
    for path, epochs in zip(paths, (6, 9), strict=True):
        purejaxrl.train("vpg", **LITTLE, **stopping, epochs=epochs, out=path)
    comparison = compare(paths)
    assert comparison.horizon == 3600
    whole, cut = (scores._asdict() for scores in comparison.scores)
    assert np.isfinite(whole["final_return"]).all()
    for name, values in whole.items():
        np.testing.assert_allclose(cut[name], values, rtol=1e-6, err_msg=name)
    if stopping:
        assert np.isfinite(whole["env_steps_to_solve"]).any()
        assert np.isinf(whole["env_steps_to_solve"]).any()
