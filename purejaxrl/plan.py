"""What is to be trained, checked before anything compiles: from keyword arguments to a Plan."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any, NamedTuple

import numpy as np

from purejaxrl import presets
from purejaxrl.agents import AGENTS
from purejaxrl.config import MAX_ENV_STEPS, MAX_INT, Budget, budget_of, check_fields
from purejaxrl.envs import make, name_of
from purejaxrl.errors import InputError
from purejaxrl.results.labels import label_of, show
from purejaxrl.settings import MAX_RUNS, Range, count_settings, resolve_settings
from purejaxrl.training.devices import device_kind
from purejaxrl.training.loop import iterations_of
from purejaxrl.types import Agent, Env

__all__ = ["Plan", "Training", "plan_sweep", "plan_train", "validate", "versions"]

# What takes one value, in a sweep too.
COMMON = {
    "env",
    "env_params",
    "observation_type",
    "preset",
    "device",
    "devices",
    "seeds",
    "seed",
    "log_every",
    "eval_every",
    "eval_episodes",
    "solved_at",
    "stop_when_solved",
    "episodes_log",
    "max_memory",
    "random",
}
EVAL_EPISODES = 20
MAX_LOGGED_RUNS = 256
PACKAGES = ("purejaxrl", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy")


class Training(NamedTuple):
    """One setting of a plan. `values` are its swept hyperparameters; shape is the agent's (T, N)."""

    values: dict[str, Any]
    config: Any
    env: Env
    budget: Budget
    shape: tuple[int, int]
    log_every: int

    @property
    def steps(self) -> int:
        """Env steps of one iteration."""
        return self.shape[0] * self.shape[1]

    @property
    def max_env_steps(self) -> int:
        """Env steps after which the budget is used up for certain."""
        return iterations_of(self.budget, self.shape, self.env.max_episode_steps) * self.steps


class Plan(NamedTuple):
    """What has been checked and not yet started: nothing in it has been compiled.

    Run r has setting r // seeds, and starts from jax.random.key(seed + r % seeds).
    """

    agent: Agent
    settings: tuple[Training, ...]
    env: str
    env_label: str
    solved_at: float | None
    observation_type: str
    preset: str
    device: str
    devices: int | None
    seeds: int
    seed: int
    eval_every: int | None
    eval_episodes: int
    episodes_log: str
    stop_when_solved: bool
    max_memory: float | None
    is_sweep: bool

    @property
    def runs(self) -> int:
        """All runs of all settings."""
        return self.seeds * len(self.settings)

    @property
    def labels(self) -> list[str]:
        """The settings in words."""
        return [label_of(setting.values) or self.preset for setting in self.settings]

    def as_dict(self) -> dict[str, Any]:
        """What config.json holds: everything needed to repeat the training."""
        configs = [presets.as_dict(setting.config) for setting in self.settings]
        own = [name for name in configs[0] if any(config[name] != configs[0][name] for config in configs)]
        own += [name for name in self.settings[0].values if name not in own]
        log_every = sorted({setting.log_every for setting in self.settings})
        return {
            "algorithm": self.agent.name,
            "env": self.env_label,
            "observation_type": self.observation_type,
            "preset": self.preset,
            "solved_at": self.solved_at,
            "stop_when_solved": self.stop_when_solved,
            "device": self.device,
            "devices": self.devices,
            "seeds": self.seeds,
            "seed": self.seed,
            "log_every": log_every if len(log_every) > 1 else log_every[0],
            "eval_every": self.eval_every,
            "eval_episodes": self.eval_episodes,
            "episodes_log": self.episodes_log,
            "max_memory": self.max_memory,
            "config": {name: value for name, value in configs[0].items() if name not in own},
            **({"settings": [{name: config[name] for name in own} for config in configs]} if self.is_sweep else {}),
            "versions": versions(),
        }


