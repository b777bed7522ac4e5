"""Evaluation of greedy policies, in the environments that they were trained in or in gymnasium's."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jaxtyping import Array

from purejaxrl.analysis.learned_params import LearnedParams, load_params
from purejaxrl.components.hyperparameters import as_whole
from purejaxrl.envs import ENVIRONMENTS, find_renderer
from purejaxrl.envs.images import Renderer, advance, initial_history, select_frames
from purejaxrl.errors import InputError
from purejaxrl.experiment.intervals import interval
from purejaxrl.experiment.labels import column_name, counted, label_of, typed
from purejaxrl.experiment.options import check_whole
from purejaxrl.experiment.plan import Plan, images_of, refuse_unknown_objects
from purejaxrl.experiment.run_config import Recorded
from purejaxrl.storage.files import absolute_path
from purejaxrl.training import evaluation as playing
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.loop import initial_carry
from purejaxrl.training.programs import jit_once
from purejaxrl.types import Agent, Env, PyTree

BACKENDS = ("gymnax", "gymnasium")
MEANS = ("mean", "low", "high")


class Evaluation(NamedTuple):
    """How well greedy policies play.

    Attributes:
        mean: Mean of all returns; NaN where the runs have several settings, as a mean over these means nothing.
        low: Lower end of its 95% percentile bootstrap interval. The means of the runs are resampled where there are
            several, as seeds are what results of an algorithm vary with; the episodes of a single run.
        high: Upper end of the interval.
        returns: A row per run and episode: run, seed, episode, return; swept hyperparameters are columns.
        settings: A row per setting, best first: setting, swept hyperparameters, label, runs, and mean, low and high of
            its runs.
    """

    mean: float
    low: float
    high: float
    returns: pd.DataFrame
    settings: pd.DataFrame

    @classmethod
    def from_returns(cls, returns: pd.DataFrame, config: Recorded) -> Evaluation:
        """Compute means and intervals.

        Args:
            returns: A row per run and episode, as `evaluate` returns them.
            config: What was trained.

        Returns:
            The Evaluation.
        """
        settings = _describe_settings(returns, config)
        is_one = len(settings) == 1
        mean, low, high = settings.loc[0, list(MEANS)] if is_one else (math.nan, math.nan, math.nan)
        return cls(float(mean), float(low), float(high), returns, settings)

    def __repr__(self) -> str:
        episodes = counted(len(self.returns) // max(self.returns["run"].nunique(), 1), "episode")
        return "\n".join(
            f"{f'{row.label}: ' if row.label else ''}mean return {row.mean:.1f} [{row.low:.1f}, {row.high:.1f}], "
            f"{counted(row.runs, 'run')} x {episodes}"
            for row in self.settings[["label", "runs", *MEANS]].itertuples(index=False)
        )


def _describe_settings(returns: pd.DataFrame, config: Recorded) -> pd.DataFrame:
    """The rows of `Evaluation.settings`."""
    rows = []
    for setting, own in returns.groupby(config.setting_of(returns["run"].to_numpy(np.int64))):
        means = own.groupby("run")["return"].mean()
        values = (means if len(means) > 1 else own["return"]).to_numpy(float)
        rows.append(
            (setting, label_of(config.settings[setting]), len(means), own["return"].mean(), *interval(values, np.mean))
        )
    table = pd.DataFrame(rows, columns=["setting", "label", "runs", *MEANS])
    for place, name in enumerate(config.swept, 1):
        column = typed(values[name] for values in config.settings)[table["setting"]]
        table.insert(place, column_name(name, ("setting", "label", "runs", *MEANS)), column)
    return table.sort_values("mean", ascending=False, kind="stable", ignore_index=True)


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
        agent: Your own Agent, where the run used one: config.json only names it.
        network: The Flax module, where the training had one; a list of them where they were swept.
        env: The environment object, where the training had one.
        env_params: Its parameters, where config.json does not hold them by value.
        renderer: How to render its images, where that was given.
        **objects: Other fields of your own agent's Config that hold objects.

    Returns:
        A row per run and episode: run, seed, episode, return; swept hyperparameters are columns.

    Raises:
        InputError: If there is no run, its parameters are missing or damaged, or an argument is unknown, missing or not
            allowed.
    """
    refuse_unknown_objects(evaluate, objects, agent)
    episodes, seed = check_arguments(episodes, seed, backend)
    plan, batches = load_params(
        absolute_path(path),
        params,
        agent=agent,
        network=network,
        env=env,
        env_params=env_params,
        renderer=renderer,
        **objects,
    )
    return play_episodes(plan, batches, episodes, seed, backend)


