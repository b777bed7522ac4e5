"""From the config.json of a run folder to its Plan again, and what may differ from the one before.

Names in the file are looked up in fixed tables; objects of a user's own, which have only labels there, must be given.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from purejaxrl.agents import AGENTS
from purejaxrl.components.hyperparameters import BUDGETS, as_whole, field_specs, find_budget
from purejaxrl.envs import env_name, with_params
from purejaxrl.envs.gymnax_params import check_same as check_params
from purejaxrl.envs.gymnax_params import replace
from purejaxrl.errors import CheckpointError, InputError, in_brief, warn
from purejaxrl.experiment import schema
from purejaxrl.experiment.labels import show
from purejaxrl.experiment.plan import (
    Options,
    Plan,
    agent_of,
    check_options,
    check_whole,
    is_built_in,
    plan_settings,
    recorded,
    recorded_params,
    with_whole_counts,
)
from purejaxrl.experiment.presets import as_dict, family_of
from purejaxrl.experiment.run_config import CUSTOM, as_tuple
from purejaxrl.experiment.settings import Setting
from purejaxrl.experiment.validation import uses_fraction
from purejaxrl.storage.files import plain
from purejaxrl.types import Agent, Env

# Options that config.json does not hold, or not by value.
NOT_RECORDED = ("random", "yes", "debug")
OBJECTS = ("env", "env_params", "renderer")
RECORDED = tuple(field.name for field in dataclasses.fields(Options) if field.name not in (*NOT_RECORDED, *OBJECTS))
KNOWN = {*RECORDED, *OBJECTS, "schema_version", "algorithm", "config", "swept", "settings", "versions", "processes"}

# Fields of config.json that do not decide what is learned; budgets may grow, too.
MAY_CHANGE = (
    "log_every",
    "device",
    "devices",
    "processes",
    "max_memory",
    "checkpoint_every",
    "fail_on_nan",
    "versions",
)


def replan(
    content: dict[str, Any],
    *,
    extend: int | None = None,
    agent: Agent | None = None,
    env: Any = None,
    env_params: Any = None,
    renderer: Any = None,
    **changes: Any,
) -> Plan:
    """The Plan of a config.json's content, of any schema version up to the present one.

    Raises InputError where it holds what is not allowed, lacks an object, or was written by a newer version.

    extend: a larger budget, in its own unit. changes: Options that take the place of those recorded, and the objects
    among hyperparameters, as `network`, which have only labels there (a list where they were swept); None for none.
    """
    refuse_newer(content)
    agent = find_agent(content, agent)
    content = up_to_date(content, agent)
    specs = field_specs(agent.Config)
    objects = {name: changes.pop(name) for name in [*changes] if name in specs and specs[name].is_object}
    options = Options(**(recorded_options(content) | found_objects(content, env, env_params, renderer)))
    changes = with_whole_counts({name: value for name, value in changes.items() if value is not None})
    unknown = sorted(changes.keys() - {field.name for field in dataclasses.fields(Options)})
    if unknown:
        raise InputError(f"{unknown[0]}: {agent.name} has no such hyperparameter")
    options = dataclasses.replace(options, **changes)
    check_options(options)
    found = [(values, config_of(agent, fields)) for values, fields in with_objects(content, agent, objects)]
    settings = [Setting({name: getattr(config, name) for name in values}, config) for values, config in found]
    if extend is not None:
        settings = [setting._replace(config=extend_budget(setting.config, extend)) for setting in settings]
    plan = plan_settings(agent, options, settings, is_sweep="settings" in content)
    if extend is not None:
        check_extendable(plan)
    return plan


def refuse_newer(content: dict[str, Any]) -> None:
    """Raise InputError that names the unknown fields of a config.json whose schema version is newer than ours."""
    if schema.version_of(content) > schema.SCHEMA_VERSION:
        label = content.get("algorithm")
        agent = AGENTS.get(label) if isinstance(label, str) else None
        raise InputError(schema.newer(content, unknown_names(content, agent)))


def unknown_names(content: dict[str, Any], agent: Agent | None) -> list[str]:
    """What config.json holds that is no option of ours, and no hyperparameter of the agent, if that is known."""
    unknown = sorted(content.keys() - KNOWN)
    settings = content.get("settings")
    parts = [content.get("config"), *(settings if isinstance(settings, list) else [])]
    fields = {name for part in parts if isinstance(part, dict) for name in part}
    return unknown + ([] if agent is None else sorted(fields - field_specs(agent.Config).keys()))


def up_to_date(content: dict[str, Any], agent: Agent) -> dict[str, Any]:
    """A content of config.json as the present version of the package, and of the agent, would have it.

    What an agent of a user's own has gained since is filled in with its defaults, as nothing else says what it was.
    Raises InputError naming the fields that are unknown.
    """
    family = family_of(agent)
    is_ours = family in AGENTS and issubclass(agent.Config, AGENTS[family].Config)
    content = schema.migrate(content, family if is_ours else "")
    unknown = unknown_names(content, agent)
    if unknown:
        names = ", ".join(map(in_brief, unknown))
        raise InputError(f"config.json: this version does not know {names}; {schema.writer(content)} wrote it")
    if is_built_in(agent):
        return content
    completed = schema.with_hyperparameters(content, plain(recorded(agent, as_dict(agent.Config()))))
    if completed != content:
        gained = completed["config"].keys() - content["config"].keys()
        values = ", ".join(f"{name} {in_brief(completed['config'][name])}" for name in sorted(gained))
        warn(f"config.json does not say what {agent.name} had here; its defaults are used: {values}", stacklevel=2)
    return completed


def find_agent(content: dict[str, Any], agent: Agent | None) -> Agent:
    """The Agent that a config.json names, or the one given where it is custom. Raises InputError."""
    label = content.get("algorithm")
    if isinstance(label, str) and label.startswith(CUSTOM):
        name = label.removeprefix(CUSTOM)
        if agent is None:
            raise InputError(f"config.json: algorithm {name!r} is an agent of your own; give it as agent=")
        if agent.name != name:
            raise InputError(f"agent: {agent.name!r} was given, and config.json names {name!r}")
        return agent_of(agent)
    if agent is not None:
        raise InputError(f"agent: config.json names {label!r}, which needs none")
    if not isinstance(label, str) or label not in AGENTS:
        raise InputError(
            f"config.json: algorithm {label!r}, of {schema.writer(content)}, is not one of {', '.join(AGENTS)}"
        )
    return AGENTS[label]


def found_objects(content: dict[str, Any], env: Any, env_params: Any, renderer: Any) -> dict[str, Any]:
    """Environment and renderer, by name or as given. Raises InputError where one is missing, or given in vain."""
    found: dict[str, Any] = {}
    for name, given in (("env", env), ("renderer", renderer)):
        label = content.get(name)
        if label is not None and not isinstance(label, str):
            raise InputError(f"config.json: {name} {label!r} is not a name")
        is_custom = str(label).startswith(CUSTOM)
        if is_custom and given is None:
            own_name = str(label).removeprefix(CUSTOM)
            raise InputError(f"config.json: {name} {own_name!r} is an object of your own; give {name}=")
        if not is_custom and given is not None:
            raise InputError(f"{name}: config.json names {label!r}, which needs none")
        found[name] = given if is_custom else label
    return found | {"env_params": found_params(content, found["env"], env_params)}


def found_params(content: dict[str, Any], env: Any, given: Any) -> Any:
    """The env_params that the training had, None for the defaults; those given where config.json cannot tell.

    Raises InputError where they are missing, or those given are not the same.
    """
    recorded = content.get("env_params")
    if env is None or isinstance(env, Env):
        return given
    if isinstance(recorded, str):
        if given is None:
            own_name = recorded.removeprefix(CUSTOM)
            raise InputError(f"config.json: env_params {own_name!r} is an object of your own; give env_params=")
        return given
    if recorded is not None and not isinstance(recorded, dict):
        raise InputError(f"config.json: env_params {recorded!r} is neither values by name nor a label")
    if "env_params" not in content:
        if given is None:
            text = f"config.json does not say which env_params {env_name(env)} had; its defaults are used"
            warn(f"{text}, unless you give env_params=", stacklevel=2)
        return given
    if recorded is None and given is None:
        return None
    _, _, default = with_params(env, None)
    before = default if recorded is None else replace("config.json: env_params", default, recorded)
    if given is not None:
        check_params(with_params(env, given)[1], before)
    return None if recorded is None else before


def objects_of(plan: Plan) -> dict[str, Any]:
    """The objects of a user's own that `replan` needs beside config.json to make this Plan."""
    given = {name: getattr(plan.options, name) for name in ("env", "env_params", "renderer")}
    given["env"] = None if isinstance(given["env"], str) else given["env"]
    if not isinstance(recorded_params(plan.options.env, plan.options.env_params), str):
        given["env_params"] = None
    given["agent"] = None if is_built_in(plan.agent) else plan.agent
    for name in [name for name, spec in field_specs(plan.agent.Config).items() if spec.is_object]:
        values = [getattr(setting.config, name) for setting in plan.settings]
        given[name] = list({show(value): value for value in values if value is not None}.values()) or None
    return {name: value for name, value in given.items() if value is not None}


