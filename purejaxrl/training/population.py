"""Population-based training (Jaderberg et al. 2017, arXiv:1711.09846): weak runs go on as copies of strong ones.

Between two parts of a training each weak run of a population takes the learner and the hyperparameters of a strong one
(exploit), and changes the hyperparameters a little (explore):

    for each of the weakest 20% of the population:
        parent <- one of the strongest 20%, uniformly
        parameters, optimizer state, hyperparameters <- those of the parent
        each swept hyperparameter <- 0.8 or 1.2 times its value; with probability 0.25 drawn anew from its range
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from purejaxrl.types import RunState, ScalarKey

FRACTION = 0.2
FACTORS = (0.8, 1.2)
RESAMPLE = 0.25


class Bounds(NamedTuple):
    """Range of a hyperparameter: its ends, and whether it is drawn uniformly in its logarithm."""

    low: float
    high: float
    log: bool = False


def exploit_and_explore(
    key: ScalarKey,
    scores: Float[Array, " R"],
    configs: Any,
    state: RunState,
    bounds: Mapping[str, Bounds],
    *,
    populations: int = 1,
    fraction: float = FRACTION,
    factors: tuple[float, float] = FACTORS,
    resample: float = RESAMPLE,
) -> tuple[Any, RunState, Int[Array, " R"]]:
    """Replace the weakest runs of each population by changed copies of its strongest.

    A copy has its parent's params, optimizer state, whatever else the learner holds besides its memory, and
    hyperparameters. It keeps its own random key, environments, replay memory and statistics of episodes. Learners are
    gathered along the axis of runs and nothing else, so it can be jitted and mapped, with all but arrays static.

    Args:
        key: A random key, which is consumed.
        scores: Score of each run, higher is better; NaN is the worst.
        configs: Stacked configs of the runs, leaves [R].
        state: States of the runs, [R, ...].
        bounds: Range of each hyperparameter that is changed; it must be a single real number.
        populations: Number of populations P, which do not mix: run r belongs to population r % P, as with P seeds of
            each setting.
        fraction: Share of a population that is replaced, and of those that it is replaced by; one run at least.
        factors: A changed hyperparameter is multiplied with one of both, each with probability 1/2, and clipped.
        resample: Probability with which a hyperparameter is drawn from its range instead.

    Returns:
        The configs and states [R] after the exchange, and the parent of each run, which is the run itself where it was
        not replaced.
    """
    members = scores.shape[0] // populations
    assert members * populations == scores.shape[0], f"{scores.shape[0]} runs are not {populations} equal populations"
    parent_key, explore_key = jax.random.split(key)
    keys = jax.random.split(parent_key, populations)
    chosen = jax.vmap(lambda key, scores: choose_parents(key, scores, fraction))(
        keys, scores.reshape(members, populations).T
    )
    parents = (chosen * populations + jnp.arange(populations)[:, None]).T.reshape(-1)

    def inherit(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: leaf[parents], tree)

    learner = state.learner
    copied = inherit(learner._replace(memory=None))._replace(memory=learner.memory)
    is_copy = parents != jnp.arange(len(parents))
    configs = inherit(configs)
    changed = {}
    for name_key, (name, bound) in zip(jax.random.split(explore_key, len(bounds)), bounds.items(), strict=True):
        values = getattr(configs, name)
        changed[name] = jnp.where(is_copy, explore(name_key, values, bound, factors, resample), values)
    return dataclasses.replace(configs, **changed), state._replace(learner=copied), parents


def choose_parents(key: ScalarKey, scores: Float[Array, " K"], fraction: float = FRACTION) -> Int[Array, " K"]:
    """Choose what each member of a population goes on from: truncation selection.

    Args:
        key: A random key, which is consumed.
        scores: Score of each member, higher is better; NaN is the worst.
        fraction: Share of the members, at most a half, that are replaced, and of those that they are replaced by.

    Returns:
        Index of each member's parent: its own, and for the weakest that of one of the strongest, drawn uniformly.
    """
    members = scores.shape[0]
    count = min(max(1, int(members * fraction)), members // 2)
    order = jnp.argsort(jnp.where(jnp.isnan(scores), -jnp.inf, scores))
    strongest = jax.random.choice(key, order[members - count :], (count,))
    return jnp.arange(members).at[order[:count]].set(strongest)


def explore(
    key: ScalarKey, values: Float[Array, " R"], bound: Bounds, factors: tuple[float, float], resample: float
) -> Float[Array, " R"]:
    """Change the values of a hyperparameter, each on its own.

    Args:
        key: A random key, which is consumed.
        values: The values.
        bound: The range that they stay within.
        factors: Both factors of which one is multiplied with.
        resample: Probability with which a value is drawn from the range instead.

    Returns:
        The changed values.
    """
    factor_key, value_key, resample_key = jax.random.split(key, 3)
    scaled = values * jax.random.choice(factor_key, jnp.array(factors, values.dtype), values.shape)
    low, high = (jnp.asarray(end, values.dtype) for end in (bound.low, bound.high))
    if bound.log:
        drawn = jnp.exp(
            jax.random.uniform(value_key, values.shape, values.dtype, minval=jnp.log(low), maxval=jnp.log(high))
        )
    else:
        drawn = jax.random.uniform(value_key, values.shape, values.dtype, minval=low, maxval=high)
    is_drawn = jax.random.bernoulli(resample_key, resample, values.shape)
    return jnp.clip(jnp.where(is_drawn, drawn, scaled), low, high)