def check_arguments(episodes: Any, seed: Any, backend: str) -> tuple[int, int]:
    """Check arguments of `evaluate`.

    Args:
        episodes: Number of episodes of each run, at least 1.
        seed: At least 0.
        backend: One of BACKENDS.

    Returns:
        Episodes and seed as ints.

    Raises:
        InputError: If one of them is not allowed.
    """
    episodes, seed = as_whole(episodes), as_whole(seed)
    check_whole("episodes", episodes, at_least=1)
    check_whole("seed", seed, at_least=0)
    if backend not in BACKENDS:
        raise InputError(f"--backend: {backend!r} is not allowed; use one of {', '.join(BACKENDS)}")
    return episodes, seed


@standard_jax()
def play_episodes(plan: Plan, batches: list[LearnedParams], episodes: int, seed: int, backend: str) -> pd.DataFrame:
    """Play whole episodes with the greedy policies of learners that have been loaded.

    Args:
        plan: What was trained.
        batches: The learners.
        episodes: Number of episodes of each run.
        seed: As for `evaluate`.
        backend: One of BACKENDS.

    Returns:
        A row per run and episode: run, seed, episode, return; swept hyperparameters are columns.

    Raises:
        InputError: If gymnasium is asked for and not installed, or lacks this environment.
    """
    play = _play_in_gymnax if backend == "gymnax" else _play_in_gymnasium
    rows = []
    for batch in batches:
        run = np.repeat(batch.runs, episodes)
        columns = {
            "run": run,
            "seed": plan.options.seed + run % plan.options.seeds,
            "episode": np.tile(np.arange(1, episodes + 1), len(batch.runs)),
            "return": play(plan, batch, episodes, seed).ravel(),
        }
        rows.append(pd.DataFrame(columns))
    returns = pd.concat(rows).sort_values(["run", "episode"], ignore_index=True)
    own, setting = tuple(returns), returns["run"].to_numpy() // plan.options.seeds
    for name in plan.settings[0].values:
        column = typed(setting.values[name] for setting in plan.settings)
        returns[column_name(name, own)] = column[setting]
    return returns


def _evaluate_runs(agent: Agent, env: Env, episodes: int, *arguments: Any) -> Array:
    """Evaluate several runs side by side."""
    returns: Array = jax.vmap(partial(playing.evaluate, agent, env, episodes))(*arguments)
    return returns


def _play_in_gymnax(plan: Plan, batch: LearnedParams, episodes: int, seed: int) -> np.ndarray:
    """Returns [runs, episodes] in the environment of the training, all runs side by side."""
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.asarray(batch.runs, jnp.uint32))
    play = jit_once(partial(_evaluate_runs, plan.agent, batch.setting.env, episodes))
    return np.asarray(play(batch.configs, batch.params, keys))


def _play_in_gymnasium(plan: Plan, batch: LearnedParams, episodes: int, seed: int) -> np.ndarray:
    """Returns [runs, episodes] in gymnasium's version of the environment, all episodes of a run side by side."""
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
        returns[row] = _play_side_by_side(envs, limit, *_vector_policy(plan, batch, config, params), carry, seed)
        envs.close()
    return returns


def _vector_policy(
    plan: Plan, batch: LearnedParams, config: Any, params: PyTree
) -> tuple[Callable, Callable, Callable]:
    """The greedy policy on state vectors [episodes, 4], as three jitted functions.

    start: vectors -> history. update: (history, vectors) -> history. act: (history, carry) -> ActorOutput.
    """
    env, images = batch.setting.env, images_of(batch.setting.config)
    policy = partial(plan.agent.policy, config, env, params)
    if images is None:
        return jnp.asarray, lambda _, vectors: jnp.asarray(vectors), jax.jit(policy)
    select, no = find_renderer(env.name, plan.options.renderer).select, jnp.zeros((), bool)

    def start(vector: Any) -> Any:
        return initial_history(images, select(vector))

    def update(history: Any, vector: Any) -> Any:
        numbers = select(vector)
        return advance(images, history, numbers, numbers, no, no)[0]

    def act(histories: Any, carry: PyTree) -> Any:
        return policy(jax.vmap(partial(select_frames, images))(histories), carry)

    return jax.jit(jax.vmap(start)), jax.jit(jax.vmap(update)), jax.jit(act)


def _play_side_by_side(
    envs: Any, limit: int, start: Callable, update: Callable, act: Callable, carry: PyTree, seed: int
) -> np.ndarray:
    """Returns [episodes] of the first episode of each environment, of at most `limit` steps."""
    vectors, _ = envs.reset(seed=seed)
    history, returns, is_running = start(vectors), np.zeros(envs.num_envs), np.ones(envs.num_envs, bool)
    for _ in range(limit):
        action, _, carry = act(history, carry)
        vectors, reward, terminated, _, _ = envs.step(np.asarray(action))
        returns += np.where(is_running, reward, 0.0)
        is_running &= ~terminated
        if not is_running.any():
            break
        history = update(history, vectors)
    return returns
