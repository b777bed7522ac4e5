"""Population-based training: who is replaced by whom, what is copied, and how hyperparameters change."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_same_bits

from purejaxrl.components.hyperparameters import Real, config, leaf, static
from purejaxrl.training.population import Bounds, choose_parents, exploit_and_explore, explore
from purejaxrl.types import Episode, Learner, RunState


@config
class Config:
    """Two real hyperparameters that are searched, one that is not, and a static one."""

    lr: Real = leaf(0.1, "learning rate", above=0)
    gamma: Real = leaf(0.9, "discount", at_least=0, at_most=1)
    eps_vals: tuple[Real, ...] = leaf((1.0, 0.0), "epsilon", length=2)
    actors: int = static(2, "environments", at_least=1)


BOUNDS = {"lr": Bounds(1e-3, 1.0, log=True), "gamma": Bounds(0.5, 1.0)}


def runs_of(count):
    """Configs and states in which every number of run r is r and something."""
    runs = jnp.arange(count, dtype=jnp.float32)
    configs = Config(lr=0.01 + runs / 100, gamma=0.6 + runs / 100, eps_vals=(runs, runs + 0.5))
    wide = jnp.stack([runs, runs + 0.25], axis=1)
    learner = Learner({"w": wide}, {"count": jnp.arange(count)}, {"replay": wide + 100}, {"target": wide + 0.5})
    state = RunState(
        learner=learner,
        env_state=wide + 200,
        observation=wide + 300,
        episode=Episode(wide, jnp.zeros((count, 2), jnp.int32), jnp.arange(count)),
        active=jnp.arange(count) % 2 == 0,
        key=jax.random.split(jax.random.key(7), count),
        recent=wide + 400,
        carry=wide + 500,
    )
    return configs, state


def test_the_weakest_fifth_copies_the_strongest():
    """Of ten runs 3 and 8 are the weakest, 5 and 0 the strongest."""
    scores = jnp.array([90.0, 50, 60, 1, 40, 99, 55, 30, 2, 70])
    configs, state = runs_of(10)
    seen = set()
    for seed in range(20):
        found, after, parents = exploit_and_explore(jax.random.key(seed), scores, configs, state, BOUNDS)
        parents = np.asarray(parents)
        others = np.delete(np.arange(10), [3, 8])
        assert (parents[others] == others).all()
        assert {parents[3], parents[8]} <= {0, 5}
        seen.add((parents[3], parents[8]))
        np.testing.assert_array_equal(after.learner.params["w"][:, 0], parents)
        np.testing.assert_array_equal(after.learner.optimizer["count"], parents)
        np.testing.assert_array_equal(after.learner.extra["target"][:, 0], parents + 0.5)
        np.testing.assert_array_equal(found.eps_vals[0], parents)
        # Each run's own: replay memory, environments, statistics and key.
        kept = after._replace(learner=state.learner._replace(memory=after.learner.memory))
        assert_same_bits(kept, state)
        for name in BOUNDS:
            np.testing.assert_array_equal(getattr(found, name)[others], getattr(configs, name)[others])
        assert found.actors == 2
    assert seen == {(0, 0), (0, 5), (5, 0), (5, 5)}


def test_copies_change_by_a_factor_within_their_range():
    """0.8 and 1.2 times the parent's value; gamma 0.65 * 1.2 is fine, and 0.6 * 0.8 is clipped to 0.5."""
    scores = jnp.array([90.0, 50, 60, 1, 40, 99, 55, 30, 2, 70])
    configs, state = runs_of(10)
    found = {"lr": set(), "gamma": set()}
    for seed in range(40):
        after, _, parents = exploit_and_explore(jax.random.key(seed), scores, configs, state, BOUNDS, resample=0.0)
        for name in found:
            for run in (3, 8):
                found[name].add((int(parents[run]), round(float(getattr(after, name)[run]), 5)))
    assert found == {
        "lr": {(0, 0.008), (0, 0.012), (5, 0.048), (5, 0.072)},
        "gamma": {(0, 0.5), (0, 0.72), (5, 0.52), (5, 0.78)},
    }


