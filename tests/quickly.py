"""XLA's flags for a suite whose time is mostly compiling: `make test` sets what this prints.

Without LLVM's optimizations and XLA's fusion emitters that takes a third as long, and nothing changes but rounding.
"""

import importlib.metadata

# From JAX 0.11 on XLA has nothing but the emitters, and ends the process at a flag that it does not know.
CAN_DO_WITHOUT_EMITTERS = tuple(map(int, importlib.metadata.version("jax").split(".")[:2])) < (0, 11)
FLAGS = "--xla_backend_optimization_level=0" + " --xla_cpu_use_fusion_emitters=false" * CAN_DO_WITHOUT_EMITTERS

if __name__ == "__main__":
    print(FLAGS)
