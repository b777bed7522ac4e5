"""Plans: what is to be trained, checked before anything compiles, from keyword arguments to a Plan."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib.metadata
import inspect
import platform
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from purejaxrl.agents import AGENTS
from purejaxrl.components.hyperparameters import (
    MAX_ENV_STEPS,
    REMOVED,
    Budget,
    ImageConfig,
    budget_names,
    check_fields,
    field_specs,
    find_budget,
)
from purejaxrl.components.networks import check_network
from purejaxrl.envs import Images, env_name, make, with_params
from purejaxrl.envs.gymnax_params import plain_values
from purejaxrl.errors import InputError, warn
from purejaxrl.experiment import presets, schema
from purejaxrl.experiment.labels import label_of, preset_name, show
from purejaxrl.experiment.options import Options, make_options
from purejaxrl.experiment.run_config import CUSTOM
from purejaxrl.experiment.settings import MAX_RUNS, Range, Setting, check_entries, count_settings, resolve_settings
from purejaxrl.experiment.validation import check_agent, check_env, check_record, check_rollout_shape
from purejaxrl.training.devices import device_kind
from purejaxrl.training.jax_settings import standard_jax
from purejaxrl.training.loop import iterations_of
from purejaxrl.types import Agent, Env

__all__ = [
    "Plan",
    "Training",
    "plan_sweep",
    "plan_train",
    "refuse_unknown",
    "refuse_unknown_objects",
    "validate",
    "versions",
]

MAX_LOGGED_RUNS = 256
PACKAGES = ("purejaxrl", "jax", "jaxlib", "flax", "optax", "gymnax", "numpy")


class Training(NamedTuple):
    """One setting of a plan.

    Attributes:
        values: Its swept hyperparameters by name.
        config: Its Config.
        env: The environment.
        budget: The budget of each run.
        shape: (T, N), the steps and actors of one iteration.
        log_every: Env steps of a logging interval.
    """

    values: dict[str, Any]
    config: Any
    env: Env
    budget: Budget
    shape: tuple[int, int]
    log_every: int

    @property
    def steps(self) -> int:
        """Number of env steps of one iteration."""
        return self.shape[0] * self.shape[1]

    @property
    def max_env_steps(self) -> int:
        """Number of env steps after which the budget is used up for certain."""
        return iterations_of(self.budget, self.shape, self.env.max_episode_steps) * self.steps


class Plan(NamedTuple):
    """Training that has been checked and not yet started; nothing in it has been compiled.

    Run r has setting r // seeds, and starts from jax.random.key(seed + r % seeds).

    Attributes:
        agent: The algorithm.
        settings: The settings.
        options: The options.
        is_sweep: Whether it is a sweep.
    """

    agent: Agent
    settings: tuple[Training, ...]
    options: Options
    is_sweep: bool

    @property
    def env(self) -> str:
        """Name of the environment."""
        return self.settings[0].env.name

    @property
    def solved_at(self) -> float | None:
        """Mean return that counts as solved, None for none."""
        return self.settings[0].env.solved_at

    @property
    def eval_episodes(self) -> int | None:
        """Episodes of an evaluation, None without evaluations."""
        return self.options.eval_episodes if self.options.eval_every else None

    @property
    def runs(self) -> int:
        """Number of runs of all settings."""
        return self.options.seeds * len(self.settings)

    @property
    def labels(self) -> list[str]:
        """Labels of the settings."""
        return [label_of(setting.values) or preset_name(self.options.preset) for setting in self.settings]

    def as_dict(self) -> dict[str, Any]:
        """Return the content of config.json, with everything needed to repeat the training."""
        configs = [recorded(self.agent, presets.as_dict(setting.config)) for setting in self.settings]
        own = [name for name in configs[0] if any(config[name] != configs[0][name] for config in configs)]
        own += [name for name in self.settings[0].values if name not in own]
        log_every = sorted({setting.log_every for setting in self.settings})
        asked = dataclasses.asdict(dataclasses.replace(self.options, env=None, env_params=None, renderer=None))
        for name in ("random", "yes", "env_params", "debug"):
            del asked[name]
        swept = list(self.settings[0].values)
        return {
            "schema_version": schema.SCHEMA_VERSION,
            "algorithm": _label_object(self.agent, self.agent.name, is_built_in(self.agent)),
            **asked,
            "env": _label_object(self.options.env, self.env, isinstance(self.options.env, str)),
            "env_params": recorded_params(self.options.env, self.options.env_params),
            "renderer": _label_object(self.options.renderer, "renderer", self.options.renderer is None),
            "solved_at": self.solved_at,
            "log_every": log_every if len(log_every) > 1 else log_every[0],
            "config": {name: value for name, value in configs[0].items() if name not in own},
            **({"swept": swept} if self.is_sweep else {}),
            **({"settings": [{name: config[name] for name in own} for config in configs]} if self.is_sweep else {}),
            "versions": versions(),
        }


def is_built_in(agent: Agent) -> bool:
    """Check whether an agent is built in, so that it can be found by its name.

    Args:
        agent: The agent.

    Returns:
        Whether it is; an agent that was pickled is equal to the built-in one, not identical.
    """
    return AGENTS.get(agent.name) == agent


def _label_object(value: Any, name: str, is_own: bool) -> str | None:
    """Return the text that stands for an object in config.json."""
    if value is None:
        return None
    return name if is_own else f"{CUSTOM}{name}"


def recorded_params(env: Any, given: Any) -> dict[str, Any] | str | None:
    """Convert env_params to their form in config.json.

    Args:
        env: The environment as the user gave it.
        given: The user's env_params.

    Returns:
        Values by name; a label where they are not plain and must be given again. None where they are the defaults that
        a name stands for, or that are not plain, and for an Env, which has none.
    """
    if isinstance(env, Env) or (isinstance(env, str) and given is None):
        return None
    _, params, default = with_params(env, given)
    values = plain_values(params, default)
    return _label_object(given, type(params).__name__, is_own=False) if values is None else values


def recorded(agent: Agent, values: dict[str, Any]) -> dict[str, Any]:
    """Convert hyperparameters to their form in files, where labels stand for a user's own objects.

    Args:
        agent: The algorithm.
        values: Hyperparameters by name.

    Returns:
        Their recorded values by name.
    """
    specs = field_specs(agent.Config)
    return {
        name: _label_object(value, show(value), is_own=False) if specs[name].is_object else value
        for name, value in values.items()
    }


def plan_train(algorithm: str | Agent, **arguments: Any) -> Plan:
    """Check the arguments of `purejaxrl.train` and plan the training.

    Args:
        algorithm: Name of an algorithm, or an Agent.
        **arguments: Options and hyperparameters, as for `purejaxrl.train`.

    Returns:
        The Plan.

    Raises:
        InputError: If an argument is not allowed.
    """
    options, hyperparameters = _split_options(arguments)
    agent = agent_of(algorithm)
    specs = field_specs(agent.Config)
    for name, value in hyperparameters.items():
        if isinstance(value, list) and name in specs:
            check_entries(name, value, specs[name])
        if isinstance(value, list | Range):
            raise InputError(f"--{name}: {show_source(value)} is a sweep; train takes one value, `sweep` takes several")
    return _make_plan(agent, options, hyperparameters, is_sweep=False)


def plan_sweep(algorithm: str | Agent, **arguments: Any) -> Plan:
    """Check the arguments of `purejaxrl.sweep` and plan the sweep.

    Args:
        algorithm: Name of an algorithm, or an Agent.
        **arguments: Options and hyperparameters, as for `purejaxrl.sweep`.

    Returns:
        The Plan.

    Raises:
        InputError: If an argument is not allowed.
    """
    options, hyperparameters = _split_options(arguments)
    runs = options.seeds * count_settings(hyperparameters, options.random)
    if runs > MAX_RUNS and not options.yes:
        raise InputError(f"--yes: {runs} runs are more than {MAX_RUNS}; it must be given for so many")
    return _make_plan(agent_of(algorithm), options, hyperparameters, is_sweep=True)


def refuse_unknown(function: Callable, given: Collection[str], fields: Collection[str] = ()) -> None:
    """Check the names of the arguments that a function has received as `**`.

    Args:
        function: The function, whose keyword-only arguments are suggested in place of unknown ones.
        given: The names.
        fields: Names that are allowed.

    Raises:
        InputError: If a name is not allowed, naming the closest argument that there is, else all.
    """
    options = [it.name for it in inspect.signature(function).parameters.values() if it.kind is it.KEYWORD_ONLY]
    known = [*fields, *options]
    for name in given:
        if name in REMOVED:
            raise InputError(f"--{name}: {REMOVED[name]}")
        if name not in fields:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"{function.__name__} takes {', '.join(known)}"
            raise InputError(f"unknown argument {name}; {hint}")


def refuse_unknown_objects(function: Callable, given: Collection[str], agent: Any) -> None:
    """Check names like `refuse_unknown`, allowing the fields of a user's own agent that hold objects.

    Args:
        function: The function that received them.
        given: The names.
        agent: The user's agent, or None.

    Raises:
        InputError: If a name is not allowed.
    """
    if given:
        specs = {} if agent is None else field_specs(agent_of(agent).Config)
        refuse_unknown(function, given, [name for name, spec in specs.items() if spec.is_object])


def as_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Convert keyword arguments from the forms that Python allows to those of options and hyperparameters.

    Args:
        arguments: The arguments.

    Returns:
        One-dimensional NumPy arrays as lists, such as those of np.logspace(-4, -2, 5), and a preset's path as text.
    """
    found = {
        name: value.tolist() if isinstance(value, np.ndarray) and value.ndim == 1 else value
        for name, value in arguments.items()
    }
    return found | ({"preset": str(found["preset"])} if isinstance(found.get("preset"), Path) else {})


