"""Through a whole training with `jax.grad`, against central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import run_page


@pytest.mark.slow
def test_the_slope_of_the_final_loss_by_the_learning_rate(tmp_path):
    names = run_page("differentiate-training.md", tmp_path)
    slope, loss = names["slope"], names["loss"]
    assert slope.dtype == loss.dtype == jnp.float64
    assert abs(float(slope)) > 1e-3
    with jax.enable_x64(True):
        # Another small step, and one that is too large: an action flips, and the page's own check would see it.
        steps = 3e-2 + 1e-7 * np.array([1, -1])
        (above, _), (below, _) = (names["run"](step) for step in steps)
        np.testing.assert_allclose((above - below) / 2e-7, slope, rtol=1e-6)
        _, lengths = names["run"](6e-2)
    assert (lengths != names["lengths"]).any()
