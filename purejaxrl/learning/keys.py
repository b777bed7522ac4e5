"""Random keys as the input of a scan."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
from jaxtyping import Array, UInt32

from purejaxrl.types import ScalarKey


def split_for_scan(
    key: ScalarKey, shape: int | tuple[int, ...]
) -> tuple[UInt32[Array, "*shape words"], Callable[[Array], Array]]:
    """Split a key into bits to scan over, and the function that makes keys of them again. Consumes `key`.

    Bits, because under `vmap` a scan transposes its inputs, and JAX's check for reused keys (jax_debug_key_reuse)
    takes a transposed array of keys for used ones.
    """
    wrap = partial(jax.random.wrap_key_data, impl=jax.random.key_impl(key))
    return jax.random.key_data(jax.random.split(key, shape)), wrap
