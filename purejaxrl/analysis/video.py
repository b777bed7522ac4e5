"""Greedy policies at play, as pictures."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8

from purejaxrl.analysis.learned_params import Learners
from purejaxrl.components.hyperparameters import as_whole
from purejaxrl.envs import Renderer, find_renderer
from purejaxrl.envs.registry import rendered_names
from purejaxrl.errors import InputError
from purejaxrl.experiment.plan import Plan, check_whole, images_of
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.types import Agent, Env, PyTree, ScalarKey

# Pictures drawn by one call of a compiled program.
BATCH = 20
# Of pictures by a Renderer that has no frames of its own.
HEIGHT, WIDTH = 400, 600


@standard_jax()
def film(plan: Plan, batch: Learners, *, seed: int, max_steps: int, every: int, shrink: int) -> list[np.ndarray]:
    """Pictures [height, width, 3] uint8 of one episode of the greedy policy of a batch's first run.

    It begins from jax.random.key(seed) and is cut after max_steps. every: show one step of so many, the first and the
    last among them. shrink: how many pixels become one, each way.
    Raises InputError where the environment cannot be drawn.
    """
    seed, max_steps = as_whole(seed), as_whole(max_steps)
    check_whole("seed", seed, at_least=0)
    check_whole("max_steps", max_steps, at_least=1)
    check_drawable(plan)
    shown = numbers_of(plan, batch, play(plan, batch, seed, max_steps))
    last = len(shown) - 1
    return draw(plan, shown[[*range(0, last, every), last]], shrink)


def check_drawable(plan: Plan) -> None:
    """Raise InputError unless there is a way to draw the environment."""
    names = rendered_names()
    if plan.options.renderer is None and plan.env not in names:
        raise InputError(
            f"video: {plan.env} cannot be drawn; {', '.join(names)} can, and what a renderer= was trained with"
        )


def play(plan: Plan, batch: Learners, seed: int, max_steps: int) -> np.ndarray:
    """Observations [steps + 1, ...] of one episode of the first run, the last one included."""
    env = batch.setting.env
    config, params = jax.tree.map(lambda leaf: leaf[0], (batch.configs, batch.params))
    steps = min(max_steps, env.max_episode_steps)
    roll = jax.jit(partial(roll_out, plan.agent, env, steps))
    observations, is_running = jax.device_get(roll(config, params, jax.random.key(seed)))
    return np.asarray(observations[: 1 + int(is_running.sum())])


def roll_out(
    agent: Agent, env: Env, steps: int, config: Any, params: PyTree, key: ScalarKey
) -> tuple[Float[Array, "moments *observation"], Bool[Array, " steps"]]:
    """Observations of one episode from its start on, and whether each of the steps still belongs to it."""
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


def numbers_of(plan: Plan, batch: Learners, observations: np.ndarray) -> np.ndarray:
    """The numbers [steps + 1, D] that each observation's newest frame is drawn from."""
    if images_of(batch.setting.config) is not None:
        return observations[:, -1]
    return np.asarray(find_renderer(plan.env).select(jnp.asarray(observations)))


def draw(plan: Plan, numbers: np.ndarray, shrink: int) -> list[np.ndarray]:
    """Pictures [height, width, 3] uint8, some at a time by one compiled program, which serves all of a session."""
    padded = np.concatenate([numbers, np.repeat(numbers[-1:], -len(numbers) % BATCH, axis=0)])
    parts = padded.reshape(-1, BATCH, numbers.shape[-1])
    renderer = find_renderer(plan.env, plan.options.renderer)
    pictures = np.concatenate([paint(renderer, shrink, jnp.asarray(part)) for part in parts])
    return list(pictures[: len(numbers)])


@partial(jax.jit, static_argnums=(0, 1))
def paint(renderer: Renderer, shrink: int, numbers: Float[Array, "B D"]) -> UInt8[Array, "B H W 3"]:
    """Frames of a video, with blocks of `shrink` x `shrink` pixels averaged."""

    def paint_one(numbers: Float[Array, " D"]) -> UInt8[Array, "H W 3"]:
        if renderer.frame is not None:
            picture = renderer.frame(numbers).astype(jnp.float32)
        else:
            picture = 255 * renderer.render(numbers, height=HEIGHT, width=WIDTH, channels=3)
        height, width, _ = picture.shape
        blocks = picture.reshape(height // shrink, shrink, width // shrink, shrink, 3)
        return jnp.round(blocks.mean(axis=(1, 3))).clip(0, 255).astype(jnp.uint8)

    # One after another: side by side they take longer, to compile and to draw.
    return jax.lax.map(paint_one, numbers)