def plan_train(algorithm: str | Agent, **arguments: Any) -> Plan:
    """Check a training of one setting. Arguments as for `purejaxrl.train`. Raises InputError."""
    for name in ("random", "yes"):
        if name in arguments:
            raise InputError(f"--{name}: {arguments[name]} is for `sweep`; train takes one setting")
    arguments = with_lists(arguments)
    refuse_lists(arguments)
    for name, value in arguments.items():
        if isinstance(value, list | Range):
            raise InputError(f"--{name}: {show_source(value)} is a sweep; train takes one value, `sweep` takes several")
    return _plan(algorithm, is_sweep=False, **arguments)


def plan_sweep(algorithm: str | Agent, *, yes: bool = False, **arguments: Any) -> Plan:
    """Check a sweep. Arguments as for `purejaxrl.sweep`. Raises InputError."""
    arguments = with_lists(arguments)
    refuse_lists(arguments)
    return _plan(algorithm, is_sweep=True, yes=yes, **arguments)


def with_lists(arguments: dict[str, Any]) -> dict[str, Any]:
    """NumPy's vectors as lists, as np.logspace(-4, -2, 5) makes them."""
    return {
        name: value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value
        for name, value in arguments.items()
    }


def refuse_lists(arguments: dict[str, Any]) -> None:
    """Raise InputError where alternatives are given for what is no hyperparameter."""
    for name, value in arguments.items():
        if name in COMMON and isinstance(value, list | Range):
            raise InputError(f"--{name}: {show_source(value)} is a list; --{name} takes one value")


def _plan(
    algorithm: str | Agent,
    *,
    is_sweep: bool,
    env: Any = "CartPole-v0",
    env_params: Any = None,
    observation_type: str = "default",
    preset: str = "original",
    device: str = "cpu",
    devices: int | None = None,
    seeds: int = 1,
    seed: int = 0,
    log_every: int | None = None,
    eval_every: int | None = None,
    eval_episodes: int = EVAL_EPISODES,
    solved_at: float | None = None,
    stop_when_solved: bool = False,
    episodes_log: str = "auto",
    max_memory: float | None = None,
    random: int | None = None,
    yes: bool = False,
    **hyperparameters: Any,
) -> Plan:
    agent = agent_of(algorithm)
    check_observation_type(observation_type)
    check_counts(seeds, seed, devices)
    check_logging(log_every, eval_every, eval_episodes, episodes_log)
    check_number("solved_at", solved_at)
    check_number("max_memory", max_memory, above=0)
    if random is not None:
        check_whole("random", random, at_least=1)
    runs = seeds * count_settings(hyperparameters, random)
    if is_sweep and runs > MAX_RUNS and not yes:
        raise InputError(f"--yes: {runs} runs are more than {MAX_RUNS}; give --yes if that is what you want")

    named = name_of(env)
    chosen = resolve_settings(agent, named, observation_type, preset, hyperparameters, random=random, seed=seed)
    made: dict[Any, Env] = {}
    settings = []
    for values, config in chosen:
        max_ep_len = getattr(config, "max_ep_len", None)
        if max_ep_len not in made:
            made[max_ep_len] = make(env, env_params, max_ep_len=max_ep_len, solved_at=solved_at)
        settings.append(plan_setting(agent, values, config, made[max_ep_len], log_every, eval_every, stop_when_solved))
    first = settings[0].env
    return Plan(
        agent,
        tuple(settings),
        first.name,
        first.name if isinstance(env, str) else f"custom: {first.name}",
        first.solved_at,
        observation_type,
        preset,
        device_kind(device),
        devices,
        seeds,
        seed,
        eval_every,
        eval_episodes,
        episodes_log if episodes_log != "auto" else "on" if runs <= MAX_LOGGED_RUNS else "off",
        stop_when_solved,
        max_memory,
        is_sweep,
    )


