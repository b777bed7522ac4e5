"""Random keys: JAX's generator threefry without its loop, integers without divisions, keys as the input of a scan.

Gain on CPU: a step of CartPole under a random policy takes 90 ns in place of 2534, 512 random indices 16 us in place of
24. JAX's program loops over threefry's rounds, which costs microseconds even for the few numbers that an environment's
step draws; written out, the rounds are fused with what uses them. The bits are the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.random import define_prng_impl
from jaxtyping import Array, Int, UInt, UInt32

from purejaxrl.kernels import faster_than
from purejaxrl.types import ScalarKey

# Salmon et al. 2011 (doi:10.1145/2063384.2063405), Threefry-2x32: five groups of four rounds.
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
# Groups after which a kernel ends, so that none holds more than 12 rounds in a row: the last 4 of one call and the
# first 8 of the next. The vectorizer of the LLVM in JAX 0.11 follows every path through a chain of scalar operations,
# and the paths more than double with every round: 20 rounds in a row compile for many minutes, 12 for milliseconds.
KERNEL_ENDS = (1, 3)


def reference_unrolled(key: ScalarKey) -> ScalarKey:
    """Return the key itself, the plain reference of `unrolled`.

    Args:
        key: A random key, which is consumed.

    Returns:
        The key.
    """
    return key


@faster_than(reference_unrolled)
def unrolled(key: ScalarKey) -> ScalarKey:
    """Convert a threefry key to one that draws the same numbers faster.

    Keys of other generators stay as they are. So do threefry keys where jax_threefry_partitionable is off, which makes
    JAX draw other numbers.

    Args:
        key: A random key, which is consumed.

    Returns:
        The key.
    """
    if jax.random.key_impl(key) != "threefry2x32" or not jax.threefry_partitionable.value:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=UNROLLED_THREEFRY)


def is_key(leaf: Any) -> bool:
    """Check whether an array holds random keys.

    Args:
        leaf: An array, or its shape and type.

    Returns:
        Whether it does.
    """
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def wrap_keys(bits: Array, shape: jax.ShapeDtypeStruct) -> Array:
    """Restore random keys from the bits that jax.random.key_data returned.

    Args:
        bits: The bits.
        shape: Shape and type of the keys, which tell the generator that they belong to.

    Returns:
        The keys.
    """
    found: list[Any] = []
    jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), jax.ShapeDtypeStruct((), shape.dtype))
    return jax.random.wrap_key_data(bits, impl=found[0])


def split_for_scan(
    key: ScalarKey, shape: int | tuple[int, ...]
) -> tuple[UInt32[Array, "*shape words"], Callable[[Array], Array]]:
    """Split a key into raw bits to scan over, and a function that converts these to keys.

    Bits are used because under `vmap` a scan transposes its inputs, and JAX's check for reused keys
    (jax_debug_key_reuse) takes a transposed array of keys for used ones.

    Args:
        key: A random key, which is consumed.
        shape: Shape of the array of keys.

    Returns:
        The bits [*shape, words], and the function from bits [..., words] to keys [...].
    """
    wrap = partial(jax.random.wrap_key_data, impl=jax.random.key_impl(key))
    return jax.random.key_data(jax.random.split(key, shape)), wrap


def reference_integers_below(key: ScalarKey, limit: Int[Array, ""], shape: tuple[int, ...]) -> Int[Array, "*shape"]:
    """Draw integers uniformly from 0 up to, and without, a limit.

    Args:
        key: A random key, which is consumed.
        limit: The limit, at least 1.
        shape: Shape of the result.

    Returns:
        Integers [*shape].
    """
    return jax.random.randint(key, shape, 0, limit)


@faster_than(reference_integers_below)
def integers_below(key: ScalarKey, limit: Int[Array, ""], shape: tuple[int, ...]) -> Int[Array, "*shape"]:
    """Draw the same integers as jax.random.randint(key, shape, 0, limit), faster.

    Args:
        key: A random key, which is consumed.
        limit: The limit, at least 1.
        shape: Shape of the result.

    Returns:
        Integers [*shape], from 0 to limit - 1.
    """
    high, low = (jax.random.bits(half, shape, jnp.uint32) for half in jax.random.split(key))
    divisor = limit.astype(jnp.uint32)
    # 2^32 modulo the divisor, as what `high` counts are multiples of 2^32.
    step = jnp.square(jnp.uint32(2**16) % divisor) % divisor
    return remainder(remainder(high, divisor) * step + remainder(low, divisor), divisor).astype(jnp.int32)


def remainder(x: UInt32[Array, "*shape"], divisor: UInt32[Array, ""]) -> UInt32[Array, "*shape"]:
    """Compute x % divisor of many x by multiplications, as processors have no vector instruction for integer division.

    The reciprocal m = floor((2^32 - 1) / divisor) and the three products of halves of words, each rounded down, put
    the quotient x m / 2^32 at most 4 too low (Barrett 1986, doi:10.1007/3-540-47721-7_24).

    Args:
        x: The dividends.
        divisor: The divisor, at least 1.

    Returns:
        The remainders, of the shape of x.
    """
    reciprocal = jnp.uint32(2**32 - 1) // divisor
    (x_high, x_low), (m_high, m_low) = ((word >> 16, word & 0xFFFF) for word in (x, reciprocal))
    quotient = x_high * m_high + (x_high * m_low >> 16) + (x_low * m_high >> 16)
    rest = x - quotient * divisor
    for _ in range(4):
        rest = jnp.minimum(rest, rest - divisor)  # below 0 it wraps around, and is the larger one
    return rest


def threefry(
    key: UInt32[Array, "2"], high: UInt32[Array, "*shape"], low: UInt32[Array, "*shape"]
) -> tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]:
    """Compute two random words for each counter by encrypting it with a key (Salmon et al. 2011, Threefry-2x32).

    Args:
        key: The two words of a key, [2].
        high: High words of the 64-bit counters, [*shape].
        low: Low words of the counters, [*shape].

    Returns:
        The first and the second random word of each counter, [*shape] each.
    """
    words = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(PARITY))
    x, y = high + words[0], low + words[1]
    for group in range(5):
        for distance in ROTATIONS[group % 2]:
            x += y
            y = (y << distance | y >> (32 - distance)) ^ x
        x += words[(group + 1) % 3]
        y += words[(group + 2) % 3] + jnp.uint32(group + 1)
        if group in KERNEL_ENDS:
            x, y = _end_kernel(x, y)
    return x, y


@jax.jit
def _end_kernel(
    x: UInt32[Array, "*shape"], y: UInt32[Array, "*shape"]
) -> tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]:
    """Return the same words; on CPU, XLA does not fuse the operations before with those after.

    Jitted only so that it is traced once.
    """
    return jax.lax.platform_dependent(x, y, cpu=barrier, default=unchanged)


def barrier(*words: Array) -> tuple[Array, ...]:
    """Return the same words behind a barrier to fusion.

    Args:
        *words: Arrays.

    Returns:
        The arrays.
    """
    return jax.lax.optimization_barrier(words)


def unchanged(*words: Array) -> tuple[Array, ...]:
    """Return the same words without a barrier to fusion.

    Args:
        *words: Arrays.

    Returns:
        The arrays.
    """
    return words


def counters(shape: tuple[int, ...]) -> tuple[UInt32[Array, "*shape"], UInt32[Array, "*shape"]]:
    """Return the counters 0, 1, 2, ... in an array of a given shape.

    JAX's arrays on one device have fewer than 2^32 items, so the high words are 0.

    Args:
        shape: The shape.

    Returns:
        High and low words of the counters, [*shape] each.
    """
    low = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    return jnp.zeros_like(low), low


def _seed_key(seed: Array) -> UInt32[Array, "2"]:
    """Return the two words of the key that JAX makes from a seed."""
    return jax.random.key_data(jax.random.key(seed, impl="threefry2x32"))


def _split_key(key: UInt32[Array, "2"], shape: tuple[int, ...]) -> UInt32[Array, "*shape 2"]:
    """Split a key into an array of new keys."""
    return jnp.stack(threefry(key, *counters(shape)), axis=-1)


def _random_bits(key: UInt32[Array, "2"], bit_width: int, shape: tuple[int, ...]) -> UInt[Array, "*shape"]:
    """Draw whole numbers of a given number of random bits."""
    x, y = threefry(key, *counters(shape))
    if bit_width == 64:
        return x.astype(jnp.uint64) << 32 | y.astype(jnp.uint64)
    return (x ^ y).astype(f"uint{bit_width}")


def fold_in(key: UInt32[Array, "2"], data: Any) -> UInt32[Array, "2"]:
    """Derive a new key from a key and a number.

    Args:
        key: The two words of a key, [2].
        data: A whole number below 2^32.

    Returns:
        The words of the new key, [2].
    """
    return jnp.stack(threefry(key, jnp.uint32(0), data.astype(jnp.uint32)))


UNROLLED_THREEFRY = define_prng_impl(
    key_shape=(2,),
    seed=_seed_key,
    split=_split_key,
    random_bits=_random_bits,
    fold_in=fold_in,
    name="threefry2x32_unrolled",
    tag="unrolled_fry",
)