def _split_options(arguments: dict[str, Any]) -> tuple[Options, dict[str, Any]]:
    """Split keyword arguments into checked Options and hyperparameters."""
    arguments = as_options(arguments)
    names = {field.name for field in dataclasses.fields(Options)}
    for name, value in arguments.items():
        if name in names and isinstance(value, list | Range):
            raise InputError(f"--{name}: {show_source(value)} is a list; --{name} takes one value")
    options = make_options({name: value for name, value in arguments.items() if name in names})
    return options, {name: value for name, value in arguments.items() if name not in names}


def _make_plan(agent: Agent, options: Options, hyperparameters: dict[str, Any], *, is_sweep: bool) -> Plan:
    """Build a Plan from checked Options."""
    best = presets.read_best(options.preset, agent, hyperparameters)
    if best is not None and best.env != env_name(options.env):
        warn(f"{best.path} was found on {best.env}, and trains on {env_name(options.env)} here", stacklevel=2)
    observation_type = presets.observation_type_of(agent, options.preset, options.observation_type, best)
    if options.renderer is not None and observation_type != "img":
        raise InputError("--renderer: it draws images; give observation_type='img'")
    chosen = resolve_settings(
        agent,
        env_name(options.env),
        observation_type,
        options.preset,
        hyperparameters,
        random=options.random,
        seed=options.seed,
        best=best,
    )
    return plan_settings(agent, dataclasses.replace(options, observation_type=observation_type), chosen, is_sweep)


