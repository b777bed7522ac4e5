"""Videos of greedy policies: an episode is played in one compiled program, and rendered by another."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from purejaxrl.analysis.learned_params import LearnedParams
from purejaxrl.components.hyperparameters import as_whole
from purejaxrl.envs import Renderer, find_renderer
from purejaxrl.envs.registry import rendered_names
from purejaxrl.errors import InputError
from purejaxrl.experiment.options import check_whole
from purejaxrl.experiment.plan import Plan, images_of
from purejaxrl.storage.video_files import Sampling
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.programs import jit_once
from purejaxrl.types import Agent, Env, PyTree, ScalarKey

# Frames rendered by one call of a compiled program.
BATCH = 20
# Size of the frames of a Renderer that has none of its own.
HEIGHT, WIDTH = 400, 600


@standard_jax()
def record_episode(plan: Plan, batch: LearnedParams, seed: int, max_steps: int, cut: Sampling) -> list[np.ndarray]:
    """Render one episode of the greedy policy of a batch's first run.

    Args:
        plan: What was trained.
        batch: The learners.
        seed: The episode starts from `jax.random.key(seed)`.
        max_steps: Number of steps after which it is cut.
        cut: Every how many steps a frame is shown (the last one always is), and how many pixels become one each way.

    Returns:
        The frames, each [height, width, 3] uint8.

    Raises:
        InputError: If seed or max_steps is not allowed.
    """
    seed, max_steps = as_whole(seed), as_whole(max_steps)
    check_whole("seed", seed, at_least=0)
    check_whole("max_steps", max_steps, at_least=1)
    numbers = select_numbers(plan, batch, play_episode(plan, batch, seed, max_steps))
    last = len(numbers) - 1
    return _render(
        find_renderer(plan.env, plan.options.renderer), numbers[[*range(0, last, cut.every), last]], cut.shrink
    )


def check_renderable(plan: Plan) -> None:
    """Check that there is a way to render the environment.

    Args:
        plan: What was trained.

    Raises:
        InputError: If there is none.
    """
    names = rendered_names()
    if plan.options.renderer is None and plan.env not in names:
        raise InputError(
            f"video: {plan.env} cannot be rendered; {', '.join(names)} can, and what a renderer= was trained with"
        )


def play_episode(plan: Plan, batch: LearnedParams, seed: int, max_steps: int) -> np.ndarray:
    """Play one episode with the greedy policy of a batch's first run.

    Args:
        plan: What was trained.
        batch: The learners.
        seed: The episode starts from `jax.random.key(seed)`.
        max_steps: Number of steps after which it is cut.

    Returns:
        Observations, [steps + 1, ...], the first and the last one included.
    """
    env = batch.setting.env
    config, params = jax.tree.map(lambda leaf: leaf[0], (batch.configs, batch.params))
    roll = jit_once(partial(_rollout, plan.agent, env, min(max_steps, env.max_episode_steps)))
    observations, is_running = jax.device_get(roll(config, params, jax.random.key(seed)))
    return np.asarray(observations[: 1 + int(is_running.sum())])


def _rollout(
    agent: Agent, env: Env, steps: int, config: Any, params: PyTree, key: ScalarKey
) -> tuple[Float[Array, "points *observation"], Bool[Array, " steps"]]:
    """Observations of an episode from its start on, and whether each of the steps still belongs to it."""
    reset_key, step_key = jax.random.split(key)
    first, env_state = env.reset(reset_key)

    def step(carry: tuple, key: ScalarKey) -> tuple[tuple, tuple[Array, Array]]:
        env_state, observation, actor_carry, is_running = carry
        action, _, actor_carry = agent.policy(config, env, params, observation, actor_carry)
        timestep = env.step(key, env_state, action)
        goes_on = is_running & ~(timestep.terminated | timestep.truncated)
        return (timestep.state, timestep.observation, actor_carry, goes_on), (timestep.next_observation, is_running)

    start = (env_state, first, agent.initial_carry(config, env), jnp.ones((), bool))
    _, (observations, is_running) = jax.lax.scan(step, start, jax.random.split(step_key, steps))
    return jnp.concatenate([first[None], observations]), is_running


def select_numbers(plan: Plan, batch: LearnedParams, observations: np.ndarray) -> np.ndarray:
    """Select the numbers that frames are rendered from.

    Args:
        plan: What was trained.
        batch: The learners that played.
        observations: Observations, [steps, ...].

    Returns:
        The numbers of each observation's newest frame, [steps, D].
    """
    if images_of(batch.setting.config) is not None:
        return observations[:, -1]
    return np.asarray(find_renderer(plan.env).select(jnp.asarray(observations)))


def _render(renderer: Renderer, numbers: np.ndarray, shrink: int) -> list[np.ndarray]:
    """Frames [height, width, 3] uint8, a batch at a time, so that one compiled program serves videos of any length."""
    padded = np.concatenate([numbers, np.repeat(numbers[-1:], -len(numbers) % BATCH, axis=0)])
    parts = padded.reshape(-1, BATCH, numbers.shape[-1])
    frames = np.concatenate([_render_batch(renderer, shrink, jnp.asarray(part)) for part in parts])
    return list(frames[: len(numbers)])


@partial(jax.jit, static_argnums=(0, 1))
def _render_batch(renderer: Renderer, shrink: int, numbers: Float[Array, "B D"]) -> UInt8[Array, "B H W 3"]:
    """Frames of a video, with blocks of `shrink` x `shrink` pixels averaged."""

    def render_frame(numbers: Float[Array, " D"]) -> UInt8[Array, "H W 3"]:
        if renderer.frame is not None:
            frame = renderer.frame(numbers).astype(jnp.float32)
        else:
            frame = 255 * renderer.render(numbers, height=HEIGHT, width=WIDTH, channels=3)
        height, width, _ = frame.shape
        blocks = frame.reshape(height // shrink, shrink, width // shrink, shrink, 3)
        return jnp.round(blocks.mean(axis=(1, 3))).clip(0, 255).astype(jnp.uint8)

    # One after another: side by side they take longer, to compile and to render.
    return jax.lax.map(render_frame, numbers)
