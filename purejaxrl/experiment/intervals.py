"""Interquartile means and bootstrap intervals of the scores of runs.

Agarwal et al. 2021, Deep Reinforcement Learning at the Edge of the Statistical Precipice, arXiv:2108.13264. scipy.stats
has both statistics, but takes longer to import than many a sweep to train.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95
SEED = 0
ELEMENTS_AT_ONCE = 4_000_000


def interquartile_mean(values: np.ndarray, axis: int = -1) -> Any:
    """Mean without the lowest and the highest floor(n / 4) of n values: below four values, their plain mean.

    Args:
        values: Values without NaN.
        axis: The axis over which to average.

    Returns:
        The means, of the shape of `values` without that axis.

    >>> print(interquartile_mean(np.array([0.0, 10.0, 20.0, 900.0])))
    15.0
    """
    size = values.shape[axis]
    cut = size // 4
    ordered = np.partition(values, (cut, size - cut - 1), axis)
    return np.mean(np.take(ordered, range(cut, size - cut), axis), axis=axis)


def interval(values: np.ndarray, statistic: Callable[..., Any] = interquartile_mean) -> tuple[Any, Any]:
    """95% percentile bootstrap interval of the interquartile mean, or of another statistic.

    Args:
        values: Samples without NaN, [..., n].
        statistic: A function (values, axis=) that reduces one axis.

    Returns:
        Lower and upper ends, [...] each; NaN for fewer than two values.
    """
    if values.shape[-1] < 2:
        nothing = np.full(values.shape[:-1], np.nan)[()]
        return nothing, nothing
    return bootstrap((values,), statistic, elements=values.size)


def bootstrap(samples: tuple[np.ndarray, ...], statistic: Any, elements: int) -> tuple[Any, Any]:
    """95% percentile bootstrap interval of a statistic of one sample or several, which are resampled each on its own.

    Args:
        samples: Values without NaN, [..., n] each.
        statistic: A function (*samples, axis=) that reduces one axis.
        elements: Number of values of one resample, by which memory is bounded.

    Returns:
        Lower and upper ends, [...] each.
    """
    rng, batch, found = np.random.default_rng(SEED), max(1, ELEMENTS_AT_ONCE // elements), []
    for done in range(0, RESAMPLES, batch):
        count = min(batch, RESAMPLES - done)
        sizes = [sample.shape[-1] for sample in samples]
        resamples = [
            sample[..., rng.integers(0, size, (count, size))] for sample, size in zip(samples, sizes, strict=True)
        ]
        found.append(statistic(*resamples, axis=-1))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.concatenate(found, axis=-1), (tail, 1 - tail), axis=-1)
    return low, high


def student_quantile(tail: float, freedom: int) -> float:
    """Compute the t that a Student-t variable exceeds with a given probability.

    The distribution of whole degrees of freedom is a finite sum of powers of a cosine (Abramowitz and Stegun 1964,
    26.7.3 and 26.7.4), of which the angle is found by bisection.

    Args:
        tail: The probability, in (0, 0.5).
        freedom: Degrees of freedom, at least 1.

    Returns:
        The quantile.

    >>> round(student_quantile(0.025, 7), 3)
    2.365
    """
    low, high = 0.0, math.pi / 2
    for _ in range(100):
        angle = (low + high) / 2
        if _student_tail(angle, freedom) > tail:
            low = angle
        else:
            high = angle
    return math.sqrt(freedom) * math.tan(low)


def _student_tail(angle: float, freedom: int) -> float:
    """The probability of more than t = sqrt(freedom) tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    total, term = 0.0, cosine if freedom % 2 else 1.0
    for order in range(2 if freedom % 2 == 0 else 3, freedom + 1, 2):
        total += term
        term *= cosine**2 * (order - 1) / order
    if freedom % 2:
        return 0.5 - (angle + sine * total) / math.pi
    return (1 - sine * total) / 2
