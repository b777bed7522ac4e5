"""Plans of `purejaxrl.tune`: the settings, the search, and what the winner is compared with."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, NamedTuple

from purejaxrl.components.hyperparameters import BUDGETS, budget_names, field_specs, make_checked
from purejaxrl.envs import env_name
from purejaxrl.errors import InputError, warn
from purejaxrl.experiment import presets
from purejaxrl.experiment.options import Options
from purejaxrl.experiment.plan import Plan, agent_of, as_options, plan_settings, plan_sweep, recorded
from purejaxrl.experiment.plan_from_config import replan
from purejaxrl.experiment.run import check_nothing_is_lost
from purejaxrl.experiment.run_config import as_tuple
from purejaxrl.experiment.search import SETTINGS, Search, SearchSpec, check_search
from purejaxrl.experiment.settings import MAX_RUNS, Range, Setting, count_settings
from purejaxrl.experiment.spaces import default_space
from purejaxrl.storage import run_folder
from purejaxrl.types import Agent

# Seconds of the units of a time limit.
UNITS = {"s": 1, "m": 60, "h": 3600}
# Env steps of a run where neither the user nor a preset says how many, by algorithm.
ENV_STEPS = {"vpg": 500_000, "a3c": 500_000, "dqn": 200_000}


class TunePlan(NamedTuple):
    """Search that has been checked and not yet started.

    Attributes:
        plan: The sweep of all settings and seeds, of which the search trains a part.
        search: The options of the search.
        space: What the settings were drawn from: lists of alternatives and ranges by name.
        baseline: The Config of the preset with the hyperparameters that the user has fixed.
        kept: How many settings go on to each rung after the first, as far as time has decided that.
    """

    plan: Plan
    search: Search
    space: dict[str, list[Any] | Range]
    baseline: Any
    kept: tuple[int, ...] = ()

    @property
    def spec(self) -> SearchSpec:
        """Constants on which the search depends."""
        plan, search = self.plan, self.search
        return SearchSpec(
            search.method,
            search.objective,
            len(plan.settings),
            plan.options.seeds,
            plan.settings[0].budget.amount,
            max(setting.steps for setting in plan.settings),
            search.eta,
            self.kept,
            plan.solved_at if plan.options.stop_when_solved else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the content of config.json, from which `replan_tune` restores the plan."""
        agent, first = self.plan.agent, self.plan.settings[0]
        differing = {
            name: value
            for name, value in presets.as_dict(self.baseline).items()
            if name in first.values or value != getattr(first.config, name)
        }
        sources = {
            name: source._asdict()
            if isinstance(source, Range)
            else [recorded(agent, {name: value})[name] for value in source]
            for name, source in self.space.items()
        }
        asked = dataclasses.asdict(self.search)
        found = {"space": sources, "preset": recorded(agent, differing), "kept": list(self.kept)}
        return self.plan.as_dict() | {"tune": asked | found}


def plan_tune(algorithm: str | Agent, **arguments: Any) -> TunePlan:
    """Check the arguments of `purejaxrl.tune` and plan the search.

    Args:
        algorithm: Name of an algorithm, or an Agent.
        **arguments: Options and hyperparameters, as for `purejaxrl.tune`.

    Returns:
        The plan.

    Raises:
        InputError: If an argument is not allowed.
    """
    agent = agent_of(algorithm)
    arguments = as_options(arguments)
    search = make_checked(Search, {name: value for name, value in arguments.items() if name in field_specs(Search)})
    if search.time is not None:
        parse_duration(search.time)
    if search.time is not None and search.method != "halving":
        raise InputError(f"--time: it decides the rungs of halving, not those of --method {search.method}")
    options = {name: value for name, value in arguments.items() if name in field_specs(Options)}
    given = {
        name: value for name, value in arguments.items() if name not in field_specs(Search) and name not in options
    }
    if search.objective == "steps_to_solve":
        options["stop_when_solved"] = True
    _check_budget(agent, given)
    name, preset = env_name(options.get("env", Options.env)), options.get("preset", Options.preset)
    best = presets.read_best(preset, agent, given)
    observation_type = presets.observation_type_of(agent, preset, options.get("observation_type"), best)
    space = {name: value for name, value in given.items() if isinstance(value, list | Range)}
    fixed = {name: value for name, value in given.items() if name not in space}
    if not space:
        defaults = default_space(agent)
        replaced = {name for pair in presets.EXCLUSIVE if set(pair) & set(fixed) for name in pair} | set(fixed)
        space = {name: source for name, source in defaults.items() if name not in replaced}
    if not space:
        raise InputError("--settings: settings of what? give a list or a range for a hyperparameter")
    if fixed.get("env_steps") is None:
        fixed["env_steps"] = _usual_env_steps(agent, name, observation_type, preset, fixed, best)
    # All combinations of lists, if these are no more.
    is_grid = not any(isinstance(source, Range) for source in space.values())
    settings = SETTINGS if search.settings is None else search.settings
    is_whole = is_grid and count_settings(space, None) <= settings
    random = None if is_whole else settings
    plan = plan_sweep(agent, **options, **fixed, **space, random=random)
    if len(plan.settings) < 2:
        raise InputError("--settings: 1 setting is nothing to choose from; give more alternatives, or a range")
    baseline = presets.resolve(agent, name, observation_type, preset, fixed, best)
    tune = TunePlan(plan, search, space, baseline)
    check_search(tune.spec)
    last = plan.options.seed + plan.options.seeds + search.confirm_seeds
    if last > 2**32:
        raise InputError(f"--confirm_seeds: {search.confirm_seeds} is not allowed; its last seed would be {last - 1}")
    if 2 * search.confirm_seeds > MAX_RUNS:
        raise InputError(f"--confirm_seeds: {search.confirm_seeds} is not allowed; it takes up to {MAX_RUNS // 2}")
    if search.confirm_seeds:
        # What does not fit is to be known before the search.
        plan_confirmation(tune, 0)
    return tune


