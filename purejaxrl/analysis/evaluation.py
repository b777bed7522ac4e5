"""Greedy policies of a run folder at play: in the environments that they were trained in, or in gymnasium's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from purejaxrl.analysis.learned_params import Learners, load_learners
from purejaxrl.components.hyperparameters import as_whole
from purejaxrl.envs import ENVIRONMENTS, find_renderer
from purejaxrl.envs.images import Renderer, advance, initial_history, select_frames
from purejaxrl.errors import InputError
from purejaxrl.experiment.labels import counted
from purejaxrl.experiment.plan import Plan, check_whole, images_of, refuse_unknown_objects
from purejaxrl.storage.files import absolute_path
from purejaxrl.training import evaluation as playing
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.loop import initial_carry
from purejaxrl.types import Agent, PyTree

BACKENDS = ("gymnax", "gymnasium")


class Evaluation(NamedTuple):
    """How well greedy policies play.

    mean: of all returns. low, high: its 95% percentile bootstrap interval: of the runs' means where there are several,
    as an algorithm's chance is its seeds; of the episodes of a single one. returns: a row per run and episode: run,
    seed, episode, return.
    """

    mean: float
    low: float
    high: float
    returns: pd.DataFrame

    @classmethod
    def of(cls, returns: pd.DataFrame) -> Evaluation:
        """What such rows say."""
        # scipy takes long to import.
        from purejaxrl.analysis.statistics import interval

        means = returns.groupby("run")["return"].mean()
        values = (means if len(means) > 1 else returns["return"]).to_numpy(float)
        low, high = interval(values, np.mean)
        return cls(float(returns["return"].mean()), float(low), float(high), returns)

    def __repr__(self) -> str:
        runs = self.returns["run"].nunique()
        each = counted(len(self.returns) // max(runs, 1), "episode")
        return f"mean return {self.mean:.1f} [{self.low:.1f}, {self.high:.1f}], {counted(runs, 'run')} x {each}"


def evaluate(
    path: str | Path,
    *,
    episodes: int = 100,
    params: str = "last",
    seed: int = 0,
    backend: str = "gymnax",
    agent: Agent | None = None,
    network: Any = None,
    env: Any = None,
    env_params: Any = None,
    renderer: Renderer | None = None,
    **objects: Any,
) -> pd.DataFrame:
    """Play whole episodes with the greedy policy of every run.

    Args:
        path: The run folder.
        episodes: How many of each run.
        params: `last`, or `best` by the evaluations during training.
        seed: Run r plays with keys from `jax.random.key(seed)` and r; gymnasium's episode k of it with seed + k.
        backend: `gymnax`, or `gymnasium`, whose CartPole is another implementation of the same physics.
        agent: The Agent, where it is your own, which config.json only names.
        network: The Flax module, where the training had one; a list of them where they were swept.
        env: The environment object, where the training had one.
        env_params: Its parameters, where config.json does not hold them by value.
        renderer: How to draw its images, where that was given.
        **objects: Other fields of your own agent's Config that hold objects.

    Returns:
        A row per run and episode: run, seed, episode, return.

    Raises:
        InputError: If there is no run, its parameters are missing or damaged, or an argument is unknown, missing or not
            allowed.
    """
    refuse_unknown_objects(evaluate, objects, agent)
    episodes, seed = check_arguments(episodes, seed, backend)
    plan, batches = load_learners(
        absolute_path(path),
        params,
        agent=agent,
        network=network,
        env=env,
        env_params=env_params,
        renderer=renderer,
        **objects,
    )
    return play_all(plan, batches, episodes, seed, backend)


def check_arguments(episodes: Any, seed: Any, backend: str) -> tuple[int, int]:
    """Episodes and seed as ints. Raises InputError naming the first of `evaluate`'s arguments that is not allowed."""
    episodes, seed = as_whole(episodes), as_whole(seed)
    check_whole("episodes", episodes, at_least=1)
    check_whole("seed", seed, at_least=0)
    if backend not in BACKENDS:
        raise InputError(f"--backend: {backend!r} is not allowed; use one of {', '.join(BACKENDS)}")
    return episodes, seed