@standard_jax()
def plan_settings(agent: Agent, options: Options, chosen: list[Setting], is_sweep: bool) -> Plan:
    """Build a Plan from checked Options and settings whose Configs are complete.

    Args:
        agent: The algorithm.
        options: The checked options.
        chosen: The settings.
        is_sweep: Whether it is a sweep.

    Returns:
        The Plan.

    Raises:
        InputError: If a setting or the environment is not allowed.
    """
    made: dict[Any, Env] = {}
    checked = set()
    settings = []
    for values, config in chosen:
        key = (getattr(config, "max_ep_len", None), images_of(config))
        if key not in made:
            limit, images = key
            made[key] = make(
                options.env,
                options.env_params,
                max_ep_len=limit,
                solved_at=options.solved_at,
                images=images,
                renderer=options.renderer,
            )
            if not isinstance(options.env, str) or options.env_params is not None:
                check_env(made[key])
        settings.append(_plan_setting(agent, options, values, config, made[key]))
        # Settings that share a program share all shapes.
        program = (key, jax.tree.structure(config))
        if program not in checked:
            check_agent(agent, config, made[key])
            checked.add(program)
    auto = "on" if options.seeds * len(settings) <= MAX_LOGGED_RUNS else "off"
    resolved = dataclasses.replace(
        options,
        device=device_kind(options.device),
        episodes_log=auto if options.episodes_log == "auto" else options.episodes_log,
    )
    return Plan(agent, tuple(settings), resolved, is_sweep)