def parse_duration(text: str) -> float:
    """Convert the text of a time limit to seconds.

    Args:
        text: A number with its unit, as 90s, 2m or 1.5h.

    Returns:
        The number of seconds.

    Raises:
        InputError: If it is none.
    """
    found = re.fullmatch(r"(\d+|\d*\.\d+)\s*([smh])", text.strip().lower())
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not seconds:
        raise InputError(f"--time: {text!r} is not allowed; it takes a number of s, m or h, as 90s, 2m or 1h")
    return seconds


def _check_budget(agent: Agent, given: dict[str, Any]) -> None:
    """Check that the budget is one number of env steps, of which rungs take a part."""
    for name in BUDGETS:
        if given.get(name) is not None and name != "env_steps":
            raise InputError(f"--{name}: tune divides a budget of env steps; give --env_steps")
    if "env_steps" not in budget_names(agent.Config):
        raise InputError(f"--env_steps: {agent.name} has no such budget, and tune divides it into rungs")
    if isinstance(given.get("env_steps"), list | Range):
        raise InputError("--env_steps: it is the budget of every run of a tune, and takes one value")


def _usual_env_steps(
    agent: Agent,
    env: str,
    observation_type: str,
    preset: str,
    fixed: dict[str, Any],
    best: presets.BestFile | None,
) -> int:
    """Return the budget of a run where the user gives none: the preset's, that of `tuned`, or that of the algorithm."""
    config = presets.resolve(agent, env, observation_type, preset, fixed, best)
    tuned = presets.TUNED.get(presets.tuned_key(agent, env, observation_type, fixed), {})
    family = presets.family_of(agent)
    return int(config.env_steps or tuned.get("env_steps") or ENV_STEPS.get(family, max(ENV_STEPS.values())))


def replan_tune(content: dict[str, Any], **arguments: Any) -> TunePlan:
    """Restore the plan from the content of a config.json.

    Args:
        content: Content of config.json, with what `TunePlan.as_dict` adds.
        **arguments: As for `plan_from_config.replan`.

    Returns:
        The plan.

    Raises:
        InputError: If the content or an argument is not allowed.
    """
    if arguments.get("extend") is not None:
        raise InputError("--extend: the rungs of a tune are parts of its budget, which cannot change")
    found = content["tune"]
    names = field_specs(Search)
    is_sound = isinstance(found, dict) and {*names, "space", "preset", "kept"} <= found.keys()
    if not is_sound or not isinstance(found["space"], dict) or not isinstance(found["preset"], dict):
        raise InputError("config.json: tune does not say how to search")
    plan = replan({name: value for name, value in content.items() if name != "tune"}, **arguments)
    search = make_checked(Search, {name: found[name] for name in names})
    space: dict[str, list[Any] | Range] = {
        name: Range(**source) if isinstance(source, dict) else [as_tuple(value) for value in source]
        for name, source in found["space"].items()
    }
    differing = {name: as_tuple(value) for name, value in found["preset"].items()}
    try:
        baseline = dataclasses.replace(plan.settings[0].config, **differing)
    except TypeError as error:
        raise InputError(f"config.json: {plan.agent.name} has no such hyperparameters: {error}") from error
    return TunePlan(plan, search, space, baseline, tuple(found["kept"]))


def plan_tune_resumption(path: Path, content: dict[str, Any], *, restart: bool = False, **arguments: Any) -> TunePlan:
    """Plan what `purejaxrl.resume` would do in the run folder of a search, without changing any file.

    Args:
        path: The run folder.
        content: Content of its config.json.
        restart: As for `purejaxrl.resume`.
        **arguments: As for `replan_tune`.

    Returns:
        The plan.

    Raises:
        InputError: If an argument is not allowed, or results would be lost.
    """
    tune = replan_tune(content, **arguments)
    has_shards = bool(run_folder.find_shards(path))
    if restart and has_shards:
        raise InputError(f"--restart: {path} has shards to go on from; leave --restart out")
    if not restart and not has_shards and not run_folder.has_ended(path):
        check_nothing_is_lost(path)
        warn(f"{path} holds no shards and no results; the search begins anew", stacklevel=3)
    return tune


def plan_confirmation(tune: TunePlan, winner: int) -> Plan:
    """Plan the training that judges the winner of a search beside the preset, on seeds that the search has not seen.

    Args:
        tune: The search.
        winner: The setting that won.

    Returns:
        A sweep of two settings.

    Raises:
        InputError: If the preset does not fit the environment.
    """
    plan, best = tune.plan, tune.plan.settings[winner]
    options = dataclasses.replace(
        plan.options,
        seeds=tune.search.confirm_seeds,
        seed=plan.options.seed + plan.options.seeds,
        episodes_log="auto",
        random=None,
    )
    preset = {name: getattr(tune.baseline, name) for name in best.values}
    return plan_settings(
        plan.agent, options, [Setting(best.values, best.config), Setting(preset, tune.baseline)], is_sweep=True
    )
