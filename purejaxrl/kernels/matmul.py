"""Matrix products of full float32.

Accelerators would round the factors to fewer bits by default. CPUs never do, nor does PyTorch unasked.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

product = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
contract = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