def plan_setting(
    agent: Agent,
    values: dict[str, Any],
    config: Any,
    env: Env,
    log_every: int | None,
    eval_every: int | None,
    stop_when_solved: bool,
) -> Training:
    """Check one setting. Raises InputError."""
    validate(agent, config, env)
    budget = budget_of(config)
    if stop_when_solved:
        if env.solved_at is None:
            raise InputError(f"--stop_when_solved: no threshold is agreed for {env.name}; give one with --solved_at")
        budget = budget._replace(stop_at=float(env.solved_at))
    shape = agent.rollout_shape(config)
    check_extent(budget, shape, env)
    by_default = shape[0] * shape[1] if hasattr(config, "epochs") else 1000
    return Training(values, config, env, budget, shape, log_every or min(by_default, eval_every or by_default))


def validate(agent: Agent, config: Any, env: Env) -> None:
    """Check a Config's values, and that it fits the environment. Raises InputError naming the first that does not."""
    check_fields(config)
    budget_of(config)
    agent.check(config, env)


def show_source(value: Any) -> str:
    """A list or range as a user may have written it."""
    return str(value) if isinstance(value, Range) else ",".join(map(show, value)) or "an empty list"


def agent_of(algorithm: str | Agent) -> Agent:
    """An Agent by name, or as given. Raises InputError for an unknown name."""
    if isinstance(algorithm, Agent):
        return algorithm
    if algorithm not in AGENTS:
        raise InputError(f"unknown algorithm {algorithm!r}; use one of {', '.join(AGENTS)}")
    return AGENTS[algorithm]


def check_observation_type(observation_type: str) -> None:
    """Raise InputError unless the observation type is one there is."""
    if observation_type == "img":
        raise InputError("--observation_type: img is not available yet; use default")
    if observation_type != "default":
        raise InputError(f"--observation_type: {observation_type!r} is not allowed; use default")


def check_counts(seeds: Any, seed: Any, devices: Any) -> None:
    """Raise InputError unless seeds are whole numbers that 32 bits hold, and there is a number of devices, if any."""
    check_whole("seeds", seeds, at_least=1)
    check_whole("seed", seed, at_least=0, at_most=2**32 - seeds)
    if devices is not None:
        check_whole("devices", devices, at_least=1)


def check_logging(log_every: Any, eval_every: Any, eval_episodes: Any, episodes_log: Any) -> None:
    """Raise InputError unless what is logged, and how often, makes sense together."""
    for name, value in (("log_every", log_every), ("eval_every", eval_every)):
        if value is not None:
            check_whole(name, value, at_least=1)
    check_whole("eval_episodes", eval_episodes, at_least=1)
    if eval_every is not None and log_every is not None and log_every > eval_every:
        raise InputError(
            f"--log_every: {log_every} is more than --eval_every {eval_every}; rows would lose evaluations"
        )
    if episodes_log not in ("auto", "on", "off"):
        raise InputError(f"--episodes_log: {episodes_log!r} is not allowed; use auto, on or off")


def check_number(name: str, value: Any, *, above: float = -np.inf) -> None:
    """Raise InputError unless value is None or a finite number above a bound."""
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if value is not None and not (is_number and np.isfinite(value) and value > above):
        limits = f" above {above:g}" if np.isfinite(above) else ""
        raise InputError(f"--{name}: {value!r} is not allowed; it takes a finite number{limits}")


def check_extent(budget: Budget, shape: tuple[int, int], env: Env) -> None:
    """Raise InputError where env steps would pass int32, within one iteration or over the budget."""
    steps = shape[0] * shape[1]
    if steps > MAX_ENV_STEPS:
        raise InputError(
            f"--actors: {shape[1]} with {shape[0]} steps each are more than {MAX_ENV_STEPS} env steps per iteration"
        )
    if budget.kind != "episodes" and iterations_of(budget, shape, env.max_episode_steps) * steps > MAX_ENV_STEPS:
        raise InputError(f"--{budget.kind}: {budget.amount} is more than {MAX_ENV_STEPS} env steps per run")


def check_whole(name: str, value: Any, *, at_least: int, at_most: int = MAX_INT) -> None:
    """Raise InputError unless value is a whole number within bounds."""
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or not at_least <= value <= at_most:
        limits = f"at least {at_least} and at most {at_most}"
        raise InputError(f"--{name}: {value!r} is not allowed; it takes a whole number {limits}")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a result."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
