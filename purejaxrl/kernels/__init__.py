"""Fast paths, each beside a plain reference of the same signature.

With PUREJAXRL_REFERENCE_KERNELS=1 in the environment when the package is imported, everything goes by the references:
the way to find out whether a fast path is to blame for a result.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

BY_REFERENCE = os.environ.get("PUREJAXRL_REFERENCE_KERNELS") == "1"


def faster_than(reference: Callable[..., Any]) -> Callable[[Function], Function]:
    """Mark a function as the fast path of a plain reference of the same signature.

    Args:
        reference: The reference, which replaces the fast path where BY_REFERENCE is set.

    Returns:
        A decorator of the fast path.
    """

    def choose(fast: Function) -> Function:
        return reference if BY_REFERENCE else fast  # type: ignore[return-value]

    return choose
