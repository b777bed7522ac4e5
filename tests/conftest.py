"""Checks that are on for the whole suite: shapes and types of every call, key reuse, rank promotion."""

import os
import tempfile

import jax
from jaxtyping import install_import_hook

install_import_hook("purejaxrl", "typechecking.typechecked")

# Programs that tests compile through the command line are not for the user's own cache.
CACHE = tempfile.TemporaryDirectory(prefix="purejaxrl-tests-")
os.environ["PUREJAXRL_CACHE_DIR"] = CACHE.name

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_debug_key_reuse", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
