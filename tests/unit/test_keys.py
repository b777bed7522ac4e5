"""The package's generator draws what JAX's draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purejaxrl.kernels.threefry import integers_below, remainder, split_for_scan, unrolled

DRAWS = {
    "split": lambda key: jax.random.key_data(jax.random.split(key)),
    "split into a shape": lambda key: jax.random.key_data(jax.random.split(key, (3, 4))),
    "fold_in": lambda key: jax.random.key_data(jax.random.fold_in(key, 12345)),
    "fold_in a large number": lambda key: jax.random.key_data(jax.random.fold_in(key, np.uint32(2**32 - 2))),
    "8 bits": lambda key: jax.random.bits(key, (5, 3), "uint8"),
    "16 bits": lambda key: jax.random.bits(key, (5, 3), "uint16"),
    "32 bits": lambda key: jax.random.bits(key, (5, 3), "uint32"),
    "one number": jax.random.bits,
    "none": lambda key: jax.random.bits(key, (0,)),
    "integers": lambda key: jax.random.randint(key, (700,), 0, jnp.int32(12345)),
    "uniform": lambda key: jax.random.uniform(key, (4,)),
    "normal": lambda key: jax.random.normal(key, (2, 3)),
    "permutation": lambda key: jax.random.permutation(key, 16),
    "scan": lambda key: split_for_scan(key, (2, 3))[0],
}


@pytest.mark.parametrize("name", DRAWS)
def test_same_numbers_as_jax(name):
    draw = DRAWS[name]
    for seed in (0, 1, 12345, 2**31 - 1, jnp.uint32(2**32 - 1)):
        ours, theirs = draw(unrolled(jax.random.key(seed))), draw(jax.random.key(seed))
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


LIMITS = [1, 2, 3, 7, 512, 513, 65535, 65536, 65537, 99_999, 100_000, 2**24 + 1, 2**29 + 12345, 2**30, 2**31 - 1]


@pytest.mark.parametrize("limit", LIMITS)
def test_same_integers_as_jax(limit):
    ours = integers_below(jax.random.key(limit), jnp.int32(limit), (700,))
    theirs = jax.random.randint(jax.random.key(limit), (700,), 0, limit)
    np.testing.assert_array_equal(ours, theirs)
    assert ours.dtype == theirs.dtype


def test_same_integers_where_jax_computes_in_64_bits():
    with jax.enable_x64(True):
        ours = integers_below(jax.random.key(3), jnp.int32(10), (700,))
    np.testing.assert_array_equal(ours, jax.random.randint(jax.random.key(3), (700,), 0, 10))
    assert ours.dtype == jnp.int32


@pytest.mark.parametrize("divisor", LIMITS)
def test_remainder_is_exact(divisor):
    multiples = divisor * np.linspace(1, (2**32 - 1) // divisor, 1000, dtype=np.uint64)
    words = np.concatenate([multiples - 1, multiples, [0, 1, 2**16 - 1, 2**16, 2**32 - 1]]).astype(np.uint32)
    np.testing.assert_array_equal(remainder(jnp.asarray(words), jnp.uint32(divisor)), words % divisor)


def test_same_64_bits_as_jax():
    with jax.enable_x64(True):
        ours, theirs = (
            jax.random.bits(key, (3,), "uint64") for key in (unrolled(jax.random.key(5)), jax.random.key(5))
        )
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == jnp.uint64


def test_same_numbers_in_a_batch_of_compiled_runs():
    seeds = jnp.arange(5, dtype=jnp.uint32)

    def draw(key):
        key, action_key = jax.random.split(key)
        return jax.random.key_data(key), jax.random.normal(action_key, (3,))

    ours = jax.jit(jax.vmap(lambda seed: draw(unrolled(jax.random.key(seed)))))(seeds)
    theirs = jax.vmap(lambda seed: draw(jax.random.key(seed)))(seeds)
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6)
    assert len(np.unique(ours[1])) == 15


def test_seeds_of_our_generator_are_jaxs():
    impl = jax.random.key_impl(unrolled(jax.random.key(0)))
    for seed in (3, 2**31 - 1):
        ours, theirs = (jax.random.key_data(jax.random.key(seed, impl=name)) for name in (impl, "threefry2x32"))
        np.testing.assert_array_equal(ours, theirs)


def test_other_generators_stay():
    key = jax.random.key(0, impl="rbg")
    assert unrolled(key) is key
    with jax.threefry_partitionable(False):
        key = jax.random.key(0)
        assert unrolled(key) is key
    again = unrolled(jax.random.key(0))
    assert unrolled(again) is again