@standard_jax()
def play_all(plan: Plan, batches: list[Learners], episodes: int, seed: int, backend: str) -> pd.DataFrame:
    """What `evaluate` returns, of learners that have been loaded."""
    play = play_in_gymnax if backend == "gymnax" else play_in_gymnasium
    rows = []
    for batch in batches:
        returns = play(plan, batch, episodes, seed)
        run = np.repeat(batch.runs, episodes)
        rows.append(
            pd.DataFrame(
                {
                    "run": run,
                    "seed": plan.options.seed + run % plan.options.seeds,
                    "episode": np.tile(np.arange(1, episodes + 1), len(batch.runs)),
                    "return": returns.ravel(),
                }
            )
        )
    return pd.concat(rows).sort_values(["run", "episode"], ignore_index=True)


def play_in_gymnax(plan: Plan, batch: Learners, episodes: int, seed: int) -> np.ndarray:
    """Returns [runs, episodes] in the environment of the training, all runs side by side."""
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.asarray(batch.runs, jnp.uint32))
    play = jax.jit(jax.vmap(partial(playing.evaluate, plan.agent, batch.setting.env, episodes)))
    return np.asarray(play(batch.configs, batch.params, keys))


def play_in_gymnasium(plan: Plan, batch: Learners, episodes: int, seed: int) -> np.ndarray:
    """Returns [runs, episodes] in gymnasium's version of the environment. Raises InputError where there is none."""
    name = plan.env
    twins = {name: entry.gymnasium for name, entry in ENVIRONMENTS.items() if entry.gymnasium}
    if name not in twins or not isinstance(plan.options.env, str):
        raise InputError(f"--backend: gymnasium plays {', '.join(twins)}, not {name}")
    if plan.options.env_params is not None:
        raise InputError(f"--backend: gymnasium plays {name} as it is, and this was trained with other env_params")
    try:
        import gymnasium
    except ImportError:
        message = "--backend: gymnasium is not installed; pip install 'gymnasium[classic-control]'"
        raise InputError(message) from None
    limit = batch.setting.env.max_episode_steps
    returns = np.zeros((len(batch.runs), episodes))
    for row in range(len(batch.runs)):
        # Without gymnasium's own time limit: episodes are as long as those of the training.
        envs = gymnasium.make_vec(twins[name], episodes, vectorization_mode="sync", max_episode_steps=limit + 1)
        config, params = jax.tree.map(lambda leaf: leaf[row], (batch.configs, batch.params))  # noqa: B023
        carry = initial_carry(plan.agent, batch.setting.env, config, (episodes,))
        returns[row] = play_side_by_side(envs, limit, *eyes_and_policy(plan, batch, config, params), carry, seed)
        envs.close()
    return returns


def eyes_and_policy(plan: Plan, batch: Learners, config: Any, params: PyTree) -> tuple[Callable, Callable, Callable]:
    """How to see state vectors [episodes, 4] at a start and after a step, and what to do: all jitted.

    look: (vectors) -> memory. look_again: (memory, vectors) -> memory. choose: (memory, carry) -> ActorOutput.
    """
    env, images = batch.setting.env, images_of(batch.setting.config)
    decide = partial(plan.agent.policy, config, env, params)
    if images is None:
        return jnp.asarray, lambda _, vectors: jnp.asarray(vectors), jax.jit(decide)
    select, no = find_renderer(env.name, plan.options.renderer).select, jnp.zeros((), bool)

    def start(vector: Any) -> Any:
        return initial_history(images, select(vector))

    def go_on(history: Any, vector: Any) -> Any:
        numbers = select(vector)
        return advance(images, history, numbers, numbers, no, no)[0]

    def choose(histories: Any, carry: PyTree) -> Any:
        return decide(jax.vmap(partial(select_frames, images))(histories), carry)

    return jax.jit(jax.vmap(start)), jax.jit(jax.vmap(go_on)), jax.jit(choose)


def play_side_by_side(
    envs: Any, limit: int, look: Callable, look_again: Callable, choose: Callable, carry: PyTree, seed: int
) -> np.ndarray:
    """Returns [episodes] of the first episode of each environment, of at most `limit` steps."""
    vectors, _ = envs.reset(seed=seed)
    memory, returns, is_running = look(vectors), np.zeros(envs.num_envs), np.ones(envs.num_envs, bool)
    for _ in range(limit):
        action, _, carry = choose(memory, carry)
        vectors, reward, terminated, _, _ = envs.step(np.asarray(action))
        returns += np.where(is_running, reward, 0.0)
        is_running &= ~terminated
        if not is_running.any():
            break
        memory = look_again(memory, vectors)
    return returns