def test_nothing_is_changed_without_bounds():
    configs, state = runs_of(5)
    found, _, parents = exploit_and_explore(jax.random.key(0), jnp.arange(5.0), configs, state, {})
    assert parents.tolist() == [4, 1, 2, 3, 4]
    np.testing.assert_array_equal(found.lr, configs.lr[parents])


def test_exploration_by_its_moments():
    """Of 0.25 resampled values the logarithm is uniform in log 1e-3 .. 0; each of the other two has 0.375."""
    values = jnp.full(20_000, 0.1)
    found = np.asarray(explore(jax.random.key(0), values, BOUNDS["lr"], (0.8, 1.2), 0.25))
    lower, higher = np.isclose(found, 0.08), np.isclose(found, 0.12)
    drawn = found[~lower & ~higher]
    assert [lower.mean(), higher.mean()] == pytest.approx([0.375, 0.375], abs=0.02)
    np.testing.assert_allclose(np.quantile(np.log10(drawn), (0.25, 0.5, 0.75)), (-2.25, -1.5, -0.75), atol=0.1)
    drawn = np.asarray(explore(jax.random.key(1), values, BOUNDS["gamma"], (0.8, 1.2), 1.0))
    np.testing.assert_allclose(np.quantile(drawn, (0, 0.5, 1)), (0.5, 0.75, 1.0), atol=0.02)
    assert (explore(jax.random.key(0), jnp.ones(8), BOUNDS["lr"], (1.2, 1.2), 0.0) == 1.0).all()


@pytest.mark.parametrize(("members", "count"), [(1, 0), (2, 1), (3, 1), (5, 1), (9, 1), (10, 2), (25, 5), (64, 12)])
def test_how_many_are_replaced(members, count):
    """By a plain loop over the ranks."""
    scores = np.random.default_rng(members).permutation(members).astype(np.float32)
    parents = np.asarray(choose_parents(jax.random.key(3), jnp.array(scores)))
    for member, parent in enumerate(parents):
        if scores[member] < count:
            assert scores[parent] >= members - count
        else:
            assert parent == member


def test_diverged_runs_are_the_weakest():
    parents = choose_parents(jax.random.key(0), jnp.array([jnp.nan, -jnp.inf, 1.0, 2.0, 3.0, 0.0]))
    assert parents.tolist() == [4, 1, 2, 3, 4, 5]
    # No more than a half is replaced, so that no parent is replaced itself.
    parents = choose_parents(jax.random.key(0), jnp.arange(4.0), 0.9)
    assert set(parents[:2].tolist()) <= {2, 3}
    assert parents[2:].tolist() == [2, 3]


def test_populations_do_not_mix():
    """Run r is of population r % 3: each of the three has five members, of which one is replaced."""
    rng = np.random.default_rng(0)
    scores = rng.permutation(15).astype(np.float32)
    configs, state = runs_of(15)
    _, after, parents = exploit_and_explore(jax.random.key(1), jnp.array(scores), configs, state, BOUNDS, populations=3)
    parents = np.asarray(parents)
    np.testing.assert_array_equal(parents % 3, np.arange(15) % 3)
    for population in range(3):
        runs = np.arange(population, 15, 3)
        weakest, strongest = runs[np.argmin(scores[runs])], runs[np.argmax(scores[runs])]
        expected = np.where(runs == weakest, strongest, runs)
        np.testing.assert_array_equal(parents[runs], expected)
    np.testing.assert_array_equal(after.learner.params["w"][:, 0], parents)
    with pytest.raises(AssertionError, match="15 runs are not 4 equal populations"):
        exploit_and_explore(jax.random.key(1), jnp.array(scores), configs, state, BOUNDS, populations=4)


def test_it_is_a_pure_function_that_jit_and_vmap_take():
    configs, state = runs_of(10)
    scores = jnp.arange(10.0)
    step = partial(exploit_and_explore, bounds=BOUNDS)
    plain = step(jax.random.key(2), scores, configs, state)
    assert_same_bits(jax.jit(step)(jax.random.key(2), scores, configs, state), plain)
    keys = jax.random.split(jax.random.key(5), 3)
    mapped = jax.vmap(step, in_axes=(0, None, None, None))(keys, scores, configs, state)
    for index, key in enumerate(keys):
        assert_same_bits(jax.tree.map(lambda leaf, index=index: leaf[index], mapped), step(key, scores, configs, state))
