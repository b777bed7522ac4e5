"""Returns and advantages against hand-computed arrays, plain loops and rlax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax

from purejaxrl.components import returns

# Traced once for all tests.
discounted_returns, generalized_advantages = map(jax.jit, (returns.discounted_returns, returns.generalized_advantages))
T, N = 17, 3


def column(*values, dtype=jnp.float32):
    return jnp.array(values, dtype)[:, None]


def random_batch(seed):
    """Rewards, values, next values and flags; about every fifth step ends an episode, some of them both ways."""
    rng = np.random.default_rng(seed)
    reward, value, next_value = rng.normal(size=(3, T, N)).astype(np.float32)
    terminated, truncated = rng.random((2, T, N)) < 0.12
    both = rng.random((T, N)) < 0.03
    return tuple(map(jnp.asarray, (reward, value, next_value, terminated | both, truncated | both)))


def advantages_by_loop(reward, value, next_value, terminated, truncated, gamma, lam):
    """The sum of equation 16 of arXiv:1506.02438, forwards from every step to the end of its episode."""
    result = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                bootstrap = 0.0 if terminated[k, n] else next_value[k, n]
                result[t, n] += weight * (reward[k, n] + gamma * bootstrap - value[k, n])
                if terminated[k, n] or truncated[k, n]:
                    break
                weight *= gamma * lam
    return result


def returns_by_loop(reward, next_value, terminated, truncated, gamma):
    result = np.zeros((T, N))
    for n in range(N):
        for t in range(T):
            for k in range(t, T):
                result[t, n] += gamma ** (k - t) * reward[k, n]
                if terminated[k, n]:
                    break
                if truncated[k, n] or k == T - 1:
                    result[t, n] += gamma ** (k - t + 1) * next_value[k, n]
                    break
    return result


def test_advantages_by_hand():
    # Two steps to a terminal state, one step that is truncated, one that the batch cuts. gamma = lam = 1/2.
    advantage = generalized_advantages(
        reward=column(1, 2, 3, 4),
        value=column(10, 20, 30, 40),
        next_value=column(20, 1000, 8, 6),
        terminated=column(0, 1, 0, 0, dtype=bool),
        truncated=column(0, 0, 1, 0, dtype=bool),
        gamma=0.5,
        lam=0.5,
    )
    # deltas: 1 + 10 - 10 = 1;  2 + 0 - 20 = -18;  3 + 4 - 30 = -23;  4 + 3 - 40 = -33
    np.testing.assert_array_equal(advantage[:, 0], [1 - 18 / 4, -18, -23, -33])


def test_returns_by_hand():
    actual = discounted_returns(
        reward=column(1, 2, 3, 4, 5),
        next_value=column(20, 1000, 8, 6, 100),
        terminated=column(0, 1, 0, 0, 0, dtype=bool),
        truncated=column(0, 0, 1, 0, 0, dtype=bool),
        gamma=0.5,
    )
    np.testing.assert_array_equal(actual[:, 0], [1 + 0.5 * 2, 2, 3 + 0.5 * 8, 4 + 0.5 * 5 + 0.25 * 100, 5 + 0.5 * 100])


def test_terminated_wins_over_truncated():
    flags = column(1, dtype=bool)
    arguments = column(1.0), column(3.0), column(50.0), flags, flags
    assert generalized_advantages(*arguments, 0.9, 0.9)[0, 0] == 1 - 3
    assert discounted_returns(arguments[0], *arguments[2:], 0.9)[0, 0] == 1


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("gamma", "lam"), [(0.99, 0.97), (0.9, 0.0), (1.0, 1.0), (0.0, 0.5)])
def test_against_loops(seed, gamma, lam):
    reward, value, next_value, *flags = random_batch(seed)
    advantages = generalized_advantages(reward, value, next_value, *flags, gamma, lam)
    actual = discounted_returns(reward, next_value, *flags, gamma)
    # In numpy, which is a hundred times as quick at single numbers.
    reward, value, next_value, *flags = map(np.asarray, (reward, value, next_value, *flags))
    np.testing.assert_allclose(advantages, advantages_by_loop(reward, value, next_value, *flags, gamma, lam), atol=2e-5)
    np.testing.assert_allclose(actual, returns_by_loop(reward, next_value, *flags, gamma), atol=2e-5)


def test_against_rlax():
    """rlax knows no truncation: with terminations alone, and each next value the value of the next step, both agree."""
    reward, value, _, terminated, _ = random_batch(11)
    values = jnp.concatenate([value, jnp.ones((1, N))])
    for n in range(N):
        discount = jnp.asarray(0.95 * (1.0 - terminated[:, n]), jnp.float32)
        expected = rlax.truncated_generalized_advantage_estimation(reward[:, n], discount, 0.8, values[:, n])
        one = slice(n, n + 1)
        never = jnp.zeros((T, 1), bool)
        actual = generalized_advantages(
            reward[:, one], value[:, one], values[1:, one], terminated[:, one], never, 0.95, 0.8
        )
        np.testing.assert_allclose(actual[:, 0], expected, atol=1e-5)
        expected = rlax.discounted_returns(jnp.asarray(reward[:, n]), discount, jnp.asarray(values[1:, n]))
        actual = discounted_returns(reward[:, one], values[1:, one], terminated[:, one], never, 0.95)
        np.testing.assert_allclose(actual[:, 0], expected, atol=1e-5)


@pytest.mark.parametrize("ending", ["terminated", "truncated"])
def test_nothing_leaks_over_an_episode_boundary(ending):
    reward, value, next_value, _, _ = random_batch(3)
    flags = {name: jnp.zeros((T, N), bool) for name in ("terminated", "truncated")}
    flags[ending] = flags[ending].at[8].set(True)
    changed = reward.at[9:].add(100.0)
    before, after = (
        generalized_advantages(r, value, next_value, flags["terminated"], flags["truncated"], 0.99, 0.97)
        for r in (reward, changed)
    )
    assert np.max(np.abs(np.asarray(before - after)[:9])) == 0
    assert np.min(np.abs(np.asarray(before - after)[9:])) > 0
    before, after = (
        discounted_returns(r, next_value, flags["terminated"], flags["truncated"], 0.99) for r in (reward, changed)
    )
    assert np.max(np.abs(np.asarray(before - after)[:9])) == 0


@pytest.mark.parametrize("kind", ["terminated", "truncated", "both"])
@pytest.mark.parametrize("position", range(T))
def test_advantage_plus_value_is_the_n_step_return_where_lam_is_1(position, kind):
    """Mnih et al. 2016, algorithm S3, one episode ending at every position; the value of s' is that of the next s."""
    reward, value, next_value, _, _ = map(np.asarray, random_batch(5))
    terminated, truncated = np.zeros((2, T, N), bool)
    terminated[position] = kind != "truncated"
    truncated[position] = kind != "terminated"
    follows = ~(terminated | truncated)[:-1]
    next_value = np.concatenate([np.where(follows, value[1:], next_value[:-1]), next_value[-1:]])

    advantage = generalized_advantages(*map(jnp.asarray, (reward, value, next_value, terminated, truncated)), 0.9, 1.0)
    expected = returns_by_loop(reward, next_value, terminated, truncated, 0.9)
    np.testing.assert_allclose(advantage + value, expected, atol=2e-5)