def _plan_setting(agent: Agent, options: Options, values: dict[str, Any], config: Any, env: Env) -> Training:
    """Check one setting and determine its budget and logging interval."""
    validate(agent, config, env)
    budget = find_budget(config)
    if options.stop_when_solved:
        if env.solved_at is None:
            raise InputError(f"--stop_when_solved: no threshold is agreed for {env.name}; give one with --solved_at")
        budget = budget._replace(stop_at=float(env.solved_at))
    shape = agent.rollout_shape(config)
    _check_extent(budget, shape, env)
    by_default = shape[0] * shape[1] if "epochs" in budget_names(config) else 1000
    log_every = options.log_every or min(by_default, options.eval_every or by_default)
    return Training(values, config, env, budget, shape, log_every)


def validate(agent: Agent, config: Any, env: Env) -> None:
    """Check the values of a Config, and that it fits the environment.

    Args:
        agent: The algorithm.
        config: The Config.
        env: The environment.

    Raises:
        InputError: If a value is not allowed or does not fit, naming the first.
    """
    check_fields(config)
    find_budget(config)
    check_network(config, env.input_shape)
    images = images_of(config)
    if images is not None and images.shape != env.input_shape:
        raise InputError(
            f"--image: the Config's images are {list(images.shape)}, and those of {env.name} {list(env.input_shape)}"
        )
    # First what is wrong with hyperparameters, by their names; then what has become of them.
    agent.check(config, env)
    check_rollout_shape(agent, config)


def images_of(config: Any) -> Images | None:
    """Return the image observations that a Config asks for.

    Args:
        config: The Config.

    Returns:
        The images, None for vectors.
    """
    if not isinstance(config, ImageConfig) or config.image is None:
        return None
    return Images(config.image, config.frames, config.frame_spacing, config.image_size, config.channels)


def show_source(value: Any) -> str:
    """Format a list or range as a user may have written it.

    Args:
        value: The list or range.

    Returns:
        The text.
    """
    return str(value) if isinstance(value, Range) else ",".join(map(show, value)) or "an empty list"


def agent_of(algorithm: str | Agent) -> Agent:
    """Return the Agent of a name, or check an Agent that was given.

    Args:
        algorithm: Name of an algorithm, or an Agent.

    Returns:
        The Agent.

    Raises:
        InputError: If the name is unknown, or the Agent lacks something.
    """
    if isinstance(algorithm, Agent):
        check_record(algorithm)
        return algorithm
    if algorithm not in AGENTS:
        raise InputError(f"unknown algorithm {algorithm!r}; use one of {', '.join(AGENTS)}")
    return AGENTS[algorithm]


def _check_extent(budget: Budget, shape: tuple[int, int], env: Env) -> None:
    """Check that the number of env steps fits int32, within one iteration and over the budget."""
    steps = shape[0] * shape[1]
    if steps > MAX_ENV_STEPS:
        raise InputError(
            f"--actors: {shape[1]} with {shape[0]} steps each are more than {MAX_ENV_STEPS} env steps per iteration"
        )
    if budget.kind != "episodes" and iterations_of(budget, shape, env.max_episode_steps) * steps > MAX_ENV_STEPS:
        most = MAX_ENV_STEPS // steps * (1 if budget.kind == "epochs" else steps)
        raise InputError(
            f"--{budget.kind}: {budget.amount} is not allowed; it takes at most {most}, as iterations of {steps} env "
            f"steps may be no more than {MAX_ENV_STEPS} env steps per run"
        )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that influence results."""
    return {"python": platform.python_version(), **{name: _version_of(name) for name in PACKAGES}}


@functools.cache
def _version_of(package: str) -> str:
    """Look up the version of a package, which takes a millisecond."""
    return importlib.metadata.version(package)
