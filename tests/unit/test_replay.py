"""The ring holds exactly the newest rows, however it is written, and packing loses nothing."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl.components import replay as ring
from purejaxrl.envs import make

LAYOUT = ring.make_layout(jax.ShapeDtypeStruct((), jnp.int32))


@pytest.mark.parametrize(("capacity", "block"), [(12, 1), (12, 3), (13, 3), (16, 16), (20, 16), (5, 4)])
def test_serial_numbers_through_two_wrap_arounds(capacity, block):
    """Rows carry serial numbers; at every iteration what can be drawn is exactly the newest `capacity` of them, each
    with those of the next two blocks, as far as they have been written."""
    replay = ring.init_replay(capacity, block, LAYOUT)
    iterations = 2 * (replay.rows.shape[0] // block) + 3

    @jax.jit
    def write_and_draw(replay, iteration, key):
        serials = iteration * block + jnp.arange(1, block + 1)
        replay = ring.add(replay, serials.astype(jnp.float32)[:, None], iteration)
        return replay, ring.sample(key, replay, 40 * capacity, capacity, block, iteration, length=3)

    for iteration in range(iterations):
        replay, (rows, is_stored) = write_and_draw(replay, iteration, jax.random.key(iteration))
        serials = np.asarray(rows)[:, :, 0].astype(int)
        written = (iteration + 1) * block
        expected = range(max(1, written - capacity + 1), written + 1)
        assert set(serials[:, 0]) == set(expected)
        following = serials[:, :1] + block * np.arange(3)
        np.testing.assert_array_equal(is_stored, following <= written)
        np.testing.assert_array_equal(serials[is_stored], following[is_stored])


def test_draws_are_uniform():
    capacity, draws = 10, 100_000
    replay = ring.Replay(jnp.arange(10.0)[:, None])
    rows, _ = ring.sample(jax.random.key(0), replay, draws, capacity, 1, jnp.int32(9))
    counts = np.bincount(np.asarray(rows)[:, 0, 0].astype(int), minlength=10)
    chi_square = np.sum((counts - draws / 10) ** 2 / (draws / 10))
    assert chi_square < 27.9  # 99.9% quantile of chi-square with 9 degrees of freedom


def test_pack_and_unpack():
    items = {
        "observation": jnp.arange(2 * 3 * 4, dtype=jnp.float32).reshape(2, 3, 4) / 7,
        "action": jnp.array([0, 2**24], jnp.int32),
        "flag": jnp.array([True, False]),
    }
    rows = ring.pack(items)
    assert rows.shape == (2, 14)
    layout = ring.make_layout(jax.tree.map(lambda x: x[0], items))
    chex.assert_trees_all_equal(ring.unpack(rows, layout), items, strict=True)


def test_state_transitions_are_small():
    """100 000 CartPole transitions take under 6 MB."""
    from purejaxrl.agents import dqn

    replay = jax.eval_shape(lambda: ring.init_replay(100_000, 1, dqn.step_layout(make("CartPole-v0"))))
    assert replay.rows.size * 4 < 6e6
