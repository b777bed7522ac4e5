"""Checks that are on for the whole suite: shapes and types of every call, key reuse, rank promotion."""

import jax
from jaxtyping import install_import_hook

install_import_hook("purejaxrl", "typechecking.typechecked")

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