def recorded_options(content: dict[str, Any]) -> dict[str, Any]:
    """Options as config.json has them. Raises InputError where one is missing."""
    missing = [name for name in RECORDED if name not in content]
    if missing:
        raise InputError(f"config.json: {missing[0]} is missing")
    options = {name: content[name] for name in RECORDED}
    # Several where settings differ, each by its default.
    if isinstance(options["log_every"], list):
        options["log_every"] = None
    for name in ("preset", "device", "episodes_log", "observation_type"):
        if not isinstance(options[name], str):
            raise InputError(f"config.json: {name} {options[name]!r} is not a text")
    return options


def recorded_settings(content: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Swept values and all fields of each setting. Raises InputError where they are no settings."""
    shared, settings, swept = content.get("config"), content.get("settings", [{}]), content.get("swept", [])
    is_sound = (
        isinstance(shared, dict)
        and isinstance(settings, list)
        and settings
        and all(isinstance(setting, dict) for setting in settings)
        and isinstance(swept, list)
        and all(isinstance(name, str) and name in setting for setting in settings for name in swept)
    )
    if not is_sound:
        raise InputError("config.json: config, settings and swept do not belong together")
    return [({name: as_tuple(own[name]) for name in swept}, {**(shared or {}), **own}) for own in settings]


def with_objects(
    content: dict[str, Any], agent: Agent, given: dict[str, Any]
) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """`recorded_settings` with the objects that are given where labels stand.

    Raises InputError where one is missing, is not what the label says, or is given in vain.
    """
    settings = recorded_settings(content)
    for name in [name for name, spec in field_specs(agent.Config).items() if spec.is_object]:
        values = given.get(name)
        by_label = {
            show(value): value for value in (values if isinstance(values, list) else [values]) if value is not None
        }
        labels = {str(fields[name]) for _, fields in settings if fields.get(name) is not None}
        for label in sorted(labels):
            own_name = label.removeprefix(CUSTOM)
            if not by_label:
                raise InputError(f"config.json: {name} {own_name!r} is an object of your own; give {name}=")
            if own_name not in by_label:
                raise InputError(f"{name}: {', '.join(by_label)} was given, and config.json names {own_name!r}")
        if by_label and not labels:
            raise InputError(f"{name}: config.json names none, and {', '.join(by_label)} was given")
        for _, fields in settings:
            if fields.get(name) is not None:
                fields[name] = by_label[str(fields[name]).removeprefix(CUSTOM)]
    return settings


def config_of(agent: Agent, fields: dict[str, Any]) -> Any:
    """A Config of recorded fields; its values are checked with the plan. Raises InputError where one is missing."""
    for name in field_specs(agent.Config):
        if name not in fields:
            raise InputError(f"config.json: {name} is missing among {agent.name}'s fields")
    return agent.Config(**{name: as_tuple(value) for name, value in fields.items()})


def extend_budget(config: Any, amount: Any) -> Any:
    """The Config with a larger budget. Raises InputError where it is not larger."""
    budget, amount = find_budget(config), as_whole(amount)
    check_whole("extend", amount, at_least=1)
    if amount <= budget.amount:
        raise InputError(f"--extend: {amount} is not more than the {budget.amount} {budget.kind} there were")
    return dataclasses.replace(config, **{budget.kind: amount})


def check_extendable(plan: Plan) -> None:
    """Raise InputError where a schedule of the agent depends on the budget, so that a larger one would be another run.

    That is seen in the agent's own program, which no agent can forget to declare.
    """
    for setting in plan.settings:
        name = uses_fraction(plan.agent, setting.config, setting.env)
        if name is not None:
            raise InputError(
                f"--extend: {name} of {plan.agent.name} depends on the share of the budget that is used "
                "(progress.fraction), as with --lr_anneal, so the budget cannot change"
            )


def check_same(plan: Plan, earlier: dict[str, Any]) -> None:
    """Raise CheckpointError naming every field that differs from what a checkpoint has, but for those that may.

    earlier: what the checkpoint holds of config.json, `up_to_date`.
    """
    now = plain(plan.as_dict())
    # Those of a user's own environment were not recorded at first.
    now, before = flat({name: now[name] for name in now if name != "env_params" or name in earlier}), flat(earlier)
    differing = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
    wrong = [name for name in differing if not may_differ(name, before.get(name), now.get(name))]
    if wrong:
        shown = ", ".join(f"{name} {before.get(name)!r} -> {now.get(name)!r}" for name in wrong)
        raise CheckpointError(f"config.json differs from what the checkpoint was written with: {shown}")


def may_differ(name: str, before: Any, now: Any) -> bool:
    """Whether this field may change from one value to another while a training is interrupted."""
    parts = name.split("/")
    if parts[0] in MAY_CHANGE:
        return True
    is_budget = parts[0] in ("config", "settings") and parts[-1] in BUDGETS
    return is_budget and isinstance(before, int) and isinstance(now, int) and now > before


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict: settings/0/lr."""
    if not isinstance(content, dict | list) or not content:
        return {prefix: content}
    items = content.items() if isinstance(content, dict) else enumerate(content)
    entries: dict[str, Any] = {}
    for name, value in items:
        entries |= flat(value, f"{prefix}/{name}" if prefix else str(name))
    return entries
