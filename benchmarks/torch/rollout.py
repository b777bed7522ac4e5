"""Acting with a policy in gymnasium's CartPole-v0, and advantages of what was collected: shared by VPG and A3C.

Every row of a batch is a real env step, and holds the true next observation: a new episode starts in the row after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.envs.classic_control.cartpole import CartPoleEnv, CartPoleVectorEnv
from gymnasium.wrappers import TimeLimit
from networks import Layers, forward_tanh
from torch import Tensor

OBSERVATIONS, ACTIONS = 4, 2
EPISODE_STEPS = 200  # CartPole-v0 is CartPole-v1 with this limit
START = 0.05  # an episode's first observation is uniform in +-START

Array = np.ndarray
Step = Callable[["Batch", int, Tensor], None]


class Batch(NamedTuple):
    """T steps of N environments; arrays that share their memory with tensors, made once and written over."""

    observation: Array  # [T + 1, N, 4]; row T is where the next batch goes on
    action: Array  # [T, N]
    reward: Array
    terminated: Array
    truncated: Array
    next_observation: Array  # [T, N, 4]
    observation_rows: tuple[Tensor, ...]  # T + 1 of [N, 4], T of [N]: views, as making them at every step would cost
    action_rows: tuple[Tensor, ...]


class Episodes(NamedTuple):
    """Finished episodes: returns, and the env step (of all environments together) at which each ended."""

    env_steps: list[int]
    returns: list[float]
    running: Array  # [N], returns of the episodes that go on


def empty_batch(steps: int, actors: int) -> Batch:
    """A batch to write into."""
    observation = np.zeros((steps + 1, actors, OBSERVATIONS), np.float32)
    action = np.zeros((steps, actors), np.int64)
    return Batch(
        observation,
        action,
        np.zeros((steps, actors), np.float32),
        np.zeros((steps, actors), bool),
        np.zeros((steps, actors), bool),
        np.zeros((steps, actors, OBSERVATIONS), np.float32),
        torch.from_numpy(observation).unbind(),
        torch.from_numpy(action).unbind(),
    )


def no_episodes(actors: int) -> Episodes:
    """Before the first step."""
    return Episodes([], [], np.zeros(actors))


def make_env(render_mode: str | None = None) -> TimeLimit:
    """One CartPole-v0. gymnasium.make would add checks of every step, which cost and change nothing."""
    return TimeLimit(CartPoleEnv(render_mode=render_mode), EPISODE_STEPS)


def start_plain(actors: int, seed: int, observation: Array) -> Step:
    """Plain environments, stepped in a loop; writes their first observations [N, 4]."""
    envs = [make_env() for _ in range(actors)]
    for n, env_seed in enumerate(np.random.SeedSequence(seed).generate_state(actors).tolist()):
        observation[n] = envs[n].reset(seed=env_seed)[0]

    def step(batch: Batch, t: int, actions: Tensor) -> None:
        for n, action in enumerate(actions.tolist()):
            observation, reward, terminated, truncated, _ = envs[n].step(action)
            batch.next_observation[t, n] = observation
            batch.reward[t, n] = reward
            batch.terminated[t, n] = terminated
            batch.truncated[t, n] = truncated
            if terminated or truncated:
                observation, _ = envs[n].reset()
            batch.observation[t + 1, n] = observation

    return step


def start_vector(actors: int, seed: int, observation: Array) -> Step:
    """gymnasium's CartPole for N environments at once, in NumPy; writes their first observations [N, 4].

    Its one autoreset mode is NEXT_STEP: the step after an episode's end ignores the action and leads to the next
    episode's first observation. Such rows are no env steps, and would make batches of uneven size. So episodes are
    restarted here, in the env's state, right after their end: every row counts, and the end keeps its observation.
    """
    env = gymnasium.make_vec(
        "CartPole-v1", num_envs=actors, vectorization_mode="vector_entry_point", max_episode_steps=EPISODE_STEPS
    ).unwrapped
    assert isinstance(env, CartPoleVectorEnv)
    observation[:] = env.reset(seed=seed)[0]

    def step(batch: Batch, t: int, actions: Tensor) -> None:
        observation, batch.reward[t], terminated, truncated, _ = env.step(actions.numpy())
        batch.next_observation[t] = batch.observation[t + 1] = observation
        batch.terminated[t], batch.truncated[t] = terminated, truncated
        if env.prev_done.any():
            ended = np.flatnonzero(env.prev_done)
            env.state[:, ended] = env.np_random.uniform(-START, START, (OBSERVATIONS, len(ended)))
            env.steps[ended] = 0
            env.prev_done[ended] = False
            batch.observation[t + 1, ended] = env.state[:, ended].T

    return step


@torch.inference_mode()
def collect(step: Step, layers: Layers, batch: Batch) -> None:
    """Fill a batch: a ~ softmax(logits), as argmax(logits + Gumbel noise), the noise of all steps sampled at once."""
    noise = torch.empty(*batch.action.shape, ACTIONS).exponential_().log_().unbind()
    for t, action in enumerate(batch.action_rows):
        torch.argmax(forward_tanh(layers, batch.observation_rows[t]) - noise[t], dim=-1, out=action)
        step(batch, t, action)


def go_on(batch: Batch) -> None:
    """Let the next batch start where this one ended; episodes go on."""
    batch.observation[0] = batch.observation[-1]


def log_episodes(episodes: Episodes, batch: Batch, env_steps: int) -> None:
    """Count the episodes that ended in a batch, which began after `env_steps` env steps."""
    actors = batch.reward.shape[1]
    total = episodes.running + batch.reward.cumsum(axis=0)
    running = np.zeros(actors)
    for t, n in np.argwhere(batch.terminated | batch.truncated).tolist():
        episodes.env_steps.append(env_steps + t * actors + n + 1)
        episodes.returns.append(float(total[t, n] - running[n]))
        running[n] = total[t, n]
    episodes.running[:] = total[-1] - running


def advantages(
    reward: Array, value: Array, next_value: Array, terminated: Array, truncated: Array, gamma: float, lam: float
) -> Array:
    """Generalized advantage estimates [T, N]; with lam = 1, A + V are the discounted returns, as V's terms cancel.

        delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
        A_t     = delta_t + gamma lam (1 - done_t) A_{t+1},   done = terminated or truncated,   A_T = 0

    next_value is V of the true next observation, so where an episode was truncated or cut by the batch it bootstraps.
    """
    delta = reward + gamma * ~terminated * next_value - value
    decay = gamma * lam * ~(terminated | truncated)
    columns = []
    # Python's floats: one recursion over scalars is several times faster than NumPy row by row for few environments.
    for deltas, decays in zip(delta.T[:, ::-1].tolist(), decay.T[:, ::-1].tolist(), strict=True):
        advantage, column = 0.0, []
        for delta_t, decay_t in zip(deltas, decays, strict=True):
            advantage = delta_t + decay_t * advantage
            column.append(advantage)
        columns.append(column)
    return np.array(columns, np.float32)[:, ::-1].T.copy()
